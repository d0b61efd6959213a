//! Every effective value with its origin, as TOML that parses back, or as JSON. Secrets do not show.

use std::fmt::Write as _;

use serde_json::json;
use toml::Table;
use toml::Value;

use crate::relay::postgres::Target;

use super::Loaded;

const REDACTED: &str = "[redacted]";

impl Loaded {
    /// Writes the options as TOML, each with where it came from.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        if let Value::Table(table) = self.redacted() {
            self.table(&table, "", &mut text);
        }
        text.trim_start().to_owned()
    }

    /// Gives the options as JSON: for each path its value and where it came from.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let mut leaves = serde_json::Map::new();
        self.leaves(&self.redacted(), String::new(), &mut leaves);
        leaves.into()
    }

    fn redacted(&self) -> Value {
        let mut config = self.config.clone();
        config.postgres.url = redacted_url(&config.postgres.url);
        for (name, value) in &mut config.kafka.properties {
            if is_secret(name) {
                REDACTED.clone_into(value);
            }
        }
        Value::try_from(&config).unwrap_or(Value::Table(Table::new()))
    }

    fn table(&self, table: &Table, path: &str, text: &mut String) {
        let joined = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        for (key, value) in table {
            if is_leaf(key, value) {
                let shown = toml::to_string(&Table::from_iter([(key.clone(), value.clone())])).unwrap_or_default();
                let inline = inline(key, value).unwrap_or_else(|| shown.trim_end().to_owned());
                let _ = writeln!(text, "{inline}  # {}", self.origin(&joined(key)));
            }
        }
        for (key, value) in table {
            let path = joined(key);
            match value {
                _ if is_leaf(key, value) => {}
                Value::Table(inner) => {
                    let _ = writeln!(text, "\n[{}]", header(&path));
                    self.table(inner, &path, text);
                }
                Value::Array(list) => {
                    for (place, inner) in list.iter().enumerate() {
                        let _ = writeln!(text, "\n[[{}]]", header(&path));
                        if let Value::Table(inner) = inner {
                            self.table(inner, &format!("{path}.{place}"), text);
                        }
                    }
                }
                Value::String(_) | Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => {}
            }
        }
    }

    fn leaves(&self, value: &Value, path: String, leaves: &mut serde_json::Map<String, serde_json::Value>) {
        let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        match value {
            Value::Table(table) => table.iter().for_each(|(key, value)| self.leaves(value, join(key), leaves)),
            Value::Array(list) if list.iter().any(Value::is_table) => {
                list.iter().enumerate().for_each(|(place, value)| self.leaves(value, join(&place.to_string()), leaves));
            }
            Value::String(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime(_)
            | Value::Array(_) => {
                let entry = json!({ "value": value, "origin": self.origin(&path) });
                leaves.insert(path, entry);
            }
        }
    }

    fn origin(&self, path: &str) -> String {
        let parts = || self.origins.iter().find(|(given, _)| given.starts_with(&format!("{path}."))).map(|(_, o)| o);
        let whole = self.origins.get(path).or_else(parts);
        // `password = { file = ... }` is one value with one origin.
        let above = || path.rsplit_once('.').and_then(|(above, _)| self.origins.get(above));
        whole.or_else(above).map_or_else(|| "default".to_owned(), ToString::to_string)
    }
}

/// A secret reference is shown on one line, like a value.
fn is_leaf(key: &str, value: &Value) -> bool {
    match value {
        Value::Table(_) => key.ends_with("password"),
        Value::Array(list) => !list.iter().any(Value::is_table),
        Value::String(_) | Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => true,
    }
}

fn inline(key: &str, value: &Value) -> Option<String> {
    let (kind, of) = value.as_table()?.iter().next()?;
    Some(format!("{key} = {{ {kind} = {of} }}"))
}

fn header(path: &str) -> String {
    path.split('.').filter(|part| part.parse::<usize>().is_err()).collect::<Vec<_>>().join(".")
}

/// Takes the secret out of the value of an option.
pub(super) fn redacted_value(path: &str, text: &str) -> String {
    match path.strip_prefix("kafka.properties.") {
        Some(name) if is_secret(name) => REDACTED.to_owned(),
        None if path == "postgres.url" => redacted_url(text),
        // A mistyped name, or a password where a reference belongs.
        None if path.contains("pass") && !text.contains('{') => REDACTED.to_owned(),
        Some(_) | None => text.to_owned(),
    }
}

/// Says whether the value of an option holds a password or another secret.
pub(crate) fn holds_password(path: &str, text: &str) -> bool {
    match path.strip_prefix("kafka.properties.") {
        Some(name) => is_secret(name),
        None => {
            // Nothing of the environment or of other files counts.
            let only_user = |name: &str| (name == "USER").then(|| "nobody".to_owned());
            let none = |_: &str| Err(std::io::ErrorKind::NotFound.into());
            let read = || Target::parse(text, &only_user, &|_| None, &none).ok()?.password;
            path == "postgres.url" && read().is_some_and(|password| !password.expose().is_empty())
        }
    }
}

/// Takes the password out of a connection string, of either form.
pub(crate) fn redacted_url(url: &str) -> String {
    if let Some((scheme, rest)) = url.split_once("://") {
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, behind) = rest.split_at(end);
        let authority = match authority.rsplit_once('@') {
            Some((login, hosts)) if login.contains(':') => {
                format!("{}:{REDACTED}@{hosts}", login.split(':').next().unwrap_or_default())
            }
            _ => authority.to_owned(),
        };
        let behind = match behind.split_once("password=") {
            Some((before, secret)) => {
                let rest = secret.find('&').and_then(|end| secret.get(end..)).unwrap_or_default();
                format!("{before}password={REDACTED}{rest}")
            }
            None => behind.to_owned(),
        };
        return format!("{scheme}://{authority}{behind}");
    }
    match url.split_once("password") {
        Some((before, _)) => format!("{before}password='{REDACTED}'"),
        None => url.to_owned(),
    }
}

fn is_secret(name: &str) -> bool {
    ["password", "secret", "key.pem", "oauthbearer.config", "token"].iter().any(|part| name.contains(part))
}
