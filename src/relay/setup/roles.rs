//! The roles of the relay and of the application: what they need and no more, what they have, and what grants the rest.

use tokio_postgres::Client;
use tokio_postgres::types::ToSql;
use tokio_postgres::types::Type;

use crate::relay::error::Error as RelayError;
use crate::relay::postgres::literal;
use crate::relay::postgres::quote;
use crate::relay::postgres::quote_table;

use super::difference::Change;
use super::difference::Difference;
use super::difference::Runner;
use super::error::Error;
use super::statements::unless;

const ACTION: &str = "read the privileges of a role";
/// The role of Amazon RDS and Aurora whose members have REPLICATION, which nobody can set there.
const MANAGED: &str = "rds_replication";

/// What a role is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Purpose {
    /// It reads the WAL.
    Relay,
    /// It polls the table.
    PollingRelay,
    /// It writes events.
    Application,
}

/// What a privilege is for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Object {
    Database(String),
    Schema(String),
    /// Schema and name.
    Table(String, String),
    /// Schema and name of the table, and the column.
    Column(String, String, String),
    /// Schema and name.
    Sequence(String, String),
}

/// Privileges on one object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Grant {
    pub(super) privileges: &'static [&'static str],
    pub(super) object: Object,
}

/// A role, and the privileges that it needs.
#[derive(Clone, Debug)]
pub(super) struct Role {
    pub(super) name: String,
    pub(super) purpose: Purpose,
    /// None of them is known to be there, unless the server says so.
    pub(super) exists: bool,
    pub(super) can_login: bool,
    /// By the attribute or, on a managed server, as a member.
    pub(super) can_replicate: bool,
    /// The server gives REPLICATION by membership in [`MANAGED`].
    pub(super) is_managed: bool,
    pub(super) grants: Vec<Needed>,
}

/// A privilege that a role needs.
#[derive(Clone, Debug)]
pub(super) struct Needed {
    pub(super) grant: Grant,
    pub(super) is_granted: bool,
    /// The owner of the object, who can grant it.
    pub(super) owner: Option<String>,
    pub(super) is_owner: Option<bool>,
}

impl Purpose {
    /// The attributes of a role of this kind.
    pub(super) const fn attributes(self) -> &'static str {
        match self {
            Self::Relay => "LOGIN REPLICATION",
            Self::PollingRelay | Self::Application => "LOGIN",
        }
    }

    const fn of(self) -> &'static str {
        match self {
            Self::Relay | Self::PollingRelay => "the relay",
            Self::Application => "the application",
        }
    }
}

impl Object {
    fn sql(&self) -> String {
        match self {
            Self::Database(name) => format!("DATABASE {}", quote(name)),
            Self::Schema(name) => format!("SCHEMA {}", quote(name)),
            Self::Table(schema, name) | Self::Column(schema, name, _) => {
                format!("TABLE {}", quote_table((schema, name)))
            }
            Self::Sequence(schema, name) => format!("SEQUENCE {}", quote_table((schema, name))),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Database(name) => format!("database {name}"),
            Self::Schema(name) => format!("schema {name}"),
            Self::Table(schema, name) => format!("table {schema}.{name}"),
            Self::Column(schema, name, column) => format!("column {column} of table {schema}.{name}"),
            Self::Sequence(schema, name) => format!("sequence {schema}.{name}"),
        }
    }
}

