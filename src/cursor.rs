//! A cursor over borrowed bytes that names the field it fails on.
//!
//! There is no index in a decoder built on it, hence no panic, and a failure in production reads "message ended inside
//! commit timestamp". Integers are big-endian, as everywhere in PostgreSQL's protocol.

/// Bytes that are not what the protocol says.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Malformed {
    /// The message is shorter than its fields.
    #[error("message ended inside {field}")]
    Truncated {
        /// The field that was being read.
        field: &'static str,
    },
    /// The message is longer than its fields.
    #[error("{count} bytes left after {message}")]
    Leftover {
        /// The message that should have ended.
        message: &'static str,
        /// How much is left.
        count: usize,
    },
    /// A name is not UTF-8.
    #[error("{field} is not UTF-8")]
    NotUtf8 {
        /// The field that was being read.
        field: &'static str,
    },
    /// A length or count is negative or otherwise impossible.
    #[error("{field} is {value}, which is impossible")]
    Impossible {
        /// The field that was being read.
        field: &'static str,
        /// What it says.
        value: i64,
    },
    /// A kind byte that this version of the protocol does not have.
    #[error("unknown {what} {:?}", char::from(*kind))]
    UnknownKind {
        /// What the byte should tell apart.
        what: &'static str,
        /// The byte.
        kind: u8,
    },
}

/// Reads fields from the front of a byte slice.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    /// Starts at the front of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.0.split_first_chunk().ok_or(Malformed::Truncated { field })?;
        self.0 = rest;
        Ok(*head)
    }

    /// Reads one byte.
    pub fn u8(&mut self, field: &'static str) -> Result<u8, Malformed> {
        self.array(field).map(u8::from_be_bytes)
    }

    /// Reads two bytes, signed.
    pub fn i16(&mut self, field: &'static str) -> Result<i16, Malformed> {
        self.array(field).map(i16::from_be_bytes)
    }

    /// Reads four bytes, signed.
    pub fn i32(&mut self, field: &'static str) -> Result<i32, Malformed> {
        self.array(field).map(i32::from_be_bytes)
    }

    /// Reads four bytes.
    pub fn u32(&mut self, field: &'static str) -> Result<u32, Malformed> {
        self.array(field).map(u32::from_be_bytes)
    }

    /// Reads eight bytes, signed.
    pub fn i64(&mut self, field: &'static str) -> Result<i64, Malformed> {
        self.array(field).map(i64::from_be_bytes)
    }

    /// Reads eight bytes.
    pub fn u64(&mut self, field: &'static str) -> Result<u64, Malformed> {
        self.array(field).map(u64::from_be_bytes)
    }

    /// Reads a two-byte count.
    pub fn count(&mut self, field: &'static str) -> Result<usize, Malformed> {
        let value = self.i16(field)?;
        usize::try_from(value).map_err(|_| Malformed::Impossible { field, value: value.into() })
    }

    /// Reads a four-byte length and that many bytes.
    pub fn sized(&mut self, field: &'static str) -> Result<&'a [u8], Malformed> {
        let value = self.i32(field)?;
        let length = usize::try_from(value).map_err(|_| Malformed::Impossible { field, value: value.into() })?;
        let (head, rest) = self.0.split_at_checked(length).ok_or(Malformed::Truncated { field })?;
        self.0 = rest;
        Ok(head)
    }

    /// Reads text up to its NUL.
    pub fn text(&mut self, field: &'static str) -> Result<&'a str, Malformed> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or(Malformed::Truncated { field })?;
        let (head, rest) = self.0.split_at_checked(end).ok_or(Malformed::Truncated { field })?;
        self.0 = rest.get(1..).unwrap_or_default();
        std::str::from_utf8(head).map_err(|_| Malformed::NotUtf8 { field })
    }

    /// Takes everything that is left.
    #[must_use]
    pub const fn rest(self) -> &'a [u8] {
        self.0
    }

    /// Says that `message` ends here.
    pub const fn finish(self, message: &'static str) -> Result<(), Malformed> {
        match self.0.len() {
            0 => Ok(()),
            count => Err(Malformed::Leftover { message, count }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_message_names_the_field_it_ends_in() {
        let mut cursor = Cursor::new(&[0, 1]);
        assert_eq!(cursor.u32("relation id"), Err(Malformed::Truncated { field: "relation id" }));
        assert_eq!(cursor.i16("columns"), Ok(1));
        assert_eq!(cursor.text("name"), Err(Malformed::Truncated { field: "name" }));
    }

    #[test]
    fn lengths_cannot_reach_outside() {
        assert_eq!(
            Cursor::new(&[0xFF, 0xFF, 0xFF, 0xFF]).sized("column"),
            Err(Malformed::Impossible { field: "column", value: -1 })
        );
        assert_eq!(Cursor::new(&[0, 0, 0, 2, 7]).sized("column"), Err(Malformed::Truncated { field: "column" }));
    }

    #[test]
    fn leftovers_are_refused() {
        assert_eq!(Cursor::new(&[1]).finish("commit"), Err(Malformed::Leftover { message: "commit", count: 1 }));
    }
}
