//! The relay against real servers.

mod delivery;
mod lifecycle;
mod poison;
mod poll;
mod position;
mod shutdown;
mod wal;
