//! `healthcheck`: one request to a running relay, for containers without another HTTP client.
//!
//! It waits three seconds at most. Only a 200 counts as healthy.

use std::fmt;
use std::net::SocketAddr;

use super::http;

/// How much of the response is read.
const MAX_ANSWER_BYTES: usize = 4_096;

/// How much of the response is printed, in characters.
const MAX_SHOWN_CHARS: usize = 200;

/// What is asked.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Probe {
    /// Whether the relay is alive.
    #[default]
    Live,
    /// Whether it publishes, or waits as a standby.
    Ready,
}

/// What came back: one line for a person, and whether all is well.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    is_well: bool,
    text: String,
}

impl Answer {
    /// Says whether all is well.
    #[must_use]
    pub const fn is_well(&self) -> bool {
        self.is_well
    }

    /// Gives the exit code: 0 if all is well, else 1.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        if self.is_well { 0 } else { 1 }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Asks the relay that listens on `address`. A wildcard address is asked on the loopback.
#[must_use]
pub fn healthcheck(address: SocketAddr, probe: Probe) -> Answer {
    let address = http::reachable(address);
    match http::get(address, probe.path(), MAX_ANSWER_BYTES) {
        Ok((status, body)) => {
            let first = body.lines().next().unwrap_or_default();
            let shown: String = first.chars().filter(|each| !each.is_control()).take(MAX_SHOWN_CHARS).collect();
            Answer { is_well: status == 200, text: format!("{} {status}: {shown}", probe.path()) }
        }
        Err(error) => Answer { is_well: false, text: format!("{} of {address}: {error}", probe.path()) },
    }
}

impl Probe {
    const fn path(self) -> &'static str {
        match self {
            Self::Live => "/livez",
            Self::Ready => "/readyz",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::io::Write as _;
    use std::net::TcpListener;
    use std::thread;
    use std::time::Instant;

    /// Answers one connection with these bytes and closes it.
    fn answering(bytes: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            let count = stream.read(&mut request).unwrap();
            assert!(request[..count].starts_with(b"GET /"));
            stream.write_all(bytes).unwrap();
        });
        address
    }

    #[test]
    fn only_a_200_is_well() {
        for (bytes, is_well, expected) in [
            (&b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nalive\n"[..], true, "/livez 200: alive"),
            (b"HTTP/1.1 503 Service Unavailable\r\n\r\nno tick for 31 s\n", false, "/livez 503: no tick for 31 s"),
            (b"HTTP/1.1 200 OK\r\n\r\n\x1b[2Jx", true, "/livez 200: [2Jx"),
        ] {
            let answer = healthcheck(answering(bytes), Probe::Live);
            assert_eq!((answer.is_well(), answer.to_string().as_str()), (is_well, expected));
            assert_eq!(answer.exit_code() == 0, is_well);
        }
    }

    #[test]
    fn what_is_not_http_or_not_there_is_not_well() {
        let answer = healthcheck(answering(b"SSH-2.0-x\r\n\r\n"), Probe::Ready);
        assert!(!answer.is_well() && answer.to_string().contains("expected an HTTP answer"), "{answer}");
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert!(!healthcheck(address, Probe::Live).is_well());
    }

    #[test]
    fn a_relay_that_does_not_answer_is_given_three_seconds() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let start = Instant::now();
        let answer = healthcheck(listener.local_addr().unwrap(), Probe::Live);
        assert!(!answer.is_well() && answer.to_string().contains("timed out"), "{answer}");
        assert!((http::TIMEOUT..http::TIMEOUT * 2).contains(&start.elapsed()), "{:?}", start.elapsed());
    }
}
