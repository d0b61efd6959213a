//! The watch over the catalog: nothing is confirmed before a look that came later has found the publication as it was.
//!
//! A position is known before the look begins, so a look that finds nothing changed covers it. One query looks; only when its
//! result differs is the whole contract checked. What was found is kept beside the stored position, so that a restart sees
//! what was changed meanwhile. A change whose commit waits for a synchronous standby is visible in the WAL before it is visible
//! here: it is still noticed, by a later look, and the range that is named then may begin late by that wait.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use tokio_postgres::Client;

use crate::lsn::Lsn;
use crate::relay::Error;
use crate::relay::contract;
use crate::relay::coverage::Coverage;
use crate::relay::coverage::RowVersion;
use crate::relay::coverage::Table;
use crate::relay::position;
use crate::relay::route::Route;

/// What is watched, and how it was last found.
#[derive(Clone, Debug)]
pub struct Watch {
    slot: String,
    publication: String,
    routes: Vec<Route>,
    /// Whether what is found is kept beside the position.
    is_stored: bool,
    version: u32,
    found: Coverage,
    /// What is kept beside the position is not yet what was found.
    is_news: bool,
    /// The last position that a look has covered.
    covered: Lsn,
}

/// What a look finds.
#[derive(Clone, Debug)]
pub(super) struct Look {
    /// None while the publication or a table is missing.
    pub(super) coverage: Option<Coverage>,
    /// The end of the WAL, read in the same query.
    pub(super) wal_end: Lsn,
}

impl Watch {
    /// Begins with what the catalog says now, if nothing was hidden since what was stored. The contract holds. Nothing is written.
    pub(super) async fn begin(
        client: &Client,
        slot: &str,
        publication: &str,
        routes: &[Route],
        stored: Option<Lsn>,
    ) -> Result<Self, Error> {
        let version = contract::version(client).await?;
        let look = look(client, publication, routes, version).await?;
        let earlier = if stored.is_some() { load(client, slot).await? } else { None };
        let from = stored.unwrap_or(look.wal_end);
        let Some(found) = look.coverage else { return Err(vanished(from, look.wal_end).into()) };
        if let Some(what) = earlier.as_ref().and_then(|earlier| earlier.unseen(&found)) {
            return Err(contract::Error::Unseen { what, from, to: look.wal_end }.into());
        }
        let is_news = stored.is_some() && earlier.as_ref() != Some(&found);
        let (slot, publication) = (slot.to_owned(), publication.to_owned());
        Ok(Self {
            slot,
            publication,
            routes: routes.to_vec(),
            is_stored: stored.is_some(),
            version,
            found,
            is_news,
            covered: from,
        })
    }

    /// Keeps what was found beside the position, if something else is kept there.
    pub(super) async fn keep(&mut self, client: &Client) -> Result<(), Error> {
        if std::mem::take(&mut self.is_news) {
            save(client, &self.slot, &self.found).await?;
        }
        Ok(())
    }

    /// Looks once. Whatever was known to be in the WAL before may be confirmed after.
    pub(super) async fn look(&mut self, client: &Client) -> Result<(), Error> {
        let look = look(client, &self.publication, &self.routes, self.version).await?;
        if look.coverage.as_ref() == Some(&self.found) {
            return Ok(());
        }
        if let Err(error) = contract::verify(client, &self.slot, &self.publication, &self.routes).await {
            if matches!(error, contract::Error::TableUnfit { .. }) {
                self.doubt(client, &error).await?;
            }
            return Err(error.into());
        }
        let Some(found) = look.coverage else { return Err(vanished(self.covered, look.wal_end).into()) };
        if let Some(what) = self.found.unseen(&found) {
            return Err(contract::Error::Unseen { what, from: self.covered, to: look.wal_end }.into());
        }
        if self.is_stored {
            save(client, &self.slot, &found).await?;
        }
        self.found = found;
        Ok(())
    }

    /// Notes that a position is confirmed after a look.
    pub(super) fn cover(&mut self, position: Lsn) {
        self.covered = self.covered.max(position);
    }

    /// Says whether positions are stored.
    pub(super) const fn is_stored(&self) -> bool {
        self.is_stored
    }

    /// Remembers what leaves no trace in the catalog once it is undone.
    async fn doubt(&self, client: &Client, error: &contract::Error) -> Result<(), Error> {
        if self.is_stored {
            let doubtful = Coverage { doubt: Some(error.to_string()), ..self.found.clone() };
            save(client, &self.slot, &doubtful).await?;
        }
        Ok(())
    }
}

