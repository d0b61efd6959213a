//! What the source that reads the WAL needs, compared with the server. It changes nothing.

use tokio_postgres::Client;

use crate::relay::catalog;
use crate::relay::catalog::Slot;
use crate::relay::error::Error as RelayError;
use crate::relay::postgres;
use crate::relay::postgres::Host;
use crate::relay::postgres::Ordinary;
use crate::relay::postgres::Session;
use crate::relay::record::route::Route;
use crate::relay::settings::Failover;
use crate::relay::settings::Settings;
use crate::relay::settings::SourceOptions;
use crate::relay::stream::resume;
use crate::relay::stream::resume::Identity;
use crate::relay::stream::resume::Lost;
use crate::relay::stream::resume::Stored;
use crate::shell::word;

use super::columns;
use super::difference::Change;
use super::difference::Difference;
use super::difference::Runner;
use super::difference::Statement;
use super::error::Error;
use super::grants::application_grants;
use super::grants::relay_grants;
use super::grants::wanted_roles;
use super::options::Plan;
use super::options::SetupOptions;
use super::roles::Purpose;
use super::roles::Role;
use super::server::Server;
use super::server::can_create_in;
use super::server::owner_of_publication;
use super::server::owner_of_table;
use super::slots;
use super::statements::FAILOVER_SLOTS;
use super::statements::POSITION_SQL;
use super::statements::create_publication_once;
use super::statements::create_slot;
use super::statements::outbox_table;
use super::statements::publish_table_once;
use super::statements::store_position;
use super::steps::stored;

const REPLICATION: &str = "a role with REPLICATION, which alone creates slots";

/// What is known of the stored position.
enum Known {
    Position(Stored),
    /// There is none.
    Nothing,
    /// The table lacks columns.
    Outdated,
    /// It is not stored, or this role may not read it.
    Unread,
}

/// A comparison in progress.
struct Comparison<'a> {
    settings: &'a Settings,
    options: &'a SetupOptions,
    ordinary: &'a Ordinary,
    plan: &'a Plan,
    server: Server,
    difference: Difference,
}

/// Compares everything.
pub(super) async fn compare(
    settings: &Settings,
    options: &SetupOptions,
    ordinary: &Ordinary,
    plan: &Plan,
) -> Result<Difference, Error> {
    let server = Server::read(&ordinary.client).await?;
    let (major, minor) = (server.version / 10_000, server.version % 10_000);
    let (database, host) = (&plan.target.dbname, &ordinary.found.host);
    let described =
        format!("database {database} of PostgreSQL {major}.{minor} at {host}, asked as role {}", server.role);
    let difference = Difference { server: Some(described), ..Difference::default() };
    let mut comparison = Comparison { settings, options, ordinary, plan, server, difference };
    let routes = settings.routes()?;
    let tables = catalog::settle(&ordinary.client, &routes).await.map_err(RelayError::from)?;
    comparison.tables(&tables).await?;
    comparison.publication(&tables).await?;
    comparison.position_table();
    // A slot retains WAL from the moment it exists, so its relay must be able to start by then.
    comparison.roles(&tables).await?;
    comparison.slot().await?;
    Ok(comparison.difference)
}

/// Everything that is needed, of a server that was not asked.
pub(super) fn everything(settings: &Settings, options: &SetupOptions, plan: &Plan) -> Result<Difference, Error> {
    let routes = settings.routes()?;
    let source = &settings.source;
    let mut difference = Difference::default();
    for route in routes.iter().filter(|_| options.with_outbox) {
        let who = format!("a role with CREATE on schema {}, which then owns the table", route.table().0);
        difference.changes.push(create_table(route, Runner { who, is_current: None }));
    }
    let owner = "the owner of the outbox tables, with CREATE on the database".to_owned();
    difference.changes.push(new_publication(&source.publication, &routes, Runner { who: owner, is_current: None }));
    if source.store_position {
        difference.changes.push(position_table(None));
    }
    let database = &plan.target.dbname;
    if let Some(role) = &plan.role {
        Role::unknown(role, Purpose::Relay, relay_grants(settings, database)).compare(None, &mut difference);
    }
    if let Some(role) = &options.app_role {
        let grants = application_grants(database, &routes, Vec::new());
        Role::unknown(role, Purpose::Application, grants).compare(None, &mut difference);
    }
    difference.changes.push(new_slot(settings, None, None));
    if source.store_position {
        difference.changes.push(position_row(source, None));
    }
    Ok(difference)
}

