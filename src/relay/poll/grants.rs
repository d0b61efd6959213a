//! The privileges that polling needs, as statements.

use crate::relay::catalog::quote;
use crate::relay::postgres::literal;

use super::outbox::Outbox;
use super::sql::TableColumns;

/// The privileges that polling needs on a table.
pub(in crate::relay) fn grants(outbox: &Outbox, role: &str) -> String {
    let (schema, _) = outbox.route.table();
    format!(
        "GRANT USAGE ON SCHEMA {} TO {role}; GRANT SELECT, UPDATE ({}) ON {} TO {role}",
        quote(schema),
        quote(&outbox.names.published_at),
        outbox.names.table,
        role = quote(role),
    )
}

/// The privilege to read the last value of a sequence.
pub(in crate::relay) fn grant_on_sequence(sequence: &str, role: &str) -> String {
    format!("GRANT SELECT ON SEQUENCE {sequence} TO {}", quote(role))
}

/// The same for every sequence of the column `sequence`.
pub(in crate::relay) fn grants_on_sequences(outbox: &Outbox, role: &str) -> String {
    let TableColumns { table, sequence, .. } = &outbox.names;
    format!(
        "DO $walrelay$ DECLARE drawn regclass; BEGIN\n    FOR drawn IN SELECT s.oid FROM pg_catalog.pg_class s WHERE \
         s.relkind = 'S' AND (s.oid = pg_catalog.pg_get_serial_sequence({table}, {column})::regclass\n        OR s.oid \
         IN (SELECT d.refobjid FROM pg_catalog.pg_attrdef f JOIN pg_catalog.pg_depend d ON d.classid = \
         'pg_catalog.pg_attrdef'::regclass AND d.objid = f.oid\n                     JOIN pg_catalog.pg_attribute a ON \
         a.attrelid = f.adrelid AND a.attnum = f.adnum\n                     WHERE f.adrelid = {table}::regclass AND \
         a.attname = {column}))\n    LOOP EXECUTE pg_catalog.format('GRANT SELECT ON SEQUENCE %s TO %I', drawn, \
         {role}); END LOOP;\nEND $walrelay$",
        table = literal(table),
        column = literal(sequence),
        role = literal(role),
    )
}
