//! Detects recurring errors: the same error at the same position twice is not transient.

/// A position of the source, as two numbers: in the WAL the commit of the transaction and the row in it.
pub(in crate::relay) type FailurePosition = (u64, u64);

/// The last error and its position.
#[derive(Clone, Debug, Default)]
pub(in crate::relay) struct Recurrence {
    last: Option<(String, FailurePosition)>,
}

impl Recurrence {
    /// Records an error. Says whether the previous one was the same at the same position. Errors without a position,
    /// such as a lost connection, are not recorded here.
    pub(in crate::relay) fn is_recurring(&mut self, what: &str, position: FailurePosition) -> bool {
        let is_recurring = self.last.as_ref().is_some_and(|(last, at)| last == what && *at == position);
        self.last = Some((what.to_owned(), position));
        is_recurring
    }

    /// Forgets the last error: what failed has worked since.
    pub(in crate::relay) fn forget(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_error_at_the_same_position_recurs() {
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
        recurrence.forget();
        assert!(!recurrence.is_recurring("XX001", (8, 2)), "it worked in between");
    }
}
