//! `walrelay config init`: three commands lead to the first event, and no file and no password is at risk.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process;
use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;

use crate::support::kafka::Kafka;
use crate::support::kafka::free_port;
use crate::support::program;
use crate::support::program::Ended;
use crate::support::program::printed;
use crate::support::reader;
use crate::support::source::Sql;

use super::setup::INSERT;
use super::setup::ok;

/// A folder of a new user, and the relay that runs in it.
struct Folder {
    path: PathBuf,
    listen: String,
    relay: Option<Child>,
}

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("walrelay-init-{}", uuid::Uuid::now_v7()));
        fs::create_dir(&path).unwrap();
        Self { path, listen: format!("127.0.0.1:{}", free_port()), relay: None }
    }

    /// A command as it would be typed in this folder.
    fn shell(&self, command: &str) -> Command {
        let program = Path::new(&program::path()).parent().unwrap().display().to_string();
        let search = format!("{program}:{}", std::env::var("PATH").unwrap_or_default());
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).env("PATH", search).env("WALRELAY_HTTP__LISTEN", &self.listen);
        shell.current_dir(&self.path).stdin(Stdio::null());
        shell
    }

    fn type_in(&self, command: &str) -> Ended {
        let output = self.shell(command).output().unwrap();
        Ended {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            notes: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    fn start(&mut self, command: &str) {
        let log = fs::File::create(self.path.join("log")).unwrap();
        self.relay = Some(self.shell(&format!("exec {command}")).stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    fn stop(&mut self) -> Option<i32> {
        let mut relay = self.relay.take().unwrap();
        kill_process(Pid::from_child(&relay), Signal::TERM).unwrap();
        relay.wait().unwrap().code()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path.join(name)).unwrap_or_default()
    }

    /// Writes a file that nobody else can read.
    fn secret(&self, name: &str, text: &str) -> String {
        let path = self.path.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path.display().to_string()
    }
}

impl Drop for Folder {
    #[expect(clippy::print_stderr, reason = "it is captured, and shown if the test fails")]
    fn drop(&mut self) {
        if let Some(mut relay) = self.relay.take() {
            let _ = relay.kill();
            let _ = relay.wait();
        }
        if std::thread::panicking() {
            eprintln!("what the relay logged:\n{}", self.read("log"));
        }
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// A server on which the relay's role has a password.
fn postgres(role: &str) -> (Postgres, Sql) {
    let options = Options::default().with_hba(vec![
        format!("host all {role} 127.0.0.1/32 scram-sha-256"),
        format!("host replication {role} 127.0.0.1/32 scram-sha-256"),
    ]);
    let postgres = Postgres::start(options).unwrap();
    let sql = Sql::connect(&postgres.url());
    sql.run(&format!("CREATE ROLE {role} LOGIN REPLICATION PASSWORD 'right'"));
    (postgres, sql)
}

fn url(postgres: &Postgres, login: &str) -> String {
    format!("postgres://{login}@127.0.0.1:{}/postgres", postgres.port())
}

/// Gives the commands of the first shell block under a heading of the README, each in one line.
fn readme(heading: &str) -> Vec<String> {
    let (_, section) = include_str!("../../README.md").split_once(heading).unwrap();
    let (_, block) = section.split_once("```sh\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    block.replace("\\\n", " ").lines().map(str::to_owned).collect()
}

#[test]
fn the_three_commands_of_the_readme_lead_to_the_first_event() {
    let (postgres, sql) = postgres("walrelay");
    sql.run("CREATE ROLE shop LOGIN");
    let kafka = Kafka::shared();
    let mut folder = Folder::new();
    let password = folder.secret("pg", "right\n");
    let commands = readme("## Set it up\n");
    assert_eq!(commands.len(), 3, "{commands:?}");
    let here: Vec<String> = commands
        .iter()
        .map(|command| {
            [
                ("postgres://walrelay@db.example/shop", url(&postgres, "walrelay").as_str()),
                ("postgres://postgres@db.example/shop", postgres.url().as_str()),
                ("/run/secrets/pg", &password),
                ("kafka.example:9093", &kafka.bootstrap()),
                ("order-events", "init-order-events"),
            ]
            .iter()
            .fold(command.clone(), |command, (there, here)| command.replace(there, here))
        })
        .collect();
    let written = ok(folder.type_in(&here[0]));
    let next = "run `walrelay setup --apply --with-outbox --with-topics`, then `walrelay run`";
    assert!(written.notes.starts_with("wrote config.toml\n") && written.notes.contains(next), "{}", written.notes);
    // The test gives the program its port by a variable.
    let warnings = written.notes.replace("warning: WALRELAY_HTTP__LISTEN is set", "");
    assert!(warnings != written.notes && !warnings.contains("warning"), "{}", written.notes);
    assert!(written.out.is_empty(), "{}", written.out);
    assert_eq!(ok(folder.type_in("walrelay config validate")).out, "config.toml is valid\n");
    ok(folder.type_in(&here[1]));
    folder.start(&here[2]);
    Sql::connect(&url(&postgres, "shop")).run(INSERT);
    sql.await_all_confirmed(Duration::from_secs(60));
    assert_eq!(folder.stop(), Some(0), "{}", folder.read("log"));
    let records = reader::read_all(&kafka.bootstrap(), "init-order-events");
    assert_eq!((records.len(), records[0].key.as_deref()), (1, Some(&b"k1"[..])));
}

#[test]
fn the_printed_commands_work_on_a_file_of_another_folder_with_sasl_and_names_of_ones_own() {
    let (postgres, sql) = postgres("relay");
    let (kafka, door) = Kafka::with_login();
    let mut folder = Folder::new();
    folder.secret("pg", "right");
    folder.secret("kafka", "right");
    fs::create_dir(folder.path.join("my etc")).unwrap();
    let written = ok(folder.type_in(&format!(
        "walrelay --config 'my etc/relay.toml' config init --postgres-url {} --postgres-password-file pg --table \
         'public.my events' --slot walrelay --publication \"it's \\\"mine\\\"\" --brokers {door} --topic sasl-events \
         --kafka-user walrelay --kafka-password-file kafka --kafka-mechanism scram-sha-256",
        url(&postgres, "relay")
    )));
    let setup = printed(&written.notes, "walrelay --config 'my etc/relay.toml' setup");
    assert!(!setup.contains("--with-outbox") && written.notes.contains("add --with-outbox if"), "{}", written.notes);
    ok(folder.type_in(&format!("{setup} --with-outbox --admin-url {}", postgres.url())));
    let run = printed(&written.notes.replace(&setup, ""), "walrelay --config");
    assert_eq!(run, "walrelay --config 'my etc/relay.toml' run");
    folder.start(&run);
    sql.run(&INSERT.replace("public.outbox_events", "\"my events\""));
    sql.await_all_confirmed(Duration::from_secs(60));
    assert_eq!(folder.stop(), Some(0), "{}", folder.read("log"));
    assert_eq!(reader::read_all(&kafka.bootstrap(), "sasl-events").len(), 1);
}

#[test]
fn a_file_that_exists_stays_as_it_is_whatever_it_is() {
    let folder = Folder::new();
    fs::write(folder.path.join("config.toml"), "mine").unwrap();
    fs::create_dir(folder.path.join("folder")).unwrap();
    std::os::unix::fs::symlink("nowhere", folder.path.join("link")).unwrap();
    for (call, name) in [("", "config.toml"), ("--config folder", "folder"), ("--config link", "link")] {
        let ended = folder.type_in(&format!("walrelay {call} config init"));
        assert_eq!((ended.code, ended.out.as_str()), (Some(64), ""), "{}", ended.notes);
        let expected = format!("error[WR-6402]: {name} exists, and is not overwritten\n");
        assert!(ended.notes.starts_with(&expected), "{}", ended.notes);
    }
    assert!(!folder.path.join("nowhere").exists(), "a link is not followed");
    let ended = folder.type_in("walrelay config init");
    assert_eq!(folder.read("config.toml"), "mine");
    ok(folder.type_in(&printed(&ended.notes, "mv ")));
    assert_eq!(folder.read("config.toml.old"), "mine");
    ok(folder.type_in("walrelay config init"));
    ok(folder.type_in("walrelay config validate"));
}

#[test]
fn a_password_in_the_url_is_written_nowhere_and_the_next_step_works() {
    let (postgres, _) = postgres("relay");
    let folder = Folder::new();
    let login = url(&postgres, "relay:right");
    let ended = folder.type_in(&format!("walrelay config init --topic 'a-topic' --postgres-url {login}"));
    assert!(ended.code == Some(64) && ended.notes.contains("error[WR-6403]"), "{}", ended.notes);
    assert!(!ended.notes.contains("right") && !folder.path.join("config.toml").exists(), "{}", ended.notes);
    folder.secret("postgres-password", "right");
    ok(folder.type_in(&printed(&ended.notes, "walrelay config init")));
    let text = folder.read("config.toml");
    assert!(!text.contains("right") && text.contains("topic = \"a-topic\""), "{text}");
    let denied = folder.type_in("walrelay setup --apply");
    assert!(denied.notes.contains("SQLSTATE 42501"), "the password is right: {}", denied.notes);
}

#[test]
fn what_is_no_valid_configuration_is_not_written_and_a_missing_password_file_is_a_warning() {
    let folder = Folder::new();
    let ended = folder.type_in("walrelay config init --slot Wrong --brokers nowhere,b:1 --topic 'a b'");
    assert_eq!(ended.code, Some(64));
    for expected in ["error[WR-6404]", "source.slot: invalid slot name", "\"nowhere\" is not of the form", "outbox.0"] {
        assert!(ended.notes.contains(expected), "{expected} in {}", ended.notes);
    }
    assert!(!folder.path.join("config.toml").exists());
    let ended = folder.type_in("walrelay config init --brokers SASL_SSL://me:hunter2@kafka:9092");
    assert_eq!(ended.code, Some(64));
    assert!(ended.notes.contains("without a scheme") && !ended.notes.contains("hunter2"), "{}", ended.notes);
    for wrong in ["--kafka-user u", "--kafka-tls --kafka-plaintext", "--kafka-mechanism md5", "--kafka-password-env K"]
    {
        assert_eq!(folder.type_in(&format!("walrelay config init {wrong}")).code, Some(2), "{wrong}");
    }
    let ended = ok(folder.type_in("walrelay --set log.level=warn config init --postgres-password-file later"));
    for expected in ["warning: postgres.password: ", "warning: --set is not part", "the rows name the topics"] {
        assert!(ended.notes.contains(expected), "{expected} in {}", ended.notes);
    }
    assert!(ended.notes.contains("`walrelay --set log.level=warn setup --apply --with-outbox`"), "{}", ended.notes);
}

#[test]
fn a_folder_that_cannot_be_written_to_is_an_error_whose_next_step_works() {
    let folder = Folder::new();
    let ended = folder.type_in("walrelay --config 'new one/config.toml' config init");
    assert!(ended.code == Some(64) && ended.notes.contains("error[WR-6405]"), "{}", ended.notes);
    ok(folder.type_in(&printed(&ended.notes, "mkdir ")));
    ok(folder.type_in("walrelay --config 'new one/config.toml' config init"));

    // Not even root writes there.
    let ended =
        folder.type_in("walrelay --config /sys/config.toml config init --topic the-topic --publication 'the one'");
    assert!(ended.code == Some(64) && ended.notes.contains("WR-6405"), "{}", ended.notes);
    let ended = ok(folder.type_in(&printed(&ended.notes, "walrelay ")));
    for expected in ["topic = \"the-topic\"\n", "publication = \"the one\"\n"] {
        assert!(ended.out.contains(expected), "{expected} in {}", ended.out);
    }
}

#[test]
fn the_printed_file_is_the_one_that_would_be_written_and_a_closed_pipe_is_no_error() {
    let folder = Folder::new();
    let init = "walrelay config init --kafka-ca ca.pem --brokers a:1";
    let print = ok(folder.type_in(&format!("{init} --print")));
    assert!(!folder.path.join("config.toml").exists());
    ok(folder.type_in(init));
    assert_eq!(print.out, folder.read("config.toml"));
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let closed = folder.shell(&format!("exec {init} --print")).stdout(writer).output().unwrap();
    let notes = String::from_utf8_lossy(&closed.stderr);
    assert!(closed.status.success() && !notes.contains("panicked"), "{notes}");
}

#[test]
fn without_any_configuration_the_first_step_is_named() {
    let folder = Folder::new();
    let status = folder.shell("walrelay status").env_remove("WALRELAY_HTTP__LISTEN").output().unwrap();
    let notes = String::from_utf8_lossy(&status.stderr);
    assert!(status.status.code() == Some(64) && notes.contains("write one with `walrelay config init`"), "{notes}");
}
