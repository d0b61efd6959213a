//! The stored position: one row in the source database, written before the log is confirmed.
//!
//! Each write is log itself, so an idle outbox must not feed itself: a position behind which no event stands is passed over
//! unless somebody else has taken a transaction id since our own last write.

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

/// Even if nobody takes a transaction id, the slot follows when this much log has piled up: one segment.
const LOG_BYTES_MAX: u64 = 16 << 20;
/// How long the note of a start may take.
const CLAIM_LIMIT: Duration = Duration::from_secs(1);
/// A page's header may stand between the end of one record and where the next begins; no transaction is this small.
const PAGE_SLACK: u64 = 64;

/// The stored position cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// PostgreSQL refuses.
    #[error("{action} the stored position")]
    Query {
        /// What was tried.
        action: &'static str,
        /// What PostgreSQL says.
        #[source]
        source: postgres::Error,
    },
    /// The role may not read or write it.
    #[error("{action} the stored position as role {role:?}")]
    Denied {
        /// What was tried.
        action: &'static str,
        /// The role.
        role: String,
        /// What PostgreSQL says.
        #[source]
        source: Box<postgres::Error>,
    },
    /// There is no row for this slot.
    #[error("no position is stored for slot {slot:?}")]
    Missing {
        /// The slot.
        slot: String,
    },
    /// The table was created by a version that kept less.
    #[error("table walrelay.position has no column catalog_state: it was created by an earlier version of walrelay")]
    Outdated,
    /// The row is gone, or belongs to another server.
    #[error("the stored position of slot {slot:?} was taken away or changed by somebody else")]
    Changed {
        /// The slot.
        slot: String,
    },
}

impl Error {
    /// Names the role that asked, if it lacks a right.
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
            // A table that is missing or may not be read does not mend itself; a connection does.
            Self::Query { source, .. } => source.fate(),
            Self::Denied { source, .. } => source.fate(),
            Self::Missing { .. } | Self::Changed { .. } | Self::Outdated => Fate::Fatal,
        }
    }

    fn help(&self) -> Option<String> {
        Some(
            match self {
                // What passes by itself needs nobody; what else the server says has its own remedy.
                Self::Query { source, .. } if source.fate() == Fate::Transient => return source.help(),
                Self::Query { .. } => {
                    "run `walrelay setup --apply`, and see that the role has SELECT, INSERT and UPDATE on \
                     walrelay.position; or set source.store_position = false, which gives up the detection of a moved slot"
                }
                Self::Denied { role, .. } => {
                    let role = format!("\"{}\"", role.replace('"', "\"\""));
                    return Some(format!(
                        "run `GRANT USAGE ON SCHEMA walrelay TO {role}; GRANT SELECT, INSERT, UPDATE ON walrelay.position TO {role}` \
                         as the owner of the schema"
                    ));
                }
                Self::Missing { .. } => "run `walrelay setup --apply`: it adopts the slot at its confirmed position",
                Self::Outdated => "run `walrelay setup --apply`: it adds the column and changes nothing else",
                Self::Changed { .. } => "see who writes to walrelay.position; restart when it is settled",
            }
            .to_owned(),
        )
    }
}

/// Reads the row of a slot.
pub async fn load(client: &Client, slot: &str) -> Result<Stored, Error> {
    let sql = "SELECT system_id, timeline, position::text, released_at IS NOT NULL FROM walrelay.position WHERE slot = $1::text::name";
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

/// Asks which system the server is, where everybody may.
pub async fn system_id(client: &Client) -> Result<String, Error> {
    let sql = "SELECT system_identifier::text FROM pg_control_system()";
    let row = client.query_one(sql, &[]).await.map_err(|error| failed("read", error))?;
    row.try_get(0).map_err(|error| failed("read", error))
}

/// Writes the row of a slot anew: the slot was just made, adopted, or its gap accepted.
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

/// Notes that a relay is at work: whoever comes after it must not count on an orderly end. A row that cannot be written now is no
/// reason not to publish.
pub async fn claim(client: &Client, slot: &str) {
    let sql = "UPDATE walrelay.position SET released_at = NULL WHERE slot = $1::text::name AND released_at IS NOT NULL";
    let claimed = tokio::time::timeout(CLAIM_LIMIT, client.execute(sql, &[&slot])).await;
    let error = match claimed {
        Ok(Ok(_)) => return,
        Ok(Err(error)) => chain(&postgres::Error::from(error)),
        Err(_) => format!("no answer within {} s", CLAIM_LIMIT.as_secs()),
    };
    tracing::warn!(
        error,
        "the start could not be noted beside the stored position; after a crash the next relay does not wait"
    );
}

/// Says in the row of a slot, if there is one, that positions are not kept from now on: the slot moves on without it, and is
/// not ahead of anything when positions are kept again.
pub async fn forgo(client: &Client, slot: &str) -> Result<(), Error> {
    let sql = "UPDATE walrelay.position
               SET position = '0/0', stored_at = now(), released_at = NULL, catalog_state = NULL
               WHERE slot = $1::text::name
                     AND (position <> '0/0' OR released_at IS NOT NULL OR catalog_state IS NOT NULL)";
    match tokio::time::timeout(CLAIM_LIMIT, client.execute(sql, &[&slot])).await {
        Ok(written) => written.map_err(|error| failed("write", error)).map(drop),
        Err(_) => Err(Error::late(CLAIM_LIMIT)),
    }
}

/// Writes the row, and knows whether somebody else has written to the database since.
#[derive(Debug)]
pub struct Store {
    slot: String,
    identity: Identity,
    /// Our last write, if nothing of anybody else lies between its position and it.
    quiet: Option<Quiet>,
}

/// A write of ours that covered everything before it.
#[derive(Clone, Debug)]
struct Quiet {
    /// The transaction id after ours.
    next_xid: String,
    /// The position that was stored.
    position: Lsn,
}

/// What became of a position.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It is stored.
    Stored,
    /// Nobody else has written: it was passed over.
    PassedOver,
}

