//! Looks what exists. Before the first step it is looked for again.

use tokio_postgres::Client;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::relay::error::Error as RelayError;
use crate::relay::postgres;
use crate::relay::postgres::Ordinary;
use crate::relay::stream::holder;

use super::error::Error;
use super::plan::Plan;
use super::plan::PositionPlan;
use super::plan::PublicationPlan;
use super::plan::SlotPlan;
use super::plan::Undelivered;
use super::position;
use super::publication;
use super::transaction::reading;
use super::undelivered;

/// What is looked for, by the configuration.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) slot: String,
    pub(super) publication: String,
    /// Every possible name of the outbox tables, as in "public.outbox_events".
    pub(super) tables: Vec<String>,
    /// Whether the stored position is deleted as well.
    pub(super) with_position: bool,
}

impl Wanted {
    pub(super) async fn look(&self, ordinary: &Ordinary) -> Result<Plan, Error> {
        let client = &ordinary.client;
        let (database, slot) = reading(ordinary, "read the slot", slot_plan(ordinary, &self.slot)).await?;
        let publication = publication::read(client, &self.publication, &self.tables);
        let publication = reading(ordinary, "read the publication", publication).await?;
        let other_slots = reading(ordinary, "read the slots", other_slots(client, &self.slot)).await?;
        let position = position::read(client, &self.slot, self.with_position);
        let position = reading(ordinary, "read the stored position", position).await?;
        let position = position.map(|lsn| PositionPlan { lsn, is_deleted: self.with_position });
        let undelivered = self.undelivered(ordinary, slot, publication.as_ref(), position.as_ref()).await;
        let host = ordinary.found.host.to_string();
        Ok(Plan { host, database, slot, publication, other_slots, position, undelivered })
    }

    /// Without a slot that works, the stored position is the only trace of a gap.
    async fn undelivered(
        &self,
        ordinary: &Ordinary,
        slot: Option<SlotPlan>,
        publication: Option<&PublicationPlan>,
        position: Option<&PositionPlan>,
    ) -> Undelivered {
        let (slot_name, publication_name) = (&self.slot, &self.publication);
        match (slot, publication) {
            (None, _) if position.is_some_and(|position| position.is_deleted) => Undelivered::Unknown(format!(
                "slot {slot_name:?} does not exist, and the stored position is the only trace of what it delivered"
            )),
            (None, _) => Undelivered::Nothing,
            (Some(SlotPlan { is_lost: true, .. }), _) => {
                Undelivered::Unknown(format!("slot {slot_name:?} is lost: the server removed WAL that it needed"))
            }
            (_, None) => Undelivered::Unknown(format!("publication {publication_name:?} does not exist")),
            (_, Some(publication)) => {
                let counted = undelivered::count(ordinary, slot_name, publication_name).await;
                if publication.others.is_empty() || !matches!(counted, Undelivered::Events { .. }) {
                    return counted;
                }
                Undelivered::Unknown(format!(
                    "rows are behind the slot, and publication {publication_name:?} also publishes other tables"
                ))
            }
        }
    }
}

/// Reads the other slots of this database that may use the publication.
async fn other_slots(client: &Client, slot: &str) -> Result<Vec<String>, Error> {
    let failed = RelayError::postgres::<tokio_postgres::Error>("read the slots");
    let sql = "SELECT ARRAY (SELECT s.slot_name::text FROM pg_replication_slots AS s
                             WHERE s.database = current_database() AND s.plugin = 'pgoutput' AND s.slot_name <> $1
                             ORDER BY 1)";
    let row = client.query_typed_one(sql, &[(&slot, Type::TEXT)]).await.map_err(&failed)?;
    row.try_get(0).map_err(|error| failed(error).into())
}

/// Gives the connection that uses the slot, if there is one.
pub(super) async fn holder(client: &Client, slot: &str) -> Result<Option<holder::Holder>, Error> {
    Ok(holder::of_slot(client, slot).await?)
}

/// Reads the name of the database, and the slot if it exists.
async fn slot_plan(ordinary: &Ordinary, slot: &str) -> Result<(String, Option<SlotPlan>), Error> {
    let client = &ordinary.client;
    let failed = RelayError::postgres::<tokio_postgres::Error>("read the slot");
    let sql = "SELECT current_database()::text, pg_is_in_recovery()";
    let row = client.query_typed_one(sql, &[]).await.map_err(&failed)?;
    let database: String = row.try_get(0).map_err(&failed)?;
    if row.try_get(1).map_err(&failed)? {
        let host = ordinary.found.host.to_string();
        return Err(RelayError::postgres("drop anything")(postgres::Error::ReadOnly { host }).into());
    }
    let sql = "SELECT s.slot_type, coalesce(s.plugin::text, ''), coalesce(s.database::text, ''),
                      coalesce(s.wal_status = 'lost', false), s.confirmed_flush_lsn::text,
                      coalesce(greatest(pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn), 0), 0)::bigint,
                      coalesce(greatest(pg_wal_lsn_diff(
                          least(pg_current_wal_lsn(), (SELECT min(o.restart_lsn) FROM pg_replication_slots AS o
                                                       WHERE o.slot_name <> s.slot_name)),
                          s.restart_lsn), 0), 0)::bigint
               FROM pg_replication_slots AS s WHERE s.slot_name = $1";
    let Some(row) = client.query_typed_opt(sql, &[(&slot, Type::TEXT)]).await.map_err(&failed)? else {
        return Ok((database, None));
    };
    require_own(&row, slot, &database)?;
    if let Some(holder) = holder(client, slot).await? {
        return Err(Error::held(slot, holder.pid, Some(&holder)));
    }
    let bytes = |column| row.try_get::<_, i64>(column).map(i64::unsigned_abs).map_err(&failed);
    let confirmed: Option<String> = row.try_get(4).map_err(&failed)?;
    let plan = SlotPlan {
        confirmed: confirmed.and_then(|confirmed| confirmed.parse().ok()),
        retained_bytes: bytes(5)?,
        freed_bytes: bytes(6)?,
        is_lost: row.try_get(3).map_err(&failed)?,
    };
    Ok((database, Some(plan)))
}

/// Checks that it is a slot for pgoutput in this database: any other one belongs to another program.
fn require_own(row: &Row, slot: &str, database: &str) -> Result<(), Error> {
    let text = |column| row.try_get::<_, String>(column).map_err(RelayError::postgres("read the slot"));
    let what = match (text(0)?.as_str(), text(1)?, text(2)?) {
        ("physical", ..) => "is a physical slot".to_owned(),
        (_, plugin, _) if plugin != "pgoutput" => format!("decodes with plugin {plugin:?}"),
        (_, _, other) if other != database => format!("belongs to database {other:?}, not to {database:?}"),
        _ => return Ok(()),
    };
    Err(Error::Foreign { slot: slot.to_owned(), what })
}
