//! How soon events flow again after PostgreSQL or a broker has crashed and is back.
//!
//! The broker itself notes when a record is appended, so nothing that reads the topic is measured with it.

use std::thread;
use std::time::Duration;
use std::time::SystemTime;

use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;
use walrelay_events::testing::StopMode;

use crate::figures;
use crate::figures::Figures;
use crate::support::kafka::Kafka;
use crate::support::program::Program;
use crate::support::reader;
use crate::support::source::Sql;

const TOPIC: &str = "endure-return";
const PARTITIONS: i32 = 3;
/// How long the other side is away, one after the other: backoffs grow with it.
const OUTAGES: [Duration; 5] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(10),
];
const STANDSTILL: Duration = Duration::from_secs(120);

struct Scene {
    postgres: Postgres,
    kafka: Kafka,
    program: Program,
}

pub(crate) fn run(trials: usize) {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::start(1));
    kafka.create_topic_with(TOPIC, PARTITIONS, &[("message.timestamp.type", "LogAppendTime")]);
    let more = format!("[[outbox]]\ntable = \"public.outbox_events\"\ntopic = \"{TOPIC}\"\n");
    let mut program = Program::new(&postgres.url(), &kafka.bootstrap(), &more);
    program.setup();
    Sql::connect(&postgres.url()).prepare();
    program.start_streaming();
    let version = figures::version(&postgres);
    let mut scene = Scene { postgres, kafka, program };
    let mut rows = Vec::new();
    for (name, begin, after) in [
        ("PostgreSQL is back", 0, after_postgres as fn(&mut Scene, &str, Duration) -> SystemTime),
        ("the broker is back", trials, after_broker),
    ] {
        eprintln!("{name}: {trials} trials");
        let durations = (begin..begin + trials).map(|trial| {
            let key = format!("k{trial}");
            let back = after(&mut scene, &key, OUTAGES[trial % OUTAGES.len()]);
            let sql = Sql::connect(&scene.postgres.url());
            sql.await_all_confirmed(STANDSTILL);
            assert!(scene.program.ended().is_none(), "it has ended: {}", scene.program.log());
            let took = appended(&scene.kafka, &key).duration_since(back).unwrap_or_default();
            eprintln!("  {:.2} s", took.as_secs_f64());
            took
        });
        rows.push(Figures::new(name, durations.collect()));
    }
    figures::print("return", &version, &rows);
}

/// Crashes PostgreSQL, and gives when it took a connection again. The event is written then.
fn after_postgres(scene: &mut Scene, key: &str, outage: Duration) -> SystemTime {
    let postgres = &scene.postgres;
    postgres.stop(StopMode::Immediate).unwrap();
    thread::sleep(outage);
    thread::scope(|scope| {
        scope.spawn(|| postgres.resume().unwrap());
        let sql = await_connection(postgres);
        let back = SystemTime::now();
        sql.run(&format!("SELECT emit('{key}')"));
        back
    })
}

/// Sooner than pg_ctl says so.
fn await_connection(postgres: &Postgres) -> Sql {
    loop {
        match Sql::try_connect(&postgres.url()) {
            Ok(sql) => return sql,
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Kills the broker, and gives when it had started again. The event is written while it is away.
fn after_broker(scene: &mut Scene, key: &str, outage: Duration) -> SystemTime {
    scene.kafka.kill(0);
    Sql::connect(&scene.postgres.url()).run(&format!("SELECT emit('{key}')"));
    thread::sleep(outage);
    scene.kafka.resume(0);
    SystemTime::now()
}

/// Gives when the first record of a key was appended.
fn appended(kafka: &Kafka, key: &str) -> SystemTime {
    let records = reader::read_all(&kafka.bootstrap(), TOPIC);
    let first = records.iter().find(|record| record.key.as_deref() == Some(key.as_bytes())).unwrap();
    let millis = u64::try_from(first.timestamp_millis.unwrap()).unwrap();
    SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
}
