//! Connections: accepting them, and the limits they live under.

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
use tokio::time::sleep;
use tokio::time::timeout;
use tracing::error;
use tracing::warn;

use walrelay_events::fault::Code;
use walrelay_events::fault::Exit;

use super::View;
use super::answer;

/// The most connections at a time.
const CONNECTIONS_MAX: usize = 64;

/// How long a request may take to arrive; also how long an idle connection is kept.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// How large the head of a request may be.
const HEADER_BYTES_MAX: usize = 8 << 10;

/// How many headers it may have.
const HEADERS_MAX: usize = 64;

/// How long a connection may live, however busy; a client that never reads its answer ends here.
const LIFETIME_MAX: Duration = Duration::from_secs(60);

/// How long a connection at the end of its life may take to finish its last answer.
const FAREWELL_MAX: Duration = Duration::from_secs(5);

/// How long accepting rests after it failed, for instance for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

const NOT_SERVING: Code = Code::new(Exit::Internal, 41);
const NOT_ACCEPTED: Code = Code::new(Exit::Unavailable, 40);

/// Serves until it is told to stop, or until whoever could tell it is gone.
pub(super) async fn run(listener: net::TcpListener, view: Arc<dyn View>, mut stopped: oneshot::Receiver<()>) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            error!(code = %NOT_SERVING, %error, "no http endpoints");
            return;
        }
    };
    let mut connections = Connections::default();
    loop {
        tokio::select! {
            biased;
            _ = &mut stopped => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => connections.add(stream, Arc::clone(&view)),
                Err(error) => {
                    warn!(code = %NOT_ACCEPTED, %error, "http connection not accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

/// The open connections, oldest first. When there are too many the oldest gives way, since a scrape is short and what has
/// been here longest is what hangs. Dropping this closes them all.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    oldest_first: VecDeque<AbortHandle>,
}

impl Connections {
    fn add(&mut self, stream: TcpStream, view: Arc<dyn View>) {
        while self.tasks.try_join_next().is_some() {}
        self.oldest_first.retain(|task| !task.is_finished());
        if self.oldest_first.len() >= CONNECTIONS_MAX
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            oldest.abort();
        }
        self.oldest_first.push_back(self.tasks.spawn(talk(stream, view)));
    }
}

/// Answers one client. What goes wrong on its connection is its own affair.
async fn talk(stream: TcpStream, view: Arc<dyn View>) {
    let service = service_fn(move |request| ready(Ok::<_, Infallible>(answer::to(&request, view.as_ref()))));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_header_size(HEADER_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .max_buf_size(2 * HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = sleep(LIFETIME_MAX) => connection.as_mut().graceful_shutdown(),
    }
    let _ = timeout(FAREWELL_MAX, connection).await;
}
