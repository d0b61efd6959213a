//! The set-up of the consumer's tests: events in a topic, a database for effects, members inside and outside this
//! process.

use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use rdkafka::TopicPartitionList;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::Consumer as _;
use rdkafka::message::Header;
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::BaseRecord;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::producer::Producer as _;
use rdkafka::producer::ThreadedProducer;
use rdkafka::topic_partition_list::Offset;
use rustix::process::Pid;
use rustix::process::kill_process;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uuid::Uuid;
use walrelay_events::consumer::Config;
use walrelay_events::consumer::Consumer;
use walrelay_events::consumer::Control;
use walrelay_events::consumer::Delivery;
use walrelay_events::consumer::Error;
use walrelay_events::consumer::Handler;
use walrelay_events::consumer::Observed;
use walrelay_events::consumer::Observer;
use walrelay_events::consumer::inbox::INBOX_SQL;
use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;

use crate::support::kafka::Kafka;
use crate::support::program::signal;
use crate::support::source::Sql;

/// How long anything may take that is waited for.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A topic with its dead-letter topic on the shared broker.
pub struct Topic {
    pub name: String,
    pub partitions: i32,
    bootstrap: String,
    producer: ThreadedProducer<DefaultProducerContext>,
}

impl Topic {
    pub fn create(name: &str, partitions: i32) -> Self {
        Self::create_with(name, partitions, &[])
    }

    /// With settings of their own for both topics.
    pub fn create_with(name: &str, partitions: i32, settings: &[(&str, &str)]) -> Self {
        Self::create_on(Kafka::shared(), name, partitions, settings)
    }

    /// On brokers of its own.
    pub fn create_on(kafka: &Kafka, name: &str, partitions: i32, settings: &[(&str, &str)]) -> Self {
        kafka.create_topic_with(name, partitions, settings);
        kafka.create_topic_with(&format!("{name}.dlq"), 1, settings);
        Self::on(kafka, name, partitions)
    }

    /// An existing topic.
    pub fn on(kafka: &Kafka, name: &str, partitions: i32) -> Self {
        let bootstrap = kafka.bootstrap();
        Self { name: name.to_owned(), partitions, producer: producer_to(&bootstrap), bootstrap }
    }

    /// The same topic, written to in compressed batches.
    pub fn compressed(&self) -> Self {
        let mut config = producer_config(&self.bootstrap);
        config.set("compression.type", "zstd");
        let producer = config.create().unwrap();
        Self { name: self.name.clone(), partitions: self.partitions, bootstrap: self.bootstrap.clone(), producer }
    }

    /// Deletes the topic and creates another one of the same name: its offsets start again.
    pub fn recreated(&self) -> Self {
        Kafka::shared().delete_topic(&self.name);
        Kafka::shared().create_topic(&self.name, self.partitions);
        Self::on(Kafka::shared(), &self.name, self.partitions)
    }

    /// Writes a record with any headers.
    pub fn write(&self, key: Option<&str>, value: Option<&[u8]>, headers: &[(&str, Option<&[u8]>)]) {
        self.write_to(None, key, value, headers);
    }

    /// The same, to a partition that the key does not choose.
    pub fn write_to(
        &self,
        partition: Option<i32>,
        key: Option<&str>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
    ) {
        let empty = OwnedHeaders::new();
        let headers = headers.iter().fold(empty, |all, (key, value)| all.insert(Header { key, value: *value }));
        let mut record = BaseRecord::<str, [u8]>::to(&self.name).headers(headers);
        record.partition = partition;
        record.key = key;
        record.payload = value;
        while let Err((error, again)) = self.producer.send(record) {
            assert!(error.to_string().contains("Queue full"), "{error}");
            std::thread::sleep(Duration::from_millis(5));
            record = again;
        }
    }

    /// Writes a change of a key, as the relay would.
    pub fn change(&self, id: Uuid, key: &str, version: i64) {
        let value = format!("{{\"event_type\":\"Changed\",\"key\":\"{key}\",\"version\":{version}}}");
        let id = id.to_string();
        let headers: [(&str, Option<&[u8]>); 2] = [("event_id", Some(id.as_bytes())), ("event_type", Some(b"Changed"))];
        self.write(Some(key), Some(value.as_bytes()), &headers);
    }

