use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::relay::ledger::Completed;
use crate::relay::ledger::Ticket;
use crate::relay::record::route::ProducerRecord;

/// A stream of frames as a server would send it.
#[derive(Clone, Default)]
struct Stream(Vec<u8>);

impl Stream {
    fn frame(mut self, body: &[u8]) -> Self {
        self.0.push(b'd');
        self.0.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        self.0.extend_from_slice(body);
        self
    }

    fn data(self, message: &[u8]) -> Self {
        self.frame(&[b"w".as_slice(), &[0; 24], message].concat())
    }

    fn begin(self, commit: u64) -> Self {
        self.data(&[b"B".as_slice(), &commit.to_be_bytes(), &1_000_i64.to_be_bytes(), &[0, 0, 0, 7]].concat())
    }

    fn commit(self, commit: u64, end: u64) -> Self {
        self.data(&[b"C\0".as_slice(), &commit.to_be_bytes(), &end.to_be_bytes(), &1_000_i64.to_be_bytes()].concat())
    }

    fn relation(self, id: u32, name: &str) -> Self {
        self.relation_of(id, name, &["id", "aggregate_type", "aggregate_id", "event_type", "payload"])
    }

    fn relation_of(self, id: u32, name: &str, columns: &[&str]) -> Self {
        let count = [0, u8::try_from(columns.len()).unwrap()];
        let mut body = [b"R".as_slice(), &id.to_be_bytes(), b"public\0", name.as_bytes(), b"\0d", &count].concat();
        for column in columns {
            body.extend([&[0], column.as_bytes(), b"\0", &25_u32.to_be_bytes(), &[0xFF; 4]].concat());
        }
        self.data(&body)
    }

    fn row(self, relation: u32, id: &str, key: &str) -> Self {
        let mut body = [b"I".as_slice(), &relation.to_be_bytes(), b"N\0\x05"].concat();
        for value in [id, "order", key, "Created", "{}"] {
            body.push(b't');
            body.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
            body.extend_from_slice(value.as_bytes());
        }
        self.data(&body)
    }

    fn keepalive(self, position: u64, reply: u8) -> Self {
        self.frame(&[b"k".as_slice(), &position.to_be_bytes(), &[0; 8], &[reply]].concat())
    }
}

/// A sink that stores what it accepts.
#[derive(Default)]
struct Taken {
    records: Vec<(String, String, Ticket)>,
    room: Option<usize>,
}

impl Sink for Taken {
    fn topic_index(&mut self, _: &str) -> u16 {
        0
    }

    fn accept(&mut self, record: &ProducerRecord<'_>, ticket: Ticket) -> Result<(), Refused> {
        if self.room == Some(0) {
            return Err(Refused::Full);
        }
        if let Some(room) = &mut self.room {
            *room -= 1;
        }
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let id = record.headers.iter().find(|(name, _)| *name == "event_id").map(|(_, value)| text(value.unwrap()));
        self.records.push((id.unwrap(), text(record.key.unwrap()), ticket));
        Ok(())
    }

    fn completed(&mut self, _: Completed) {}

    fn aged(&mut self, _: Duration) {}
}

fn pipeline(budget: u64) -> Pipeline {
    let route = Route::new(&route::Config::default()).unwrap();
    Pipeline::new(vec![route], Limits { in_flight_bytes: budget, frame_bytes: 1 << 16 }, Lsn::from_wire(1))
}

fn ids(sink: &Taken) -> Vec<&str> {
    sink.records.iter().map(|(id, _, _)| id.as_str()).collect()
}

fn confirmed(pipeline: &mut Pipeline) -> u64 {
    pipeline.confirmation().lsn().to_wire()
}

#[test]
fn a_transaction_is_confirmed_when_its_rows_are_acknowledged_and_its_end_is_received() {
    let stream = Stream::default().begin(100).relation(1, "outbox_events").row(1, "a", "k").row(1, "b", "k");
    let (mut pipeline, mut sink) = (pipeline(1 << 20), Taken::default());
    let ran = pipeline.run(&stream.0, &mut sink).unwrap();
    assert_eq!((ran.used, ran.stopped), (stream.0.len(), Stopped::Drained(5)));
    assert_eq!(ids(&sink), ["a", "b"]);
    let reports = pipeline.reports();
    sink.records.iter().for_each(|(_, _, ticket)| _ = reports.delivered(*ticket));
    assert_eq!(confirmed(&mut pipeline), 1);
    pipeline.run(&Stream::default().commit(100, 130).0, &mut sink).unwrap();
    assert_eq!(confirmed(&mut pipeline), 130);
}

