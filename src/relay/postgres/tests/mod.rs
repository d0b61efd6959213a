//! The client against faulty servers.

mod fake;

mod handshake;
mod hosts;
mod streaming;
mod tls;
