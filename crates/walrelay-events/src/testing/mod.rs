//! For tests of applications: a harness that runs handlers without Kafka, and throwaway servers (a real PostgreSQL, and
//! an in-process Kafka).
//!
//! The servers use temporary directories, listen on the loopback address, and are deleted when their value is dropped.
//! A throwaway PostgreSQL does not sync to disk by default.

mod broker;
mod error;
#[cfg(feature = "consumer")]
mod harness;
mod postgres;

pub use broker::Broker;
pub use error::Error;
#[cfg(feature = "consumer")]
pub use harness::Attempt;
#[cfg(feature = "consumer")]
pub use harness::Harness;
#[cfg(feature = "consumer")]
pub use harness::RecordReport;
#[cfg(feature = "consumer")]
pub use harness::record;
pub use postgres::Options;
pub use postgres::Postgres;
pub use postgres::StopMode;
