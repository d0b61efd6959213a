//! The configuration's weaknesses, and the files and variables that it names.

use std::fs;
use std::path::Path;

use crate::relay::postgres;
use crate::relay::publish;
use crate::relay::settings::Settings;
use crate::units::SecretError;
use crate::units::SecretRef;
use walrelay_events::fault::Diagnose;

use super::error::Error;
use super::report::Check;
use super::report::Finding;
use super::report::Group;
use super::report::Outcome;

const SECRET: &str = "it is read at each connect";
const FILE: &str = "it is read at each connect";

/// Checks what needs no server.
pub(super) fn check(settings: &Settings, warnings: &[String]) -> Group {
    let weaknesses: Vec<Finding> =
        warnings.iter().map(|warning| Finding::warning(&Error::Weakness(warning.clone()))).collect();
    let options = if weaknesses.is_empty() { Outcome::Passed("valid".to_owned()) } else { Outcome::Found(weaknesses) };
    let mut checks = vec![Check::new("options", "a weakness may cost data or secrets", options)];
    let (postgres, kafka) = (&settings.postgres, &settings.kafka);
    if let Some(password) = &postgres.password {
        checks.push(secret("postgres.password", password, postgres::Error::from));
    }
    if let Some(sasl) = &kafka.sasl {
        checks.push(secret("kafka.sasl.password", &sasl.password, publish::Error::from));
    }
    if let Some(password) = kafka.tls.as_ref().and_then(|tls| tls.key_password.as_ref()) {
        checks.push(secret("kafka.tls.key_password", password, publish::Error::from));
    }
    let root = |root: &str| (root != "system").then(|| Path::new(root).to_owned());
    let mut files = vec![
        ("postgres.tls.root_cert", root(&postgres.tls.root_cert)),
        ("postgres.tls.cert", postgres.tls.cert.clone()),
        ("postgres.tls.key", postgres.tls.key.clone()),
    ];
    if let Some(tls) = &kafka.tls {
        files.push(("kafka.tls.root_cert", root(&tls.root_cert)));
        files.push(("kafka.tls.cert", tls.cert.clone()));
        files.push(("kafka.tls.key", tls.key.clone()));
    }
    for (option, path) in files {
        let Some(path) = path else { continue };
        // Certificate authorities may be a directory.
        let outcome = match fs::metadata(&path).and_then(|meta| if meta.is_dir() { Ok(()) } else { open(&path) }) {
            Ok(()) => Outcome::Passed(path.display().to_string()),
            Err(source) => Outcome::failed(&Error::File { option, path, source }),
        };
        checks.push(Check::new("file", FILE, outcome).about(option));
    }
    Group { name: "configuration", checks }
}

fn open(path: &Path) -> std::io::Result<()> {
    fs::File::open(path).map(drop)
}

fn secret<E: Diagnose>(option: &'static str, secret: &SecretRef, error: fn(SecretError) -> E) -> Check {
    let outcome = match secret.read() {
        Ok(_) => Outcome::Passed(match secret {
            SecretRef::Env(name) => format!("from the environment variable {name}"),
            SecretRef::File(path) => format!("from the file {}", path.display()),
        }),
        Err(failed) => Outcome::failed(&error(failed)),
    };
    Check::new("secret", SECRET, outcome).about(option)
}
