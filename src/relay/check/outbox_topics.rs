//! The topics of a table: those of the configuration or, where they follow from the rows, those of its rows.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::relay::error::Error as RelayError;
use crate::relay::postgres::literal;
use crate::relay::postgres::quote;
use crate::relay::postgres::quote_table;
use crate::relay::record::route::Route;
use crate::relay::record::route::is_valid_topic;
use crate::relay::record::route::printable;

use super::report::Finding;
use super::report::Outcome;
use super::topic_error::TopicError;

/// So many rows are read at most, and so many topics checked.
const MAX_ROWS: u32 = 10_000;
const MAX_TOPICS: u32 = 100;

/// The topics of one table.
#[derive(Clone, Debug)]
pub(super) struct TableTopics {
    pub(super) table: String,
    topics: Topics,
}

#[derive(Clone, Debug)]
enum Topics {
    /// Each record goes to one of them.
    Configured(Vec<String>),
    /// Those of some rows, which may be older than the topics of today.
    OfRows { valid: Vec<String>, invalid: Vec<String> },
    /// They are not known without this.
    Needs(String),
    /// The rows cannot be read.
    Failed(Finding),
}

impl TableTopics {
    /// From the configuration, if that is enough.
    pub(super) fn known(route: &Route) -> Option<Self> {
        let topics = route.known_topics();
        (!topics.is_empty()).then(|| Self { table: route.name(), topics: Topics::Configured(topics) })
    }

    /// Of a table whose rows cannot be read without something.
    pub(super) fn without(route: &Route, needs: &str) -> Self {
        Self { table: route.name(), topics: Topics::Needs(needs.to_owned()) }
    }

    /// From what was read of its rows; `row` says which ones these are.
    pub(super) fn read(route: &Route, row: &str, read: Result<Vec<String>, RelayError>) -> Self {
        let table = route.name();
        let topics = match read {
            Ok(topics) if topics.is_empty() => Topics::Needs(format!("{row} of {table}, or allowed_topics")),
            Ok(topics) => {
                let (valid, invalid) = topics.into_iter().partition(|topic| is_valid_topic(topic));
                Topics::OfRows { valid, invalid }
            }
            Err(RelayError::Postgres { source, .. }) if source.is_denied() => {
                Topics::Needs(format!("SELECT on {table}, or allowed_topics"))
            }
            Err(error) => Topics::Failed(Finding::warning(&error)),
        };
        Self { table, topics }
    }

    /// Gives the topics that Kafka can have, and whether records are sure to go to them.
    pub(super) fn names(&self) -> (&[String], bool) {
        match &self.topics {
            Topics::Configured(topics) => (topics, true),
            Topics::OfRows { valid, .. } => (valid, false),
            Topics::Needs(_) | Topics::Failed(_) => (&[], false),
        }
    }

    /// Gives the outcome of finding them.
    pub(super) fn outcome(&self) -> Outcome {
        let topics = match &self.topics {
            Topics::Configured(topics) => topics,
            Topics::OfRows { valid, invalid } => match invalid.first() {
                None => valid,
                Some(example) => {
                    let (table, example) = (self.table.clone(), printable(example.as_bytes()));
                    return Outcome::warned(&TopicError::Invalid { table, example });
                }
            },
            Topics::Needs(needs) => return Outcome::skipped(needs),
            Topics::Failed(finding) => return Outcome::Found(vec![finding.clone()]),
        };
        Outcome::Passed(topics.join(", "))
    }
}

const ACTION: &str = "read the topics of the rows";

/// Gives the route with the current names of its columns.
pub(super) async fn settled(client: &Client, route: &Route) -> Result<Route, RelayError> {
    let (schema, name) = route.table();
    let sql = "SELECT a.attname::text FROM pg_catalog.pg_attribute a
               JOIN pg_catalog.pg_class c ON c.oid = a.attrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = $1 AND c.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped";
    let failed = RelayError::postgres(ACTION);
    let rows = client.query_typed(sql, &[(&schema, Type::TEXT), (&name, Type::TEXT)]).await.map_err(&failed)?;
    let columns = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>().map_err(failed)?;
    Ok(route.clone().settled(&columns))
}

/// Reads the topics of some rows; of those where this column is NULL, if one is given.
pub(super) async fn read(client: &Client, route: &Route, unpublished: Option<&str>) -> Result<Vec<String>, RelayError> {
    let topic = route.topic_expression(quote, literal);
    let table = quote_table(route.table());
    let filter = unpublished.map(|column| format!("WHERE {} IS NULL", quote(column))).unwrap_or_default();
    let sql = format!(
        "SELECT DISTINCT t.topic FROM (SELECT {topic} AS topic FROM {table} {filter} LIMIT {MAX_ROWS}) AS t
         WHERE t.topic IS NOT NULL ORDER BY 1 LIMIT {MAX_TOPICS}"
    );
    let failed = RelayError::postgres(ACTION);
    let rows = client.query_typed(&sql, &[]).await.map_err(&failed)?;
    rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::super::report::Status;
    use super::*;
    use crate::relay::postgres;
    use crate::relay::postgres::ServerError;
    use crate::relay::record::route::Config;

    fn read(read: Result<Vec<String>, RelayError>) -> TableTopics {
        let config = Config { table: "public.t".to_owned(), ..Config::default() };
        TableTopics::read(&Route::new(&config).unwrap(), "a row", read)
    }

    fn status(topics: &TableTopics) -> Status {
        super::super::report::Check::new("topics", "", topics.outcome()).status()
    }

    #[test]
    fn a_name_that_kafka_cannot_have_is_reported_escaped_and_is_no_topic() {
        let topics = read(Ok(["", "a-events", "x;touch $HOME/pwned #\x1b[31m"].map(str::to_owned).to_vec()));
        assert_eq!(topics.names(), (&["a-events".to_owned()][..], false));
        assert_eq!(status(&topics), Status::Warned);
        let topics = read(Ok(vec!["\x1b[31m".to_owned()]));
        let Outcome::Found(findings) = topics.outcome() else { panic!("{topics:?}") };
        assert!(findings[0].what.ends_with(r#"such as "\u{1b}[31m""#), "{findings:?}");
        assert_eq!(status(&read(Ok(vec!["a".to_owned()]))), Status::Passed);
    }

    #[test]
    fn only_a_missing_privilege_asks_for_one() {
        let failed = |fields: &[u8]| {
            let source = postgres::Error::from(ServerError::parse(fields));
            read(Err(RelayError::Postgres { action: ACTION, source }))
        };
        assert_eq!(status(&failed(b"C42501\0Mpermission denied\0")), Status::Skipped);
        let other = failed(b"C42703\0Mcolumn t.kind does not exist\0");
        let Outcome::Found(findings) = other.outcome() else { panic!("{other:?}") };
        assert!(findings[0].is_warning && findings[0].what.contains("t.kind does not exist"), "{findings:?}");
        assert_eq!(status(&read(Ok(Vec::new()))), Status::Skipped);
    }
}
