//! The relay against real servers.

mod both_ends;
mod codes;
mod content;
mod contract;
mod delivery;
mod failover;
mod lifecycle;
mod order;
mod poison;
mod poll;
mod poll_numbers;
mod pooler;
mod position;
mod renamed;
mod shutdown;
mod stall;
mod stop;
mod tls;
mod unseen;
mod wal;
