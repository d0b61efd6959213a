//! Handlers that outlive the revocation of their partition: what they return does not count, and they count in the
//! limits and hold their key until they have returned.

use std::sync::Arc;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use tokio::sync::Semaphore;
use walrelay_events::consumer::Config;
use walrelay_events::consumer::Delivery;
use walrelay_events::consumer::Observed;
use walrelay_events::consumer::Observer;
use walrelay_events::consumer::Outcome;

use super::stage::Log;
use super::stage::Member;
use super::stage::Topic;
use super::stage::wait_until;

/// A partition that no member has.
const NONE: i32 = -1;

/// Writes records of different keys to a partition.
fn write(topic: &Topic, partition: i32, keys: impl IntoIterator<Item = String>) {
    for key in keys {
        topic.write_to(Some(partition), Some(&key), Some(b"{}"), &[]);
    }
    topic.flush();
}

fn config(topic: &Topic) -> Config {
    let mut config = topic.config(&topic.name);
    config.revoke_timeout = Duration::from_millis(200);
    config.shutdown_timeout = Duration::from_millis(200);
    config
}

/// A handler that waits until the gate opens.
fn waiting(gate: &Arc<Semaphore>, began: &Log) -> impl Fn(Delivery) -> WaitingFuture + Send + Sync + 'static {
    let (gate, began) = (Arc::clone(gate), began.clone());
    move |delivery: Delivery| {
        let gate = Arc::clone(&gate);
        began.note(format!("began {}", delivery.record));
        Box::pin(async move { drop(gate.acquire().await) })
    }
}

type WaitingFuture = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

#[test]
fn i5_what_is_rejected_after_its_partition_was_revoked_is_no_dead_letter_and_ends_no_consumer() {
    let topic = Topic::create("late", 2);
    for partition in 0..2 {
        write(&topic, partition, (0..4).map(|key| format!("p{partition}-{key}")));
    }
    let (gate, began, moved) = (Arc::new(Semaphore::new(0)), Log::default(), Arc::new(AtomicI32::new(NONE)));
    let (opens, notes, rejected) = (Arc::clone(&gate), began.clone(), Arc::clone(&moved));
    let rejecting = move |delivery: Delivery| {
        let (gate, rejected, notes) = (Arc::clone(&opens), Arc::clone(&rejected), notes.clone());
        notes.note(format!("began {}", delivery.record));
        async move {
            drop(gate.acquire().await);
            if delivery.record.partition() == rejected.load(SeqCst) {
                notes.note("rejected");
                return Outcome::dead_letter("late");
            }
            Outcome::Ack
        }
    };
    let mut first = config(&topic);
    // The first dead-letter record would end the consumer.
    first.dead_letters.budget.max_consecutive = 0;
    let log = Log::default();
    let mut first = Member::start_observed(first, rejecting, log.clone());
    began.wait_for("began", 8);
    // One of the partitions moves, and its handlers do not end in time.
    let taken = Log::default();
    let notes = taken.clone();
    let handle = move |delivery: Delivery| {
        moved.store(delivery.record.partition(), SeqCst);
        notes.note(delivery.record);
        async {}
    };
    let second = Member::start(config(&topic), handle);
    taken.wait_for("late", 4);
    log.wait_for("revoked 4", 1);
    gate.close();
    began.wait_for("rejected", 4);
    // What is handled after them is processed after them.
    let kept = 1 - taken.lines()[0].parse_partition();
    write(&topic, kept, ["last".to_owned()]);
    log.wait_for(&format!("ack late[{kept}]@4"), 1);
    first.check();
    assert_eq!(log.count("dead"), 0, "{:?}", log.lines());
    assert_eq!(log.count("ack"), 5, "{:?}", log.lines());
    first.stop().unwrap();
    second.stop().unwrap();
}

#[test]
fn i5_handlers_of_a_revoked_partition_count_in_the_limit_until_they_return() {
    let topic = Topic::create("latelimit", 2);
    for partition in 0..2 {
        write(&topic, partition, [format!("p{partition}-0")]);
    }
    let (gate, running) = (Arc::new(Semaphore::new(0)), Arc::new((AtomicUsize::new(0), AtomicUsize::new(0))));
    let (opens, counts) = (Arc::clone(&gate), Arc::clone(&running));
    let counting = move |_: Delivery| {
        let (gate, counts) = (Arc::clone(&opens), Arc::clone(&counts));
        async move {
            counts.1.fetch_max(counts.0.fetch_add(1, SeqCst) + 1, SeqCst);
            drop(gate.acquire().await);
            counts.0.fetch_sub(1, SeqCst);
        }
    };
    let mut options = config(&topic);
    options.max_concurrency = 2;
    let (log, loads) = (Log::default(), Arc::new(AtomicUsize::new(0)));
    let first = Member::start_observed(options, counting, Reports(log.clone(), Arc::clone(&loads)));
    wait_until("a handler of each partition", || running.0.load(SeqCst) == 2);
    for partition in 0..2 {
        write(&topic, partition, (1..10).map(|key| format!("p{partition}-{key}")));
    }
    let second = Member::start(config(&topic), |_: Delivery| async {});
    log.wait_for("revoked 1", 1);
    // The consumer goes on: it reports twice more.
    let reports = loads.load(SeqCst);
    wait_until("two reports", || loads.load(SeqCst) >= reports + 2);
    assert_eq!(running.1.load(SeqCst), 2, "one of the two handlers is of the revoked partition");
    gate.close();
    wait_until("every offset", || topic.committed("latelimit") == [10, 10]);
    assert_eq!(running.1.load(SeqCst), 2);
    first.stop().unwrap();
    second.stop().unwrap();
}

#[test]
fn i5_a_key_never_runs_twice_in_a_process_also_when_its_partition_comes_back() {
    let topic = Topic::create("lateback", 2);
    for partition in 0..2 {
        write(&topic, partition, (0..3).map(|key| format!("p{partition}-{key}")));
    }
    let (gate, began) = (Arc::new(Semaphore::new(0)), Log::default());
    let first = Member::start(config(&topic), waiting(&gate, &began));
    began.wait_for("began", 6);
    let (shut, taken) = (Arc::new(Semaphore::new(0)), Log::default());
    let second = Member::start(config(&topic), waiting(&shut, &taken));
    taken.wait_for("began", 3);
    let moved = taken.lines()[0].parse_partition();
    assert!(second.stop().is_err(), "its handlers wait");
    // The partition comes back. Another key is handled there, and the three keys wait.
    write(&topic, moved, ["other".to_owned()]);
    began.wait_for(&format!("began lateback[{moved}]@3"), 1);
    assert_eq!(began.count(&format!("lateback[{moved}]")), 4, "{:?}", began.lines());
    // When the old handlers have returned, their records are handled again: nobody has committed them.
    gate.close();
    began.wait_for(&format!("lateback[{moved}]"), 7);
    wait_until("every offset", || topic.committed("lateback").iter().sum::<i64>() == 7);
    first.stop().unwrap();
}

/// Counts the reports about load, besides what is logged.
struct Reports(Log, Arc<AtomicUsize>);

impl Observer for Reports {
    fn observe(&self, observed: &Observed<'_>) {
        if matches!(observed, Observed::Load { .. }) {
            self.1.fetch_add(1, SeqCst);
        }
        self.0.observe(observed);
    }
}

trait Partition {
    /// The partition in `topic[partition]@offset`.
    fn parse_partition(&self) -> i32;
}

impl Partition for String {
    fn parse_partition(&self) -> i32 {
        let (_, rest) = self.split_once('[').unwrap();
        rest.split_once(']').unwrap().0.parse().unwrap()
    }
}
