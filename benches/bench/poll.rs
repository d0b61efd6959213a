//! The polling source against the log source: the same rows, the same Kafka, in one run. Besides the speed, what each
//! event costs PostgreSQL: bytes of log and dead rows. Autovacuum is off, so that nothing is hidden, and nothing is
//! helped.

use std::fs;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use serde_json::json;
use walrelay_events::testing;
use walrelay_events::testing::Postgres;

use crate::PARTITIONS;
use crate::PAYLOAD_BYTES;
use crate::kafka::Kafka;
use crate::kafka::free_port;
use crate::latency;
use crate::latency::Way;
use crate::line;
use crate::options::Options;
use crate::rounds::Spread;
use crate::rounds::interleave;
use crate::subjects;

/// Rows per transaction, and transactions.
const SHAPE: (u32, u32) = (10, 30_000);
const RATE: u64 = 500;

const SOURCES: [(&str, Way); 2] = [
    ("log", Way::log(subjects::WALRELAY)),
    (
        "poll",
        Way::Relay { program: subjects::WALRELAY, more: "\n[source]\nmode = \"poll\"\n", running: &["\"polling\""] },
    ),
];

/// What one run took.
struct Run {
    rate: f64,
    wal_bytes: f64,
    dead_rows: f64,
}

pub(crate) fn compare(options: &Options, kafka: &Kafka) {
    let runs = interleave(options.rounds, SOURCES.len(), |at, round| drain(at, round, options, kafka));
    let events = SHAPE.0 * options.scaled(SHAPE.1);
    eprintln!("\npoll: {events} events drained, {} a transaction; {} rounds", SHAPE.0, options.rounds);
    eprintln!(
        "{:<8}{:>10}{:>12}{:>9}{:>18}{:>18}",
        "source", "events/s", "least-most", "of log", "WAL bytes/event", "dead rows/event"
    );
    for (at, (name, _)) in SOURCES.iter().enumerate() {
        let rate = Spread::of(runs[at].iter().map(|run| run.rate));
        eprintln!(
            "{name:<8}{:>10.0}{:>12}{:>9}{:>18.1}{:>18.3}",
            rate.median,
            rate.ends(),
            Spread::of_ratios(&runs[at], &runs[0], |run| run.rate).percent(),
            Spread::of(runs[at].iter().map(|run| run.wal_bytes)).median,
            Spread::of(runs[at].iter().map(|run| run.dead_rows)).median,
        );
    }
    latency::compare_at(RATE, &SOURCES, options, kafka);
}

fn drain(at: usize, round: usize, options: &Options, kafka: &Kafka) -> Run {
    let (name, Way::Relay { program, more, running }) = SOURCES[at] else { panic!("a source is a relay's") };
    let topic = format!("drain-{name}-{round}");
    kafka.create_topic(&topic, PARTITIONS);
    let settings = vec!["max_wal_size = 16GB".into(), "autovacuum = off".into()];
    let postgres = Postgres::start(testing::Options::default().with_settings(settings)).unwrap();
    let port = free_port();
    let config = subjects::config(&postgres, &kafka.bootstrap(), &format!("topic = \"{topic}\"\n{more}"), port);
    subjects::walrelay(&config, &["setup", "--apply", "--with-outbox"]);
    let url = postgres.url();
    let (rows, transactions) = (SHAPE.0, options.scaled(SHAPE.1));
    let events = rows * transactions;
    subjects::execute(&url, subjects::FILL);
    subjects::execute(&url, &format!("CALL fill({transactions}, {rows}, {PAYLOAD_BYTES})"));
    // As autovacuum would have left it, before the counting begins.
    subjects::execute(&url, "VACUUM ANALYZE outbox_events");
    subjects::execute(&url, "CHECKPOINT");
    let before = subjects::query(&url, "SELECT pg_current_wal_lsn()::text");
    let mut relay = subjects::run(program, &config, running);
    let began = Instant::now();
    while subjects::published(port).unwrap_or(0) < u64::from(events) {
        assert!(relay.try_wait().unwrap().is_none(), "{}", fs::read_to_string(format!("{config}.log")).unwrap());
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
    let run = Run { rate: f64::from(events) / seconds, wal_bytes: each(&written), dead_rows: each(&dead) };
    line(&json!({
        "bench": "poll", "source": name, "round": round, "events": events, "seconds": seconds,
        "events_per_second": run.rate, "wal_bytes_per_event": run.wal_bytes, "dead_rows_per_event": run.dead_rows,
    }));
    run
}
