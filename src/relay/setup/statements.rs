//! The statements that setup prints and runs. Each does nothing where it has been run.

use crate::relay::postgres::dollar_quote;
use crate::relay::postgres::literal;
use crate::relay::postgres::quote;
use crate::relay::postgres::quote_table;
use crate::relay::record::route::Preset;
use crate::relay::record::route::Route;
use crate::relay::record::row::Role;
use crate::relay::settings::Failover;

/// The SQL of the outbox table of the walrelay preset.
pub const OUTBOX_SQL: &str = include_str!("../../../sql/outbox.sql");
/// The SQL of the outbox table of the debezium preset.
const DEBEZIUM_SQL: &str = include_str!("../../../sql/outbox_debezium.sql");
/// The SQL of the table of stored positions.
pub const POSITION_SQL: &str = include_str!("../../../sql/position.sql");

/// The statement that creates an outbox table, with the names of the configuration.
pub(super) fn outbox_table(route: &Route) -> String {
    let preset = route.preset();
    let (sql, table) = match preset {
        Preset::Walrelay => (OUTBOX_SQL, "public.outbox_events"),
        Preset::Debezium => (DEBEZIUM_SQL, "public.outbox"),
    };
    let line = |line: &str| match created_role(preset, line) {
        Some(role) if preset.column(role) != route.column(role) => {
            line.replacen(preset.column(role), &quote(route.column(role)), 1)
        }
        Some(_) | None => line.to_owned(),
    };
    let lines: Vec<String> = sql.lines().map(line).collect();
    lines.join("\n").replace(table, &quote_table(route.table())) + "\n"
}

/// Finds the role of the column that a line of the preset's table defines.
fn created_role(preset: Preset, line: &str) -> Option<Role> {
    let name = line.split_whitespace().next()?;
    Role::ALL.into_iter().find(|role| preset.column(*role) == name)
}

/// Says whether the preset's table has a column for the role.
pub(super) fn creates(preset: Preset, role: Role) -> bool {
    let sql = match preset {
        Preset::Walrelay => OUTBOX_SQL,
        Preset::Debezium => DEBEZIUM_SQL,
    };
    sql.lines().any(|line| created_role(preset, line) == Some(role))
}

/// Runs a statement unless this query has a row.
pub(super) fn unless(exists: &str, statement: &str) -> String {
    let body = format!(" BEGIN\n    IF NOT EXISTS ({exists}) THEN\n        {statement};\n    END IF;\nEND ");
    format!("DO {};", dollar_quote(&body))
}

/// The statement that creates the slot as `apply` does, if the publication exists: a client may go on after an error.
/// Of a server of unknown version it asks the version itself.
pub(super) fn create_slot(slot: &str, publication: &str, failover: Failover, version: Option<u32>) -> String {
    let (slot, published) = (literal(slot), published(publication));
    let create = |more: &str| format!("pg_catalog.pg_create_logical_replication_slot({slot}, 'pgoutput'{more})");
    let exists = format!("SELECT FROM pg_catalog.pg_replication_slots WHERE slot_name = {slot}");
    let (plain, with_failover) = (create(""), create(", failover => true"));
    let created = match (failover, version) {
        (Failover::Off, _) | (Failover::Auto, Some(..FAILOVER_SLOTS)) => plain,
        (Failover::On, _) | (Failover::Auto, Some(FAILOVER_SLOTS..)) => with_failover,
        (Failover::Auto, None) => {
            let either = format!(
                "IF current_setting('server_version_num')::int >= {FAILOVER_SLOTS} THEN\n            PERFORM \
                 {with_failover};\n        ELSE\n            PERFORM {plain};\n        END IF"
            );
            return unless(&format!("{exists})\n       AND EXISTS ({published}"), &either);
        }
    };
    format!("SELECT {created}\n    WHERE NOT EXISTS ({exists})\n    AND EXISTS ({published});")
}

fn published(publication: &str) -> String {
    format!("SELECT FROM pg_catalog.pg_publication WHERE pubname = {}", literal(publication))
}

/// The first version with failover slots.
pub(super) const FAILOVER_SLOTS: u32 = 170_000;

/// The statement that creates the publication, as apply runs it.
pub(super) fn create_publication(name: &str, routes: &[Route]) -> String {
    let tables = routes.iter().map(|route| quote_table(route.table()));
    format!(
        "CREATE PUBLICATION {} FOR TABLE {}\n    WITH (publish = 'insert', publish_via_partition_root = true)",
        quote(name),
        tables.collect::<Vec<_>>().join(", ")
    )
}

/// The same, which does nothing if there is one of this name.
pub(super) fn create_publication_once(name: &str, routes: &[Route]) -> String {
    unless(&published(name), &create_publication(name, routes).replace("\n    ", "\n            "))
}