#[test]
fn c10_a_column_dropped_within_a_transaction_is_an_error_once_and_not_after_each_restart() {
    let with = ["id", "aggregate_type", "aggregate_id", "event_type", "payload", "headers"];
    let dropped = Stream::default().relation(1, "outbox_events").row(1, "b", "k").commit(200, 230);
    let known = Stream::default().begin(100).relation_of(1, "outbox_events", &with).commit(100, 130).begin(200);
    let (mut running, mut sink) = (pipeline(1 << 20), Taken::default());
    running.run(&known.0, &mut sink).unwrap();
    assert!(running.run(&dropped.0, &mut sink).is_err());
    // The server sends the transaction from its beginning, with the table as it was then.
    let again = Stream::default().begin(200).relation_of(1, "outbox_events", &with);
    let mut restarted = pipeline(1 << 20);
    restarted.run(&again.0, &mut sink).unwrap();
    restarted.run(&dropped.0, &mut sink).unwrap();
    assert_eq!(ids(&sink), ["b"]);
}

#[test]
fn a7_the_confirmed_position_is_the_end_of_the_commit_not_its_start() {
    let stream = Stream::default().begin(100).commit(100, 130);
    let (mut pipeline, mut sink) = (pipeline(1 << 20), Taken::default());
    pipeline.run(&stream.0, &mut sink).unwrap();
    assert_eq!(confirmed(&mut pipeline), 130);
}

#[test]
fn g6_at_the_in_flight_limit_the_wal_is_not_read() {
    let mut stream = Stream::default().begin(100).relation(1, "outbox_events");
    for number in 0..100 {
        stream = stream.row(1, &number.to_string(), "k");
    }
    let budget = 10 * (RECORD_OVERHEAD as u64 + 128);
    let (mut pipeline, mut sink) = (pipeline(budget), Taken::default());
    let reports = pipeline.reports();
    let (mut offset, mut rounds, mut delivered) = (0, 0, 0);
    while offset < stream.0.len() {
        offset += pipeline.run(&stream.0[offset..], &mut sink).unwrap().used;
        assert!(pipeline.ledger().bytes() <= budget, "{} bytes in flight", pipeline.ledger().bytes());
        sink.records[delivered..].iter().for_each(|(_, _, ticket)| _ = reports.delivered(*ticket));
        delivered = sink.records.len();
        rounds += 1;
    }
    assert_eq!(delivered, 100);
    assert!(rounds >= 10, "{rounds} rounds");
}

#[test]
fn f21_a_full_sink_loses_nothing_and_repeats_nothing() {
    let stream =
        Stream::default().begin(100).relation(1, "outbox_events").row(1, "a", "k").row(1, "b", "k").commit(100, 130);
    let (mut pipeline, mut sink) = (pipeline(1 << 20), Taken { room: Some(1), ..Taken::default() });
    let first = pipeline.run(&stream.0, &mut sink).unwrap();
    assert_eq!(first.stopped, Stopped::SinkFull);
    sink.room = None;
    pipeline.run(&stream.0[first.used..], &mut sink).unwrap();
    assert_eq!(ids(&sink), ["a", "b"]);
    assert_eq!(pipeline.ledger().records(), 2);
}

#[test]
fn an_enqueued_transaction_is_skipped_after_a_reconnect_and_an_incomplete_one_is_not() {
    let whole = Stream::default().begin(100).relation(1, "outbox_events").row(1, "a", "k").commit(100, 130);
    let half = Stream::default().begin(200).row(1, "b", "k");
    let (mut pipeline, mut sink) = (pipeline(1 << 20), Taken::default());
    pipeline.run(&[whole.0.clone(), half.0].concat(), &mut sink).unwrap();
    pipeline.reconnect();
    let again = Stream::default()
        .begin(100)
        .relation(1, "outbox_events")
        .row(1, "a", "k")
        .commit(100, 130)
        .begin(200)
        .row(1, "b", "k")
        .commit(200, 230);
    pipeline.run(&again.0, &mut sink).unwrap();
    assert_eq!(ids(&sink), ["a", "b", "b"]);
    assert_eq!(confirmed(&mut pipeline), 1);
    let reports = pipeline.reports();
    sink.records.iter().for_each(|(_, _, ticket)| _ = reports.delivered(*ticket));
    assert_eq!(confirmed(&mut pipeline), 230);
    assert_eq!(pipeline.tally().skipped_transactions, 1);
}

