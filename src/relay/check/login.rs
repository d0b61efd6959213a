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
            "add the line `host {database} {role} {} scram-sha-256` to pg_hba.conf, before the line that rejects it, \
             and run `SELECT pg_reload_conf()`",
            address(&refusal.message)
        ),
        "28000" if refusal.message.ends_with("does not exist") => {
            format!("run `CREATE ROLE {role} LOGIN REPLICATION`, set its password with \\password in psql")
        }
        "28000" => format!("run `ALTER ROLE {role} LOGIN`"),
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

/// The address of this machine as the server sees it, from its message.
fn address(message: &str) -> String {
    let found = message.split('"').find_map(|part| part.parse::<IpAddr>().ok());
    match found {
        Some(address @ IpAddr::V4(_)) => format!("{address}/32"),
        Some(address @ IpAddr::V6(_)) => format!("{address}/128"),
        None => "ADDRESS".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_read_from_the_servers_message() {
        let message = "pg_hba.conf rejects connection for host \"10.0.0.7\", user \"relay\", database \"shop\"";
        assert_eq!(address(message), "10.0.0.7/32");
        assert_eq!(address("no entry for host \"fd00::1\""), "fd00::1/128");
        assert_eq!(address("no entry for host \"[local]\""), "ADDRESS");
    }
}
