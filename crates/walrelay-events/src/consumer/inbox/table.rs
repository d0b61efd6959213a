//! The inbox table.

use std::sync::LazyLock;

use crate::table::BadName;
use crate::table::Table;

use super::statement;

/// Creates the default table, `walrelay.inbox`. The script can be run again.
pub const INBOX_SQL: &str = include_str!("../../../sql/inbox.sql");

/// The default table, whose statements are built once.
static DEFAULT: LazyLock<Inbox> = LazyLock::new(|| Inbox::build(Table::new("walrelay", "inbox")));

/// Whether a consumer has handled an event before.
#[must_use = "a duplicate must not take effect again"]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Once {
    /// It has not. Handle the event and commit.
    New,
    /// It has. Nothing is left to do.
    Duplicate,
}

/// An inbox table. The default is `walrelay.inbox`.
///
/// The column `event_id` is `text`. It can be `uuid` if every event id is a UUID, and then takes half the space.
///
/// ```no_run
/// use walrelay_events::consumer::inbox::Inbox;
///
/// # async fn create(client: &tokio_postgres::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let inbox = Inbox::new("billing.inbox")?;
/// client.batch_execute(&inbox.script()).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Inbox {
    table: Table,
    once: String,
    prune: String,
}

impl Default for Inbox {
    fn default() -> Self {
        DEFAULT.clone()
    }
}

impl Inbox {
    /// Uses another table, `schema.table` or a table of `public`. Names are written without quotes. The schema ends at
    /// the first dot.
    pub fn new(table: &str) -> Result<Self, BadName> {
        Ok(Self::build(Table::parse(table)?))
    }

    fn build(table: Table) -> Self {
        Self { once: statement::insert(&table, [("$1", "$2")]), prune: statement::prune(&table), table }
    }

    /// Returns the script that creates the table and, if needed, its schema. It can be run again.
    #[must_use]
    pub fn script(&self) -> String {
        statement::script(&self.table)
    }

    pub(super) fn walrelay() -> &'static Self {
        &DEFAULT
    }

    pub(super) const fn table(&self) -> &Table {
        &self.table
    }

    pub(super) fn once_sql(&self) -> &str {
        &self.once
    }

    pub(super) fn prune_sql(&self) -> &str {
        &self.prune
    }
}

impl Once {
    /// From the number of rows that were inserted.
    pub(super) const fn of(inserted: u64) -> Self {
        if inserted == 1 { Self::New } else { Self::Duplicate }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_the_repository_is_the_script_of_the_default_table() {
        let unquoted = |script: &str| script.replace("\"C\"", "C").replace('"', "");
        assert_eq!(unquoted(INBOX_SQL), unquoted(&Inbox::default().script()));
        assert_eq!(Inbox::new("walrelay.inbox"), Ok(Inbox::default()));
        assert!(Inbox::new("walrelay.").is_err());
    }
}
