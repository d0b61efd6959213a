//! Where a partition continues.

/// The offset of the next record, and the leader epoch of what is before it. The epoch is not known if the offset was
/// committed without one, or chosen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Position {
    pub(crate) offset: i64,
    pub(crate) epoch: Option<i32>,
}

impl Position {
    /// Returns the position with the higher offset, and of two equal offsets the one with an epoch.
    #[must_use]
    pub(crate) fn later(self, other: Option<Self>) -> Self {
        let is_later = |other: &Self| (other.offset, other.epoch) > (self.offset, self.epoch);
        other.filter(is_later).unwrap_or(self)
    }
}

/// A position without a leader epoch.
impl From<i64> for Position {
    fn from(offset: i64) -> Self {
        Self { offset, epoch: None }
    }
}
