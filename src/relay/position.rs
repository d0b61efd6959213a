//! The stored position: one row in the source database, written before the log is confirmed.
//!
//! Each write is log itself, so an idle outbox must not feed itself: a position behind which no event stands is passed over
//! unless somebody else has taken a transaction id since our own last write.

use tokio_postgres::Client;

use crate::fault::Code;
use crate::fault::Diagnose;
use crate::fault::Exit;
use crate::fault::Fate;
use crate::lsn::Lsn;
use crate::relay::feedback::Persist;
use crate::relay::resume::Identity;
use crate::relay::resume::Stored;
use crate::relay::wal;

/// Even if nobody takes a transaction id, the slot follows when this much log has piled up: one segment.
const LOG_BYTES_MAX: u64 = 16 << 20;

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
        source: wal::Error,
    },
    /// There is no row for this slot.
    #[error("no position is stored for slot {slot:?}")]
    Missing {
        /// The slot.
        slot: String,
    },
    /// The row is gone, or belongs to another server.
    #[error("the stored position of slot {slot:?} was taken away or changed by somebody else")]
    Changed {
        /// The slot.
        slot: String,
    },
}

impl Diagnose for Error {
    fn code(&self) -> Code {
        match self {
            Self::Query { .. } => Code::new(Exit::PositionStore, 1),
            Self::Missing { .. } => Code::new(Exit::PositionStore, 2),
            Self::Changed { .. } => Code::new(Exit::PositionStore, 3),
        }
    }

    fn fate(&self) -> Fate {
        match self {
            // A table that is missing or may not be read does not mend itself; a connection does.
            Self::Query { source, .. } => source.fate(),
            Self::Missing { .. } | Self::Changed { .. } => Fate::Fatal,
        }
    }

    fn help(&self) -> Option<String> {
        Some(
            match self {
                Self::Query { .. } => {
                    "run `walrelay setup --apply`, and see that the role has SELECT, INSERT and UPDATE on \
                     walrelay.position; or set source.store_position = false, which gives up the detection of a moved slot"
                }
                Self::Missing { .. } => "run `walrelay setup --apply`: it adopts the slot at its confirmed position",
                Self::Changed { .. } => "see who writes to walrelay.position; restart when it is settled",
            }
            .to_owned(),
        )
    }
}

/// Reads the row of a slot.
pub async fn load(client: &Client, slot: &str) -> Result<Stored, Error> {
    let sql = "SELECT system_id, timeline, position::text FROM walrelay.position WHERE slot = $1::text::name";
    let row = client.query_opt(sql, &[&slot]).await.map_err(|error| failed("read", error))?;
    let Some(row) = row else { return Err(Error::Missing { slot: slot.to_owned() }) };
    let timeline: i64 = row.try_get(1).map_err(|error| failed("read", error))?;
    let position: String = row.try_get(2).map_err(|error| failed("read", error))?;
    Ok(Stored {
        identity: Identity {
            system_id: row.try_get(0).map_err(|error| failed("read", error))?,
            timeline: u32::try_from(timeline).unwrap_or_default(),
        },
        position: position.parse().unwrap_or(Lsn::ZERO),
    })
}

/// Writes the row of a slot anew: the slot was just made, adopted, or its gap accepted.
pub async fn replace(client: &Client, slot: &str, identity: &Identity, position: Lsn) -> Result<(), Error> {
    let sql = "INSERT INTO walrelay.position (slot, system_id, timeline, consistent_point, position)
               VALUES ($1::text::name, $2, $3, $4::text::pg_lsn, $4::text::pg_lsn)
               ON CONFLICT (slot) DO UPDATE SET system_id = excluded.system_id, timeline = excluded.timeline,
                   consistent_point = excluded.consistent_point, created_at = now(), position = excluded.position,
                   stored_at = now()";
    let timeline = i64::from(identity.timeline);
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
        [&slot, &identity.system_id, &timeline, &position.to_string()];
    client.execute(sql, &values).await.map_err(|error| failed("write", error)).map(drop)
}

/// Writes the row, and knows whether somebody else has written to the database since.
#[derive(Debug)]
pub struct Store {
    slot: String,
    identity: Identity,
    /// The next transaction id and the position after our last write.
    after: Option<(String, Lsn)>,
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
        Self { slot, identity, after: None }
    }

    /// Stores a position, or passes over it.
    pub async fn save(&mut self, client: &Client, persist: Persist) -> Result<Outcome, Error> {
        let position = persist.confirmed.lsn();
        if persist.is_idle
            && let Some((next_xid, after)) = &self.after
            && position.bytes_since(*after) < LOG_BYTES_MAX
            && *next_xid == next_transaction(client).await?
        {
            return Ok(Outcome::PassedOver);
        }
        let sql = "UPDATE walrelay.position
                   SET position = $2::text::pg_lsn, timeline = $4, stored_at = now()
                   WHERE slot = $1::text::name AND system_id = $3 AND (position <= $2::text::pg_lsn OR timeline <> $4)";
        let timeline = i64::from(self.identity.timeline);
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
            [&self.slot, &position.to_string(), &self.identity.system_id, &timeline];
        let written = client.execute(sql, &values).await.map_err(|error| failed("write", error))?;
        if written != 1 {
            return Err(Error::Changed { slot: self.slot.clone() });
        }
        self.after = Some((next_transaction(client).await?, position));
        Ok(Outcome::Stored)
    }
}

/// Gives the next transaction id. A transaction that writes takes one; reading this takes none.
async fn next_transaction(client: &Client) -> Result<String, Error> {
    let sql = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text";
    let row = client.query_one(sql, &[]).await.map_err(|error| failed("read", error))?;
    row.try_get(0).map_err(|error| failed("read", error))
}

fn failed(action: &'static str, error: tokio_postgres::Error) -> Error {
    Error::Query { action, source: wal::Error::from(error) }
}
