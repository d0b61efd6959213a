//! The sources as leaves: a path, a value and its origin.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize as _;
use toml::Table;
use toml::Value;

use crate::log;
use crate::secret;

use super::file;
use super::file::Keys;
use super::mistake;
use super::mistake::Mistake;
use super::options::Config;
use super::origin::Origin;
use super::renamed;
use super::variables;
use super::variables::Variable;

/// Sections that mean something without options. They stay when an option of theirs is wrong.
const SECTIONS: [&str; 3] = ["kafka.tls", "kafka.sasl", "kafka.oauth"];

/// Options without a default, and what stands in for them when they are missing, so that the rest can be checked.
pub(super) const REQUIRED: [(&str, &str); 4] = [
    ("kafka.sasl.mechanism", "\"SCRAM-SHA-512\""),
    ("kafka.sasl.username", "\"missing\""),
    ("kafka.sasl.password", "{ env = \"MISSING\" }"),
    ("kafka.oauth.token_command", "[\"missing\"]"),
];

/// Options that refer to a secret, in one of several ways.
const REFERENCES: [&str; 3] = ["postgres.password", "kafka.sasl.password", "kafka.tls.key_password"];

#[derive(Clone, Debug)]
struct Leaf {
    value: Value,
    origin: Origin,
}

/// All given values; a later one replaces an earlier one.
#[derive(Clone, Debug, Default)]
pub(super) struct Leaves {
    valid: BTreeMap<Keys, Leaf>,
    /// Options with a mistake. They have their default, about which nothing is reported.
    wrong: BTreeMap<Keys, Origin>,
}

impl Leaves {
    pub(super) fn add_file(&mut self, path: &Path, text: &str, mistakes: &mut Vec<Mistake>) {
        let path = path.display().to_string();
        let parsed = file::parse(text);
        for (span, message) in parsed.errors {
            let is_harmless = file::header_before(text, span.start).is_some_and(secret::is_harmless_section);
            let mistake = Mistake::new(file::place(&path, text, span), message);
            mistakes.push(if is_harmless { mistake } else { mistake.without_line() });
        }
        for (keys, value, span) in parsed.leaves {
            self.put(keys, Leaf { value, origin: file::place(&path, text, span) });
        }
        for (keys, span) in parsed.dropped {
            let origin = file::place(&path, text, span);
            self.keep_section(&keys, &origin);
            self.wrong.insert(joined(keys), origin);
        }
    }

    /// Adds the options of the environment. Gives warnings about other variables with the prefix.
    pub(super) fn add_variables(&mut self, variables: &[(String, String)]) -> Vec<String> {
        let mut warnings = Vec::new();
        for (name, text) in variables {
            match variables::classify(name, text) {
                Variable::Option(keys) => {
                    self.override_with(keys, &value_of(text), &Origin::Variable(name.clone()));
                }
                Variable::Foreign => {}
                Variable::Unknown(warning) => warnings.push(warning),
            }
        }
        warnings
    }

    pub(super) fn add_sets(&mut self, sets: &[String], mistakes: &mut Vec<Mistake>) {
        for set in sets {
            match set.split_once('=').and_then(|(path, text)| Some((path, keys_of(path)?, text))) {
                Some((path, keys, text)) => {
                    self.override_with(keys, &value_of(text), &Origin::Set(path.to_owned()));
                }
                None => {
                    // What is before a `=` is no name, if it is part of a value.
                    let shown = secret::without_in_set(set.split('=').next().unwrap_or_default());
                    mistakes.push(Mistake::new(Origin::Set(shown), "not of the form section.key=value".to_owned()));
                }
            }
        }
    }

    /// Checks each leaf over the defaults, and removes the wrong ones, so that one mistake does not hide the next.
    pub(super) fn check_each(&mut self, mistakes: &mut Vec<Mistake>) {
        for (keys, leaf) in std::mem::take(&mut self.valid) {
            let mut table = Table::new();
            insert(&mut table, &keys, leaf.value.clone());
            let error = Config::deserialize(Value::Table(table)).err().map(|error| error.to_string());
            // Missing fields are checked when all leaves are together.
            let Some(error) = error.filter(|error| !error.starts_with("missing field")) else {
                self.valid.insert(keys, leaf);
                continue;
            };
            let message = renamed::message(&keys, &leaf.value, &leaf.origin)
                .or_else(|| mistake::of_list(&keys, &leaf.origin))
                .unwrap_or_else(|| mistake::of_option(&keys, &error));
            let is_unknown = error.starts_with("unknown field") && !leaf.value.is_table();
            // Of an unknown section one option is enough.
            if is_unknown && mistakes.iter().any(|other| other.says(&message)) {
                continue;
            }
            let mistake = Mistake::new(leaf.origin.clone(), message);
            let is_in_place_of_section = leaf.value.is_str() && error.contains("expected struct ");
            let is_hidden = is_unknown && may_be_secret(&keys) || is_in_place_of_section;
            mistakes.push(if is_hidden { mistake.hidden() } else { mistake });
            self.keep_section(&keys, &leaf.origin);
            self.wrong.insert(keys, leaf.origin);
        }
    }

