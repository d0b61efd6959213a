//! `walrelay demo`: from a plain SQL insert to a consumer, on this machine.
//!
//! It starts a throwaway PostgreSQL, an in-process Kafka (librdkafka's mock cluster) and the same relay as `run`.
//! An application writes orders and their events, one transaction each. A consumer prints the records.

mod application;
mod consumer;
mod error;
mod options;
mod show;

use std::io::Write;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use crate::relay;
use crate::relay::metrics::Metrics;
use crate::relay::setup;
use crate::relay::setup::SetupOptions;
use walrelay_events::testing;
use walrelay_events::testing::Broker;
use walrelay_events::testing::Postgres;

use application::Application;
use consumer::Consumer;
pub use error::Error;
pub use options::Form;
pub use options::Options;
use show::Show;

const TOPIC: &str = "order-events";
const PARTITIONS: i32 = 3;
/// A delivery that takes longer has failed.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);

/// How the demo ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ended {
    /// All records were shown.
    Shown,
    /// A signal stopped it.
    Interrupted,
}

/// Runs the demo once; `stop` ends it early. Records go to `out`, everything else to `notes`.
pub fn run(
    options: Options,
    stop: &CancellationToken,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> Result<Ended, Error> {
    let began = Instant::now();
    let mut show = Show::new(options, out, notes);
    show.note("starting a throwaway PostgreSQL and an in-process Kafka")?;
    let postgres = Postgres::start(testing::Options::default())?;
    let broker = Broker::start(1)?;
    broker.create_topic(TOPIC, PARTITIONS)?;
    let settings = settings(&postgres, &broker);

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let setup_options = SetupOptions { with_outbox: true, ..SetupOptions::default() };
    let mut steps = Vec::new();
    runtime.block_on(setup::apply(&settings, &setup_options, &mut |step| steps.push(step.to_owned())))?;
    for step in steps {
        show.note(&step)?;
    }

    // A child token: its cancellation is the end of the demo, not an interruption.
    let over = stop.child_token();
    let relay = Relaying::start(settings, over.clone())?;
    let mut consumer = Consumer::subscribe(&broker.bootstrap(), TOPIC, PARTITIONS).map_err(Error::Read)?;
    show.note("the relay is running; an application writes orders, one transaction each")?;
    let mut application = Application::connect(&runtime, &postgres.url())?;
    let mut written = 0;
    for number in 1..=options.orders {
        if stop.is_cancelled() {
            break;
        }
        written += application.order(&runtime, number)?;
        if options.is_watched {
            thread::sleep(Duration::from_millis(120));
            while let Some(record) = consumer.poll(Duration::ZERO).map_err(Error::Read)? {
                show.record(&record)?;
            }
        }
    }
    let waiting_since = Instant::now();
    while show.records() < written && !stop.is_cancelled() {
        if let Some(record) = consumer.poll(Duration::from_millis(50)).map_err(Error::Read)? {
            show.record(&record)?;
        }
        if relay.has_ended() {
            break;
        }
        if waiting_since.elapsed() > DELIVERY_TIMEOUT {
            return Err(Error::Missing { missing: written - show.records(), after: DELIVERY_TIMEOUT });
        }
    }
    over.cancel();
    relay.join()?;
    if stop.is_cancelled() {
        show.note("interrupted; the throwaway servers are stopped")?;
        return Ok(Ended::Interrupted);
    }
    show.note(&format!(
        "{} orders, {} events, {} records read; drained and confirmed; {:.1} s in all",
        options.orders,
        written,
        show.records(),
        began.elapsed().as_secs_f64()
    ))?;
    Ok(Ended::Shown)
}

/// The same relay as `run`, on a thread of its own.
struct Relaying(thread::JoinHandle<Result<(), relay::Error>>);

impl Relaying {
    fn start(settings: relay::Settings, stop: CancellationToken) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let run = move || runtime.block_on(relay::run(settings, Metrics::default(), stop));
        Ok(Self(thread::Builder::new().name("relay".to_owned()).spawn(run)?))
    }

    fn has_ended(&self) -> bool {
        self.0.is_finished()
    }

    fn join(self) -> Result<(), Error> {
        match self.0.join() {
            Ok(ended) => Ok(ended?),
            Err(panicked) => std::panic::resume_unwind(panicked),
        }
    }
}

fn settings(postgres: &Postgres, broker: &Broker) -> relay::Settings {
    relay::Settings {
        relay: relay::Config { name: "demo".to_owned() },
        source: relay::SourceOptions::default(),
        postgres: relay::postgres::Config { url: postgres.url(), ..relay::postgres::Config::default() },
        outboxes: vec![relay::record::route::Config::default()],
        kafka: relay::publish::Config { brokers: vec![broker.bootstrap()], ..relay::publish::Config::default() },
        delivery: relay::DeliveryOptions::default(),
        shutdown: relay::ShutdownOptions::default(),
    }
}
