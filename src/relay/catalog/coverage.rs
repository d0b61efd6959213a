//! What the catalog says of how the outbox tables are published, and whether it was the same all the time.
//!
//! The oid and the row version (xmin) of a catalog row tell that it was created anew or changed, also when it reads the same
//! again. A table is covered as long as one of the ways in which it is published stood unchanged. What is not known to have
//! been harmless is named: events may have passed unseen meanwhile.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde::Deserialize;
use serde::Serialize;

/// The publication and the tables of the configuration, as the catalog shows them at one moment.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Coverage {
    /// The publication's name; empty where it was not noted.
    #[serde(default)]
    pub name: String,
    /// The publication's catalog row.
    pub publication: RowVersion,
    /// The tables, by schema and name.
    pub tables: BTreeMap<String, Table>,
    /// What was seen that leaves no trace in the catalog once it is undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubt: Option<String>,
}

/// Which version of which row of the catalog.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RowVersion {
    /// The object's oid.
    pub oid: i64,
    /// The transaction that wrote this version.
    pub xmin: String,
}

/// How one table is published.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Table {
    /// The table's oid.
    pub oid: i64,
    /// The versions of the catalog rows that make it published: by name, by schema, or as one of all tables.
    pub ways: BTreeSet<String>,
    /// Whether its rows are logged, and how many tables inherit from it.
    pub shape: String,
}

impl Coverage {
    /// Reads what was stored.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Writes it for storing.
    #[must_use]
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Says what may have let events pass unseen between this moment and a later one. A table that is new to the
    /// configuration begins with the later one.
    #[must_use]
    pub fn unseen(&self, later: &Self) -> Option<String> {
        if let Some(doubt) = &self.doubt {
            return Some(doubt.clone());
        }
        if !self.name.is_empty() && self.name != later.name && self.publication.oid != later.publication.oid {
            // What the other one has published meanwhile, nobody has seen.
            return Some(format!("source.publication was {:?} and is {:?}", self.name, later.name));
        }
        if self.publication.oid != later.publication.oid {
            return Some("the publication was dropped and created again".to_owned());
        }
        if self.publication.xmin != later.publication.xmin {
            return Some("the publication was altered".to_owned());
        }
        later.tables.iter().find_map(|(name, table)| {
            // By oid first: a table that was renamed is the same table.
            let same = self.tables.values().find(|earlier| earlier.oid == table.oid);
            let earlier = same.or_else(|| self.tables.get(name))?;
            if !earlier.ways.is_disjoint(&table.ways) {
                return None;
            }
            Some(if earlier.oid == table.oid {
                format!(
                    "table {name} was taken out of the publication and added again, or published otherwise meanwhile"
                )
            } else {
                format!("table {name} was dropped and created again (oid {}, then {})", earlier.oid, table.oid)
            })
        })
    }

    /// Says whether a table that is so called was covered.
    #[must_use]
    pub fn covers(&self, table: &str) -> bool {
        self.tables.contains_key(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coverage(publication: (i64, &str), tables: &[(&str, i64, &[&str])]) -> Coverage {
        let table = |(name, oid, ways): &(&str, i64, &[&str])| {
            let ways = ways.iter().map(|way| (*way).to_owned()).collect();
            ((*name).to_owned(), Table { oid: *oid, ways, shape: "p".to_owned() })
        };
        Coverage {
            name: "p".to_owned(),
            publication: RowVersion { oid: publication.0, xmin: publication.1.to_owned() },
            tables: tables.iter().map(table).collect(),
            doubt: None,
        }
    }

    #[test]
    fn c3_c4_c5_only_what_stood_unchanged_is_known_to_have_seen_everything() {
        let before = coverage((1, "7"), &[("a", 10, &["table 20/7"])]);
        let rows: [(Coverage, Option<&str>); 8] = [
            (before.clone(), None),
            (coverage((2, "7"), &[("a", 10, &["table 20/7"])]), Some("dropped and created again")),
            (coverage((1, "8"), &[("a", 10, &["table 20/7"])]), Some("altered")),
            (coverage((1, "7"), &[("a", 10, &["table 21/8"])]), Some("taken out")),
            (coverage((1, "7"), &[("a", 11, &["table 21/8"])]), Some("oid 10, then 11")),
            // Published in a second way meanwhile, renamed, and one more table.
            (coverage((1, "7"), &[("a", 10, &["schema 30/9/9", "table 20/7"])]), None),
            (coverage((1, "7"), &[("b", 10, &["table 20/7"])]), None),
            (coverage((1, "7"), &[("a", 10, &["table 20/7"]), ("b", 11, &["table 21/8"])]), None),
        ];
        for (later, expected) in rows {
            let found = before.unseen(&later);
            assert_eq!(found.is_some(), expected.is_some(), "{later:?}: {found:?}");
            assert!(found.unwrap_or_default().contains(expected.unwrap_or_default()), "{later:?}");
        }
        // Another publication by configuration, and the same one under another name.
        let other = Coverage { name: "q".to_owned(), ..coverage((2, "7"), &[("a", 10, &["table 20/7"])]) };
        assert_eq!(before.unseen(&other).as_deref(), Some("source.publication was \"p\" and is \"q\""));
        let renamed = Coverage { name: "q".to_owned(), ..coverage((1, "8"), &[("a", 10, &["table 20/7"])]) };
        assert_eq!(before.unseen(&renamed).as_deref(), Some("the publication was altered"));
        // Stored by a build that noted no name.
        let unnamed = Coverage { name: String::new(), ..before.clone() };
        assert_eq!(unnamed.unseen(&before), None);
        assert_eq!(Coverage::parse(&unnamed.to_text().replace("\"name\":\"\",", "")), Some(unnamed));
        let doubtful = Coverage { doubt: Some("x".to_owned()), ..before.clone() };
        assert_eq!(doubtful.unseen(&before).as_deref(), Some("x"));
        assert_eq!(Coverage::parse(&doubtful.to_text()), Some(doubtful));
    }
}
