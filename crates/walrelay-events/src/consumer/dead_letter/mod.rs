//! Dead-letter records: writing, reading and redriving them.

mod client;
mod markers;
mod offsets;
mod producer;
mod provenance;
mod reader;
mod record;
mod redrive;
mod repeats;
mod topic;

pub use super::write_error::TooLarge;
pub use super::write_error::WriteError;
pub use producer::Producer;
pub use provenance::HeaderFormat;
pub use provenance::Provenance;
pub use record::DeadLetter;
pub use redrive::Redrive;
pub use repeats::Repeats;
pub use topic::DeadLetterTopic;
pub use topic::Interrupted;
