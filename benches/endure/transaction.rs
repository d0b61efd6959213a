//! One transaction of a million rows: the memory it takes, and whether it arrives as it was written.

use std::thread;
use std::time::Duration;
use std::time::Instant;

use serde_json::json;
use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;

use crate::MEMORY_LIMIT_MIB;
use crate::memory;
use crate::memory::Watch;
use crate::support::kafka::Kafka;
use crate::support::murmur2;
use crate::support::program::Program;
use crate::support::reader;
use crate::support::reader::Record;
use crate::support::source::Sql;

const TOPIC: &str = "endure-transaction";
const PARTITIONS: i32 = 4;
const KEYS: u64 = 1_000;
/// Nothing is confirmed for as long as this: something stands still.
const STANDSTILL: Duration = Duration::from_secs(120);

pub(crate) fn run(rows: u64) {
    eprintln!("one transaction of {rows} rows");
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::start(1));
    kafka.create_topic(TOPIC, PARTITIONS);
    let outbox = format!("[[outbox]]\ntable = \"public.outbox_events\"\ntopic = \"{TOPIC}\"\n");
    let mut program = Program::new(&postgres.url(), &kafka.bootstrap(), &outbox);
    program.setup();
    program.start_streaming();
    let sql = Sql::connect(&postgres.url());
    let relay = Watch::start(program.pid().unwrap(), memory::RESIDENT);
    let idle_mib = relay.now();
    let walsender: u32 = sql.text("SELECT pid::text FROM pg_stat_replication LIMIT 1").parse().unwrap();
    let walsender = Watch::start(walsender, memory::OWN);

    let began = Instant::now();
    sql.run(&format!(
        "INSERT INTO outbox_events (id, aggregate_type, aggregate_id, event_type, payload, headers)
         SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'Order', 'k' || n % {KEYS}, 'Changed',
                jsonb_build_object('n', n, 'pad', repeat(lpad(n::text, 10, '0'), 15)), '{{\"traceparent\": \"00-ab\"}}'
         FROM generate_series(1, {rows}) AS n"
    ));
    let committed = began.elapsed();
    eprintln!("  committed after {:.1} s", committed.as_secs_f64());
    let relaying = Instant::now();
    await_published(&mut program, rows);
    sql.await_all_confirmed(STANDSTILL);
    let relayed = relaying.elapsed();
    let (peak_mib, walsender_mib) = (memory::peak(program.pid().unwrap()), walsender.most());
    let spilled = sql.text("SELECT (spill_bytes / 1048576)::text FROM pg_stat_replication_slots");
    eprintln!("  delivered and confirmed {:.1} s after the commit", relayed.as_secs_f64());
    eprintln!("  walrelay: {idle_mib} MiB idle, {peak_mib} MiB at most (may be {MEMORY_LIMIT_MIB})");
    eprintln!("  walsender: {walsender_mib} MiB of its own at most, {spilled} MiB spilled to its disk");

    let mut checker = Checker { last: vec![0; PARTITIONS as usize], ..Checker::default() };
    reader::read_each(&kafka.bootstrap(), TOPIC, |record| checker.take(&record));
    assert_eq!(checker.records, rows, "as many records as rows");
    eprintln!("  {rows} records: each exactly as written, once, in the order of the transaction");
    println!(
        "{}",
        json!({
            "endure": "transaction", "rows": rows, "commit_seconds": committed.as_secs_f64(),
            "relay_seconds": relayed.as_secs_f64(), "idle_mib": idle_mib, "peak_mib": peak_mib,
            "walsender_mib": walsender_mib, "spilled_mib": spilled,
        })
    );
    assert_eq!(program.terminate(), Some(0), "{}", program.log());
    assert!(peak_mib <= MEMORY_LIMIT_MIB, "{peak_mib} MiB, more than {MEMORY_LIMIT_MIB}");
}

/// Waits as long as the number grows, and prints it.
fn await_published(program: &mut Program, rows: u64) {
    let (mut done, mut grew) = (0, Instant::now());
    let mut reported = Instant::now();
    while done < rows {
        thread::sleep(Duration::from_millis(100));
        let published = program.metric("walrelay_events_published_total").unwrap_or_default() as u64;
        if published > done {
            (done, grew) = (published, Instant::now());
        }
        assert!(grew.elapsed() < STANDSTILL, "{done} of {rows} for {STANDSTILL:?}: {}", program.log());
        assert!(program.ended().is_none(), "it has ended: {}", program.log());
        if reported.elapsed() > Duration::from_secs(2) {
            reported = Instant::now();
            eprintln!("  {done} of {rows} delivered");
        }
    }
}

/// Insists that each record is the row it was, and that rows come once and in order.
#[derive(Default)]
struct Checker {
    records: u64,
    /// The last row of each partition.
    last: Vec<u64>,
    produced_at: Option<String>,
}

impl Checker {
    fn take(&mut self, record: &Record) {
        let id = record.event_id();
        let n = u64::from_str_radix(id.rsplit('-').next().unwrap(), 16).unwrap();
        let key = format!("k{}", n % KEYS);
        assert_eq!(record.key.as_deref(), Some(key.as_bytes()), "the key of row {n}");
        assert_eq!(record.partition, murmur2::partition(key.as_bytes(), PARTITIONS), "the partition of row {n}");
        let value = format!("{{\"n\": {n}, \"pad\": \"{}\"}}", format!("{n:010}").repeat(15));
        assert_eq!(record.value.as_deref(), Some(value.as_bytes()), "the value of row {n}");
        // One transaction, one time of commit.
        let produced_at = record.header("produced_at").unwrap();
        assert_eq!(self.produced_at.get_or_insert_with(|| produced_at.to_owned()), produced_at);
        let expected = [
            ("event_id", format!("00000000-0000-7000-8000-{n:012x}")),
            ("event_type", "Changed".to_owned()),
            ("produced_at", produced_at.to_owned()),
            ("traceparent", "00-ab".to_owned()),
        ];
        assert!(
            record.headers.iter().map(|(name, value)| (name.as_str(), value.clone())).eq(expected),
            "the headers of row {n}: {:?}",
            record.headers
        );
        // A key has one partition, so ascending numbers are each at most once there, and in order.
        let last = &mut self.last[record.partition as usize];
        assert!(n > *last, "row {n} after row {last}");
        *last = n;
        self.records += 1;
    }
}
