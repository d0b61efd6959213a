//! What the endpoints show of a running relay.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use crate::metrics;
use crate::metrics::Sources;

use super::history::History;
use super::status::Status;

/// What the endpoints show, read for each request.
pub trait View: Send + Sync + 'static {
    /// The time since the last tick of the relay's loop.
    fn since_tick(&self) -> Duration;

    /// All series, in Prometheus' text format.
    fn exposition(&self) -> String;

    /// The relay's state.
    fn status(&self) -> Status;

    /// The number of events that Kafka has acknowledged since the start.
    fn published_events(&self) -> u64;
}

/// A relay with its last ten minutes.
pub(super) struct Observed {
    pub(super) view: Arc<dyn View>,
    history: Mutex<History>,
}

impl Observed {
    pub(super) fn new(view: Arc<dyn View>) -> Arc<Self> {
        Arc::new(Self { view, history: Mutex::default() })
    }

    /// Takes a sample for the chart, `elapsed` after the one before.
    pub(super) fn sample(&self, elapsed: Duration) {
        self.history().note(self.view.published_events(), elapsed);
    }

    /// Events per second, the oldest first.
    pub(super) fn rates(&self) -> Vec<f64> {
        self.history().rates()
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl View for Sources {
    fn since_tick(&self) -> Duration {
        self.relay.since_tick()
    }

    fn exposition(&self) -> String {
        metrics::exposition(self)
    }

    fn status(&self) -> Status {
        Status::of(self)
    }

    fn published_events(&self) -> u64 {
        self.relay.topics.published_by_topic().iter().map(|each| each.events).sum()
    }
}
