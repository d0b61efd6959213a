//! The source that reads the WAL: the loop over one connection, and the rooms around it.
//!
//! `supervise` connects and decides what follows a connection. `examine` checks the server before the stream, `resume`
//! decides where it starts, `follow` is the loop, `feedback` its timing, and `keeper` the thread beside it that stores
//! the position. `wal_budget` estimates when the slot may be invalidated.

pub mod feedback;
pub mod keeper;
pub mod position;
pub mod resume;

mod advance;
mod coalesce;
mod follow;
mod phase;
mod pipeline_metrics;
mod silence;
mod stall_report;

pub(in crate::relay) mod catalog_watch;
pub(in crate::relay) mod examine;
pub(in crate::relay) mod holder;
pub(in crate::relay) mod slot_monitor;
pub(in crate::relay) mod supervise;
pub(in crate::relay) mod synchronous;
pub(in crate::relay) mod wal_budget;
