//! The outer layer of the stream: CopyBoth messages, and the content of CopyData messages.
//!
//! `next` parses the first frame of the read buffer as borrowed slices, or gives the number of bytes that it needs. It
//! copies nothing. A frame above the limit is rejected by its header, before its body is received.
//!
//! Layouts: [Message Formats](https://www.postgresql.org/docs/18/protocol-message-formats.html) (CopyData,
//! CopyDone, ErrorResponse) and
//! [Streaming Replication Protocol](https://www.postgresql.org/docs/18/protocol-replication.html) (XLogData,
//! Primary keepalive message).

use crate::cursor::Cursor;
use crate::cursor::Malformed;
use crate::lsn::Lsn;

/// The size of the tag and the length in front of every message.
const HEADER: usize = 5;

/// One message of the stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Frame<'a> {
    /// XLogData: one pgoutput message.
    Data {
        /// When the server sent it, by the server's clock.
        sent_at: i64,
        /// The pgoutput message.
        message: &'a [u8],
    },
    /// A keepalive: the server has sent everything before `wal_end`.
    Keepalive {
        /// The position.
        wal_end: Lsn,
        /// When the server sent it, by the server's clock.
        sent_at: i64,
        /// The server requests a status update now.
        reply_requested: bool,
    },
    /// An ErrorResponse, with its fields: the server ends the stream.
    Error(&'a [u8]),
    /// The server ends the stream.
    End,
    /// A notice, a changed parameter, or a CopyData kind of a newer server: legal and ignored.
    Ignored(u8),
}

/// The first frame of a buffer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Parsed<'a> {
    /// A complete frame and its length.
    Whole(Frame<'a>, usize),
    /// An incomplete frame; its total length, as far as it is known.
    Partial(usize),
}

/// A frame cannot be parsed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// The bytes violate the protocol.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The frame is larger than the limit of a row.
    #[error("a message of {length} bytes is larger than the limit of {limit} bytes")]
    TooLarge {
        /// The length in the header.
        length: usize,
        limit: usize,
    },
}

/// Parses the first frame of `buffer`.
pub fn next(buffer: &[u8], limit: usize) -> Result<Parsed<'_>, Error> {
    let Some((header, _)) = buffer.split_first_chunk::<HEADER>() else {
        return Ok(Parsed::Partial(HEADER));
    };
    let mut cursor = Cursor::new(header);
    let tag = cursor.u8("message tag")?;
    let value = cursor.i32("message length")?;
    // The length counts itself but not the tag.
    let length = match usize::try_from(value) {
        Ok(length) if length >= HEADER - 1 => length + 1,
        _ => return Err(Malformed::Impossible { field: "message length", value: value.into() }.into()),
    };
    if length > limit {
        return Err(Error::TooLarge { length, limit });
    }
    let Some(body) = buffer.get(HEADER..length) else {
        return Ok(Parsed::Partial(length));
    };
    let frame = match tag {
        b'd' => copy_data(body)?,
        b'E' => Frame::Error(body),
        // CopyDone, CommandComplete, ReadyForQuery: the end of the stream.
        b'c' | b'C' | b'Z' => Frame::End,
        b'N' | b'S' => Frame::Ignored(tag),
        kind => return Err(Malformed::UnknownKind { what: "message in the stream", kind }.into()),
    };
    Ok(Parsed::Whole(frame, length))
}

fn copy_data(body: &[u8]) -> Result<Frame<'_>, Malformed> {
    let mut cursor = Cursor::new(body);
    match cursor.u8("copy data kind")? {
        b'w' => {
            // Start and end are equal in logical replication, and 0 for all but the last write of a callback.
            cursor.u64("data start")?;
            cursor.u64("data end")?;
            let sent_at = cursor.i64("data send time")?;
            Ok(Frame::Data { sent_at, message: cursor.rest() })
        }
        b'k' => {
            let wal_end = Lsn::from_wire(cursor.u64("keepalive position")?);
            let sent_at = cursor.i64("keepalive send time")?;
            let reply_requested = cursor.u8("keepalive reply flag")? != 0;
            cursor.finish("keepalive")?;
            Ok(Frame::Keepalive { wal_end, sent_at, reply_requested })
        }
        kind => Ok(Frame::Ignored(kind)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 1 << 20;

    fn keepalive(wal_end: u64, reply: u8) -> Vec<u8> {
        let mut bytes = vec![b'd', 0, 0, 0, 22, b'k'];
        bytes.extend(wal_end.to_be_bytes());
        bytes.extend(0_u64.to_be_bytes());
        bytes.push(reply);
        bytes
    }

    #[test]
    fn only_a_complete_frame_is_parsed() {
        let bytes = keepalive(0x10, 1);
        for end in 0..bytes.len() {
            let needs = if end < HEADER { HEADER } else { bytes.len() };
            assert_eq!(next(&bytes[..end], LIMIT), Ok(Parsed::Partial(needs)), "after {end} bytes");
        }
        let whole = Frame::Keepalive { wal_end: Lsn::from_wire(0x10), sent_at: 0, reply_requested: true };
        assert_eq!(next(&bytes, LIMIT), Ok(Parsed::Whole(whole, bytes.len())));
    }

    #[test]
    fn d12_a_frame_above_the_limit_is_rejected_by_its_header() {
        let header = [b'd', 0x10, 0, 0, 0];
        assert_eq!(next(&header, LIMIT), Err(Error::TooLarge { length: 0x1000_0001, limit: LIMIT }));
    }

    #[test]
    fn e22_a_notice_and_a_changed_parameter_are_ignored() {
        assert_eq!(next(&[b'N', 0, 0, 0, 5, 0], LIMIT), Ok(Parsed::Whole(Frame::Ignored(b'N'), 6)));
        assert_eq!(next(&[b'S', 0, 0, 0, 4], LIMIT), Ok(Parsed::Whole(Frame::Ignored(b'S'), 5)));
    }

    #[test]
    fn j2_an_impossible_length_is_an_error() {
        for length in [[0, 0, 0, 3], [0xFF, 0xFF, 0xFF, 0xFF]] {
            let bytes = [&[b'd'][..], &length].concat();
            assert!(matches!(next(&bytes, LIMIT), Err(Error::Malformed(Malformed::Impossible { .. }))));
        }
    }

    proptest! {
        #[test]
        fn j1_any_bytes_give_a_frame_or_an_error_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(Parsed::Whole(_, length)) = next(&bytes, LIMIT) {
                prop_assert!(length <= bytes.len());
            }
        }
    }
}
