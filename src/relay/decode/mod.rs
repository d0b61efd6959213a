//! What the replication stream says: CopyBoth frames, pgoutput messages, and where in a transaction we are.
//!
//! Pure: borrowed slices in, messages or a named failure out.

pub mod frame;
pub mod pgoutput;
pub mod transaction;

#[cfg(test)]
mod tests;
