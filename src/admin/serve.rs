//! Accepts connections and enforces their limits.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::ready;
use std::net;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio::time::MissedTickBehavior;
use tokio::time::interval;
use tokio::time::sleep;
use tokio::time::timeout;
use tracing::error;
use tracing::warn;

use walrelay_events::fault::Code;
use walrelay_events::fault::Exit;

use super::answer;
use super::history;
use super::view::Observed;

/// The number of open connections.
const MAX_CONNECTIONS: usize = 64;

/// The time for a request's head to arrive, and the idle timeout of a connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// The size of a request's head.
const MAX_HEADER_BYTES: usize = 8 << 10;

/// The number of its headers.
const MAX_HEADERS: usize = 64;

/// The lifetime of a connection, however busy: it ends a client that never reads its answer.
const MAX_LIFETIME: Duration = Duration::from_secs(60);

/// The time for the last answer at the end of that lifetime.
const MAX_SHUTDOWN: Duration = Duration::from_secs(5);

/// The pause after a failed accept, for instance without free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

const NOT_SERVING: Code = Code::new(Exit::Internal, 41);
const NOT_ACCEPTED: Code = Code::new(Exit::Unavailable, 40);

/// Serves until it is stopped, or until the sender of `stopped` is dropped.
pub(super) async fn run(listener: net::TcpListener, observed: Arc<Observed>, mut stopped: oneshot::Receiver<()>) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            error!(code = %NOT_SERVING, %error, "http endpoints failed");
            return;
        }
    };
    let mut connections = Connections::default();
    let mut samples = interval(history::INTERVAL);
    samples.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sampled = Instant::now();
    loop {
        tokio::select! {
            biased;
            _ = &mut stopped => return,
            now = samples.tick() => {
                observed.sample(now.duration_since(sampled));
                sampled = now;
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => connections.add(stream, Arc::clone(&observed)),
                Err(error) => {
                    warn!(code = %NOT_ACCEPTED, %error, "http connection not accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

/// The open connections, oldest first. At the limit the oldest is closed: a scrape is short, so the oldest is the one
/// that hangs. Dropping this closes all.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    oldest_first: VecDeque<AbortHandle>,
}

impl Connections {
    fn add(&mut self, stream: TcpStream, observed: Arc<Observed>) {
        while self.tasks.try_join_next().is_some() {}
        self.oldest_first.retain(|task| !task.is_finished());
        if self.oldest_first.len() >= MAX_CONNECTIONS
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            oldest.abort();
        }
        self.oldest_first.push_back(self.tasks.spawn(serve(stream, observed)));
    }
}

/// Serves one client. An error on its connection concerns only that client.
async fn serve(stream: TcpStream, observed: Arc<Observed>) {
    let service = service_fn(move |request| ready(Ok::<_, Infallible>(answer::to(&request, &observed))));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_header_size(MAX_HEADER_BYTES)
        .max_headers(MAX_HEADERS)
        .max_buf_size(2 * MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = sleep(MAX_LIFETIME) => connection.as_mut().graceful_shutdown(),
    }
    let _ = timeout(MAX_SHUTDOWN, connection).await;
}
