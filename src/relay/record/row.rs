//! Maps a row's values to roles: which column is the id, the key, the payload.
//!
//! A [`Plan`] is created for each Relation message, by the names of the columns, and then processes each row once.
//! Column positions are valid only until the next Relation message: an ALTER TABLE changes them.

use crate::cursor::Malformed;
use crate::relay::decode::pgoutput::Cell;
use crate::relay::decode::pgoutput::Relation;
use crate::relay::decode::pgoutput::Tuple;

/// The role of a column.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(usize)]
pub enum Role {
    /// The event's id.
    Id,
    /// The type of the aggregate.
    AggregateType,
    /// The id of the aggregate.
    AggregateId,
    /// The type of the event.
    EventType,
    /// The event's payload.
    Payload,
    /// A JSON object of further headers.
    Headers,
    /// When the row was written.
    CreatedAt,
    /// The partition to write to.
    Partition,
}

impl Role {
    /// All roles, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Id,
        Self::AggregateType,
        Self::AggregateId,
        Self::EventType,
        Self::Payload,
        Self::Headers,
        Self::CreatedAt,
        Self::Partition,
    ];

    /// Gives its name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::AggregateType => "aggregate_type",
            Self::AggregateId => "aggregate_id",
            Self::EventType => "event_type",
            Self::Payload => "payload",
            Self::Headers => "headers",
            Self::CreatedAt => "created_at",
            Self::Partition => "partition",
        }
    }

    /// Finds the role with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    /// Gives the role of this name, if a topic or a key can be made of it.
    pub fn named_in_routes(name: &str) -> Option<Self> {
        let is_routed =
            |role: &Self| matches!(role, Self::Id | Self::AggregateType | Self::AggregateId | Self::EventType);
        Self::named(name).filter(is_routed)
    }

    const fn bit(self) -> u8 {
        1 << self as usize
    }

    /// Says whether a column of this kind can have the role.
    #[must_use]
    pub const fn accepts(self, kind: Kind) -> bool {
        match self {
            Self::Id | Self::AggregateType | Self::AggregateId | Self::EventType => {
                matches!(kind, Kind::Text | Kind::Uuid | Kind::Integer)
            }
            Self::Payload => matches!(kind, Kind::Json | Kind::Jsonb | Kind::Text | Kind::Bytea),
            Self::Headers => matches!(kind, Kind::Json | Kind::Jsonb | Kind::Text),
            Self::CreatedAt => matches!(kind, Kind::Timestamptz),
            Self::Partition => matches!(kind, Kind::Integer),
        }
    }
}

/// The types of mapped columns.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// `text`, `varchar`, `char(n)`, `name`.
    Text,
    Uuid,
    /// `smallint`, `integer`, `bigint`.
    Integer,
    Json,
    Jsonb,
    Bytea,
    /// `timestamp with time zone`.
    Timestamptz,
}

/// The built-in types of mapped columns: OID and name (`pg_type.dat`), and kind.
const TYPES: [(u32, &str, Kind); 12] = [
    (25, "text", Kind::Text),
    (1043, "varchar", Kind::Text),
    (1042, "bpchar", Kind::Text),
    (19, "name", Kind::Text),
    (2950, "uuid", Kind::Uuid),
    (20, "int8", Kind::Integer),
    (21, "int2", Kind::Integer),
    (23, "int4", Kind::Integer),
    (114, "json", Kind::Json),
    (3802, "jsonb", Kind::Jsonb),
    (17, "bytea", Kind::Bytea),
    (1184, "timestamptz", Kind::Timestamptz),
];

impl Kind {
    /// Finds the kind of a built-in type by its OID.
    #[must_use]
    pub fn of(type_id: u32) -> Option<Self> {
        TYPES.iter().find(|(id, ..)| *id == type_id).map(|(.., kind)| *kind)
    }
}

