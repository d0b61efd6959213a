//! What the catalogue must say before the relay follows the log: publication, tables, slot.
//!
//! The stream does not tell when the contract is broken (a table left out of the publication is silence), so it is read
//! here, on an ordinary connection. Nothing is created and nothing is changed.

use tokio_postgres::Client;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::fault::Code;
use crate::fault::Diagnose;
use crate::fault::Exit;
use crate::fault::Fate;
use crate::lsn::Lsn;
use crate::relay::route::Route;
use crate::relay::row::Kind;
use crate::relay::row::Role;
use crate::relay::wal;

/// What the relay needs to know of a source whose contract holds.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// What the slot has confirmed.
    pub slot_confirmed: Lsn,
    /// A payload is `bytea`, whose text form is twice as long: ask for the binary form.
    pub wants_binary: bool,
}

/// The contract does not hold.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The catalogue cannot be read.
    #[error("read the catalogue")]
    Query(#[source] wal::Error),
    /// There is no such slot.
    #[error("replication slot {slot:?} does not exist")]
    SlotMissing {
        /// Its name.
        slot: String,
    },
    /// The server has removed log that the slot still needed.
    #[error("replication slot {slot:?} is lost: the server removed log that it still needed ({reason})")]
    SlotLost {
        /// Its name.
        slot: String,
        /// Why, if the server says.
        reason: String,
    },
    /// The slot is not one that this relay can use.
    #[error("replication slot {slot:?} {what}")]
    SlotUnusable {
        /// Its name.
        slot: String,
        /// How it differs.
        what: String,
    },
    /// There is no such publication.
    #[error("publication {publication:?} does not exist")]
    PublicationMissing {
        /// Its name.
        publication: String,
    },
    /// The publication is not made for an outbox.
    #[error("publication {publication:?} {what}")]
    PublicationUnfit {
        /// Its name.
        publication: String,
        /// How it differs.
        what: String,
        /// The statement that mends it.
        remedy: String,
    },
    /// A table is missing, or lacks a column.
    #[error("table {table} {what}")]
    Table {
        /// Its name.
        table: String,
        /// How it differs.
        what: String,
    },
}

impl Diagnose for Error {
    fn code(&self) -> Code {
        match self {
            Self::Query(error) => error.code(),
            Self::SlotMissing { .. } => Code::new(Exit::PositionLost, 1),
            Self::SlotLost { .. } => Code::new(Exit::PositionLost, 2),
            Self::SlotUnusable { .. } => Code::new(Exit::Contract, 1),
            Self::PublicationMissing { .. } => Code::new(Exit::Contract, 2),
            Self::PublicationUnfit { .. } => Code::new(Exit::Contract, 3),
            Self::Table { .. } => Code::new(Exit::Contract, 4),
        }
    }

    fn fate(&self) -> Fate {
        match self {
            Self::Query(error) => error.fate(),
            Self::SlotMissing { .. }
            | Self::SlotLost { .. }
            | Self::SlotUnusable { .. }
            | Self::PublicationMissing { .. }
            | Self::PublicationUnfit { .. }
            | Self::Table { .. } => Fate::Fatal,
        }
    }

    fn help(&self) -> Option<String> {
        Some(match self {
            Self::Query(error) => return error.help(),
            Self::SlotMissing { .. } => {
                "on a new installation run `walrelay setup --apply`; where the slot existed before, the log since then is \
                 gone and events may be missing in Kafka: compare the outbox table before you make a new slot with \
                 `walrelay setup --apply --accept-gap`"
                    .to_owned()
            }
            Self::SlotLost { slot, .. } => format!(
                "events may be missing in Kafka: compare the outbox table, drop the slot with `SELECT \
                 pg_drop_replication_slot('{slot}')`, raise max_slot_wal_keep_size, then run `walrelay setup --apply \
                 --accept-gap`"
            ),
            Self::SlotUnusable { slot, .. } => format!(
                "name another slot with source.slot, or drop this one if nobody needs it with `SELECT \
                 pg_drop_replication_slot('{slot}')`; then run `walrelay setup --apply`"
            ),
            Self::PublicationMissing { .. } => {
                "run `walrelay setup --apply`; events of transactions before that are not in the log for us".to_owned()
            }
            Self::PublicationUnfit { remedy, .. } => format!("run `{remedy}`"),
            Self::Table { .. } => {
                "create it (`walrelay setup --with-outbox` prints the SQL), or mend [[outbox]]".to_owned()
            }
        })
    }
}

