//! Which of the locked rows may be published, so that no row overtakes an earlier one of its key; and how many rows to
//! lock.
//!
//! `FOR UPDATE SKIP LOCKED` skips a row that another transaction has locked, but not the later rows of its key. So a
//! second query finds the unpublished rows up to the last locked row. A key with such a row that is not locked here is
//! blocked from there on.

use std::collections::HashMap;

/// A key as it is stored, in whatever encoding.
pub(super) type Key = Vec<u8>;
/// The keys that have an unpublished row which is not locked here: for each the sequence of the first one.
pub(super) type Blocked = HashMap<Key, i64>;

/// Says whether a row may be published. A row without a key has no order.
pub(super) fn may_publish(key: &[u8], sequence: i64, blocked: &Blocked) -> bool {
    key.is_empty() || blocked.get(key).is_none_or(|first| sequence <= *first)
}

/// Finds two rows of one key with the same sequence, both locked here or one of them elsewhere: their order is unknown.
/// The rows are in the order of their sequence. Gives the index of a locked one.
pub(super) fn tie<'k>(rows: impl Iterator<Item = (&'k [u8], i64)>, blocked: &Blocked) -> Option<usize> {
    let mut seen: HashMap<&[u8], i64> = HashMap::new();
    rows.enumerate()
        .filter(|(_, (key, _))| !key.is_empty())
        .find(|(_, (key, sequence))| {
            seen.insert(key, *sequence) == Some(*sequence) || blocked.get(*key) == Some(sequence)
        })
        .map(|(index, _)| index)
}

/// The number of rows of a batch: as many as fit into the memory, estimated from earlier rows.
#[derive(Clone, Debug)]
pub(super) struct BatchSize {
    max_rows: u32,
    max_bytes: u64,
    row_bytes: u64,
}

impl BatchSize {
    /// Starts with the estimate of small rows.
    pub(super) const fn new(max_rows: u32, max_bytes: u64) -> Self {
        Self { max_rows, max_bytes, row_bytes: 1 }
    }

    /// Gives the number of rows to request.
    pub(super) fn rows(&self) -> i64 {
        i64::try_from((self.max_bytes / self.row_bytes).clamp(1, u64::from(self.max_rows))).unwrap_or(1)
    }

    /// Gives the bytes above which no further row is read; one row always is.
    pub(super) const fn bytes(&self) -> u64 {
        self.max_bytes
    }

    /// Updates the estimate: at once for larger rows, gradually for smaller ones.
    pub(super) fn observe(&mut self, rows: usize, bytes: u64) {
        let each = bytes.checked_div(rows as u64).unwrap_or_default();
        self.row_bytes = each.max(self.row_bytes / 2).max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d14_a_row_locked_elsewhere_holds_back_only_the_later_rows_of_its_key() {
        let blocked = Blocked::from([(b"a".to_vec(), 5)]);
        let rows = [("a", 4, true), ("a", 6, false), ("a", 7, false), ("b", 6, true), ("", 6, true)];
        for (key, sequence, expected) in rows {
            assert_eq!(may_publish(key.as_bytes(), sequence, &blocked), expected, "{key} {sequence}");
        }
    }

    #[test]
    fn rows_of_one_key_with_the_same_sequence_are_found_here_and_elsewhere() {
        let elsewhere = Blocked::from([(b"a".to_vec(), 5)]);
        let nowhere = Blocked::new();
        let tied = |rows: &[(&'static str, i64)], blocked| {
            tie(rows.iter().map(|(key, sequence)| (key.as_bytes(), *sequence)), blocked)
        };
        assert_eq!(tied(&[("a", 4), ("b", 4), ("a", 5), ("", 6), ("", 6)], &nowhere), None);
        assert_eq!(tied(&[("b", 4), ("a", 4), ("a", 4)], &nowhere), Some(2));
        assert_eq!(tied(&[("a", 4), ("b", 4), ("b", 4)], &nowhere), Some(2), "also with another key in between");
        assert_eq!(tied(&[("a", 4), ("a", 5)], &elsewhere), Some(1));
    }

    #[test]
    fn g6_large_rows_make_smaller_batches() {
        let mut batch_size = BatchSize::new(1_000, 1 << 20);
        assert_eq!(batch_size.rows(), 1_000);
        batch_size.observe(10, 10 << 20);
        assert_eq!(batch_size.rows(), 1, "a row of 1 MiB fills the memory");
        let mut rounds = 0;
        while batch_size.rows() < 1_000 {
            batch_size.observe(100, 100 * 100);
            rounds += 1;
        }
        assert!((5..20).contains(&rounds), "{rounds}");
        batch_size.observe(0, 0);
        assert_eq!(batch_size.rows(), 1_000);
    }
}
