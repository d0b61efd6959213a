//! The replication slot as `pg_replication_slots` shows it.

use crate::lsn::Lsn;

/// `pg_replication_slots.wal_status`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WalStatus {
    /// Within `max_wal_size`.
    Reserved,
    /// Beyond `max_wal_size`, still retained.
    Extended,
    /// No longer retained: the next checkpoint may remove WAL that the slot needs.
    Unreserved,
    /// WAL that the slot needs was removed: events are missing.
    Lost,
}

/// `pg_replication_slots.invalidation_reason` (PostgreSQL 17 and later).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Invalidation {
    /// WAL that the slot needs was removed.
    WalRemoved,
    /// Catalog rows that the slot needs were removed.
    RowsRemoved,
    /// `wal_level` was lowered.
    WalLevelInsufficient,
    /// The slot was not used for `idle_replication_slot_timeout`.
    IdleTimeout,
    /// A reason of a later version.
    Other,
}

/// The slot's state at one query.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SlotView {
    /// The time of the query, in microseconds since 1970.
    pub polled_micros: u64,
    /// Whether a walsender uses it.
    pub active: bool,
    /// The process of that walsender.
    pub active_pid: Option<i32>,
    /// `restart_lsn`: the server retains WAL from here.
    pub restart: Option<Lsn>,
    /// `confirmed_flush_lsn`.
    pub confirmed: Option<Lsn>,
    /// The WAL retained because of the slot.
    pub retained_wal_bytes: u64,
    /// `safe_wal_size`: WAL that can be written before the slot may be lost; absent without a limit, negative beyond
    /// it.
    pub safe_wal_bytes: Option<i64>,
    /// `wal_status`; absent if the server gives none.
    pub wal_status: Option<WalStatus>,
    /// Why the slot was invalidated; absent while it is valid, and before PostgreSQL 17.
    pub invalidation: Option<Invalidation>,
    /// The growth of the retained WAL; absent before it is known.
    pub growth_bytes_per_second: Option<f64>,
    /// The estimated time until the slot may be invalidated; absent without a limit, without growth, and before both
    /// are known.
    pub seconds_to_invalidation: Option<f64>,
    /// The age of `catalog_xmin` in transactions: VACUUM cannot remove catalog rows that were deleted later.
    pub catalog_xmin_age: Option<u64>,
    /// Bytes that decoding has spilled to the server's disk beyond `logical_decoding_work_mem`.
    pub spilled_bytes: Option<u64>,
}

impl WalStatus {
    /// All of them, from safe to lost.
    pub const ALL: [Self; 4] = [Self::Reserved, Self::Extended, Self::Unreserved, Self::Lost];

    /// Gives PostgreSQL's name of it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Extended => "extended",
            Self::Unreserved => "unreserved",
            Self::Lost => "lost",
        }
    }

    /// Parses PostgreSQL's name.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.word() == word)
    }
}

impl Invalidation {
    const KNOWN: [Self; 4] = [Self::WalRemoved, Self::RowsRemoved, Self::WalLevelInsufficient, Self::IdleTimeout];

    /// Gives PostgreSQL's name of it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::WalRemoved => "wal_removed",
            Self::RowsRemoved => "rows_removed",
            Self::WalLevelInsufficient => "wal_level_insufficient",
            Self::IdleTimeout => "idle_timeout",
            Self::Other => "other",
        }
    }

    /// Parses PostgreSQL's name.
    #[must_use]
    pub fn from_word(word: &str) -> Self {
        Self::KNOWN.into_iter().find(|each| each.word() == word).unwrap_or(Self::Other)
    }
}

impl SlotView {
    /// Computes the used share of `max_slot_wal_keep_size`; absent without such a limit.
    #[must_use]
    pub fn limit_used_ratio(&self) -> Option<f64> {
        if self.wal_status == Some(WalStatus::Lost) {
            return Some(1.0);
        }
        let safe = self.safe_wal_bytes?;
        let remaining = u64::try_from(safe).unwrap_or(0);
        let limit = self.retained_wal_bytes.saturating_add(remaining);
        if limit == 0 { None } else { Some(approximate(self.retained_wal_bytes) / approximate(limit)) }
    }
}

/// A ratio needs no more than 53 bits.
const fn approximate(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_says_how_much_of_the_limit_is_used() {
        let view = |retained_wal_bytes, safe_wal_bytes, wal_status| SlotView {
            active: true,
            retained_wal_bytes,
            safe_wal_bytes,
            wal_status: Some(wal_status),
            ..SlotView::default()
        };
        for (view, expected) in [
            (view(30, Some(70), WalStatus::Reserved), Some(0.3)),
            (view(30, Some(-5), WalStatus::Unreserved), Some(1.0)),
            (view(30, None, WalStatus::Extended), None),
            (view(0, None, WalStatus::Lost), Some(1.0)),
            (view(0, Some(0), WalStatus::Reserved), None),
        ] {
            assert_eq!(view.limit_used_ratio(), expected, "{view:?}");
        }
    }

    #[test]
    fn an_unknown_word_is_no_status() {
        assert_eq!(WalStatus::from_word("lost"), Some(WalStatus::Lost));
        assert_eq!(WalStatus::from_word("fine"), None);
        assert_eq!(Invalidation::from_word("idle_timeout"), Invalidation::IdleTimeout);
        assert_eq!(Invalidation::from_word("fine"), Invalidation::Other);
    }
}
