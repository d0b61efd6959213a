//! The real program, as a process of its own with a configuration file of its own.

use std::ffi::OsString;
use std::fs;
use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process;

use super::kafka::free_port;

/// A configuration file and the processes started on it.
pub struct Program {
    folder: PathBuf,
    port: u16,
    process: Option<Child>,
}

static MADE: AtomicU32 = AtomicU32::new(0);

impl Program {
    /// Writes a configuration for this source and this sink; `more` is TOML that follows it.
    pub fn new(url: &str, brokers: &str, more: &str) -> Self {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("walrelay-run-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let port = free_port();
        let brokers: Vec<String> = brokers.split(',').map(|broker| format!("\"{broker}\"")).collect();
        let text = format!(
            "[postgres]\nurl = \"{url}\"\n\n[kafka]\nbrokers = [{}]\nmetrics = true\n\n[http]\nlisten = \
             \"127.0.0.1:{port}\"\n\n{more}\n",
            brokers.join(", ")
        );
        fs::write(folder.join("config.toml"), text).unwrap();
        Self { folder, port, process: None }
    }

    /// Changes the configuration, for the next start.
    pub fn edit(&self, from: &str, to: &str) {
        let path = self.folder.join("config.toml");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(path, text.replace(from, to)).unwrap();
    }

    /// Runs a verb to its end.
    pub fn verb(&self, arguments: &[&str]) -> Ended {
        let output = self.command(arguments).stdin(Stdio::null()).output().unwrap();
        Ended {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            notes: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Sets the source up.
    pub fn setup(&self) {
        let ended = self.verb(&["setup", "--apply", "--with-outbox"]);
        assert_eq!(ended.code, Some(0), "{}", ended.notes);
    }

    /// Starts `run`.
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// Starts `run` with these variables in its environment.
    pub fn start_with(&mut self, variables: &[(&str, &str)]) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder.join("log")).unwrap();
        let mut command = self.command(&["run"]);
        command.envs(variables.iter().copied()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.process = Some(command.spawn().unwrap());
    }

    /// Gives the process id of `run`.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// The port of its endpoints.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Starts `run` and waits until events flow.
    pub fn start_streaming(&mut self) {
        self.start();
        self.await_state("streaming");
    }

    /// Waits until `/status` names this state.
    pub fn await_state(&mut self, state: &str) {
        let wanted = format!("\"state\":\"{state}\"");
        self.await_that(&format!("the state {state}"), |program| {
            program.get("/status").is_some_and(|(_, body)| body.replace(' ', "").contains(&wanted))
        });
    }

    /// Waits until something is so.
    pub fn await_that(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> bool) {
        let began = Instant::now();
        while !is_so(self) {
            if let Some(code) = self.ended() {
                panic!("waiting for {what}, the program ended with {code:?}: {}", self.log());
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{what} has not come: {}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until its log contains this. A metric may change before the line about it is written.
    pub fn await_log(&mut self, text: &str) {
        self.await_that(&format!("a line with {text:?}"), |program| program.log().contains(text));
    }

    /// Asks one of the endpoints: status and body.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let status = text.split(' ').nth(1)?.parse().ok()?;
        Some((status, text.split_once("\r\n\r\n")?.1.to_owned()))
    }

    /// Reads one number of `/metrics`; the label is part of what the line must contain.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let (_, body) = self.get("/metrics")?;
        let line = body.lines().find(|line| line.starts_with(name) && !line.starts_with('#'))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        let pid = self.pid().and_then(|pid| Pid::from_raw(pid.cast_signed())).expect("run was started");
        kill_process(pid, signal(name)).unwrap();
    }

    /// Sends SIGTERM and waits for the end.
    pub fn terminate(&mut self) -> Option<i32> {
        self.signal("TERM");
        self.wait()
    }

    /// Kills it without a chance to do anything.
    pub fn kill(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill().unwrap();
        }
        self.wait();
    }

    /// Waits for the end, and gives the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        let began = Instant::now();
        loop {
            match self.process.as_mut()?.try_wait().unwrap() {
                Some(status) => {
                    self.process = None;
                    return status.code();
                }
                None => assert!(began.elapsed() < Duration::from_secs(90), "it does not end: {}", self.log()),
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Says whether it has ended by itself, and how.
    pub fn ended(&mut self) -> Option<Option<i32>> {
        self.process.as_mut()?.try_wait().unwrap().map(|status| status.code())
    }

    /// Gives everything it has said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// The folder of the configuration file.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A command on this configuration.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(&[]);
        command.arg("--config").arg(self.folder.join("config.toml")).args(arguments);
        command
    }
}

/// The program under test: the one that was just built, or the one that `WALRELAY_TEST_PROGRAM` names.
pub fn path() -> OsString {
    std::env::var_os("WALRELAY_TEST_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_walrelay").into())
}

/// Starts the program under test with these arguments. What is meant for the tests is no option of its own.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(path());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WALRELAY_TEST_") {
            command.env_remove(name);
        }
    }
    command.args(arguments);
    command
}

/// Gives the first command in a text that begins with this word.
pub fn printed(text: &str, word: &str) -> String {
    text.split('`').find(|part| part.starts_with(word)).unwrap_or_else(|| panic!("no {word} in {text}")).to_owned()
}

/// Pastes a command into a shell that finds the program.
pub fn paste(command: &str) -> Ended {
    let folder = Path::new(&path()).parent().unwrap().display().to_string();
    let search = format!("{folder}:{}", std::env::var("PATH").unwrap_or_default());
    let output = Command::new("sh").args(["-c", command]).env("PATH", search).output().unwrap();
    Ended {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        notes: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The signal of this name.
pub fn signal(name: &str) -> Signal {
    match name {
        "HUP" => Signal::HUP,
        "INT" => Signal::INT,
        "TERM" => Signal::TERM,
        "KILL" => Signal::KILL,
        "STOP" => Signal::STOP,
        "CONT" => Signal::CONT,
        "USR1" => Signal::USR1,
        "USR2" => Signal::USR2,
        _ => panic!("no test sends {name}"),
    }
}

impl Drop for Program {
    /// Nothing here may panic: a test that has failed already would take all others with it.
    #[expect(clippy::print_stderr, reason = "it is captured, and shown if the test fails")]
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        if thread::panicking() {
            eprintln!("what the program logged:\n{}", self.log());
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// How a verb ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub notes: String,
}
