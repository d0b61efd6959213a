//! What mode `poll` needs: two columns, an index, and privileges.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::relay::catalog;
use crate::relay::catalog::quote;
use crate::relay::error::Error as RelayError;
use crate::relay::poll::Error as PollError;
use crate::relay::poll::grants::grants_on_sequences;
use crate::relay::poll::outbox::Outbox;
use crate::relay::poll::outbox::outboxes;
use crate::relay::poll::verify;
use crate::relay::postgres;
use crate::relay::postgres::Ordinary;
use crate::relay::record::route::Route;
use crate::relay::settings::Settings;

use super::columns;
use super::difference::Change;
use super::difference::Difference;
use super::difference::Runner;
use super::error::Error;
use super::grants::application_grants;
use super::options::Plan;
use super::options::SetupOptions;
use super::roles;
use super::roles::Grant;
use super::roles::Object;
use super::roles::Purpose;
use super::roles::Role;
use super::server::owner_of_table;
use super::statements::outbox_table;
use super::steps::require_fit;
use super::steps::require_roles;

const ORDER: [&str; 2] = [
    "It numbers the rows, which is the order of a key's events. That is the commit order only if the application locks \
     the key's row before it inserts the event, until it commits.",
    "The table is rewritten under a lock that stops reads and writes.",
];
const PUBLISHED: [&str; 1] =
    ["Existing rows count as unpublished: set the column of those that were published in another way."];
const INDEX: [&str; 1] = ["The application cannot insert meanwhile: on a large table in use create it CONCURRENTLY."];

/// Compares everything. Each question is a transaction of its own: a pooler may be in between.
pub(super) async fn compare(
    settings: &Settings,
    options: &SetupOptions,
    ordinary: &Ordinary,
    plan: &Plan,
) -> Result<Difference, Error> {
    let (client, database) = (&ordinary.client, &plan.target.dbname);
    let described = format!("database {database} at {}, asked as role {}", ordinary.found.host, plan.target.user);
    let mut difference = Difference { server: Some(described), ..Difference::default() };
    let mut resolved = Vec::new();
    for outbox in outboxes(settings)? {
        let outbox = verify::resolve(client, &outbox).await?;
        compare_table(client, &outbox, options, &mut difference).await?;
        resolved.push(outbox);
    }
    for role in wanted_roles(client, options, plan, &resolved).await? {
        role.compare(None, &mut difference);
    }
    // The sequence does not exist yet, so nobody can name it.
    for outbox in &resolved {
        if let Some(role) = &plan.role
            && numbering(client, outbox).await?.is_empty()
        {
            difference.changes.push(grant_numbering(outbox, role));
        }
    }
    Ok(difference)
}

/// Everything that is needed, of a server that was not asked.
pub(super) fn everything(settings: &Settings, options: &SetupOptions, plan: &Plan) -> Result<Difference, Error> {
    let mut difference = Difference::default();
    let outboxes = outboxes(settings)?;
    for outbox in &outboxes {
        let runner = owner_unknown(&outbox.route);
        if options.with_outbox {
            difference.changes.push(create_table(&outbox.route, runner.clone()));
        }
        difference.changes.extend(own_columns(outbox, &runner, [true; 3]));
    }
    let database = &plan.target.dbname;
    if let Some(role) = &plan.role {
        let grants = relay_grants(database, &outboxes, Vec::new());
        Role::unknown(role, Purpose::PollingRelay, grants).compare(None, &mut difference);
        difference.changes.extend(outboxes.iter().map(|outbox| grant_numbering(outbox, role)));
    }
    if let Some(role) = &options.app_role {
        let grants = application_grants(database, &routes(&outboxes), Vec::new());
        Role::unknown(role, Purpose::Application, grants).compare(None, &mut difference);
    }
    Ok(difference)
}

/// Sets everything up, and reports each step.
pub(super) async fn apply(
    settings: &Settings,
    options: &SetupOptions,
    plan: &Plan,
    report: &mut dyn FnMut(&str),
) -> Result<(), Error> {
    let name = format!("{} setup", settings.relay.name);
    let ordinary = postgres::connect_shared(&plan.target, &plan.config, &name)
        .await
        .map_err(RelayError::postgres("connect to PostgreSQL"))?;
    let client = &ordinary.client;
    require_roles(
        client,
        &[(plan.role.as_ref(), Purpose::PollingRelay), (options.app_role.as_ref(), Purpose::Application)],
    )
    .await?;
    let mut resolved = Vec::new();
    for outbox in outboxes(settings)? {
        resolved.push(verify::resolve(client, &outbox).await?);
    }
    let new = require_fit(client, &routes(&resolved), None, report).await?;
    for outbox in &resolved {
        let (schema, name) = outbox.route.table();
        if options.with_outbox {
            run(client, format!("create table {schema}.{name}"), &outbox_table(&outbox.route)).await?;
            for change in
                new.iter().filter(|route| route.table() == (schema, name)).flat_map(columns::beside_the_preset)
            {
                run(client, change.what.clone(), change.sql_text()).await?;
            }
            report(&format!("outbox table {schema}.{name} exists"));
        }
        run(client, format!("add the columns for polling to table {schema}.{name}"), &columns_of(outbox)).await?;
        report(&format!("outbox table {schema}.{name} can be polled"));
    }
    for role in wanted_roles(client, options, plan, &resolved).await? {
        let mut difference = Difference::default();
        role.compare(None, &mut difference);
        for change in difference.changes {
            run(client, change.what.clone(), change.sql_text()).await?;
        }
    }
    for role in wanted_roles(client, options, plan, &resolved).await? {
        role.require_granted()?;
        report(&format!("privileges granted to role {}", role.name));
    }
    for outbox in &resolved {
        begin(client).await?;
        verify::verify(client, outbox).await?;
        end(client).await?;
    }
    Ok(())
}

