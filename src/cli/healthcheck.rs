//! `healthcheck`: one question to a running relay, for containers that have no other program to ask it.
//!
//! It speaks the little HTTP it needs over a plain socket, waits three seconds at most and believes nothing but a 200.

use std::fmt;
use std::io;
use std::io::Read;
use std::io::Write;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::time::Duration;
use std::time::Instant;

/// How long the whole question may take.
const TIMEOUT: Duration = Duration::from_secs(3);

/// How much of an answer is read.
const MAX_ANSWER_BYTES: usize = 4_096;

/// How much of the answer's text is shown, in characters.
const MAX_SHOWN_CHARS: usize = 200;

/// What is asked.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Probe {
    /// Whether the relay is alive.
    #[default]
    Live,
    /// Whether it does its duty: it publishes, or it waits for its turn.
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

/// Asks the relay that listens on `address`. An address that means "everywhere" is asked on the loopback.
#[must_use]
pub fn healthcheck(address: SocketAddr, probe: Probe) -> Answer {
    let address = reachable(address);
    match ask(address, probe.path()) {
        Ok((status, text)) => Answer { is_well: status == 200, text: format!("{} {status}: {text}", probe.path()) },
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

fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    SocketAddr::new(ip, address.port())
}

fn ask(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let deadline = Instant::now() + TIMEOUT;
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let answer = read_answer(&mut stream, deadline)?;
    parse(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "expected an HTTP answer"))
}

/// Each read gets only what is left of the time, so a peer that trickles cannot stretch it.
fn read_answer(stream: &mut TcpStream, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    let mut part = [0; 1_024];
    while answer.len() < MAX_ANSWER_BYTES {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(count) => answer.extend(part.iter().take(count)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) => return Err(error),
        }
    }
    Ok(answer)
}

fn parse(answer: &[u8]) -> Option<(u16, String)> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut status_line = head.lines().next()?.split(' ');
    let version = status_line.next()?;
    if !version.starts_with("HTTP/1.") {
        return None;
    }
    let status = status_line.next()?.parse().ok()?;
    let first = body.lines().next().unwrap_or_default();
    let shown = first.chars().filter(|character| !character.is_control()).take(MAX_SHOWN_CHARS);
    Some((status, shown.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

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
        assert!((TIMEOUT..TIMEOUT * 2).contains(&start.elapsed()), "{:?}", start.elapsed());
    }

    #[test]
    fn everywhere_is_asked_on_the_loopback() {
        for (listen, expected) in
            [("0.0.0.0:7430", "127.0.0.1:7430"), ("[::]:7430", "[::1]:7430"), ("10.1.2.3:80", "10.1.2.3:80")]
        {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), expected);
        }
    }
}
