//! The stage for the example: a throwaway PostgreSQL and Kafka, and the real program `walrelay`. No application has
//! this file.

use std::error::Error;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use rdkafka::ClientConfig;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::Consumer as _;
use rdkafka::topic_partition_list::Offset;
use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use walrelay_events::fault::Diagnose as _;
use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;

use crate::kafka::Kafka;
use crate::kafka::free_port;
use crate::shipping::GROUP;
use crate::shipping::TOPIC;
use crate::views;

/// An error, for a person.
pub type Failed = Box<dyn Error + Send + Sync>;

/// The timeout of every wait.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The timeout of a request to Kafka.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const PARTITIONS: i32 = 3;

/// Servers that end when this is dropped.
pub struct Stage {
    pub kafka: Kafka,
    pub postgres: Postgres,
    program: PathBuf,
    folder: PathBuf,
}

impl Stage {
    /// Starts the servers, creates the topics, and writes the relay's configuration. Blocks.
    pub fn build() -> Result<Self, Failed> {
        let program = std::env::current_exe()?.ancestors().nth(2).map(|folder| folder.join("walrelay"));
        let program = program.filter(|program| program.exists()).ok_or("the program is missing: run `make example`")?;
        if !Path::new(env!("CARGO_MANIFEST_DIR")).join(".services/kafka").exists() {
            return Err("Kafka's jars are missing: run `make services`".into());
        }
        let postgres = Postgres::start(Options::default())
            .map_err(|error| format!("{error}\n  {}", error.help().unwrap_or_default()))?;
        let kafka = Kafka::start(1);
        kafka.create_topic(TOPIC, PARTITIONS);
        kafka.create_topic(&format!("{TOPIC}.dlq"), 1);
        kafka.create_topic(views::TOPIC, PARTITIONS);
        let folder = std::env::temp_dir().join(format!("walrelay-orders-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let config = format!(
            "[postgres]\nurl = \"{}\"\n[kafka]\nbrokers = [\"{}\"]\n[http]\nlisten = \"127.0.0.1:{}\"\n",
            postgres.url(),
            kafka.bootstrap(),
            free_port()
        );
        fs::write(folder.join("config.toml"), config)?;
        Ok(Self { kafka, postgres, program, folder })
    }

    /// Runs a verb and returns its output.
    pub fn walrelay(&self, arguments: &[&str]) -> Result<String, Failed> {
        let output = self.command(arguments).output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if !output.status.success() {
            return Err(format!("walrelay {}: {}", arguments.join(" "), text(&output.stderr)).into());
        }
        Ok(text(&output.stdout) + &text(&output.stderr))
    }

    /// Starts the relay, and waits until events flow.
    pub async fn relay(&self) -> Result<Relay, Failed> {
        let log = self.folder.join("log");
        let process = self.command(&["run"]).stdout(Stdio::null()).stderr(fs::File::create(&log)?).spawn()?;
        let relay = Relay(process);
        let flows = async || self.command(&["healthcheck", "--ready"]).output().is_ok_and(|it| it.status.success());
        if until(flows).await {
            return Ok(relay);
        }
        Err(format!("the relay is not ready: {}", fs::read_to_string(log)?).into())
    }

    /// Counts the records of a topic. Blocks.
    pub fn records(&self, topic: &str) -> Result<i64, Failed> {
        let asker = self.asker()?;
        let mut records = 0;
        for partition in 0..PARTITIONS {
            let (oldest, end) = asker.fetch_watermarks(topic, partition, REQUEST_TIMEOUT)?;
            records += end - oldest;
        }
        Ok(records)
    }

    /// Counts the records of the topic that the group has not committed. Blocks.
    pub fn uncommitted(&self) -> Result<i64, Failed> {
        let asker = self.asker()?;
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_range(TOPIC, 0, PARTITIONS - 1);
        let mut uncommitted = 0;
        for element in asker.committed_offsets(partitions, REQUEST_TIMEOUT)?.elements() {
            let (oldest, end) = asker.fetch_watermarks(TOPIC, element.partition(), REQUEST_TIMEOUT)?;
            let committed = if let Offset::Offset(offset) = element.offset() { offset } else { oldest };
            uncommitted += end - committed;
        }
        Ok(uncommitted)
    }

    fn asker(&self) -> Result<BaseConsumer, Failed> {
        let mut config = ClientConfig::new();
        Ok(config.set("bootstrap.servers", self.kafka.bootstrap()).set("group.id", GROUP).create()?)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        // In its own process group: Ctrl-C reaches this process, which stops it.
        command.arg("--config").arg(self.folder.join("config.toml")).args(arguments).process_group(0);
        command.stdin(Stdio::null());
        command
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The relay, as a process of its own.
pub struct Relay(Child);

impl Relay {
    /// Sends SIGTERM and returns whether the relay confirmed everything.
    pub fn stop(mut self) -> io::Result<bool> {
        kill_process(Pid::from_child(&self.0), Signal::TERM)?;
        Ok(self.0.wait()?.success())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for a condition and returns whether it became true in time.
pub async fn until(is_so: impl AsyncFn() -> bool) -> bool {
    let began = Instant::now();
    while !is_so().await {
        if began.elapsed() > TIMEOUT {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    true
}

/// Sends a request such as `POST /orders` as a client of the shop and returns the response.
pub async fn send(address: SocketAddr, request: &str, trace: &str, body: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let length = body.len();
    let head = format!(
        "{request} HTTP/1.1\r\nhost: shop\r\ntraceparent: {trace}\r\nconnection: close\r\ncontent-length: {length}"
    );
    stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer.split(' ').nth(1).unwrap_or_default();
    Ok(format!("{status} {}", answer.split("\r\n\r\n").nth(1).unwrap_or_default()))
}
