//! libpq's connection strings and environment variables, with libpq's meanings.
//!
//! Pure: the caller passes the environment and the files. One difference from libpq: the default of `sslmode` is
//! `verify-full`, except for a host on this machine, where it is `prefer`.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::units::Secret;

use super::config::ChannelBinding;
use super::params;
use super::params::BadConninfo;
use super::params::Params;
use super::passfile;
use super::service;
use super::target::Host;
use super::target::SslMode;
use super::target::Target;
use super::target::TlsFiles;

const VARIABLES: [(&str, &str); 15] = [
    ("PGHOST", "host"),
    ("PGHOSTADDR", "hostaddr"),
    ("PGPORT", "port"),
    ("PGDATABASE", "dbname"),
    ("PGUSER", "user"),
    ("PGPASSWORD", "password"),
    ("PGPASSFILE", "passfile"),
    ("PGSSLMODE", "sslmode"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
    ("PGTARGETSESSIONATTRS", "target_session_attrs"),
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGOPTIONS", "options"),
    ("PGCONNECT_TIMEOUT", "connect_timeout"),
];

impl Target {
    /// Reads a connection string, the variables and the password file of this process.
    pub fn resolve(text: &str) -> Result<Self, BadConninfo> {
        let variable = |name: &str| match std::env::var(name) {
            Ok(value) => Some(value),
            Err(_) if name == "USER" => passfile::system_user(),
            Err(_) => None,
        };
        Self::parse(text, &variable, &|path| passfile::read(path), &|path| std::fs::read_to_string(path))
    }

    /// Parses a connection string. Missing parameters come from its service, the variables and libpq's defaults.
    pub fn parse(
        text: &str,
        variable: &dyn Fn(&str) -> Option<String>,
        passfile: &dyn Fn(&str) -> Option<String>,
        services: &dyn Fn(&str) -> io::Result<String>,
    ) -> Result<Self, BadConninfo> {
        let mut params = params::read(text)?;
        let service = params.remove("service").or_else(|| variable("PGSERVICE").filter(|name| !name.is_empty()));
        if let Some(service) = service {
            for (name, value) in service::find(&service, variable, services)? {
                params.entry(name).or_insert(value);
            }
        }
        for (name, key) in VARIABLES {
            if let Some(value) = variable(name).filter(|value| !value.is_empty()) {
                params.entry(key.to_owned()).or_insert(value);
            }
        }
        let user = params.get("user").cloned().or_else(|| variable("USER")).or_else(|| variable("LOGNAME"));
        let user = user.ok_or_else(|| BadConninfo::Form("no user: set one in postgres.url or PGUSER".to_owned()))?;
        let dbname = params.get("dbname").cloned().unwrap_or_else(|| user.clone());
        let hosts = hosts(&params)?;
        let path = params.get("passfile").cloned().or_else(|| variable("HOME").map(|home| format!("{home}/.pgpass")));
        let password = params.get("password").cloned().map(Secret::new);
        let lines = if password.is_none() { path.and_then(|path| passfile(&path)) } else { None };
        let of_file = |host: &Host| {
            let password = passfile::entry(lines.as_ref()?, host, &dbname, &user)?;
            Some((host.clone(), Secret::new(password)))
        };
        let file_passwords = hosts.iter().filter_map(of_file).collect();
        let is_here = hosts.iter().all(Host::is_here);
        Ok(Self {
            ssl_mode: ssl_mode(&params, is_here)?,
            needs_read_write: needs_read_write(&params, hosts.len() > 1)?,
            channel_binding: channel_binding(&params)?,
            connect_timeout: connect_timeout(&params)?,
            tls_files: TlsFiles {
                root_cert: params.get("sslrootcert").cloned(),
                cert: params.get("sslcert").map(PathBuf::from),
                key: params.get("sslkey").map(PathBuf::from),
            },
            options: params.get("options").cloned(),
            hosts,
            user,
            dbname,
            password,
            file_passwords,
        })
    }
}

fn hosts(params: &Params) -> Result<Vec<Host>, BadConninfo> {
    let list = |name: &str| -> Vec<String> {
        params.get(name).map(|text| text.split(',').map(str::to_owned).collect()).unwrap_or_default()
    };
    let (names, addresses, ports) = (list("host"), list("hostaddr"), list("port"));
    let count = names.len().max(addresses.len()).max(1);
    let fits = |list: &[String]| list.len() == count;
    if !(names.is_empty() || fits(&names)) || !(addresses.is_empty() || fits(&addresses)) {
        return Err(BadConninfo::Form(format!(
            "could not match {} host names to {} hostaddr values",
            names.len(),
            addresses.len()
        )));
    }
    if !(ports.len() <= 1 || fits(&ports)) {
        return Err(BadConninfo::Form(format!("could not match {} port numbers to {count} hosts", ports.len())));
    }
    let mut hosts = Vec::new();
    for index in 0..count {
        let port = ports.get(index).or_else(|| ports.first().filter(|_| ports.len() == 1));
        let port = port.map(String::as_str).filter(|port| !port.is_empty()).unwrap_or("5432");
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(|| BadConninfo::Value {
            name: "port",
            value: port.to_owned(),
            allowed: "a number from 1 to 65535",
        })?;
        let address = addresses.get(index).filter(|address| !address.is_empty());
        let address = match address.map(|address| address.parse::<IpAddr>()) {
            None => None,
            Some(Ok(address)) => Some(address),
            Some(Err(_)) => {
                let value = addresses.get(index).cloned().unwrap_or_default();
                return Err(BadConninfo::Value { name: "hostaddr", value, allowed: "an IP address" });
            }
        };
        let name = names.get(index).map(String::as_str).unwrap_or_default();
        match (name, address) {
            ("", None) => hosts.extend(
                ["/var/run/postgresql", "/tmp"].map(|directory| Host::Unix { directory: directory.into(), port }),
            ),
            (name, None) if name.starts_with('/') => hosts.push(Host::Unix { directory: name.into(), port }),
            (name, address) => {
                let name = if name.is_empty() { addresses.get(index).map_or("", String::as_str) } else { name };
                let name = name.to_owned();
                hosts.push(Host::Tcp { name, address, port });
            }
        }
    }
    Ok(hosts)
}

fn ssl_mode(params: &Params, is_here: bool) -> Result<SslMode, BadConninfo> {
    Ok(match params.get("sslmode").map(String::as_str) {
        None if is_here => SslMode::Prefer,
        None | Some("verify-full") => SslMode::VerifyFull,
        Some("disable") => SslMode::Disable,
        Some("allow" | "prefer") => SslMode::Prefer,
        Some("require") => SslMode::Require,
        Some("verify-ca") => SslMode::VerifyCa,
        Some(other) => {
            return Err(BadConninfo::Value {
                name: "sslmode",
                value: other.to_owned(),
                allowed: "disable, prefer, require, verify-ca or verify-full",
            });
        }
    })
}

fn needs_read_write(params: &Params, are_several: bool) -> Result<bool, BadConninfo> {
    match params.get("target_session_attrs").map(String::as_str) {
        None => Ok(are_several),
        Some("any") => Ok(false),
        Some("read-write" | "primary") => Ok(true),
        Some(other) => Err(BadConninfo::Value {
            name: "target_session_attrs",
            value: other.to_owned(),
            allowed: "any, read-write or primary",
        }),
    }
}

fn channel_binding(params: &Params) -> Result<Option<ChannelBinding>, BadConninfo> {
    Ok(Some(match params.get("channel_binding").map(String::as_str) {
        None => return Ok(None),
        Some("disable") => ChannelBinding::Disable,
        Some("prefer") => ChannelBinding::Prefer,
        Some("require") => ChannelBinding::Require,
        Some(other) => {
            return Err(BadConninfo::Value {
                name: "channel_binding",
                value: other.to_owned(),
                allowed: "disable, prefer or require",
            });
        }
    }))
}

fn connect_timeout(params: &Params) -> Result<Option<Duration>, BadConninfo> {
    let Some(text) = params.get("connect_timeout") else { return Ok(None) };
    match text.trim().parse::<u32>() {
        // In libpq 0 means no timeout; the relay has one.
        Ok(0) => Ok(None),
        Ok(seconds) => Ok(Some(Duration::from_secs(seconds.into()))),
        Err(_) => {
            Err(BadConninfo::Value { name: "connect_timeout", value: text.clone(), allowed: "a number of seconds" })
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::params::NO_EQUALS;
    use super::super::params::NOT_A_NAME;
    use super::super::target::Found;
    use super::*;

    fn parse(text: &str) -> Result<Target, BadConninfo> {
        Target::parse(text, &|name| (name == "USER").then(|| "me".to_owned()), &|_| None, &none)
    }

    fn none(_: &str) -> io::Result<String> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn tcp(name: &str, port: u16) -> Host {
        Host::Tcp { name: name.into(), address: None, port }
    }

    #[test]
    fn a_uri_and_its_key_value_form_mean_the_same() {
        for text in [
            "postgres://app:p%40ss%3A@db:6432/shop?sslmode=verify-ca&target_session_attrs=read-write",
            "host=db port=6432 dbname=shop user = app password='p@ss:' sslmode=verify-ca \
             target_session_attrs=read-write",
        ] {
            let target = parse(text).unwrap();
            assert_eq!(target.hosts, [tcp("db", 6432)]);
            assert_eq!((target.user.as_str(), target.dbname.as_str()), ("app", "shop"));
            assert_eq!(target.password.unwrap().expose(), "p@ss:");
            assert_eq!((target.ssl_mode, target.needs_read_write), (SslMode::VerifyCa, true));
        }
    }

    #[test]
    fn hosts_are_a_list_and_may_be_addresses_or_directories() {
        let target = parse("postgres://a:1,[::1]:2,c/db").unwrap();
        assert_eq!(target.hosts, [tcp("a", 1), tcp("::1", 2), tcp("c", 5432)]);
        let unix = |directory: &str| Host::Unix { directory: directory.into(), port: 5432 };
        assert_eq!(parse("postgres:///db?host=/run/pg").unwrap().hosts, [unix("/run/pg")]);
        assert_eq!(parse("dbname=db").unwrap().hosts, [unix("/var/run/postgresql"), unix("/tmp")]);
    }

    #[test]
    fn e16_several_hosts_mean_the_primary_and_a_found_one_stays_the_only_one() {
        let rows = [
            ("postgres://a/x", false),
            ("postgres://a,b/x", true),
            ("postgres://a,b/x?target_session_attrs=any", false),
            ("postgres://a/x?target_session_attrs=primary", true),
        ];
        for (text, expected) in rows {
            assert_eq!(parse(text).unwrap().needs_read_write, expected, "{text}");
        }
        let target = parse("postgres://a,b:1/x").unwrap();
        let address = Some("10.0.0.7".parse().unwrap());
        let target = Target { file_passwords: vec![(tcp("b", 1), Secret::new("kept".to_owned()))], ..target };
        let only = target.only(&Found { host: tcp("b", 1), address });
        assert_eq!(only.hosts, [Host::Tcp { name: "b".into(), address, port: 1 }]);
        assert_eq!(only.password_for(&only.hosts[0]).unwrap().expose(), "kept");
        assert!(only.needs_read_write);
    }

    #[test]
    fn away_from_this_machine_the_server_is_verified_by_default() {
        assert_eq!(parse("postgres://db/x").unwrap().ssl_mode, SslMode::VerifyFull);
        assert_eq!(parse("postgres://db/x?sslmode=disable").unwrap().ssl_mode, SslMode::Disable);
        for text in ["postgres://localhost/x", "postgres://127.0.0.1/x", "postgres://[::1]/x", "postgres:///x"] {
            assert_eq!(parse(text).unwrap().ssl_mode, SslMode::Prefer, "{text}");
        }
        assert_eq!(parse("postgres://localhost,db/x").unwrap().ssl_mode, SslMode::VerifyFull);
    }

    #[test]
    fn with_an_address_the_name_is_used_only_for_the_certificate() {
        let target = parse("host=db hostaddr=10.0.0.7 connect_timeout=3").unwrap();
        let address = "10.0.0.7".parse().ok();
        assert_eq!(target.hosts, [Host::Tcp { name: "db".into(), address, port: 5432 }]);
        assert_eq!(target.connect_timeout, Some(Duration::from_secs(3)));
    }

    #[test]
    fn variables_provide_missing_parameters() {
        let variable = |name: &str| match name {
            "PGHOST" => Some("other".to_owned()),
            "PGUSER" => Some("app".to_owned()),
            "PGSSLMODE" => Some("disable".to_owned()),
            _ => None,
        };
        let target = Target::parse("postgres://db", &variable, &|_| None, &none).unwrap();
        assert_eq!((target.hosts, target.ssl_mode), (vec![tcp("db", 5432)], SslMode::Disable));
        assert_eq!((target.user.as_str(), target.dbname.as_str()), ("app", "app"));
    }

    #[test]
    fn a_service_overrides_the_variables_and_not_the_string() {
        let variable = |name: &str| match name {
            "PGSERVICE" => Some("shop".to_owned()),
            "PGSERVICEFILE" => Some("/services".to_owned()),
            "PGUSER" | "PGPORT" => Some("7".to_owned()),
            _ => None,
        };
        let services = |path: &str| {
            if path == "/services" { Ok("[shop]\nhost=db\nuser=app\ndbname=shop\n".to_owned()) } else { none(path) }
        };
        let target = Target::parse("dbname=mine", &variable, &|_| None, &services).unwrap();
        assert_eq!((target.hosts, target.user.as_str(), target.dbname.as_str()), (vec![tcp("db", 7)], "app", "mine"));
        let named = Target::parse("postgres:///?service=none", &variable, &|_| None, &services);
        assert!(named.unwrap_err().to_string().contains("service \"none\" not found in /services"));
    }

    #[test]
    fn the_password_file_is_read_as_libpq_reads_it() {
        let lines = "# comment\nother:*:*:*:no\ndb:5432:*:app:a\\:b:c\n*:*:*:*:last\n";
        let target = |text: &str| Target::parse(text, &|_| None, &|_| Some(lines.to_owned()), &none).unwrap();
        let with_file = |text: &str| {
            let home = |name: &str| (name == "HOME").then(|| "/h".to_owned());
            Target::parse(text, &home, &|_| Some(lines.to_owned()), &none).unwrap()
        };
        let first = |text: &str| {
            let target = with_file(text);
            target.password_for(&target.hosts[0]).unwrap().expose().to_owned()
        };
        assert_eq!(first("postgres://app@db/x"), "a:b:c");
        assert_eq!(first("postgres://else@db/x"), "last");
        let both = with_file("postgres://app@other,db/x");
        let passwords = both.hosts.iter().map(|host| both.password_for(host).unwrap().expose());
        assert_eq!(passwords.collect::<Vec<_>>(), ["no", "a:b:c"], "each server has its own");
        let without = target("postgres://app@db/x");
        assert!(without.password_for(&without.hosts[0]).is_none(), "no HOME, no file");
    }

    const HINT: &str =
        "unexpected @ after the host: write / ? # @ and : in user and password as %2F %3F %23 %40 and %3A";

    #[test]
    fn errors_name_the_parameter_and_show_no_part_of_a_password() {
        let rows = [
            (
                "postgres://db/x?sslmod=disable",
                "invalid or unsupported connection parameter \"sslmod\", did you mean \"sslmode\"?",
            ),
            (
                "host=db sslmode=on",
                "invalid sslmode value: \"on\"; allowed: disable, prefer, require, verify-ca or verify-full",
            ),
            ("host=db port=x", "invalid port value: \"x\"; allowed: a number from 1 to 65535"),
            ("postgres://me:se/cret@db/x", HINT),
            ("postgres://me:se?cret=1@db/x", HINT),
            ("postgres://[::1]5432/x", "unexpected character between ] and the port"),
            ("host=a,b port=1,2,3", "could not match 3 port numbers to 2 hosts"),
            ("host=a,b hostaddr=127.0.0.1", "could not match 2 host names to 1 hostaddr values"),
            ("host=a port=0", "invalid port value: \"0\"; allowed: a number from 1 to 65535"),
            ("host=a connect_timeout=soon", "invalid connect_timeout value: \"soon\"; allowed: a number of seconds"),
            ("host", NO_EQUALS),
            ("host='x", "unterminated quoted string in the connection string"),
            ("jdbc:postgresql://me:secret@db/x", NO_EQUALS),
            ("POSTGRES://me:secret@db/x?sslmode=require", NOT_A_NAME),
            ("postgres://me:x?secret@db=1", HINT),
            ("host=db password=two secret words", NO_EQUALS),
            ("host=db password=two secret=words", NO_EQUALS),
            ("postgres://%zz@db", "invalid percent-encoded token in the connection URI"),
        ];
        for (text, expected) in rows {
            let message = parse(text).unwrap_err().to_string();
            assert_eq!(message, expected, "{text}");
            assert!(!message.contains("secret@") && !message.contains("cret="), "{message}");
        }
    }

    proptest! {
        #[test]
        fn any_text_gives_a_target_or_an_error_and_never_a_panic(text in "(postgres://)?[ -~é]{0,60}") {
            let _ = parse(&text);
        }
    }
}