/// Gives the OID of a built-in type by its name.
#[must_use]
pub fn type_id(name: &str) -> Option<u32> {
    TYPES.iter().find(|(_, known, _)| *known == name).map(|(id, ..)| *id)
}

/// What a column is mapped as that becomes a header, in a message.
pub const PLACED: &str = "header";

/// Says whether a column of this kind can become a header.
#[must_use]
pub const fn can_be_placed(kind: Kind) -> bool {
    matches!(kind, Kind::Text | Kind::Uuid | Kind::Integer | Kind::Json | Kind::Jsonb)
}

/// The names of the columns that are read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoleNames {
    /// By role; a role without a name is not used.
    pub roles: [Option<Name>; Role::ALL.len()],
    /// The columns that become headers, in order. Such a column may have a role as well.
    pub placed: Vec<Placed>,
    /// The preset's names of columns for the roles that are not used.
    pub unused: Vec<&'static str>,
}

impl RoleNames {
    /// Finds what a column of this name is mapped as.
    #[must_use]
    pub fn role_of(&self, column: &str) -> Option<Role> {
        let mut roles = Role::ALL.into_iter().zip(&self.roles);
        roles.find(|(_, name)| name.as_ref().is_some_and(|name| name.is(column))).map(|(role, _)| role)
    }

    /// Gives the name of what a column is mapped as.
    #[must_use]
    pub fn use_of(&self, column: &str) -> Option<&'static str> {
        let placed = || self.is_placed(column).then_some(PLACED);
        self.role_of(column).map(Role::name).or_else(placed)
    }

    fn is_placed(&self, column: &str) -> bool {
        self.placed.iter().any(|placed| placed.name.is(column))
    }
}

/// A column that becomes a header.
#[derive(Clone, Debug, PartialEq)]
pub struct Placed {
    pub name: Name,
    /// The name of the header.
    pub header: String,
}

impl Placed {
    /// Gives the option for the column, if it was renamed. The header keeps its name.
    #[must_use]
    pub fn remedy(&self) -> String {
        format!("\"{}|its new name:header:{}\" in placements", self.name.columns.join("|"), self.header)
    }
}

/// The name of a role's column.
#[derive(Clone, Debug, PartialEq)]
pub struct Name {
    /// The possible names of the column, of which the table has one at a time. WAL has the name of the time when it was
    /// written, so a renamed column needs both.
    pub columns: Vec<String>,
    /// Whether the table must have it.
    pub required: bool,
}

impl Name {
    /// Says whether this is one of the names.
    #[must_use]
    pub fn is(&self, column: &str) -> bool {
        self.columns.iter().any(|name| name == column)
    }
}

/// Formats names as a list in a message.
#[must_use]
pub fn listed(names: &[String], word: &str) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    quoted.join(&format!(" {word} "))
}

/// Gives the option for a role whose column was renamed: the configured names, and those of the columns without a role
/// whose type fits.
#[must_use]
pub fn both_names<'c>(
    role: Role,
    names: &RoleNames,
    columns: impl IntoIterator<Item = (&'c str, Option<Kind>)>,
) -> String {
    // A role without a column has its own name.
    let has_role = |column: &str| {
        Role::ALL
            .iter()
            .zip(&names.roles)
            .any(|(role, name)| name.as_ref().map_or(role.name() == column, |name| name.is(column)))
    };
    let mapped = |column: &str| has_role(column) || names.unused.contains(&column) || names.is_placed(column);
    let known = names.roles.get(role as usize).and_then(Option::as_ref).map(|name| name.columns.clone());
    let fits =
        columns.into_iter().filter(|(column, kind)| kind.is_some_and(|kind| role.accepts(kind)) && !mapped(column));
    let mut all = known.unwrap_or_default();
    let known = all.len();
    all.extend(fits.map(|(column, _)| column.to_owned()));
    if all.len() == known {
        all.push("its new name".to_owned());
    }
    let (names, rest) = all.split_at((known + 1).min(all.len()));
    let others = if rest.is_empty() { String::new() } else { format!(" (or {})", listed(rest, "or")) };
    let option = if role == Role::Partition { "" } else { "columns." };
    format!(
        "{option}{} = [{}]{others}",
        role.name(),
        names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
    )
}

