//! The relay against real servers.

mod delivery;
mod failover;
mod lifecycle;
mod poison;
mod poll;
mod shutdown;
mod wal;
