//! The statements that setup prints and runs.

use crate::relay::postgres::quote;
use crate::relay::postgres::quote_table;
use crate::relay::record::route::Route;
use crate::relay::settings::Failover;

/// The SQL of the outbox table of the walrelay preset.
pub const OUTBOX_SQL: &str = include_str!("../../../sql/outbox.sql");
/// The SQL of the table of stored positions.
pub const POSITION_SQL: &str = include_str!("../../../sql/position.sql");

/// The statement that creates an outbox table.
pub(super) fn outbox_table(route: &Route) -> String {
    OUTBOX_SQL.replace("public.outbox_events", &quote_table(route.table()))
}

/// The statement that creates the slot as `apply` does. With `auto` the statement checks the server's version itself.
pub(super) fn create_slot(slot: &str, failover: Failover) -> String {
    let make = |more: &str| format!("pg_catalog.pg_create_logical_replication_slot({slot}, 'pgoutput'{more})");
    let (plain, with_failover) = (make(""), make(", failover => true"));
    let statement = match failover {
        Failover::Off => format!("SELECT {plain};"),
        Failover::On => format!("SELECT {with_failover};"),
        Failover::Auto => format!(
            "DO $$ BEGIN\n    IF current_setting('server_version_num')::int >= 170000 THEN PERFORM \
             {with_failover};\n    ELSE PERFORM {plain};\n    END IF;\nEND $$;"
        ),
    };
    format!("-- Waits for running transactions.\n{statement}\n")
}

pub(super) fn create_publication(name: &str, routes: &[Route]) -> String {
    let tables = routes.iter().map(|route| quote_table(route.table()));
    format!(
        "CREATE PUBLICATION {} FOR TABLE {}\n    WITH (publish = 'insert', publish_via_partition_root = true)",
        quote(name),
        tables.collect::<Vec<_>>().join(", ")
    )
}

pub(super) fn grants(role: &str, store_position: bool) -> String {
    let role = quote(role);
    let mut sql = format!(
        "-- REPLICATION can read the whole cluster: use this role only for walrelay.\nALTER ROLE {role} WITH LOGIN \
         REPLICATION;\n"
    );
    if store_position {
        sql.push_str(&format!(
            "GRANT USAGE ON SCHEMA walrelay TO {role};\nGRANT SELECT, INSERT, UPDATE ON walrelay.position TO {role};\n"
        ));
    }
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_statement_creates_the_same_slot_as_apply() {
        assert!(!create_slot("'s'", Failover::Off).contains("failover"));
        assert!(
            create_slot("'s'", Failover::On)
                .contains("SELECT pg_catalog.pg_create_logical_replication_slot('s', 'pgoutput', failover => true);")
        );
        let auto = create_slot("'s'", Failover::Auto);
        assert!(auto.contains(">= 170000") && auto.contains("failover => true"), "{auto}");
    }
}
