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
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Table {
    /// The table's OID.
    pub oid: i64,
    /// The ways into the publication: by name, by schema, or as one of all tables, each with the versions of its
    /// catalog rows.
    pub ways: BTreeSet<String>,
    /// Whether its rows are WAL-logged, and how many tables inherit from it.
    pub shape: String,
    /// The columns, by their number, which a new name does not change.
    #[serde(default)]
    pub columns: BTreeMap<i64, Column>,
    /// What keeps the rows: the oid of the TOAST table by that of the table or partition. An ALTER TABLE that rewrites
    /// the rows makes a new one; VACUUM FULL, CLUSTER and TRUNCATE do not.
    #[serde(default)]
    pub heaps: BTreeMap<i64, i64>,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Column {
    pub name: String,
    /// The oid of its type.
    pub kind: i64,
    /// The modifier of its type, as the length of a `varchar`; none if it was not stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modifier: Option<i64>,
    /// What it is mapped as.
    pub role: Option<String>,
}

/// A column that was mapped and has another name now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Renamed {
    pub table: String,
    /// What the column was mapped as.
    pub role: String,
    /// Its name before.
    pub before: String,
    /// Its name now.
    pub now: String,
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
                let is_rewritten = earlier.was_rewritten(table);
                return is_rewritten.then(|| {
                    format!("rows of table {name} were rewritten, as by ALTER TABLE ... SET UNLOGGED and SET LOGGED")
                });
            }
            Some(if earlier.oid == table.oid {
                format!("table {name} was removed from the publication and added again, or published in another way")
            } else {
                format!("table {name} was dropped and created again (oid {}, then {})", earlier.oid, table.oid)
            })
        })
    }

    /// Gives a mapped column that was renamed since, where no other column has its role: events would lack its values.
    #[must_use]
    pub fn renamed(&self, later: &Self) -> Option<Renamed> {
        later.tables.iter().find_map(|(name, table)| {
            let earlier = self.tables.values().find(|earlier| earlier.oid == table.oid)?;
            earlier.columns.iter().find_map(|(number, before)| {
                let role = before.role.clone()?;
                let now = table.columns.get(number).filter(|now| now.name != before.name)?;
                let has_column = table.columns.values().any(|column| column.role.as_ref() == Some(&role));
                let (before, now) = (before.name.clone(), now.name.clone());
                (!has_column).then(|| Renamed { table: name.clone(), role, before, now })
            })
        })
    }

    /// Says whether the table with this name was covered.
    #[must_use]
    pub fn covers(&self, table: &str) -> bool {
        self.tables.contains_key(table)
    }
}

impl Table {
    /// Says whether its rows may have been out of the WAL for a moment. A change of the columns rewrites them as well,
    /// and a table that is in a publication by its own name cannot be unlogged.
    fn was_rewritten(&self, later: &Self) -> bool {
        let by_name = self.ways.intersection(&later.ways).any(|way| way.starts_with("table "));
        let mut heaps = self.heaps.iter().filter(|(oid, _)| !by_name || **oid != self.oid);
        self.has_types_of(later) && heaps.any(|(oid, toast)| later.heaps.get(oid).is_some_and(|later| later != toast))
    }