impl Comparison<'_> {
    fn client(&self) -> &Client {
        &self.ordinary.client
    }

    async fn tables(&mut self, tables: &[Route]) -> Result<(), Error> {
        for route in tables {
            let (schema, name) = route.table();
            let Some(owner) = owner_of_table(self.client(), route).await? else {
                if !self.options.with_outbox {
                    // The error names the tables that it may be.
                    catalog::columns(self.client(), route).await.map_err(RelayError::from)?;
                }
                let runner = Runner {
                    who: format!("a role with CREATE on schema {schema}, which then owns the table"),
                    is_current: can_create_in(self.client(), schema).await?,
                };
                self.difference.changes.push(create_table(route, runner));
                self.difference.changes.extend(columns::beside_the_preset(route));
                continue;
            };
            let (_, wrong) = catalog::examine_columns(self.client(), route).await.map_err(RelayError::from)?;
            if wrong.is_empty() {
                self.difference.existing.push(format!("table {schema}.{name} has all columns"));
            }
            for error in wrong {
                self.difference.changes.push(columns::missing(route, error, &owner)?);
            }
            catalog::check_rows(self.client(), route, tables).await.map_err(RelayError::from)?;
        }
        Ok(())
    }

    async fn publication(&mut self, tables: &[Route]) -> Result<(), Error> {
        let name = &self.settings.source.publication;
        let owner = owner_of_publication(self.client(), name).await?;
        let Some(owner) = owner else {
            let slot = &self.settings.source.slot;
            let found = catalog::find_slot(self.client(), slot, self.server.version).await;
            if found.map_err(RelayError::from)?.is_some() {
                return Err(Error::SlotOlder { slot: slot.clone(), publication: name.clone() });
            }
            let runner = self.publisher(tables).await?;
            self.difference.changes.push(new_publication(name, tables, runner));
            return Ok(());
        };
        let options = catalog::check_publication(self.client(), name).await;
        self.published(options, &owner, "publishes inserts of partitions under their root")?;
        for route in tables {
            let (schema, table) = route.table();
            if !catalog::publishes(self.client(), name, (schema, table)).await.map_err(RelayError::from)? {
                let sql = publish_table_once(name, (schema, table));
                let who = format!("{}, who must own table {schema}.{table} too", owner.who);
                let runner = Runner { who, is_current: owner.is_current };
                let change = Change::sql(format!("add table {schema}.{table} to publication {name}"), runner, sql);
                self.difference.changes.push(change.noting(["Events committed before are not published."]));
                continue;
            }
            let checked = catalog::check_published(self.client(), name, self.server.version, route).await;
            self.published(checked, &owner, &format!("publishes all columns of table {schema}.{table}"))?;
        }
        Ok(())
    }

    /// Notes what the publication has, or the statement that corrects it.
    fn published(&mut self, checked: Result<(), catalog::Error>, owner: &Runner, has: &str) -> Result<(), Error> {
        let name = &self.settings.source.publication;
        match checked {
            Ok(()) => self.difference.existing.push(format!("publication {name} {has}")),
            Err(catalog::Error::PublicationUnfit { what, remedy, .. }) => {
                let change = Change::sql(format!("correct publication {name}"), owner.clone(), format!("{remedy};"));
                let notes = [format!("It {what}."), "Look first at who else uses the publication.".to_owned()];
                self.difference.changes.push(change.noting(notes).by_hand());
            }
            Err(error) => return Err(RelayError::from(error).into()),
        }
        Ok(())
    }

    /// Who can publish these tables: their owner.
    async fn publisher(&self, tables: &[Route]) -> Result<Runner, Error> {
        let mut owners: Vec<String> = Vec::new();
        let mut is_current = self.server.can_create;
        for route in tables {
            if let Some(owner) = owner_of_table(self.client(), route).await? {
                is_current &= owner.is_current.unwrap_or_default();
                owners.push(owner.who);
            }
        }
        owners.dedup();
        let who = if owners.is_empty() { "the owner of the outbox tables".to_owned() } else { owners.join(" and ") };
        let who = format!("{who}, with CREATE on database {}", self.plan.target.dbname);
        Ok(Runner { who, is_current: Some(is_current || self.server.is_superuser) })
    }

    async fn slot(&mut self) -> Result<(), Error> {
        let (settings, version) = (self.settings, self.server.version);
        let name = &settings.source.slot;
        let found = catalog::find_slot(self.client(), name, version).await.map_err(RelayError::from)?;
        let known = self.stored().await?;
        match found {
            Some(slot) => {
                self.difference.existing.push(format!("slot {name} is at {}", slot.confirmed));
                if let Known::Position(stored) = &known {
                    self.position(slot, stored).await?;
                }
                self.failover().await?;
            }
            None => {
                if let Known::Position(stored) = &known {
                    return Err(Error::Gap { slot: name.clone(), stored: stored.position });
                }
                if self.server.wal_level != "logical" {
                    return Err(Error::WalLevel(self.server.wal_level.clone()));
                }
                slots::require_free(self.client(), "create the slot").await?;
                if settings.source.failover == Failover::On && version < FAILOVER_SLOTS {
                    return Err(Error::NoFailover { version: version / 10_000 });
                }
                let is_by_hand = self.difference.changes.iter().any(|change| change.is_by_hand);
                if is_by_hand || matches!(known, Known::Outdated) {
                    let first = if is_by_hand { "the changes by hand" } else { "the columns of walrelay.position" };
                    let waits = format!("slot {name} comes after {first}: run setup again when they are made");
                    self.difference.unseen.push(waits);
                    return Ok(());
                }
                self.difference.changes.push(new_slot(settings, Some(version), Some(self.server.can_replicate)));
            }
        }
        if matches!(known, Known::Nothing) {
            self.difference.changes.push(position_row(&settings.source, Some(self.server.owns_position)));
        }
        Ok(())
    }

    fn position_table(&mut self) {
        if !self.settings.source.store_position {
            return;
        }
        if self.server.is_position_table_complete {
            self.difference.existing.push("table walrelay.position has all columns".to_owned());
        } else {
            self.difference.changes.push(position_table(Some(self.server.can_create)));
        }
    }

    /// Reads the stored position, if this role and this table allow it.
    async fn stored(&mut self) -> Result<Known, Error> {
        if !self.settings.source.store_position {
            return Ok(Known::Unread);
        }
        if !self.server.has_position_table {
            return Ok(Known::Nothing);
        }
        if !self.server.can_read_position {
            let note = format!("the stored position is not visible for role {}", self.server.role);
            self.difference.unseen.push(note);
            return Ok(Known::Unread);
        }
        if !self.server.is_position_table_complete {
            self.difference.unseen.push("the stored position is read when its table has all columns".to_owned());
            return Ok(Known::Outdated);
        }
        let stored = stored(self.client(), &self.settings.source.slot).await?;
        Ok(stored.map_or(Known::Nothing, Known::Position))
    }

    /// Compares the stored position with the slot and the server, as `run` does.
    async fn position(&mut self, slot: Slot, stored: &Stored) -> Result<(), Error> {
        let server = match server_of(self.client(), slot).await {
            Ok(server) => server,
            Err(error) => {
                let error = walrelay_events::fault::chain(&error);
                self.difference.unseen.push(format!("the stored position was not compared with the slot: {error}"));
                return Ok(());
            }
        };
        match resume::decide(&server, Some(stored)) {
            Ok(_) => self.difference.existing.push(format!("position {} is stored", stored.position)),
            // After a failover the history of the timelines decides, which takes a replication connection.
            Err(lost @ Lost::SlotAhead { .. }) if slot.is_synced => self.difference.unseen.push(lost.to_string()),
            Err(lost) => return Err(RelayError::from(lost).into()),
        }
        Ok(())
    }

    /// A slot of an earlier version, or one that was created by hand, may not survive a failover.
    async fn failover(&mut self) -> Result<(), Error> {
        let (name, version) = (&self.settings.source.slot, self.server.version);
        let wanted = slots::wants_failover(self.settings.source.failover, version)?;
        if !wanted || slots::survives_failover(self.client(), name).await? {
            return Ok(());
        }
        let server = match &self.ordinary.found.host {
            Host::Tcp { name, port, .. } => format!("host={} port={port}", value(name)),
            Host::Unix { directory, port } => format!("host={} port={port}", value(&directory.display().to_string())),
        };
        let database = value(&self.plan.target.dbname);
        let (conninfo, command) =
            (format!("{server} dbname={database} replication=database"), Session::failover_command(name));
        let statement = Statement::Shell(format!("psql {} -c {}", word(&conninfo), word(&command)));
        let runner = Runner { who: REPLICATION.to_owned(), is_current: Some(self.server.can_replicate) };
        let change = Change { statement, ..Change::sql(format!("let slot {name} survive a failover"), runner, "") };
        let notes = ["It is a replication command, which no SQL statement can replace.", "Stop the relay for it."];
        self.difference.changes.push(change.noting(notes));
        Ok(())
    }

    async fn roles(&mut self, tables: &[Route]) -> Result<(), Error> {
        for role in wanted_roles(self.settings, self.options, self.plan, self.client(), tables).await? {
            role.compare(Some(self.server.is_superuser), &mut self.difference);
        }
        Ok(())
    }
}

