//! The handle of a consumer, and the signals that stop one.

use std::time::Duration;

use walrelay_events::consumer::Delivery;
use walrelay_events::consumer::State;

use super::stage::Effects;
use super::stage::Log;
use super::stage::Member;
use super::stage::Process;
use super::stage::Topic;
use super::stage::wait_until;

#[test]
fn a_consumer_is_ready_when_it_has_its_partitions_and_its_handle_says_the_lag_of_each() {
    let topic = Topic::create("ready", 2);
    topic.changes(10, 10);
    let log = Log::default();
    let member = Member::start_observed(topic.config("ready"), |_: Delivery| async {}, log.clone());
    wait_until("its partitions", || member.control.is_ready());
    log.wait_for("ack", 10);
    wait_until("the lag", || {
        let status = member.control.status();
        status.partitions.len() == 2 && status.partitions.values().all(|lag| *lag == Some(0))
    });
    // There is no partition for the third one, and it has nothing to wait for.
    let second = Member::start(topic.config("ready"), |_: Delivery| async {});
    let third = Member::start(topic.config("ready"), |_: Delivery| async {});
    let all = [&member, &second, &third];
    wait_until("a partition for each of two", || {
        let statuses = all.map(|member| member.control.status());
        let counts = statuses.iter().map(|status| status.partitions.len()).sum::<usize>();
        statuses.iter().all(|status| status.is_ready() && status.partitions.len() < 2) && counts == 2
    });
    let control = third.control.clone();
    third.stop().unwrap();
    assert_eq!((control.status().state, control.is_ready()), (State::Ended, false));
    second.stop().unwrap();
    member.stop().unwrap();
}

#[test]
fn a_paused_consumer_starts_no_handler_and_keeps_its_partitions_until_it_is_resumed() {
    let topic = Topic::create("pausing", 1);
    topic.changes(5, 5);
    let mut config = topic.config("pausing");
    config.max_buffered_records = 50;
    let log = Log::default();
    let member = Member::start_observed(config, |_: Delivery| async {}, log.clone());
    log.wait_for("ack", 5);
    member.control.pause();
    topic.changes(1_000, 10);
    wait_until("what it buffers", || member.control.status().buffered_records >= 50);
    log.wait_for("lag 0 1000", log.count("lag 0 1000") + 3);
    assert_eq!(log.count("ack"), 5, "a handler was started");
    let status = member.control.status();
    assert!(status.is_ready() && status.is_paused && status.partitions.len() == 1, "{status:?}");
    assert!(status.buffered_records < 1_000, "{status:?}");
    member.control.resume();
    log.wait_for("ack", 1_005);
    wait_until("the commit", || topic.committed("pausing") == [1_005]);
    member.stop().unwrap();
}

#[test]
fn a_paused_consumer_stops_like_any_other() {
    let topic = Topic::create("pausedstop", 1);
    topic.changes(5, 5);
    let member = Member::start(topic.config("pausedstop"), |_: Delivery| async {});
    member.control.pause();
    wait_until("its records", || member.control.status().buffered_records > 0);
    member.stop().unwrap();
    assert_eq!(topic.committed("pausedstop"), [0]);
}

#[test]
fn sigterm_and_sigint_stop_a_consumer_in_order() {
    for signal in ["TERM", "INT"] {
        let effects = Effects::new();
        let topic = Topic::create(&format!("signal-{signal}"), 1);
        topic.changes(20, 5);
        // The last commit is the only one.
        let member = Process::start(&topic, &topic.name, &effects.postgres.url(), &["commit_ms=3600000"]);
        effects.wait_for(20, Duration::from_secs(60));
        member.signal(signal);
        member.wait();
        assert_eq!(topic.committed(&topic.name), [20], "after SIG{signal}");
    }
}
