//! `make bench`: the relay against the floor of this machine, on the same log, in one run.
//!
//! For each shape the log is written once and drained several times: by `pg_recvlogical` into nothing, by a bare program that
//! reads and produces without headers, and by `walrelay run`; into librdkafka's mock cluster and into a real Kafka. Then the
//! latency from commit to consumer at steady rates. A table for people goes to standard error, one JSON line for each run to
//! standard output.
//!
//! `poll` compares the polling source with the log source, and is run only when it is named.
//!
//! `cargo bench --bench bench -- [drain] [latency] [poll] [--scale 0.1]`

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command for developers"
)]

mod bare;
mod latency;
mod poll;
mod subjects;

#[path = "../../tests/support/kafka.rs"]
#[allow(dead_code, unreachable_pub, missing_docs, reason = "shared with the tests")]
mod kafka;

use std::process::ExitCode;

use serde_json::Value;
use serde_json::json;
use walrelay::testing::Broker;
use walrelay::testing::Options;
use walrelay::testing::Postgres;

use kafka::Kafka;
use subjects::Run;
use subjects::Source;

/// Rows per transaction, and transactions.
const SHAPES: [(u32, u32); 3] = [(10, 100_000), (1, 300_000), (1_000_000, 1)];
const PAYLOAD_BYTES: u32 = 200;
const PARTITIONS: i32 = 4;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.first().map(String::as_str) {
        Some("bare") => bare::main(&arguments[1..]),
        Some("mock") => mock(),
        _ => compare(&arguments),
    }
    ExitCode::SUCCESS
}

/// A mock cluster in a process of its own, so that its CPU is not counted as the relay's.
fn mock() {
    let broker = Broker::start(1).unwrap();
    broker.create_topic("order-events", PARTITIONS).unwrap();
    println!("{}", broker.bootstrap());
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
}

fn compare(arguments: &[String]) {
    let scale = arguments
        .iter()
        .position(|argument| argument == "--scale")
        .map_or(1.0, |at| arguments[at + 1].parse().unwrap());
    let wants = |what: &str| {
        !arguments.iter().any(|it| it == "drain" || it == "latency" || it == "poll")
            || arguments.iter().any(|it| it == what)
    };
    let kafka = Kafka::start(1);
    kafka.create_topic("order-events", PARTITIONS);
    if wants("drain") {
        eprintln!(
            "{:<16} {:<16} {:>10} {:>9} {:>12} {:>8} {:>8}",
            "shape", "subject", "events/s", "of floor", "CPU-s/M", "of floor", "MB"
        );
        for (rows, transactions) in SHAPES {
            let scaled = |count: u32| ((f64::from(count) * scale) as u32).max(1);
            let (rows, transactions) = if transactions == 1 { (scaled(rows), 1) } else { (rows, scaled(transactions)) };
            drain(rows, transactions, &kafka);
        }
    }
    if wants("latency") {
        for rate in [1_000, 5_000] {
            let (name, more, running) = poll::SOURCES[0];
            latency::measure(rate, name, more, running, &kafka);
        }
    }
    if arguments.iter().any(|it| it == "poll") {
        poll::compare(scale, &kafka);
    }
}

fn drain(rows: u32, transactions: u32, kafka: &Kafka) {
    let options =
        Options { settings: vec!["max_wal_size = 16GB".into(), "autovacuum = off".into()], ..Options::default() };
    let postgres = Postgres::start(options).unwrap();
    let source = Source::fill(&postgres, rows, transactions, PAYLOAD_BYTES);
    let shape = format!("{rows} x {transactions}");
    let floor = source.pg_recvlogical();
    tell(&shape, "pg_recvlogical", &floor, &floor);
    let mock = subjects::Mock::start();
    for (sink, bootstrap) in [("mock", mock.bootstrap()), ("kafka", kafka.bootstrap())] {
        let bare = source.bare(&bootstrap);
        tell(&shape, &format!("bare, {sink}"), &bare, &floor);
        let relay = source.relay(&bootstrap, "");
        tell(&shape, &format!("walrelay, {sink}"), &relay, &floor);
        eprintln!("{:<16} {:<16} {:>10} {:>8.0}% (of bare)", "", "", "", 100.0 * relay.rate() / bare.rate());
        let plain = source.relay(&bootstrap, "headers = []\n");
        tell(&shape, &format!("no headers, {sink}"), &plain, &floor);
    }
}

fn tell(shape: &str, subject: &str, run: &Run, floor: &Run) {
    eprintln!(
        "{shape:<16} {subject:<16} {:>10.0} {:>8.0}% {:>12.2} {:>7.0}% {:>8}",
        run.rate(),
        100.0 * run.rate() / floor.rate(),
        run.cpu_per_million(),
        100.0 * run.cpu_per_million() / floor.cpu_per_million(),
        run.peak_megabytes
    );
    line(&json!({
        "bench": "drain", "shape": shape, "subject": subject, "events": run.events, "seconds": run.seconds,
        "events_per_second": run.rate(), "cpu_seconds_per_million": run.cpu_per_million(), "peak_megabytes": run.peak_megabytes,
        "rate_of_floor": run.rate() / floor.rate(),
    }));
}

fn line(value: &Value) {
    println!("{value}");
}
