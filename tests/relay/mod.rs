//! The relay against real servers.

mod delivery;
mod lifecycle;
mod poison;
mod shutdown;
mod wal;
