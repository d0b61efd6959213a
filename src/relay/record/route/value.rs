//! Single values: a column's text, the payload's bytes, times.

use std::io::Write as _;
use std::time::Duration;
use std::time::SystemTime;

use crate::relay::decode::pgoutput::Cell;
use crate::relay::decode::pgoutput::Micros;
use crate::relay::record::row::Kind;
use crate::relay::record::row::Role;
use crate::relay::record::row::Row;
use crate::relay::record::row::Value;

use super::reason::Reason;

/// PostgreSQL's epoch, 2000-01-01, as time since the Unix epoch.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// Converts PostgreSQL's clock to microseconds of the Unix clock.
#[must_use]
pub const fn unix_micros(micros: Micros) -> i64 {
    micros.saturating_add(EPOCH_MICROS)
}

/// The last time that RFC 3339 can represent: the end of the year 9999.
const MAX_WRITABLE_MICROS: u64 = 253_402_300_799_999_999;

/// Formats a time as RFC 3339 in UTC, with microseconds.
pub(super) fn rfc3339(micros: Micros) -> String {
    let micros = u64::try_from(unix_micros(micros)).unwrap_or_default().min(MAX_WRITABLE_MICROS);
    humantime::format_rfc3339_micros(SystemTime::UNIX_EPOCH + Duration::from_micros(micros)).to_string()
}

/// Appends the text of a column. Says whether there is one: not for NULL and a missing column.
pub(super) fn append_text(row: &Row<'_>, role: Role, out: &mut Vec<u8>) -> Result<bool, Reason> {
    row.value(role).map_or(Ok(false), |value| append(value, role.name(), out))
}

/// Appends the text of a value, of which `what` is the name in a message. Says whether there is one: not for NULL.
pub(super) fn append(value: Value<'_>, what: &'static str, out: &mut Vec<u8>) -> Result<bool, Reason> {
    let illegal = |expected| Reason::Illegal { role: what, expected };
    match value.cell {
        Cell::Null => return Ok(false),
        Cell::Unchanged => return Err(illegal("value of an insert")),
        Cell::Text(bytes) => out.extend_from_slice(bytes),
        Cell::Binary(bytes) => match value.kind {
            Kind::Uuid => {
                let uuid = uuid::Uuid::from_slice(bytes).map_err(|_| illegal("uuid"))?;
                out.extend_from_slice(uuid.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()).as_bytes());
            }
            Kind::Integer => {
                let number = integer(bytes).ok_or_else(|| illegal("integer"))?;
                write!(out, "{number}").map_err(|_| illegal("integer"))?;
            }
            Kind::Jsonb => out.extend_from_slice(json(value, what)?),
            Kind::Text | Kind::Json | Kind::Bytea | Kind::Timestamptz => out.extend_from_slice(bytes),
        },
    }
    Ok(true)
}

fn integer(bytes: &[u8]) -> Option<i64> {
    match bytes.len() {
        2 => bytes.try_into().ok().map(i16::from_be_bytes).map(i64::from),
        4 => bytes.try_into().ok().map(i32::from_be_bytes).map(i64::from),
        8 => bytes.try_into().ok().map(i64::from_be_bytes),
        _ => None,
    }
}

/// The payload's bytes: borrowed from the row, or decoded.
#[derive(Clone, Copy, Debug)]
pub(super) enum Payload<'a> {
    AsStored(&'a [u8]),
    Decoded,
}

impl<'a> Payload<'a> {
    pub(super) const fn bytes(self, decoded: &'a [u8]) -> &'a [u8] {
        match self {
            Self::AsStored(bytes) => bytes,
            Self::Decoded => decoded,
        }
    }
}

/// Gives the payload's bytes exactly as stored. `bytea` in text form is decoded into `decoded`.
pub(super) fn payload<'a>(row: &Row<'a>, decoded: &mut Vec<u8>) -> Result<Option<Payload<'a>>, Reason> {
    let Some(value) = row.value(Role::Payload) else { return Ok(None) };
    match (value.kind, value.cell) {
        (_, Cell::Null) => Ok(None),
        (Kind::Bytea, Cell::Text(text)) => {
            decode_hex(text, decoded)?;
            Ok(Some(Payload::Decoded))
        }
        (Kind::Bytea, Cell::Binary(bytes)) => Ok(Some(Payload::AsStored(bytes))),
        _ => Ok(Some(Payload::AsStored(json(value, Role::Payload.name())?))),
    }
}

/// Gives the text of a `json`, `jsonb` or text value.
pub(super) fn json<'a>(value: Value<'a>, role: &'static str) -> Result<&'a [u8], Reason> {
    match (value.kind, value.cell) {
        // The binary form of jsonb is a version number and the text.
        (Kind::Jsonb, Cell::Binary([1, text @ ..])) => Ok(text),
        (Kind::Jsonb, Cell::Binary(_)) => Err(Reason::Illegal { role, expected: "jsonb of version 1" }),
        (_, Cell::Text(bytes) | Cell::Binary(bytes)) => Ok(bytes),
        (_, Cell::Null) => Err(Reason::Null(role)),
        (_, Cell::Unchanged) => Err(Reason::Illegal { role, expected: "value of an insert" }),
    }
}

