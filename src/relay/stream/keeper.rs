//! The keeper: a thread with an ordinary connection, beside the relay thread.
//!
//! It stores positions, monitors the slot (`slot_monitor`) and the catalog, and is the first to notice a shutdown of
//! the server: the postmaster terminates ordinary connections at once (57P01), while it waits for walsenders. The error
//! may come on an idle connection, as the result of any query, or at a new connection (57P03). The relay thread never
//! waits for the keeper. A lost connection is established again; until then positions are not stored, and the server
//! retains WAL.
//!
//! **No request is lost.** A requested position stays requested until it is stored or skipped, whatever ends the query
//! or the connection; only a later one replaces it. Every query has a timeout.

use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio::time::MissedTickBehavior;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::relay::error::Error;
use crate::relay::metrics::Component;
use crate::relay::metrics::Metrics;
use crate::relay::postgres;
use crate::relay::postgres::Ordinary;
use crate::relay::stream::catalog_watch::CatalogWatch;
use crate::relay::stream::feedback::Persist;
use crate::relay::stream::position;
use crate::relay::stream::position::Outcome;
use crate::relay::stream::position::Store;
use crate::relay::stream::resume::Identity;
use crate::relay::stream::slot_monitor;
use crate::relay::stream::slot_monitor::ServerState;
use crate::relay::stream::slot_monitor::SlotMonitor;
use crate::relay::stream::synchronous;
use walrelay_events::fault::Diagnose;
use walrelay_events::fault::Fate;
use walrelay_events::fault::chain;

/// The pause before a lost connection is established again.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);
/// The pause before a failed write is retried.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// The server's timeout of a statement: the row may be locked.
const STATEMENT_LIMIT: &str = "SET statement_timeout = '5s'";
/// The client's timeout of a statement: the network may be down, and a commit that waits for a disk ignores
/// statement_timeout.
const QUERY_LIMIT: Duration = Duration::from_secs(10);
/// How often the same error is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// What the keeper reports to the relay thread.
#[derive(Debug)]
pub enum KeeperEvent {
    /// A position is stored.
    Stored(Persist),
    /// A position was skipped: nobody else has written.
    Skipped,
    /// The server is shutting down, or an administrator ended the connection.
    ServerShutdown,
    /// The position cannot be stored, and a retry does not help.
    Broken(position::Error),
    /// `synchronous_standby_names` has this value and includes this relay.
    Synchronous(String),
    /// The thread ended unexpectedly.
    Ended,
    /// The catalog has changed: events may be omitted, and nothing more may be confirmed.
    Uncovered(Box<Error>),
}

/// The relay thread's handle of the keeper. Dropping it ends the thread.
#[derive(Debug)]
pub struct Keeper {
    requests: watch::Sender<Option<Persist>>,
    events: mpsc::UnboundedReceiver<KeeperEvent>,
    metrics: Metrics,
    over: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

/// The keeper's parameters.
#[derive(Clone, Debug)]
pub struct Work {
    /// The server.
    pub target: postgres::Target,
    /// The options of the connection.
    pub config: postgres::Config,
    /// The name of the connection.
    pub application_name: String,
    /// The name of the walsender's connection.
    pub walsender: String,
    pub slot: String,
    /// The server for which positions are valid.
    pub identity: Identity,
    /// The catalog check.
    pub watch: CatalogWatch,
    pub slot_monitor: SlotMonitor,
    /// The relay's metrics.
    pub metrics: Metrics,
}

impl Keeper {
    /// Starts the thread.
    pub fn start(work: Work) -> std::io::Result<Self> {
        let (requests, requested) = watch::channel(None);
        let (sender, events) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (over, metrics) = (CancellationToken::new(), work.metrics.clone());
        let ends = over.clone();
        let thread = thread::Builder::new()
            .name("keeper".to_owned())
            .spawn(move || run_until(runtime, &ends, keep(work, Requests { requested, open: None }, sender)))?;
        Ok(Self { requests, events, metrics, over, thread: Some(thread) })
    }

    /// Requests that a position is stored; a later request replaces it.
    pub fn store(&self, persist: Persist) {
        self.metrics.position_waits();
        self.requests.send_replace(Some(persist));
    }

