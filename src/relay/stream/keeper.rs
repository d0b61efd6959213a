//! The keeper: a thread with an ordinary connection, beside the relay thread.
//!
//! It stores positions, looks at the slot (`lookout`), and hears first when the server shuts down: the postmaster ends an ordinary
//! connection at once (57P01), while it waits for a walsender. It may hear so on an idle connection, as the answer to any of
//! its queries, or when it connects again (57P03); each means the same. The relay thread never waits for it. A connection that
//! breaks is opened again; until then positions wait, and so does the WAL.
//!
//! **No wish is lost.** A position that is asked for stays asked for until it is stored or passed over, whatever ends the query
//! or the connection; only a later one replaces it. Every query has a time limit.

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
use crate::relay::stream::catalog_watch::Watch;
use crate::relay::stream::feedback::Persist;
use crate::relay::stream::position;
use crate::relay::stream::position::Outcome;
use crate::relay::stream::position::Store;
use crate::relay::stream::resume::Identity;
use crate::relay::stream::slot_monitor;
use crate::relay::stream::slot_monitor::Standing;
use crate::relay::stream::synchronous;
use walrelay_events::fault::Diagnose;
use walrelay_events::fault::Fate;
use walrelay_events::fault::chain;

/// How long it waits before it opens a broken connection again.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);
/// How long it waits before it stores again what could not be stored.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How long the server may work on a statement of the keeper: the row may be locked by others.
const STATEMENT_LIMIT: &str = "SET statement_timeout = '5s'";
/// How long a statement may take in all. The network may be gone, and a commit that waits for a disk heeds no limit of the server.
const QUERY_LIMIT: Duration = Duration::from_secs(10);
/// How often the same trouble is logged again.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// What the keeper tells the relay thread.
#[derive(Debug)]
pub enum News {
    /// A position is stored.
    Stored(Persist),
    /// A position was passed over: nobody else has written.
    PassedOver,
    /// The server is shutting down, or an administrator ended the connection.
    ServerLeaves,
    /// The stored position cannot be kept, and that does not mend itself.
    Broken(position::Error),
    /// `synchronous_standby_names` is this, and counts our walsender.
    Synchronous(String),
    /// The keeper has ended although nobody ended it.
    Ended,
    /// The catalog is not as it was: events may pass unseen, and nothing more may be confirmed.
    Uncovered(Box<Error>),
}

/// The relay thread's hold on the keeper. Dropping it ends the thread.
#[derive(Debug)]
pub struct Keeper {
    wishes: watch::Sender<Option<Persist>>,
    news: mpsc::UnboundedReceiver<News>,
    metrics: Metrics,
    over: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

/// What the keeper works with.
#[derive(Clone, Debug)]
pub struct Work {
    /// How to reach the server.
    pub target: postgres::Target,
    /// The options of the connection.
    pub config: postgres::Config,
    /// The name of the connection.
    pub application_name: String,
    /// The name of the walsender's connection.
    pub walsender: String,
    /// The slot.
    pub slot: String,
    /// The server for which positions are valid.
    pub identity: Identity,
    /// The watch over the catalog.
    pub watch: Watch,
    /// Where the slot's state is noted.
    pub metrics: Metrics,
}

impl Keeper {
    /// Starts the thread.
    pub fn start(work: Work) -> std::io::Result<Self> {
        let (wishes, wished) = watch::channel(None);
        let (tell, news) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (over, metrics) = (CancellationToken::new(), work.metrics.clone());
        let ends = over.clone();
        let thread = thread::Builder::new()
            .name("keeper".to_owned())
            .spawn(move || run_until(runtime, &ends, keep(work, Wishes { wished, open: None }, tell)))?;
        Ok(Self { wishes, news, metrics, over, thread: Some(thread) })
    }

    /// Asks for a position to be stored; a later one replaces it.
    pub fn store(&self, persist: Persist) {
        self.metrics.position_waits();
        self.wishes.send_replace(Some(persist));
    }

