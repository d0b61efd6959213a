//! Requests that our clients do not make, byte for byte: a record that none would write, and grants.

use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpStream;

/// The name and value of a header. The name may be any bytes.
pub type Header<'h> = (&'h [u8], &'h [u8]);

/// Writes one record with these headers into partition 0.
pub fn produce(address: &str, topic: &str, key: &[u8], value: &[u8], headers: &[Header<'_>]) {
    let batch = batch(key, value, headers);
    // No transaction, all replicas, 10 s, one topic, one partition.
    let mut body = [(-1_i16).to_be_bytes(), (-1_i16).to_be_bytes()].concat();
    body.extend([10_000_i32, 1].map(i32::to_be_bytes).concat());
    body.extend(text(topic));
    body.extend([1, 0, length(&batch)].map(i32::to_be_bytes).concat());
    body.extend(batch);
    let answer = ask(address, (0, 3), &body);
    // One topic by its name, one partition by its number, and then the error.
    let at = 4 + 2 + topic.len() + 4 + 4;
    assert_eq!(answer[at..at + 2], [0, 0], "the broker's error code");
}

/// What a grant is about, with the number it has in the protocol.
#[derive(Clone, Copy)]
pub enum Resource {
    Topic = 2,
    Group = 3,
}

/// What a grant allows, likewise.
#[derive(Clone, Copy)]
pub enum Operation {
    Read = 3,
    Write = 4,
    Describe = 8,
}

/// Allows the user `app` something.
pub fn grant(address: &str, resource: Resource, name: &str, operation: Operation) {
    const LITERAL: u8 = 3;
    const ALLOW: u8 = 3;
    let mut body = 1_i32.to_be_bytes().to_vec();
    body.push(resource as u8);
    body.extend(text(name));
    body.push(LITERAL);
    body.extend([text("User:app"), text("*")].concat());
    body.extend([operation as u8, ALLOW]);
    let answer = ask(address, (30, 1), &body);
    // The time of a throttle, one result.
    assert_eq!(answer[8..10], [0, 0], "the broker's error code");
}

/// Sends a request of this kind and version, and gives what follows the correlation.
fn ask(address: &str, (kind, version): (u16, u16), body: &[u8]) -> Vec<u8> {
    let mut request = [kind, version].map(u16::to_be_bytes).concat();
    request.extend(7_i32.to_be_bytes());
    request.extend(text("t"));
    request.extend(body);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(&length(&request).to_be_bytes()).unwrap();
    stream.write_all(&request).unwrap();
    let mut size = [0; 4];
    stream.read_exact(&mut size).unwrap();
    let mut answer = vec![0; usize::try_from(i32::from_be_bytes(size)).unwrap()];
    stream.read_exact(&mut answer).unwrap();
    answer.split_off(4)
}

fn text(text: &str) -> Vec<u8> {
    [&i16::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat()
}

fn batch(key: &[u8], value: &[u8], headers: &[Header<'_>]) -> Vec<u8> {
    let mut record = vec![0, 0, 0];
    for part in [key, value] {
        put(&mut record, part);
    }
    record.push(zigzag(headers.len()));
    for (name, content) in headers {
        put(&mut record, name);
        put(&mut record, content);
    }
    // Attributes, last offset, both times, no producer, one record.
    let mut body = Vec::new();
    body.extend(0_i16.to_be_bytes());
    body.extend(0_i32.to_be_bytes());
    body.extend([1_700_000_000_000_i64, 1_700_000_000_000, -1].map(i64::to_be_bytes).concat());
    body.extend((-1_i16).to_be_bytes());
    body.extend([-1_i32, 1].map(i32::to_be_bytes).concat());
    body.extend(varint(record.len()));
    body.extend(record);
    // Base offset, length, epoch of the leader, magic, checksum.
    let mut batch = Vec::new();
    batch.extend(0_i64.to_be_bytes());
    batch.extend((length(&body) + 9).to_be_bytes());
    batch.extend((-1_i32).to_be_bytes());
    batch.push(2);
    batch.extend(crc32c(&body).to_be_bytes());
    batch.extend(body);
    batch
}

fn put(record: &mut Vec<u8>, part: &[u8]) {
    record.push(zigzag(part.len()));
    record.extend(part);
}

/// A length as the record format has it, in up to two bytes.
fn varint(length: usize) -> Vec<u8> {
    let doubled = length * 2;
    assert!(doubled < 1 << 14, "longer than these tests need");
    let [low, high] = [doubled & 0x7F, doubled >> 7].map(|part| u8::try_from(part).unwrap());
    if high == 0 { vec![low] } else { vec![low | 0x80, high] }
}

/// A length as the record format has it, as long as it fits into one byte.
fn zigzag(length: usize) -> u8 {
    assert!(length < 64, "longer than these tests need");
    u8::try_from(length * 2).unwrap()
}

fn length(bytes: &[u8]) -> i32 {
    i32::try_from(bytes.len()).unwrap()
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 })
    })
}
