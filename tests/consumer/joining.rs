//! A member that its group refuses is an observed state with a next step, and not a line of librdkafka every two
//! seconds.

use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::Consumer as _;
use walrelay_events::consumer::Delivery;
use walrelay_events::consumer::Error;
use walrelay_events::consumer::GroupProtocol;
use walrelay_events::consumer::State;
use walrelay_events::fault::Diagnose as _;

use super::stage::Lines;
use super::stage::Log;
use super::stage::Member;
use super::stage::Topic;
use super::stage::wait_until;
use crate::support::kafka::Kafka;

#[test]
fn a_member_with_another_assignor_than_its_group_is_refused_once_in_the_log_and_joins_when_it_can() {
    let topic = Topic::create("assignors", 1);
    topic.changes(3, 1);
    let stranger: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", Kafka::shared().bootstrap())
        .set("group.id", "assignors")
        .set("partition.assignment.strategy", "range")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    stranger.subscribe(&["assignors"]).unwrap();
    let poll = |stranger: &BaseConsumer| drop(stranger.poll(Duration::from_millis(100)));
    wait_until("the stranger's assignment", || {
        poll(&stranger);
        stranger.assignment().unwrap().count() == 1
    });
    let (log, lines) = (Log::default(), Lines::default());
    let member = Member::start_logged(topic.config("assignors"), |_: Delivery| async {}, log.clone(), &lines);
    wait_until("several refusals", || {
        poll(&stranger);
        lines.count(&["group still refuses this member"]) >= 2
    });
    let refused = lines.with(&["WARN", "group refuses this member"]);
    assert_eq!(refused.len(), 1, "{refused:?}");
    for part in ["Inconsistent group protocol", "group=\"assignors\"", "next="] {
        assert!(refused[0].contains(part), "{refused:?}");
    }
    assert_eq!(log.count("join refused"), 1, "{:?}", log.lines());
    let foreign: Vec<String> = ["ERROR", "WARN"].iter().flat_map(|level| lines.with(&[level, " rdkafka::"])).collect();
    assert!(foreign.is_empty(), "{foreign:?}");
    let status = member.control.status();
    let State::Refused { next, .. } = &status.state else { panic!("{status:?}") };
    assert!(next.contains("--group assignors"), "{next}");
    assert!(!status.is_ready());
    drop(stranger);
    log.wait_for("ack", 3);
    assert!(member.control.is_ready());
    member.stop().unwrap();
}

#[test]
fn a_member_whose_instance_id_is_taken_joins_when_it_is_released() {
    let topic = Topic::create("instances", 1);
    topic.changes(1, 1);
    let mut config = topic.config("instances");
    config.group_protocol = GroupProtocol::Consumer;
    config.properties.insert("group.instance.id".into(), "the-only-one".into());
    let (first, second) = (Log::default(), Log::default());
    let holder = Member::start_observed(config.clone(), |_: Delivery| async {}, first.clone());
    first.wait_for("ack", 1);
    let mut waiting = Member::start_observed(config, |_: Delivery| async {}, second.clone());
    wait_until("the refusal", || {
        waiting.check();
        second.count("join refused") == 1
    });
    assert!(matches!(waiting.control.status().state, State::Refused { .. }), "{:?}", waiting.control.status());
    holder.stop().unwrap();
    topic.changes(1, 1);
    wait_until("the other's turn", || {
        waiting.check();
        second.count("ack") == 1
    });
    waiting.stop().unwrap();
}

#[test]
fn a_member_that_no_broker_can_serve_ends_and_says_why() {
    let topic = Topic::create("nosuch", 1);
    let mut config = topic.config("nosuch");
    config.group_protocol = GroupProtocol::Consumer;
    config.properties.insert("group.remote.assignor".into(), "no-such-assignor".into());
    let ended = Member::start(config, |_: Delivery| async {}).join();
    let Err(error @ Error::JoinRefused { group, .. }) = &ended else { panic!("{ended:?}") };
    assert_eq!(group, "nosuch");
    assert!(error.help().unwrap().contains("group.remote.assignor"), "{error:?}");
}