/// The table does not match the configuration.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Mismatch {
    /// A column is missing.
    #[error("table {table} has no column {}, which is mapped as {role}", listed(columns, "or"))]
    Missing {
        table: String,
        /// The names that it may have.
        columns: Vec<String>,
        role: &'static str,
        /// The option to set if it was renamed.
        remedy: String,
    },
    /// An optional column is missing that was there before.
    #[error("table {table} no longer has column {}, which is mapped as {role}", listed(columns, "or"))]
    Removed {
        table: String,
        /// The possible names.
        columns: Vec<String>,
        role: &'static str,
        /// The option that finds it, if it was renamed.
        remedy: String,
    },
    /// The table has two of the possible columns.
    #[error("table {table} has columns {}, of which only one can be the {role}", listed(columns, "and"))]
    Several { table: String, columns: Vec<String>, role: &'static str },
    /// A column has a type that its role cannot have.
    #[error("column {column:?} of table {table} has type OID {type_id}, which cannot be the {role}")]
    Type {
        table: String,
        column: String,
        role: &'static str,
        /// The OID of its type.
        type_id: u32,
    },
}

/// Maps the values of one table's rows to roles.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The roles of each column, one bit each: a column may be both id and key.
    roles: Box<[u8]>,
    kinds: [Option<Kind>; Role::ALL.len()],
    /// The position and the kind of each column that becomes a header.
    placed: Box<[(usize, Kind)]>,
}

impl Plan {
    /// Maps the columns of a Relation message by name.
    pub fn new(relation: &Relation<'_>, names: &RoleNames) -> Result<Self, Mismatch> {
        let table = || format!("{}.{}", relation.schema, relation.name);
        let mut roles = vec![0; relation.columns.len()];
        let mut kinds = [None; Role::ALL.len()];
        for ((role, name), kind) in Role::ALL.into_iter().zip(&names.roles).zip(&mut kinds) {
            let Some(name) = name else { continue };
            let Some((place, found)) = find(relation, name, role.name(), |kind| role.accepts(kind))? else {
                if name.required {
                    let columns = relation.columns.iter().map(|column| (column.name, Kind::of(column.type_id)));
                    let remedy = both_names(role, names, columns);
                    let columns = name.columns.clone();
                    return Err(Mismatch::Missing { table: table(), columns, role: role.name(), remedy });
                }
                continue;
            };
            *kind = Some(found);
            if let Some(roles) = roles.get_mut(place) {
                *roles |= role.bit();
            }
        }
        let mut placed = Vec::new();
        for column in &names.placed {
            let found = find(relation, &column.name, PLACED, can_be_placed)?;
            placed.push(found.ok_or_else(|| Mismatch::Missing {
                table: table(),
                columns: column.name.columns.clone(),
                role: PLACED,
                remedy: column.remedy(),
            })?);
        }
        Ok(Self { roles: roles.into(), kinds, placed: placed.into() })
    }

    /// Checks that each role with a column in an earlier plan of the table has one in this plan: later events would
    /// lack its values.
    pub fn require_roles_of(&self, earlier: &Self, relation: &Relation<'_>, names: &RoleNames) -> Result<(), Mismatch> {
        let mut roles = Role::ALL.into_iter().zip(&earlier.kinds).zip(&self.kinds);
        let removed = roles.find(|((_, before), now)| before.is_some() && now.is_none());
        let Some(((role, _), _)) = removed else { return Ok(()) };
        let columns = relation.columns.iter().map(|column| (column.name, Kind::of(column.type_id)));
        let remedy = both_names(role, names, columns);
        let columns = names.roles.get(role as usize).and_then(Option::as_ref).map(|name| name.columns.clone());
        Err(Mismatch::Removed {
            table: format!("{}.{}", relation.schema, relation.name),
            columns: columns.unwrap_or_default(),
            role: role.name(),
            remedy,
        })
    }