#[test]
fn events_that_an_earlier_pipeline_enqueued_count_as_replayed() {
    let stream = Stream::default()
        .begin(100)
        .relation(1, "outbox_events")
        .row(1, "a", "k")
        .commit(100, 130)
        .begin(130)
        .row(1, "b", "k")
        .row(1, "c", "k")
        .commit(130, 160);
    let (mut pipeline, mut sink) = (pipeline(1 << 20), Taken::default());
    pipeline.follow(Lsn::from_wire(130));
    pipeline.run(&stream.0, &mut sink).unwrap();
    assert_eq!((pipeline.tally().events, pipeline.tally().replayed), (3, 1));
}

#[test]
fn g1_a_stop_completes_the_open_transaction_and_starts_no_other() {
    let stream = Stream::default()
        .begin(100)
        .relation(1, "outbox_events")
        .row(1, "a", "k")
        .row(1, "b", "k")
        .commit(100, 130)
        .begin(200)
        .row(1, "c", "k");
    let (mut pipeline, mut sink) = (pipeline(1 << 20), Taken { room: Some(1), ..Taken::default() });
    let first = pipeline.run(&stream.0, &mut sink).unwrap();
    pipeline.stop();
    assert!(!pipeline.is_at_border());
    sink.room = None;
    let second = pipeline.run(&stream.0[first.used..], &mut sink).unwrap();
    assert_eq!(second.stopped, Stopped::AtBorder);
    assert_eq!(ids(&sink), ["a", "b"]);
}

#[test]
fn c6_c10_d12_an_error_of_the_stream_has_its_position() {
    let other = Stream::default().begin(100).relation(2, "renamed").row(2, "a", "k");
    let unknown = Stream::default().begin(100).row(9, "a", "k");
    let backward = Stream::default().begin(100).commit(100, 130).begin(90).commit(90, 120);
    let rows = [
        (other, "table public.renamed is in no [[outbox]], in the WAL of the transaction that commits at 0/64"),
        (unknown, "unexpected message in the replication stream: row of relation 9 without its Relation message"),
        (
            backward,
            "unexpected message in the replication stream: transaction that ends at 0/78 after one that ends at 0/82",
        ),
    ];
    for (stream, expected) in rows {
        let error = pipeline(1 << 20).run(&stream.0, &mut Taken::default()).unwrap_err();
        assert_eq!(walrelay_events::fault::chain(&error), expected);
    }
    let large = [Stream::default().begin(0xAB).0, vec![b'd', 0, 1, 0, 0]].concat();
    let error = pipeline(1 << 20).run(&large, &mut Taken::default()).unwrap_err();
    assert_eq!(error, Error::RowTooLarge { length: 65_537, limit: 65_536, at: Lsn::from_wire(0xAB) });
}

#[test]
fn in_caution_one_record_at_a_time_is_in_flight() {
    let stream = Stream::default().begin(100).relation(1, "outbox_events").row(1, "a", "k").row(1, "b", "k");
    let (mut pipeline, mut sink) = (pipeline(1 << 20), Taken::default());
    pipeline.be_cautious(Lsn::from_wire(100));
    let ran = pipeline.run(&stream.0, &mut sink).unwrap();
    assert_eq!((ids(&sink), ran.stopped), (vec!["a"], Stopped::Full));
}

/// What happens to a pipeline, in any order.
#[derive(Clone, Debug)]
enum Step {
    /// The next bytes of the WAL arrive, up to this many.
    Receive(usize),
    /// One of the records in flight is acknowledged.
    Deliver(usize),
    Reconnect,
    Room(Option<usize>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1_usize..400).prop_map(Step::Receive),
        8 => any::<usize>().prop_map(Step::Deliver),
        1 => Just(Step::Reconnect),
        1 => prop::option::of(0_usize..4).prop_map(Step::Room),
    ]
}

