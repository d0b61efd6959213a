//! Timestamps as RFC 3339 in UTC.

use std::time::SystemTime;
use std::time::UNIX_EPOCH;

/// 9999-12-31T23:59:59, the last second of a four-digit year.
const MAX_SECONDS: u64 = 253_402_300_799;

/// Formats a time with microseconds, the precision of PostgreSQL. Returns none before 1970 and after 9999.
#[must_use]
pub fn format_rfc3339(time: SystemTime) -> Option<String> {
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    (since.as_secs() <= MAX_SECONDS).then(|| humantime::format_rfc3339_micros(time).to_string())
}

/// Parses a time. Returns none if the text is not RFC 3339 in UTC (`Z`), or before 1970.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339(text).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_time_is_parsed_again_to_the_microsecond() {
        let rows = [
            (Duration::ZERO, "1970-01-01T00:00:00.000000Z"),
            (Duration::new(1_767_225_600, 123_456_789), "2026-01-01T00:00:00.123456Z"),
            (Duration::new(MAX_SECONDS, 999_999_999), "9999-12-31T23:59:59.999999Z"),
        ];
        for (since, text) in rows {
            assert_eq!(format_rfc3339(UNIX_EPOCH + since).as_deref(), Some(text));
            let whole = Duration::new(since.as_secs(), since.subsec_micros() * 1_000);
            assert_eq!(parse_rfc3339(text), Some(UNIX_EPOCH + whole));
        }
        assert_eq!(format_rfc3339(UNIX_EPOCH - Duration::from_nanos(1)), None);
        assert_eq!(format_rfc3339(UNIX_EPOCH + Duration::from_secs(MAX_SECONDS + 1)), None);
        for text in ["", "2026-01-01", "2026-13-01T00:00:00Z", "1969-12-31T23:59:59Z", "2026-01-01T00:00:00+01:00"] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }
}
