//! What setup asks of the server: its settings, the rights of the role of this connection, and who owns what.

use tokio_postgres::Client;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::relay::error::Error as RelayError;
use crate::relay::postgres;
use crate::relay::record::route::Route;

use super::difference::Runner;
use super::error::Error;

const ACTION: &str = "read the state of the server";

/// What one query reads of the server and of the role of this connection.
pub(super) struct Server {
    pub(super) version: u32,
    pub(super) role: String,
    pub(super) is_superuser: bool,
    pub(super) can_replicate: bool,
    pub(super) can_create: bool,
    pub(super) wal_level: String,
    pub(super) has_position_table: bool,
    pub(super) is_position_table_complete: bool,
    pub(super) can_read_position: bool,
    /// Or will, once it has created the table.
    pub(super) owns_position: bool,
}

impl Server {
    pub(super) async fn read(client: &Client) -> Result<Self, Error> {
        let sql = "SELECT current_setting('server_version_num')::bigint, current_user::text, r.rolsuper,
                          r.rolsuper OR r.rolreplication OR EXISTS (
                              SELECT FROM pg_roles m WHERE m.rolname = 'rds_replication'
                              AND pg_has_role(r.oid, m.oid, 'MEMBER')),
                          has_database_privilege(current_database(), 'CREATE'), current_setting('wal_level'),
                          c.oid IS NOT NULL,
                          (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = c.oid AND NOT a.attisdropped
                                  AND a.attname IN ('released_at', 'catalog_state')) = 2,
                          coalesce(has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'),
                                   false),
                          coalesce(pg_has_role(c.relowner, 'USAGE'),
                                   has_database_privilege(current_database(), 'CREATE'))
                   FROM pg_roles r
                   LEFT JOIN pg_namespace n ON n.nspname = 'walrelay'
                   LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = 'position'
                   WHERE r.rolname = current_user";
        let failed = RelayError::postgres(ACTION);
        let row = client.query_typed_one(sql, &[]).await.map_err(&failed)?;
        Ok(Self::of(&row).map_err(failed)?)
    }

    fn of(row: &Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            version: u32::try_from(row.try_get::<_, i64>(0)?).unwrap_or_default(),
            role: row.try_get(1)?,
            is_superuser: row.try_get(2)?,
            can_replicate: row.try_get(3)?,
            can_create: row.try_get(4)?,
            wal_level: row.try_get(5)?,
            has_position_table: row.try_get(6)?,
            is_position_table_complete: row.try_get(7)?,
            can_read_position: row.try_get(8)?,
            owns_position: row.try_get(9)?,
        })
    }
}

/// Gives the owner of a table; none if there is no such table.
pub(super) async fn owner_of_table(client: &Client, route: &Route) -> Result<Option<Runner>, Error> {
    let (schema, name) = route.table();
    let sql = "SELECT pg_get_userbyid(c.relowner)::text, pg_has_role(c.relowner, 'USAGE')
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')";
    let row = client.query_typed_opt(sql, &[(&schema, Type::TEXT), (&name, Type::TEXT)]).await;
    let of = format!("the owner of table {schema}.{name}");
    owner(row, &of)
}

pub(super) async fn owner_of_publication(client: &Client, name: &str) -> Result<Option<Runner>, Error> {
    let sql = "SELECT pg_get_userbyid(pubowner)::text, pg_has_role(pubowner, 'USAGE') FROM pg_publication
               WHERE pubname = $1";
    owner(client.query_typed_opt(sql, &[(&name, Type::TEXT)]).await, &format!("the owner of publication {name}"))
}

fn owner(row: Result<Option<Row>, tokio_postgres::Error>, of: &str) -> Result<Option<Runner>, Error> {
    let failed = |error: tokio_postgres::Error| Error::Statement {
        what: "read the owners".to_owned(),
        source: postgres::Error::from(error),
    };
    let Some(row) = row.map_err(failed)? else { return Ok(None) };
    let name: String = row.try_get(0).map_err(failed)?;
    Ok(Some(Runner { who: format!("{name}, {of}"), is_current: Some(row.try_get(1).map_err(failed)?) }))
}

/// Says whether this role can create a table in a schema; none if there is no such schema.
pub(super) async fn can_create_in(client: &Client, schema: &str) -> Result<Option<bool>, Error> {
    let sql = "SELECT has_schema_privilege(oid, 'CREATE') FROM pg_namespace WHERE nspname = $1";
    let failed = RelayError::postgres(ACTION);
    let row = client.query_typed_opt(sql, &[(&schema, Type::TEXT)]).await.map_err(&failed)?;
    Ok(row.map(|row| row.try_get(0)).transpose().map_err(failed)?)
}
