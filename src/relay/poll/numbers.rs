//! Checks the numbers of a sequence: it must not be reset below its rows, and must not reach its end unnoticed.

use crate::relay::catalog::quote;

use super::error::Error;
use super::sql::TableColumns;

/// From this used percentage on there is a warning.
const WARN_PERCENT: u64 = 80;

/// A sequence of an outbox.
#[derive(Clone, Debug)]
pub(super) struct Sequence {
    /// Its OID.
    pub(super) id: u32,
    /// Its name, quoted, with its schema.
    pub(super) name: String,
    /// Its highest number, or the column's.
    pub(super) end: i64,
}

/// The last value of a sequence, and the highest unpublished one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drawn {
    /// The highest number of an unpublished row.
    pub(super) highest: Option<i64>,
    /// The last value; none before the first, or after a reset.
    pub(super) last: Option<i64>,
}

impl Drawn {
    /// Checks that no row is ahead of the sequence: later rows would get lower numbers.
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

    /// Gives the used percentage of a sequence, from [`WARN_PERCENT`] on.
    pub(super) fn percent_used(&self, sequence: &Sequence) -> Option<u64> {
        let last = u64::try_from(self.last?).ok()?;
        let end = u64::try_from(sequence.end).ok().filter(|end| *end > 0)?;
        let percent = u64::try_from(u128::from(last) * 100 / u128::from(end)).ok()?;
        (percent >= WARN_PERCENT).then_some(percent)
    }
}

/// The statements that number the later rows after the earlier ones, and set the sequence after both.
fn renumber(names: &TableColumns, sequence: &str) -> String {
    let (column, published_at) = (quote(&names.sequence), quote(&names.published_at));
    format!(
        "BEGIN; LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE; UPDATE {table} SET {column} = {column} + (SELECT \
         max({column}) FROM {table}) WHERE {published_at} IS NULL AND {column} <= (SELECT last_value FROM {sequence}); \
         SELECT setval('{literal}', (SELECT max({column}) FROM {table})); COMMIT",
        table = names.table,
        literal = sequence.replace('\'', "''"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_near_its_end_gives_a_warning() {
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
