//! The effect of signals.

use std::fs;
use std::io::Write as _;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Pid;
use rustix::process::kill_process;
use walrelay_events::testing::Broker;
use walrelay_events::testing::Options;
use walrelay_events::testing::Postgres;

use crate::support::program::Program;
use crate::support::program::signal;

#[test]
fn a_stop_before_the_configuration_is_read_is_an_orderly_stop() {
    let program = Program::new("postgres://postgres@127.0.0.1:1/postgres", "127.0.0.1:1", "");
    let text = fs::read_to_string(program.folder().join("config.toml")).unwrap();
    let fifo = program.folder().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    for name in ["TERM", "INT"] {
        let mut run = program.command(&["run"]);
        let mut run = run.arg("--config").arg(&fifo).stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // This returns when the program opens it to read its configuration.
        let mut config = fs::OpenOptions::new().write(true).open(&fifo).unwrap();
        kill_process(Pid::from_child(&run), signal(name)).unwrap();
        config.write_all(text.as_bytes()).unwrap();
        drop(config);
        let began = Instant::now();
        let status = loop {
            if let Some(status) = run.try_wait().unwrap() {
                break status;
            }
            assert!(began.elapsed() < Duration::from_secs(30), "SIG{name}: it runs on");
            thread::sleep(Duration::from_millis(10));
        };
        assert_eq!(status.code(), Some(0), "SIG{name}: {status}");
    }
}

#[test]
fn other_signals_are_ignored_and_sighup_of_a_terminal_drains() {
    let postgres = Postgres::start(Options::default()).unwrap();
    let broker = Broker::start(1).unwrap();
    let mut program = Program::new(&postgres.url(), &broker.bootstrap(), "");
    program.setup();
    program.start_streaming();
    for name in ["HUP", "USR1", "USR2"] {
        program.signal(name);
        let logged = format!("\"signal\":\"SIG{name}\"");
        program.await_log(&logged);
    }
    assert_eq!(program.get("/readyz").unwrap().0, 200);
    assert_eq!(program.terminate(), Some(0), "{}", program.log());

    // `script` gives it a terminal, which ends when `script` is killed.
    let log = program.folder().join("of-the-terminal");
    let run = program.command(&["run"]);
    let words = [run.get_program()].into_iter().chain(run.get_args()).map(|word| format!("'{}'", word.display()));
    // The tests themselves may run under nohup, whose ignored SIGHUP is inherited.
    let words = words.collect::<Vec<_>>().join(" ");
    let line = format!("exec env --default-signal=HUP {words} 2> '{}'", log.display());
    let mut terminal = Command::new("script")
        .args(["--quiet", "--command", &line, "/dev/null"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("run script: {error}; sudo apt-get install bsdutils"));
    program.await_state("streaming");
    terminal.kill().unwrap();
    terminal.wait().unwrap();
    // Not by its endpoints: they are closed before the last line is written, and another program may use the port.
    let said = || fs::read_to_string(&log).unwrap();
    let began = Instant::now();
    while !said().contains("stopped, all records acknowledged") {
        assert!(began.elapsed() < Duration::from_secs(60), "it has not ended: {}", said());
        thread::sleep(Duration::from_millis(20));
    }
    assert!(said().contains("\"message\":\"draining\""), "{}", said());
}
