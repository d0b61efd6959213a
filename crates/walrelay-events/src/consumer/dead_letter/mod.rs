//! Dead-letter records: writing, reading and redriving them.

mod producer;
mod provenance;
mod reader;

pub use producer::Producer;
pub use provenance::HeaderFormat;
pub use provenance::Provenance;
pub use reader::DeadLetter;
pub use reader::read;
