//! The consumer runtime against bare poll loops, on the same topic.
//!
//! With handlers that do nothing, what is measured is the runtime itself: lanes, tasks, outcomes, positions. The bare
//! loop looks at no header and keeps nothing, so a second one makes each record its own, as a program that hands it to
//! a task must. With one key, what is measured is how soon the next record of a lane starts. With handlers that wait a
//! millisecond, what is measured is what lanes are for; the bare loop then deals with one record at a time, and only
//! with as many as fit into a moment.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use std::time::Instant;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::Consumer as _;
use rdkafka::message::BorrowedMessage;
use rdkafka::producer::BaseProducer;
use rdkafka::producer::BaseRecord;
use rdkafka::producer::Producer as _;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use walrelay_events::consumer::Config;
use walrelay_events::consumer::Consumer;
use walrelay_events::consumer::Delivery;
use walrelay_events::consumer::Handler;
use walrelay_events::consumer::Outcome;

use crate::PARTITIONS;
use crate::kafka::Kafka;
use crate::line;
use crate::options::Options;
use crate::process;
use crate::rounds::Spread;
use crate::rounds::interleave;
use crate::subjects;

const TOPIC: &str = "consume";
const EVENTS: u32 = 1_000_000;
const KEYS: u32 = 1_000;
/// The topic whose events have all the same key.
const ONE_KEY: &str = "consume-one-key";
const ONE_KEY_EVENTS: u32 = 500_000;
/// Events of the runtime's runs with handlers that wait.
const WAITING: u32 = 200_000;
const WAIT: Duration = Duration::from_millis(1);
/// Events of a loop that waits for each.
const SEQUENTIAL: u32 = 1_500;

/// What one run took, from its first event to the end of its last.
struct Run {
    events: u32,
    seconds: f64,
    cpu_seconds: f64,
}

impl Run {
    fn rate(&self) -> f64 {
        f64::from(self.events) / self.seconds
    }
}

/// A name, which subject is its floor, and what consumes as a group of that name.
type Subject<'s> = (&'s str, usize, &'s dyn Fn(&str) -> Run);

/// What is compared, of which subject with which floor, and the least that it should be.
const GOALS: [(&str, usize, Option<usize>, f64); 4] = [
    ("of the poll loop", 2, Some(0), 0.6),
    ("of the poll loop, owning", 2, Some(1), 1.0),
    ("one key, events/s", 4, None, 100_000.0),
    ("1 ms, of the poll loop", 6, Some(5), 200.0),
];

pub(crate) fn compare(options: &Options, kafka: &Kafka) {
    let (events, hot, waiting) = (options.scaled(EVENTS), options.scaled(ONE_KEY_EVENTS), options.scaled(WAITING));
    for (topic, partitions) in [(TOPIC, PARTITIONS), (ONE_KEY, 1)] {
        kafka.create_topic(topic, partitions);
        kafka.create_topic(&format!("{topic}.dlq"), 1);
    }
    let kafka = &kafka.bootstrap();
    fill(kafka, TOPIC, events, KEYS);
    fill(kafka, ONE_KEY, hot, 1);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let sleep = || runtime.block_on(async { tokio::time::sleep(WAIT).await });
    let subjects: [Subject<'_>; 7] = [
        ("poll loop", 0, &|group| poll(kafka, TOPIC, group, events, |_| ())),
        ("poll loop, owning", 0, &|group| poll(kafka, TOPIC, group, events, |message| drop(message.detach()))),
        ("runtime", 0, &|group| consume(&runtime, kafka, TOPIC, group, events, None)),
        ("poll loop, one key", 3, &|group| poll(kafka, ONE_KEY, group, hot, |_| ())),
        ("runtime, one key", 3, &|group| consume(&runtime, kafka, ONE_KEY, group, hot, None)),
        ("poll loop, 1 ms", 5, &|group| poll(kafka, TOPIC, group, SEQUENTIAL, |_| sleep())),
        ("runtime, 1 ms", 5, &|group| consume(&runtime, kafka, TOPIC, group, waiting, Some(WAIT))),
    ];
    let runs = interleave(options.rounds, subjects.len(), |at, round| {
        let (subject, _, run) = subjects[at];
        let run = run(&format!("group-{at}-{round}"));
        line(&json!({
            "bench": "consumer", "subject": subject, "round": round, "events": run.events, "seconds": run.seconds,
            "events_per_second": run.rate(), "cpu_seconds_per_million": run.cpu_seconds * 1e6 / f64::from(run.events),
        }));
        run
    });
    eprintln!("\nconsumer: {events} events, {KEYS} keys, {PARTITIONS} partitions; {} rounds", options.rounds);
    eprintln!("{:<19}{:>10}{:>12}{:>20}{:>10}", "handlers", "events/s", "least-most", "of the loop", "CPU-s/M");
    for (at, (subject, floor, _)) in subjects.iter().enumerate() {
        let rate = Spread::of(runs[at].iter().map(Run::rate));
        let ratio = Spread::of_ratios(&runs[at], &runs[*floor], Run::rate);
        let ratio = if at == *floor { String::new() } else { ratio.shown(2) };
        let cpu = Spread::of(runs[at].iter().map(|run| run.cpu_seconds * 1e6 / f64::from(run.events)));
        eprintln!("{subject:<19}{:>10.0}{:>12}{ratio:>20}{:>10.2}", rate.median, rate.ends(), cpu.median);
    }
    eprintln!();
    for (what, subject, floor, goal) in GOALS {
        let reached = match floor {
            Some(floor) => Spread::of_ratios(&runs[subject], &runs[floor], Run::rate),
            None => Spread::of(runs[subject].iter().map(Run::rate)),
        };
        let is_reached = if reached.median >= goal { "reached" } else { "missed" };
        eprintln!("{what:<26}{:>24}   goal {goal}: {is_reached}", reached.shown(2));
    }
}

