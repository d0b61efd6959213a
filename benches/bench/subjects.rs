//! The programs that are compared, each drained from a copy of the same slot.

use std::cell::Cell;
use std::fs;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpStream;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rdkafka::message::Header;
use rdkafka::message::OwnedHeaders;
use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process;
use tokio_postgres::NoTls;
use walrelay_events::testing::Postgres;

use crate::kafka::free_port;
use crate::process;

/// The program.
pub(crate) const WALRELAY: &str = env!("CARGO_BIN_EXE_walrelay");

/// What the log says once the relay streams; the second in builds before it was renamed.
pub(crate) const STREAMING: &[&str] = &["\"replication started\"", "\"streaming\""];

/// A run that takes longer is stuck.
const LONGEST: Duration = Duration::from_secs(300);
/// The relay works within this time, or does not come to it.
const LONGEST_START: Duration = Duration::from_secs(60);

/// What a run took.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) events: u32,
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: f64,
    pub(crate) peak_megabytes: u64,
}

impl Run {
    pub(crate) fn rate(&self) -> f64 {
        f64::from(self.events) / self.seconds
    }

    pub(crate) fn cpu_per_million(&self) -> f64 {
        self.cpu_seconds * 1e6 / f64::from(self.events)
    }
}

/// Writes so many transactions of so many rows, each with so many bytes of payload.
pub(crate) const FILL: &str = "CREATE PROCEDURE fill(txs int, n int, bytes int) LANGUAGE plpgsql AS $$
    DECLARE pad text;
    BEGIN
        FOR t IN 1..txs LOOP
            INSERT INTO outbox_events (aggregate_type, aggregate_id, event_type, payload)
            SELECT 'Order', 'o-' || ((t * n + i) % 1000), 'OrderCreated',
                   to_jsonb(left(md5(random()::text) || md5(random()::text) || md5(random()::text)
                              || md5(random()::text) || md5(random()::text) || md5(random()::text)
                              || md5(random()::text), bytes))
            FROM generate_series(1, n) i;
            COMMIT;
        END LOOP;
    END $$";

/// A database whose log holds the events of one shape, and a slot before them.
pub(crate) struct Source<'a> {
    postgres: &'a Postgres,
    events: u32,
    start: String,
    end: String,
    has_origin: Cell<bool>,
}

impl<'a> Source<'a> {
    /// Writes the log.
    pub(crate) fn fill(postgres: &'a Postgres, rows: u32, transactions: u32, bytes: u32) -> Self {
        let config = config(postgres, "127.0.0.1:1", "", 1);
        walrelay(&config, &["setup", "--apply", "--with-outbox"]);
        let source = Self {
            postgres,
            events: rows * transactions,
            start: String::new(),
            end: String::new(),
            has_origin: Cell::new(false),
        };
        let start = source.query("SELECT confirmed_flush_lsn::text FROM pg_replication_slots");
        source.execute(FILL);
        source.execute(&format!("CALL fill({transactions}, {rows}, {bytes})"));
        let end = source.query("SELECT pg_current_wal_lsn()::text");
        Self { start, end, ..source }
    }

