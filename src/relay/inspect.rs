//! Reads what PostgreSQL knows about the relay, for `walrelay status` while the relay is not running.
//!
//! It uses an ordinary connection with the relay's own role, never the slot, and changes nothing. The connection may go
//! through a pooler, so nothing is set on the session. Each part is read in a transaction of its own: one that cannot
//! be read says why.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::lsn::Lsn;
use crate::relay::catalog;
use crate::relay::error::Error;
use crate::relay::metrics::SlotView;
use crate::relay::metrics::WalStatus;
use crate::relay::poll::outbox::outboxes;
use crate::relay::poll::verify;
use crate::relay::postgres;
use crate::relay::postgres::Ordinary;
use crate::relay::postgres::Target;
use crate::relay::settings::Mode;
use crate::relay::settings::Settings;
use crate::relay::stream::holder;
use crate::relay::stream::position;
use crate::relay::stream::slot_monitor;
use crate::relay::stream::wal_budget::WalBudget;
use walrelay_events::fault::Diagnose;
use walrelay_events::fault::chain;

/// The server's timeout of a statement.
const STATEMENT_LIMIT: Duration = Duration::from_secs(3);
/// The client's timeout of a part.
const LIMIT: Duration = Duration::from_secs(5);
/// The time between two samples of an inactive slot: nobody advances it, so that two are enough.
const SAMPLE_PAUSE: Duration = Duration::from_secs(1);

/// Why a part cannot be read, or why it cannot be used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// The stable code.
    pub code: String,
    /// The error with its causes.
    pub text: String,
    /// The next step.
    pub help: Option<String>,
}

/// What PostgreSQL knows. Without a connection there is only the reason.
#[derive(Clone, Debug)]
pub struct Inspection {
    pub server: Server,
    /// None in mode `poll`.
    pub slot: Option<Result<Slot, Problem>>,
    /// None if positions are not stored.
    pub position: Option<Result<Position, Problem>>,
    /// The number of its tables; none in mode `poll`.
    pub publication: Option<Result<u64, Problem>>,
    /// The number of unpublished rows, up to 10,000 per table; only in mode `poll`.
    pub unpublished: Option<Result<u64, Problem>>,
}

#[derive(Clone, Debug)]
pub struct Server {
    pub host: String,
    /// `server_version`.
    pub version: Option<String>,
    pub is_in_recovery: Option<bool>,
}

#[derive(Clone, Debug)]
pub struct Slot {
    pub view: SlotView,
    /// The `application_name` of the connection that uses it.
    pub holder: Option<String>,
    /// Why the relay cannot use it.
    pub problem: Option<Problem>,
}

/// The row of the stored position.
#[derive(Clone, Debug)]
pub struct Position {
    pub lsn: Lsn,
    pub stored_seconds_ago: f64,
    /// The last relay stopped in order.
    pub is_released: bool,
}

/// Inspects again and again, and estimates the growth of the retained WAL between two times.
#[derive(Debug)]
pub struct Inspector {
    settings: Settings,
    budget: WalBudget,
}

impl<E: Diagnose + 'static> From<E> for Problem {
    fn from(error: E) -> Self {
        Self { code: error.code().to_string(), text: chain(&error), help: error.help() }
    }
}

impl Inspector {
    #[must_use]
    pub const fn new(settings: Settings) -> Self {
        Self { settings, budget: WalBudget::new(Duration::ZERO) }
    }

    /// Connects and reads each part.
    pub async fn look(&mut self) -> Result<Inspection, Problem> {
        let target = Target::resolve(&self.settings.postgres.url).map_err(Error::postgres("read the configuration"))?;
        let (config, name) = (&self.settings.postgres, format!("{} status", self.settings.relay.name));
        let of_role = |error: Error| Problem::from(error.of_role(&target.user));
        let polls = self.settings.source.mode == Mode::Poll;
        let connected = postgres::connect_shared(&target, config, &name).await;
        let ordinary = &connected.map_err(Error::postgres("connect to PostgreSQL"))?;
        let (version, is_in_recovery) = server(&ordinary.client).await.ok().unzip();
        let server = Server { host: ordinary.found.host.to_string(), version, is_in_recovery };
        if polls {
            let unpublished = Some(unpublished(ordinary, &self.settings).await.map_err(of_role));
            return Ok(Inspection { server, slot: None, position: None, publication: None, unpublished });
        }
        let slot = self.slot(ordinary).await.map_err(of_role);
        let publication = publication(ordinary, &self.settings.source.publication).await.map_err(of_role);
        let position = match self.settings.source.store_position {
            true => Some(stored(ordinary, &self.settings.source.slot).await.map_err(of_role)),
            false => None,
        };
        Ok(Inspection { server, slot: Some(slot), position, publication: Some(publication), unpublished: None })
    }

