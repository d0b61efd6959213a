//! What helps against a refused log-in, with the names of role, database and address.

use std::net::IpAddr;

use crate::relay::postgres;
use crate::relay::postgres::Config;
use crate::relay::postgres::Target;
use crate::relay::postgres::quote;
use crate::units::SecretRef;

/// Gives the next step, where more is known than the error itself says.
pub(super) fn next(error: &postgres::Error, target: &Target, config: &Config) -> Option<String> {
    let postgres::Error::Server(refusal) = error else { return None };
    let (role, database) = (quote(&target.user), quote(&target.dbname));
    let text = match refusal.state.as_str() {
        "28P01" => format!(
            "write the password of role {role} into {}, or set a new one with \\password in psql",
            place(target, config)
        ),
        "28000" if error.routine() == Some("ClientAuthentication") => format!(
            "add the line `{}` to pg_hba.conf, before the line that rejects it, and run `SELECT pg_reload_conf()`",
            rule(&refusal.message, &database, &role)
        ),
        // The message says which of both, in the language of the server.
        "28000" if error.routine() == Some("InitializeSessionUserId") => format!(
            "if the role does not exist, run `CREATE ROLE {role} LOGIN` and set its password with \\password in psql; \
             if it may not log in, run `ALTER ROLE {role} LOGIN`"
        ),
        "3D000" => format!("run `CREATE DATABASE {database}`, or name another one in postgres.url"),
        "42501" if error.is_about_replication() => {
            format!("run `ALTER ROLE {role} REPLICATION`; where that is not allowed, set source.mode = \"poll\"")
        }
        "42501" => format!("run `GRANT CONNECT ON DATABASE {database} TO {role}`"),
        _ => return None,
    };
    Some(text)
}

/// Where the password comes from.
fn place(target: &Target, config: &Config) -> String {
    match &config.password {
        Some(SecretRef::Env(name)) => format!("the environment variable {name}"),
        Some(SecretRef::File(path)) => format!("the file {}", path.display()),
        None if target.password.is_some() => "postgres.url (or PGPASSWORD, where it comes from)".to_owned(),
        None => "the password file".to_owned(),
    }
}

/// The line of `pg_hba.conf` that lets this machine in. The server's message has the address as the server sees it.
fn rule(message: &str, database: &str, role: &str) -> String {
    if message.split('"').any(|part| part == "[local]") {
        return format!("local {database} {role} scram-sha-256");
    }
    let address = match message.split('"').find_map(|part| part.parse::<IpAddr>().ok()) {
        Some(address @ IpAddr::V4(_)) => format!("{address}/32"),
        Some(address @ IpAddr::V6(_)) => format!("{address}/128"),
        None => "ADDRESS".to_owned(),
    };
    format!("host {database} {role} {address} scram-sha-256")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_created_or_altered_only_where_the_server_looked_it_up() {
        let target = Target::resolve("postgres://relay@localhost/shop").unwrap();
        let next = |fields: &str| {
            let error = postgres::Error::from(postgres::ServerError::parse(fields.as_bytes()));
            next(&error, &target, &Config::default())
        };
        // As PostgreSQL 18 sends them, two in German.
        assert_eq!(next("C28000\0MPeer authentication failed for user \"relay\"\0Rauth_failed\0"), None);
        assert_eq!(next("C28000\0Mconnection requires a valid client certificate\0RClientX\0"), None);
        for message in ["Rolle \u{bb}relay\u{ab} existiert nicht", "role \"relay\" is not permitted to log in"] {
            let next = next(&format!("C28000\0M{message}\0RInitializeSessionUserId\0")).unwrap();
            assert!(next.contains("`CREATE ROLE \"relay\" LOGIN`"), "{next}");
            assert!(next.contains("`ALTER ROLE \"relay\" LOGIN`"), "{next}");
        }
    }

    #[test]
    fn the_address_is_read_from_the_servers_message() {
        let message = "pg_hba.conf rejects connection for host \"10.0.0.7\", user \"relay\", database \"shop\"";
        let rule = |message| rule(message, "db", "role");
        assert_eq!(rule(message), "host db role 10.0.0.7/32 scram-sha-256");
        assert_eq!(rule("no entry for host \"fd00::1\""), "host db role fd00::1/128 scram-sha-256");
        assert_eq!(rule("no entry for host \"[local]\""), "local db role scram-sha-256");
        assert_eq!(rule("no entry for host \"???\""), "host db role ADDRESS scram-sha-256");
    }
}
