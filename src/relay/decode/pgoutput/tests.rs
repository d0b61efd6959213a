use proptest::prelude::*;

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[test]
fn begin_and_commit_give_their_positions() {
    let begin = hex("42 00000000 0152F9E8 0002EAF1 12345678 000002E1");
    assert_eq!(
        decode(&begin),
        Ok(Message::Begin { final_lsn: Lsn::from_wire(0x0152_F9E8), committed_at: 0x0002_EAF1_1234_5678, xid: 0x2E1 })
    );
    let commit = hex("43 00 00000000 0152F9E8 00000000 0152FA18 0002EAF1 12345678");
    assert_eq!(
        decode(&commit),
        Ok(Message::Commit {
            commit_lsn: Lsn::from_wire(0x0152_F9E8),
            end_lsn: Lsn::from_wire(0x0152_FA18),
            committed_at: 0x0002_EAF1_1234_5678
        })
    );
}

#[test]
fn a_relation_names_its_columns_and_their_types() {
    let bytes = [
        &hex("52 00004001")[..],
        b"public\0outbox\0d",
        &hex("0002 01"),
        b"id\0",
        &hex("00000B86 FFFFFFFF 00"),
        b"payload\0",
        &hex("00000EDA FFFFFFFF"),
    ]
    .concat();
    let columns = vec![Column { name: "id", type_id: 2950 }, Column { name: "payload", type_id: 3802 }];
    let expected = Relation { id: 0x4001, schema: "public", name: "outbox", columns };
    assert_eq!(decode(&bytes), Ok(Message::Relation(expected)));
}

#[test]
fn an_insert_gives_each_value_in_its_form() {
    let bytes = hex("49 00004001 4E 0004 74 00000002 6869 6E 75 62 00000001 FF");
    let Ok(Message::Insert { relation: 0x4001, row }) = decode(&bytes) else { panic!("not an insert") };
    let mut cells = Vec::new();
    row.walk(|column, cell| cells.push((column, cell))).unwrap();
    let expected =
        [(0, Cell::Text(b"hi".as_slice())), (1, Cell::Null), (2, Cell::Unchanged), (3, Cell::Binary(&[0xFF]))];
    assert_eq!(cells, expected);
}

#[test]
fn the_other_kinds_are_read_to_their_end() {
    let rows: [(&str, Message<'_>); 7] = [
        ("55 00004001 4E 0001 6E", Message::Update { relation: 0x4001 }),
        ("55 00004001 4B 0001 6E 4E 0001 75", Message::Update { relation: 0x4001 }),
        ("44 00004001 4F 0001 74 00000000", Message::Delete { relation: 0x4001 }),
        ("54 00000002 03 00000001 00000002", Message::Truncate),
        ("4F 0000000000000001 6E00", Message::Origin),
        ("59 00004010 7000 7400", Message::Type { id: 0x4010, schema: "p", name: "t" }),
        ("4D 01 0000000000000001 7000 00000002 0102", Message::Logical),
    ];
    for (text, expected) in rows {
        let bytes = hex(text);
        assert_eq!(decode(&bytes), Ok(expected), "{text}");
        let longer = [&bytes[..], &[0]].concat();
        assert!(matches!(decode(&longer), Err(Malformed::Leftover { .. })), "{text} with a byte more");
    }
}

#[test]
fn a_kind_that_version_1_does_not_have_is_an_error() {
    for kind in *b"SEcAbPpKrXz" {
        assert_eq!(decode(&[kind, 0, 0]), Err(Malformed::UnknownKind { what: "pgoutput message", kind }));
    }
}

#[test]
fn j2_counts_and_lengths_cannot_reach_outside() {
    for text in ["49 00004001 4E FFFF", "49 00004001 4E 0001 74 FFFFFFFF", "49 00004001 4E 0001 74 7FFFFFFF"] {
        let bytes = hex(text);
        let outcome = match decode(&bytes) {
            Ok(Message::Insert { row, .. }) => row.walk(|_, _| {}),
            other => other.map(|_| ()),
        };
        assert!(outcome.is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn j1_any_bytes_give_a_message_or_an_error_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..96)) {
        if let Ok(Message::Insert { row, .. }) = decode(&bytes) {
            let _ = row.walk(|_, _| {});
        }
    }

    #[test]
    fn every_cut_of_an_insert_is_an_error(cut in 1_usize..30) {
        let bytes = hex("49 00004001 4E 0004 74 00000002 6869 6E 75 62 00000004 FF000000 ");
        let cut = cut.min(bytes.len() - 1);
        let outcome = match decode(&bytes[..cut]) {
            Ok(Message::Insert { row, .. }) => row.walk(|_, _| {}),
            other => other.map(|_| ()),
        };
        prop_assert!(outcome.is_err());
    }
}
