//! The stored position: one row in the source database, written before the WAL is confirmed.
//!
//! Each write creates WAL, so an idle outbox must not cause writes in a loop: a position without a new event is skipped
//! unless another transaction id was assigned since the last write.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::lsn::Lsn;
use crate::relay::postgres;
use crate::relay::stream::feedback::Persist;
use crate::relay::stream::resume::Identity;
use crate::relay::stream::resume::Stored;
use walrelay_events::fault::Code;
use walrelay_events::fault::Diagnose;
use walrelay_events::fault::Exit;
use walrelay_events::fault::Fate;
use walrelay_events::fault::chain;

/// The slot also advances after this much WAL without a transaction id: one segment.
const MAX_WAL_BYTES: u64 = 16 << 20;
/// The timeout of the write at the start.
const CLAIM_LIMIT: Duration = Duration::from_secs(1);
/// A page header may lie between two WAL records; every transaction is larger than this.
const PAGE_SLACK: u64 = 64;

/// The stored position cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A query failed.
    #[error("cannot {action} the stored position")]
    Query {
        /// The attempt, as in "read".
        action: &'static str,
        /// The cause.
        #[source]
        source: postgres::Error,
    },
    /// The role lacks a privilege.
    #[error("cannot {action} the stored position as role {role:?}")]
    Denied {
        /// The attempt.
        action: &'static str,
        role: String,
        /// The cause.
        #[source]
        source: Box<postgres::Error>,
    },
    /// There is no row for this slot.
    #[error("no position is stored for slot {slot:?}")]
    Missing { slot: String },
    /// The table was created by an earlier version.
    #[error("table walrelay.position has no column catalog_state: it was created by an earlier version of walrelay")]
    Outdated,
    /// The row is missing, or belongs to another server.
    #[error("the stored position of slot {slot:?} was deleted or changed by another session")]
    Changed { slot: String },
}

impl Error {
    /// Adds the role, if it lacks a privilege.
    #[must_use]
    pub fn of_role(self, role: &str) -> Self {
        match self {
            Self::Query { action, source } if source.is_denied() => {
                Self::Denied { action, role: role.to_owned(), source: Box::new(source) }
            }
            other @ (Self::Query { .. }
            | Self::Denied { .. }
            | Self::Outdated
            | Self::Missing { .. }
            | Self::Changed { .. }) => other,
        }
    }

    /// The server did not answer in time.
    #[must_use]
    pub const fn late(limit: Duration) -> Self {
        Self::Query { action: "write", source: postgres::Error::NoAnswer { limit } }
    }
}

impl Diagnose for Error {
    fn code(&self) -> Code {
        match self {
            Self::Query { .. } | Self::Denied { .. } => Code::new(Exit::PositionStore, 1),
            Self::Missing { .. } => Code::new(Exit::PositionStore, 2),
            Self::Changed { .. } => Code::new(Exit::PositionStore, 3),
            Self::Outdated => Code::new(Exit::PositionStore, 4),
        }
    }

    fn fate(&self) -> Fate {
        match self {
            // A missing table or privilege is permanent, a lost connection is not.
            Self::Query { source, .. } => source.fate(),
            Self::Denied { source, .. } => source.fate(),
            Self::Missing { .. } | Self::Changed { .. } | Self::Outdated => Fate::Fatal,
        }
    }

    fn help(&self) -> Option<String> {
        Some(
            match self {
                // A transient error has its own next step, if any.
                Self::Query { source, .. } if source.fate() == Fate::Transient => return source.help(),
                Self::Query { .. } => {
                    "run `walrelay setup --apply`, and check that the role has SELECT, INSERT and UPDATE on \
                     walrelay.position; or set source.store_position = false, which disables the detection of a moved \
                     slot"
                }
                Self::Denied { role, .. } => {
                    let role = format!("\"{}\"", role.replace('"', "\"\""));
                    return Some(format!(
                        "run `GRANT USAGE ON SCHEMA walrelay TO {role}; GRANT SELECT, INSERT, UPDATE ON \
                         walrelay.position TO {role}` as the owner of the schema"
                    ));
                }
                Self::Missing { .. } => "run `walrelay setup --apply`: it adopts the slot at its confirmed position",
                Self::Outdated => "run `walrelay setup --apply`: it adds the column and changes nothing else",
                Self::Changed { .. } => "find the session that writes to walrelay.position, then restart",
            }
            .to_owned(),
        )
    }
}

