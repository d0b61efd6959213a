//! What librdkafka offers and its Rust client does not. This is the only room with unsafe code; its interface is safe.

#![expect(unsafe_code, reason = "librdkafka's own functions are called, which its Rust client does not wrap")]

pub(super) mod headers;
