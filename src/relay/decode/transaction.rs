//! The state of the stream: between transactions, or within one.
//!
//! A transaction that begins here has already committed, so its rows may be published as they come. The fields of Begin
//! exist only while a transaction is open; a stream that violates the protocol gives a [`Violation`].

use std::mem;

use crate::lsn::Lsn;
use crate::relay::decode::pgoutput::Micros;

/// The fields of Begin.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Begun {
    /// Where its commit record starts.
    pub commit_lsn: Lsn,
    /// When it committed.
    pub committed_at: Micros,
    /// Its transaction id.
    pub xid: u32,
}

/// The state of the stream.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum TransactionState {
    /// No transaction is open.
    #[default]
    Between,
    /// This transaction is open.
    Within(Begun),
    /// This transaction is open, and its rows are skipped: it was enqueued completely before the connection was lost.
    Skipping(Begun),
}

/// The stream violates the protocol.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Violation {
    /// Begin within a transaction.
    #[error("Begin of transaction {xid} within another transaction")]
    BeginInside {
        /// The second transaction.
        xid: u32,
    },
    #[error("Commit at {found} without Begin")]
    CommitWithoutBegin {
        /// Its position.
        found: Lsn,
    },
    /// Commit at another position than in Begin.
    #[error("Commit at {found} instead of {announced}")]
    CommitElsewhere {
        /// The position in Begin.
        announced: Lsn,
        /// The position in Commit.
        found: Lsn,
    },
    /// The commit record ends before it starts.
    #[error("Commit at {commit} with its end before it, at {end}")]
    EndBeforeCommit {
        /// Its start.
        commit: Lsn,
        end: Lsn,
    },
    /// Transactions out of commit order.
    #[error("transaction that ends at {found} after one that ends at {earlier}")]
    BackwardCommit {
        /// The end of the earlier one.
        earlier: Lsn,
        /// The end of this one.
        found: Lsn,
    },
    /// A row outside a transaction.
    #[error("row outside a transaction")]
    RowOutside,
    /// A row without a Relation message of its table.
    #[error("row of relation {relation} without its Relation message")]
    UnknownRelation {
        /// The table's OID.
        relation: u32,
    },
}

impl TransactionState {
    /// Enters a transaction.
    pub fn enter(&mut self, begun: Begun) -> Result<(), Violation> {
        self.open(begun, Self::Within(begun))
    }

    /// Enters a transaction that is skipped.
    pub fn skip(&mut self, begun: Begun) -> Result<(), Violation> {
        self.open(begun, Self::Skipping(begun))
    }

    /// Leaves the transaction whose commit record starts at `found` and ends at `end`. Gives the state before.
    pub fn leave(&mut self, found: Lsn, end: Lsn) -> Result<Self, Violation> {
        match mem::take(self) {
            Self::Within(begun) | Self::Skipping(begun) if begun.commit_lsn != found => {
                Err(Violation::CommitElsewhere { announced: begun.commit_lsn, found })
            }
            Self::Within(_) | Self::Skipping(_) if end <= found => {
                Err(Violation::EndBeforeCommit { commit: found, end })
            }
            left @ (Self::Within(_) | Self::Skipping(_)) => Ok(left),
            Self::Between => Err(Violation::CommitWithoutBegin { found }),
        }
    }

    /// Gives the open transaction, which a row needs.
    pub const fn within(&self) -> Result<Begun, Violation> {
        match self {
            Self::Within(begun) | Self::Skipping(begun) => Ok(*begun),
            Self::Between => Err(Violation::RowOutside),
        }
    }

    fn open(&mut self, begun: Begun, opened: Self) -> Result<(), Violation> {
        if *self != Self::Between {
            return Err(Violation::BeginInside { xid: begun.xid });
        }
        *self = opened;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn begun(commit: u64) -> Begun {
        Begun { commit_lsn: Lsn::from_wire(commit), committed_at: 0, xid: 7 }
    }

    #[test]
    fn a_transaction_is_entered_and_left() {
        let mut state = TransactionState::default();
        state.enter(begun(10)).unwrap();
        assert_eq!(state.within(), Ok(begun(10)));
        let left = state.leave(Lsn::from_wire(10), Lsn::from_wire(12));
        assert_eq!((left, state), (Ok(TransactionState::Within(begun(10))), TransactionState::Between));
        state.skip(begun(20)).unwrap();
        assert_eq!((state.within(), state.enter(begun(30))), (Ok(begun(20)), Err(Violation::BeginInside { xid: 7 })));
        let left = state.leave(Lsn::from_wire(20), Lsn::from_wire(22));
        assert_eq!(left, Ok(TransactionState::Skipping(begun(20))));
    }

    #[test]
    fn j3_j4_each_violation_of_the_protocol_has_its_own_error() {
        let lsn = Lsn::from_wire;
        let mut state = TransactionState::default();
        assert_eq!(state.within(), Err(Violation::RowOutside));
        assert_eq!(state.leave(lsn(1), lsn(2)), Err(Violation::CommitWithoutBegin { found: lsn(1) }));
        state.enter(begun(10)).unwrap();
        assert_eq!(state.enter(begun(20)), Err(Violation::BeginInside { xid: 7 }));
        assert_eq!(
            state.leave(lsn(11), lsn(12)),
            Err(Violation::CommitElsewhere { announced: lsn(10), found: lsn(11) })
        );
        state.enter(begun(10)).unwrap();
        assert_eq!(state.leave(lsn(10), lsn(10)), Err(Violation::EndBeforeCommit { commit: lsn(10), end: lsn(10) }));
    }
}
