//! The fields of a handler's span.

use std::fmt;

/// The record that a handler's span describes.
#[derive(Clone, Copy)]
pub(crate) struct HandlerSpan<'a> {
    pub(crate) group: &'a str,
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    /// The record's headers. They are read only if the span is recorded.
    pub(crate) header: &'a dyn Fn(&str) -> Option<&'a str>,
}

impl fmt::Debug for HandlerSpan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]@{}", self.topic, self.partition, self.offset)
    }
}