    /// Maps a row.
    pub fn read<'a>(&'a self, tuple: Tuple<'a>) -> Result<Row<'a>, Malformed> {
        let columns = tuple.columns();
        if columns != self.roles.len() {
            return Err(Malformed::Impossible {
                field: "row column count",
                value: columns.try_into().unwrap_or(i64::MAX),
            });
        }
        let placed = (!self.placed.is_empty()).then_some((&*self.placed, tuple));
        let mut row = Row { values: [None; Role::ALL.len()], placed };
        tuple.walk(|column, cell| self.place(&mut row, column, cell))?;
        Ok(row)
    }

    /// Maps values in the order of the columns, without those that become headers: no preset that is polled has any.
    pub fn row<'a>(&self, cells: impl IntoIterator<Item = Cell<'a>>) -> Row<'a> {
        let mut row = Row { values: [None; Role::ALL.len()], placed: None };
        cells.into_iter().enumerate().for_each(|(column, cell)| self.place(&mut row, column, cell));
        row
    }

    /// Stores the value of a column under its roles.
    fn place<'a>(&self, row: &mut Row<'a>, column: usize, cell: Cell<'a>) {
        let mut played = self.roles.get(column).copied().unwrap_or_default();
        while played != 0 {
            let role = played.trailing_zeros() as usize;
            if let (Some(Some(kind)), Some(value)) = (self.kinds.get(role), row.values.get_mut(role)) {
                *value = Some(Value { cell, kind: *kind });
            }
            played &= played - 1;
        }
    }
}

/// Finds the column with one of these names: its position and its kind.
fn find(
    relation: &Relation<'_>,
    name: &Name,
    role: &'static str,
    accepts: impl Fn(Kind) -> bool,
) -> Result<Option<(usize, Kind)>, Mismatch> {
    let table = || format!("{}.{}", relation.schema, relation.name);
    let mut found = relation.columns.iter().enumerate().filter(|(_, column)| name.is(column.name));
    let Some((place, column)) = found.next() else { return Ok(None) };
    if let Some((_, other)) = found.next() {
        let columns = vec![column.name.to_owned(), other.name.to_owned()];
        return Err(Mismatch::Several { table: table(), columns, role });
    }
    match Kind::of(column.type_id).filter(|kind| accepts(*kind)) {
        Some(kind) => Ok(Some((place, kind))),
        None => {
            let (column, type_id) = (column.name.to_owned(), column.type_id);
            Err(Mismatch::Type { table: table(), column, role, type_id })
        }
    }
}

/// A row, by role.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    values: [Option<Value<'a>>; Role::ALL.len()],
    /// The columns that become headers, and all values.
    placed: Option<(&'a [(usize, Kind)], Tuple<'a>)>,
}

/// A value and its type.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a> {
    /// The value.
    pub cell: Cell<'a>,
    /// Its type.
    pub kind: Kind,
}

