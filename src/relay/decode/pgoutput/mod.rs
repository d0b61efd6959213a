//! pgoutput, protocol version 1: the messages of PostgreSQL's logical decoding.
//!
//! Everything is borrowed from the frame. A message kind that version 1 does not have is an error: it could contain an
//! event.
//!
//! Layouts:
//! [Logical Replication Message Formats](https://www.postgresql.org/docs/18/protocol-logicalrep-message-formats.html),
//! with [`Tuple`] as TupleData.

use crate::cursor::Cursor;
use crate::cursor::Malformed;
use crate::lsn::Lsn;

/// Microseconds since PostgreSQL's epoch, 2000-01-01 00:00:00 UTC.
pub type Micros = i64;

#[derive(Clone, Debug, PartialEq)]
pub enum Message<'a> {
    /// A transaction starts; it has already committed.
    Begin {
        /// Where its commit record starts.
        final_lsn: Lsn,
        /// When it committed.
        committed_at: Micros,
        /// Its transaction id.
        xid: u32,
    },
    /// A transaction ends.
    Commit {
        /// Where its commit record starts.
        commit_lsn: Lsn,
        /// Where its commit record ends: the only position that may be confirmed.
        end_lsn: Lsn,
        /// When it committed.
        committed_at: Micros,
    },
    /// The transaction came from another server.
    Origin,
    /// The columns of a table, valid until the next message for the same OID.
    Relation(Relation<'a>),
    /// A type that is not built in; for a domain the name of its base type.
    Type {
        /// The type's OID.
        id: u32,
        /// The schema; empty for `pg_catalog`.
        schema: &'a str,
        name: &'a str,
    },
    /// A row was inserted.
    Insert {
        /// The table.
        relation: u32,
        row: Tuple<'a>,
    },
    /// A row was updated.
    Update {
        /// The table.
        relation: u32,
    },
    /// A row was deleted.
    Delete {
        /// The table.
        relation: u32,
    },
    /// Tables were truncated.
    Truncate,
    /// A logical decoding message of an application.
    Logical,
}

/// The columns of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Relation<'a> {
    /// The table's OID.
    pub id: u32,
    /// Its schema; empty for `pg_catalog`.
    pub schema: &'a str,
    pub name: &'a str,
    /// Its columns, in the order of a row's values.
    pub columns: Vec<Column<'a>>,
}

/// A column of a table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Column<'a> {
    pub name: &'a str,
    /// The OID of its type.
    pub type_id: u32,
}

/// A row, not yet parsed.
#[derive(Clone, Copy, Debug)]
pub struct Tuple<'a> {
    columns: usize,
    cells: Cursor<'a>,
}

/// One value of a row.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cell<'a> {
    /// SQL NULL.
    Null,
    /// An unchanged TOASTed value; never in an insert.
    Unchanged,
    /// The type's text form.
    Text(&'a [u8]),
    /// The type's binary form.
    Binary(&'a [u8]),
}

pub fn decode(bytes: &[u8]) -> Result<Message<'_>, Malformed> {
    let mut cursor = Cursor::new(bytes);
    match cursor.u8("message kind")? {
        // Most messages are inserts.
        b'I' => insert(cursor),
        b'B' => begin(cursor),
        b'C' => commit(cursor),
        b'R' => relation(cursor),
        b'U' => update(cursor),
        b'D' => delete(cursor),
        b'T' => truncate(cursor),
        b'O' => origin(cursor),
        b'Y' => type_name(cursor),
        b'M' => logical(cursor),
        kind => Err(Malformed::UnknownKind { what: "pgoutput message", kind }),
    }
}

