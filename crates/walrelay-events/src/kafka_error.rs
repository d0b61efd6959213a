//! Errors of librdkafka, without its types in the public interface.

/// An error of librdkafka, in its own words.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(transparent)]
pub struct KafkaError(#[from] rdkafka::error::KafkaError);
