//! From the commit in PostgreSQL to the consumer of Kafka, at a steady rate of one event per transaction.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use rdkafka::TopicPartitionList;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::Consumer as _;
use rdkafka::message::Headers as _;
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::Offset;
use serde_json::json;
use tokio_postgres::NoTls;
use walrelay::testing::Options;
use walrelay::testing::Postgres;

use crate::PARTITIONS;
use crate::kafka::Kafka;
use crate::kafka::free_port;
use crate::line;
use crate::subjects;

const SECONDS: u64 = 12;
/// The first seconds warm up.
const WARM_UP: Duration = Duration::from_secs(2);
const WRITERS: u64 = 2;

/// Measures one source. Polled records carry the time of their insert instead of their commit's, a little earlier.
pub(crate) fn measure(rate: u64, source: &str, more: &str, running: &str, kafka: &Kafka) {
    let topic = format!("latency-{source}-{rate}");
    kafka.create_topic(&topic, PARTITIONS);
    let postgres = Postgres::start(Options::default()).unwrap();
    let port = free_port();
    let config = subjects::config(&postgres, &kafka.bootstrap(), &format!("topic = \"{topic}\"\n{more}"), port);
    subjects::walrelay(&config, &["setup", "--apply", "--with-outbox"]);
    let mut relay = Command::new(env!("CARGO_BIN_EXE_walrelay"))
        .args(["--config", &config, "run"])
        .stderr(fs::File::create(format!("{config}.log")).unwrap())
        .spawn()
        .unwrap();
    while !fs::read_to_string(format!("{config}.log")).unwrap().contains(running) {
        thread::sleep(Duration::from_millis(20));
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let reader = {
        let (bootstrap, is_over) = (kafka.bootstrap(), Arc::clone(&is_over));
        thread::spawn(move || read(&bootstrap, &topic, &is_over))
    };
    let began = Instant::now();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let url = postgres.url();
            thread::spawn(move || write(&url, writer, rate / WRITERS))
        })
        .collect();
    let written: u64 = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
    let achieved = written as f64 / began.elapsed().as_secs_f64();
    thread::sleep(Duration::from_secs(1));
    is_over.store(true, Relaxed);
    let mut latencies = reader.join().unwrap();
    subjects::stop(&mut relay);
    latencies.sort_by(f64::total_cmp);
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    eprintln!(
        "{source}: {rate}/s (achieved {achieved:.0}/s), commit to consumer: p50 {:.2} ms, p90 {:.2}, p99 {:.2}, max {:.2} of {} events",
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0),
        latencies.len()
    );
    line(&json!({
        "bench": "latency", "source": source, "rate": rate, "achieved": achieved, "events": latencies.len(),
        "p50_ms": at(0.5), "p90_ms": at(0.9), "p99_ms": at(0.99), "max_ms": at(1.0),
    }));
}

/// Commits one event per transaction at a steady rate; gives how many.
fn write(url: &str, writer: u64, rate: u64) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        tokio::spawn(connection);
        let insert = client
            .prepare(
                "INSERT INTO outbox_events (aggregate_type, aggregate_id, event_type, payload)
                 VALUES ('Order', $1, 'Created', to_jsonb($2::text))",
            )
            .await
            .unwrap();
        let began = Instant::now();
        let payload = "x".repeat(200);
        let mut count = 0;
        while began.elapsed() < Duration::from_secs(SECONDS) {
            let due = Duration::from_secs_f64(count as f64 / rate as f64);
            if let Some(wait) = due.checked_sub(began.elapsed()) {
                thread::sleep(wait);
            }
            let key = format!("k{}", (count * WRITERS + writer) % 1_000);
            client.execute(&insert, &[&key, &payload]).await.unwrap();
            count += 1;
        }
        count
    })
}

/// Reads records as they come; gives the milliseconds since each one's commit.
fn read(bootstrap: &str, topic: &str, is_over: &AtomicBool) -> Vec<f64> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "latency")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "100")
        .create()
        .unwrap();
    let mut assignment = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        assignment.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&assignment).unwrap();
    let began = Instant::now();
    let mut latencies = Vec::new();
    while !is_over.load(Relaxed) {
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
        let now = SystemTime::now();
        let headers = message.headers().unwrap();
        let committed = headers.iter().find(|header| header.key == "produced_at").unwrap().value.unwrap();
        let committed = humantime::parse_rfc3339(std::str::from_utf8(committed).unwrap()).unwrap();
        if began.elapsed() > WARM_UP {
            latencies.push(now.duration_since(committed).unwrap_or_default().as_secs_f64() * 1e3);
        }
    }
    latencies
}
