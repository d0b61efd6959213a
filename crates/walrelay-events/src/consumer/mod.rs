//! Kafka to handlers.
//!
//! ```text
//!   Kafka --poll--> record --> lanes (one per key) --> handlers on the application's runtime
//!                                ^                        |  Done    -> the prefix of the partition, committed
//!                                |                        |  Retry   -> back into its lane, later
//!                                +---- outcome -----------+  Reject  -> dead-letter topic, then done
//! ```
//!
//! [`Consumer`] runs a [`Handler`] over topics. Events of one key are handled one after another, many keys at once. An offset
//! is committed when everything before it is done, so after a crash some events come again and none is lost; an
//! [`inbox`] makes their effects happen once. The group stays alive however long a handler takes.
//!
//! It deliberately does not commit by itself, skip what is gone, create topics, or retry through further topics, which would
//! break the order of a key. After an event was rejected, later ones of its key go on.

// In the order in which records meet them.
pub mod budget;
mod config;
pub mod dead_letter;
mod error;
pub(crate) mod handler;
pub mod inbox;
pub mod lanes;
mod observe;
mod outcome;
pub mod prefix;
mod preflight;
mod record;
pub mod retry;
mod typed;
pub(crate) mod verdict;

pub(crate) mod call;
mod commit;
mod handling;
mod kafka;
mod positions;
mod runtime;
mod watch;

pub use budget::Exceeded;
pub use budget::Limit;
pub use config::Config;
pub use config::DeadLetters;
pub use config::InboxKeeps;
pub use config::OnGap;
pub use config::Protocol;
pub use config::Start;
pub use error::Error;
pub use handler::Delivery;
pub use handler::Handler;
pub use handler::Router;
pub use lanes::Partition;
pub use observe::Fate;
pub use observe::Observed;
pub use observe::Observer;
pub use observe::Prometheus;
pub use outcome::Failure;
pub use outcome::IntoOutcome;
pub use outcome::Outcome;
pub use record::Record;
pub use record::Timestamp;
#[doc(hidden)]
pub use record::is_expecting_a_panic;
pub use retry::Policy;
pub use runtime::Consumer;
pub use typed::Payload;
pub use typed::Received;
pub use typed::Typed;
pub use typed::typed;
