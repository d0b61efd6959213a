//! `/metrics`, `/livez`, `/readyz`, `/status` and one small page, on a thread of their own.
//!
//! ```text
//! accept -> connection (at most 64, the oldest is closed) -> request (GET, no body) -> answer, from a View
//! ```
//!
//! It only reads: nothing can be changed, no configuration and no payload is shown, and a slow or hostile client slows
//! down nobody else. It has its own thread and runtime, so that it answers while the relay is busy, and reports when
//! the relay hangs.

mod answer;
mod chart;
mod config;
mod history;
mod page;
mod serve;
mod status;
mod view;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;
use std::thread::JoinHandle;

use tokio::runtime;
use tokio::sync::oneshot;

use walrelay_events::fault::Code;
use walrelay_events::fault::Diagnose;
use walrelay_events::fault::Exit;
use walrelay_events::fault::Fate;

pub use config::Config;
pub use status::MAX_STANDSTILL;
pub use status::Slot;
pub use status::Status;
pub use view::View;

use view::Observed;

/// The endpoints cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be bound.
    #[error("cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The thread or its runtime cannot be started.
    #[error("cannot start the HTTP thread")]
    Start(#[source] io::Error),
}

impl Diagnose for Error {
    fn code(&self) -> Code {
        match self {
            Self::Listen { .. } => Code::new(Exit::Configuration, 40),
            Self::Start(_) => Code::new(Exit::Internal, 40),
        }
    }

    fn fate(&self) -> Fate {
        Fate::Fatal
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::Listen { address, .. } => Some(format!(
                "set http.listen to an address of this machine and a free port; `ss -ltnp 'sport = :{}'` shows which \
                 process uses this one",
                address.port()
            )),
            Self::Start(_) => None,
        }
    }
}

/// The running endpoints. Dropping it ends them.
pub struct Running {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Starts the endpoints.
pub fn start(config: &Config, view: Arc<dyn View>) -> Result<Running, Error> {
    let refused = |source| Error::Listen { address: config.listen, source };
    let listener = TcpListener::bind(config.listen).map_err(refused)?;
    listener.set_nonblocking(true).map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Start)?;
    let (stop, stopped) = oneshot::channel();
    let thread = thread::Builder::new()
        .name("admin".to_owned())
        .spawn(move || runtime.block_on(serve::run(listener, Observed::new(view), stopped)))
        .map_err(Error::Start)?;
    Ok(Running { address, stop: Some(stop), thread: Some(thread) })
}

impl Running {
    /// Gives the address, with the port that the system chose if the configured one is 0.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops the endpoints and closes all connections.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The panic hook has reported a panic of that thread.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("address", &self.address).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Sources;
    use crate::relay;
    use crate::relay::State;
    use crate::relay::metrics::Component;
    use crate::relay::metrics::Loss;
    use std::io::Read;
    use std::io::Write;
    use std::net::TcpStream;
    use std::time::Duration;
    use std::time::Instant;

    fn sources() -> Sources {
        Sources::new("orders", "walrelay", "walrelay", relay::Metrics::default())
    }

    fn running() -> (Running, relay::Metrics) {
        let sources = sources();
        let relay = sources.relay.clone();
        let config = Config { listen: SocketAddr::from(([127, 0, 0, 1], 0)) };
        (start(&config, Arc::new(sources)).unwrap(), relay)
    }

