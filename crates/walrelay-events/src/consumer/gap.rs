//! What is wrong with a position: the records from it on were deleted, or the log before it is no longer the same.

use crate::consumer::position::Position;

/// Where the log of a partition differs from the one that a position was reached in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Branch {
    pub(crate) offset: i64,
    /// The epoch of the leader that continues there, if it is known.
    pub(crate) leader_epoch: Option<i32>,
}

/// Why a partition cannot continue at its position.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Gap {
    /// Its records were deleted, or its topic was recreated.
    Deleted,
    /// A leader without some of the records before the position was elected.
    Truncated {
        /// The first offset with another record, or without one.
        parts_at: i64,
    },
}

impl Gap {
    /// Compares a position with the offsets that the partition holds, and with where its log differs, if it does.
    pub(crate) fn find(next: Position, (oldest, end): (i64, i64), branch: Option<Branch>) -> Option<Self> {
        if next.offset < oldest {
            return Some(Self::Deleted);
        }
        let is_outside = next.offset > end;
        let Some(branch) = branch.filter(|branch| branch.offset < next.offset) else {
            return is_outside.then_some(Self::Deleted);
        };
        // Logs part when a leader is elected, and its epoch is later. A recreated topic counts its epochs from 0 again.
        let is_elected = branch.leader_epoch > next.epoch;
        let parts_at = if is_elected { branch.offset.max(oldest) } else { oldest };
        Some(if is_outside && !is_elected { Self::Deleted } else { Self::Truncated { parts_at } })
    }

    /// Returns the offset after the gap.
    pub(crate) const fn continues_at(self, oldest: i64) -> i64 {
        match self {
            Self::Deleted => oldest,
            Self::Truncated { parts_at } => parts_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_told_from_a_truncated_log_and_from_a_recreated_topic() {
        let next = Position { offset: 20, epoch: Some(3) };
        let branch = |offset, leader_epoch| Some(Branch { offset, leader_epoch });
        let truncated = |parts_at| Some(Gap::Truncated { parts_at });
        let rows = [
            ((0, 20), None, None),
            ((0, 30), branch(20, Some(4)), None),
            ((0, 30), branch(25, Some(4)), None),
            ((21, 30), branch(10, Some(4)), Some(Gap::Deleted)),
            ((0, 10), None, Some(Gap::Deleted)),
            ((0, 10), branch(10, Some(4)), truncated(10)),
            ((0, 30), branch(10, Some(4)), truncated(10)),
            ((12, 30), branch(10, Some(4)), truncated(12)),
            // A topic of the same name.
            ((0, 10), branch(10, Some(3)), Some(Gap::Deleted)),
            ((0, 10), branch(0, Some(0)), Some(Gap::Deleted)),
            ((0, 30), branch(0, Some(0)), truncated(0)),
        ];
        for (held, branch, expected) in rows {
            assert_eq!(Gap::find(next, held, branch), expected, "{held:?} {branch:?}");
        }
        assert_eq!((Gap::Deleted.continues_at(7), Gap::Truncated { parts_at: 9 }.continues_at(7)), (7, 9));
    }
}