impl<'a> Row<'a> {
    /// Gives the value with this role; none if the table has no such column.
    #[must_use]
    pub fn value(&self, role: Role) -> Option<Value<'a>> {
        self.values.get(role as usize).copied().flatten()
    }

    /// Gives the values that become headers, in order.
    pub fn placed(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        self.placed.into_iter().flat_map(|(places, tuple)| {
            places.iter().map(move |(place, kind)| {
                // The row was walked before, so the value can be read.
                let mut found = Cell::Unchanged;
                let visit = |column: usize, cell: Cell<'a>| {
                    if column == *place {
                        found = cell;
                    }
                };
                let walked = tuple.walk(visit);
                debug_assert!(walked.is_ok(), "{walked:?}");
                Value { cell: found, kind: *kind }
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::decode::pgoutput::Column;
    use crate::relay::decode::pgoutput::Message;
    use crate::relay::decode::pgoutput::decode;

    fn names() -> RoleNames {
        let mut names = RoleNames::default();
        names.roles[Role::Id as usize] = Some(Name { columns: vec!["id".into()], required: true });
        names.roles[Role::Payload as usize] =
            Some(Name { columns: vec!["body".into(), "payload".into()], required: true });
        names.roles[Role::Headers as usize] = Some(Name { columns: vec!["headers".into()], required: false });
        names
    }

    fn relation<'a>(columns: &[(&'a str, u32)]) -> Relation<'a> {
        let columns = columns.iter().map(|(name, type_id)| Column { name, type_id: *type_id }).collect();
        Relation { id: 1, schema: "public", name: "t", columns }
    }

    #[test]
    fn c12_columns_are_found_by_name_wherever_they_stand() {
        let insert = b"I\0\0\0\x01N\0\x03t\0\0\0\x01xt\0\0\0\x01yt\0\0\0\x01z";
        let Ok(Message::Insert { row, .. }) = decode(insert) else { panic!("not an insert") };
        let rows = [
            (relation(&[("id", 25), ("other", 25), ("body", 25)]), b"x", b"z"),
            (relation(&[("body", 25), ("id", 25), ("other", 600)]), b"y", b"x"),
        ];
        for (relation, id, body) in rows {
            let plan = Plan::new(&relation, &names()).unwrap();
            let read = plan.read(row).unwrap();
            assert_eq!(read.placed().count(), 0);
            assert_eq!(read.value(Role::Id).unwrap().cell, Cell::Text(id));
            assert_eq!(read.value(Role::Payload).unwrap().cell, Cell::Text(body));
            assert!(read.value(Role::Headers).is_none());
        }
    }

    #[test]
    fn c10_a_missing_column_is_named() {
        let error = Plan::new(&relation(&[("id", 2950), ("at", 1184)]), &names()).unwrap_err();
        let text = "table public.t has no column \"body\" or \"payload\", which is mapped as payload";
        assert_eq!(error.to_string(), text);
        let rows: [(&[(&str, u32)], &str); 3] = [
            (&[("id", 2950), ("at", 1184)], "columns.payload = [\"body\", \"payload\", \"its new name\"]"),
            (&[("id", 2950), ("content", 3802)], "columns.payload = [\"body\", \"payload\", \"content\"]"),
            (
                &[("a", 25), ("headers", 3802), ("event_type", 25), ("b", 25)],
                "columns.payload = [\"body\", \"payload\", \"a\"] (or \"b\")",
            ),
        ];
        for (columns, expected) in rows {
            let columns = columns.iter().map(|(name, type_id)| (*name, Kind::of(*type_id)));
            assert_eq!(both_names(Role::Payload, &names(), columns), expected);
        }
    }

    #[test]
    fn c10_a_column_is_found_under_each_of_its_names_and_two_at_once_are_an_error() {
        for name in ["body", "payload"] {
            assert!(Plan::new(&relation(&[("id", 25), (name, 25)]), &names()).is_ok(), "{name}");
        }
        let error = Plan::new(&relation(&[("id", 25), ("payload", 25), ("body", 25)]), &names()).unwrap_err();
        let text = "table public.t has columns \"payload\" and \"body\", of which only one can be the payload";
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn c10_an_optional_column_that_is_gone_is_an_error() {
        let with = relation(&[("id", 2950), ("body", 3802), ("headers", 3802)]);
        let without = relation(&[("id", 2950), ("body", 3802), ("more", 3802)]);
        let (earlier, later) = (Plan::new(&with, &names()).unwrap(), Plan::new(&without, &names()).unwrap());
        earlier.require_roles_of(&later, &with, &names()).unwrap();
        later.require_roles_of(&later, &without, &names()).unwrap();
        let Err(Mismatch::Removed { role, remedy, .. }) = later.require_roles_of(&earlier, &without, &names()) else {
            panic!("no error")
        };
        assert_eq!((role, remedy.as_str()), ("headers", "columns.headers = [\"headers\", \"more\"]"));
    }

    #[test]
    fn c11_a_type_that_the_role_cannot_have_is_an_error() {
        let error = Plan::new(&relation(&[("id", 2950), ("body", 600)]), &names()).unwrap_err();
        assert!(matches!(error, Mismatch::Type { role: "payload", type_id: 600, .. }));
    }

    #[test]
    fn placed_columns_are_given_in_the_order_of_the_configuration_with_or_without_a_role() {
        let insert = b"I\0\0\0\x01N\0\x03t\0\0\0\x01xt\0\0\0\x01yn";
        let Ok(Message::Insert { row, .. }) = decode(insert) else { panic!("not an insert") };
        let placed = |columns: &[&str]| Placed {
            name: Name { columns: columns.iter().map(|column| (*column).to_owned()).collect(), required: true },
            header: "tenant".to_owned(),
        };
        let names = RoleNames { placed: vec![placed(&["b"]), placed(&["old", "id"]), placed(&["b"])], ..names() };
        let plan = Plan::new(&relation(&[("id", 25), ("body", 25), ("b", 23)]), &names).unwrap();
        let cells: Vec<_> = plan.read(row).unwrap().placed().map(|value| (value.cell, value.kind)).collect();
        let null = (Cell::Null, Kind::Integer);
        assert_eq!(cells, [null, (Cell::Text(b"x"), Kind::Text), null]);
        assert_eq!((names.use_of("b"), names.use_of("id"), names.use_of("c")), (Some("header"), Some("id"), None));
        let Err(Mismatch::Missing { role: "header", remedy, .. }) =
            Plan::new(&relation(&[("id", 25), ("body", 25)]), &names)
        else {
            panic!("not missing")
        };
        assert_eq!(remedy, "\"b|its new name:header:tenant\" in placements");
        let wrong = Plan::new(&relation(&[("id", 25), ("body", 25), ("b", 17)]), &names).unwrap_err();
        assert!(matches!(wrong, Mismatch::Type { role: "header", type_id: 17, .. }), "{wrong}");
    }

    #[test]
    fn a_renamed_column_is_never_taken_for_one_with_another_meaning() {
        let mut names = names();
        names.roles[Role::Payload as usize] = Some(Name { columns: vec!["payload".into()], required: true });
        names.unused = vec!["type"];
        let name = Name { columns: vec!["tenant".into()], required: true };
        names.placed = vec![Placed { name, header: "tenant".to_owned() }];
        let renamed = relation(&[("id", 2950), ("type", 1043), ("tenant", 25), ("body", 3802)]);
        let Err(Mismatch::Missing { remedy, .. }) = Plan::new(&renamed, &names) else { panic!("not missing") };
        assert_eq!(remedy, "columns.payload = [\"payload\", \"body\"]");
    }

    #[test]
    fn every_type_that_has_a_name_has_a_kind() {
        for name in ["text", "varchar", "bpchar", "name", "uuid", "int8", "int2", "int4", "json", "jsonb", "bytea"] {
            assert!(type_id(name).and_then(Kind::of).is_some(), "{name}");
        }
        assert_eq!(type_id("timestamptz").and_then(Kind::of), Some(Kind::Timestamptz));
        assert_eq!(type_id("point"), None);
    }

    #[test]
    fn a_row_with_another_number_of_columns_is_an_error() {
        let insert = b"I\0\0\0\x01N\0\x01n";
        let Ok(Message::Insert { row, .. }) = decode(insert) else { panic!("not an insert") };
        let plan = Plan::new(&relation(&[("id", 25), ("body", 25)]), &names()).unwrap();
        assert!(plan.read(row).is_err());
    }
}
