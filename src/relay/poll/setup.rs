//! What must exist before an outbox is polled: two columns, an index, and rights to read and to mark.

use tokio_postgres::Client;

use crate::relay::Error as RelayError;
use crate::relay::Settings;
use crate::relay::contract::quote;
use crate::relay::setup;
use crate::relay::setup::Wish;
use crate::relay::setup::outbox_table;
use crate::relay::wal;
use crate::relay::wal::Target;

use super::Error;
use super::Outbox;
use super::outboxes;
use super::sql::Names;
use super::verify;

/// Prints what `apply` would run, as one SQL script.
pub(in crate::relay) fn script(settings: &Settings, wish: &Wish) -> Result<String, RelayError> {
    let mut parts = Vec::new();
    for outbox in outboxes(settings)? {
        if wish.with_outbox {
            parts.push(outbox_table(&outbox.route));
        }
        parts.push(format!(
            "-- The order of a key's events. It is the order of their commits as long as the application locks the key's row\n\
             -- before it inserts the event, until it commits. On a large table the first statement takes its time.\n\
             -- What is in the table now counts as unpublished: mark it first if it was published in another way.\n{}",
            columns(&outbox)
        ));
        if let Some(role) = &wish.role {
            parts.push(format!("{};\n{};\n", grants(&outbox, role), grants_on_sequences(&outbox, role)));
        }
    }
    Ok(parts.join("\n"))
}

/// Sets everything up, and tells each step.
pub(in crate::relay) async fn apply(
    settings: &Settings,
    wish: &Wish,
    tell: &mut dyn FnMut(&str),
) -> Result<(), setup::Error> {
    let target = Target::resolve(&settings.postgres.url).map_err(wal::Error::from);
    let target = target.map_err(RelayError::wal("read the configuration"))?;
    let name = format!("{} setup", settings.relay.name);
    let ordinary = wal::connect_shared(&target, &settings.postgres, &name)
        .await
        .map_err(RelayError::wal("connect to PostgreSQL"))?;
    let client = &ordinary.client;
    if let Some(role) = &wish.role {
        setup::insist_on_role(client, role).await?;
    }
    for outbox in outboxes(settings)? {
        let outbox = &verify::settle(client, &outbox).await?;
        let (schema, name) = outbox.route.table();
        if wish.with_outbox {
            run(client, format!("create table {schema}.{name}"), &outbox_table(&outbox.route)).await?;
            tell(&format!("outbox table {schema}.{name} is there"));
        }
        run(client, format!("make table {schema}.{name} fit for polling"), &columns(outbox)).await?;
        tell(&format!("outbox table {schema}.{name} can be polled"));
        if let Some(role) = &wish.role {
            run(client, format!("grant rights to {role}"), &grants(outbox, role)).await?;
            run(client, format!("grant rights to {role}"), &grants_on_sequences(outbox, role)).await?;
            tell(&format!("role {role} has what run needs on {schema}.{name}"));
        }
        begin(client).await?;
        verify::verify(client, outbox).await?;
        end(client).await?;
    }
    Ok(())
}

/// The rights that polling needs on a table.
pub(super) fn grants(outbox: &Outbox, role: &str) -> String {
    let (schema, _) = outbox.route.table();
    format!(
        "GRANT USAGE ON SCHEMA {} TO {role}; GRANT SELECT, UPDATE ({}) ON {} TO {role}",
        quote(schema),
        quote(&outbox.names.published_at),
        outbox.names.table,
        role = quote(role),
    )
}

/// The right to see how far a sequence has come.
pub(super) fn grant_on_sequence(sequence: &str, role: &str) -> String {
    format!("GRANT SELECT ON SEQUENCE {sequence} TO {}", quote(role))
}

/// The same for the sequences that the column of the order draws from, by whatever name.
fn grants_on_sequences(outbox: &Outbox, role: &str) -> String {
    let Names { table, sequence, .. } = &outbox.names;
    format!(
        "DO $walrelay$ DECLARE drawn regclass; BEGIN\n    FOR drawn IN SELECT s.oid FROM pg_catalog.pg_class s WHERE s.relkind = 'S' \
         AND (s.oid = pg_catalog.pg_get_serial_sequence({table}, {column})::regclass\n        OR s.oid IN (SELECT d.refobjid FROM \
         pg_catalog.pg_attrdef f JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.objid = f.oid\n                     \
         JOIN pg_catalog.pg_attribute a ON a.attrelid = f.adrelid AND a.attnum = f.adnum\n                     \
         WHERE f.adrelid = {table}::regclass AND a.attname = {column}))\n    \
         LOOP EXECUTE pg_catalog.format('GRANT SELECT ON SEQUENCE %s TO %I', drawn, {role}); END LOOP;\nEND $walrelay$",
        table = literal(table),
        column = literal(sequence),
        role = literal(role),
    )
}

fn columns(outbox: &Outbox) -> String {
    let (_, table) = outbox.route.table();
    let names = &outbox.names;
    let (sequence, published_at) = (quote(&names.sequence), quote(&names.published_at));
    format!(
        "ALTER TABLE {full} ADD COLUMN IF NOT EXISTS {sequence} bigint GENERATED BY DEFAULT AS IDENTITY;\n\
         ALTER TABLE {full} ADD COLUMN IF NOT EXISTS {published_at} timestamptz;\n\
         CREATE INDEX IF NOT EXISTS {index} ON {full} ({sequence}) WHERE {published_at} IS NULL;\n",
        full = names.table,
        index = quote(&format!("{table}_unpublished")),
    )
}

async fn run(client: &Client, what: String, sql: &str) -> Result<(), RelayError> {
    begin(client).await?;
    let ran = client.batch_execute(sql).await;
    ran.map_err(|error| Error::Setup { what, source: wal::Error::from(error) })?;
    end(client).await
}

/// The session may be somebody else's again after each transaction: what is set, is set for one.
async fn begin(client: &Client) -> Result<(), RelayError> {
    let begun = client.batch_execute("BEGIN; SET LOCAL search_path = pg_catalog; SET LOCAL row_security = off").await;
    begun.map_err(|error| RelayError::Wal { action: "begin a transaction", source: error.into() })
}

async fn end(client: &Client) -> Result<(), RelayError> {
    let ended = client.batch_execute("COMMIT").await;
    ended.map_err(|error| RelayError::Wal { action: "commit", source: error.into() })
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
