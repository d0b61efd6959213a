//! Handlers that run for long: they learn when they should end, and a time-out ends them.

use std::time::Duration;

use walrelay_events::consumer::CancelReason;
use walrelay_events::consumer::Delivery;
use walrelay_events::consumer::Error;
use walrelay_events::consumer::Outcome;
use walrelay_events::consumer::Received;
use walrelay_events::consumer::typed;

use super::stage::Log;
use super::stage::Member;
use super::stage::Topic;
use super::stage::wait_until;

#[test]
fn a_handler_that_hangs_is_ended_after_its_timeout_and_its_attempts_count() {
    let topic = Topic::create("hangs", 1);
    for key in ["hangs", "works"] {
        topic.write(Some(key), Some(b"{}"), &[]);
        topic.write(Some(key), Some(b"{}"), &[]);
    }
    topic.flush();
    let mut config = topic.config("hangs");
    config.handler_timeout = Some(Duration::from_millis(300));
    config.retry.max_attempts = 2;
    let (log, notes) = (Log::default(), Log::default());
    let seen = notes.clone();
    let handle = move |delivery: Delivery| {
        let seen = seen.clone();
        async move {
            if delivery.record.key() == Some(b"works") || delivery.record.offset() > 0 {
                return;
            }
            let reason = delivery.cancellation.cancelled().await;
            seen.note(format!("{reason:?} after {} attempts", delivery.previous_attempts));
            // It does not end by itself.
            std::future::pending::<()>().await;
        }
    };
    let member = Member::start_observed(config, handle, log.clone());
    wait_until("every offset", || topic.committed("hangs") == [4]);
    member.stop().unwrap();
    assert_eq!(notes.lines(), ["TimedOut after 0 attempts", "TimedOut after 1 attempts"]);
    let reason = "after 2 attempts: the handler timed out after 300ms";
    assert_eq!(log.count(&format!("dead-lettered hangs[0]@0 {reason}")), 1, "{:?}", log.lines());
    assert_eq!((log.count("ack"), log.count("retry")), (3, 1), "{:?}", log.lines());
}

#[test]
fn a_handler_that_times_out_may_still_say_what_happens_to_its_record() {
    let topic = Topic::create("givesup", 1);
    topic.write(Some("k"), Some(b"{}"), &[]);
    topic.flush();
    let mut config = topic.config("givesup");
    config.handler_timeout = Some(Duration::from_millis(100));
    let log = Log::default();
    let handle = |delivery: Delivery| async move {
        match delivery.cancellation.cancelled().await {
            CancelReason::TimedOut => Outcome::dead_letter("gave up"),
            CancelReason::Revoked | CancelReason::Stopping | _ => Outcome::Ack,
        }
    };
    let member = Member::start_observed(config, handle, log.clone());
    log.wait_for("dead-lettered givesup[0]@0 gave up", 1);
    member.stop().unwrap();
}

#[test]
fn a_handler_learns_that_the_consumer_stops_and_what_it_returns_then_counts() {
    let topic = Topic::create("learnstop", 1);
    topic.changes(2, 1);
    let began = Log::default();
    let notes = began.clone();
    let handle = move |received: Received<serde_json::Value>| {
        let notes = notes.clone();
        async move {
            notes.note("began");
            notes.note(format!("{:?}", received.cancellation.cancelled().await));
        }
    };
    let member = Member::start(topic.config("learnstop"), typed(handle));
    began.wait_for("began", 1);
    member.stop().unwrap();
    assert_eq!(began.lines(), ["began", "Stopping"], "the second record of the key is not started");
    assert_eq!(topic.committed("learnstop"), [1]);
}

#[test]
fn i3_a_handler_learns_that_its_partition_is_revoked_while_it_still_counts() {
    let topic = Topic::create("learnrevoke", 2);
    for partition in 0..2 {
        topic.write_to(Some(partition), Some("k"), Some(b"{}"), &[]);
    }
    topic.flush();
    let (began, observed) = (Log::default(), Log::default());
    let notes = began.clone();
    let handle = move |delivery: Delivery| {
        let notes = notes.clone();
        async move {
            notes.note("began");
            let reason = delivery.cancellation.cancelled().await;
            notes.note(format!("{reason:?} {}", delivery.record));
        }
    };
    let first = Member::start_observed(topic.config("learnrevoke"), handle, observed.clone());
    began.wait_for("began", 2);
    let taken = Log::default();
    let second = Member::start_observed(topic.config("learnrevoke"), |_: Delivery| async {}, taken.clone());
    began.wait_for("Revoked", 1);
    topic.write_to(Some(0), Some("k"), Some(b"{}"), &[]);
    topic.write_to(Some(1), Some("k"), Some(b"{}"), &[]);
    topic.flush();
    // The second member begins after the record that the first one has acked in time.
    taken.wait_for("ack learnrevoke", 1);
    assert_eq!((taken.count("@0"), taken.count("@1")), (0, 1), "{:?}", taken.lines());
    assert_eq!(observed.count("revoked"), 0, "{:?}", observed.lines());
    first.stop().unwrap();
    second.stop().unwrap();
}

#[test]
fn a_timeout_of_nothing_is_refused() {
    let topic = Topic::create("zerotimeout", 1);
    let mut config = topic.config("zerotimeout");
    config.handler_timeout = Some(Duration::ZERO);
    let mut member = Member::start(config, |_: Delivery| async {});
    assert!(matches!(member.join(), Err(Error::Option(text)) if text.contains("handler_timeout")));
}
