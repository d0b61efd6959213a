//! The relay against real servers.

mod both_ends;
mod catalog_check;
mod codes;
mod content;
mod debezium;
mod delivery;
mod failover;
mod gaps;
mod kafka_tls;
mod lifecycle;
mod order;
mod poison;
mod poll;
mod poll_changes;
mod poll_numbers;
mod pooler;
mod position;
mod renamed;
mod shutdown;
mod stall;
mod stop;
mod tls;
mod tokens;
mod wal;
mod wal_budget;