    /// Puts all leaves together. Each mistake is noted, then what it is about is left out.
    pub(super) fn config(&mut self, mistakes: &mut Vec<Mistake>) -> Config {
        self.check_places(mistakes);
        loop {
            let mut table = Table::new();
            let mut leaves: Vec<(&Keys, &Leaf)> = self.valid.iter().collect();
            // The tables of a list are added one after the other: as text, 10 is before 2.
            leaves.sort_by_key(|(keys, _)| keys.iter().find_map(|key| key.parse::<usize>().ok()));
            for (keys, leaf) in leaves {
                insert(&mut table, keys, leaf.value.clone());
            }
            let error = match Config::deserialize(Value::Table(table)) {
                Ok(config) => return config,
                Err(error) => error.to_string(),
            };
            let within =
                error.lines().find_map(|line| line.strip_prefix("in `")?.strip_suffix('`')).unwrap_or_default();
            let missing = error.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
            let path = missing.map_or_else(|| within.to_owned(), |field| format!("{within}.{field}"));
            let keys = split(&path);
            // An option that is missing because it was wrong is no mistake of its own.
            let is_known = self.is_wrong(&path) || missing.is_some() && self.is_given_wrong(&keys);
            if !is_known {
                let message = mistake::of_option(&split(within), &error);
                let mistake = Mistake::at(self.origin_near(within), message);
                mistakes.push(if missing.is_some() { mistake.without_excerpt() } else { mistake.hidden() });
            }
            let origin = self.origin_near(within).cloned().unwrap_or_else(|| Origin::Set(path.clone()));
            let stand_in = REQUIRED.into_iter().find(|(required, _)| *required == path);
            let count = self.valid.len();
            match stand_in {
                Some((_, value)) => self.put(keys.clone(), Leaf { value: value_of(value), origin: origin.clone() }),
                None => self.valid.retain(|other, _| !other.starts_with(&keys)),
            }
            self.wrong.insert(keys, origin);
            if stand_in.is_none() && self.valid.len() == count {
                return Config::default();
            }
        }
    }

    /// Refuses a number of an `[[outbox]]` that leaves out others.
    fn check_places(&mut self, mistakes: &mut Vec<Mistake>) {
        let place = |keys: &Keys| match keys.as_slice() {
            [outbox, place, ..] if outbox == "outbox" => place.parse::<usize>().ok(),
            _ => None,
        };
        let count = self.valid.keys().filter_map(place).collect::<BTreeSet<_>>().len();
        let is_beyond = |keys: &Keys| place(keys).is_some_and(|place| place >= count);
        for keys in self.valid.keys().filter(|keys| is_beyond(keys)).cloned().collect::<Vec<_>>() {
            if let Some(leaf) = self.valid.remove(&keys) {
                let text = format!("{}: tables are numbered from 0 without a gap", keys.join("."));
                mistakes.push(Mistake::new(leaf.origin.clone(), text));
                self.wrong.insert(keys, leaf.origin);
            }
        }
    }

    /// Reads the valid options of `[log]`.
    pub(super) fn log(&self) -> log::Config {
        let mut right = Table::new();
        for (keys, leaf) in self.valid.iter().filter(|(keys, _)| keys.first().is_some_and(|first| first == "log")) {
            let mut alone = Table::new();
            insert(&mut alone, keys, leaf.value.clone());
            if Config::deserialize(Value::Table(alone)).is_ok_and(|config| config.log.check().is_ok()) {
                insert(&mut right, keys, leaf.value.clone());
            }
        }
        Config::deserialize(Value::Table(right)).unwrap_or_default().log
    }

    /// Finds the origin of an option, of the first thing under it, or else of the nearest thing around it.
    pub(super) fn origin_near(&self, path: &str) -> Option<&Origin> {
        let mut wanted = split(path);
        while !wanted.is_empty() {
            let all = self.valid.iter().map(|(keys, leaf)| (keys, &leaf.origin)).chain(&self.wrong);
            let found = all.filter(|(keys, _)| keys.starts_with(&wanted)).map(|(_, origin)| origin);
            if let Some(first) = found.min_by_key(|origin| origin.place()) {
                return Some(first);
            }
            wanted.pop();
        }
        None
    }

    /// Says whether there is a mistake in an option, or in what it is part of.
    pub(super) fn is_wrong(&self, path: &str) -> bool {
        let path = split(path);
        self.wrong.keys().any(|wrong| path.starts_with(wrong))
    }

    /// Gives the number of the layer that an option is from; the later one has precedence.
    pub(super) fn layer(&self, path: &str) -> Option<u8> {
        let wanted = split(path);
        let leaves = self.valid.iter().filter(|(keys, _)| keys.starts_with(&wanted));
        leaves.map(|(_, leaf)| leaf.origin.place().0).max()
    }

    /// Says whether a value in the file contains a password, and not only a reference.
    pub(super) fn has_password_of_file(&self) -> bool {
        self.valid.iter().any(|(keys, leaf)| {
            let text = leaf.value.as_str().unwrap_or_default();
            matches!(leaf.origin, Origin::File { .. }) && secret::is_in_value(&keys.join("."), text)
        })
    }

