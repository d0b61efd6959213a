//! Partitions that are full are paused, and only as long as they are full.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use std::time::Duration;

use tokio::sync::Semaphore;
use walrelay_events::consumer::Config;
use walrelay_events::consumer::Delivery;
use walrelay_events::consumer::Error;
use walrelay_events::consumer::Observed;
use walrelay_events::consumer::Observer;

use super::stage::Log;
use super::stage::Member;
use super::stage::Topic;
use super::stage::wait_until;

const EVENTS: i64 = 8_000;

/// Counts how often the same amount of memory was held in a row.
#[derive(Clone, Default)]
struct Still(Arc<(AtomicU64, AtomicU64)>);

impl Observer for Still {
    fn observe(&self, observed: &Observed<'_>) {
        if let Observed::Held { bytes, .. } = observed {
            let (last, times) = &*self.0;
            let is_same = *bytes > 0 && last.swap(*bytes, Relaxed) == *bytes;
            times.store(if is_same { times.load(Relaxed) + 1 } else { 0 }, Relaxed);
        }
    }
}

#[test]
fn i3_a_partition_that_was_given_up_full_goes_on_when_it_comes_back() {
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
    let config = Config {
        records_max: 8,
        drain: Duration::from_millis(200),
        revoke_drain: Duration::from_millis(200),
        ..topic.config("g")
    };
    let still = Still::default();
    let first = Member::start_observed(config.clone(), waiting(&Log::default()), still.clone());
    wait_until("the pause of both partitions", || still.0.1.load(Relaxed) >= 2);
    let second = Member::start(config, waiting(&began));
    began.wait_for("began", 1);
    assert!(matches!(second.stop(), Err(Error::DrainTimeout { .. })), "its handlers wait");
    gate.close();
    wait_until("every offset", || topic.committed("g").iter().sum::<i64>() == EVENTS);
    first.stop().unwrap();
}