impl Grant {
    pub(super) const fn new(privileges: &'static [&'static str], object: Object) -> Self {
        Self { privileges, object }
    }

    fn statement(&self, role: &str) -> String {
        let mut privileges = self.privileges.join(", ");
        if let Object::Column(_, _, column) = &self.object {
            privileges = format!("{privileges} ({})", quote(column));
        }
        format!("GRANT {privileges} ON {} TO {};", self.object.sql(), quote(role))
    }

    fn text(&self) -> String {
        format!("{} on {}", self.privileges.join(", "), self.object.text())
    }

    /// Gives the query for whether the role `$1` has them all, for the owner, and for whether the current role is one.
    fn question(&self) -> (&'static str, Vec<&str>) {
        match &self.object {
            Object::Database(name) => (
                "SELECT has_database_privilege($1::text::name, d.oid, $2), d.datdba FROM pg_database d
                 WHERE d.datname = $3",
                vec![name],
            ),
            Object::Schema(name) => (
                "SELECT has_schema_privilege($1::text::name, n.oid, $2), n.nspowner FROM pg_namespace n
                 WHERE n.nspname = $3",
                vec![name],
            ),
            Object::Table(schema, name) => (
                "SELECT has_table_privilege($1::text::name, c.oid, $2), c.relowner
                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $3 AND c.relname = $4",
                vec![schema, name],
            ),
            Object::Column(schema, name, column) => (
                "SELECT has_column_privilege($1::text::name, c.oid, a.attnum, $2), c.relowner
                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                 JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = $5 AND NOT a.attisdropped
                 WHERE n.nspname = $3 AND c.relname = $4",
                vec![schema, name, column],
            ),
            Object::Sequence(schema, name) => (
                "SELECT has_sequence_privilege($1::text::name, c.oid, $2), c.relowner
                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE n.nspname = $3 AND c.relname = $4 AND c.relkind = 'S'",
                vec![schema, name],
            ),
        }
    }
}

impl Role {
    /// A role of which nothing is known.
    pub(super) fn unknown(name: &str, purpose: Purpose, grants: Vec<Grant>) -> Self {
        let needed = |grant| Needed { grant, is_granted: false, owner: None, is_owner: None };
        let grants = grants.into_iter().map(needed).collect();
        Self {
            name: name.to_owned(),
            purpose,
            exists: false,
            can_login: false,
            can_replicate: false,
            is_managed: false,
            grants,
        }
    }

    /// Asks what it has. A query is one transaction, without a prepared statement: a pooler may be in between.
    pub(super) async fn look(
        client: &Client,
        name: &str,
        purpose: Purpose,
        grants: Vec<Grant>,
    ) -> Result<Self, RelayError> {
        let failed = RelayError::postgres(ACTION);
        let mut role = Self::unknown(name, purpose, grants);
        let sql = "SELECT r.oid IS NOT NULL, coalesce(r.rolcanlogin, false),
                          coalesce(r.rolreplication OR r.rolsuper OR pg_has_role(r.oid, m.oid, 'MEMBER'), false),
                          m.oid IS NOT NULL
                   FROM (SELECT) one
                   LEFT JOIN pg_catalog.pg_roles r ON r.rolname = $1
                   LEFT JOIN pg_catalog.pg_roles m ON m.rolname = $2";
        let names: [(&(dyn ToSql + Sync), Type); 2] = [(&name, Type::TEXT), (&MANAGED, Type::TEXT)];
        let row = client.query_typed_one(sql, &names).await.map_err(&failed)?;
        role.exists = row.try_get(0).map_err(&failed)?;
        role.can_login = row.try_get(1).map_err(&failed)?;
        role.can_replicate = row.try_get(2).map_err(&failed)?;
        role.is_managed = row.try_get(3).map_err(&failed)?;
        for needed in &mut role.grants {
            needed.look(client, if role.exists { name } else { "" }).await?;
        }
        Ok(role)
    }

    /// Compares what it has with what it needs.
    pub(super) fn compare(&self, is_superuser: Option<bool>, difference: &mut Difference) {
        let before = difference.changes.len();
        difference.changes.extend(self.attributes(is_superuser));
        for needed in self.grants.iter().filter(|needed| !needed.is_granted) {
            let what = format!("grant {} to role {}", needed.grant.text(), self.name);
            let runner = Runner { who: needed.owner(), is_current: needed.is_owner };
            difference.changes.push(Change::sql(what, runner, needed.grant.statement(&self.name)));
        }
        if difference.changes.len() == before {
            let grants: Vec<String> = self.grants.iter().map(|needed| needed.grant.text()).collect();
            let (name, of) = (&self.name, self.purpose.of());
            let attributes = if self.purpose == Purpose::Relay { "LOGIN REPLICATION, " } else { "" };
            difference.existing.push(format!("role {name} of {of}: {attributes}{}", grants.join(", ")));
        }
    }