fn decode_hex(text: &[u8], decoded: &mut Vec<u8>) -> Result<(), Reason> {
    let illegal = || Reason::Illegal { role: Role::Payload.name(), expected: "bytea in hex form" };
    let digits = text.strip_prefix(b"\\x").ok_or_else(illegal)?;
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    decoded.clear();
    decoded.reserve(digits.len() / 2);
    let (pairs, rest) = digits.as_chunks::<2>();
    for [high, low] in pairs {
        let (Some(high), Some(low)) = (digit(*high), digit(*low)) else { return Err(illegal()) };
        decoded.push(high << 4 | low);
    }
    rest.is_empty().then_some(()).ok_or_else(illegal)
}

/// Reads the row's partition number.
pub(super) fn partition(row: &Row<'_>) -> Result<Option<i32>, Reason> {
    let mut text = Vec::new();
    if !append_text(row, Role::Partition, &mut text)? {
        return Ok(None);
    }
    let number = std::str::from_utf8(&text).ok().and_then(|text| text.parse::<i64>().ok());
    let number = number.ok_or(Reason::Illegal { role: Role::Partition.name(), expected: "integer" })?;
    i32::try_from(number).ok().filter(|number| *number >= 0).map(Some).ok_or(Reason::Partition(number))
}

/// Reads `created_at` in microseconds of the Unix clock. An impossible time (infinite, before 1970, after the commit)
/// is replaced by the commit time: a wrong clock of a writer must not stop the stream.
pub(super) fn created_at(row: &Row<'_>, committed_at: Micros) -> Result<i64, Reason> {
    let committed = unix_micros(committed_at);
    let Some(value) = row.value(Role::CreatedAt) else { return Ok(committed) };
    let micros = match value.cell {
        Cell::Null => None,
        Cell::Unchanged => {
            return Err(Reason::Illegal { role: Role::CreatedAt.name(), expected: "value of an insert" });
        }
        Cell::Binary(bytes) => integer(bytes).filter(|micros| !matches!(*micros, i64::MIN | i64::MAX)).map(unix_micros),
        Cell::Text(text) => std::str::from_utf8(text).ok().and_then(parse_timestamp),
    };
    Ok(micros.filter(|micros| (0..=committed).contains(micros)).unwrap_or(committed))
}

/// How far ahead a writer's clock may be. Brokers reject a timestamp more than an hour ahead of their clock.
const MAX_AHEAD_MICROS: i64 = 300_000_000;

/// The time at which a row was written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Written {
    /// The time, at most the current one.
    pub at: Micros,
    /// The row's time is far ahead of the current one.
    pub is_ahead: bool,
}

/// Reads when a row was written, in place of the commit time: not NULL, finite, and not before 1970. A time far ahead
/// of `now_unix_micros` is replaced by it: brokers would reject it, and a wrong clock of a writer must not stop the
/// stream.
pub fn written_at(row: &Row<'_>, now_unix_micros: i64) -> Result<Written, Reason> {
    let role = Role::CreatedAt.name();
    let micros = match row.value(Role::CreatedAt).map(|value| value.cell) {
        None | Some(Cell::Null) => return Err(Reason::Null(role)),
        Some(Cell::Binary(bytes)) => integer(bytes).filter(|micros| *micros < i64::MAX && unix_micros(*micros) >= 0),
        Some(Cell::Text(text)) => {
            std::str::from_utf8(text).ok().and_then(parse_timestamp).map(|micros| micros.saturating_sub(EPOCH_MICROS))
        }
        Some(Cell::Unchanged) => None,
    };
    let micros = micros.ok_or(Reason::Illegal { role, expected: "time since 1970" })?;
    let is_ahead = unix_micros(micros) > now_unix_micros.saturating_add(MAX_AHEAD_MICROS);
    Ok(Written { at: if is_ahead { now_unix_micros.saturating_sub(EPOCH_MICROS) } else { micros }, is_ahead })
}

/// Parses `2026-11-24 13:45:35.123456+00`, PostgreSQL's format with `DateStyle=ISO` and `TimeZone=UTC`.
fn parse_timestamp(text: &str) -> Option<i64> {
    let utc = text.strip_suffix("+00")?.replace(' ', "T");
    let time = humantime::parse_rfc3339(&format!("{utc}Z")).ok()?;
    i64::try_from(time.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_micros()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d18_any_time_can_be_formatted() {
        assert_eq!(rfc3339(i64::MAX), "9999-12-31T23:59:59.999999Z");
        assert_eq!(rfc3339(i64::MIN), "1970-01-01T00:00:00.000000Z");
        assert_eq!(rfc3339(0), "2000-01-01T00:00:00.000000Z");
    }
}
