//! How the outbox tables are published, according to the catalog, and whether that has changed.
//!
//! The OID and the row version (xmin) of a catalog row show that it was recreated or changed, even if its values are
//! the same again. A table is covered as long as one of its ways into the publication is unchanged. Any other change is
//! reported: events may have been omitted meanwhile.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde::Deserialize;
use serde::Serialize;

/// The publication and the tables of the configuration, as the catalog shows them at one moment.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Coverage {
    /// The publication's name; empty if it was not stored.
    #[serde(default)]
    pub name: String,
    /// The publication's catalog row.
    pub publication: RowVersion,
    /// The tables, by schema and name.
    pub tables: BTreeMap<String, Table>,
    /// A failed check that leaves no trace in the catalog after it is fixed.
    #[serde(default, alias = "doubt", skip_serializing_if = "Option::is_none")]
    pub failed_check: Option<String>,
}

/// A version of a catalog row.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RowVersion {
    /// The object's OID.
    pub oid: i64,
    /// The transaction that wrote this version.
    pub xmin: String,
}

/// How one table is published.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Table {
    /// The table's OID.
    pub oid: i64,
    /// The ways into the publication: by name, by schema, or as one of all tables, each with the versions of its
    /// catalog rows.
    pub ways: BTreeSet<String>,
    /// Whether its rows are WAL-logged, and how many tables inherit from it.
    pub shape: String,
}

impl Coverage {
    /// Parses the stored form.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Gives the stored form.
    #[must_use]
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Gives the change between this state and a later one that may have omitted events. A table that is new in the
    /// configuration starts with the later one.
    #[must_use]
    pub fn unseen(&self, later: &Self) -> Option<String> {
        if let Some(failed_check) = &self.failed_check {
            return Some(failed_check.clone());
        }
        if !self.name.is_empty() && self.name != later.name && self.publication.oid != later.publication.oid {
            // Nothing is known about the other publication before.
            return Some(format!("source.publication was changed from {:?} to {:?}", self.name, later.name));
        }
        if self.publication.oid != later.publication.oid {
            return Some("the publication was dropped and created again".to_owned());
        }
        if self.publication.xmin != later.publication.xmin {
            return Some("the publication was altered".to_owned());
        }
        later.tables.iter().find_map(|(name, table)| {
            // By OID first: a renamed table is the same table.
            let same = self.tables.values().find(|earlier| earlier.oid == table.oid);
            let earlier = same.or_else(|| self.tables.get(name))?;
            if !earlier.ways.is_disjoint(&table.ways) {
                return None;
            }
            Some(if earlier.oid == table.oid {
                format!("table {name} was removed from the publication and added again, or published in another way")
            } else {
                format!("table {name} was dropped and created again (oid {}, then {})", earlier.oid, table.oid)
            })
        })
    }

    /// Says whether the table with this name was covered.
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
            failed_check: None,
        }
    }

    #[test]
    fn c3_c4_c5_only_an_unchanged_way_covers_a_table() {
        let before = coverage((1, "7"), &[("a", 10, &["table 20/7"])]);
        let rows: [(Coverage, Option<&str>); 8] = [
            (before.clone(), None),
            (coverage((2, "7"), &[("a", 10, &["table 20/7"])]), Some("dropped and created again")),
            (coverage((1, "8"), &[("a", 10, &["table 20/7"])]), Some("altered")),
            (coverage((1, "7"), &[("a", 10, &["table 21/8"])]), Some("removed from")),
            (coverage((1, "7"), &[("a", 11, &["table 21/8"])]), Some("oid 10, then 11")),
            // Published in a second way, renamed, and one more table.
            (coverage((1, "7"), &[("a", 10, &["schema 30/9/9", "table 20/7"])]), None),
            (coverage((1, "7"), &[("b", 10, &["table 20/7"])]), None),
            (coverage((1, "7"), &[("a", 10, &["table 20/7"]), ("b", 11, &["table 21/8"])]), None),
        ];
        for (later, expected) in rows {
            let found = before.unseen(&later);
            assert_eq!(found.is_some(), expected.is_some(), "{later:?}: {found:?}");
            assert!(found.unwrap_or_default().contains(expected.unwrap_or_default()), "{later:?}");
        }
        // Another publication, and a renamed one.
        let other = Coverage { name: "q".to_owned(), ..coverage((2, "7"), &[("a", 10, &["table 20/7"])]) };
        assert_eq!(before.unseen(&other).as_deref(), Some("source.publication was changed from \"p\" to \"q\""));
        let renamed = Coverage { name: "q".to_owned(), ..coverage((1, "8"), &[("a", 10, &["table 20/7"])]) };
        assert_eq!(before.unseen(&renamed).as_deref(), Some("the publication was altered"));
        // Stored by a version without the name.
        let unnamed = Coverage { name: String::new(), ..before.clone() };
        assert_eq!(unnamed.unseen(&before), None);
        assert_eq!(Coverage::parse(&unnamed.to_text().replace("\"name\":\"\",", "")), Some(unnamed));
        let doubtful = Coverage { failed_check: Some("x".to_owned()), ..before.clone() };
        assert_eq!(doubtful.unseen(&before).as_deref(), Some("x"));
        assert_eq!(Coverage::parse(&doubtful.to_text()), Some(doubtful));
    }
}
