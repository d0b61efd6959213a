//! Decodes the replication stream: CopyBoth frames, pgoutput messages, and the state of the transaction.
//!
//! Pure: borrowed slices in, messages or errors out.

pub mod frame;
pub mod pgoutput;
pub mod transaction;
