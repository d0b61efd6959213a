//! What a new user does: `cargo new`, and the files of docs/library.md, copied as they stand there. They are built with
//! the versions of this repository, and run between a real PostgreSQL, the real relay and a real Kafka.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process;
use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;

use crate::support::kafka::Kafka;
use crate::support::program::Program;
use crate::support::reader;
use crate::support::source::Sql;

/// The projects of the page.
const PROJECTS: [&str; 3] = ["orders", "invoicing", "meters"];

/// Around the projects: this checkout in the place of the published library. The C libraries, and what builds them,
/// have the options of this workspace, so that they are not built again.
const WORKSPACE: &str = "
[workspace]
members = [\"invoicing\", \"meters\", \"orders\"]
resolver = \"3\"

[profile.dev]
debug = false

[profile.dev.build-override]
opt-level = 1
debug = false

[profile.dev.package]
libz-sys.opt-level = 1
openssl-sys.opt-level = 1
rdkafka-sys.opt-level = 1
zstd-sys.opt-level = 1
";
/// The programs with librdkafka take OpenSSL as this workspace does, for the same reason.
const VENDORED: [&str; 2] = ["--features", "walrelay-events/vendored"];

#[test]
fn an_event_goes_from_cargo_new_to_its_handler_with_nothing_but_the_page() {
    let programs = build();
    let (postgres, kafka) = (Postgres::start(Options::default()).unwrap(), Kafka::start(1));
    let application = Application { programs, database: postgres.url(), brokers: kafka.bootstrap() };

    // What is forgotten is named with the next step, by the exit code of its kind.
    let early = application.run("orders", &["o-0"]);
    let log = text(&early.stdout);
    assert_eq!(early.status.code(), Some(65), "{log}");
    assert!(log.contains("WR-6530") && log.contains("walrelay setup --with-outbox --apply"), "{log}");
    let early = application.run("invoicing", &[]);
    let log = text(&early.stdout);
    assert_eq!(early.status.code(), Some(69), "{log}");
    assert!(log.contains("WR-6970") && log.contains("kafka-topics.sh"), "{log}");

    for (topic, partitions) in [("order-events", 3), ("order-events.dlq", 1), ("meter-events", 1)] {
        kafka.create_topic(topic, partitions);
    }
    let mut relay = Program::new(&postgres.url(), &kafka.bootstrap(), "");
    relay.setup();
    relay.start_streaming();

    let mut consumer = application.start("invoicing");
    let mut publisher = application.start("meters");
    assert!(application.run("orders", &["o-1"]).status.success());
    let sql = Sql::connect(&postgres.url());
    until("the invoice is written", || {
        sql.text("SELECT coalesce(string_agg(order_id || total_cents, ','), '') FROM invoices") == "o-11250"
    });
    until("a reading is published", || kafka.end_of("meter-events") > 0);
    assert_eq!([terminate(&mut consumer), terminate(&mut publisher)], [Some(0); 2]);

    assert_eq!(sql.text("SELECT count(*)::text FROM walrelay.inbox WHERE consumer = 'invoicing'"), "1");
    let readings = reader::read_all(&kafka.bootstrap(), "meter-events");
    assert!(readings.iter().all(|reading| reading.key.as_deref() == Some(b"m-1")));
    let value: serde_json::Value = serde_json::from_slice(readings[0].value.as_deref().unwrap()).unwrap();
    assert_eq!(value["event_type"], "MeterRead");
}

/// Copies the files of the page, builds each project for itself as its user does, and gives the folder of the programs.
fn build() -> PathBuf {
    let (root, folder) =
        (Path::new(env!("CARGO_MANIFEST_DIR")), Path::new(env!("CARGO_TARGET_TMPDIR")).join("adopter"));
    let page = fs::read_to_string(root.join("docs/library.md")).unwrap();
    let library = root.join("crates/walrelay-events");
    let patch = format!("[patch.crates-io]\nwalrelay-events = {{ path = {:?} }}\n", library.display().to_string());
    write(&folder.join("Cargo.toml"), &(WORKSPACE.to_owned() + &patch));
    write(&folder.join("Cargo.lock"), &fs::read_to_string(root.join("Cargo.lock")).unwrap());
    for file in PROJECTS.iter().flat_map(|project| [format!("{project}/Cargo.toml"), format!("{project}/src/main.rs")])
    {
        write(&folder.join(&file), block(&page, &file));
    }
    let target = folder.ancestors().nth(2).unwrap();
    for project in PROJECTS {
        let mut command = Command::new(env!("CARGO"));
        // The folder of a dependency may name a toolchain of its own, which counts where cargo has not set one.
        if std::env::var_os("RUSTUP_TOOLCHAIN").is_none() {
            let toolchain = fs::read_to_string(root.join("rust-toolchain.toml")).unwrap();
            let channel = toolchain.lines().find_map(|line| line.strip_prefix("channel = ")).unwrap();
            command.env("RUSTUP_TOOLCHAIN", channel.trim_matches('"'));
        }
        command.args(["build", "--quiet", "--offline", "--package", project, "--target-dir"]).arg(target);
        command.args(VENDORED.iter().filter(|_| project != "orders")).env("OPENSSL_NO_VENDOR", "1");
        let output = command.current_dir(&folder).output().unwrap();
        let messages = text(&output.stderr);
        // A warning of the compiler names its line.
        assert!(output.status.success() && !messages.contains(" --> "), "{project}: {messages}");
    }
    target.join("debug")
}

/// Gives the block of the page that follows the name of its file.
fn block<'p>(page: &'p str, file: &str) -> &'p str {
    let named = page.split_once(&format!("\n`{file}`:\n\n```")).unwrap_or_else(|| panic!("no {file} on the page")).1;
    named.split_once('\n').unwrap().1.split("```\n").next().unwrap()
}

/// Writes a file unless it is there with this content: cargo builds what is newer.
fn write(path: &Path, content: &str) {
    if fs::read_to_string(path).is_ok_and(|old| old == content) {
        return;
    }
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// The programs of the page, and what they connect to.
struct Application {
    programs: PathBuf,
    database: String,
    brokers: String,
}

impl Application {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.env("DATABASE_URL", &self.database).env("KAFKA_BROKERS", &self.brokers).stdin(Stdio::null());
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        self.command(program).args(arguments).output().unwrap()
    }

    fn start(&self, program: &str) -> Running {
        Running(self.command(program).stdout(Stdio::null()).spawn().unwrap())
    }
}

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends SIGTERM and gives the exit code.
fn terminate(running: &mut Running) -> Option<i32> {
    kill_process(Pid::from_child(&running.0), Signal::TERM).unwrap();
    running.0.wait().unwrap().code()
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(60), "waited for: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
