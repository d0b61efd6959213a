//! The same failure at the same place twice is not transient: whatever comes again would meet it again.

/// Where in the source something failed, as two numbers: of the log, the commit of the transaction and the row within it.
pub(in crate::relay) type FailurePosition = (u64, u64);

/// What failed last, and where.
#[derive(Clone, Debug, Default)]
pub(in crate::relay) struct Recurrence {
    last: Option<(String, FailurePosition)>,
}

impl Recurrence {
    /// Learns of a failure. Says whether the one before was the same, at the same place; what happened on the way there, such
    /// as a lost connection, is not learned of and changes nothing.
    pub(in crate::relay) fn is_recurring(&mut self, what: &str, position: FailurePosition) -> bool {
        let is_recurring = self.last.as_ref().is_some_and(|(last, at)| last == what && *at == position);
        self.last = Some((what.to_owned(), position));
        is_recurring
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_failure_at_the_same_place_is_one_again() {
        let mut recurrence = Recurrence::default();
        let rows = [
            ("XX000", (7, 1), false),
            ("XX000", (7, 2), false),
            ("XX001", (7, 2), false),
            ("XX001", (7, 2), true),
            ("XX001", (8, 2), false),
        ];
        for (what, position, expected) in rows {
            assert_eq!(recurrence.is_recurring(what, position), expected, "{what} {position:?}");
        }
    }
}
