//! The publication: `setup` makes it of the outbox tables, and others may have added theirs.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::relay::error::Error as RelayError;

use super::error::Error;
use super::plan::PublicationPlan;

/// The first version that publishes all tables in a schema.
const HAS_SCHEMAS: i32 = 150_000;

/// Reads a publication, if it exists. Refuses one of another owner, if it is to be dropped.
pub(super) async fn read(
    client: &Client,
    publication: &str,
    tables: &Vec<String>,
) -> Result<Option<PublicationPlan>, Error> {
    let failed = RelayError::postgres::<tokio_postgres::Error>("read the publication");
    let version = client.query_typed_one("SELECT current_setting('server_version_num')::int", &[]).await;
    let version: i32 = version.and_then(|row| row.try_get(0)).map_err(&failed)?;
    let values: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
        [(&publication, Type::TEXT), (tables, Type::TEXT_ARRAY)];
    let row = client.query_typed_opt(&statement(version), &values).await.map_err(&failed)?;
    let Some(row) = row else { return Ok(None) };
    let found = PublicationPlan { tables: row.try_get(3).map_err(&failed)?, others: row.try_get(4).map_err(&failed)? };
    if found.others.is_empty() && !row.try_get::<_, bool>(0).map_err(&failed)? {
        let (role, owner) = (row.try_get(1).map_err(&failed)?, row.try_get(2).map_err(&failed)?);
        return Err(Error::NotOwner { role, publication: publication.to_owned(), owner });
    }
    Ok(Some(found))
}

fn statement(version: i32) -> String {
    let by_schema = if version >= HAS_SCHEMAS {
        "UNION ALL SELECT 'all tables in schema ' || n.nspname
         FROM pg_publication_namespace AS s JOIN pg_namespace AS n ON n.oid = s.pnnspid WHERE s.pnpubid = p.oid"
    } else {
        ""
    };
    format!(
        "SELECT pg_has_role(p.pubowner, 'USAGE'), current_user::text, pg_get_userbyid(p.pubowner)::text,
                ARRAY (SELECT t.schemaname || '.' || t.tablename FROM pg_publication_tables AS t
                       WHERE t.pubname = p.pubname ORDER BY 1),
                ARRAY (SELECT 'all tables' WHERE p.puballtables
                       UNION ALL SELECT 'table ' || n.nspname || '.' || c.relname
                       FROM pg_publication_rel AS r JOIN pg_class AS c ON c.oid = r.prrelid
                            JOIN pg_namespace AS n ON n.oid = c.relnamespace
                       WHERE r.prpubid = p.oid AND NOT (n.nspname || '.' || c.relname) = ANY ($2)
                       {by_schema} ORDER BY 1)
         FROM pg_publication AS p WHERE p.pubname = $1"
    )
}