/// Reads the row of a slot.
pub async fn load(client: &Client, slot: &str) -> Result<Stored, Error> {
    let sql = "SELECT system_id, timeline, position::text, released_at IS NOT NULL FROM walrelay.position WHERE slot = \
               $1::text::name";
    let row = client.query_opt(sql, &[&slot]).await.map_err(|error| failed("read", error))?;
    let Some(row) = row else { return Err(Error::Missing { slot: slot.to_owned() }) };
    let timeline: i64 = row.try_get(1).map_err(|error| failed("read", error))?;
    let no_timeline = |_| unreadable(postgres::Error::Answer { field: "timeline" });
    let position: String = row.try_get(2).map_err(|error| failed("read", error))?;
    Ok(Stored {
        identity: Identity {
            system_id: row.try_get(0).map_err(|error| failed("read", error))?,
            timeline: u32::try_from(timeline).map_err(no_timeline)?,
        },
        position: postgres::position(&position).map_err(unreadable)?,
        is_released: row.try_get(3).map_err(|error| failed("read", error))?,
    })
}

/// Checks the privilege to write it, and writes nothing: the statement is not executed.
pub async fn check_write(client: &Client) -> Result<(), Error> {
    let sql = "EXPLAIN UPDATE walrelay.position SET position = position, timeline = timeline, stored_at = stored_at,
               released_at = released_at, catalog_state = catalog_state";
    client.batch_execute(sql).await.map_err(|error| failed("write", error))
}

/// Reads the system identifier, which every role may do.
pub async fn system_id(client: &Client) -> Result<String, Error> {
    let sql = "SELECT system_identifier::text FROM pg_control_system()";
    let row = client.query_one(sql, &[]).await.map_err(|error| failed("read", error))?;
    row.try_get(0).map_err(|error| failed("read", error))
}

/// Replaces the row of a slot: the slot was created or adopted, or its gap was accepted.
pub async fn replace(client: &Client, slot: &str, identity: &Identity, position: Lsn) -> Result<(), Error> {
    let sql = "INSERT INTO walrelay.position (slot, system_id, timeline, consistent_point, position, released_at)
               VALUES ($1::text::name, $2, $3, $4::text::pg_lsn, $4::text::pg_lsn, now())
               ON CONFLICT (slot) DO UPDATE SET system_id = excluded.system_id, timeline = excluded.timeline,
                   consistent_point = excluded.consistent_point, created_at = now(), position = excluded.position,
                   stored_at = now(), released_at = now(), catalog_state = NULL";
    let timeline = i64::from(identity.timeline);
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
        [&slot, &identity.system_id, &timeline, &position.to_string()];
    client.execute(sql, &values).await.map_err(|error| failed("write", error)).map(drop)
}

/// Writes that a relay is running: the next one must not assume an orderly stop. A failed write does not prevent
/// publishing.
pub async fn claim(client: &Client, slot: &str) {
    let sql = "UPDATE walrelay.position SET released_at = NULL WHERE slot = $1::text::name AND released_at IS NOT NULL";
    let claimed = tokio::time::timeout(CLAIM_LIMIT, client.execute(sql, &[&slot])).await;
    let error = match claimed {
        Ok(Ok(_)) => return,
        Ok(Err(error)) => chain(&postgres::Error::from(error)),
        Err(_) => format!("query timed out after {} s", CLAIM_LIMIT.as_secs()),
    };
    tracing::warn!(error, "cannot mark the stored position as in use: after a crash the next relay does not wait");
}

/// Invalidates the row of a slot, if there is one: positions are not stored from now on, so the slot may advance beyond
/// it.
pub async fn invalidate(client: &Client, slot: &str) -> Result<(), Error> {
    let sql = "UPDATE walrelay.position
               SET position = '0/0', stored_at = now(), released_at = NULL, catalog_state = NULL
               WHERE slot = $1::text::name
                     AND (position <> '0/0' OR released_at IS NOT NULL OR catalog_state IS NOT NULL)";
    match tokio::time::timeout(CLAIM_LIMIT, client.execute(sql, &[&slot])).await {
        Ok(written) => written.map_err(|error| failed("write", error)).map(drop),
        Err(_) => Err(Error::late(CLAIM_LIMIT)),
    }
}