async fn compare_table(
    client: &Client,
    outbox: &Outbox,
    options: &SetupOptions,
    difference: &mut Difference,
) -> Result<(), Error> {
    let route = &outbox.route;
    let (schema, name) = route.table();
    let Some(owner) = owner_of_table(client, route).await? else {
        if !options.with_outbox {
            // The error names the tables that it may be.
            catalog::columns(client, route).await.map_err(RelayError::from)?;
        }
        let runner = owner_unknown(route);
        difference.changes.push(create_table(route, runner.clone()));
        difference.changes.extend(columns::beside_the_preset(route));
        // The table of the preset has a column published_at.
        difference.changes.extend(own_columns(outbox, &runner, [true; 3]));
        return Ok(());
    };
    let (_, wrong) = catalog::examine_columns(client, route).await.map_err(RelayError::from)?;
    for error in wrong {
        difference.changes.push(columns::missing(route, error, &owner)?);
    }
    let sql = "SELECT s.attnum IS NULL, p.attnum IS NULL,
                      NOT EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid
                                  AND i.indkey[0] = s.attnum AND i.indpred IS NOT NULL)
               FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
               LEFT JOIN pg_catalog.pg_attribute s ON s.attrelid = c.oid AND s.attname = $3 AND NOT s.attisdropped
               LEFT JOIN pg_catalog.pg_attribute p ON p.attrelid = c.oid AND p.attname = $4 AND NOT p.attisdropped
               WHERE n.nspname = $1 AND c.relname = $2";
    let failed = RelayError::postgres("read the columns of the outbox table");
    let of_table = [schema, name, &outbox.names.sequence, &outbox.names.published_at];
    let values = of_table.each_ref().map(|value| (value as &(dyn tokio_postgres::types::ToSql + Sync), Type::TEXT));
    let row = client.query_typed_one(sql, &values).await.map_err(&failed)?;
    let mut lacks = [false; 3];
    for (place, lacks) in lacks.iter_mut().enumerate() {
        *lacks = row.try_get(place).map_err(&failed)?;
    }
    let added = own_columns(outbox, &owner, lacks);
    if added.is_empty() {
        difference.existing.push(format!("table {schema}.{name} has all columns and an index on unpublished rows"));
    }
    difference.changes.extend(added);
    Ok(())
}

fn create_table(route: &Route, runner: Runner) -> Change {
    Change::sql(format!("create table {}", route.name()), runner, outbox_table(route))
}

/// The statements for the columns `sequence` and `published_at` and for the index, where they are missing.
fn own_columns(outbox: &Outbox, runner: &Runner, lacks: [bool; 3]) -> Vec<Change> {
    let (table, statements) = (outbox.route.name(), own_statements(outbox));
    let names = &outbox.names;
    let whats = [
        format!("add column {} to table {table}", names.sequence),
        format!("add column {} to table {table}", names.published_at),
        format!("index the unpublished rows of table {table}"),
    ];
    let notes: [&[&str]; 3] = [&ORDER, &PUBLISHED, &INDEX];
    let all = lacks.into_iter().zip(whats).zip(statements).zip(notes);
    let missing = all.filter(|(((lacks, _), _), _)| *lacks);
    missing
        .map(|(((_, what), sql), notes)| Change::sql(what, runner.clone(), sql).noting(notes.iter().copied()))
        .collect()
}

fn own_statements(outbox: &Outbox) -> [String; 3] {
    let names = &outbox.names;
    let (full, sequence, published_at) = (&names.table, quote(&names.sequence), quote(&names.published_at));
    [
        format!("ALTER TABLE {full} ADD COLUMN IF NOT EXISTS {sequence} bigint GENERATED BY DEFAULT AS IDENTITY;"),
        format!("ALTER TABLE {full} ADD COLUMN IF NOT EXISTS {published_at} timestamptz;"),
        format!("{};", outbox.create_index()),
    ]
}

fn columns_of(outbox: &Outbox) -> String {
    own_statements(outbox).join("\n")
}