    pub(super) fn origins(&self) -> BTreeMap<String, Origin> {
        self.valid.iter().map(|(keys, leaf)| (keys.join("."), leaf.origin.clone())).collect()
    }

    /// Says whether a missing option was given, but with a mistake in its value or its name.
    fn is_given_wrong(&self, missing: &[String]) -> bool {
        let Some((field, section)) = missing.split_last() else { return false };
        let limit = 1 + field.len() / 3;
        let mut beside = self.wrong.keys().filter_map(|wrong| wrong.strip_prefix(section)?.first());
        beside.any(|name| strsim::damerau_levenshtein(name, field) <= limit)
    }

    /// Keeps the section of a wrong option: `[kafka.tls]` enables TLS, and the number of an `[[outbox]]` names it.
    fn keep_section(&mut self, wrong: &[String], origin: &Origin) {
        if wrong.len() > 2
            && let Some(keys) = SECTIONS.into_iter().map(split).find(|section| wrong.starts_with(section))
            && !self.valid.keys().any(|other| other.starts_with(&keys))
        {
            self.valid.insert(keys, Leaf { value: Value::Table(Table::new()), origin: origin.clone() });
        }
        if let [outbox, place, _, ..] = wrong
            && outbox == "outbox"
            && place.parse::<usize>().is_ok()
        {
            let (keys, value, _) = file::default_element(&[outbox.clone(), place.clone()], 0..0);
            self.valid.entry(keys).or_insert_with(|| Leaf { value, origin: origin.clone() });
        }
    }

    /// Replaces what earlier layers have at this path. A table replaces its leaves, and a leaf replaces its table.
    fn override_with(&mut self, keys: Keys, value: &Value, origin: &Origin) {
        let keys = joined(keys);
        let reference = REFERENCES.into_iter().map(split).find(|reference| keys.starts_with(reference));
        let replaced = reference.unwrap_or_else(|| keys.clone());
        self.valid.retain(|other, _| !other.starts_with(&replaced));
        let mut leaves = Vec::new();
        expand(keys, value, &mut leaves);
        for (keys, value) in leaves {
            self.put(keys, Leaf { value, origin: origin.clone() });
        }
    }

    fn put(&mut self, keys: Keys, mut leaf: Leaf) {
        let keys = joined(keys);
        if keys.len() == 3 && is_property(&keys) && matches!(leaf.value, Value::Integer(_) | Value::Boolean(_)) {
            leaf.value = Value::String(leaf.value.to_string());
        }
        self.valid.retain(|other, _| !keys.starts_with(other));
        self.valid.insert(keys, leaf);
    }
}

/// The value of an unknown option may be a secret, except in some sections.
fn may_be_secret(keys: &[String]) -> bool {
    !keys.first().is_some_and(|first| secret::is_harmless_section(first))
}

fn is_property(keys: &[String]) -> bool {
    matches!(keys, [kafka, properties, _, ..] if kafka == "kafka" && properties == "properties")
}

/// `linger.ms = 1` and `"linger.ms" = 1` mean the same.
fn joined(mut keys: Keys) -> Keys {
    if is_property(&keys) {
        let name = keys.split_off(2).join(".");
        keys.push(name);
    }
    keys
}

/// Splits a path of this program's own, in which nothing is quoted.
fn split(path: &str) -> Keys {
    joined(path.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect())
}

/// Splits the path of a `--set` as TOML does, so that parts may be quoted. It has two parts at least.
fn keys_of(path: &str) -> Option<Keys> {
    let mut table = toml::from_str::<Table>(&format!("{path} = 0")).ok()?;
    let mut keys = Keys::new();
    loop {
        let (key, value) = table.into_iter().next()?;
        keys.push(key);
        let Value::Table(inner) = value else { return Some(keys).filter(|keys| keys.len() > 1) };
        table = inner;
    }
}

/// Parses a value as TOML, or else as text.
fn value_of(text: &str) -> Value {
    let parsed = toml::from_str::<Table>(&format!("value = {text}")).ok();
    parsed.and_then(|mut table| table.remove("value")).unwrap_or_else(|| Value::String(text.to_owned()))
}

/// Gives the leaves of a value, as in a file.
fn expand(keys: Keys, value: &Value, leaves: &mut Vec<(Keys, Value)>) {
    let below = |key: &str| [keys.as_slice(), &[key.to_owned()]].concat();
    let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
    if let Some(table) = value.as_table().filter(|table| !table.is_empty()) {
        table.iter().for_each(|(key, value)| expand(below(key), value, leaves));
    } else if !list.is_empty() && list.iter().all(Value::is_table) {
        for (place, element) in list.iter().enumerate() {
            let above = below(&place.to_string());
            if element.as_table().is_some_and(Table::is_empty) {
                let (keys, value, _) = file::default_element(&above, 0..0);
                leaves.push((keys, value));
            } else {
                expand(above, element, leaves);
            }
        }
    } else {
        leaves.push((keys, value.clone()));
    }
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
