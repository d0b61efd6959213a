//! Errors of librdkafka, without its types in the public interface.

/// An error of librdkafka, in its own words.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(transparent)]
pub struct KafkaError(rdkafka::error::KafkaError);

impl KafkaError {
    /// Not `From`, which would be public.
    pub(crate) const fn new(error: rdkafka::error::KafkaError) -> Self {
        Self(error)
    }
}