    /// Gives what `compare` alters of an existing role, as in "LOGIN REPLICATION". A role of the application may be a
    /// group, whose members log in: it only gets privileges.
    pub(super) fn altered(&self) -> Option<String> {
        let is_altered = self.exists && self.purpose == Purpose::Relay;
        let lacking = [("LOGIN", self.can_login), ("REPLICATION", self.can_replicate)];
        let lacking = lacking.into_iter().filter(|(_, has)| is_altered && !has).map(|(attribute, _)| attribute);
        Some(lacking.collect::<Vec<_>>().join(" ")).filter(|lacking| !lacking.is_empty())
    }

    /// Checks the privileges after they were granted: a GRANT by a role that may not grant is no error.
    pub(super) fn require_granted(&self) -> Result<(), Error> {
        let Some(needed) = self.grants.iter().find(|needed| !needed.is_granted) else { return Ok(()) };
        let (role, privileges) = (self.name.clone(), needed.grant.text());
        Err(Error::NotGranted { role, privileges, owner: needed.owner() })
    }

    /// The statements that create the role, or give it the attributes that it lacks.
    fn attributes(&self, is_superuser: Option<bool>) -> Vec<Change> {
        let (name, quoted) = (&self.name, quote(&self.name));
        let is_relay = self.purpose == Purpose::Relay;
        let altered = self.altered();
        let is_member = is_relay && self.is_managed;
        let mut attributes = altered.clone().unwrap_or_else(|| self.purpose.attributes().to_owned());
        if is_member {
            attributes = attributes.replace("REPLICATION", "").trim().to_owned();
        }
        let who = match is_relay && !is_member {
            true => "a superuser, who alone gives REPLICATION",
            false => "a role with CREATEROLE",
        };
        let is_current = is_superuser.filter(|is_superuser| is_relay && !is_member || *is_superuser);
        let runner = Runner { who: who.to_owned(), is_current };
        let mut changes = Vec::new();
        if !self.exists {
            let exists = format!("SELECT FROM pg_catalog.pg_roles WHERE rolname = {}", literal(name));
            // The membership must be inherited.
            let inherit = if is_member { "" } else { "NOINHERIT " };
            let create = unless(&exists, &format!("CREATE ROLE {quoted} {inherit}{attributes}"));
            let change = Change::sql(format!("create role {name} of {}", self.purpose.of()), runner, create);
            let password = format!("It has no password yet: set one, in psql with \\password {quoted}");
            changes.push(change.noting([password]));
        } else if altered.is_some() && !attributes.is_empty() {
            let alter = format!("ALTER ROLE {quoted} WITH {attributes};");
            changes.push(Change::sql(format!("give role {name} {attributes}"), runner, alter));
        }
        if is_member && !self.can_replicate {
            let who = format!("a role that may grant {MANAGED}");
            let grant = format!("GRANT {} TO {quoted};", quote(MANAGED));
            let runner = Runner { who, is_current: None };
            changes.push(Change::sql(format!("make role {name} a member of {MANAGED}"), runner, grant));
        }
        let warning = "REPLICATION can read the whole cluster: use this role only for walrelay.";
        match changes.pop() {
            Some(last) if is_relay => changes.push(last.noting([warning])),
            last => changes.extend(last),
        }
        changes
    }
}

impl Needed {
    /// Gives who can grant it.
    fn owner(&self) -> String {
        let object = self.grant.object.text();
        match &self.owner {
            Some(owner) => format!("{owner}, the owner of {object}"),
            None => format!("the owner of {object}"),
        }
    }

    /// Asks about the object; about the privileges only if there is a role.
    async fn look(&mut self, client: &Client, role: &str) -> Result<(), RelayError> {
        let failed = RelayError::postgres(ACTION);
        let (sql, names) = self.grant.question();
        self.is_granted = !role.is_empty();
        for privilege in self.grant.privileges {
            let asked = if role.is_empty() { sql.replace("$1::text::name", "current_user") } else { sql.to_owned() };
            let sql = format!(
                "SELECT q.granted, pg_get_userbyid(q.owner)::text, pg_has_role(q.owner, 'USAGE') FROM ({asked}) AS q \
                 (granted, owner) WHERE $1::text IS NOT NULL"
            );
            let mut values: Vec<(&(dyn ToSql + Sync), Type)> = vec![(&role, Type::TEXT), (privilege, Type::TEXT)];
            values.extend(names.iter().map(|name| (name as &(dyn ToSql + Sync), Type::TEXT)));
            let Some(row) = client.query_typed_opt(&sql, &values).await.map_err(&failed)? else {
                self.is_granted = false;
                continue;
            };
            self.is_granted &= row.try_get::<_, bool>(0).map_err(&failed)?;
            self.owner = row.try_get(1).map_err(&failed)?;
            self.is_owner = row.try_get(2).map_err(&failed)?;
        }
        Ok(())
    }
}

