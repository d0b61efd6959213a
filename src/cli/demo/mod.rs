//! `walrelay demo`: the whole way on this machine, from a plain SQL insert to what a consumer reads.
//!
//! A throwaway PostgreSQL, an in-process Kafka (librdkafka's mock cluster), and the very same relay that `run` starts. An
//! application writes orders and their events in one transaction each; a consumer prints what arrives.

mod application;
mod consumer;
mod show;

use std::io;
use std::io::Write;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use crate::relay;
use crate::relay::metrics::Metrics;
use crate::relay::setup;
use crate::relay::setup::SetupOptions;
use walrelay_events::fault::Code;
use walrelay_events::fault::Diagnose;
use walrelay_events::fault::Exit;
use walrelay_events::fault::Fate;
use walrelay_events::testing;
use walrelay_events::testing::Broker;
use walrelay_events::testing::Postgres;

use application::Application;
use consumer::Consumer;
pub use show::Form;
use show::Show;

/// The topic to which the outbox of the demo leads.
const TOPIC: &str = "order-events";
const PARTITIONS: i32 = 3;
/// No event takes this long on one machine; something is wrong then.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the demo does.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many orders are written.
    pub orders: u32,
    /// How records are printed.
    pub form: Form,
    /// Colour and a pause between orders, for a person who watches.
    pub is_watched: bool,
}

/// How the demo ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ended {
    /// Everything was shown.
    Shown,
    /// It was told to stop.
    Interrupted,
}

/// The demo cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A throwaway server cannot be started.
    #[error(transparent)]
    Testing(#[from] testing::Error),
    /// Publication, slot or position cannot be set up.
    #[error(transparent)]
    Setup(#[from] setup::Error),
    /// The relay stopped.
    #[error(transparent)]
    Relay(#[from] relay::Error),
    /// The application cannot write.
    #[error("write an order")]
    Write(#[source] tokio_postgres::Error),
    /// The consumer cannot read.
    #[error("read from Kafka")]
    Read(#[source] rdkafka::error::KafkaError),
    /// Not everything arrived.
    #[error("{missing} events have not arrived after {} s", PATIENCE.as_secs())]
    Missing {
        /// How many.
        missing: usize,
    },
    /// Standard output is gone, or a thread cannot be started.
    #[error("show the demo")]
    Io(#[from] io::Error),
}

impl Error {
    /// Says whether nobody reads what we print any more.
    #[must_use]
    pub fn is_closed_output(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl Diagnose for Error {
    fn code(&self) -> Code {
        match self {
            Self::Testing(error) => error.code(),
            Self::Setup(error) => error.code(),
            Self::Relay(error) => error.code(),
            Self::Write(_) | Self::Read(_) | Self::Missing { .. } | Self::Io(_) => Code::new(Exit::Internal, 30),
        }
    }

    fn fate(&self) -> Fate {
        Fate::Fatal
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::Testing(error) => error.help(),
            Self::Setup(error) => error.help(),
            Self::Relay(error) => error.help(),
            Self::Write(_) | Self::Read(_) | Self::Missing { .. } | Self::Io(_) => None,
        }
    }
}

/// Shows the whole way once, and ends by itself, or earlier if `stop` is cancelled. Records go to `out`, everything else to
/// `notes`.
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

    // A child: a stop of ours ends the relay, and is not taken for one from outside.
    let over = stop.child_token();
    let relay = Relaying::start(settings, over.clone())?;
    let mut consumer = Consumer::subscribe(&broker.bootstrap(), TOPIC, PARTITIONS).map_err(Error::Read)?;
    show.note("the relay runs; an application writes orders, one transaction each")?;
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
    let patience = Instant::now();
    while show.records() < written && !stop.is_cancelled() {
        if let Some(record) = consumer.poll(Duration::from_millis(50)).map_err(Error::Read)? {
            show.record(&record)?;
        }
        if relay.has_ended() {
            break;
        }
        if patience.elapsed() > PATIENCE {
            return Err(Error::Missing { missing: written - show.records() });
        }
    }
    over.cancel();
    relay.join()?;
    if stop.is_cancelled() {
        show.note("interrupted; the throwaway servers are gone")?;
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