fn begin(mut cursor: Cursor<'_>) -> Result<Message<'_>, Malformed> {
    let final_lsn = Lsn::from_wire(cursor.u64("begin position")?);
    let committed_at = cursor.i64("begin commit time")?;
    let xid = cursor.u32("begin transaction id")?;
    cursor.finish("begin")?;
    Ok(Message::Begin { final_lsn, committed_at, xid })
}

fn commit(mut cursor: Cursor<'_>) -> Result<Message<'_>, Malformed> {
    cursor.u8("commit flags")?;
    let commit_lsn = Lsn::from_wire(cursor.u64("commit position")?);
    let end_lsn = Lsn::from_wire(cursor.u64("commit end")?);
    let committed_at = cursor.i64("commit time")?;
    cursor.finish("commit")?;
    Ok(Message::Commit { commit_lsn, end_lsn, committed_at })
}

fn relation(mut cursor: Cursor<'_>) -> Result<Message<'_>, Malformed> {
    let id = cursor.u32("relation id")?;
    let schema = cursor.text("relation schema")?;
    let name = cursor.text("relation name")?;
    cursor.u8("replica identity")?;
    let count = cursor.count("relation column count")?;
    let mut columns = Vec::new();
    for _ in 0..count {
        cursor.u8("column flags")?;
        let name = cursor.text("column name")?;
        let type_id = cursor.u32("column type")?;
        cursor.i32("column type modifier")?;
        columns.push(Column { name, type_id });
    }
    cursor.finish("relation")?;
    Ok(Message::Relation(Relation { id, schema, name, columns }))
}

fn insert(mut cursor: Cursor<'_>) -> Result<Message<'_>, Malformed> {
    let relation = cursor.u32("insert relation")?;
    match cursor.u8("insert row kind")? {
        b'N' => Ok(Message::Insert { relation, row: Tuple::start(&mut cursor)? }),
        kind => Err(Malformed::UnknownKind { what: "row in an insert", kind }),
    }
}

fn update(mut cursor: Cursor<'_>) -> Result<Message<'_>, Malformed> {
    let relation = cursor.u32("update relation")?;
    let mut kind = cursor.u8("update row kind")?;
    if matches!(kind, b'K' | b'O') {
        cursor = Tuple::start(&mut cursor)?.skip()?;
        kind = cursor.u8("update row kind")?;
    }
    if kind != b'N' {
        return Err(Malformed::UnknownKind { what: "row in an update", kind });
    }
    Tuple::start(&mut cursor)?.skip()?.finish("update")?;
    Ok(Message::Update { relation })
}

fn delete(mut cursor: Cursor<'_>) -> Result<Message<'_>, Malformed> {
    let relation = cursor.u32("delete relation")?;
    match cursor.u8("delete row kind")? {
        b'K' | b'O' => Tuple::start(&mut cursor)?.skip()?.finish("delete")?,
        kind => return Err(Malformed::UnknownKind { what: "row in a delete", kind }),
    }
    Ok(Message::Delete { relation })
}

fn truncate(mut cursor: Cursor<'_>) -> Result<Message<'_>, Malformed> {
    let count = cursor.i32("truncate relation count")?;
    cursor.u8("truncate options")?;
    for _ in 0..count {
        cursor.u32("truncate relation")?;
    }
    cursor.finish("truncate")?;
    Ok(Message::Truncate)
}

fn origin(mut cursor: Cursor<'_>) -> Result<Message<'_>, Malformed> {
    cursor.u64("origin position")?;
    cursor.text("origin name")?;
    cursor.finish("origin")?;
    Ok(Message::Origin)
}

fn type_name(mut cursor: Cursor<'_>) -> Result<Message<'_>, Malformed> {
    let id = cursor.u32("type id")?;
    let schema = cursor.text("type schema")?;
    let name = cursor.text("type name")?;
    cursor.finish("type")?;
    Ok(Message::Type { id, schema, name })
}

fn logical(mut cursor: Cursor<'_>) -> Result<Message<'_>, Malformed> {
    cursor.u8("logical message flags")?;
    cursor.u64("logical message position")?;
    cursor.text("logical message prefix")?;
    cursor.sized("logical message content")?;
    cursor.finish("logical message")?;
    Ok(Message::Logical)
}

impl<'a> Tuple<'a> {
    fn start(cursor: &mut Cursor<'a>) -> Result<Self, Malformed> {
        let columns = cursor.count("row column count")?;
        Ok(Self { columns, cells: *cursor })
    }

    /// Gives the number of columns.
    #[must_use]
    pub const fn columns(&self) -> usize {
        self.columns
    }

    /// Passes every value, with its column's index, to `visit`. Bytes after the last one are an error.
    pub fn walk(self, mut visit: impl FnMut(usize, Cell<'a>)) -> Result<(), Malformed> {
        let mut cells = self.cells;
        for column in 0..self.columns {
            visit(column, cell(&mut cells)?);
        }
        cells.finish("row")
    }

    fn skip(mut self) -> Result<Cursor<'a>, Malformed> {
        for _ in 0..self.columns {
            cell(&mut self.cells)?;
        }
        Ok(self.cells)
    }
}

impl PartialEq for Tuple<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.columns == other.columns && self.cells.rest() == other.cells.rest()
    }
}

#[inline]
fn cell<'a>(cursor: &mut Cursor<'a>) -> Result<Cell<'a>, Malformed> {
    match cursor.u8("value kind")? {
        b't' => Ok(Cell::Text(cursor.sized("text value")?)),
        b'b' => Ok(Cell::Binary(cursor.sized("binary value")?)),
        b'n' => Ok(Cell::Null),
        b'u' => Ok(Cell::Unchanged),
        kind => Err(Malformed::UnknownKind { what: "value kind", kind }),
    }
}

#[cfg(test)]
mod tests;