/// Checks everything, in the order in which it is set up.
pub async fn verify(client: &Client, slot: &str, publication: &str, routes: &[Route]) -> Result<Facts, Error> {
    let version = version(client).await?;
    let mut wants_binary = false;
    for route in routes {
        wants_binary |= columns(client, route).await?;
    }
    check_publication(client, publication, version, routes).await?;
    Ok(Facts { slot_confirmed: check_slot(client, slot, version).await?, wants_binary })
}

/// Reads the server's version, as `server_version_num`.
pub async fn version(client: &Client) -> Result<u32, Error> {
    let row = one(client, "SELECT current_setting('server_version_num')::bigint", &[]).await?;
    Ok(u32_of(get(&row, 0)?))
}

/// Looks at a slot: none if there is no such slot, else what it has confirmed.
pub async fn slot_position(client: &Client, slot: &str, version: u32) -> Result<Option<Lsn>, Error> {
    match check_slot(client, slot, version).await {
        Ok(position) => Ok(Some(position)),
        Err(Error::SlotMissing { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Says whether a publication exists.
pub async fn has_publication(client: &Client, publication: &str) -> Result<bool, Error> {
    let sql = "SELECT count(*) FROM pg_publication WHERE pubname = $1";
    Ok(get::<i64>(&one(client, sql, &[&publication]).await?, 0)? > 0)
}

/// Says whether a publication has a table.
pub async fn publishes(client: &Client, publication: &str, (schema, table): (&str, &str)) -> Result<bool, Error> {
    let sql = "SELECT count(*) FROM pg_publication_tables WHERE pubname = $1 AND schemaname = $2 AND tablename = $3";
    Ok(get::<i64>(&one(client, sql, &[&publication, &schema, &table]).await?, 0)? > 0)
}

/// Checks the columns of a table. Says whether its payload wants the binary form.
pub async fn columns(client: &Client, route: &Route) -> Result<bool, Error> {
    let (schema, name) = route.table();
    let table = format!("{schema}.{name}");
    // A domain counts as the type it rests on, at the bottom of however many.
    let sql = "SELECT a.attname::text,
                      (WITH RECURSIVE base (id, below) AS (
                           SELECT t.oid, CASE WHEN t.typtype = 'd' THEN t.typbasetype END
                           UNION ALL SELECT b.oid, CASE WHEN b.typtype = 'd' THEN b.typbasetype END
                           FROM base JOIN pg_type b ON b.oid = base.below)
                       SELECT id FROM base WHERE below IS NULL)::bigint,
                      format_type(a.atttypid, a.atttypmod)
               FROM pg_class c
               JOIN pg_namespace n ON n.oid = c.relnamespace
               JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
               JOIN pg_type t ON t.oid = a.atttypid
               WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')";
    // Without a name, for a pooler may give the next statement another session.
    let rows = client.query_typed(sql, &[(&schema, Type::TEXT), (&name, Type::TEXT)]).await.map_err(query)?;
    if rows.is_empty() {
        return Err(Error::Table { table, what: "does not exist, or is not visible".to_owned() });
    }
    let mut wants_binary = false;
    for (role, wanted) in Role::ALL.into_iter().zip(&route.names().0) {
        let Some(wanted) = wanted else { continue };
        let mut found = None;
        for row in &rows {
            if get::<String>(row, 0)? == wanted.column {
                found = Some((u32_of(get(row, 1)?), get::<String>(row, 2)?));
            }
        }
        let Some((type_id, type_name)) = found else {
            if wanted.required {
                let what = format!("has no column {:?}, which is mapped as {}", wanted.column, role.name());
                return Err(Error::Table { table, what });
            }
            continue;
        };
        let kind = Kind::of(type_id).filter(|kind| role.accepts(*kind));
        let Some(kind) = kind else {
            let what =
                format!("has a column {:?} of type {type_name}, which cannot be the {}", wanted.column, role.name());
            return Err(Error::Table { table, what });
        };
        wants_binary |= role == Role::Payload && kind == Kind::Bytea;
    }
    Ok(wants_binary)
}

async fn check_publication(client: &Client, name: &str, version: u32, routes: &[Route]) -> Result<(), Error> {
    let sql =
        "SELECT pubinsert, pubupdate OR pubdelete OR pubtruncate, pubviaroot FROM pg_publication WHERE pubname = $1";
    let Some(row) = client.query_opt(sql, &[&name]).await.map_err(query)? else {
        return Err(Error::PublicationMissing { publication: name.to_owned() });
    };
    let unfit = |what: &str, remedy: String| Error::PublicationUnfit {
        publication: name.to_owned(),
        what: what.to_owned(),
        remedy,
    };
    let quoted = quote(name);
    if !get::<bool>(&row, 0)? || get::<bool>(&row, 1)? {
        let what = "publishes more or less than inserts; updates and deletes in it break the application's own";
        return Err(unfit(what, format!("ALTER PUBLICATION {quoted} SET (publish = 'insert')")));
    }
    if !get::<bool>(&row, 2)? {
        let what = "does not publish partitions under their root";
        return Err(unfit(what, format!("ALTER PUBLICATION {quoted} SET (publish_via_partition_root = true)")));
    }
    for route in routes {
        let (schema, table) = route.table();
        let filtered = if version >= 150_000 { "rowfilter IS NOT NULL" } else { "false" };
        let sql = format!(
            "SELECT {filtered} FROM pg_publication_tables WHERE pubname = $1 AND schemaname = $2 AND tablename = $3"
        );
        let row = client.query_opt(&sql, &[&name, &schema, &table]).await.map_err(query)?;
        let full = quote_table((schema, table));
        let Some(row) = row else {
            return Err(unfit(
                &format!("does not contain table {schema}.{table}"),
                format!("ALTER PUBLICATION {quoted} ADD TABLE {full}"),
            ));
        };
        if get::<bool>(&row, 0)? {
            return Err(unfit(
                &format!("has a row filter on table {schema}.{table}, so events would be left out"),
                // Not SET TABLE, which would take all other tables out; and in one transaction, or what is committed in between is
                // never published.
                format!(
                    "BEGIN; ALTER PUBLICATION {quoted} DROP TABLE {full}; ALTER PUBLICATION {quoted} ADD TABLE {full}; COMMIT"
                ),
            ));
        }
    }
    Ok(())
}

async fn check_slot(client: &Client, slot: &str, version: u32) -> Result<Lsn, Error> {
    let reason = if version >= 170_000 { "coalesce(invalidation_reason, 'no reason given')" } else { "'wal_removed'" };
    let sql = format!(
        "SELECT slot_type, coalesce(plugin::text, ''), coalesce(database::text, ''), current_database()::text, temporary,
                coalesce(wal_status, ''), confirmed_flush_lsn::text, {reason}
         FROM pg_replication_slots WHERE slot_name = $1"
    );
    let Some(row) = client.query_opt(&sql, &[&slot]).await.map_err(query)? else {
        return Err(Error::SlotMissing { slot: slot.to_owned() });
    };
    let unusable = |what: String| Error::SlotUnusable { slot: slot.to_owned(), what };
    let text = |column| get::<String>(&row, column);
    if text(0)? != "logical" {
        return Err(unusable("is a physical slot, not a logical one".to_owned()));
    }
    if text(1)? != "pgoutput" {
        return Err(unusable(format!("decodes with plugin {:?}, not pgoutput", text(1)?)));
    }
    if text(2)? != text(3)? {
        return Err(unusable(format!("belongs to database {:?}, not to {:?}", text(2)?, text(3)?)));
    }
    if get::<bool>(&row, 4)? {
        return Err(unusable("is temporary".to_owned()));
    }
    if text(5)? == "lost" {
        return Err(Error::SlotLost { slot: slot.to_owned(), reason: text(7)? });
    }
    match get::<Option<String>>(&row, 6)? {
        Some(position) => Ok(lsn(&position)),
        None => Err(unusable("has no confirmed position".to_owned())),
    }
}

/// Quotes a table's name, with its schema.
#[must_use]
pub fn quote_table((schema, table): (&str, &str)) -> String {
    format!("{}.{}", quote(schema), quote(table))
}

/// Quotes an identifier.
#[must_use]
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

async fn one(client: &Client, sql: &str, values: &[&(dyn tokio_postgres::types::ToSql + Sync)]) -> Result<Row, Error> {
    client.query_one(sql, values).await.map_err(query)
}

fn get<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, Error> {
    row.try_get(column).map_err(query)
}

fn query(error: tokio_postgres::Error) -> Error {
    Error::Query(wal::Error::from(error))
}

fn u32_of(value: i64) -> u32 {
    u32::try_from(value).unwrap_or_default()
}

fn lsn(text: &str) -> Lsn {
    text.parse().unwrap_or(Lsn::ZERO)
}
