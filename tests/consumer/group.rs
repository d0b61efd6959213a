//! A group whose members come, go, stall and die: every effect once, the order of each key kept, nothing stuck.

use std::time::Duration;
use std::time::Instant;

use walrelay_events::consumer::Delivery;
use walrelay_events::consumer::Error;

use super::stage::Effects;
use super::stage::Log;
use super::stage::Member;
use super::stage::Process;
use super::stage::Topic;
use super::stage::wait_until;

/// A member that is not heard of for so long has lost its partitions.
const SESSION: Duration = Duration::from_secs(6);
/// Members of the group, and keys of the events.
const MEMBERS: usize = 3;
const KEYS: i64 = 1_000;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// A small pseudo-random source: every run makes the same choices.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Writes events evenly over a time, so that every partition always has something to do.
fn write(topic: &Topic, events: i64, time: Duration) {
    let began = Instant::now();
    for number in 0..events {
        topic.numbered(number, KEYS);
        let due = time.mul_f64(number as f64 / events as f64);
        std::thread::sleep(due.saturating_sub(began.elapsed()));
    }
    topic.flush();
}

/// Kills, stalls and replaces members.
fn disturb(start: impl Fn() -> Process, time: Duration, every: Duration) -> Vec<Process> {
    let began = Instant::now();
    let mut dice = Dice(0x5EED);
    let mut members: Vec<Process> = (0..MEMBERS).map(|_| start()).collect();
    while began.elapsed() < time {
        std::thread::sleep(every);
        let place = usize::try_from(dice.roll(MEMBERS as u64)).unwrap();
        match dice.roll(4) {
            0 => members[place] = start(),
            1 => stall(&members[place], Duration::from_secs(1)),
            // The group goes on without it, and it comes back as a stranger.
            2 => stall(&members[place], SESSION + Duration::from_secs(2)),
            _ => std::mem::replace(&mut members[place], start()).leave(),
        }
    }
    members
}

fn stall(member: &Process, time: Duration) {
    member.signal("STOP");
    std::thread::sleep(time);
    member.signal("CONT");
}

/// `WALRELAY_TEST_GROUP_SECONDS` and `WALRELAY_TEST_GROUP_EVENTS` make it longer, `WALRELAY_TEST_GROUP_EVERY` calmer:
/// so many seconds from one disturbance to the next.
#[test]
fn i3_i5_members_that_are_killed_paused_and_added_repeat_no_effect_and_leave_nothing_undone() {
    disturbed("chaos", "classic");
}

/// The same.
#[test]
fn i3_i5_where_brokers_share_partitions_out_nothing_is_repeated_or_left_undone_either() {
    disturbed("chaos-brokers", "consumer");
}

fn disturbed(topic: &str, protocol: &str) {
    let time = Duration::from_secs(number("WALRELAY_TEST_GROUP_SECONDS", 25));
    let events = i64::try_from(number("WALRELAY_TEST_GROUP_EVENTS", 6_000)).unwrap();
    let every = Duration::from_secs(number("WALRELAY_TEST_GROUP_EVERY", 3));
    let (topic, effects) = (Topic::create(topic, 12), Effects::new());
    let url = effects.postgres.url();
    let (session, how) = (format!("session_ms={}", SESSION.as_millis()), format!("protocol={protocol}"));
    let start = || Process::start(&topic, &topic.name, &url, &["sleep_ms=10", &session, &how]);
    let members = std::thread::scope(|scope| {
        scope.spawn(|| write(&topic, events, time));
        disturb(start, time, every)
    });
    effects.wait_for(events, Duration::from_secs(120));
    effects.check(events);
    wait_until("every offset", || {
        topic.committed(&topic.name).iter().filter(|offset| **offset > 0).sum::<i64>() == events
    });
    drop(members);
    // A figure, not a promise: the member that takes over from a dead one may be stalled next, before the group has
    // noticed the first.
    let longest = effects.longest_gap();
    #[expect(clippy::print_stderr, reason = "a figure of the long run")]
    {
        eprintln!(
            "{protocol}: {events} effects in {time:?}; longest pause of a partition {longest:?}, session {SESSION:?}"
        );
    }
}