    /// Says whether the columns are the same, with the same types. A modifier that was not stored is any.
    fn has_types_of(&self, later: &Self) -> bool {
        let is_same = |one: &Column, other: &Column| {
            let modifiers = one.modifier.zip(other.modifier);
            one.kind == other.kind && modifiers.is_none_or(|(one, other)| one == other)
        };
        self.columns.len() == later.columns.len()
            && self.columns.iter().all(|(at, column)| later.columns.get(at).is_some_and(|it| is_same(column, it)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coverage(publication: (i64, &str), tables: &[(&str, i64, &[&str])]) -> Coverage {
        let table = |(name, oid, ways): &(&str, i64, &[&str])| {
            let ways = ways.iter().map(|way| (*way).to_owned()).collect();
            ((*name).to_owned(), Table { oid: *oid, ways, shape: "p".to_owned(), ..Table::default() })
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
        assert_eq!(Coverage::parse(&unnamed.to_text().replace("\"name\":\"\",", "")), Some(unnamed.clone()));
        let text = unnamed.to_text().replace(",\"columns\":{},\"heaps\":{}", "");
        assert!(!text.contains("heaps") && Coverage::parse(&text) == Some(unnamed), "stored by an earlier version");
        let doubtful = Coverage { failed_check: Some("x".to_owned()), ..before.clone() };
        assert_eq!(doubtful.unseen(&before).as_deref(), Some("x"));
        assert_eq!(Coverage::parse(&doubtful.to_text()), Some(doubtful));
    }

    #[test]
    fn rows_that_were_rewritten_may_have_been_unlogged_unless_the_table_or_its_columns_say_otherwise() {
        let typed = |ways: &[&str], (kind, modifier): (i64, Option<i64>), heaps: &[(i64, i64)]| Coverage {
            tables: BTreeMap::from([(
                "a".to_owned(),
                Table {
                    oid: 10,
                    ways: ways.iter().map(|way| (*way).to_owned()).collect(),
                    columns: BTreeMap::from([(1, Column { name: "id".to_owned(), kind, modifier, role: None })]),
                    heaps: heaps.iter().copied().collect(),
                    ..Table::default()
                },
            )]),
            ..coverage((1, "7"), &[])
        };
        let table = |ways: &[&str], kind: i64, heaps: &[(i64, i64)]| typed(ways, (kind, None), heaps);
        let varchar = |length: i64, toast: i64| typed(&["all tables"], (1_043, Some(length)), &[(10, toast)]);
        let rows = [
            (varchar(20, 50), varchar(20, 51), true),
            // A shorter varchar rewrites the rows as well.
            (varchar(20, 50), varchar(10, 51), false),
            (typed(&["all tables"], (1_043, None), &[(10, 50)]), varchar(10, 51), true),
            (table(&["all tables"], 25, &[(10, 50)]), table(&["all tables"], 25, &[(10, 51)]), true),
            (table(&["all tables"], 25, &[(10, 50)]), table(&["all tables"], 25, &[(10, 50)]), false),
            // The type of a column was changed, which rewrites the rows; a partition came, and another went.
            (table(&["all tables"], 25, &[(10, 50)]), table(&["all tables"], 23, &[(10, 51)]), false),
            (
                table(&["all tables"], 25, &[(20, 50), (21, 51)]),
                table(&["all tables"], 25, &[(21, 51), (22, 52)]),
                false,
            ),
            // By its own name a table cannot be unlogged, and its partitions can.
            (table(&["table 20/7"], 25, &[(10, 50)]), table(&["table 20/7"], 25, &[(10, 51)]), false),
            (table(&["table 20/7"], 25, &[(20, 50)]), table(&["table 20/7"], 25, &[(20, 51)]), true),
            // Stored by a build that noted nothing of it.
            (table(&["all tables"], 25, &[]), table(&["all tables"], 25, &[(10, 51)]), false),
        ];
        for (earlier, later, expected) in rows {
            let found = earlier.unseen(&later);
            assert_eq!(found.is_some_and(|what| what.contains("rewritten")), expected, "{earlier:?} {later:?}");
        }
    }

    #[test]
    fn c10_a_mapped_column_with_another_name_is_found_by_its_number() {
        let table = |oid: i64, columns: &[(i64, &str, Option<&str>)]| Coverage {
            tables: BTreeMap::from([(
                "a".to_owned(),
                Table {
                    oid,
                    columns: columns
                        .iter()
                        .map(|(number, name, role)| {
                            let role = role.map(str::to_owned);
                            (*number, Column { name: (*name).to_owned(), kind: 25, modifier: None, role })
                        })
                        .collect(),
                    ..Table::default()
                },
            )]),
            ..coverage((1, "7"), &[])
        };
        let before = table(10, &[(1, "id", Some("id")), (2, "headers", Some("headers"))]);
        let rows = [
            (before.clone(), false),
            (table(10, &[(1, "id", Some("id")), (2, "more", None)]), true),
            // Mapped by its new name, dropped, in its place another one, and another table.
            (table(10, &[(1, "id", Some("id")), (2, "more", Some("headers"))]), false),
            (table(10, &[(1, "id", Some("id"))]), false),
            (table(10, &[(1, "id", Some("id")), (2, "more", None), (3, "headers", Some("headers"))]), false),
            (table(11, &[(1, "id", Some("id")), (2, "more", None)]), false),
            // Not mapped any more, by configuration.
            (table(10, &[(1, "id", Some("id")), (2, "headers", None)]), false),
        ];
        for (later, expected) in rows {
            assert_eq!(before.renamed(&later).is_some(), expected, "{later:?}");
        }
    }
}
