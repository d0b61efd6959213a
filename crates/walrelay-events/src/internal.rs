//! What the program `walrelay` uses beyond the public interface. It may change with every version.

pub use crate::kafka::Brokers;
pub use crate::kafka::Cause;
pub use crate::kafka::Credentials;
pub use crate::kafka::DEFAULTS;
pub use crate::kafka::GUARANTEES;
pub use crate::kafka::GUARDED;
pub use crate::kafka::MAX_RECORD_BYTES;
pub use crate::kafka::ORDER;
pub use crate::kafka::Repeats;
pub use crate::kafka::Retired;
pub use crate::kafka::Tokens;
pub use crate::kafka::Verdict;
pub use crate::kafka::Waiting;
pub use crate::kafka::is_about_size;
pub use crate::kafka::is_connection_property;
pub use crate::kafka::is_consequence;
pub use crate::kafka::is_lack_of_rights;
pub use crate::kafka::is_trouble;
pub use crate::kafka::queue_kib;
pub use crate::kafka::refusal;
pub use crate::kafka::smaller_batch;
pub use crate::kafka::without_duration;
