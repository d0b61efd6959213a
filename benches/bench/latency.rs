//! From the commit in PostgreSQL to the consumer of Kafka, at a steady rate of one event per transaction.
//!
//! The floor writes the same rows at the same rate, and hands each to a producer of its own right after the commit has
//! returned: what the way through Kafka costs by itself, with a producer that is set up as the relay's. Its clock
//! starts when the client hears of the commit, the relay's a little earlier, at the time that PostgreSQL notes for it.

use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use rdkafka::TopicPartitionList;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::Consumer as _;
use rdkafka::message::Headers as _;
use rdkafka::message::Message as _;
use rdkafka::producer::BaseRecord;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::producer::Producer as _;
use rdkafka::producer::ThreadedProducer;
use rdkafka::topic_partition_list::Offset;
use serde_json::json;
use tokio_postgres::NoTls;
use walrelay_events::testing;
use walrelay_events::testing::Postgres;

use crate::PARTITIONS;
use crate::PAYLOAD_BYTES;
use crate::kafka::Kafka;
use crate::kafka::free_port;
use crate::line;
use crate::options::Options;
use crate::process;
use crate::rounds::Spread;
use crate::rounds::interleave;
use crate::subjects;

/// How long one run writes.
const SECONDS: f64 = 10.0;
/// The first seconds warm up.
const WARM_UP: Duration = Duration::from_secs(2);
const WRITERS: u64 = 2;
const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

/// How events get from the commit to Kafka.
#[derive(Clone, Copy)]
pub(crate) enum Way {
    /// The application hands them to its own producer.
    Producer,
    /// The relay, with this in its configuration; it works when its log says this.
    Relay { program: &'static str, more: &'static str, running: &'static [&'static str] },
}

impl Way {
    /// The relay with its log source.
    pub(crate) const fn log(program: &'static str) -> Self {
        Self::Relay { program, more: "", running: subjects::STREAMING }
    }
}

/// What one run gave, in milliseconds.
struct Run {
    latencies: Vec<f64>,
    /// The relay's CPU seconds for each second.
    cpu: f64,
}

impl Run {
    fn at(&self, share: f64) -> f64 {
        self.latencies[((self.latencies.len() - 1) as f64 * share) as usize]
    }
}

pub(crate) fn compare(options: &Options, kafka: &Kafka) {
    let mut ways = vec![("bare", Way::Producer), ("walrelay", Way::log(subjects::WALRELAY))];
    ways.extend(options.against.iter().map(|(name, program)| (*name, Way::log(program))));
    for &rate in &options.rates {
        compare_at(rate, &ways, options, kafka);
    }
}

/// The broker's first seconds are those of a cold JVM: they count for nobody.
pub(crate) fn warm_up(options: &Options, kafka: &Kafka) {
    for round in 0..options.rounds.min(2) {
        measure(5_000, "warm-up", Way::log(subjects::WALRELAY), round, options, kafka);
    }
}

/// Compares ways at one rate; the first is the floor.
pub(crate) fn compare_at(rate: u64, ways: &[(&str, Way)], options: &Options, kafka: &Kafka) {
    let runs = interleave(options.rounds, ways.len(), |at, round| {
        let (name, way) = ways[at];
        measure(rate, name, way, round, options, kafka)
    });
    eprintln!("\nlatency at {rate} events/s, each its own transaction; {} rounds", options.rounds);
    eprintln!("{:<10} {:>19} {:>20} {:>20} {:>5}", "", "p50 ms", "p99 ms", "p99.9 ms", "CPU");
    for (at, (name, way)) in ways.iter().enumerate() {
        let shown = |share: f64| Spread::of(runs[at].iter().map(|run| run.at(share))).shown(2);
        let cpu = match way {
            Way::Producer => String::new(),
            Way::Relay { .. } => Spread::of(runs[at].iter().map(|run| run.cpu)).percent(),
        };
        eprintln!("{name:<10} {:>19} {:>20} {:>20} {cpu:>5}", shown(0.5), shown(0.99), shown(0.999));
        if at > 0 {
            let ratio = |share: f64| Spread::of_ratios(&runs[at], &runs[0], |run| run.at(share)).shown(1);
            eprintln!(
                "{:<10} {:>19} {:>20} {:>20}",
                format!(" / {}", ways[0].0),
                ratio(0.5),
                ratio(0.99),
                ratio(0.999)
            );
        }
    }
}

