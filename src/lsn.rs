//! A position in PostgreSQL's write-ahead log.
//!
//! An LSN is a byte offset into the log of one server on one timeline. It says nothing about another server, and
//! nothing about which event stands there: several rows may share one, and the LSNs of rows do not grow from
//! transaction to transaction. Only the *end* of a commit is a position that may be confirmed.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use serde::Serializer;

/// A position in the write-ahead log, written `16/B374D848`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Lsn(u64);

/// The text is not a log position.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("expected a log position such as 16/B374D848, found {0:?}")]
pub struct NotAnLsn(String);

impl Lsn {
    /// No position: PostgreSQL reads it as "wherever the slot stands".
    pub const ZERO: Self = Self(0);

    /// Takes the number as it stands on the wire.
    #[must_use]
    pub const fn from_wire(value: u64) -> Self {
        Self(value)
    }

    /// Gives the number as it stands on the wire.
    #[must_use]
    pub const fn to_wire(self) -> u64 {
        self.0
    }

    /// Says whether this is no position at all.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Gives the bytes of log from `earlier` to here, 0 if `earlier` lies ahead.
    #[must_use]
    pub const fn bytes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = NotAnLsn;

    fn from_str(text: &str) -> Result<Self, NotAnLsn> {
        let half = |digits: &str| match digits.len() {
            1..=8 if !digits.starts_with('+') => u32::from_str_radix(digits, 16).ok().map(u64::from),
            _ => None,
        };
        text.split_once('/')
            .and_then(|(high, low)| Some(Self(half(high)? << 32 | half(low)?)))
            .ok_or_else(|| NotAnLsn(text.to_owned()))
    }
}

impl Serialize for Lsn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_number_agree() {
        let lsn: Lsn = "16/B374D848".parse().unwrap();
        assert_eq!(lsn.to_wire(), 0x16_B374_D848);
        assert_eq!(lsn.to_string(), "16/B374D848");
        assert_eq!("0/0".parse(), Ok(Lsn::ZERO));
    }

    #[test]
    fn what_is_not_a_position_is_refused() {
        for text in ["", "/", "1", "1/", "/1", "1/2/3", "g/0", "123456789/0", "+1/0"] {
            let parsed = text.parse::<Lsn>();
            assert!(parsed.is_err(), "{text:?} became {parsed:?}");
        }
    }

    #[test]
    fn distance_never_goes_below_zero() {
        assert_eq!(Lsn(5).bytes_since(Lsn(9)), 0);
        assert_eq!(Lsn(9).bytes_since(Lsn(5)), 4);
    }
}