impl Store {
    /// Prepares to write the row of a slot of this server.
    #[must_use]
    pub const fn new(slot: String, identity: Identity) -> Self {
        Self { slot, identity, quiet: None }
    }

    /// Stores a position, or passes over it.
    pub async fn save(&mut self, client: &Client, persist: Persist) -> Result<Outcome, Error> {
        let position = persist.confirmed.lsn();
        if persist.is_idle
            && !persist.is_last
            && let Some(quiet) = &self.quiet
            && position.bytes_since(quiet.position) < LOG_BYTES_MAX
            && quiet.next_xid == next_transaction(client).await?
        {
            return Ok(Outcome::PassedOver);
        }
        self.quiet = self.write(client, position, persist.is_last).await?;
        Ok(Outcome::Stored)
    }

    /// Writes the row. A relay that published before us may have stored a later position after we took over: what it has
    /// delivered stays delivered, and the row does not go back. In the same statement it looks at what came before: if no transaction was running, ours took the
    /// very next id, and the log ended where the stored position is, then whatever follows that takes no id is noise.
    async fn write(&self, client: &Client, position: Lsn, is_last: bool) -> Result<Option<Quiet>, Error> {
        let sql = "WITH before AS (
                       SELECT pg_current_wal_insert_lsn() AS wal_end, pg_snapshot_xmin(s) AS oldest, pg_snapshot_xmax(s) AS next
                       FROM pg_current_snapshot() s)
                   UPDATE walrelay.position
                   SET position = CASE WHEN timeline = $4 THEN greatest(position, $2::text::pg_lsn) ELSE $2::text::pg_lsn END,
                       timeline = $4, stored_at = now(), released_at = CASE WHEN $5 THEN now() END
                   FROM before
                   WHERE slot = $1::text::name AND system_id = $3
                   RETURNING before.wal_end::text,
                             before.oldest = before.next AND before.next = pg_current_xact_id() AND position = $2::text::pg_lsn,
                             (pg_current_xact_id()::text::numeric + 1)::text";
        let timeline = i64::from(self.identity.timeline);
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
            [&self.slot, &position.to_string(), &self.identity.system_id, &timeline, &is_last];
        let row = client.query_opt(sql, &values).await.map_err(|error| failed("write", error))?;
        let Some(row) = row else { return Err(Error::Changed { slot: self.slot.clone() }) };
        let told = |column| row.try_get::<_, String>(column).map_err(|error| failed("write", error));
        let wal_end = postgres::position(&told(0)?).map_err(unreadable)?;
        let was_alone: bool = row.try_get(1).map_err(|error| failed("write", error))?;
        let next_xid = told(2)?;
        let is_quiet = was_alone && wal_end.bytes_since(position) <= PAGE_SLACK;
        Ok(is_quiet.then_some(Quiet { next_xid, position }))
    }
}

/// Gives the id after that of the last transaction that has ended. Reading this takes none.
async fn next_transaction(client: &Client) -> Result<String, Error> {
    let sql = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text";
    let row = client.query_one(sql, &[]).await.map_err(|error| failed("read", error))?;
    row.try_get(0).map_err(|error| failed("read", error))
}

/// A row that says "no position" would start the relay wherever the slot stands.
const fn unreadable(source: postgres::Error) -> Error {
    Error::Query { action: "read", source }
}

/// Sorts what a query on the row failed for. A column that is missing is a table of an earlier build.
pub(in crate::relay) fn failed(action: &'static str, error: tokio_postgres::Error) -> Error {
    if error.code() == Some(&SqlState::UNDEFINED_COLUMN) {
        return Error::Outdated;
    }
    Error::Query { action, source: postgres::Error::from(error) }
}
