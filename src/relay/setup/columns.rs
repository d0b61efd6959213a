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
use super::statements::creates;

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
pub(super) fn beside_the_preset(route: &Route) -> Vec<Change> {
    let owner = Runner { who: "the owner of the table".to_owned(), is_current: None };
    let is_created = |role: &Role| creates(route.preset(), *role);
    let roles = Role::ALL
        .into_iter()
        .zip(&route.names().roles)
        .filter(|(role, name)| name.as_ref().is_some_and(|name| name.required) && !is_created(role));
    let mut changes: Vec<Change> = roles.map(|(role, _)| add(route, role, owner.clone())).collect();
    let created: Vec<&str> = Role::ALL.into_iter().filter(is_created).map(|role| route.column(role)).collect();
    let placed = route.names().placed.iter().map(|placed| &placed.name);
    let missing = placed.filter(|name| !created.iter().any(|column| name.is(column)));
    for column in missing.filter_map(|name| name.columns.first()) {
        let what = format!("add column {column} to table {}, for a header", route.name());
        changes.push(Change::sql(what, owner.clone(), format!("{};", catalog::add_placed(route, column))));
    }
    changes
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
