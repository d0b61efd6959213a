//! What librdkafka offers and its Rust client does not. This is the only room with unsafe code; its interface is safe.

#![expect(unsafe_code, reason = "librdkafka's own functions are called, which its Rust client does not wrap")]

mod describe;
mod epoch;
pub(super) mod headers;
mod metadata;
mod token;

pub use describe::PartitionDescription;
pub use describe::TopicDescription;
pub use describe::TopicRights;
pub use describe::TopicSettings;
pub use describe::describe_configs;
pub use describe::describe_topics;
pub(super) use epoch::epochs;
pub(super) use epoch::message_epoch;
pub(super) use epoch::polled_positions;
pub(super) use epoch::set_epochs;
pub(super) use metadata::metadata;
pub(super) use token::set_token;
