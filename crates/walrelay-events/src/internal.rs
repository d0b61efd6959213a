//! What the program `walrelay` uses beyond the public interface. It may change with every version.

pub use crate::consumer::is_expecting_a_panic;
pub use crate::kafka::Brokers;
pub use crate::kafka::is_of_connections;
pub use crate::kafka::refusal;
