//! Whether the numbers of a sequence are still an order: it must not start over behind its rows, nor come to its end unseen.

use crate::relay::catalog::quote;

use super::error::Error;
use super::sql::TableColumns;

/// From this share of its numbers on, in percent, a sequence is told of.
const WARN_PERCENT: u64 = 80;

/// A sequence that the numbers of an outbox are drawn from.
#[derive(Clone, Debug)]
pub(super) struct Sequence {
    /// Its id.
    pub(super) id: u32,
    /// Its name, quoted, with its schema.
    pub(super) name: String,
    /// The last number that it, or the column, can have.
    pub(super) end: i64,
}

/// How far a sequence has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drawn {
    /// The highest number of an unpublished row.
    pub(super) highest: Option<i64>,
    /// The number drawn last; none if none has been, or was since it started over.
    pub(super) last: Option<i64>,
}

impl Drawn {
    /// Insists that no row is ahead of the sequence: rows to come would stand before it.
    pub(super) fn check(&self, table: &str, names: &TableColumns, sequence: &Sequence) -> Result<(), Error> {
        match (self.highest, self.last) {
            (Some(highest), Some(last)) if last < highest => {
                let (highest, last) = (highest.to_string(), last.to_string());
                let remedy = renumber(names, &sequence.name);
                let (table, sequence) = (table.to_owned(), sequence.name.clone());
                Err(Error::StartedOver { table, sequence, last, highest, remedy })
            }
            _ => Ok(()),
        }
    }

    /// Gives how many percent of its numbers a sequence has used, once that is worth telling.
    pub(super) fn percent_used(&self, sequence: &Sequence) -> Option<u64> {
        let last = u64::try_from(self.last?).ok()?;
        let end = u64::try_from(sequence.end).ok().filter(|end| *end > 0)?;
        let percent = u64::try_from(u128::from(last) * 100 / u128::from(end)).ok()?;
        (percent >= WARN_PERCENT).then_some(percent)
    }
}

/// Moves the rows that were written since behind those from before, and the sequence behind both.
fn renumber(names: &TableColumns, sequence: &str) -> String {
    let (column, published_at) = (quote(&names.sequence), quote(&names.published_at));
    format!(
        "BEGIN; LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE; UPDATE {table} SET {column} = {column} + (SELECT max({column}) \
         FROM {table}) WHERE {published_at} IS NULL AND {column} <= (SELECT last_value FROM {sequence}); SELECT \
         setval('{literal}', (SELECT max({column}) FROM {table})); COMMIT",
        table = names.table,
        literal = sequence.replace('\'', "''"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_that_nears_its_end_is_told_of_in_time() {
        let int4 = Sequence { id: 1, name: "s".to_owned(), end: i32::MAX.into() };
        let int8 = Sequence { end: i64::MAX, ..int4.clone() };
        let drawn = |last| Drawn { highest: None, last };
        assert_eq!(drawn(Some(1_717_986_918)).percent_used(&int4), Some(80));
        assert_eq!(drawn(Some(i32::MAX.into())).percent_used(&int4), Some(100));
        assert_eq!(drawn(Some(i32::MAX.into())).percent_used(&int8), None);
        assert_eq!(drawn(Some(i64::MAX)).percent_used(&int8), Some(100));
        for last in [None, Some(-5), Some(1_000)] {
            assert_eq!(drawn(last).percent_used(&int4), None);
        }
    }
}
