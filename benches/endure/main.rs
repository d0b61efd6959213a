//! `make endure`: what takes too long for `make test`, on real servers and with the real program.
//!
//! `transaction` relays one transaction of a million rows, and looks at the memory on both sides and at every record.
//! `outage` takes Kafka away for ten minutes under steady writes, and looks at what the relay says, holds and makes
//! good. `shutdown` stops PostgreSQL, in the five situations in which the relay could hold that up, and `return`
//! crashes PostgreSQL and a broker: how long it takes, and how soon events flow again (`WALRELAY_PG_BIN` selects the
//! server). Progress and findings go to standard error, one JSON line for each run to standard output; it ends with 0
//! only if everything held that is guaranteed. Durations are printed and not judged.
//!
//! `cargo bench --bench endure -- [transaction] [outage] [shutdown] [return] [--rows 1000000] [--outage 600s] [--rate
//! 500] [--by kill|freeze] [--disconnect-on-stall-after 30s] [--trials 20]`

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command for developers"
)]

mod comeback;
mod figures;
mod memory;
mod outage;
mod shutdown;
mod transaction;
mod writer;

#[path = "../../tests/support/mod.rs"]
#[allow(dead_code, unreachable_pub, missing_docs, reason = "shared with the tests")]
mod support;

use std::time::Duration;

use outage::Break;

/// What the budget of `delivery.max_in_flight_bytes` is by default, and what may come on top of it.
const MEMORY_LIMIT_MIB: u64 = 32 + 40;

/// How often a shutdown is measured in each situation, and a return.
const SHUTDOWNS: usize = 5;
const RETURNS: usize = 20;

/// What is asked for on the command line.
struct EndureOptions {
    runs: Vec<String>,
    rows: u64,
    outage: Duration,
    events_per_second: u32,
    by: Break,
    disconnect_on_stall_after: String,
    trials: Option<usize>,
}

fn main() {
    let options = read(std::env::args().skip(1).filter(|argument| argument != "--bench"));
    let wants = |what: &str| options.runs.is_empty() || options.runs.iter().any(|run| run == what);
    if wants("transaction") {
        transaction::run(options.rows);
    }
    if wants("outage") {
        outage::run(&options);
    }
    if wants("shutdown") {
        shutdown::run(options.trials.unwrap_or(SHUTDOWNS));
    }
    if wants("return") {
        comeback::run(options.trials.unwrap_or(RETURNS));
    }
}

fn read(mut arguments: impl Iterator<Item = String>) -> EndureOptions {
    let mut options = EndureOptions {
        runs: Vec::new(),
        rows: 1_000_000,
        outage: Duration::from_secs(600),
        events_per_second: 500,
        by: Break::Kill,
        disconnect_on_stall_after: "30s".to_owned(),
        trials: None,
    };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} needs a value"));
        match argument.as_str() {
            "transaction" | "outage" | "shutdown" | "return" => options.runs.push(argument),
            "--rows" => options.rows = value().parse().unwrap(),
            "--outage" => options.outage = humantime::parse_duration(&value()).unwrap(),
            "--rate" => options.events_per_second = value().parse().unwrap(),
            "--by" => {
                options.by = match value().as_str() {
                    "kill" => Break::Kill,
                    "freeze" => Break::Freeze,
                    other => panic!("--by {other}: neither kill nor freeze"),
                }
            }
            "--disconnect-on-stall-after" => options.disconnect_on_stall_after = value(),
            "--trials" => options.trials = Some(value().parse().unwrap()),
            _ => panic!("{argument}: see the head of benches/endure/main.rs"),
        }
    }
    options
}
