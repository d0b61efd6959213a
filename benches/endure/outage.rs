//! Kafka is away for long, and the application goes on writing.

use std::fs;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;
use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;

use crate::EndureOptions;
use crate::MEMORY_LIMIT_MIB;
use crate::memory;
use crate::memory::Watch;
use crate::support::kafka::Kafka;
use crate::support::program::Program;
use crate::support::reader;
use crate::support::source::Sql;
use crate::writer::Writer;

const TOPIC: &str = "endure-outage";
const PARTITIONS: i32 = 4;
/// How long it runs before and after the outage.
const WELL: Duration = Duration::from_secs(20);
const TELL_INTERVAL: Duration = Duration::from_secs(15);
/// Catching up never takes this long; something stands still.
const STANDSTILL: Duration = Duration::from_secs(600);
const RETAINED: &str =
    "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint::text FROM pg_replication_slots";

/// How Kafka goes away.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Break {
    /// The process is gone: connections are refused.
    Kill,
    /// The process stands still: connections stay, nothing is answered.
    Freeze,
}

/// What was seen while Kafka was away.
#[derive(Default)]
struct Seen {
    most_mib: u64,
    retained_bytes: u64,
    slowest: Duration,
    unready_after: Option<Duration>,
    states: Vec<String>,
}

pub(crate) fn run(options: &EndureOptions) {
    let rate = options.events_per_second;
    eprintln!("Kafka away for {:?} ({:?}) at {rate} events/s", options.outage, options.by);
    let (postgres, mut kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::start(1));
    kafka.create_topic(TOPIC, PARTITIONS);
    let text = format!(
        "[[outbox]]\ntable = \"public.outbox_events\"\ntopic = \"{TOPIC}\"\n\n[source]\ndisconnect_on_stall_after = \
         \"{}\"\n",
        options.disconnect_on_stall_after
    );
    let mut program = Program::new(&postgres.url(), &kafka.bootstrap(), &text);
    program.setup();
    let sql = Sql::connect(&postgres.url());
    sql.prepare();
    program.start_streaming();
    let relay = Watch::start(program.pid().unwrap(), memory::RESIDENT);
    let writer = Writer::start(&postgres.url(), rate);
    thread::sleep(WELL);
    let before_mib = relay.most();
    eprintln!("  before: {before_mib} MiB at most, {} events written, all is well", writer.written());
    assert_eq!(program.get("/readyz").unwrap().0, 200);
    let _ = writer.slowest();

    match options.by {
        Break::Kill => kafka.kill(0),
        Break::Freeze => kafka.freeze(0),
    }
    let written_before = writer.written();
    let seen = during(options.outage, &mut program, &sql, &relay, &writer);
    let backlog = writer.written() - written_before;
    match options.by {
        Break::Kill => kafka.resume(0),
        Break::Freeze => kafka.thaw(0),
    }
    let (catching_up_seconds, after_mib) = catch_up(&mut program, &sql, &relay, backlog);

    let written = writer.stop();
    sql.await_all_confirmed(STANDSTILL);
    let verdict = reader::check(&reader::read_all(&kafka.bootstrap(), TOPIC), &sql.truth(), PARTITIONS);
    assert_eq!(u64::try_from(verdict.events).unwrap(), written, "every event that was written has arrived");
    eprintln!("  all {written} events have arrived, {} of them again, each key in order", verdict.repeated);
    let timeouts = walsender_timeouts(&postgres);
    eprintln!("  walsenders that timed out: {timeouts}");
    println!(
        "{}",
        json!({
            "endure": "outage", "by": format!("{:?}", options.by).to_lowercase(),
            "outage_seconds": options.outage.as_secs_f64(),
            "events_per_second": rate, "written": written, "repeated": verdict.repeated, "backlog": backlog,
            "catching_up_seconds": catching_up_seconds, "before_mib": before_mib, "during_mib": seen.most_mib,
            "after_mib": after_mib, "retained_wal_bytes": seen.retained_bytes,
            "slowest_write_seconds": seen.slowest.as_secs_f64(),
            "unready_after_seconds": seen.unready_after.map(|after| after.as_secs_f64()),
            "walsender_timeouts": timeouts,
            "states": seen.states,
        })
    );
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
    assert_eq!(timeouts, 0, "the server has given a walsender up");
    let most_mib = before_mib.max(seen.most_mib).max(after_mib);
    assert!(most_mib <= MEMORY_LIMIT_MIB, "{most_mib} MiB, more than {MEMORY_LIMIT_MIB}");
}

