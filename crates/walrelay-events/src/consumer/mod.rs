//! Kafka to handlers.
//!
//! ```text
//!   Kafka --poll--> record --> lanes (one per key) --> handlers on the application's runtime
//!                                ^                        |  ack         -> the offset can be committed
//!                                |                        |  retry       -> back into its lane, after a backoff
//!                                +---- outcome -----------+  dead-letter -> dead-letter topic, then as an ack
//! ```
//!
//! [`Consumer`] runs a [`Handler`] over topics. Events of one key are handled one after another, and many keys at once.
//! An offset is committed when every record before it is done: after a crash some events are delivered again, and none
//! is lost. An [`inbox`] makes their effects happen once. The consumer stays in its group however long a handler takes.
//!
//! Deliberately absent: commits by the handler, skipping of deleted records by default, creation of topics, and retry
//! topics, which would break the order of a key. After an event was dead-lettered, later events of its key continue.

pub(crate) mod batch;
mod beginning;
mod brokers;
mod budget;
pub(crate) mod call;
mod cancellation;
pub(crate) mod classifier;
mod codec;
mod commit;
mod config;
mod control;
pub mod dead_letter;
mod dead_letter_write;
mod dispatcher;
mod error;
mod first_start;
pub(crate) mod follow;
mod gap;
pub(crate) mod handler;
mod health;
pub mod inbox;
pub(crate) mod lanes;
mod leaving;
#[cfg(feature = "prometheus")]
mod metrics;
mod observe;
mod outcome;
mod position;
mod positions;
mod prefix;
mod preflight;
mod probe;
mod properties;
pub(crate) mod raw;
mod rebalance;
mod record;
mod refusal;
pub(crate) mod retry;
mod router;
mod runtime;
#[cfg(unix)]
mod skip;
mod starter;
mod thread;
mod tokens;
mod topic_partition;
#[cfg(feature = "tower")]
pub mod tower;
mod typed;
mod unknown;
pub(crate) mod verdict;
mod waiting;
mod wakeup;
mod write_error;

pub use batch::BatchHandler;
pub use batch::BatchOutcome;
pub use budget::BudgetExceeded;
pub use budget::DeadLetterBudget;
pub use cancellation::CancelReason;
pub use cancellation::Cancellation;
pub use classifier::ErrorClass;
pub use codec::Codec;
pub use codec::DecodedEvent;
pub use codec::Json;
pub use codec::Payload;
pub use config::Config;
pub use config::DeadLetters;
pub use config::GroupProtocol;
pub use config::InboxRetention;
pub use config::OnGap;
pub use config::Start;
pub use control::Control;
pub use control::State;
pub use control::Status;
pub use dead_letter::HeaderFormat;
pub use error::Error;
pub use handler::Delivery;
pub use handler::Handler;
#[cfg(feature = "prometheus")]
pub use metrics::Prometheus;
pub use observe::Observed;
pub use observe::Observer;
pub use outcome::Failure;
pub use outcome::FailureError;
pub use outcome::HandlerError;
pub use outcome::IntoOutcome;
pub use outcome::Outcome;
pub use record::Record;
pub use record::Timestamp;
pub use retry::RetryPolicy;
pub use router::Router;
pub use runtime::Consumer;
#[cfg(unix)]
pub use topic_partition::TopicPartition;
pub use typed::EventHandler;
pub use typed::Received;
pub use typed::Typed;
pub use typed::batch::EventBatchHandler;
pub use typed::batch::typed_batch;
pub use typed::typed;
pub use unknown::OnUnknown;
pub use verdict::Verdict;

pub use crate::signal::shutdown_signal;
