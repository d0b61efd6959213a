//! The keeper: a thread with an ordinary connection, beside the relay thread.
//!
//! It stores positions, looks at the slot (`lookout`), and hears first when the server shuts down: the postmaster ends an ordinary
//! connection at once (57P01), while it waits for a walsender. The relay thread never waits for it. A connection that
//! breaks is opened again; until then positions wait, and so does the log.

use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio::time::MissedTickBehavior;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::fault::Diagnose;
use crate::fault::Fate;
use crate::fault::chain;
use crate::relay::Error;
use crate::relay::catalog_watch::Watch;
use crate::relay::feedback::Persist;
use crate::relay::lookout;
use crate::relay::metrics::Metrics;
use crate::relay::position;
use crate::relay::position::Outcome;
use crate::relay::position::Store;
use crate::relay::resume::Identity;
use crate::relay::wal;
use crate::relay::wal::Ordinary;

/// How long it waits before it opens a broken connection again.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);

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
    /// The catalog is not as it was: events may pass unseen, and nothing more may be confirmed.
    Uncovered(Box<Error>),
}

/// The relay thread's hold on the keeper. Dropping it ends the thread.
#[derive(Debug)]
pub struct Keeper {
    wishes: watch::Sender<Option<Persist>>,
    news: mpsc::UnboundedReceiver<News>,
    over: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

/// What the keeper works with.
#[derive(Clone, Debug)]
pub struct Work {
    /// How to reach the server.
    pub target: wal::Target,
    /// The options of the connection.
    pub config: wal::Config,
    /// The name of the connection.
    pub application_name: String,
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
        let over = CancellationToken::new();
        let ends = over.clone();
        let thread = thread::Builder::new()
            .name("keeper".to_owned())
            .spawn(move || _ = runtime.block_on(ends.run_until_cancelled(keep(work, wished, tell))))?;
        Ok(Self { wishes, news, over, thread: Some(thread) })
    }

    /// Asks for a position to be stored; a later one replaces it.
    pub fn store(&self, persist: Persist) {
        self.wishes.send_replace(Some(persist));
    }

    /// Waits for news. Cancel-safe. A keeper that has ended tells nothing.
    pub async fn news(&mut self) -> News {
        match self.news.recv().await {
            Some(news) => news,
            None => std::future::pending().await,
        }
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

async fn keep(mut work: Work, mut wished: watch::Receiver<Option<Persist>>, tell: mpsc::UnboundedSender<News>) {
    let mut store = Store::new(work.slot.clone(), work.identity.clone());
    loop {
        match wal::connect_ordinary(&work.target, &work.config, &work.application_name).await {
            Ok(Ordinary { client, ended }) => {
                let mut ended = std::pin::pin!(ended);
                let error = tokio::select! {
                    error = &mut ended => error,
                    () = serve(&client, &mut work, &mut store, &mut wished, &tell) => None,
                };
                if error.is_some_and(|error| error.is_shutdown()) {
                    let _ = tell.send(News::ServerLeaves);
                }
            }
            Err(error) => {
                tracing::debug!(error = chain(&error), "the keeper cannot connect");
                if error.is_shutdown() {
                    let _ = tell.send(News::ServerLeaves);
                }
            }
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

/// Works until a position cannot be stored for a reason that may pass.
async fn serve(
    client: &Client,
    work: &mut Work,
    store: &mut Store,
    wished: &mut watch::Receiver<Option<Persist>>,
    tell: &mpsc::UnboundedSender<News>,
) {
    let mut looks = tokio::time::interval_at(Instant::now(), lookout::INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            changed = wished.changed() => {
                if changed.is_err() {
                    return;
                }
                let wish = *wished.borrow_and_update();
                let Some(persist) = wish else { continue };
                // The position was known before the look, so the look covers it.
                if !look(client, work, tell).await {
                    wished.mark_changed();
                    return;
                }
                work.watch.cover(persist.confirmed.lsn());
                if !work.watch.is_stored() {
                    let _ = tell.send(News::Stored(persist));
                    continue;
                }
                match store.save(client, persist).await {
                    Ok(Outcome::Stored) => _ = tell.send(News::Stored(persist)),
                    Ok(Outcome::PassedOver) => _ = tell.send(News::PassedOver),
                    Err(error) => {
                        work.metrics.position_store_errors.increment();
                        if error.fate() == Fate::Fatal {
                            let _ = tell.send(News::Broken(error));
                            continue;
                        }
                        tracing::warn!(code = %error.code(), error = chain(&error), "the position waits to be stored");
                        // The wish stays: it is tried again on the next connection.
                        wished.mark_changed();
                        return;
                    }
                }
            }
            _ = looks.tick() => {
                lookout::note(client, &work.slot, &work.metrics).await;
                if !look(client, work, tell).await {
                    return;
                }
            }
        }
    }
}

/// Looks at the catalog. Says whether it is as it was; if not, the relay thread knows, or the connection is to be opened again.
async fn look(client: &Client, work: &mut Work, tell: &mpsc::UnboundedSender<News>) -> bool {
    let Err(error) = work.watch.look(client).await else { return true };
    if error.fate() == Fate::Fatal {
        let _ = tell.send(News::Uncovered(Box::new(error)));
    } else {
        tracing::warn!(code = %error.code(), error = chain(&error), "cannot look at the catalog");
    }
    false
}
