//! The relay against real servers.

mod delivery;
mod lifecycle;
mod poison;
mod poll;
mod shutdown;
mod tls;
mod wal;
