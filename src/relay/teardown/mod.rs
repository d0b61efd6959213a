//! Drops what `setup` created beside the outbox table: the slot, the publication and, if asked, the stored position.
//!
//! First the slot: without it no WAL is retained, whatever fails later. A slot without its publication could not decode
//! any more. Each step can be repeated, and a missing object is no error. The outbox table is never touched. The
//! connection may go through a pooler, so nothing is set on the session.

mod error;
mod look;
mod plan;
mod position;
mod publication;
mod transaction;
mod undelivered;

use crate::relay::error::Error as RelayError;
use crate::relay::postgres;
use crate::relay::postgres::Ordinary;
use crate::relay::postgres::Target;
use crate::relay::postgres::literal;
use crate::relay::postgres::quote;
use crate::relay::settings::Settings;

pub use error::Error;
pub use plan::Plan;
pub use plan::PositionPlan;
pub use plan::PublicationPlan;
pub use plan::SlotPlan;
pub use plan::Undelivered;

use look::Wanted;
use transaction::change;
use transaction::reading;

/// A plan, and the connection to the server that it is about.
#[derive(Debug)]
pub struct Teardown {
    ordinary: Ordinary,
    wanted: Wanted,
    plan: Plan,
}

impl Teardown {
    /// Reads what exists. Refuses while the slot is in use, and before anything is dropped that the role cannot drop.
    pub async fn plan(settings: &Settings, with_position: bool) -> Result<Self, Error> {
        let target = Target::resolve(&settings.postgres.url).map_err(RelayError::postgres("read the configuration"))?;
        let mut tables = Vec::new();
        for route in settings.routes()? {
            tables.extend(route.tables().iter().map(|(schema, table)| format!("{schema}.{table}")));
        }
        let wanted = Wanted {
            slot: settings.source.slot.clone(),
            publication: settings.source.publication.clone(),
            tables,
            with_position,
        };
        let name = format!("{} teardown", settings.relay.name);
        let ordinary = postgres::connect_shared(&target, &settings.postgres, &name).await;
        let ordinary = ordinary.map_err(RelayError::postgres("connect to PostgreSQL"))?;
        let plan = wanted.look(&ordinary).await?;
        Ok(Self { ordinary, wanted, plan })
    }

    /// Gives what would be dropped.
    #[must_use]
    pub const fn what(&self) -> &Plan {
        &self.plan
    }

    /// Drops it, and reports each step. Looks again first, since a person may have thought for long: refuses if that
    /// is worse than the plan.
    pub async fn apply(&self, accepts_gap: bool, report: &mut dyn FnMut(&str)) -> Result<(), Error> {
        let Self { ordinary, wanted: Wanted { slot, publication, .. }, plan } = self;
        let client = &ordinary.client;
        if let Some(what) = self.wanted.look(ordinary).await?.worse_than(plan, accepts_gap) {
            return Err(Error::Changed { what });
        }
        if plan.slot.is_some() {
            self.drop_slot(report).await?;
        }
        if plan.drops_publication() {
            let sql = format!("DROP PUBLICATION IF EXISTS {}", quote(publication));
            let dropped = change(client, &sql).await;
            dropped.map_err(|source| Error::Statement { what: format!("drop publication {publication}"), source })?;
            report(&format!("publication {publication} dropped"));
        }
        if plan.position.as_ref().is_some_and(|position| position.is_deleted) {
            position::delete(client, slot, report).await?;
        }
        Ok(())
    }

    async fn drop_slot(&self, report: &mut dyn FnMut(&str)) -> Result<(), Error> {
        let (client, slot) = (&self.ordinary.client, &self.wanted.slot);
        let source = match change(client, &format!("SELECT pg_drop_replication_slot({})", literal(slot))).await {
            Ok(()) => {
                report(&format!("slot {slot} dropped"));
                return Ok(());
            }
            Err(error) => error,
        };
        match source.state() {
            Some("55006") => {
                let holder = reading(&self.ordinary, "read the slot", look::holder(client, slot)).await?;
                let pid = holder.as_ref().map(|holder| holder.pid).or(source.slot_holder()).unwrap_or_default();
                Err(Error::held(slot, pid, holder.as_ref()))
            }
            // Somebody was faster.
            Some("42704") => {
                report(&format!("slot {slot} does not exist any more"));
                Ok(())
            }
            _ => Err(Error::Statement { what: format!("drop slot {slot}"), source }),
        }
    }
}
