//! The polling source against the log source: the same rows, the same Kafka, in one run. Besides the speed, what each event
//! costs PostgreSQL: bytes of log and dead rows. Autovacuum is off, so that nothing is hidden, and nothing is helped.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use serde_json::json;
use walrelay::testing::Options;
use walrelay::testing::Postgres;

use crate::PARTITIONS;
use crate::PAYLOAD_BYTES;
use crate::kafka::Kafka;
use crate::kafka::free_port;
use crate::latency;
use crate::line;
use crate::subjects;

/// Rows per transaction, and transactions.
const SHAPE: (u32, u32) = (10, 30_000);
const RATE: u64 = 500;

/// A source: its name, what the configuration says of it, and the line of the log that tells when it runs.
pub(crate) const SOURCES: [(&str, &str, &str); 2] =
    [("wal", "", "\"streaming\""), ("poll", "\n[source]\nmode = \"poll\"\n", "\"polling\"")];

pub(crate) fn compare(scale: f64, kafka: &Kafka) {
    eprintln!("{:<8} {:>10} {:>14} {:>14}", "source", "events/s", "WAL bytes/ev.", "dead rows/ev.");
    for (name, more, running) in SOURCES {
        drain(name, more, running, scale, kafka);
    }
    for (name, more, running) in SOURCES {
        latency::measure(RATE, name, more, running, kafka);
    }
}

fn drain(name: &str, more: &str, running: &str, scale: f64, kafka: &Kafka) {
    let topic = format!("drain-{name}");
    kafka.create_topic(&topic, PARTITIONS);
    let options =
        Options { settings: vec!["max_wal_size = 16GB".into(), "autovacuum = off".into()], ..Options::default() };
    let postgres = Postgres::start(options).unwrap();
    let port = free_port();
    let config = subjects::config(&postgres, &kafka.bootstrap(), &format!("topic = \"{topic}\"\n{more}"), port);
    subjects::walrelay(&config, &["setup", "--apply", "--with-outbox"]);
    let url = postgres.url();
    let (rows, transactions) = (SHAPE.0, ((f64::from(SHAPE.1) * scale) as u32).max(1));
    let events = rows * transactions;
    subjects::execute(&url, subjects::FILL);
    subjects::execute(&url, &format!("CALL fill({transactions}, {rows}, {PAYLOAD_BYTES})"));
    // As autovacuum would have left it, before the counting begins.
    subjects::execute(&url, "VACUUM ANALYZE outbox_events");
    subjects::execute(&url, "CHECKPOINT");
    let before = subjects::query(&url, "SELECT pg_current_wal_lsn()::text");
    let log = format!("{config}.log");
    let mut relay = Command::new(env!("CARGO_BIN_EXE_walrelay"))
        .args(["--config", &config, "run"])
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    while !fs::read_to_string(&log).unwrap().contains(running) {
        thread::sleep(Duration::from_millis(2));
    }
    let began = Instant::now();
    while subjects::published(port).unwrap_or(0) < u64::from(events) {
        assert!(relay.try_wait().unwrap().is_none(), "{}", fs::read_to_string(&log).unwrap());
        thread::sleep(Duration::from_millis(5));
    }
    let seconds = began.elapsed().as_secs_f64();
    // The end of its connection hands over its statistics as well.
    subjects::stop(&mut relay);
    let written =
        subjects::query(&url, &format!("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '{before}')::bigint::text"));
    let dead =
        subjects::query(&url, "SELECT n_dead_tup::text FROM pg_stat_user_tables WHERE relname = 'outbox_events'");
    let each = |total: &str| total.parse::<f64>().unwrap() / f64::from(events);
    let (rate, wal_bytes, dead_rows) = (f64::from(events) / seconds, each(&written), each(&dead));
    eprintln!("{name:<8} {rate:>10.0} {wal_bytes:>14.1} {dead_rows:>14.3}");
    line(&json!({
        "bench": "poll", "source": name, "events": events, "seconds": seconds, "events_per_second": rate,
        "wal_bytes_per_event": wal_bytes, "dead_rows_per_event": dead_rows,
    }));
}
