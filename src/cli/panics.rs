//! A panic in any thread ends the process at once with exit code 70.
//!
//! A thread that ends must not leave the others running, and an exit code says more to an init system than an abort.

use std::backtrace::Backtrace;
use std::backtrace::BacktraceStatus;
use std::io::Write as _;
use std::panic;
use std::process;

use walrelay_events::fault::Code;
use walrelay_events::fault::Exit;

use crate::log;

const PANICKED: Code = Code::new(Exit::Internal, 90);
const WHAT: &str = "a bug in walrelay";
const NEXT: &str =
    "please report it with the lines above; nothing is confirmed that is not delivered, so a restart is safe";

/// Installs the panic hook.
pub(super) fn end_the_process() {
    let default_hook = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let trace = Backtrace::capture();
        let trace = if trace.status() == BacktraceStatus::Captured { trace.to_string() } else { String::new() };
        let (code, error) = (PANICKED.to_string(), format!("{WHAT}: {info}"));
        let fields = [("code", code.as_str()), ("error", &error), ("next", NEXT), ("backtrace", &trace)];
        if !log::write_now("stopped by an error", &fields) {
            default_hook(info);
            let _ = writeln!(std::io::stderr(), "error[{PANICKED}]: {WHAT}\n  next: {NEXT}");
        }
        process::exit(Exit::Internal as i32);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::env;
    use std::process::Command;
    use std::thread;

    const CHILD: &str = "PANIC_IN_A_THREAD";

    /// Runs itself as a process of its own, which panics in a thread that nobody waits for.
    #[test]
    fn a_panic_in_any_thread_ends_the_process_with_70_and_a_code() {
        if let Some(child) = env::var_os(CHILD) {
            end_the_process();
            let json = log::Config { format: log::Format::Json, ..log::Config::default() };
            let _guard = (child == "json").then(|| log::start(&json).unwrap());
            thread::spawn(|| panic!("as if"));
            loop {
                thread::park();
            }
        }
        let name = "cli::panics::tests::a_panic_in_any_thread_ends_the_process_with_70_and_a_code";
        let panicked = |child: &str| {
            let mut command = Command::new(env::current_exe().unwrap());
            let output = command.args(["--exact", name, "--nocapture"]).env(CHILD, child).output().unwrap();
            let notes = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(70), "{notes}");
            notes
        };
        let notes = panicked("plain");
        assert!(notes.contains("as if") && notes.contains("error[WR-7090]"), "{notes}");
        // Where there is a log, it is a record of it, and the last line.
        let notes = panicked("json");
        let last: serde_json::Value = serde_json::from_str(notes.lines().last().unwrap()).unwrap();
        assert_eq!((&last["level"], &last["code"]), (&"ERROR".into(), &"WR-7090".into()), "{notes}");
        assert!(last["error"].as_str().unwrap().contains("as if") && last["next"].is_string(), "{notes}");
    }
}