/// Finds the sequences that a table draws defaults from, by schema and name. An identity column needs no privilege.
pub(super) async fn default_sequences(
    client: &Client,
    (schema, table): (&str, &str),
) -> Result<Vec<(String, String)>, RelayError> {
    let failed = RelayError::postgres(ACTION);
    let sql = "SELECT DISTINCT sn.nspname::text, s.relname::text
               FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
               JOIN pg_catalog.pg_attrdef f ON f.adrelid = c.oid
               JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.objid = f.oid
                    AND d.refclassid = 'pg_catalog.pg_class'::regclass
               JOIN pg_catalog.pg_class s ON s.oid = d.refobjid AND s.relkind = 'S'
               JOIN pg_catalog.pg_namespace sn ON sn.oid = s.relnamespace
               WHERE n.nspname = $1 AND c.relname = $2 ORDER BY 1, 2";
    let rows = client.query_typed(sql, &[(&schema, Type::TEXT), (&table, Type::TEXT)]).await.map_err(&failed)?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, _>>().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_gets_what_it_lacks_with_every_name_quoted() {
        let schema = Grant::new(&["USAGE"], Object::Schema("my schema".to_owned()));
        let column = Object::Column("s".to_owned(), "t\"x".to_owned(), "published at".to_owned());
        let column = Grant::new(&["UPDATE"], column);
        let mut role = Role::unknown("the \"role\"", Purpose::PollingRelay, vec![schema, column]);
        let mut difference = Difference::default();
        role.compare(Some(true), &mut difference);
        let script = difference.script();
        for expected in [
            "CREATE ROLE \"the \"\"role\"\"\" NOINHERIT LOGIN",
            "GRANT USAGE ON SCHEMA \"my schema\" TO \"the \"\"role\"\"\";\n",
            "GRANT UPDATE (\"published at\") ON TABLE \"s\".\"t\"\"x\" TO \"the \"\"role\"\"\";\n",
        ] {
            assert!(script.contains(expected), "{expected} in {script}");
        }
        assert!(!script.contains("REPLICATION"), "{script}");
        (role.exists, role.can_login) = (true, true);
        role.grants.iter_mut().for_each(|needed| needed.is_granted = true);
        let mut difference = Difference::default();
        role.compare(Some(true), &mut difference);
        assert!(difference.changes.is_empty() && difference.existing.len() == 1, "{difference:?}");
        role.purpose = Purpose::Relay;
        role.compare(Some(false), &mut difference);
        let script = difference.script();
        assert!(script.contains("ALTER ROLE \"the \"\"role\"\"\" WITH REPLICATION;"), "{script}");
        assert!(difference.changes[0].is_denied(), "{script}");
    }

    #[test]
    fn a_group_of_the_application_is_not_altered_and_a_managed_server_gives_replication_by_membership() {
        let mut role = Role::unknown("shop", Purpose::Application, Vec::new());
        role.exists = true;
        let mut difference = Difference::default();
        role.compare(Some(true), &mut difference);
        assert!(difference.changes.is_empty() && role.altered().is_none(), "{difference:?}");
        (role.purpose, role.is_managed, role.can_login) = (Purpose::Relay, true, true);
        role.compare(Some(false), &mut difference);
        let script = difference.script();
        assert!(script.contains("\nGRANT \"rds_replication\" TO \"shop\";") && !script.contains("ALTER"), "{script}");
        role.can_replicate = true;
        let mut difference = Difference::default();
        role.compare(Some(false), &mut difference);
        assert!(difference.changes.is_empty(), "a member has it: {difference:?}");
    }
}
