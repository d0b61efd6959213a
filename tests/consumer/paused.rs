//! Partitions that are full are paused, and only as long as they are full.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use std::time::Duration;

use tokio::sync::Semaphore;
use walrelay_events::consumer::Delivery;
use walrelay_events::consumer::Error;
use walrelay_events::consumer::Observed;
use walrelay_events::consumer::Observer;

use super::stage::Log;
use super::stage::Member;
use super::stage::Topic;
use super::stage::wait_until;

const EVENTS: i64 = 8_000;

/// Counts consecutive reports of the same number of buffered bytes.
#[derive(Clone, Default)]
struct Still(Arc<(AtomicU64, AtomicU64)>);

impl Observer for Still {
    fn observe(&self, observed: &Observed<'_>) {
        if let Observed::Load { buffered_bytes, .. } = observed {
            let (last, times) = &*self.0;
            let is_same = *buffered_bytes > 0 && last.swap(*buffered_bytes, Relaxed) == *buffered_bytes;
            times.store(if is_same { times.load(Relaxed) + 1 } else { 0 }, Relaxed);
        }
    }
}

#[test]
fn i3_a_partition_that_was_revoked_while_paused_continues_when_it_is_assigned_again() {
    let topic = Topic::create("paused", 2);
    topic.changes(EVENTS, 40);
    let (gate, began) = (Arc::new(Semaphore::new(0)), Log::default());
    let waiting = |began: &Log| {
        let (gate, began) = (Arc::clone(&gate), began.clone());
        move |_: Delivery| {
            let gate = Arc::clone(&gate);
            began.note("began");
            async move { drop(gate.acquire().await) }
        }
    };
    let mut config = topic.config("paused");
    config.max_buffered_records = 8;
    config.shutdown_timeout = Duration::from_millis(200);
    config.revoke_timeout = Duration::from_millis(200);
    let still = Still::default();
    let first = Member::start_observed(config.clone(), waiting(&Log::default()), still.clone());
    wait_until("the pause of both partitions", || still.0.1.load(Relaxed) >= 2);
    let second = Member::start(config, waiting(&began));
    began.wait_for("began", 1);
    assert!(matches!(second.stop(), Err(Error::ShutdownTimeout { .. })), "its handlers wait");
    gate.close();
    wait_until("every offset", || topic.committed("paused").iter().sum::<i64>() == EVENTS);
    first.stop().unwrap();
}
