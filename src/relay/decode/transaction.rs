//! Where in the stream we are: between transactions, or within one.
//!
//! A transaction that begins here has already committed, so its rows may be published as they come. BEGIN's facts exist
//! exactly while a transaction is open; a stream that breaks its own protocol can only be returned as a [`Violation`].

use std::mem;

use crate::lsn::Lsn;
use crate::relay::decode::pgoutput::Micros;

/// The facts of the transaction that is being received.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Begun {
    /// Where its commit record starts.
    pub commit_lsn: Lsn,
    /// When it committed.
    pub committed_at: Micros,
    /// Its transaction id.
    pub xid: u32,
}

/// Where in the stream we are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Place {
    /// No transaction is open.
    #[default]
    Between,
    /// Rows of this transaction come.
    Within(Begun),
    /// Rows of this transaction come, which was taken whole before the connection broke: they are skipped.
    Skipping(Begun),
}

/// The stream breaks the rules of its own protocol.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Violation {
    /// A transaction begins inside another.
    #[error("transaction {xid} begins inside another")]
    BeginInside {
        /// The second transaction.
        xid: u32,
    },
    /// A commit without its begin.
    #[error("a commit at {found} without a begin")]
    CommitWithoutBegin {
        /// Where.
        found: Lsn,
    },
    /// The commit is not the one that the begin announced.
    #[error("a commit at {found} where {announced} was announced")]
    CommitElsewhere {
        /// What BEGIN said.
        announced: Lsn,
        /// What COMMIT says.
        found: Lsn,
    },
    /// A commit ends before it starts.
    #[error("a commit at {commit} that ends before it, at {end}")]
    EndBeforeCommit {
        /// Its start.
        commit: Lsn,
        /// Its end.
        end: Lsn,
    },
    /// A transaction committed before the one received earlier.
    #[error("a transaction that ends at {found} after one that ends at {earlier}")]
    BackwardCommit {
        /// The end of the earlier one.
        earlier: Lsn,
        /// The end of this one.
        found: Lsn,
    },
    /// A row outside any transaction.
    #[error("a row outside any transaction")]
    RowOutside,
    /// A row of a table whose shape was not sent.
    #[error("a row of table {relation} whose shape was not sent")]
    UnknownRelation {
        /// The table's id.
        relation: u32,
    },
}

impl Place {
    /// Enters a transaction whose rows are taken.
    pub fn enter(&mut self, begun: Begun) -> Result<(), Violation> {
        self.open(begun, Self::Within(begun))
    }

    /// Enters a transaction whose rows are skipped.
    pub fn skip(&mut self, begun: Begun) -> Result<(), Violation> {
        self.open(begun, Self::Skipping(begun))
    }

    /// Leaves the transaction whose commit record starts at `found` and ends at `end`. Gives where it was.
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
        let mut place = Place::default();
        place.enter(begun(10)).unwrap();
        assert_eq!(place.within(), Ok(begun(10)));
        assert_eq!(place.leave(Lsn::from_wire(10), Lsn::from_wire(12)), Ok(Place::Within(begun(10))));
        assert_eq!(place, Place::Between);
        place.skip(begun(20)).unwrap();
        assert_eq!((place.within(), place.enter(begun(30))), (Ok(begun(20)), Err(Violation::BeginInside { xid: 7 })));
        assert_eq!(place.leave(Lsn::from_wire(20), Lsn::from_wire(22)), Ok(Place::Skipping(begun(20))));
    }

    #[test]
    fn j3_j4_a_broken_protocol_has_a_name_for_each_breach() {
        let lsn = Lsn::from_wire;
        let mut place = Place::default();
        assert_eq!(place.within(), Err(Violation::RowOutside));
        assert_eq!(place.leave(lsn(1), lsn(2)), Err(Violation::CommitWithoutBegin { found: lsn(1) }));
        place.enter(begun(10)).unwrap();
        assert_eq!(place.enter(begun(20)), Err(Violation::BeginInside { xid: 7 }));
        assert_eq!(
            place.leave(lsn(11), lsn(12)),
            Err(Violation::CommitElsewhere { announced: lsn(10), found: lsn(11) })
        );
        place.enter(begun(10)).unwrap();
        assert_eq!(place.leave(lsn(10), lsn(10)), Err(Violation::EndBeforeCommit { commit: lsn(10), end: lsn(10) }));
    }
}
