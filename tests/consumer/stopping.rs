//! A stop while Kafka is down or does not answer: nothing waits longer than it has a reason to, and what was not
//! committed is said.

use std::time::Duration;
use std::time::Instant;

use walrelay_events::consumer::Config;
use walrelay_events::consumer::Delivery;
use walrelay_events::consumer::Error;

use super::stage::Log;
use super::stage::Member;
use super::stage::Topic;
use super::stage::cut_off;
use crate::support::kafka::Kafka;
use crate::support::kafka::free_port;

/// Far more than a stop takes that waits for nothing, and far less than the time-outs of these tests.
const AT_ONCE: Duration = Duration::from_secs(20);

/// Stops a member. Returns its end, and how long that took.
fn stopped(member: Member) -> (Result<(), Error>, Duration) {
    let began = Instant::now();
    (member.stop(), began.elapsed())
}

#[test]
fn a_consumer_with_nothing_to_commit_stops_at_once_while_kafka_is_down() {
    let mut kafka = Kafka::start(1);
    Topic::create_on(&kafka, "idle", 1, &[]).changes(10, 1);
    let mut config = Config::new(&kafka.bootstrap(), "g", &["idle"]);
    config.shutdown_timeout = Duration::from_secs(45);
    let log = Log::default();
    let member = Member::start_observed(config, |_: Delivery| async {}, log.clone());
    log.wait_for("ack", 10);
    // The commit of all of them is in the statistics.
    log.wait_for("lag 0 0", 1);
    log.wait_for("lag 0 0", log.count("lag 0 0") + 2);
    kafka.kill(0);
    log.wait_for("all brokers down", 1);
    let (ended, took) = stopped(member);
    assert!(ended.is_ok() && took < AT_ONCE, "{ended:?} after {took:?}");
}

#[test]
fn a_stop_while_kafka_is_down_keeps_to_the_shutdown_timeout_and_says_what_is_not_committed() {
    let (_kafka, _topic, _log, member) = cut_off("busy", Duration::from_secs(4));
    let (ended, took) = stopped(member);
    let Err(Error::ShutdownTimeout { running: 0, uncommitted }) = &ended else { panic!("{ended:?}") };
    let uncommitted: Vec<_> = uncommitted.iter().map(|(partition, offset)| format!("{partition}@{offset}")).collect();
    assert_eq!(uncommitted, ["busy[0]@10"]);
    assert!(took < AT_ONCE, "{took:?}");
}

#[test]
fn a_stop_while_kafka_does_not_answer_keeps_to_the_shutdown_timeout() {
    let kafka = Kafka::start(1);
    Topic::create_on(&kafka, "mute", 1, &[]).changes(10, 1);
    let mut config = Config::new(&kafka.bootstrap(), "g", &["mute"]);
    config.shutdown_timeout = Duration::from_secs(4);
    let log = Log::default();
    let member = Member::start_observed(config, |_: Delivery| async {}, log.clone());
    log.wait_for("ack", 10);
    kafka.freeze(0);
    let (ended, took) = stopped(member);
    kafka.thaw(0);
    // The frozen broker may have confirmed the commit before.
    assert!(matches!(ended, Ok(()) | Err(Error::ShutdownTimeout { running: 0, .. })), "{ended:?}");
    assert!(took < AT_ONCE, "{took:?}");
}

#[test]
fn a_consumer_that_never_saw_a_broker_stops_at_once() {
    let log = Log::default();
    let mut config = Config::new(&format!("127.0.0.1:{}", free_port()), "g", &["nowhere"]);
    config.shutdown_timeout = Duration::from_secs(45);
    let member = Member::start_observed(config, |_: Delivery| async {}, log.clone());
    log.wait_for("all brokers down", 1);
    let (ended, took) = stopped(member);
    assert!(ended.is_ok() && took < AT_ONCE, "{ended:?} after {took:?}");
}