fn owner_unknown(route: &Route) -> Runner {
    Runner { who: format!("the owner of table {}", route.name()), is_current: None }
}

fn routes(outboxes: &[Outbox]) -> Vec<Route> {
    outboxes.iter().map(|outbox| outbox.route.clone()).collect()
}

async fn wanted_roles(
    client: &Client,
    options: &SetupOptions,
    plan: &Plan,
    outboxes: &[Outbox],
) -> Result<Vec<Role>, Error> {
    let database = &plan.target.dbname;
    let mut wanted = Vec::new();
    if let Some(role) = &plan.role {
        let mut sequences = Vec::new();
        for outbox in outboxes {
            sequences.extend(numbering(client, outbox).await?);
        }
        let grants = relay_grants(database, outboxes, sequences);
        wanted.push(Role::look(client, role, Purpose::PollingRelay, grants).await?);
    }
    if let Some(role) = &options.app_role {
        let mut sequences = Vec::new();
        for outbox in outboxes {
            sequences.extend(roles::default_sequences(client, outbox.route.table()).await?);
        }
        let grants = application_grants(database, &routes(outboxes), sequences);
        wanted.push(Role::look(client, role, Purpose::Application, grants).await?);
    }
    Ok(wanted)
}

/// What polling needs.
fn relay_grants(database: &str, outboxes: &[Outbox], sequences: Vec<(String, String)>) -> Vec<Grant> {
    let mut grants = vec![Grant::new(&["CONNECT"], Object::Database(database.to_owned()))];
    for outbox in outboxes {
        let (schema, table) = outbox.route.table();
        let usage = Grant::new(&["USAGE"], Object::Schema(schema.to_owned()));
        if !grants.contains(&usage) {
            grants.push(usage);
        }
        grants.push(Grant::new(&["SELECT"], Object::Table(schema.to_owned(), table.to_owned())));
        let published_at = outbox.names.published_at.clone();
        let column = Object::Column(schema.to_owned(), table.to_owned(), published_at);
        grants.push(Grant::new(&["UPDATE"], column));
    }
    let sequences = sequences.into_iter().map(|(schema, name)| Object::Sequence(schema, name));
    grants.extend(sequences.map(|sequence| Grant::new(&["SELECT"], sequence)));
    grants
}

/// Finds the sequences that number the rows, by schema and name.
async fn numbering(client: &Client, outbox: &Outbox) -> Result<Vec<(String, String)>, Error> {
    let (schema, table) = outbox.route.table();
    let column = &outbox.names.sequence;
    let sql = "SELECT n.nspname::text, s.relname::text
         FROM pg_catalog.pg_class s JOIN pg_catalog.pg_namespace n ON n.oid = s.relnamespace
         WHERE s.relkind = 'S' AND EXISTS (
             SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace cn ON cn.oid = c.relnamespace
             JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = $3 AND NOT a.attisdropped
             WHERE cn.nspname = $1 AND c.relname = $2
             AND (s.oid = pg_catalog.pg_get_serial_sequence(pg_catalog.format('%I.%I', cn.nspname, c.relname),
                                                            a.attname)::regclass
                  OR s.oid IN (SELECT d.refobjid FROM pg_catalog.pg_attrdef f JOIN pg_catalog.pg_depend d
                               ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.objid = f.oid
                               WHERE f.adrelid = c.oid AND f.adnum = a.attnum)))
         ORDER BY 1, 2";
    let failed = RelayError::postgres("read the sequences of the outbox table");
    let values: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 3] =
        [(&schema, Type::TEXT), (&table, Type::TEXT), (column, Type::TEXT)];
    let rows = client.query_typed(sql, &values).await.map_err(&failed)?;
    let names = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, _>>();
    Ok(names.map_err(failed)?)
}

fn grant_numbering(outbox: &Outbox, role: &str) -> Change {
    let what = format!("grant SELECT on the sequences of table {} to role {role}", outbox.route.name());
    let who = format!("the owner of table {}", outbox.route.name());
    let sql = format!("{};", grants_on_sequences(outbox, role));
    Change::sql(what, Runner { who, is_current: None }, sql)
}

async fn run(client: &Client, what: String, sql: &str) -> Result<(), RelayError> {
    begin(client).await?;
    let ran = client.batch_execute(sql).await;
    ran.map_err(|error| PollError::Setup { what, source: postgres::Error::from(error) })?;
    end(client).await
}

/// Settings are for one transaction: a pooler may run the next one on another session.
async fn begin(client: &Client) -> Result<(), RelayError> {
    let begun = client.batch_execute("BEGIN; SET LOCAL search_path = pg_catalog; SET LOCAL row_security = off").await;
    begun.map_err(RelayError::postgres("begin a transaction"))
}

async fn end(client: &Client) -> Result<(), RelayError> {
    let ended = client.batch_execute("COMMIT").await;
    ended.map_err(RelayError::postgres("commit"))
}
