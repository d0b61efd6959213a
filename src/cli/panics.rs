//! What follows a panic: the process ends at once with 70, whichever thread it was.
//!
//! A thread that dies must not leave the others half alive, and a program that aborts would tell init systems less. One panic
//! is none of ours and caught: that of rdkafka at a header whose name is not UTF-8.

use std::io::Write as _;
use std::panic;
use std::process;

use crate::consumer::record;
use crate::fault::Code;
use crate::fault::Exit;

const PANICKED: Code = Code::new(Exit::Internal, 90);

/// Sees to it, from here on.
pub(super) fn end_the_process() {
    let tell = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if record::is_expecting_a_panic() {
            return;
        }
        tell(info);
        // If nobody can read it, there is nobody to tell.
        let _ = writeln!(
            std::io::stderr(),
            "error[{PANICKED}]: a bug in walrelay\n  next: please report it with the lines above; nothing is confirmed that \
             is not delivered, so a restart is safe"
        );
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
        if env::var_os(CHILD).is_some() {
            end_the_process();
            thread::spawn(|| panic!("as if"));
            loop {
                thread::park();
            }
        }
        let name = "cli::panics::tests::a_panic_in_any_thread_ends_the_process_with_70_and_a_code";
        let output = Command::new(env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let notes = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(70), "{notes}");
        assert!(notes.contains("as if") && notes.contains("error[WR-7090]"), "{notes}");
    }
}