fn create_table(route: &Route, runner: Runner) -> Change {
    let (schema, name) = route.table();
    Change::sql(format!("create table {schema}.{name}"), runner, outbox_table(route))
}

fn new_publication(name: &str, tables: &[Route], runner: Runner) -> Change {
    let change = Change::sql(format!("create publication {name}"), runner, create_publication_once(name, tables));
    change.noting(["Before the slot: a slot that is created first fails at its first change."])
}

fn new_slot(settings: &Settings, version: Option<u32>, is_current: Option<bool>) -> Change {
    let name = &settings.source.slot;
    let runner = Runner { who: REPLICATION.to_owned(), is_current };
    let sql = create_slot(name, &settings.source.publication, settings.source.failover, version);
    Change::sql(format!("create slot {name}"), runner, sql).noting(["It waits for running transactions."])
}

fn position_table(is_current: Option<bool>) -> Change {
    let runner =
        Runner { who: "a role with CREATE on the database, which then owns the schema".to_owned(), is_current };
    Change::sql("create table walrelay.position", runner, POSITION_SQL)
}

fn position_row(source: &SourceOptions, is_current: Option<bool>) -> Change {
    let (slot, runner) = (&source.slot, Runner { who: "the owner of walrelay.position".to_owned(), is_current });
    Change::sql(format!("store the position of slot {slot}"), runner, store_position(slot, &source.publication))
}

/// Asks what the stored position is compared with.
async fn server_of(client: &Client, slot: Slot) -> Result<resume::Server, postgres::Error> {
    let sql = "SELECT s.system_identifier::text, c.timeline_id::bigint, pg_current_wal_flush_lsn()::text
               FROM pg_control_system() s, pg_control_checkpoint() c";
    let row = client.query_typed_one(sql, &[]).await?;
    let no_timeline = |_| postgres::Error::Answer { field: "timeline" };
    let timeline = u32::try_from(row.try_get::<_, i64>(1)?).map_err(no_timeline)?;
    let wal_end: String = row.try_get(2)?;
    Ok(resume::Server {
        identity: Identity { system_id: row.try_get(0)?, timeline },
        wal_end: postgres::position(&wal_end)?,
        slot_confirmed: slot.confirmed,
        is_slot_synced: slot.is_synced,
        left_timeline_at: None,
    })
}

/// Quotes a value of a connection string.
fn value(text: &str) -> String {
    let is_plain = !text.is_empty() && text.chars().all(|char| char.is_ascii_alphanumeric() || "/._-:".contains(char));
    if is_plain { text.to_owned() } else { format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'")) }
}
