//! The stored position: one row of a table that relays on other slots of this database may use as well.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::relay::error::Error as RelayError;
use crate::relay::postgres;
use crate::relay::postgres::literal;

use super::error::Error;
use super::transaction::change;

/// Deletes the table, unless it has rows of other slots.
const DROP_TABLE: &str = "LOCK TABLE walrelay.position IN ACCESS EXCLUSIVE MODE;
    DO $$ BEGIN
        IF NOT EXISTS (SELECT FROM walrelay.position) THEN DROP TABLE walrelay.position; END IF;
    END $$";

/// Reads the position of a slot, if there is one. If it is to be deleted, a privilege that is missing is an error;
/// otherwise a position that the role may not see is not named.
pub(super) async fn read(client: &Client, slot: &str, with_position: bool) -> Result<Option<String>, Error> {
    let failed = RelayError::postgres::<tokio_postgres::Error>("read the stored position");
    let sql = "SELECT has_schema_privilege(n.oid, 'USAGE'), has_table_privilege(c.oid, 'SELECT'),
                      has_table_privilege(c.oid, 'DELETE'), current_user::text
               FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
               WHERE n.nspname = 'walrelay' AND c.relname = 'position'";
    let Some(row) = client.query_typed_opt(sql, &[]).await.map_err(&failed)? else { return Ok(None) };
    let mut may = [false; 3];
    for (column, may) in may.iter_mut().enumerate() {
        *may = row.try_get(column).map_err(&failed)?;
    }
    let [may_use, may_select, may_delete] = may;
    let role: String = row.try_get(3).map_err(&failed)?;
    let missing = match (may_use, may_select, may_delete) {
        (false, ..) => Some("USAGE ON SCHEMA walrelay"),
        (_, false, _) => Some("SELECT, DELETE ON walrelay.position"),
        (.., false) => Some("DELETE ON walrelay.position"),
        _ => None,
    };
    if let Some(missing) = missing.filter(|_| with_position) {
        return Err(Error::NoRight { role, missing });
    }
    if !(may_use && may_select) {
        return Ok(None);
    }
    let sql = "SELECT position::text FROM walrelay.position WHERE slot = $1::text::name";
    let row = client.query_typed_opt(sql, &[(&slot, Type::TEXT)]).await.map_err(&failed)?;
    row.map(|row| row.try_get(0)).transpose().map_err(|error| failed(error).into())
}

/// Deletes the position of a slot, then the table and its schema if nothing else is in them.
pub(super) async fn delete(client: &Client, slot: &str, report: &mut dyn FnMut(&str)) -> Result<(), Error> {
    let sql = format!("DELETE FROM walrelay.position WHERE slot = {}", literal(slot));
    let what = || format!("delete the stored position of slot {slot}");
    match change(client, &sql).await {
        Ok(()) => report(&format!("stored position of slot {slot} deleted")),
        Err(error) if is_missing(&error) => return Ok(()),
        Err(source) => return Err(Error::Statement { what: what(), source }),
    }
    match change(client, DROP_TABLE).await {
        Ok(()) => {}
        Err(error) if is_missing(&error) => {}
        Err(error) if error.is_denied() => {
            report("schema walrelay kept: only its owner can drop it");
            return Ok(());
        }
        Err(source) => return Err(Error::Statement { what: "drop table walrelay.position".to_owned(), source }),
    }
    match change(client, "DROP SCHEMA IF EXISTS walrelay").await {
        Ok(()) => report("schema walrelay dropped"),
        // Dependent objects still exist.
        Err(error) if error.state() == Some("2BP01") => {
            report("schema walrelay kept: something else is in it, such as the position of another slot");
        }
        Err(error) if error.is_denied() => report("schema walrelay kept: only its owner can drop it"),
        Err(source) => return Err(Error::Statement { what: "drop schema walrelay".to_owned(), source }),
    }
    Ok(())
}

/// The table or its schema does not exist.
fn is_missing(error: &postgres::Error) -> bool {
    matches!(error.state(), Some("42P01" | "3F000"))
}