/// The statement that adds a table to the publication, as apply runs it.
pub(super) fn publish_table(name: &str, table: (&str, &str)) -> String {
    format!("ALTER PUBLICATION {} ADD TABLE {}", quote(name), quote_table(table))
}

/// The same, which does nothing if the table is published.
pub(super) fn publish_table_once(name: &str, (schema, table): (&str, &str)) -> String {
    let exists = format!(
        "SELECT FROM pg_catalog.pg_publication_tables WHERE pubname = {} AND schemaname = {} AND tablename = {}",
        literal(name),
        literal(schema),
        literal(table)
    );
    unless(&exists, &publish_table(name, (schema, table)))
}

/// The statement that stores the position of the slot, if none is stored and the publication exists.
pub(super) fn store_position(slot: &str, publication: &str) -> String {
    format!(
        "INSERT INTO walrelay.position (slot, system_id, timeline, consistent_point, position, released_at)\n    \
         SELECT s.slot_name, c.system_identifier::text, p.timeline_id, s.confirmed_flush_lsn, s.confirmed_flush_lsn, \
         now()\n    FROM pg_catalog.pg_replication_slots s, pg_catalog.pg_control_system() c, \
         pg_catalog.pg_control_checkpoint() p\n    WHERE s.slot_name = {}\n    AND EXISTS ({})\n    ON \
         CONFLICT (slot) DO NOTHING;",
        literal(slot),
        published(publication)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::record::route::ColumnNames;
    use crate::relay::record::route::Config;

    #[test]
    fn the_printed_statement_creates_the_same_slot_as_apply() {
        for (failover, version, expected) in [
            (Failover::Off, Some(180_000), false),
            (Failover::Auto, Some(160_003), false),
            (Failover::Auto, Some(170_000), true),
            (Failover::On, None, true),
        ] {
            let sql = create_slot("s", "p", failover, version);
            assert!(sql.starts_with("SELECT pg_catalog.pg_create_logical_replication_slot('s', 'pgoutput'"), "{sql}");
            assert_eq!(sql.contains("failover => true"), expected, "{sql}");
            assert!(sql.contains("AND EXISTS (SELECT FROM pg_catalog.pg_publication WHERE pubname = 'p')"), "{sql}");
        }
        let auto = create_slot("s", "p", Failover::Auto, None);
        assert!(auto.contains(">= 170000") && auto.contains("failover => true"), "{auto}");
        assert!(auto.contains("AND EXISTS (SELECT FROM pg_catalog.pg_publication WHERE pubname = 'p')"), "{auto}");
    }

    #[test]
    fn a_guarded_statement_ends_where_it_should_whatever_the_names_contain() {
        let config = Config { table: "a.$walrelay$".to_owned(), ..Config::default() };
        let sql = create_publication_once("it's", &[Route::new(&config).unwrap()]);
        assert!(sql.starts_with("DO $walrelay1$ BEGIN") && sql.ends_with("END $walrelay1$;"), "{sql}");
        assert!(sql.contains("pubname = 'it''s'") && sql.contains("CREATE PUBLICATION \"it's\""), "{sql}");
    }

    #[test]
    fn the_table_of_the_preset_debezium_has_its_columns_by_the_names_of_the_configuration() {
        let mut config = Config { table: "a.outbox".to_owned(), preset: Preset::Debezium, ..Config::default() };
        let sql = outbox_table(&Route::new(&config).unwrap());
        assert!(sql.contains("CREATE TABLE IF NOT EXISTS \"a\".\"outbox\" (\n    id  "), "{sql}");
        assert!(sql.contains("    type           varchar(255) NOT NULL"), "{sql}");
        config.columns.aggregate_type = Some(ColumnNames::One("kind".to_owned()));
        let sql = outbox_table(&Route::new(&config).unwrap());
        assert!(sql.contains("    \"kind\"  varchar(255)") && !sql.contains("aggregatetype"), "{sql}");
    }

    #[test]
    fn a_created_table_has_the_names_of_the_configuration() {
        let mut config = Config { table: "shop.events".to_owned(), ..Config::default() };
        config.columns.id = Some(ColumnNames::One("event_id".to_owned()));
        config.columns.payload = Some(ColumnNames::Any(vec!["body".to_owned(), "payload".to_owned()]));
        let sql = outbox_table(&Route::new(&config).unwrap());
        assert!(sql.contains("\"shop\".\"events\" (\n    \"event_id\"  "), "{sql}");
        assert!(sql.contains("    \"body\"        jsonb,") && sql.contains("    aggregate_id   text"), "{sql}");
        assert_eq!(sql.matches("NOT NULL").count(), OUTBOX_SQL.matches("NOT NULL").count(), "{sql}");
    }
}
