//! The relay against real servers.

mod contract;
mod delivery;
mod lifecycle;
mod poison;
mod poll;
mod shutdown;
mod wal;
