//! Watches the holder of the slot on one ordinary connection: a START_REPLICATION that fails logs an ERROR on the
//! server.

use std::fmt;
use std::time::Duration;
use std::time::Instant;

use tokio_postgres::Client;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::relay::error::Error;
use crate::relay::postgres;
use crate::relay::postgres::Ordinary;
use crate::relay::postgres::Target;

/// The interval of the queries.
const INTERVAL: Duration = Duration::from_secs(1);
/// If no query succeeds for so long, the slot counts as held by another relay. The other one waits longer than this
/// before it publishes.
const MAX_UNSEEN: Duration = Duration::from_secs(2);
/// The pause after a failed query.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// The timeout of a query of a standby.
const LOOK_LIMIT: Duration = Duration::from_secs(5);

/// A connection that holds the slot.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::relay) struct Holder {
    pub(in crate::relay) pid: u32,
    pub(in crate::relay) application_name: String,
    /// None for a local socket, and where the role may not see it.
    pub(in crate::relay) client: Option<String>,
}

/// For a message to a person.
impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.application_name.escape_default();
        write!(f, "\"{name}\" (PID {}, {})", self.pid, self.client.as_deref().unwrap_or("local or unknown address"))
    }
}

/// How to query the holder.
#[derive(Clone, Debug)]
pub(in crate::relay) struct HolderWatch {
    pub(in crate::relay) target: Target,
    pub(in crate::relay) config: postgres::Config,
    pub(in crate::relay) application_name: String,
    pub(in crate::relay) slot: String,
}

impl HolderWatch {
    /// Returns when a connection other than `own` holds the slot, or when no query has succeeded for a while.
    pub(in crate::relay) async fn until_held_by_other(&self, own: Option<u32>) {
        let (mut ordinary, mut seen): (Option<Ordinary>, _) = (None, Instant::now());
        let mut pause = INTERVAL;
        loop {
            tokio::time::sleep(pause).await;
            let look = async {
                if ordinary.as_ref().is_none_or(|ordinary| ordinary.client.is_closed()) {
                    ordinary = Some(self.connect().await?);
                }
                match &ordinary {
                    Some(Ordinary { client, .. }) => self.look(client).await,
                    None => Ok(None),
                }
            };
            match tokio::time::timeout(MAX_UNSEEN, look).await {
                Ok(Ok(Some(holder))) if Some(holder.pid) != own => return,
                Ok(Ok(_)) => (seen, pause) = (Instant::now(), INTERVAL),
                Ok(Err(_)) | Err(_) if seen.elapsed() > INTERVAL + MAX_UNSEEN => return,
                Ok(Err(_)) | Err(_) => {
                    ordinary = None;
                    pause = RETRY_PAUSE;
                }
            }
        }
    }

    /// Returns when nobody holds the slot. Reports each holder.
    pub(in crate::relay) async fn until_free(&self, mut report: impl FnMut(&Holder)) -> Result<(), Error> {
        let Ordinary { client, ended: _ended, .. } = self.connect().await?;
        while let Some(holder) = self.look_in_time(&client).await? {
            report(&holder);
            tokio::time::sleep(INTERVAL).await;
        }
        Ok(())
    }

    async fn connect(&self) -> Result<Ordinary, Error> {
        let connected = postgres::connect_ordinary(&self.target, &self.config, &self.application_name).await;
        connected.map_err(Error::postgres("connect to PostgreSQL"))
    }

    async fn look_in_time(&self, client: &Client) -> Result<Option<Holder>, Error> {
        let late = || Error::postgres("read the state of the slot")(postgres::Error::NoAnswer { limit: LOOK_LIMIT });
        tokio::time::timeout(LOOK_LIMIT, self.look(client)).await.unwrap_or_else(|_| Err(late()))
    }

    async fn look(&self, client: &Client) -> Result<Option<Holder>, Error> {
        of_slot(client, &self.slot).await
    }
}

/// Gives the connection that holds a slot, if there is one.
pub(in crate::relay) async fn of_slot(client: &Client, slot: &str) -> Result<Option<Holder>, Error> {
    let sql = "SELECT s.active_pid, coalesce(a.application_name, ''), host(a.client_addr)
               FROM pg_catalog.pg_replication_slots s LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = s.active_pid
               WHERE s.slot_name = $1 AND s.active_pid IS NOT NULL";
    let failed = Error::postgres("read the state of the slot");
    let row = client.query_typed_opt(sql, &[(&slot, Type::TEXT)]).await.map_err(&failed)?;
    let holder = |row: Row| {
        let pid = row.try_get::<_, i32>(0)?.unsigned_abs();
        Ok(Holder { pid, application_name: row.try_get(1)?, client: row.try_get(2)? })
    };
    row.map(holder).transpose().map_err(failed)
}