    /// Writes so many changes, spread over keys; each key's versions start at 1.
    pub fn changes(&self, count: i64, keys: i64) {
        (0..count).for_each(|number| self.numbered(number, keys));
        self.flush();
    }

    /// Writes the change of this number, the first being 0, of as many as there are, spread over keys.
    pub fn numbered(&self, number: i64, keys: i64) {
        self.change(Uuid::now_v7(), &format!("k{}", number % keys), number / keys + 1);
    }

    pub fn flush(&self) {
        self.producer.flush(TIMEOUT).unwrap();
    }

    /// Options for a group on this topic, quick to notice things.
    pub fn config(&self, group: &str) -> Config {
        let mut config = Config::new(&self.bootstrap, group, &[&self.name]);
        config.commit_interval = Duration::from_millis(100);
        config.retry.initial_backoff = Duration::from_millis(20);
        config.properties.insert("fetch.wait.max.ms".into(), "50".into());
        config
    }

    /// Returns the committed offsets of a group, -1 for none.
    pub fn committed(&self, group: &str) -> Vec<i64> {
        let consumer = self.client_of(group);
        let mut list = TopicPartitionList::new();
        list.add_partition_range(&self.name, 0, self.partitions - 1);
        let began = Instant::now();
        let offsets = loop {
            // A broker that has just started does not coordinate the group yet.
            match consumer.committed_offsets(list.clone(), TIMEOUT) {
                Ok(offsets) => break offsets,
                Err(error) => assert!(began.elapsed() < TIMEOUT, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        let raw = |offset| match offset {
            Offset::Offset(offset) => offset,
            Offset::Beginning | Offset::End | Offset::Stored | Offset::Invalid | Offset::OffsetTail(_) => -1,
        };
        offsets.elements().iter().map(|element| raw(element.offset())).collect()
    }

    /// Returns the metadata that a group committed with an offset of partition 0.
    pub fn metadata(&self, group: &str) -> String {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.name, 0);
        let committed = self.client_of(group).committed_offsets(list, TIMEOUT).unwrap();
        committed.elements()[0].metadata().to_owned()
    }

    /// Returns the end of partition 0, transaction markers and open transactions included.
    pub fn end(&self) -> i64 {
        let reader: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            .set("isolation.level", "read_uncommitted")
            .create()
            .unwrap();
        reader.fetch_watermarks(&self.name, 0, TIMEOUT).unwrap().1
    }

    /// A client of a group that is not a member.
    fn client_of(&self, group: &str) -> BaseConsumer {
        ClientConfig::new().set("bootstrap.servers", &self.bootstrap).set("group.id", group).create().unwrap()
    }

    /// Commits an offset of partition 0 for a group.
    pub fn commit(&self, group: &str, offset: i64) {
        self.commit_with(group, offset, "");
    }

    /// The same, with metadata.
    pub fn commit_with(&self, group: &str, offset: i64, metadata: &str) {
        let consumer = self.client_of(group);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.name, 0, Offset::Offset(offset)).unwrap();
        list.elements()[0].set_metadata(metadata);
        // While a member leaves, no one else can commit.
        wait_until("the commit", || consumer.commit(&list, rdkafka::consumer::CommitMode::Sync).is_ok());
    }
}

fn producer_to(bootstrap: &str) -> ThreadedProducer<DefaultProducerContext> {
    producer_config(bootstrap).create().unwrap()
}

fn producer_config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("partitioner", "murmur2_random")
        .set("enable.idempotence", "true")
        .set("linger.ms", "2")
        .set("message.max.bytes", "4000000");
    config
}

/// So many bytes that cannot be compressed.
pub fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[3]
    };
    (0..bytes).map(|_| next()).collect()
}

/// A consumer on a runtime of this process.
pub struct Member {
    pub control: Control,
    stop: Option<oneshot::Sender<()>>,
    running: Option<JoinHandle<Result<(), Error>>>,
    runtime: Runtime,
    /// Printed if the test fails.
    log: Lines,
}

impl Member {
    pub fn start(config: Config, handler: impl Handler) -> Self {
        Self::start_observed(config, handler, ())
    }

    pub fn start_observed(config: Config, handler: impl Handler, observer: impl Observer) -> Self {
        Self::start_logged(config, handler, observer, &Lines::default())
    }

