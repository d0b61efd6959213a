//! Kafka goes away and comes back, memory stays within its bounds meanwhile, and a stop does not wait for ever.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use walrelay::consumer::Delivery;
use walrelay::consumer::Error;
use walrelay::consumer::Observed;
use walrelay::consumer::Observer;

use super::stage::Member;
use super::stage::Topic;
use super::stage::wait_until;

/// Keeps the most bytes that were held, and counts how often it was told.
#[derive(Clone, Default)]
struct Bytes {
    most: Arc<AtomicU64>,
    told: Arc<AtomicU64>,
}

impl Observer for Bytes {
    fn observe(&self, observed: &Observed<'_>) {
        if let Observed::Held { bytes, .. } = observed {
            self.most.fetch_max(*bytes, Relaxed);
            self.told.fetch_add(1, Relaxed);
        }
    }
}

#[test]
fn large_records_are_held_up_to_the_bound_and_no_further() {
    const RECORD: usize = 500_000;
    const BOUND: u64 = 2_000_000;
    let topic = Topic::create("large", 1);
    let value = vec![b'x'; RECORD];
    (0..60).for_each(|_| topic.write(Some("k"), Some(&value), &[]));
    topic.flush();
    let mut config = topic.config("g");
    config.bytes_max = BOUND;
    config.drain = Duration::ZERO;
    let bytes = Bytes::default();
    let member = Member::start_observed(config, |_: Delivery| std::future::pending::<()>(), bytes.clone());
    wait_until("something to hold", || bytes.most.load(Relaxed) >= BOUND);
    let told = bytes.told.load(Relaxed);
    wait_until("more of it, if it takes more", || bytes.told.load(Relaxed) >= told + 3);
    assert!(matches!(member.stop(), Err(Error::DrainTimeout { .. })));
    let most = bytes.most.load(Relaxed);
    assert!(most < BOUND + 600_000, "{most} bytes are more than the bound and one record");
}