#[test]
fn i3_a_member_that_joins_gets_its_share_and_nothing_is_handled_twice() {
    let topic = Topic::create("joins", 6);
    topic.changes(3_000, 300);
    let log = Log::default();
    let handle = |log: &Log, name: &'static str| {
        let log = log.clone();
        move |delivery: Delivery| {
            let log = log.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(10)).await;
                log.note(format!("{name} {}", delivery.record));
            }
        }
    };
    let mut config = topic.config("joins");
    // Slow enough that the second still finds work when it has joined.
    config.max_concurrency = 4;
    let observed = Log::default();
    let first = Member::start_observed(config.clone(), handle(&log, "first"), observed.clone());
    log.wait_for("first", 200);
    let second = Member::start_observed(config, handle(&log, "second"), observed.clone());
    log.wait_for("second", 200);
    wait_until("all of them", || topic.committed("joins").iter().sum::<i64>() == 3_000);
    first.stop().unwrap();
    second.stop().unwrap();
    let mut records: Vec<String> = log.lines().iter().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect();
    records.sort();
    records.dedup();
    assert_eq!((records.len(), log.lines().len()), (3_000, 3_000), "drained before it was given up");
    assert_eq!(observed.count("revoked"), 0, "{:?}", observed.lines());
}

#[test]
fn i4_a_handler_that_takes_longer_than_the_poll_interval_keeps_its_partition() {
    let topic = Topic::create("i4", 1);
    topic.changes(2, 2);
    let mut config = topic.config("i4");
    config.properties.insert("session.timeout.ms".into(), "10000".into());
    config.properties.insert("max.poll.interval.ms".into(), "10000".into());
    config.revoke_timeout = Duration::from_secs(2);
    // As many records as fit: the partition is paused all the while.
    config.max_buffered_records = 2;
    let log = Log::default();
    let notes = log.clone();
    let handle = move |delivery: Delivery| {
        let notes = notes.clone();
        async move {
            tokio::time::sleep(Duration::from_secs(13)).await;
            notes.note(delivery.record.offset());
        }
    };
    let first = Log::default();
    let member = Member::start_observed(config.clone(), handle, first.clone());
    // It has the partition, and where it begins is committed before it takes anything.
    wait_until("its partition", || topic.committed("i4") == [0]);
    // A second member would get the partition if the first one were thought dead.
    let other = Log::default();
    let spare = Member::start_observed(config, |_: Delivery| async {}, other.clone());
    wait_until("both", || topic.committed("i4") == [2]);
    spare.stop().unwrap();
    member.stop().unwrap();
    assert_eq!(
        (log.lines().len(), other.count("ack")),
        (2, 0),
        "{:?} {:?} {:?}",
        log.lines(),
        first.lines(),
        other.lines()
    );
}

#[test]
fn lag_is_reported_also_for_a_partition_that_is_full_and_has_nothing_done() {
    let topic = Topic::create("lagfull", 1);
    topic.changes(100, 1);
    let mut config = topic.config("lagfull");
    config.max_buffered_records = 2;
    config.shutdown_timeout = Duration::ZERO;
    let log = Log::default();
    let member = Member::start_observed(config, |_: Delivery| std::future::pending::<()>(), log.clone());
    log.wait_for("lag 0 100", 2);
    topic.changes(50, 1);
    log.wait_for("lag 0 150", 1);
    assert!(matches!(member.stop(), Err(Error::ShutdownTimeout { running: 1, .. })));
}

#[test]
fn lag_is_reported_to_the_observer() {
    let topic = Topic::create("lag", 1);
    topic.changes(100, 1);
    let log = Log::default();
    let member = Member::start_observed(
        topic.config("lag"),
        |_: Delivery| async { tokio::time::sleep(Duration::from_millis(200)).await },
        log.clone(),
    );
    log.wait_for("lag 0", 1);
    member.stop().unwrap();
    let lag = log.lines().iter().find_map(|line| line.strip_prefix("lag 0 ").map(|it| it.parse::<u64>().unwrap()));
    assert!(lag.is_some_and(|lag| lag > 0 && lag <= 100), "{lag:?}");
}
