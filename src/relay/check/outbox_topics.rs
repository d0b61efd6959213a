//! The topics of a table: those of the configuration or, where they follow from the rows, those of its rows.

use tokio_postgres::Client;

use crate::relay::error::Error as RelayError;
use crate::relay::postgres::literal;
use crate::relay::postgres::quote;
use crate::relay::postgres::quote_table;
use crate::relay::record::route::Route;

/// So many rows are read at most, and so many topics checked.
const MAX_ROWS: u32 = 10_000;
const MAX_TOPICS: u32 = 100;

/// The topics of one table, or what is needed to know them.
#[derive(Clone, Debug)]
pub(super) struct TableTopics {
    pub(super) table: String,
    pub(super) topics: Result<Vec<String>, String>,
}

impl TableTopics {
    /// From the configuration, if that is enough.
    pub(super) fn known(route: &Route) -> Option<Self> {
        let topics = route.known_topics();
        (!topics.is_empty()).then(|| Self { table: route.name(), topics: Ok(topics) })
    }

    /// From what was read of its rows.
    pub(super) fn read(route: &Route, read: Result<Vec<String>, RelayError>) -> Self {
        let table = route.name();
        let topics = match read {
            Ok(topics) if topics.is_empty() => Err(format!("a row of {table}, or allowed_topics")),
            Ok(topics) => Ok(topics),
            Err(_) => Err(format!("SELECT on {table}, or allowed_topics")),
        };
        Self { table, topics }
    }
}

/// Reads the topics of some rows.
pub(super) async fn read(client: &Client, route: &Route) -> Result<Vec<String>, RelayError> {
    let topic = route.topic_expression(quote, literal);
    let table = quote_table(route.table());
    let sql = format!(
        "SELECT DISTINCT t.topic FROM (SELECT {topic} AS topic FROM {table} LIMIT {MAX_ROWS}) AS t
         WHERE t.topic IS NOT NULL ORDER BY 1 LIMIT {MAX_TOPICS}"
    );
    let failed = RelayError::postgres("read the topics of the rows");
    let rows = client.query_typed(&sql, &[]).await.map_err(&failed)?;
    rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(failed)
}
