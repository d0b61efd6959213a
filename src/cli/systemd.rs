//! What `run` notifies systemd of with `Type=notify`: its start, its stop, its state, and that it is alive.
//!
//! systemd names its socket in `NOTIFY_SOCKET`; without it nothing is sent. Started means that the endpoints answer:
//! the relay waits for PostgreSQL and Kafka by itself. With `WatchdogSec` systemd kills a process that sends no sign of
//! life in that time, so the sign depends on the relay thread.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::process;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::admin::MAX_STANDSTILL;
use crate::relay::metrics::Metrics;
use crate::relay::metrics::now_micros;

/// The interval of the notifications, unless the watchdog needs a shorter one.
const INTERVAL: Duration = Duration::from_secs(5);

/// How long to wait for a busy systemd to take the news of the start: without it systemd ends the service.
const READY_LIMIT: Duration = Duration::from_secs(10);

/// The thread that notifies systemd. Dropping it ends the thread.
#[derive(Debug)]
pub(super) struct Notifier {
    over: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

/// Reports the start, and then the state until it is dropped; `stop` is the beginning of the stop. Does nothing if
/// systemd has not asked for it. An error of the socket is no reason to stop relaying.
pub(super) fn notify(metrics: &Metrics, stop: &CancellationToken) -> io::Result<Option<Notifier>> {
    let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return Ok(None) };
    let socket = match connect(&name) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::warn!(%error, socket = %name.display(), "cannot notify systemd");
            return Ok(None);
        }
    };
    send(&socket, &format!("READY=1\n{}", status(metrics)));
    // A later notification may be lost: the next one has the state again, and none may hold up a stop.
    socket.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let over = CancellationToken::new();
    let (metrics, stop, is_over) = (metrics.clone(), stop.clone(), over.clone());
    let thread = thread::Builder::new().name("systemd".to_owned()).spawn(move || {
        runtime.block_on(is_over.run_until_cancelled(report(&socket, &metrics, &stop, watchdog())));
    })?;
    Ok(Some(Notifier { over, thread: Some(thread) }))
}

impl Drop for Notifier {
    fn drop(&mut self) {
        self.over.cancel();
        if let Some(thread) = self.thread.take() {
            // The panic hook has reported a panic of that thread.
            let _ = thread.join();
        }
    }
}

async fn report(socket: &UnixDatagram, metrics: &Metrics, stop: &CancellationToken, watchdog: Option<Duration>) {
    // Two signs of life in each period of the watchdog.
    let interval = watchdog.map_or(INTERVAL, |period| INTERVAL.min(period / 2));
    let mut ticks = tokio::time::interval(interval);
    let mut is_stopping = false;
    loop {
        tokio::select! {
            () = stop.cancelled(), if !is_stopping => {
                is_stopping = true;
                send(socket, "STOPPING=1");
            }
            _ = ticks.tick() => send(socket, &beat(metrics, watchdog.is_some(), metrics.since_tick())),
        }
    }
}

/// The state, with a sign of life if systemd expects one and the relay thread moves.
fn beat(metrics: &Metrics, has_watchdog: bool, since_tick: Duration) -> String {
    let is_alive = has_watchdog && since_tick < MAX_STANDSTILL;
    format!("{}{}", if is_alive { "WATCHDOG=1\n" } else { "" }, status(metrics))
}

/// The line of `systemctl status`: the state and the lag, or the last error while the relay is not ready.
fn status(metrics: &Metrics) -> String {
    let state = metrics.state.load().word().replace('_', " ");
    let lag = metrics.lag(now_micros()).deliver_seconds;
    let more = match metrics.failures.last().filter(|_| !metrics.is_ready()) {
        Some(last) => format!(": {} ({})", last.text.replace(char::is_control, " "), last.code),
        None => lag.map(|seconds| format!(", lag {seconds:.1} s")).unwrap_or_default(),
    };
    format!("STATUS={state}{more}")
}

fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => socket.connect(name)?,
    }
    socket.set_write_timeout(Some(READY_LIMIT))?;
    Ok(socket)
}

fn send(socket: &UnixDatagram, text: &str) {
    if let Err(error) = socket.send(text.as_bytes()) {
        tracing::debug!(%error, "cannot notify systemd");
    }
}

/// Reads how often systemd expects a sign of life from this process.
fn watchdog() -> Option<Duration> {
    let number = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
    let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(process::id()));
    number("WATCHDOG_USEC").filter(|micros| is_ours && *micros > 0).map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay;
    use crate::relay::State;
    use crate::relay::metrics::Component;

    #[test]
    fn the_status_is_one_line_with_the_cause() {
        let metrics = Metrics::default();
        metrics.enter(State::SinkBlocked);
        assert_eq!(status(&metrics), "STATUS=sink blocked");
        metrics.failed(Component::Relay, &relay::Error::Thread(io::Error::other("one\ntwo")));
        let text = status(&metrics);
        assert!(text.starts_with("STATUS=sink blocked: ") && text.contains("one two (WR-70"), "{text}");
        metrics.enter(State::Streaming);
        metrics.kafka.connected();
        assert_eq!(status(&metrics), "STATUS=streaming");
    }

    #[test]
    fn a_relay_thread_that_stands_still_gives_no_sign_of_life() {
        let metrics = Metrics::default();
        let second = Duration::from_secs(1);
        for (has_watchdog, since_tick, expected) in [
            (true, second, "WATCHDOG=1\nSTATUS=starting"),
            (true, MAX_STANDSTILL, "STATUS=starting"),
            (false, second, "STATUS=starting"),
        ] {
            assert_eq!(beat(&metrics, has_watchdog, since_tick), expected);
        }
    }
}
