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

use tokio_postgres::NoTls;
use walrelay::testing::Postgres;

use crate::kafka::free_port;

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
    copies: Cell<u32>,
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
            copies: Cell::new(0),
        };
        let start = source.query("SELECT confirmed_flush_lsn::text FROM pg_replication_slots");
        source.execute(FILL);
        source.execute(&format!("CALL fill({transactions}, {rows}, {bytes})"));
        let end = source.query("SELECT pg_current_wal_lsn()::text");
        Self { start, end, ..source }
    }

    /// The floor of reading: PostgreSQL's own client, into nothing.
    pub(crate) fn pg_recvlogical(&self) -> Run {
        let slot = self.copy();
        let program = self.postgres.programs().join("pg_recvlogical");
        let command = format!(
            "TIMEFORMAT='%R %U %S'; time '{}' -d '{}' --slot {slot} --start -o proto_version=1 -o publication_names=walrelay \
             -f /dev/null -F 0 --endpos {}",
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
        let slot = self.copy();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["bare", &self.postgres.url(), &slot, bootstrap, &self.events.to_string()])
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
    pub(crate) fn relay(&self, bootstrap: &str, outbox: &str) -> Run {
        self.execute(
            "SELECT pg_drop_replication_slot('walrelay') FROM pg_replication_slots WHERE slot_name = 'walrelay'",
        );
        let copied = self.copy();
        self.execute(&format!("SELECT pg_copy_logical_replication_slot('{copied}', 'walrelay')"));
        self.execute(&format!("UPDATE walrelay.position SET position = '{}'", self.start));
        let port = free_port();
        let config = config(self.postgres, bootstrap, outbox, port);
        let mut child = Command::new(env!("CARGO_BIN_EXE_walrelay"))
            .args(["--config", &config, "run"])
            .stderr(fs::File::create(format!("{config}.log")).unwrap())
            .spawn()
            .unwrap();
        let mut began = Instant::now();
        let mut has_begun = false;
        loop {
            thread::sleep(Duration::from_millis(5));
            let done = published(port).unwrap_or(0);
            if !has_begun && done > 0 {
                has_begun = true;
            }
            if !has_begun {
                // From the moment it streams, as for the others, not from the start of the process.
                if !fs::read_to_string(format!("{config}.log")).unwrap_or_default().contains("\"streaming\"") {
                    began = Instant::now();
                }
            }
            if done >= u64::from(self.events) {
                break;
            }
            assert!(child.try_wait().unwrap().is_none(), "{}", fs::read_to_string(format!("{config}.log")).unwrap());
        }
        let run = self.measured(child.id(), began.elapsed().as_secs_f64());
        stop(&mut child);
        run
    }

    fn measured(&self, pid: u32, seconds: f64) -> Run {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        let ticks = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kilobytes: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        Run { events: self.events, seconds, cpu_seconds: ticks / 100.0, peak_megabytes: kilobytes / 1_024 }
    }

    /// A slot of its own for a run, at the beginning of the log; the first one stays there.
    fn copy(&self) -> String {
        let number = self.copies.replace(self.copies.get() + 1);
        if number == 0 {
            self.execute("SELECT pg_copy_logical_replication_slot('walrelay', 'origin')");
        }
        let name = format!("copy{number}");
        self.execute(&format!("SELECT pg_copy_logical_replication_slot('origin', '{name}')"));
        name
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
    let output =
        Command::new(env!("CARGO_BIN_EXE_walrelay")).args(["--config", config]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Sends SIGTERM and waits.
pub(crate) fn stop(child: &mut Child) {
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
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
