//! `make bench`: the program and the library against the floor of this machine, in one run.
//!
//! `drain`: a log that is written once and drained again and again: by `pg_recvlogical` into nothing, by a bare program
//! that reads and produces without headers, and by `walrelay run`; into librdkafka's mock cluster and into a real
//! Kafka. `latency`: from commit to consumer at steady rates, against a producer that is called right after the commit.
//! `poll`: the polling source against the log source. `consumer`: the consumer runtime against bare poll loops.
//!
//! Every comparison is made of rounds in which the subjects take turns, and every ratio is one of runs of the same
//! round. A table for people goes to standard error; one JSON line for each run to standard output, unless that is a
//! terminal.
//!
//! `cargo bench --bench bench -- [drain] [latency] [poll] [consumer] [--rounds 3] [--scale 1] [--rate 5000] [--against
//! walrelay]`: without a name, all but the last. `--against`, as often as needed, measures another build of the program
//! beside this one, under the name of its file.

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
mod consumer;
mod drain;
mod latency;
mod options;
mod poll;
mod process;
mod rounds;
mod subjects;

#[path = "../../tests/support/kafka.rs"]
#[allow(dead_code, unreachable_pub, missing_docs, reason = "shared with the tests")]
mod kafka;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use serde_json::Value;
use walrelay_events::testing::Broker;

use kafka::Kafka;
use options::Options;

const PAYLOAD_BYTES: u32 = 200;
const PARTITIONS: i32 = 4;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.first().map(String::as_str) {
        Some("bare") => bare::main(&arguments[1..]),
        Some("mock") => mock(),
        _ => compare(&Options::parse(&arguments)),
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

fn compare(options: &Options) {
    let kafka = Kafka::start(1);
    kafka.create_topic("order-events", PARTITIONS);
    if options.names("drain") || options.names_nothing() {
        drain::compare(options, &kafka);
    }
    let wants_latency = options.names("latency") || options.names_nothing();
    let wants_poll = options.names("poll") || options.names_nothing();
    if wants_latency || wants_poll {
        latency::warm_up(options, &kafka);
    }
    if wants_latency {
        latency::compare(options, &kafka);
    }
    if wants_poll {
        poll::compare(options, &kafka);
    }
    if options.names("consumer") {
        consumer::compare(options, &kafka);
    }
}

/// Writes one line for a program that reads them.
fn line(value: &Value) {
    if !std::io::stdout().is_terminal() {
        println!("{value}");
    }
}
