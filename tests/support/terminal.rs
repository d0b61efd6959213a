//! A terminal at which a test answers a question of the program.

use std::fs::File;
use std::io::Read as _;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;

use rustix::pty::OpenptFlags;
use rustix::pty::grantpt;
use rustix::pty::openpt;
use rustix::pty::ptsname;
use rustix::pty::unlockpt;

use super::program::Ended;

/// Runs a command at a terminal to its end: as soon as it prints `question`, `answer` is called and its result typed.
pub fn answer<'a>(mut command: Command, question: &str, answer: impl FnOnce() -> &'a str) -> Ended {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let path = ptsname(&terminal, Vec::new()).unwrap();
    let (input, notes) = (open(Path::new(path.to_str().unwrap())), open(Path::new(path.to_str().unwrap())));
    let process = command.stdin(input).stderr(notes).stdout(Stdio::piped()).spawn().unwrap();
    // The command holds the other end of the terminal, which would not end with the process.
    drop(command);
    let mut terminal = File::from(terminal);
    let mut read = until(&mut terminal, Some(question));
    // It may have ended without a question.
    let _ = terminal.write_all(format!("{}\n", answer()).as_bytes());
    read += &until(&mut terminal, None);
    let output = process.wait_with_output().unwrap();
    Ended {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        notes: read.replace("\r\n", "\n"),
    }
}

fn open(path: &Path) -> File {
    File::options().read(true).write(true).open(path).unwrap()
}

/// Reads what it prints, up to this text or its end, which a terminal gives as an error.
fn until(terminal: &mut File, text: Option<&str>) -> String {
    let (mut read, mut byte) = (Vec::new(), [0]);
    while text.is_none_or(|text| !read.ends_with(text.as_bytes())) && terminal.read(&mut byte).is_ok_and(|n| n == 1) {
        read.push(byte[0]);
    }
    String::from_utf8_lossy(&read).into_owned()
}
