//! Batch handlers: several consecutive records of one key in one call.

use std::pin::Pin;
use std::sync::Arc;

use crate::consumer::classifier::Classifier;
use crate::consumer::handler::Delivery;
use crate::consumer::outcome::BoxError;
use crate::consumer::outcome::IntoOutcome;
use crate::consumer::outcome::Outcome;

/// What a batch handler returns: how many records are done, from the first one on, and what happens to the next one.
///
/// ```
/// use walrelay_events::consumer::{BatchOutcome, Delivery, Outcome};
///
/// async fn index(batch: Vec<Delivery>) -> BatchOutcome {
///     let is_valid = |delivery: &Delivery| delivery.record.value().is_some();
///     // Everything before the first invalid record is written at once here.
///     match batch.iter().position(|delivery| !is_valid(delivery)) {
///         None => BatchOutcome::all(),
///         Some(at) => BatchOutcome::first(at, Outcome::dead_letter("a tombstone")),
///     }
/// }
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BatchOutcome {
    done: usize,
    next: Outcome,
}

impl BatchOutcome {
    /// Acks every record of the batch.
    #[must_use]
    pub const fn all() -> Self {
        Self { done: usize::MAX, next: Outcome::Ack }
    }

    /// Acks the first `done` records. The outcome is that of the record after them. The records after that one are
    /// delivered again, and no attempt counts for them.
    #[must_use]
    pub const fn first(done: usize, next: Outcome) -> Self {
        Self { done, next }
    }

    /// Returns whether so many records are all acked.
    pub(crate) fn acks(&self, records: usize) -> bool {
        self.done >= records || (self.next == Outcome::Ack && self.done + 1 == records)
    }

    /// Returns how many of the batch's records are acked, and the outcome of the next one.
    pub(crate) fn of(self, records: usize) -> (usize, Option<Outcome>) {
        if self.done >= records {
            return (records, None);
        }
        let is_acked = self.next == Outcome::Ack;
        if is_acked { (self.done + 1, None) } else { (self.done, Some(self.next)) }
    }
}

/// Anything that a handler can return means the first record, or the whole batch if it is an ack.
impl<T: IntoOutcome> From<T> for BatchOutcome {
    fn from(returned: T) -> Self {
        let outcome = returned.into_outcome();
        if outcome == Outcome::Ack { Self::all() } else { Self::first(0, outcome) }
    }
}

/// An error means the first record.
impl<E: Into<BoxError> + 'static> From<Result<Self, E>> for BatchOutcome {
    fn from(returned: Result<Self, E>) -> Self {
        returned.unwrap_or_else(|error| Self::first(0, Err::<(), E>(error).into_outcome()))
    }
}

/// Handles several consecutive records of one key in one call. It is called for many keys at once, but for each key
/// only after the call before has returned. [`Consumer::batches`](crate::consumer::Consumer::batches) takes it.
///
/// After a failure the record that failed is delivered alone, so that a panic is traced to one record.
pub trait BatchHandler: Send + Sync + 'static {
    /// Handles at least one record. The records are consecutive records of their key.
    fn handle(&self, batch: Vec<Delivery>) -> impl Future<Output = BatchOutcome> + Send;
}

impl<F, Fut, O> BatchHandler for F
where
    F: Fn(Vec<Delivery>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = O> + Send + 'static,
    O: Into<BatchOutcome>,
{
    async fn handle(&self, batch: Vec<Delivery>) -> BatchOutcome {
        self(batch).await.into()
    }
}

impl<H: BatchHandler> BatchHandler for Arc<H> {
    fn handle(&self, batch: Vec<Delivery>) -> impl Future<Output = BatchOutcome> + Send {
        H::handle(self, batch)
    }
}

/// A batch handler of any type.
pub(crate) type BoxedBatchHandler = Arc<dyn Fn(Vec<Delivery>) -> BatchFuture + Send + Sync>;
pub(crate) type BatchFuture = Pin<Box<dyn Future<Output = BatchOutcome> + Send>>;

pub(crate) fn boxed(handler: impl BatchHandler) -> BoxedBatchHandler {
    let handler = Arc::new(handler);
    Arc::new(move |batch| {
        let handler = Arc::clone(&handler);
        Box::pin(async move { handler.handle(batch).await })
    })
}

/// Lets the application's classifier decide about the errors of a handler.
pub(crate) fn classified(handler: BoxedBatchHandler, classifier: Classifier) -> BoxedBatchHandler {
    Arc::new(move |batch| {
        let (handling, classifier) = (handler(batch), classifier.clone());
        Box::pin(async move {
            let BatchOutcome { done, next } = handling.await;
            BatchOutcome { done, next: next.classified(&classifier) }
        })
    })
}

#[cfg(test)]
mod tests {
    use crate::consumer::outcome::Failure;

    use super::*;

    fn failed() -> Outcome {
        Outcome::retry("busy")
    }

    #[test]
    fn a_batch_is_acked_up_to_the_last_good_record() {
        assert_eq!(BatchOutcome::all().of(3), (3, None));
        assert_eq!(BatchOutcome::from(()).of(3), (3, None));
        assert_eq!(BatchOutcome::first(2, failed()).of(3), (2, Some(failed())));
        assert_eq!(BatchOutcome::first(2, Outcome::Ack).of(3), (3, None));
        assert_eq!(BatchOutcome::from(failed()).of(3), (0, Some(failed())));
        assert_eq!(BatchOutcome::first(7, failed()).of(3), (3, None), "there is no eighth record");
        assert_eq!(BatchOutcome::from(Err::<BatchOutcome, _>(Failure::retry("busy"))).of(3), (0, Some(failed())));
        assert_eq!(BatchOutcome::from(Ok::<_, Failure>(BatchOutcome::first(2, failed()))).of(3), (2, Some(failed())));
    }

    #[test]
    fn a_batch_is_acked_whole_exactly_if_nothing_of_it_is_left() {
        for outcome in [BatchOutcome::all(), BatchOutcome::first(2, Outcome::Ack), BatchOutcome::first(2, failed())] {
            for records in 1..5 {
                assert_eq!(outcome.acks(records), outcome.clone().of(records) == (records, None), "{outcome:?}");
            }
        }
    }
}