    /// Starts it where spans go to this subscriber.
    pub fn start_traced(config: Config, handler: impl Handler, subscriber: tracing::Dispatch) -> Self {
        Self::run_on(logging(subscriber), Consumer::new(config, handler), Lines::default())
    }

    /// Starts it where lines of every level are kept.
    pub fn start_logged(config: Config, handler: impl Handler, observer: impl Observer, lines: &Lines) -> Self {
        Self::run_logged(Consumer::new(config, handler).with_observer(observer), lines)
    }

    /// Runs a consumer with options that are not in its configuration.
    pub fn run(consumer: Consumer) -> Self {
        Self::run_logged(consumer, &Lines::default())
    }

    fn run_logged(consumer: Consumer, lines: &Lines) -> Self {
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_max_level(tracing::Level::TRACE);
        let subscriber = tracing::Dispatch::new(subscriber.with_writer(move || writer.clone()).finish());
        Self::run_on(logging(subscriber), consumer, lines.clone())
    }

    fn run_on(runtime: Runtime, consumer: Consumer, log: Lines) -> Self {
        let (stop, stopped) = oneshot::channel();
        let control = consumer.control();
        let running = runtime.spawn(consumer.run(async { drop(stopped.await) }));
        Self { control, stop: Some(stop), running: Some(running), runtime, log }
    }

    /// Stops it.
    pub fn stop(mut self) -> Result<(), Error> {
        drop(self.stop.take());
        self.join()
    }

    /// Asserts that it has not ended.
    pub fn check(&mut self) {
        if self.running.as_ref().is_none_or(JoinHandle::is_finished) {
            panic!("it has ended: {:?}", self.join());
        }
    }

    /// Waits until it ends without a stop.
    pub fn join(&mut self) -> Result<(), Error> {
        let running = self.running.take().unwrap();
        self.runtime.block_on(async { tokio::time::timeout(TIMEOUT, running).await }).expect("it does not end").unwrap()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Shown if the test fails. The end tells most; a test that handles many events has a line for each.
        let log = self.log.with(&[]);
        let skipped = log.len().saturating_sub(200);
        let end: Vec<&str> = log.iter().skip(skipped).map(String::as_str).collect();
        #[expect(clippy::print_stderr, reason = "captured by the test harness")]
        {
            eprintln!("a member's log, without its first {skipped} lines:\n{}", end.join("\n"));
        }
    }
}

/// A member that has handled ten records of a topic and committed none, and has lost its only broker.
pub fn cut_off(name: &str, shutdown_timeout: Duration) -> (Kafka, Topic, Log, Member) {
    let mut kafka = Kafka::start(1);
    let topic = Topic::create_on(&kafka, name, 1, &[]);
    topic.changes(10, 1);
    let mut config = Config::new(&kafka.bootstrap(), "g", &[name]);
    config.shutdown_timeout = shutdown_timeout;
    // The last commit is the only one.
    config.commit_interval = Duration::from_secs(3_600);
    let log = Log::default();
    let member = Member::start_observed(config, |_: Delivery| async {}, log.clone());
    log.wait_for("ack", 10);
    kafka.kill(0);
    log.wait_for("all brokers down", 1);
    (kafka, topic, log, member)
}

/// A runtime whose threads log to this subscriber.
fn logging(subscriber: tracing::Dispatch) -> Runtime {
    // The subscriber stays for as long as the thread.
    runtime(move || std::mem::forget(tracing::dispatcher::set_default(&subscriber)))
}

fn runtime(on_thread_start: impl Fn() + Send + Sync + 'static) -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().on_thread_start(on_thread_start).build().unwrap()
}

/// A member as a process of its own, killed with this value.
pub struct Process(pub Child);

impl Process {
    pub fn start(topic: &Topic, group: &str, url: &str, options: &[&str]) -> Self {
        let tests = std::env::current_exe().unwrap();
        let member = tests.parent().unwrap().parent().unwrap().join("examples/member");
        assert!(member.exists(), "{} is missing: cargo build --example member", member.display());
        let child = Command::new(member)
            .args([&Kafka::shared().bootstrap(), group, &topic.name, url])
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        kill_process(Pid::from_child(&self.0), signal(name)).unwrap();
    }

    /// Stops it.
    pub fn leave(mut self) {
        drop(self.0.stdin.take());
        self.wait();
    }