    /// Waits for news. Cancel-safe.
    pub async fn news(&mut self) -> News {
        self.news.recv().await.unwrap_or(News::Ended)
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

/// Runs until it is cancelled, and leaves nothing to wait for: a look-up of a name may hold a thread of the runtime for as long as
/// the resolver likes, and whoever ends the keeper waits for this thread.
fn run_until(runtime: Runtime, ends: &CancellationToken, work: impl Future<Output = ()>) {
    let _ = runtime.block_on(ends.run_until_cancelled(work));
    runtime.shutdown_background();
}

/// The positions that are asked for.
struct Wishes {
    wished: watch::Receiver<Option<Persist>>,
    /// The last one, until it is stored or passed over.
    open: Option<Persist>,
}

impl Wishes {
    /// Waits for a position to store. It is given again until it is answered, or a later one is asked for. Cancel-safe.
    async fn next(&mut self) -> Persist {
        loop {
            if self.wished.has_changed().unwrap_or_default()
                && let Some(persist) = *self.wished.borrow_and_update()
            {
                self.open = Some(persist);
            }
            if let Some(persist) = self.open {
                return persist;
            }
            if self.wished.changed().await.is_err() {
                // Nobody can ask any more, and this thread is about to be ended.
                std::future::pending::<()>().await;
            }
            self.wished.mark_changed();
        }
    }
}

/// Who hears of trouble: whoever reads the log, once a minute while it stays the same, and the numbers each time.
struct Alarm {
    metrics: Metrics,
    logged: Option<(String, Instant)>,
}

impl Alarm {
    fn raise(&mut self, error: &position::Error) {
        self.metrics.position_store_errors.increment();
        self.metrics.failed(Component::Position, error);
        let text = chain(error);
        let is_news = self.logged.as_ref().is_none_or(|(logged, at)| *logged != text || at.elapsed() > LOG_INTERVAL);
        if is_news {
            tracing::warn!(code = %error.code(), error = text, help = error.help(), "cannot store the confirmed position, retrying");
            self.logged = Some((text, Instant::now()));
        }
    }
}

/// What the keeper holds from one connection to the next.
struct Keeping {
    work: Work,
    store: Store,
    wishes: Wishes,
    tell: mpsc::UnboundedSender<News>,
    alarm: Alarm,
}

async fn keep(work: Work, wishes: Wishes, tell: mpsc::UnboundedSender<News>) {
    let store = Store::new(work.slot.clone(), work.identity.clone());
    let alarm = Alarm { metrics: work.metrics.clone(), logged: None };
    let mut keeping = Keeping { work, store, wishes, tell, alarm };
    loop {
        let Work { target, config, application_name, .. } = &keeping.work;
        let over = match postgres::connect_ordinary(target, config, application_name).await {
            Ok(Ordinary { client, mut ended, .. }) => tokio::select! {
                // An answer that is already here comes before the end of the connection: it may say why.
                biased;
                error = keeping.serve(&client) => Some(error),
                error = &mut ended => error,
            },
            Err(error) => Some(error),
        };
        match over {
            Some(error) if error.is_shutdown() => _ = keeping.tell.send(News::ServerLeaves),
            Some(source) => keeping.alarm.raise(&position::Error::Query { action: "reach", source }),
            None => {}
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

impl Keeping {
    /// Works until the connection must be opened anew, and says why.
    async fn serve(&mut self, client: &Client) -> postgres::Error {
        if let Err(error) = postgres::within(QUERY_LIMIT, client.batch_execute(STATEMENT_LIMIT)).await {
            return error;
        }
        // At once, and before any position: what the slot keeps is asked for just when positions cannot be stored.
        if let Some(error) = self.look(client).await {
            return error;
        }
        let mut looks = tokio::time::interval_at(Instant::now() + slot_monitor::INTERVAL, slot_monitor::INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stores_from = Instant::now();
        loop {
            let wish = async {
                tokio::time::sleep_until(stores_from).await;
                self.wishes.next().await
            };
            let over = tokio::select! {
                biased;
                _ = looks.tick() => self.look(client).await,
                persist = wish => {
                    let over = self.save(client, persist).await;
                    if self.wishes.open.is_some() {
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

    /// Looks at the slot, at the catalog, and whether commits would wait for us. Gives an error that is the connection's end.
    async fn look(&mut self, client: &Client) -> Option<postgres::Error> {
        let Work { slot, metrics, walsender, .. } = &self.work;
        if let Some(error) = slot_monitor::note(client, slot, metrics).await {
            return Some(error);
        }
        match slot_monitor::standing(client).await {
            Ok(Standing { synchronous_names: names, .. }) if synchronous::counts(&names, walsender) => {
                let _ = self.tell.send(News::Synchronous(names));
                return None;
            }
            Ok(_) => {}
            Err(error) if error.ends(client) => return Some(error),
            Err(_) => return None,
        }
        self.look_at_the_catalog(client).await.err().flatten()
    }

    /// Looks whether the catalog is as it was. If not, the relay thread hears of it; gives an error that is the connection's end.
    async fn look_at_the_catalog(&mut self, client: &Client) -> Result<(), Option<postgres::Error>> {
        let looked = tokio::time::timeout(QUERY_LIMIT, self.work.watch.look(client)).await;
        let error = match looked {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.of_role(&self.work.target.user),
            Err(_) => return Err(Some(postgres::Error::NoAnswer { limit: QUERY_LIMIT })),
        };
        if error.fate() == Fate::Fatal {
            self.wishes.open = None;
            let _ = self.tell.send(News::Uncovered(Box::new(error)));
            return Err(None);
        }
        tracing::warn!(code = %error.code(), error = chain(&error), "cannot look at the catalog");
        Err(error.into_wal().filter(|error| error.ends(client)))
    }

    /// Stores a position. The wish stays if that fails for a reason that may pass. Gives an error that is the connection's end.
    async fn save(&mut self, client: &Client, persist: Persist) -> Option<postgres::Error> {
        // The position was known before the look, so the look covers it.
        if let Err(over) = self.look_at_the_catalog(client).await {
            return over;
        }
        self.work.watch.cover(persist.confirmed.lsn());
        if !self.work.watch.is_stored() {
            self.wishes.open = None;
            self.work.metrics.position_is_stored();
            let _ = self.tell.send(News::Stored(persist));
            return None;
        }
        let saved = tokio::time::timeout(QUERY_LIMIT, self.store.save(client, persist)).await;
        let error = match saved.unwrap_or(Err(position::Error::late(QUERY_LIMIT))) {
            Ok(outcome) => {
                self.wishes.open = None;
                self.work.metrics.position_is_stored();
                let _ = self.tell.send(match outcome {
                    Outcome::Stored => News::Stored(persist),
                    Outcome::PassedOver => News::PassedOver,
                });
                return None;
            }
            Err(error) => error.of_role(&self.work.target.user),
        };
        if error.fate() == Fate::Fatal {
            self.wishes.open = None;
            self.alarm.metrics.position_store_errors.increment();
            let _ = self.tell.send(News::Broken(error));
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
                self.alarm.raise(&error);
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
    async fn a_wish_ends_as_stored_wished_again_or_superseded() {
        let (wishes, wished) = watch::channel(None);
        let mut open = Wishes { wished, open: None };
        wishes.send_replace(Some(persist(50)));
        // Whoever took it was dropped in the middle of its query.
        assert_eq!(open.next().await, persist(50));
        assert_eq!(open.next().await, persist(50), "wished again");
        wishes.send_replace(Some(persist(70)));
        assert_eq!(open.next().await, persist(70), "superseded");
        open.open = None;
        let next = tokio::time::timeout(Duration::from_millis(50), open.next()).await;
        assert!(next.is_err(), "stored, and nothing more is asked for");
        wishes.send_replace(Some(persist(90)));
        assert_eq!(open.next().await, persist(90));
    }

    #[test]
    fn a_name_that_nobody_resolves_holds_nobody_who_ends_the_keeper() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (ends, (begun, has_begun)) = (CancellationToken::new(), std::sync::mpsc::channel());
        let over = ends.clone();
        let work = async move {
            // As a look-up runs: on a thread of the runtime that takes no notice of anybody.
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