    /// Waits for the next event. Cancel-safe.
    pub async fn next_event(&mut self) -> KeeperEvent {
        self.events.recv().await.unwrap_or(KeeperEvent::Ended)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.over.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs until it is cancelled, without waiting for a name resolution, which may block a thread of the runtime for long:
/// dropping the keeper waits for this thread.
fn run_until(runtime: Runtime, ends: &CancellationToken, work: impl Future<Output = ()>) {
    let _ = runtime.block_on(ends.run_until_cancelled(work));
    runtime.shutdown_background();
}

/// The requested positions.
struct Requests {
    requested: watch::Receiver<Option<Persist>>,
    /// The last one, until it is stored or skipped.
    open: Option<Persist>,
}

impl Requests {
    /// Waits for a position to store. It is given again until it is stored or skipped, or a later one is requested.
    /// Cancel-safe.
    async fn next(&mut self) -> Persist {
        loop {
            if self.requested.has_changed().unwrap_or_default()
                && let Some(persist) = *self.requested.borrow_and_update()
            {
                self.open = Some(persist);
            }
            if let Some(persist) = self.open {
                return persist;
            }
            if self.requested.changed().await.is_err() {
                // The sender is dropped: this thread is about to end.
                std::future::pending::<()>().await;
            }
            self.requested.mark_changed();
        }
    }
}

/// Logs errors, at most once a minute while they are the same, and counts each.
struct ErrorLog {
    metrics: Metrics,
    logged: Option<(String, Instant)>,
}

impl ErrorLog {
    fn report(&mut self, error: &position::Error) {
        self.metrics.position_store_errors.increment();
        self.metrics.failed(Component::Position, error);
        let text = chain(error);
        let is_new = self.logged.as_ref().is_none_or(|(logged, at)| *logged != text || at.elapsed() > LOG_INTERVAL);
        if is_new {
            tracing::warn!(code = %error.code(), error = text, next = error.help(), "retrying to store the position");
            self.logged = Some((text, Instant::now()));
        }
    }
}

/// The keeper's state from one connection to the next.
struct KeeperTask {
    work: Work,
    store: Store,
    requests: Requests,
    events: mpsc::UnboundedSender<KeeperEvent>,
    errors: ErrorLog,
}

async fn keep(work: Work, requests: Requests, events: mpsc::UnboundedSender<KeeperEvent>) {
    let store = Store::new(work.slot.clone(), work.identity.clone());
    let errors = ErrorLog { metrics: work.metrics.clone(), logged: None };
    let mut task = KeeperTask { work, store, requests, events, errors };
    loop {
        let Work { target, config, application_name, .. } = &task.work;
        let over = match postgres::connect_ordinary(target, config, application_name).await {
            Ok(Ordinary { client, mut ended, .. }) => tokio::select! {
                // A result that has arrived comes before the end of the connection: it may give the reason.
                biased;
                error = task.serve(&client) => Some(error),
                error = &mut ended => error,
            },
            Err(error) => Some(error),
        };
        match over {
            Some(error) if error.is_shutdown() => _ = task.events.send(KeeperEvent::ServerShutdown),
            Some(source) => task.errors.report(&position::Error::Query { action: "reach", source }),
            None => {}
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

impl KeeperTask {
    /// Works until the connection must be replaced. Gives the reason.
    async fn serve(&mut self, client: &Client) -> postgres::Error {
        if let Err(error) = postgres::within(QUERY_LIMIT, client.batch_execute(STATEMENT_LIMIT)).await {
            return error;
        }
        // At once, before any position: the slot's state matters most while positions cannot be stored.
        if let Some(error) = self.look(client).await {
            return error;
        }
        let mut ticks = tokio::time::interval_at(Instant::now() + slot_monitor::INTERVAL, slot_monitor::INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stores_from = Instant::now();
        loop {
            let request = async {
                tokio::time::sleep_until(stores_from).await;
                self.requests.next().await
            };
            let over = tokio::select! {
                biased;
                _ = ticks.tick() => self.look(client).await,
                persist = request => {
                    let over = self.save(client, persist).await;
                    if self.requests.open.is_some() {
                        stores_from = Instant::now() + RETRY_PAUSE;
                    }
                    over
                }
            };
            if let Some(error) = over {
                return error;
            }
        }
    }

    /// Checks the slot, the catalog, and whether commits would wait for the relay. Gives an error that ends the
    /// connection.
    async fn look(&mut self, client: &Client) -> Option<postgres::Error> {
        let Work { slot_monitor, walsender, .. } = &self.work;
        if let Some(error) = slot_monitor.note(client).await {
            return Some(error);
        }
        match slot_monitor::server_state(client).await {
            Ok(ServerState { synchronous_names: names, .. }) if synchronous::includes(&names, walsender) => {
                let _ = self.events.send(KeeperEvent::Synchronous(names));
                return None;
            }
            Ok(_) => {}
            Err(error) if error.ends(client) => return Some(error),
            Err(_) => return None,
        }
        self.check_catalog(client).await.err().flatten()
    }

    /// Checks the catalog and reports a change to the relay thread. Gives an error that ends the connection.
    async fn check_catalog(&mut self, client: &Client) -> Result<(), Option<postgres::Error>> {
        let looked = tokio::time::timeout(QUERY_LIMIT, self.work.watch.look(client)).await;
        let error = match looked {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.of_role(&self.work.target.user),
            Err(_) => return Err(Some(postgres::Error::NoAnswer { limit: QUERY_LIMIT })),
        };
        if error.fate() == Fate::Fatal {
            self.requests.open = None;
            let _ = self.events.send(KeeperEvent::Uncovered(Box::new(error)));
            return Err(None);
        }
        tracing::warn!(code = %error.code(), error = chain(&error), "retrying the catalog check");
        Err(error.into_postgres().filter(|error| error.ends(client)))
    }

    /// Stores a position. After a transient error the request stays. Gives an error that ends the connection.
    async fn save(&mut self, client: &Client, persist: Persist) -> Option<postgres::Error> {
        // The position was known before the check, so the check covers it.
        if let Err(over) = self.check_catalog(client).await {
            return over;
        }
        self.work.watch.cover(persist.confirmed.lsn());
        if !self.work.watch.is_stored() {
            self.requests.open = None;
            self.work.metrics.position_is_stored();
            let _ = self.events.send(KeeperEvent::Stored(persist));
            return None;
        }
        let saved = tokio::time::timeout(QUERY_LIMIT, self.store.save(client, persist)).await;
        let error = match saved.unwrap_or(Err(position::Error::late(QUERY_LIMIT))) {
            Ok(outcome) => {
                self.requests.open = None;
                self.work.metrics.position_is_stored();
                let _ = self.events.send(match outcome {
                    Outcome::Stored => KeeperEvent::Stored(persist),
                    Outcome::Skipped => KeeperEvent::Skipped,
                });
                return None;
            }
            Err(error) => error.of_role(&self.work.target.user),
        };
        if error.fate() == Fate::Fatal {
            self.requests.open = None;
            self.errors.metrics.position_store_errors.increment();
            let _ = self.events.send(KeeperEvent::Broken(error));
            return None;
        }
        let is_end = matches!(&error, position::Error::Query { source, .. } if source.ends(client));
        match error {
            position::Error::Query { source, .. } if is_end => Some(source),
            position::Error::Query { .. }
            | position::Error::Denied { .. }
            | position::Error::Outdated
            | position::Error::Missing { .. }
            | position::Error::Changed { .. } => {
                self.errors.report(&error);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::lsn::Lsn;
    use crate::relay::ledger::Ledger;

    fn persist(position: u64) -> Persist {
        Persist { confirmed: Ledger::new(Lsn::from_wire(position)).settle(), is_idle: false, is_last: false }
    }

    #[tokio::test]
    async fn a_request_ends_as_stored_repeated_or_replaced() {
        let (requests, requested) = watch::channel(None);
        let mut open = Requests { requested, open: None };
        requests.send_replace(Some(persist(50)));
        // The first query was cancelled.
        assert_eq!(open.next().await, persist(50));
        assert_eq!(open.next().await, persist(50), "requested again");
        requests.send_replace(Some(persist(70)));
        assert_eq!(open.next().await, persist(70), "replaced");
        open.open = None;
        let next = tokio::time::timeout(Duration::from_millis(50), open.next()).await;
        assert!(next.is_err(), "stored, and nothing more is requested");
        requests.send_replace(Some(persist(90)));
        assert_eq!(open.next().await, persist(90));
    }

    #[test]
    fn a_blocked_name_resolution_does_not_block_the_end_of_the_keeper() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (ends, (begun, has_begun)) = (CancellationToken::new(), std::sync::mpsc::channel());
        let over = ends.clone();
        let work = async move {
            // As a name resolution runs: on a thread that cannot be cancelled.
            let resolver = tokio::task::spawn_blocking(move || {
                begun.send(()).unwrap();
                thread::sleep(Duration::from_secs(20));
            });
            let _ = resolver.await;
        };
        let keeper = thread::spawn(move || run_until(runtime, &over, work));
        has_begun.recv().unwrap();
        let asked = Instant::now();
        ends.cancel();
        keeper.join().unwrap();
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    }
}
