//! How long `pg_ctl stop -m fast` takes while a relay is connected, in the situations in which it could be held up.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;
use walrelay_events::testing::StopMode;

use crate::figures;
use crate::figures::Figures;
use crate::support::kafka::Kafka;
use crate::support::program::Program;
use crate::support::reader;
use crate::support::source::Sql;

const PARTITIONS: i32 = 3;
/// Enough that the server is in the middle of it when the first rows have arrived.
const HUGE_ROWS: u32 = 60_000;
/// More than the budget of the relay, so that it is full without Kafka.
const FULL_ROWS: u32 = 5_000;
/// How long it is busy before the shutdown.
const BUSY: Duration = Duration::from_secs(2);
const RECOVERY_LIMIT: Duration = Duration::from_secs(120);

const SITUATIONS: [Situation; 5] = [
    Situation { name: "Kafka up, events written", prepare: up, broker: Broker::Up },
    Situation { name: "Kafka down, idle", prepare: down, broker: Broker::Killed },
    Situation { name: "relay full, broker frozen, position row locked", prepare: full, broker: Broker::Frozen },
    Situation { name: "in the middle of a huge transaction", prepare: huge, broker: Broker::Up },
    Situation { name: "other tables written", prepare: others, broker: Broker::Up },
];

struct Situation {
    name: &'static str,
    /// Brings it about, and gives what goes on during the shutdown.
    prepare: fn(&mut Scene) -> Vec<JoinHandle<()>>,
    /// How that leaves the broker.
    broker: Broker,
}

#[derive(Clone, Copy)]
enum Broker {
    Up,
    Killed,
    Frozen,
}

struct Scene {
    postgres: Postgres,
    kafka: Kafka,
    program: Program,
}

pub(crate) fn run(trials: usize) {
    let mut rows = Vec::new();
    let mut version = String::new();
    for (place, situation) in SITUATIONS.iter().enumerate() {
        eprintln!("fast shutdown: {}", situation.name);
        let topic = format!("endure-shutdown-{place}");
        let mut scene = scene(&topic);
        version = figures::version(&scene.postgres);
        let durations = (0..trials).map(|_| trial(&mut scene, situation)).collect();
        let sql = Sql::connect(&scene.postgres.url());
        sql.await_all_confirmed(RECOVERY_LIMIT);
        let verdict = reader::check(&reader::read_all(&scene.kafka.bootstrap(), &topic), &sql.truth(), PARTITIONS);
        eprintln!("  all {} events have arrived, {} of them again", verdict.events, verdict.repeated);
        rows.push(Figures::new(situation.name, durations));
    }
    figures::print("shutdown", &version, &rows);
}

fn scene(topic: &str) -> Scene {
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::start(1));
    kafka.create_topic(topic, PARTITIONS);
    let more = format!(
        "[[outbox]]\ntable = \"public.outbox_events\"\ntopic = \"{topic}\"\n\n[delivery]\nmax_in_flight_bytes = \
         \"1MiB\"\n"
    );
    let program = Program::new(&postgres.url(), &kafka.bootstrap(), &more);
    program.setup();
    Sql::connect(&postgres.url()).prepare();
    Scene { postgres, kafka, program }
}

fn trial(scene: &mut Scene, situation: &Situation) -> Duration {
    if scene.program.pid().is_none() {
        scene.program.start();
    }
    scene.program.await_state("streaming");
    let busy = (situation.prepare)(scene);
    let took = scene.postgres.stop(StopMode::Fast).unwrap();
    eprintln!("  {:.2} s", took.as_secs_f64());
    busy.into_iter().for_each(|thread| thread.join().unwrap());
    match situation.broker {
        Broker::Up => {}
        Broker::Killed => scene.kafka.resume(0),
        Broker::Frozen => scene.kafka.thaw(0),
    }
    scene.postgres.resume().unwrap();
    took
}

/// Runs a statement again and again until the shutdown ends its connection.
fn keep_running(url: String, statement: String) -> JoinHandle<()> {
    thread::spawn(move || {
        let sql = Sql::connect(&url);
        while sql.try_run(&statement).is_ok() {}
    })
}

fn up(scene: &mut Scene) -> Vec<JoinHandle<()>> {
    let url = scene.postgres.url();
    let writers = (1..=2).map(|seed| keep_running(url.clone(), format!("CALL work({seed}, 1000, 100)"))).collect();
    thread::sleep(BUSY);
    writers
}

fn down(scene: &mut Scene) -> Vec<JoinHandle<()>> {
    let sql = Sql::connect(&scene.postgres.url());
    sql.run("SELECT emit('k1')");
    sql.await_all_confirmed(RECOVERY_LIMIT);
    scene.kafka.kill(0);
    scene.program.await_that("the loss of every broker", |program| {
        program.metric("walrelay_connected{relay=\"walrelay\",peer=\"kafka\"}") == Some(0.0)
    });
    Vec::new()
}

fn full(scene: &mut Scene) -> Vec<JoinHandle<()>> {
    let url = scene.postgres.url();
    let locked = Arc::new(AtomicBool::new(false));
    let is_locked = Arc::clone(&locked);
    let lock = thread::spawn(move || {
        let sql = Sql::connect(&url);
        sql.run("BEGIN; SELECT * FROM walrelay.position FOR UPDATE");
        is_locked.store(true, Relaxed);
        let _ = sql.try_run("SELECT pg_sleep(600)");
    });
    scene.program.await_that("the lock", |_| locked.load(Relaxed));
    // Something that is confirmed and wants to be stored.
    Sql::connect(&scene.postgres.url()).run("SELECT emit('k1')");
    thread::sleep(Duration::from_secs(1));
    scene.kafka.freeze(0);
    Sql::connect(&scene.postgres.url())
        .run(&format!("SELECT emit('k' || i % 1000) FROM generate_series(1, {FULL_ROWS}) AS i"));
    scene.program.await_that("the budget to be used up", |program| {
        program.metric("walrelay_in_flight_bytes").is_some_and(|bytes| bytes > 1_000_000.0)
    });
    vec![lock]
}

fn huge(scene: &mut Scene) -> Vec<JoinHandle<()>> {
    let received = |program: &Program| program.metric("walrelay_events_received_total").unwrap_or_default();
    let before = received(&scene.program);
    Sql::connect(&scene.postgres.url())
        .run(&format!("SELECT emit('k' || i % 1000) FROM generate_series(1, {HUGE_ROWS}) AS i"));
    scene.program.await_that("its first rows", |program| received(program) > before + 200.0);
    Vec::new()
}

fn others(scene: &mut Scene) -> Vec<JoinHandle<()>> {
    let noise = "INSERT INTO other (noise) SELECT repeat('n', 1000) FROM generate_series(1, 500)";
    let url = scene.postgres.url();
    let writers = (1..=2).map(|_| keep_running(url.clone(), noise.to_owned())).collect();
    thread::sleep(BUSY);
    writers
}
