//! The columns that an existing table lacks, and what to know before they are added.

use crate::relay::catalog;
use crate::relay::catalog::quote;
use crate::relay::catalog::quote_table;
use crate::relay::error::Error as RelayError;
use crate::relay::record::route::Route;
use crate::relay::record::row::Role;

use super::difference::Change;
use super::difference::Runner;
use super::error::Error;

/// The statement that adds a missing column; any other mistake of a column stays an error.
pub(super) fn missing(route: &Route, error: catalog::Error, owner: &Runner) -> Result<Change, Error> {
    let role = if let catalog::Error::ColumnMissing { role, .. } = &error { Role::named(role) } else { None };
    let Some(role) = role else { return Err(RelayError::from(error).into()) };
    let mut notes = consequences(role);
    notes.push("If the column has another name, do not add it: name it in the configuration.".to_owned());
    if required(role) {
        let (table, column) = (quote_table(route.table()), quote(route.column(role)));
        notes.push(
            "When the application writes it and no row lacks it, forbid NULL, which would stop the relay:".into(),
        );
        notes.push(format!("  ALTER TABLE {table} ALTER COLUMN {column} SET NOT NULL;"));
    }
    Ok(add(route, role, owner.clone()).noting(notes).by_hand())
}

/// The columns of the configuration that a table of the preset does not have.
pub(super) fn beside_the_preset(route: &Route) -> Option<Change> {
    let name = route.names().0.get(Role::Partition as usize)?.as_ref()?;
    let owner = Runner { who: "the owner of the table".to_owned(), is_current: None };
    name.required.then(|| add(route, Role::Partition, owner))
}

fn add(route: &Route, role: Role, owner: Runner) -> Change {
    let (schema, table) = route.table();
    let what = format!("add column {} to table {schema}.{table}, for the {}", route.column(role), role.name());
    Change::sql(what, owner, format!("{};", catalog::add_column_once(route, role)))
}

/// What the statement does to the rows that are there.
fn consequences(role: Role) -> Vec<String> {
    let rows = match role {
        Role::Id => "Existing rows get an id each: the table is rewritten under a lock that stops reads and writes.",
        Role::CreatedAt => "Existing rows get the time of this statement. The table is not rewritten.",
        Role::AggregateType | Role::AggregateId | Role::EventType => {
            "Existing rows get NULL. The table is not rewritten. Mode wal does not send them again; mode poll stops at \
             the first unpublished one, so fill those."
        }
        Role::Payload => {
            "Existing rows get NULL. The table is not rewritten. Until the application writes the column, events are \
             sent without a value."
        }
        Role::Headers | Role::Partition => "Existing rows get NULL. The table is not rewritten.",
    };
    vec![rows.to_owned()]
}

/// NULL in such a column cannot become a record.
const fn required(role: Role) -> bool {
    match role {
        Role::Id | Role::AggregateType | Role::AggregateId | Role::EventType | Role::CreatedAt => true,
        Role::Payload | Role::Headers | Role::Partition => false,
    }
}