    /// The floor of reading: PostgreSQL's own client, into nothing.
    pub(crate) fn pg_recvlogical(&self) -> Run {
        self.rewind("reader");
        let program = self.postgres.programs().join("pg_recvlogical");
        let command = format!(
            "TIMEFORMAT='%R %U %S'; time '{}' -d '{}' --slot reader --start -o proto_version=1 -o \
             publication_names=walrelay -f /dev/null -F 0 --endpos {}",
            program.display(),
            self.postgres.url(),
            self.end
        );
        let output = Command::new("bash").args(["-c", &command]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let last = text.lines().last().unwrap_or_default();
        let times: Vec<f64> =
            last.split(' ').map(|number| number.parse().unwrap_or_else(|_| panic!("{text}"))).collect();
        Run { events: self.events, seconds: times[0], cpu_seconds: times[1] + times[2], peak_megabytes: 0 }
    }

    /// The floor of reading and producing: this program as `bare`.
    pub(crate) fn bare(&self, bootstrap: &str) -> Run {
        self.rewind("bare");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["bare", &self.postgres.url(), "bare", bootstrap, &self.events.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut seconds = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut seconds).unwrap();
        let run = self.measured(child.id(), seconds.trim().parse().unwrap());
        drop(child.stdin.take());
        child.wait().unwrap();
        run
    }

    /// The relay.
    pub(crate) fn relay(&self, program: &str, bootstrap: &str, outbox: &str) -> Run {
        self.rewind("walrelay");
        self.execute(&format!("UPDATE walrelay.position SET position = '{}'", self.start));
        let port = free_port();
        let config = config(self.postgres, bootstrap, outbox, port);
        // From the moment it streams, as for the others, not from the start of the process.
        let mut child = run(program, &config, STREAMING);
        let began = Instant::now();
        while published(port).unwrap_or(0) < u64::from(self.events) {
            let is_stuck = child.try_wait().unwrap().is_some() || began.elapsed() > LONGEST;
            assert!(!is_stuck, "{}", fs::read_to_string(format!("{config}.log")).unwrap());
            thread::sleep(Duration::from_millis(5));
        }
        let run = self.measured(child.id(), began.elapsed().as_secs_f64());
        stop(&mut child);
        run
    }

    fn measured(&self, pid: u32, seconds: f64) -> Run {
        let (cpu_seconds, peak_megabytes) = process::usage(pid);
        Run { events: self.events, seconds, cpu_seconds, peak_megabytes }
    }

    /// Makes a slot at the beginning of the log, in place of the one of this name.
    fn rewind(&self, slot: &str) {
        if !self.has_origin.replace(true) {
            self.execute("SELECT pg_copy_logical_replication_slot('walrelay', 'origin')");
        }
        // Its walsender may take a moment to leave.
        let left = format!("SELECT count(*)::text FROM pg_replication_slots WHERE slot_name = '{slot}'");
        while self.query(&left) != "0" {
            self.execute(&format!(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
                 WHERE slot_name = '{slot}' AND NOT active"
            ));
        }
        self.execute(&format!("SELECT pg_copy_logical_replication_slot('origin', '{slot}')"));
    }

    fn execute(&self, sql: &str) {
        execute(&self.postgres.url(), sql);
    }

    fn query(&self, sql: &str) -> String {
        query(&self.postgres.url(), sql)
    }
}

/// Runs statements on a connection of their own.
pub(crate) fn execute(url: &str, sql: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    });
}

/// Asks for one text.
pub(crate) fn query(url: &str, sql: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        tokio::spawn(connection);
        client.query_one(sql, &[]).await.unwrap().get(0)
    })
}

/// A mock cluster in a process of its own.
pub(crate) struct Mock(Child, String);

impl Mock {
    pub(crate) fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("mock")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut bootstrap = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut bootstrap).unwrap();
        Self(child, bootstrap.trim().to_owned())
    }

    pub(crate) fn bootstrap(&self) -> String {
        self.1.clone()
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Writes a configuration for a run; gives its path.
pub(crate) fn config(postgres: &Postgres, bootstrap: &str, outbox: &str, port: u16) -> String {
    let path = std::env::temp_dir().join(format!("walrelay-bench-{}-{port}.toml", std::process::id()));
    let text = format!(
        "[postgres]\nurl = \"{}\"\n[kafka]\nbrokers = [\"{bootstrap}\"]\n[http]\nlisten = \"127.0.0.1:{port}\"\n\
         [log]\nformat = \"json\"\n[[outbox]]\ntable = \"public.outbox_events\"\n{outbox}",
        postgres.url()
    );
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// Runs a verb of the program to its end.
pub(crate) fn walrelay(config: &str, arguments: &[&str]) {
    let output = Command::new(WALRELAY).args(["--config", config]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Starts the relay, and waits until its log says one of these: it works.
pub(crate) fn run(program: &str, config: &str, running: &[&str]) -> Child {
    let began = Instant::now();
    let log = format!("{config}.log");
    let mut relay = Command::new(program)
        .args(["--config", config, "run"])
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    loop {
        let text = fs::read_to_string(&log).unwrap();
        if running.iter().any(|words| text.contains(words)) {
            return relay;
        }
        assert!(relay.try_wait().unwrap().is_none() && began.elapsed() < LONGEST_START, "{text}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Gives the headers that the relay gives a record.
pub(crate) fn headers(id: &str, produced_at: &str) -> OwnedHeaders {
    let headers = [("event_id", id), ("event_type", "OrderCreated"), ("produced_at", produced_at)];
    headers
        .into_iter()
        .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }))
}

/// Sends SIGTERM and waits.
pub(crate) fn stop(child: &mut Child) {
    kill_process(Pid::from_child(child), Signal::TERM).unwrap();
    child.wait().unwrap();
}

/// Reads how many events the relay has published.
pub(crate) fn published(port: u16) -> Option<u64> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let line = text.lines().find(|line| line.starts_with("walrelay_events_published_total"))?;
    line.rsplit(' ').next()?.parse::<f64>().ok().map(|count| count as u64)
}