/// Looks every second until the time is over.
fn during(outage: Duration, program: &mut Program, sql: &Sql, relay: &Watch, writer: &Writer) -> Seen {
    let (began, mut reported) = (Instant::now(), Instant::now());
    let mut seen = Seen::default();
    let mut written = writer.written();
    while began.elapsed() < outage {
        thread::sleep(Duration::from_secs(1).min(outage.saturating_sub(began.elapsed())));
        assert!(program.ended().is_none(), "it has ended: {}", program.log());
        assert_eq!(program.get("/livez").unwrap().0, 200, "alive without Kafka");
        let status = status(program);
        let state = status["state"].as_str().unwrap().to_owned();
        if seen.states.last() != Some(&state) {
            eprintln!("  {:>4} s: {state}; {}", began.elapsed().as_secs(), status["last_error"]["text"]);
            seen.states.push(state);
        }
        if program.get("/readyz").unwrap().0 == 503 && seen.unready_after.is_none() {
            seen.unready_after = Some(began.elapsed());
        }
        seen.slowest = seen.slowest.max(writer.slowest());
        if reported.elapsed() < TELL_INTERVAL && began.elapsed() < outage {
            continue;
        }
        reported = Instant::now();
        let most_mib = relay.most();
        seen.most_mib = seen.most_mib.max(most_mib);
        let retained = program.metric("walrelay_slot_retained_wal_bytes").unwrap_or_default() as u64;
        let truly: u64 = sql.text(RETAINED).parse().unwrap();
        eprintln!(
            "  {:>4} s: {} MiB now, {most_mib} at most; retained {} MiB by its metric, {} by the server; {} written",
            began.elapsed().as_secs(),
            relay.now(),
            retained >> 20,
            truly >> 20,
            writer.written()
        );
        seen.retained_bytes = retained;
        assert!(writer.written() > written, "nothing was written for {TELL_INTERVAL:?}");
        written = writer.written();
        // What the server keeps is looked at every few seconds; it has grown a little since.
        if began.elapsed() > Duration::from_secs(60) {
            assert!(retained > truly / 2, "the metric says {retained} bytes of log are kept, the server {truly}");
        }
    }
    assert!(seen.unready_after.is_some() || outage < Duration::from_secs(60), "ready without Kafka for {outage:?}");
    seen
}

/// Waits until what had gathered is delivered, and a little longer; gives how long it took, and the most memory of it.
fn catch_up(program: &mut Program, sql: &Sql, relay: &Watch, backlog: u64) -> (f64, u64) {
    let (began, end) = (Instant::now(), sql.wal_end());
    program.await_state("streaming");
    let streaming = began.elapsed();
    sql.await_confirmed(end, STANDSTILL);
    let seconds = began.elapsed().as_secs_f64();
    eprintln!(
        "  Kafka is back: streaming after {:.1} s, the {backlog} events of the outage delivered after {seconds:.1} s",
        streaming.as_secs_f64()
    );
    thread::sleep(WELL);
    let after_mib = relay.most();
    eprintln!("  after: {after_mib} MiB at most, {} now", relay.now());
    assert_eq!(program.get("/readyz").unwrap().0, 200);
    (seconds, after_mib)
}

fn status(program: &Program) -> Value {
    serde_json::from_str(&program.get("/status").unwrap().1).unwrap()
}

fn walsender_timeouts(postgres: &Postgres) -> usize {
    let log = fs::read_to_string(postgres.folder().join("log")).unwrap();
    log.matches("terminating walsender process due to replication timeout").count()
}
