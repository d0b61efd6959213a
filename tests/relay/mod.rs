//! The relay against real servers.

mod content;
mod delivery;
mod lifecycle;
mod poison;
mod poll;
mod poll_numbers;
mod pooler;
mod shutdown;
mod wal;
