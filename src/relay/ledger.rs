//! What is on the way to Kafka, and up to where everything has arrived.

use crate::lsn::Lsn;

/// Proof that everything up to here is in Kafka. Only the ledger can make one.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Confirmed(Lsn);

impl Confirmed {
    /// Gives the position.
    #[must_use]
    pub const fn lsn(self) -> Lsn {
        self.0
    }
}
