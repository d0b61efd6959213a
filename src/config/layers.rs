//! The sources as leaves: a path, a value and its origin.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use serde::Deserialize as _;
use toml::Table;
use toml::Value;

use crate::log;
use crate::secret;

use super::mistake;
use super::mistake::Mistake;
use super::options::Config;
use super::origin::Origin;
use super::renamed;
use super::variables;
use super::variables::Variable;

/// A path such as `outbox.0.table`, in its parts.
type Keys = Vec<String>;

#[derive(Clone, Debug)]
struct Leaf {
    value: Value,
    origin: Origin,
}

/// All given values; a later one replaces an earlier one.
#[derive(Clone, Debug, Default)]
pub(super) struct Leaves(BTreeMap<Keys, Leaf>);

impl Leaves {
    pub(super) fn add_file(&mut self, path: &Path, text: &str) -> Result<(), Mistake> {
        let path = path.display().to_string();
        let place = |span: Option<Range<usize>>| place(&path, text, span.unwrap_or_default());
        let document = toml_edit::Document::parse(text)
            .map_err(|error| Mistake::new(place(error.span()), error.message().replace('\n', ", ")))?;
        let mut found = Vec::new();
        collect(document.as_table(), &mut Vec::new(), &mut found);
        for (keys, value, span) in found {
            self.put(keys, Leaf { value, origin: place(span) });
        }
        Ok(())
    }

    /// Adds the options of the environment. Gives warnings about other variables with the prefix.
    pub(super) fn add_variables(&mut self, variables: &[(String, String)]) -> Vec<String> {
        let mut warnings = Vec::new();
        for (name, text) in variables {
            match variables::classify(name, text) {
                Variable::Option(keys) => {
                    self.put(keys, Leaf { value: value_of(text), origin: Origin::Variable(name.clone()) });
                }
                Variable::Foreign => {}
                Variable::Unknown(warning) => warnings.push(warning),
            }
        }
        warnings
    }

    pub(super) fn add_sets(&mut self, sets: &[String], mistakes: &mut Vec<Mistake>) {
        for set in sets {
            match set.split_once('=') {
                Some((path, text)) if path.contains('.') => {
                    let origin = Origin::Set(path.to_owned());
                    let keys = path.trim().split('.').map(str::to_owned).collect();
                    self.put(keys, Leaf { value: value_of(text), origin });
                }
                _ => {
                    let name = set.split('=').next().unwrap_or_default().to_owned();
                    mistakes.push(Mistake::new(Origin::Set(name), "not of the form section.key=value".to_owned()));
                }
            }
        }
    }

    /// Checks each leaf over the defaults, and removes the wrong ones, so that one mistake does not hide the next.
    pub(super) fn check_each(&mut self, mistakes: &mut Vec<Mistake>) {
        self.0.retain(|keys, leaf| {
            let mut table = Table::new();
            insert(&mut table, keys, leaf.value.clone());
            let Err(error) = Config::deserialize(Value::Table(table)) else { return true };
            let error = error.to_string();
            // Missing fields are checked when all leaves are together.
            let is_wrong = !error.starts_with("missing field");
            if is_wrong && let Some(message) = renamed::message(keys, &leaf.value, &leaf.origin) {
                mistakes.push(Mistake::new(leaf.origin.clone(), message));
            } else if is_wrong {
                let keys = keys.join(".");
                let may_be_secret = secret::may_be_in(&keys);
                let message =
                    if may_be_secret { mistake::describe_without_value(&error) } else { mistake::describe(&error) };
                mistakes.push(Mistake::new(leaf.origin.clone(), format!("{keys}: {message}")));
            }
            !is_wrong
        });
    }

    pub(super) fn config(&self) -> Result<Config, Mistake> {
        let mut table = Table::new();
        for (keys, leaf) in &self.0 {
            insert(&mut table, keys, leaf.value.clone());
        }
        Config::deserialize(Value::Table(table)).map_err(|error| {
            let text = error.to_string();
            let within = text.lines().find_map(|line| line.strip_prefix("in `")?.strip_suffix('`'));
            let near = within.and_then(|within| self.origin_under(within));
            let message = mistake::describe(&text);
            let message = within.map_or_else(|| message.clone(), |within| format!("{within}: {message}"));
            near.map_or_else(|| Mistake::plain(message.clone()), |origin| Mistake::new(origin.clone(), message.clone()))
        })
    }

    /// Reads the valid options of `[log]`.
    pub(super) fn log(&self) -> log::Config {
        let mut right = Table::new();
        for (keys, leaf) in self.0.iter().filter(|(keys, _)| keys.first().is_some_and(|first| first == "log")) {
            let mut alone = Table::new();
            insert(&mut alone, keys, leaf.value.clone());
            if Config::deserialize(Value::Table(alone)).is_ok_and(|config| config.log.check().is_ok()) {
                insert(&mut right, keys, leaf.value.clone());
            }
        }
        Config::deserialize(Value::Table(right)).unwrap_or_default().log
    }

