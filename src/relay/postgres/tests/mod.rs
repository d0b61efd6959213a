//! The client against servers that are not what they should be.

mod fake;

mod handshake;
mod hosts;
mod streaming;
mod tls;
