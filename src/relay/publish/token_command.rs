//! Runs the command of `kafka.oauth.token_command` and reads the token that it prints.
//!
//! The output is a JWT, or a JSON object as OAuth token endpoints and cloud tools return it. Neither it nor anything of
//! it is logged.

use std::io::Read;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use serde_json::Map;
use serde_json::Value;
use walrelay_events::oauth::Token;

/// How long the command may run.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How often its end is looked for.
const INTERVAL: Duration = Duration::from_millis(20);
/// The largest output. Tokens have a few kilobytes.
const MAX_OUTPUT_BYTES: u64 = 256 << 10;
/// How much of the last line on its standard error is part of an error.
const MAX_NOTE_CHARS: usize = 200;

/// Runs the command. The error says what happened, without the output.
pub(super) fn fetch(command: &[String]) -> Result<Token, String> {
    let Some((program, arguments)) = command.split_first() else {
        return Err("kafka.oauth.token_command is empty".to_owned());
    };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot run {program}: {error}"))?;
    let (output, notes) = (read(child.stdout.take()), read(child.stderr.take()));
    let deadline = Instant::now() + TIMEOUT;
    let status = wait(&mut child, deadline).map_err(|error| format!("{program} {error}"))?;
    let rest = || deadline.saturating_duration_since(Instant::now()).max(INTERVAL);
    if !status.success() {
        let notes = notes.recv_timeout(rest()).unwrap_or_default();
        let note: String = notes.trim_end().lines().last().unwrap_or_default().chars().take(MAX_NOTE_CHARS).collect();
        return Err(format!("{program} failed with {status}: {note}"));
    }
    let output = output.recv_timeout(rest()).map_err(|_| format!("{program} did not close its output"))?;
    parse(&output, SystemTime::now()).map_err(|error| format!("{program} {error}"))
}

/// Reads a pipe on a thread of its own: a command whose pipe is full would not end.
fn read(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    if let Some(pipe) = pipe {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            let mut pipe = pipe.take(MAX_OUTPUT_BYTES);
            if pipe.read_to_end(&mut bytes).is_ok() {
                // The other end is gone after the deadline.
                let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
            }
        });
    }
    receiver
}

fn wait(child: &mut Child, deadline: Instant) -> Result<std::process::ExitStatus, String> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if Instant::now() < deadline => thread::sleep(INTERVAL),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("did not end within {} s", TIMEOUT.as_secs()));
            }
            Err(error) => return Err(format!("cannot be waited for: {error}")),
        }
    }
}

/// Reads the output: a JWT, or an object with the token and its expiry. Without one, the token must be a JWT.
fn parse(output: &str, now: SystemTime) -> Result<Token, String> {
    let expected = "printed neither a JWT with the claim exp nor a JSON object with access_token and expires_in";
    let output = output.trim();
    if !output.starts_with('{') {
        return Token::from_jwt(output).map_err(|_| expected.to_owned());
    }
    let object: Map<String, Value> = serde_json::from_str(output).map_err(|_| "printed invalid JSON".to_owned())?;
    let token = ["access_token", "accessToken", "token"].iter().find_map(|name| object.get(*name)?.as_str());
    let token = token.filter(|token| !token.is_empty()).ok_or_else(|| expected.to_owned())?;
    let seconds = |name: &str| {
        let number = match object.get(name)? {
            Value::Number(number) => number.as_f64()?,
            Value::String(text) => text.parse().ok()?,
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
        };
        Duration::try_from_secs_f64(number).ok()
    };
    let expires_at = match (seconds("expires_in"), seconds("expires_on")) {
        (Some(lifetime), _) => now.checked_add(lifetime),
        (None, Some(since)) => UNIX_EPOCH.checked_add(since),
        (None, None) => return Token::from_jwt(token).map_err(|_| expected.to_owned()),
    };
    expires_at.map(|expires_at| Token::new(token, expires_at)).ok_or_else(|| expected.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const JWT: &str = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhcHAiLCJleHAiOjE3NjcyMjU2MDB9.";

    fn command(script: &str) -> Vec<String> {
        ["sh", "-c", script].map(str::to_owned).to_vec()
    }

    #[test]
    fn a_token_is_read_in_each_form_that_tools_print() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000);
        let rows = [
            (r#"{"access_token": "t", "expires_in": 60}"#.to_owned(), 1_060),
            (r#"{"access_token": "t", "expires_in": "60", "expires_on": "9"}"#.to_owned(), 1_060),
            (
                r#"{"accessToken": "t", "expiresOn": "2026-01-01 00:00:00.000000", "expires_on": 2000}"#.to_owned(),
                2_000,
            ),
            (format!("{{\"token\": \"{JWT}\"}}"), 1_767_225_600),
            (format!("{JWT}\n"), 1_767_225_600),
        ];
        for (output, expected) in rows {
            let expires_at = parse(&output, now).map(|token| token.expires_at());
            assert_eq!(expires_at, Ok(UNIX_EPOCH + Duration::from_secs(expected)), "{output}");
        }
        for output in ["", "t", "{", "{}", r#"{"access_token": "secret"}"#, r#"{"access_token": "", "expires_in": 1}"#]
        {
            let error = parse(output, now).unwrap_err();
            assert!(error.starts_with("printed ") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_command_that_fails_is_reported_with_its_last_words_and_without_its_output() {
        let printed = fetch(&command(&format!("echo {JWT}"))).unwrap();
        assert_eq!(printed.expires_at(), UNIX_EPOCH + Duration::from_secs(1_767_225_600));
        let failed = fetch(&command("echo secret; echo first >&2; echo not logged in >&2; exit 3")).unwrap_err();
        assert_eq!(failed, "sh failed with exit status: 3: not logged in");
        let missing = fetch(&["/does/not/exist".to_owned()]).unwrap_err();
        assert!(missing.starts_with("cannot run /does/not/exist: "), "{missing}");
        assert_eq!(fetch(&[]).unwrap_err(), "kafka.oauth.token_command is empty");
    }
}