/// The end of a transaction, and its bytes.
type Piece = (u64, Vec<u8>);
/// The end of a transaction, and the ids of its rows.
type Truth = (u64, Vec<String>);

/// A WAL: transactions of so many rows, each followed by a keepalive if requested.
fn log(transactions: &[(usize, bool)]) -> (Vec<Piece>, Vec<Truth>) {
    let mut pieces = Vec::new();
    let mut truth = Vec::new();
    for (number, (rows, keepalive)) in transactions.iter().enumerate() {
        let commit = 1_000 * (number as u64 + 1);
        let mut stream = Stream::default().begin(commit).relation(1, "outbox_events");
        let names: Vec<String> = (0..*rows).map(|row| format!("{number}-{row}")).collect();
        for name in &names {
            stream = stream.row(1, name, &format!("k{}", name.len() % 3));
        }
        stream = stream.commit(commit, commit + 50);
        if *keepalive {
            stream = stream.keepalive(commit + 500, 0);
        }
        pieces.push((commit + 50, stream.0));
        truth.push((commit + 50, names));
    }
    (pieces, truth)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn g1_g3_g6_hold_for_any_borders_deliveries_and_reconnects(
        transactions in prop::collection::vec((0_usize..5, any::<bool>()), 1..8),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let (pieces, truth) = log(&transactions);
        let budget = 4 * (RECORD_OVERHEAD as u64 + 128);
        let (mut pipeline, mut sink) = (pipeline(budget), Taken::default());
        let mut wire: Vec<u8> = pieces.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
        let mut buffer = Vec::new();
        let mut undelivered: Vec<(String, Ticket)> = Vec::new();
        let mut delivered: BTreeMap<String, usize> = BTreeMap::new();
        let mut before = 0;
        let mut everything = steps;
        // At the end the sink has room, everything is received and acknowledged.
        everything.push(Step::Room(None));
        for _ in 0..60 {
            everything.push(Step::Receive(usize::MAX));
            everything.extend((0..6).map(|_| Step::Deliver(0)));
        }
        for step in everything {
            match step {
                Step::Receive(count) => {
                    let count = count.min(wire.len());
                    buffer.extend(wire.drain(..count));
                    let taken = sink.records.len();
                    let ran = pipeline.run(&buffer, &mut sink).unwrap();
                    buffer.drain(..ran.used);
                    undelivered.extend(sink.records[taken..].iter().map(|(id, _, ticket)| (id.clone(), *ticket)));
                }
                Step::Deliver(index) if !undelivered.is_empty() => {
                    let (id, ticket) = undelivered.swap_remove(index % undelivered.len());
                    pipeline.reports().delivered(ticket);
                    *delivered.entry(id).or_default() += 1;
                }
                Step::Reconnect => {
                    let from = pipeline.confirmation().lsn().to_wire();
                    pipeline.reconnect();
                    buffer.clear();
                    wire = pieces.iter().filter(|(end, _)| *end > from).flat_map(|(_, bytes)| bytes.clone()).collect();
                }
                Step::Room(room) => sink.room = room,
                Step::Deliver(_) => {}
            }
            let now = confirmed(&mut pipeline);
            prop_assert!(now >= before, "the position went back from {} to {}", before, now);
            before = now;
            for (end, names) in &truth {
                let missing = names.iter().find(|name| !delivered.contains_key(*name));
                prop_assert!(now < *end || missing.is_none(), "{} confirmed without {:?}", now, missing);
            }
            prop_assert!(pipeline.ledger().bytes() <= budget, "{} bytes in flight", pipeline.ledger().bytes());
        }
        let all: Vec<&String> = truth.iter().flat_map(|(_, names)| names).collect();
        prop_assert!(all.iter().all(|name| delivered.contains_key(*name)), "not everything was delivered");
        prop_assert!(before >= truth.last().unwrap().0);
        // First occurrences are in the order of the WAL: a repetition is allowed, a swap is not.
        let mut seen = Vec::new();
        for id in ids(&sink) {
            if !seen.contains(&id) {
                seen.push(id);
            }
        }
        prop_assert_eq!(seen, all);
    }
}