fn measure(rate: u64, name: &str, way: Way, round: usize, options: &Options, kafka: &Kafka) -> Run {
    let topic = format!("latency-{name}-{rate}-{round}");
    kafka.create_topic(&topic, PARTITIONS);
    let postgres = Postgres::start(testing::Options::default()).unwrap();
    let mut relay = start(way, &postgres, &topic, kafka);
    let is_over = Arc::new(AtomicBool::new(false));
    let reader = {
        let (bootstrap, topic, is_over) = (kafka.bootstrap(), topic.clone(), Arc::clone(&is_over));
        thread::spawn(move || read(&bootstrap, &topic, &is_over))
    };
    let sender = matches!(way, Way::Producer).then(|| Sender::new(&kafka.bootstrap(), &topic));
    let lasts = Duration::from_secs_f64(WARM_UP.as_secs_f64() + SECONDS * options.scale);
    let began = Instant::now();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (url, sender) = (postgres.url(), sender.clone());
            thread::spawn(move || write(&url, writer, rate / WRITERS, lasts, sender.as_ref()))
        })
        .collect();
    thread::sleep(WARM_UP);
    let before = relay.as_ref().map(|relay| process::threads(relay.id()));
    let steady = Instant::now();
    let written: u64 = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
    let steady = steady.elapsed().as_secs_f64();
    let after = relay.as_ref().map(|relay| process::threads(relay.id()));
    let achieved = written as f64 / began.elapsed().as_secs_f64();
    thread::sleep(Duration::from_secs(1));
    is_over.store(true, Relaxed);
    let mut latencies = reader.join().unwrap();
    if let Some(relay) = &mut relay {
        subjects::stop(relay);
    }
    latencies.sort_by(f64::total_cmp);
    let threads = used(&before.unwrap_or_default(), &after.unwrap_or_default());
    let run = Run { latencies, cpu: threads.iter().map(|thread| thread.cpu_seconds).sum::<f64>() / steady };
    let events = achieved * steady;
    let threads: Vec<_> = threads
        .iter()
        .map(|it| json!({"name": it.name, "cpu": it.cpu_seconds / steady, "waits_per_event": it.waits as f64 / events}))
        .collect();
    let quantiles: serde_json::Map<_, _> =
        QUANTILES.iter().map(|(name, share)| (format!("{name}_ms"), json!(run.at(*share)))).collect();
    line(&json!({
        "bench": "latency", "subject": name, "rate": rate, "round": round, "achieved": achieved,
        "events": run.latencies.len(), "latency": quantiles, "cpu": run.cpu, "threads": threads,
    }));
    run
}

/// What threads have used between two looks.
fn used(before: &[process::Thread], after: &[process::Thread]) -> Vec<process::Thread> {
    let since = |thread: &process::Thread| {
        let earlier = before.iter().find(|earlier| earlier.id == thread.id);
        process::Thread {
            cpu_seconds: thread.cpu_seconds - earlier.map_or(0.0, |earlier| earlier.cpu_seconds),
            waits: thread.waits - earlier.map_or(0, |earlier| earlier.waits),
            ..thread.clone()
        }
    };
    after.iter().map(since).filter(|thread| thread.waits > 0).collect()
}

/// Makes what the way needs in PostgreSQL, and starts the relay if there is one.
fn start(way: Way, postgres: &Postgres, topic: &str, kafka: &Kafka) -> Option<Child> {
    let (more, runs) = match way {
        Way::Producer => ("", None),
        Way::Relay { program, more, running } => (more, Some((program, running))),
    };
    let config = subjects::config(postgres, &kafka.bootstrap(), &format!("topic = \"{topic}\"\n{more}"), free_port());
    subjects::walrelay(&config, &["setup", "--apply", "--with-outbox"]);
    runs.map(|(program, running)| subjects::run(program, &config, running))
}

/// Commits one event per transaction at a steady rate; gives how many.
fn write(url: &str, writer: u64, rate: u64, lasts: Duration, sender: Option<&Sender>) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        tokio::spawn(connection);
        let insert = client
            .prepare(
                "INSERT INTO outbox_events (aggregate_type, aggregate_id, event_type, payload)
                 VALUES ('Order', $1, 'Created', to_jsonb($2::text))",
            )
            .await
            .unwrap();
        let began = Instant::now();
        let payload = "x".repeat(PAYLOAD_BYTES as usize);
        let mut count = 0;
        while began.elapsed() < lasts {
            let due = Duration::from_secs_f64(count as f64 / rate as f64);
            if let Some(wait) = due.checked_sub(began.elapsed()) {
                thread::sleep(wait);
            }
            let key = format!("k{}", (count * WRITERS + writer) % 1_000);
            client.execute(&insert, &[&key, &payload]).await.unwrap();
            if let Some(sender) = sender {
                sender.send(&key, &payload);
            }
            count += 1;
        }
        count
    })
}

/// The application's own producer.
#[derive(Clone)]
struct Sender {
    producer: ThreadedProducer<DefaultProducerContext>,
    topic: String,
}

impl Sender {
    fn new(bootstrap: &str, topic: &str) -> Self {
        let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("enable.idempotence", "true")
            .set("compression.type", "lz4")
            .set("linger.ms", "1")
            .set("socket.nagle.disable", "true")
            .create()
            .unwrap();
        // The first record is not to wait for it.
        producer.client().fetch_metadata(Some(topic), Duration::from_secs(10)).unwrap();
        Self { producer, topic: topic.to_owned() }
    }

    /// With the headers that the relay gives.
    fn send(&self, key: &str, payload: &str) {
        // As long as the id of an event.
        let id = format!("{key:0>36}");
        let headers = subjects::headers(&id, &humantime::format_rfc3339_micros(SystemTime::now()).to_string());
        let record = BaseRecord::to(&self.topic).key(key).payload(payload).headers(headers);
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
    }
}

/// Reads records as they come; gives the milliseconds since each one's commit.
fn read(bootstrap: &str, topic: &str, is_over: &AtomicBool) -> Vec<f64> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "latency")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "100")
        .create()
        .unwrap();
    let mut assignment = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        assignment.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&assignment).unwrap();
    let mut began = None;
    let mut latencies = Vec::new();
    while !is_over.load(Relaxed) {
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
        let now = SystemTime::now();
        let headers = message.headers().unwrap();
        let committed = headers.iter().find(|header| header.key == "produced_at").unwrap().value.unwrap();
        let committed = humantime::parse_rfc3339(std::str::from_utf8(committed).unwrap()).unwrap();
        if began.get_or_insert_with(Instant::now).elapsed() > WARM_UP {
            latencies.push(now.duration_since(committed).unwrap_or_default().as_secs_f64() * 1e3);
        }
    }
    latencies
}
