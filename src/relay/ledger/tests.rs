use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const fn lsn(value: u64) -> Lsn {
    Lsn::from_wire(value)
}

fn ledger_with(transactions: &[(u64, usize)]) -> (Ledger, Vec<Vec<Ticket>>) {
    let mut ledger = Ledger::new(lsn(1));
    let mut tickets = Vec::new();
    for (end, records) in transactions {
        ledger.open(1);
        tickets.push((0..*records).map(|_| ledger.enter(0, 100)).collect());
        ledger.close(lsn(*end));
    }
    (ledger, tickets)
}

#[test]
fn a_late_acknowledgement_holds_back_every_later_position() {
    let (mut ledger, tickets) = ledger_with(&[(10, 1), (20, 1)]);
    ledger.reports().delivered(tickets[1][0]);
    assert_eq!(ledger.settle().lsn(), lsn(1));
    ledger.reports().delivered(tickets[0][0]);
    assert_eq!(ledger.settle().lsn(), lsn(20));
}

#[test]
fn a3_keepalive_in_flight_is_not_confirmed() {
    let (mut ledger, tickets) = ledger_with(&[(10, 1)]);
    ledger.idle(lsn(50));
    assert_eq!(ledger.settle().lsn(), lsn(1));
    ledger.reports().delivered(tickets[0][0]);
    assert_eq!(ledger.settle().lsn(), lsn(50));
}

#[test]
fn a12_a_keepalive_with_nothing_in_flight_is_confirmed_at_once() {
    let mut ledger = Ledger::new(lsn(1));
    ledger.idle(lsn(50));
    assert_eq!(ledger.settle().lsn(), lsn(50));
    assert!(ledger.is_empty());
}

#[test]
fn a_keepalive_within_a_transaction_has_no_effect() {
    let mut ledger = Ledger::new(lsn(1));
    ledger.open(1);
    ledger.idle(lsn(50));
    assert_eq!(ledger.settle().lsn(), lsn(1));
    ledger.close(lsn(20));
    assert_eq!(ledger.settle().lsn(), lsn(20));
}

#[test]
fn keepalives_after_an_unacknowledged_record_use_one_entry() {
    let (mut ledger, tickets) = ledger_with(&[(10, 1)]);
    for position in 0..10 * CAPACITY as u64 {
        ledger.idle(lsn(100 + position));
    }
    assert!(ledger.has_room());
    ledger.reports().delivered(tickets[0][0]);
    assert_eq!(ledger.settle().lsn(), lsn(99 + 10 * CAPACITY as u64));
}

#[test]
fn a5_a_failed_record_is_never_passed() {
    let (mut ledger, tickets) = ledger_with(&[(10, 2), (20, 1)]);
    let reports = ledger.reports();
    reports.delivered(tickets[0][0]);
    reports.failed();
    reports.delivered(tickets[1][0]);
    ledger.idle(lsn(90));
    assert_eq!(ledger.settle().lsn(), lsn(1));
    assert!(reports.is_poisoned());
}

#[test]
fn an_incomplete_transaction_advances_no_position() {
    let mut ledger = Ledger::new(lsn(1));
    ledger.open(1);
    let ticket = ledger.enter(0, 100);
    ledger.abandon();
    ledger.open(1);
    let again = ledger.enter(0, 100);
    ledger.close(lsn(30));
    ledger.reports().delivered(again);
    assert_eq!(ledger.settle().lsn(), lsn(1), "the records of the first attempt may be in flight");
    ledger.reports().delivered(ticket);
    assert_eq!(ledger.settle().lsn(), lsn(30));
}

#[test]
fn the_last_acknowledgement_of_a_transaction_gives_its_times_once() {
    let mut ledger = Ledger::new(lsn(1));
    let reports = ledger.reports();
    ledger.open(77);
    let early = ledger.enter(0, 1);
    assert_eq!(reports.delivered(early).completed, None);
    let late = ledger.enter(0, 1);
    assert_eq!(ledger.close(lsn(10)), None);
    reports.handed(late, 99);
    assert_eq!(reports.delivered(late).completed, Some(Completed { committed_micros: 77, handed_micros: 99 }));

    ledger.open(78);
    let only = ledger.enter(0, 1);
    assert_eq!(reports.delivered(only).completed, None);
    let completed = Completed { committed_micros: 78, handed_micros: 0 };
    assert_eq!(ledger.close(lsn(20)), Some(completed), "it was delivered before its commit was received");
}