/// Writes the row, and detects whether others have written to the database since.
#[derive(Debug)]
pub struct Store {
    slot: String,
    identity: Identity,
    /// The last write, if nothing else was written between its position and it.
    last_write: Option<LastWrite>,
}

/// A write that covered everything before it.
#[derive(Clone, Debug)]
struct LastWrite {
    /// The transaction id after that of the write.
    next_xid: String,
    /// The position that was stored.
    position: Lsn,
}

/// The result of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    Stored,
    /// Nobody else has written: it was skipped.
    Skipped,
}

impl Store {
    /// Creates the writer of a slot's row on this server.
    #[must_use]
    pub const fn new(slot: String, identity: Identity) -> Self {
        Self { slot, identity, last_write: None }
    }

    /// Stores a position, or skips it.
    pub async fn save(&mut self, client: &Client, persist: Persist) -> Result<Outcome, Error> {
        let position = persist.confirmed.lsn();
        if persist.is_idle
            && !persist.is_last
            && let Some(last_write) = &self.last_write
            && position.bytes_since(last_write.position) < MAX_WAL_BYTES
            && last_write.next_xid == next_transaction(client).await?
        {
            return Ok(Outcome::Skipped);
        }
        self.last_write = self.write(client, position, persist.is_last).await?;
        Ok(Outcome::Stored)
    }

    /// Writes the row. The previous relay may have stored a later position after this one took over: the row does not
    /// go back. The same statement checks what came before: if no transaction was running, this one got the next id,
    /// and the WAL ended at the stored position, then later WAL without a transaction id is irrelevant.
    async fn write(&self, client: &Client, position: Lsn, is_last: bool) -> Result<Option<LastWrite>, Error> {
        let sql = "WITH before AS (
                       SELECT pg_current_wal_insert_lsn() AS wal_end, pg_snapshot_xmin(s) AS oldest, \
                       pg_snapshot_xmax(s) AS next
                       FROM pg_current_snapshot() s)
                   UPDATE walrelay.position
                   SET position = CASE WHEN timeline = $4 THEN greatest(position, $2::text::pg_lsn) ELSE \
                   $2::text::pg_lsn END,
                       timeline = $4, stored_at = now(), released_at = CASE WHEN $5 THEN now() END
                   FROM before
                   WHERE slot = $1::text::name AND system_id = $3
                   RETURNING before.wal_end::text,
                             before.oldest = before.next AND before.next = pg_current_xact_id() AND position = \
                             $2::text::pg_lsn,
                             (pg_current_xact_id()::text::numeric + 1)::text";
        let timeline = i64::from(self.identity.timeline);
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
            [&self.slot, &position.to_string(), &self.identity.system_id, &timeline, &is_last];
        let row = client.query_opt(sql, &values).await.map_err(|error| failed("write", error))?;
        let Some(row) = row else { return Err(Error::Changed { slot: self.slot.clone() }) };
        let text = |column| row.try_get::<_, String>(column).map_err(|error| failed("write", error));
        let wal_end = postgres::position(&text(0)?).map_err(unreadable)?;
        let was_alone: bool = row.try_get(1).map_err(|error| failed("write", error))?;
        let next_xid = text(2)?;
        let is_quiet = was_alone && wal_end.bytes_since(position) <= PAGE_SLACK;
        Ok(is_quiet.then_some(LastWrite { next_xid, position }))
    }
}

/// Gives the id after the last assigned one. Reading it assigns none.
async fn next_transaction(client: &Client) -> Result<String, Error> {
    let sql = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text";
    let row = client.query_one(sql, &[]).await.map_err(|error| failed("read", error))?;
    row.try_get(0).map_err(|error| failed("read", error))
}

/// An unreadable position must not become 0/0, which means that positions are not stored.
const fn unreadable(source: postgres::Error) -> Error {
    Error::Query { action: "read", source }
}

/// Classifies an error of a query on the row. A missing column means a table of an earlier version.
pub(in crate::relay) fn failed(action: &'static str, error: tokio_postgres::Error) -> Error {
    if error.code() == Some(&SqlState::UNDEFINED_COLUMN) {
        return Error::Outdated;
    }
    Error::Query { action, source: postgres::Error::from(error) }
}