    async fn slot(&mut self, ordinary: &Ordinary) -> Result<Slot, Error> {
        let name = self.settings.source.slot.clone();
        let (client, action) = (&ordinary.client, "read the state of the slot");
        let read = async || {
            let look = async { slot_monitor::look(client, &name).await.map_err(Error::postgres(action)) };
            let view = part(ordinary, action, look).await?;
            view.ok_or_else(|| Error::from(catalog::Error::SlotMissing { slot: name.clone() }))
        };
        let mut view = read().await?;
        // While another relay advances it, two samples say nothing.
        if view.active {
            self.budget.forget();
        } else {
            let outlook = slot_monitor::foresee(&mut self.budget, &mut view);
            if outlook.is_some_and(|outlook| outlook.growth_bytes_per_second.is_none()) {
                tokio::time::sleep(SAMPLE_PAUSE).await;
                view = read().await?;
                slot_monitor::foresee(&mut self.budget, &mut view);
            }
        }
        let holder = match view.active {
            true => part(ordinary, action, holder::of_slot(client, &name)).await,
            false => Ok(None),
        };
        let holder = holder.ok().flatten().map(|holder| holder.application_name);
        let reason = || view.invalidation.map_or("wal_removed", |reason| reason.word()).to_owned();
        let problem = (view.wal_status == Some(WalStatus::Lost))
            .then(|| Problem::from(Error::from(catalog::Error::SlotLost { slot: name.clone(), reason: reason() })));
        Ok(Slot { view, holder, problem })
    }
}

async fn server(client: &Client) -> Result<(String, bool), postgres::Error> {
    let sql = "SELECT pg_catalog.current_setting('server_version'), pg_catalog.pg_is_in_recovery()";
    postgres::within(LIMIT, async {
        let rows = client.query_typed(sql, &[]).await?;
        rows.first().map(|row| Ok::<_, tokio_postgres::Error>((row.try_get(0)?, row.try_get(1)?))).transpose()
    })
    .await?
    .ok_or(postgres::Error::Answer { field: "server_version" })
}

/// Reads one part in a transaction of its own, for a limited time.
async fn part<T>(
    ordinary: &Ordinary,
    action: &'static str,
    queries: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let (client, begin) = (&ordinary.client, ordinary.begin_reading(STATEMENT_LIMIT));
    let failed = Error::postgres(action);
    let done = tokio::time::timeout(LIMIT, async {
        client.batch_execute(&begin).await.map_err(Error::postgres(action))?;
        queries.await
    });
    let done = done.await.unwrap_or_else(|_| Err(failed(postgres::Error::NoAnswer { limit: LIMIT })));
    let ended = postgres::within(LIMIT, client.batch_execute("ROLLBACK")).await;
    // The first error is the cause.
    let done = done?;
    ended.map(|()| done).map_err(failed)
}

/// Counts the unpublished rows, up to a limit per table. Rows that a policy hides are an error.
async fn unpublished(ordinary: &Ordinary, settings: &Settings) -> Result<u64, Error> {
    let (client, action) = (&ordinary.client, "count the unpublished rows");
    let failed = Error::postgres(action);
    let mut count = 0;
    for outbox in outboxes(settings)? {
        let counted = part(ordinary, action, async {
            let sql = verify::resolve(client, &outbox).await?.count_unpublished();
            let row = client.query_typed_one(&sql, &[]).await.map_err(&failed)?;
            row.try_get::<_, i64>(0).map_err(&failed)
        });
        count += counted.await?.unsigned_abs();
    }
    Ok(count)
}

async fn publication(ordinary: &Ordinary, name: &str) -> Result<u64, Error> {
    let (client, action) = (&ordinary.client, "read the publication");
    let sql = "SELECT (SELECT count(*) FROM pg_publication_tables AS t WHERE t.pubname = p.pubname)
               FROM pg_publication AS p WHERE pubname = $1";
    let tables = part(ordinary, action, async {
        let row = client.query_typed_opt(sql, &[(&name, Type::TEXT)]).await.map_err(Error::postgres(action))?;
        row.map(|row| row.try_get::<_, i64>(0)).transpose().map_err(Error::postgres(action))
    });
    match tables.await? {
        Some(tables) => Ok(tables.unsigned_abs()),
        None => Err(catalog::Error::PublicationMissing { publication: name.to_owned() }.into()),
    }
}

async fn stored(ordinary: &Ordinary, slot: &str) -> Result<Position, Error> {
    let sql = "SELECT position::text, greatest(extract(epoch FROM now() - stored_at), 0)::float8,
                      released_at IS NOT NULL
               FROM walrelay.position WHERE slot = $1::text::name";
    let action = "read the stored position";
    let read = async {
        let Some(row) = ordinary.client.query_typed_opt(sql, &[(&slot, Type::TEXT)]).await? else { return Ok(None) };
        Ok(Some((row.try_get::<_, String>(0)?, row.try_get::<_, f64>(1)?, row.try_get::<_, bool>(2)?)))
    };
    let read = async { read.await.map_err(|error| Error::from(position::failed("read", error))) };
    let Some((lsn, stored_seconds_ago, is_released)) = part(ordinary, action, read).await? else {
        return Err(position::Error::Missing { slot: slot.to_owned() }.into());
    };
    let lsn = postgres::position(&lsn).map_err(Error::postgres(action))?;
    Ok(Position { lsn, stored_seconds_ago, is_released })
}