#[test]
fn a_waiting_relay_is_woken_once_when_half_is_acknowledged() {
    let (ledger, tickets) = ledger_with(&[(10, 4)]);
    let reports = ledger.reports();
    assert!(!ledger.await_half());
    let wakes: Vec<bool> = tickets[0].iter().map(|ticket| reports.delivered(*ticket).wake).collect();
    assert_eq!(wakes, [false, true, false, false]);
    assert!(ledger.await_half(), "nothing is in flight");
}

/// What happens to a ledger, in any order.
#[derive(Clone, Debug)]
enum Step {
    Begin,
    Row(u16),
    Commit,
    Keepalive,
    /// Acknowledges the record with this index among those in flight.
    Deliver(prop::sample::Index),
    Fail(prop::sample::Index),
    Disconnect,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Begin),
        6 => (0_u16..5_000).prop_map(Step::Row),
        3 => Just(Step::Commit),
        2 => Just(Step::Keepalive),
        8 => any::<prop::sample::Index>().prop_map(Step::Deliver),
        1 => any::<prop::sample::Index>().prop_map(Step::Fail),
        1 => Just(Step::Disconnect),
    ]
}

/// The simplest model of what a ledger may confirm.
#[derive(Default)]
struct Model {
    /// Each entry: its end if it counts, and the numbers of its unacknowledged records.
    entries: VecDeque<(Option<u64>, Vec<u64>)>,
    open: bool,
    log_end: u64,
    on_the_way: Vec<(u64, Ticket)>,
    records: u64,
}

impl Model {
    fn may_confirm(&self) -> u64 {
        let mut position = 1;
        for (number, (end, missing)) in self.entries.iter().enumerate() {
            let is_open = self.open && number + 1 == self.entries.len();
            if is_open || !missing.is_empty() {
                break;
            }
            position = end.unwrap_or(position).max(position);
        }
        position
    }

    fn apply(&mut self, step: &Step, ledger: &mut Ledger) {
        self.log_end += 10;
        let reports = ledger.reports();
        match step {
            Step::Begin if !self.open => {
                ledger.open(1);
                self.entries.push_back((None, Vec::new()));
                self.open = true;
            }
            Step::Row(bytes) if self.open => {
                self.records += 1;
                self.on_the_way.push((self.records, ledger.enter(0, usize::from(*bytes))));
                self.entries.back_mut().unwrap().1.push(self.records);
            }
            Step::Commit if self.open => {
                ledger.close(lsn(self.log_end));
                self.entries.back_mut().unwrap().0 = Some(self.log_end);
                self.open = false;
            }
            Step::Keepalive => {
                ledger.idle(lsn(self.log_end));
                if !self.open {
                    self.entries.push_back((Some(self.log_end), Vec::new()));
                }
            }
            Step::Deliver(index) if !self.on_the_way.is_empty() => {
                let (record, ticket) = self.on_the_way.swap_remove(index.index(self.on_the_way.len()));
                reports.delivered(ticket);
                self.entries.iter_mut().for_each(|(_, missing)| missing.retain(|other| *other != record));
            }
            Step::Fail(index) if !self.on_the_way.is_empty() => {
                self.on_the_way.swap_remove(index.index(self.on_the_way.len()));
                reports.failed();
            }
            Step::Disconnect if self.open => {
                ledger.abandon();
                self.open = false;
            }
            Step::Begin | Step::Row(_) | Step::Commit | Step::Deliver(_) | Step::Fail(_) | Step::Disconnect => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn g1_no_order_of_events_confirms_more_than_is_acknowledged(steps in prop::collection::vec(step(), 1..120)) {
        let mut ledger = Ledger::new(lsn(1));
        let mut model = Model::default();
        let mut before = lsn(0);
        for step in &steps {
            model.apply(step, &mut ledger);
            let confirmed = ledger.settle().lsn();
            prop_assert_eq!(confirmed, lsn(model.may_confirm()), "after {:?}", step);
            prop_assert!(confirmed >= before, "the position went back");
            before = confirmed;
        }
        let reports = ledger.reports();
        prop_assert_eq!(ledger.records() >= model.on_the_way.len() as u64, true);
        if !reports.is_poisoned() {
            for (_, ticket) in model.on_the_way.drain(..) {
                reports.delivered(ticket);
            }
            prop_assert_eq!((ledger.records(), ledger.bytes()), (0, 0));
        }
    }
}