    fn exchange(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn get(address: SocketAddr, path: &str) -> String {
        exchange(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
    }

    fn status_of(answer: &str) -> &str {
        answer.split(' ').nth(1).unwrap()
    }

    #[test]
    fn every_path_answers_over_a_real_socket() {
        let (running, relay) = running();
        relay.enter(State::Streaming);
        relay.kafka.connected();
        for (path, status, part) in [
            ("/livez", "200", "alive"),
            ("/readyz", "200", "ready"),
            ("/metrics", "200", "walrelay_state{relay=\"orders\",state=\"streaming\"} 1\n"),
            ("/status", "200", "\"state\":\"streaming\""),
            ("/version", "200", "\"librdkafka\":"),
            ("/", "200", "<title>walrelay orders</title>"),
            ("/nothing", "404", "not found"),
            ("/metrics/", "404", "not found"),
        ] {
            let answer = get(running.address(), path);
            assert_eq!(status_of(&answer), status, "{path}: {answer}");
            assert!(answer.contains(part), "{path}: {answer}");
        }
        let answer = exchange(running.address(), "POST /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 405") && answer.contains("allow: GET"), "{answer}");
    }

    #[test]
    fn not_ready_from_the_moment_of_draining() {
        let (running, relay) = running();
        relay.kafka.connected();
        for state in State::ALL {
            relay.enter(state);
            let expected = if matches!(state, State::Streaming | State::Standby) { "200" } else { "503" };
            assert_eq!(status_of(&get(running.address(), "/readyz")), expected, "{state:?}");
        }
        relay.enter(State::Streaming);
        relay.kafka.lost(Loss::Failed);
        assert_eq!(status_of(&get(running.address(), "/readyz")), "503", "without Kafka nothing flows");
        relay.enter(State::Stopped);
        relay.failed(Component::Relay, &relay::Error::Thread(io::Error::other("no more")));
        let verbose = get(running.address(), "/readyz?verbose");
        for part in ["[-] state: stopped", "[-] kafka", "[-] last error: ", "no more"] {
            assert!(verbose.contains(part), "{part}: {verbose}");
        }
    }

    #[test]
    fn a_body_or_an_endless_header_is_refused() {
        let (running, _) = running();
        let with_body = "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
        assert_eq!(status_of(&exchange(running.address(), with_body)), "413");
        let long = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "a".repeat(9_000));
        assert_eq!(status_of(&exchange(running.address(), &long)), "431");
    }

    #[test]
    fn slow_clients_are_disconnected_and_delay_nobody() {
        let (running, _) = running();
        let mut slow = Vec::new();
        for number in 0..200 {
            let mut stream = TcpStream::connect(running.address()).unwrap();
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost:").unwrap();
            slow.push(stream);
            if number % 20 == 0 {
                let start = Instant::now();
                assert_eq!(status_of(&get(running.address(), "/metrics")), "200");
                assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
            }
        }
        // The first gave way to the later ones, the last runs into the time limit.
        let start = Instant::now();
        for mut stream in [slow.first().unwrap(), slow.last().unwrap()] {
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest);
        }
        assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
        assert_eq!(status_of(&get(running.address(), "/livez")), "200");
    }

    #[test]
    fn a_client_that_never_reads_costs_only_itself() {
        let (running, relay) = running();
        for number in 0..200 {
            let indexed = relay.topics.index(&format!("{}-{number}", "t".repeat(200)));
            relay.topics.published(indexed.index, 1);
        }
        let mut deaf = TcpStream::connect(running.address()).unwrap();
        for _ in 0..500 {
            if deaf.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").is_err() {
                break;
            }
        }
        assert_eq!(status_of(&get(running.address(), "/metrics")), "200");
    }

    #[test]
    fn a_taken_port_is_a_configuration_error_that_names_the_option() {
        let (running, _) = running();
        let Err(error) = start(&Config { listen: running.address() }, Arc::new(sources())) else {
            panic!("two listen on one port")
        };
        assert_eq!(error.code().to_string(), "WR-6440");
        let help = error.help().unwrap();
        assert!(help.contains("http.listen") && help.contains(&running.address().port().to_string()), "{help}");
    }

    #[test]
    fn a_stop_closes_the_port_at_once() {
        let (running, _) = running();
        let address = running.address();
        let open = TcpStream::connect(address).unwrap();
        let start = Instant::now();
        running.stop();
        assert!(start.elapsed() < Duration::from_secs(2));
        assert!(TcpStream::connect(address).is_err());
        drop(open);
    }

    #[test]
    fn healthcheck_and_endpoint_agree() {
        use crate::cli::healthcheck::Probe;
        use crate::cli::healthcheck::healthcheck;
        let (running, relay) = running();
        assert!(healthcheck(running.address(), Probe::Live).is_well());
        assert!(!healthcheck(running.address(), Probe::Ready).is_well());
        relay.enter(State::Standby);
        assert!(healthcheck(running.address(), Probe::Ready).is_well());
    }
}
