//! The relay against real servers.

mod delivery;
mod failover;
mod lifecycle;
mod order;
mod poison;
mod poll;
mod shutdown;
mod stall;
mod tls;
mod wal;
