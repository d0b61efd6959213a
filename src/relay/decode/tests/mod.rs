//! What real servers sent: PostgreSQL 14.23, 15.18, 16.14, 17.10 and 18.4. `scenario.sql` says how it was recorded.

use crate::lsn::Lsn;

use super::frame;
use super::frame::Frame;
use super::frame::Parsed;
use super::pgoutput;
use super::pgoutput::Cell;
use super::pgoutput::Message;
use super::pgoutput::Tuple;

const RECORDED: [&str; 5] = [
    include_str!("14.txt"),
    include_str!("15.txt"),
    include_str!("16.txt"),
    include_str!("17.txt"),
    include_str!("18.txt"),
];

/// What the servers said with text values. With binary values it is the same, but for the values.
const SAID: &str = "\
begin
type 16385 public.mood
relation 16387 public.outbox_events id:2950 event_type:25 payload:3802 data:17 mood:16385 large:25
insert 16387 text(00000000-0000-0000-0000-000000000001) text(OrderCreated) text({\"total\": 1}) text(\\x00ff) \
text(calm) 2100 bytes
insert 16387 text(00000000-0000-0000-0000-000000000002) text(OrderShipped) null null null null
commit
begin
update 16387
update 16387
delete 16387
update 16387
commit
begin
logical
type 16385 public.mood
relation 16387 public.outbox_events id:2950 event_type:25 payload:3802 data:17 mood:16385 large:25
delete 16387
type 16385 public.mood
relation 16387 public.outbox_events id:2950 event_type:25 payload:3802 data:17 mood:16385 large:25
truncate
commit
begin
origin
type 16385 public.mood
relation 16387 public.outbox_events id:2950 event_type:25 payload:3802 data:17 mood:16385 large:25
insert 16387 text(00000000-0000-0000-0000-000000000004) text(OrderCreated) null null null null
commit
keepalive
";

/// An empty transaction: only version 14 sends it.
const EMPTY: &str = "begin\ncommit\n";

#[test]
fn every_version_is_read_to_its_last_byte() {
    for recorded in RECORDED {
        let (title, text, binary) = recordings(recorded);
        let said = transcript(&text);
        assert_eq!(said.contains(EMPTY), title.contains("PostgreSQL 14."), "{title}");
        assert_eq!(said.replace(EMPTY, ""), SAID, "{title}");
        let lines = |said: &str| said.lines().filter(|line| !line.starts_with("insert")).collect::<Vec<_>>().join("\n");
        let said = transcript(&binary);
        assert_eq!(lines(&said.replace(EMPTY, "")), lines(SAID), "{title}");
        assert!(said.contains(" binary([1, 123, "), "a jsonb has its version in front: {title} {said}");
    }
}

/// What ARCHITECTURE.md rests on: a commit record begins where BEGIN says, ends behind that, commits come in their
/// order, and a keepalive never reaches into what was not sent yet.
#[test]
fn positions_are_what_a_confirmation_rests_on() {
    for recorded in RECORDED {
        let (title, text, binary) = recordings(recorded);
        for bytes in [text, binary] {
            let (mut announced, mut sent) = (None, Lsn::from_wire(0));
            for frame in frames(&bytes) {
                let message = match frame {
                    Frame::Keepalive { wal_end, .. } => {
                        assert!(announced.is_none() && sent <= wal_end, "{title}: {wal_end}");
                        sent = wal_end;
                        continue;
                    }
                    Frame::Data { message, .. } => pgoutput::decode(message).unwrap(),
                    other @ (Frame::Error(_) | Frame::End | Frame::Ignored(_)) => panic!("{title}: {other:?}"),
                };
                if let Message::Begin { final_lsn, .. } = message {
                    announced = Some(final_lsn);
                } else if let Message::Commit { commit_lsn, end_lsn, .. } = message {
                    assert_eq!(announced.take(), Some(commit_lsn), "{title}");
                    assert!(sent <= commit_lsn && commit_lsn < end_lsn, "{title}: {commit_lsn} {end_lsn}");
                    sent = end_lsn;
                }
            }
        }
    }
}

/// Gives the title of a file and the bytes of its two streams.
fn recordings(file: &str) -> (&str, Vec<u8>, Vec<u8>) {
    let mut streams: Vec<Vec<u8>> = Vec::new();
    for line in file.lines() {
        if line.starts_with('#') {
            streams.push(Vec::new());
            continue;
        }
        let (pair, count) = line.split_once('*').map_or((line, 1), |(pair, count)| (pair, count.parse().unwrap()));
        let digits: Vec<u8> = pair.bytes().filter(u8::is_ascii_hexdigit).collect();
        let bytes = digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap());
        streams.last_mut().unwrap().extend(bytes.collect::<Vec<_>>().repeat(count));
    }
    let [text, binary] = streams.try_into().unwrap();
    (file.lines().next().unwrap(), text, binary)
}

fn frames(mut bytes: &[u8]) -> Vec<Frame<'_>> {
    let mut frames = Vec::new();
    while let Ok(Parsed::Whole(frame, length)) = frame::next(bytes, 1 << 20) {
        frames.push(frame);
        bytes = &bytes[length..];
    }
    assert!(bytes.is_empty(), "the rest is no frame: {bytes:?}");
    frames
}

/// Says in a line each what a stream holds. The keepalive at its start comes from the time before the slot's first
/// record.
fn transcript(bytes: &[u8]) -> String {
    let lines = frames(bytes).into_iter().map(|frame| match frame {
        Frame::Data { message, .. } => match pgoutput::decode(message).unwrap() {
            Message::Begin { .. } => "begin".to_owned(),
            Message::Commit { .. } => "commit".to_owned(),
            Message::Origin => "origin".to_owned(),
            Message::Type { id, schema, name } => format!("type {id} {schema}.{name}"),
            Message::Relation(relation) => {
                let column = |column: &pgoutput::Column<'_>| format!(" {}:{}", column.name, column.type_id);
                let columns: String = relation.columns.iter().map(column).collect();
                format!("relation {} {}.{}{columns}", relation.id, relation.schema, relation.name)
            }
            Message::Insert { relation, row } => format!("insert {relation}{}", cells(row)),
            Message::Update { relation } => format!("update {relation}"),
            Message::Delete { relation } => format!("delete {relation}"),
            Message::Truncate => "truncate".to_owned(),
            Message::Logical => "logical".to_owned(),
        },
        Frame::Keepalive { .. } => "keepalive".to_owned(),
        other @ (Frame::Error(_) | Frame::End | Frame::Ignored(_)) => panic!("{other:?}"),
    });
    let mut lines: Vec<String> = lines.collect();
    lines.dedup_by(|next, line| next == line && line == "keepalive");
    lines.drain(..usize::from(lines[0] == "keepalive"));
    lines.join("\n") + "\n"
}

fn cells(row: Tuple<'_>) -> String {
    let mut text = String::new();
    row.walk(|_, cell| {
        text += &match cell {
            Cell::Null => " null".to_owned(),
            Cell::Unchanged => " unchanged".to_owned(),
            Cell::Text(bytes) | Cell::Binary(bytes) if bytes.len() > 100 => format!(" {} bytes", bytes.len()),
            Cell::Text(bytes) => format!(" text({})", String::from_utf8_lossy(bytes)),
            Cell::Binary(bytes) => format!(" binary({bytes:?})"),
        };
    })
    .unwrap();
    text
}
