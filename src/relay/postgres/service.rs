//! libpq's service file: named sets of connection parameters.

use std::io;

use super::params;
use super::params::BadConninfo;
use super::params::Params;

/// Finds a service as libpq does: in `PGSERVICEFILE` or `~/.pg_service.conf`, then in `pg_service.conf` in
/// `PGSYSCONFDIR`.
pub(super) fn find(
    service: &str,
    variable: &dyn Fn(&str) -> Option<String>,
    read: &dyn Fn(&str) -> io::Result<String>,
) -> Result<Params, BadConninfo> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let own = set("PGSERVICEFILE").or_else(|| set("HOME").map(|home| format!("{home}/.pg_service.conf")));
    let common = set("PGSYSCONFDIR").map(|directory| format!("{directory}/pg_service.conf"));
    for path in own.iter().chain(&common) {
        match read(path) {
            Ok(text) => {
                if let Some(params) = entry(&text, service, path)? {
                    return Ok(params);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(BadConninfo::Form(format!("could not read service file {path}: {error}"))),
        }
    }
    let paths: Vec<&str> = own.iter().chain(&common).map(String::as_str).collect();
    Err(BadConninfo::Form(format!("definition of service {service:?} not found in {}", paths.join(" or "))))
}

/// Reads the section of this name. Errors include no value: one may be a password.
fn entry(text: &str, service: &str, path: &str) -> Result<Option<Params>, BadConninfo> {
    let mut found: Option<Params> = None;
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            if found.is_some() {
                break;
            }
            found = (name.strip_suffix(']') == Some(service)).then(Params::new);
            continue;
        }
        let Some(params) = &mut found else { continue };
        let bad = |why: &str| BadConninfo::Form(format!("{path}:{number}: {why}"));
        let (name, value) = line.split_once('=').ok_or_else(|| bad("missing \"=\""))?;
        if name == "service" {
            return Err(bad("nested service specifications are not supported"));
        }
        params::known(name).map_err(|error| match error {
            BadConninfo::Form(_) => bad("invalid connection parameter (not shown: it may be secret)"),
            error @ (BadConninfo::Unknown { .. } | BadConninfo::Value { .. }) => error,
        })?;
        params.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str =
        "# ours\n[other]\nhost=no\n\n[shop]\nhost=db\nport=6432\nuser=app\nhost=second\n[later]\nhost=no\n";

    fn found(text: &'static str, variables: &'static [(&str, &str)]) -> Result<Params, String> {
        let variable = |name: &str| variables.iter().find(|(it, _)| *it == name).map(|(_, value)| (*value).to_owned());
        let read = |path: &str| match path {
            "/h/.pg_service.conf" => Ok(text.to_owned()),
            "/closed" => Err(io::ErrorKind::PermissionDenied.into()),
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        find("shop", &variable, &read).map_err(|error| error.to_string())
    }

    #[test]
    fn a_service_is_the_section_of_its_name() {
        let params = found(FILE, &[("HOME", "/h")]).unwrap();
        let params: Vec<_> = params.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(params, [("host", "db"), ("port", "6432"), ("user", "app")]);
    }

    #[test]
    fn a_missing_or_invalid_service_is_reported_without_its_values() {
        let home: &[(&str, &str)] = &[("HOME", "/h"), ("PGSYSCONFDIR", "/etc/pg")];
        let missing = "definition of service \"shop\" not found in /h/.pg_service.conf or /etc/pg/pg_service.conf";
        assert_eq!(found("[a]\nhost=b\n", home).unwrap_err(), missing);
        let elsewhere: &[(&str, &str)] = &[("HOME", "/h"), ("PGSERVICEFILE", "/x")];
        assert_eq!(found(FILE, elsewhere).unwrap_err(), "definition of service \"shop\" not found in /x");
        let broken = found("[shop]\npassword se=cret\n", home).unwrap_err();
        assert_eq!(broken, "/h/.pg_service.conf:2: invalid connection parameter (not shown: it may be secret)");
        let closed = found(FILE, &[("PGSERVICEFILE", "/closed")]).unwrap_err();
        assert_eq!(closed, "could not read service file /closed: permission denied");
        let broken = found("[shop]\nsecret\n", home).unwrap_err();
        assert_eq!(broken, "/h/.pg_service.conf:2: missing \"=\"");
        assert!(found("[shop]\nservice=other\n", home).unwrap_err().contains("nested service"));
    }
}