/// Writes events as the relay would: key, payload and three headers.
fn fill(bootstrap: &str, topic: &str, events: u32, keys: u32) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("compression.type", "lz4")
        .set("linger.ms", "20")
        .set("queue.buffering.max.messages", "2000000")
        .create()
        .unwrap();
    let mut noise = 0x2545_F491_4F6C_DD1D_u64;
    for event in 0..events {
        let mut payload = String::from("{\"pad\": \"");
        for _ in 0..12 {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            payload += &format!("{noise:016x}");
        }
        payload += "\"}";
        let (key, id) = (format!("o-{}", event % keys), format!("{noise:036x}"));
        let headers = subjects::headers(&id, "2026-01-01T00:00:00.000000Z");
        producer
            .send(BaseRecord::to(topic).key(&key).payload(&payload).headers(headers))
            .map_err(|(error, _)| error)
            .unwrap();
        if event % 1_024 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(Duration::from_secs(60)).unwrap();
}

/// The floor: a loop around a poll, which deals with one record after the other.
fn poll(bootstrap: &str, topic: &str, group: &str, events: u32, deal: impl Fn(&BorrowedMessage<'_>)) -> Run {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        // With the default of a second, a slower loop mostly waits for its next fetch.
        .set("fetch.queue.backoff.ms", "10")
        .create()
        .unwrap();
    consumer.subscribe(&[topic]).unwrap();
    let mut clock = None;
    let (mut count, mut bytes) = (0, 0);
    while count < events {
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        clock.get_or_insert_with(Clock::start);
        let message = message.unwrap();
        bytes += message.payload_len();
        deal(&message);
        count += 1;
    }
    assert!(bytes > 0, "the payloads are there");
    clock.unwrap().stop(events)
}

/// The runtime, with handlers that wait for so long, or not at all.
fn consume(runtime: &Runtime, bootstrap: &str, topic: &str, group: &str, events: u32, wait: Option<Duration>) -> Run {
    let counting = Arc::new(Counting {
        events,
        wait,
        clock: OnceLock::new(),
        count: AtomicU32::new(0),
        ran: Mutex::new(None),
        is_over: Notify::new(),
    });
    let consumer = Consumer::new(Config::new(bootstrap, group, &[topic]), Counts(Arc::clone(&counting)));
    runtime.block_on(consumer.run(counting.is_over.notified())).unwrap();
    counting.ran.lock().unwrap().take().unwrap()
}

/// The handler.
struct Counts(Arc<Counting>);

struct Counting {
    events: u32,
    wait: Option<Duration>,
    clock: OnceLock<Clock>,
    count: AtomicU32,
    ran: Mutex<Option<Run>>,
    is_over: Notify,
}

impl Handler for Counts {
    async fn handle(&self, _: Delivery) -> Outcome {
        let counting = &*self.0;
        let clock = counting.clock.get_or_init(Clock::start);
        if let Some(wait) = counting.wait {
            tokio::time::sleep(wait).await;
        }
        if counting.count.fetch_add(1, Relaxed) + 1 == counting.events {
            *counting.ran.lock().unwrap() = Some(clock.stop(counting.events));
            counting.is_over.notify_one();
        }
        Outcome::Ack
    }
}

/// When a run began, and what the process had used by then.
struct Clock {
    began: Instant,
    cpu_seconds: f64,
}

impl Clock {
    fn start() -> Self {
        Self { began: Instant::now(), cpu_seconds: process::usage(std::process::id()).0 }
    }

    fn stop(&self, events: u32) -> Run {
        let cpu_seconds = process::usage(std::process::id()).0 - self.cpu_seconds;
        Run { events, seconds: self.began.elapsed().as_secs_f64(), cpu_seconds }
    }
}