    /// Finds the origin of an option, or of anything under it.
    pub(super) fn origin_under(&self, path: &str) -> Option<&Origin> {
        let wanted: Keys = path.split('.').map(str::to_owned).collect();
        self.0.iter().find(|(keys, _)| keys.starts_with(&wanted)).map(|(_, leaf)| &leaf.origin)
    }

    /// Says whether a value in the file contains a password, and not only a reference.
    pub(super) fn has_password_of_file(&self) -> bool {
        self.0.iter().any(|(keys, leaf)| {
            let text = leaf.value.as_str().unwrap_or_default();
            matches!(leaf.origin, Origin::File { .. }) && secret::is_in_value(&keys.join("."), text)
        })
    }

    pub(super) fn origins(&self) -> BTreeMap<String, Origin> {
        self.0.iter().map(|(keys, leaf)| (keys.join("."), leaf.origin.clone())).collect()
    }

    fn put(&mut self, mut keys: Keys, mut leaf: Leaf) {
        // `linger.ms = 1` and `"linger.ms" = 1` mean the same.
        if keys.len() > 2 && keys.starts_with(&["kafka".to_owned(), "properties".to_owned()]) {
            let name = keys.split_off(2).join(".");
            keys.push(name);
            if matches!(leaf.value, Value::Integer(_) | Value::Boolean(_)) {
                leaf.value = Value::String(leaf.value.to_string());
            }
        }
        // A table replaces its leaves, and a leaf replaces its table.
        self.0.retain(|other, _| !other.starts_with(&keys) && !keys.starts_with(other));
        self.0.insert(keys, leaf);
    }
}

/// Parses a value as TOML, or else as text.
fn value_of(text: &str) -> Value {
    let parsed = toml::from_str::<Table>(&format!("value = {text}")).ok();
    parsed.and_then(|mut table| table.remove("value")).unwrap_or_else(|| Value::String(text.to_owned()))
}

fn insert(table: &mut Table, keys: &[String], value: Value) {
    let [first, rest @ ..] = keys else { return };
    let [next, ..] = rest else {
        table.insert(first.clone(), value);
        return;
    };
    if let Ok(place) = next.parse::<usize>() {
        let list = table.entry(first.clone()).or_insert_with(|| Value::Array(Vec::new()));
        let Value::Array(list) = list else { return };
        // A too large index is a mistake, and must not create many empty tables.
        let place = place.min(list.len());
        if place == list.len() {
            list.push(Value::Table(Table::new()));
        }
        if let Some(Value::Table(inner)) = list.get_mut(place) {
            insert(inner, rest.get(1..).unwrap_or_default(), value);
        }
        return;
    }
    let inner = table.entry(first.clone()).or_insert_with(|| Value::Table(Table::new()));
    if let Value::Table(inner) = inner {
        insert(inner, rest, value);
    }
}

type Found = (Keys, Value, Option<Range<usize>>);

fn collect(table: &dyn toml_edit::TableLike, above: &mut Keys, found: &mut Vec<Found>) {
    for (key, item) in table.iter() {
        above.push(key.to_owned());
        let span = table.get_key_value(key).and_then(|(key, _)| key.span()).or_else(|| item.span());
        match item {
            toml_edit::Item::Table(inner) if !inner.is_empty() => collect(inner, above, found),
            toml_edit::Item::Table(_) => found.push((above.clone(), Value::Table(Table::new()), span)),
            toml_edit::Item::ArrayOfTables(list) => {
                for (place, inner) in list.iter().enumerate() {
                    above.push(place.to_string());
                    if inner.is_empty() {
                        // Its options are all defaults; the element itself must stay.
                        let preset = Value::String("walrelay".to_owned());
                        found.push(([above.as_slice(), &["preset".to_owned()]].concat(), preset, inner.span()));
                    }
                    collect(inner, above, found);
                    above.pop();
                }
            }
            toml_edit::Item::Value(value) => {
                let place = if matches!(value, toml_edit::Value::InlineTable(_)) { span } else { item.span().or(span) };
                // The key's position is used for unknown names and for wrong values.
                let key_place = table.get_key_value(key).and_then(|(key, _)| key.span());
                found.push((above.clone(), plain(value), key_place.or(place)));
            }
            toml_edit::Item::None => {}
        }
        above.pop();
    }
}

fn plain(value: &toml_edit::Value) -> Value {
    let text = format!("value = {}", value.clone().decorated(" ", ""));
    toml::from_str::<Table>(&text).ok().and_then(|mut table| table.remove("value")).unwrap_or(Value::Boolean(false))
}

fn place(path: &str, text: &str, span: Range<usize>) -> Origin {
    let before = text.get(..span.start).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let excerpt = text.get(line_start..).unwrap_or_default().lines().next().unwrap_or_default();
    let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
    let width = text.get(span).unwrap_or_default().lines().next().unwrap_or_default().chars().count();
    Origin::File {
        path: path.to_owned(),
        line: before.matches('\n').count() + 1,
        column,
        excerpt: excerpt.to_owned(),
        width,
    }
}