fn vanished(from: Lsn, to: Lsn) -> contract::Error {
    contract::Error::Unseen { what: "the publication or a table of it was missing for a moment".to_owned(), from, to }
}

/// Looks at the publication and the tables.
pub(super) async fn look(
    client: &Client,
    publication: &str,
    routes: &[Route],
    version: u32,
) -> Result<Look, contract::Error> {
    // A table's own row in the publication, its schema's row with what ties the table to the schema, or all tables.
    let by_schema = if version >= 150_000 {
        "UNION ALL SELECT format('schema %s/%s/%s/%s', s.oid, s.xmin, c.oid, d.xmin)
         FROM pg_publication_namespace s, pg_depend d
         WHERE s.pnpubid = p.oid AND s.pnnspid = c.relnamespace AND d.classid = 'pg_class'::regclass AND d.objid = c.oid
               AND d.objsubid = 0 AND d.refclassid = 'pg_namespace'::regclass"
    } else {
        ""
    };
    let sql = format!(
        "SELECT w.name, p.oid::bigint, p.xmin::text, c.oid::bigint, pg_current_wal_insert_lsn()::text,
                ARRAY (SELECT format('table %s/%s', r.oid, r.xmin) FROM pg_publication_rel r
                       WHERE r.prpubid = p.oid AND r.prrelid = c.oid
                       UNION ALL SELECT 'all tables' WHERE p.puballtables
                       {by_schema}),
                c.relpersistence::text || (SELECT count(*) FROM pg_inherits i JOIN pg_class k ON k.oid = i.inhrelid
                                           WHERE i.inhparent = c.oid AND NOT k.relispartition)
                    || (SELECT count(*) FROM pg_partition_tree(c.oid) t JOIN pg_class k ON k.oid = t.relid
                        WHERE k.relpersistence <> 'p')
         FROM unnest($2::text[], $3::text[], $4::text[]) AS w (name, schema, relation)
         LEFT JOIN pg_publication p ON p.pubname = $1
         LEFT JOIN pg_namespace n ON n.nspname = w.schema
         LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.relation"
    );
    let tables = routes.iter().map(Route::table);
    let (schemas, relations): (Vec<&str>, Vec<&str>) = tables.unzip();
    let names: Vec<String> = routes.iter().map(|route| contract::quote_table(route.table())).collect();
    let rows = client.query(&sql, &[&publication, &names, &schemas, &relations]).await.map_err(contract::query)?;
    let mut publication = None;
    let (mut tables, mut wal_end) = (BTreeMap::new(), Lsn::ZERO);
    for row in &rows {
        wal_end = contract::get::<String>(row, 4)?.parse().unwrap_or(Lsn::ZERO);
        let (oid, xmin): (Option<i64>, Option<String>) = (contract::get(row, 1)?, contract::get(row, 2)?);
        publication = oid.zip(xmin).map(|(oid, xmin)| RowVersion { oid, xmin });
        if let Some(oid) = contract::get::<Option<i64>>(row, 3)? {
            let ways: BTreeSet<String> = contract::get::<Vec<String>>(row, 5)?.into_iter().collect();
            tables.insert(contract::get(row, 0)?, Table { oid, ways, shape: contract::get(row, 6)? });
        }
    }
    let is_whole = tables.len() == routes.len();
    let coverage = publication.filter(|_| is_whole).map(|publication| Coverage { publication, tables, doubt: None });
    Ok(Look { coverage, wal_end })
}

/// Reads what is kept beside the position; none if nothing is kept yet.
pub(super) async fn load(client: &Client, slot: &str) -> Result<Option<Coverage>, position::Error> {
    let sql = "SELECT catalog_state FROM walrelay.position WHERE slot = $1::text::name";
    let row = client.query_opt(sql, &[&slot]).await.map_err(|error| position::failed("read", error))?;
    let Some(row) = row else { return Ok(None) };
    let text: Option<String> = row.try_get(0).map_err(|error| position::failed("read", error))?;
    let unreadable = || position::Error::Changed { slot: slot.to_owned() };
    text.map(|text| Coverage::parse(&text).ok_or_else(unreadable)).transpose()
}

/// Keeps what was found beside the position.
pub(super) async fn save(client: &Client, slot: &str, found: &Coverage) -> Result<(), position::Error> {
    let sql = "UPDATE walrelay.position SET catalog_state = $2 WHERE slot = $1::text::name";
    client.execute(sql, &[&slot, &found.to_text()]).await.map_err(|error| position::failed("write", error)).map(drop)
}
