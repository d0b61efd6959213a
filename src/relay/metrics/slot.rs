//! The replication slot as the server shows it.

use crate::lsn::Lsn;

/// How safe the log is that the slot needs (`pg_replication_slots.wal_status`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WalStatus {
    /// Within `max_wal_size`.
    Reserved,
    /// Beyond `max_wal_size`, still kept.
    Extended,
    /// No longer protected: the next checkpoint may remove it.
    Unreserved,
    /// Removed: a gap is certain.
    Lost,
}

/// The slot at one poll.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlotView {
    /// When it was polled, microseconds since 1970.
    pub polled_micros: u64,
    /// Whether a walsender uses it.
    pub active: bool,
    /// The process of that walsender.
    pub active_pid: Option<i32>,
    /// From where the server keeps the log.
    pub restart: Option<Lsn>,
    /// What the server believes to be confirmed.
    pub confirmed: Option<Lsn>,
    /// The log kept because of the slot.
    pub retained_wal_bytes: u64,
    /// The log that may still be written before the slot is in danger; absent without a limit. Below 0 when it is too late.
    pub safe_wal_bytes: Option<i64>,
    /// How safe the log is; absent if the server has not said.
    pub wal_status: Option<WalStatus>,
    /// How many transactions ago the oldest row of the catalogue was deleted that the slot keeps from vacuum.
    pub catalog_xmin_age: Option<u64>,
    /// What decoding has written to the server's disk because it did not fit into logical_decoding_work_mem.
    pub spilled_bytes: Option<u64>,
}

impl WalStatus {
    /// All of them, from good to bad.
    pub const ALL: [Self; 4] = [Self::Reserved, Self::Extended, Self::Unreserved, Self::Lost];

    /// Gives PostgreSQL's word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Extended => "extended",
            Self::Unreserved => "unreserved",
            Self::Lost => "lost",
        }
    }

    /// Reads PostgreSQL's word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.word() == word)
    }
}

impl SlotView {
    /// Derives how much of `max_slot_wal_keep_size` is used; absent without such a limit.
    #[must_use]
    pub fn limit_used_ratio(&self) -> Option<f64> {
        if self.wal_status == Some(WalStatus::Lost) {
            return Some(1.0);
        }
        let safe = self.safe_wal_bytes?;
        let left = u64::try_from(safe).unwrap_or(0);
        let limit = self.retained_wal_bytes.saturating_add(left);
        if limit == 0 { None } else { Some(approximate(self.retained_wal_bytes) / approximate(limit)) }
    }
}

/// A ratio needs no more than the 53 bits that survive.
const fn approximate(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_says_how_much_of_the_limit_is_used() {
        let view = |retained_wal_bytes, safe_wal_bytes, wal_status| SlotView {
            polled_micros: 0,
            active: true,
            active_pid: None,
            restart: None,
            confirmed: None,
            retained_wal_bytes,
            safe_wal_bytes,
            wal_status: Some(wal_status),
            catalog_xmin_age: None,
            spilled_bytes: None,
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
    }
}
