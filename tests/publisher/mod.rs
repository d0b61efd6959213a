//! The publisher on a real Kafka; where only a fault at the right moment shows something, on librdkafka's mock cluster.

mod delivering;
mod ending;
mod failing;
mod tokens;

use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use walrelay_events::event;
use walrelay_events::publisher::Config;
use walrelay_events::publisher::Pending;
use walrelay_events::publisher::Published;
use walrelay_events::publisher::Publisher;

use crate::support::kafka::Kafka;
use crate::support::reader;
use crate::support::reader::Record;

/// How long anything may take that is waited for.
const TIMEOUT: Duration = Duration::from_secs(120);

/// What the tests publish.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "event_type")]
enum MeterEvent {
    MeterRead { number: usize, pad: String },
}

fn read(number: usize) -> MeterEvent {
    padded(number, 0)
}

/// A reading whose record has more than so many bytes.
fn padded(number: usize, bytes: usize) -> MeterEvent {
    // Not compressible, so that a broker's limit counts it in full.
    let mut state = number as u64 + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'!' + u8::try_from((state >> 33) % 90).unwrap())
    };
    MeterEvent::MeterRead { number, pad: (0..bytes).map(|_| next()).collect() }
}

fn config(kafka: &Kafka) -> Config {
    let mut config = Config::new(&kafka.bootstrap(), "meters");
    config.delivery_timeout = TIMEOUT;
    config
}

fn publisher(kafka: &Kafka) -> Publisher {
    Publisher::new(config(kafka)).unwrap()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(future)
}

/// Enqueues readings of these numbers, one key for each remainder.
async fn enqueue(publisher: &Publisher, topic: &str, numbers: std::ops::Range<usize>, keys: usize) -> Vec<Pending> {
    let mut pending = Vec::new();
    for number in numbers {
        let key = format!("m{}", number % keys);
        pending.push(publisher.enqueue(topic, &key, &read(number)).await.unwrap());
    }
    pending
}

async fn all(pending: Vec<Pending>) -> Vec<Published> {
    let mut published = Vec::new();
    for pending in pending {
        published.push(pending.await.unwrap());
    }
    published
}

/// Gives the numbers in a topic of one partition, in order, without repetitions.
fn numbers(bootstrap: &str, topic: &str) -> Vec<usize> {
    let mut numbers: Vec<usize> = Vec::new();
    for record in reader::read_all(bootstrap, topic) {
        let number = number(&record);
        if !numbers.contains(&number) {
            numbers.push(number);
        }
    }
    numbers
}

fn number(record: &Record) -> usize {
    let value = record.value.as_deref().unwrap();
    let event::Decoded::Known(MeterEvent::MeterRead { number, .. }) =
        event::decode(record.header(event::EVENT_TYPE), value).unwrap()
    else {
        panic!("an unknown event")
    };
    number
}
