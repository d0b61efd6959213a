//! Every effective value with its origin, as TOML that can be parsed again, or as JSON. Secrets are redacted.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::json;
use toml::Table;
use toml::Value;

use crate::secret;

use super::options::Config;
use super::origin::Origin;

/// A configuration without mistakes.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The options.
    pub config: Config,
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    pub warnings: Vec<String>,
    pub(super) origins: BTreeMap<String, Origin>,
}

impl Loaded {
    /// Writes the options as TOML, each with its origin.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        if let Value::Table(table) = self.redacted() {
            self.table(&table, "", &mut text);
        }
        text.trim_start().to_owned()
    }

    /// Gives the options as JSON: each path with its value and its origin.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let mut leaves = serde_json::Map::new();
        self.leaves(&self.redacted(), String::new(), &mut leaves);
        leaves.into()
    }

    fn redacted(&self) -> Value {
        let mut config = self.config.clone();
        config.postgres.url = secret::without("postgres.url", &config.postgres.url);
        for (name, value) in &mut config.kafka.properties {
            *value = secret::without(&format!("kafka.properties.{name}"), value);
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