    /// Waits until it ends, which is a success.
    pub fn wait(mut self) {
        let status = self.0.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A database with an inbox and a table of effects.
pub struct Effects {
    pub postgres: Postgres,
    pub sql: Sql,
}

impl Effects {
    pub fn new() -> Self {
        let postgres = Postgres::start(Options::default()).unwrap();
        let sql = Sql::connect(&postgres.url());
        sql.run(INBOX_SQL);
        sql.run(
            "CREATE TABLE effects (seq bigserial PRIMARY KEY, key text, version bigint, event_id text, member text,
                                   partition int, at timestamptz DEFAULT clock_timestamp())",
        );
        Self { postgres, sql }
    }

    pub fn count(&self) -> i64 {
        self.sql.text("SELECT count(*)::text FROM effects").parse().unwrap()
    }

    /// Waits until so many effects are there.
    pub fn wait_for(&self, count: i64, limit: Duration) {
        let began = Instant::now();
        while self.count() < count {
            assert!(began.elapsed() < limit, "{} of {count} effects after {limit:?}", self.count());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Returns the longest time without an effect of a partition, between its first and its last one.
    pub fn longest_gap(&self) -> Duration {
        let pause = "SELECT max(extract(epoch FROM at - before))::text
                     FROM (SELECT at, lag(at) OVER (PARTITION BY partition ORDER BY at) AS before FROM effects) t";
        Duration::from_secs_f64(self.sql.text(pause).parse().unwrap())
    }

    /// Asserts that every event took effect once, and those of a key in order.
    pub fn check(&self, events: i64) {
        assert_eq!(self.count(), events);
        let twice = "SELECT count(*)::text FROM (SELECT event_id FROM effects GROUP BY 1 HAVING count(*) > 1) t";
        assert_eq!(self.sql.text(twice), "0", "effects that happened twice");
        let swapped =
            "SELECT count(*)::text FROM (SELECT version, row_number() OVER (PARTITION BY key ORDER BY seq) AS place
                       FROM effects) t WHERE version <> place";
        assert_eq!(self.sql.text(swapped), "0", "effects out of the order of their key");
    }
}

/// Collects what a handler or an observer saw.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub fn note(&self, text: impl ToString) {
        self.0.lock().unwrap().push(text.to_string());
    }

    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub fn count(&self, what: &str) -> usize {
        self.lines().iter().filter(|line| line.contains(what)).count()
    }

    pub fn wait_for(&self, what: &str, count: usize) {
        wait_until(what, || self.count(what) >= count);
    }
}

impl Observer for Log {
    fn observe(&self, observed: &Observed<'_>) {
        match observed {
            Observed::Handled { record, verdict, .. } => self.note(format!("{} {record}", verdict.name())),
            Observed::DeadLettered { record, reason } => self.note(format!("dead-lettered {record} {reason}")),
            Observed::DeadLetterFailed { record, error } => self.note(format!("dead-letter failed {record} {error}")),
            Observed::RevokedInFlight { records } => self.note(format!("revoked {records}")),
            Observed::Lag { partition, records } => self.note(format!("lag {} {records}", partition.partition)),
            Observed::WaitingForTransaction { partition, last_stable, end } => {
                self.note(format!("waiting {} {last_stable} {end}", partition.partition));
            }
            Observed::TransactionEnded { partition } => self.note(format!("ended {}", partition.partition)),
            Observed::AllBrokersDown => self.note("all brokers down"),
            Observed::BrokersUp { .. } => self.note("brokers up"),
            Observed::ClientReplaced => self.note("client replaced"),
            Observed::JoinRefused { error, next } => self.note(format!("join refused {error}: {next}")),
            Observed::PartitionAssigned { .. }
            | Observed::PartitionRevoked { .. }
            | Observed::Load { .. }
            | Observed::Joined
            | Observed::AssignmentLost => {}
            other => panic!("an unknown {other:?}"),
        }
    }
}

/// Keeps the lines of a log.
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// Returns how many lines contain all of these.
    pub fn count(&self, all: &[&str]) -> usize {
        self.with(all).len()
    }

    /// Returns the lines that contain all of these.
    pub fn with(&self, all: &[&str]) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned();
        text.lines().filter(|line| all.iter().all(|part| line.contains(part))).map(str::to_owned).collect()
    }
}

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < TIMEOUT, "{what} has not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}
