//! Numbers as Prometheus knows them: 64-bit floats, times in seconds, flags as 0 or 1.

pub(super) fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

/// Prometheus knows no other number; above 2^53 the last digits are rounded.
pub(super) const fn float(value: u64) -> f64 {
    value as f64
}

pub(super) const fn signed_float(value: i64) -> f64 {
    value as f64
}

/// Parts first, so that the microseconds of a date survive as well as they can.
pub(super) fn seconds(micros: u64) -> f64 {
    std::time::Duration::from_micros(micros).as_secs_f64()
}
