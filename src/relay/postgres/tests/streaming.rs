//! The stream: borders of reads, limits, status updates, the end.

use std::time::Duration;
use std::time::Instant;

use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::net::UnixStream;

use crate::lsn::Lsn;
use crate::relay::ledger::Ledger;
use crate::relay::postgres::Config;
use crate::relay::postgres::Error;
use crate::relay::postgres::Session;
use crate::relay::postgres::Stream;
use crate::relay::postgres::message::Messages;
use crate::relay::postgres::tests::fake::WELCOME;
use crate::relay::postgres::tests::fake::connected;
use crate::relay::postgres::tests::fake::message;
use crate::relay::postgres::tests::fake::received;
use crate::relay::postgres::tests::fake::startup;
use crate::relay::postgres::transport::Transport;
use crate::relay::stream::feedback::Feedback;
use crate::relay::stream::feedback::Pace;
use crate::relay::stream::feedback::Reportable;
use walrelay_events::fault::Diagnose as _;
use walrelay_events::fault::Fate;

const LIMIT: Duration = Duration::from_secs(5);

fn stream() -> (UnixStream, Stream) {
    let (server, client) = UnixStream::pair().unwrap();
    (server, Stream::new(Messages::new(Transport::Unix(client)), Lsn::from_wire(100), 1 << 20))
}

fn stored(position: u64) -> Reportable {
    let confirmed = Ledger::new(Lsn::from_wire(position)).settle();
    let pace = Pace { wal_sender_timeout: LIMIT, max_silence: LIMIT, disconnect_on_stall_after: LIMIT };
    let mut feedback = Feedback::new(pace, confirmed, Instant::now());
    feedback.persisted(confirmed);
    feedback.reportable().unwrap()
}

#[tokio::test]
async fn a_frame_may_be_cut_anywhere() {
    let frame = message(b'd', b"k12345678abcdefgh1");
    for border in 0..=frame.len() {
        let (mut server, mut stream) = stream();
        let (head, tail) = frame.split_at(border);
        for part in [head, tail].into_iter().filter(|part| !part.is_empty()) {
            server.write_all(part).await.unwrap();
            assert_eq!(stream.exchange(true).await.unwrap(), part.len());
        }
        assert_eq!(stream.buffer(), frame);
        stream.consume(frame.len());
        assert_eq!(stream.buffer(), b"");
    }
}

#[tokio::test]
async fn a_stream_cut_anywhere_behind_the_answer_to_start_replication_gives_the_same_frames() {
    let frame = message(b'd', b"k12345678abcdefgh1");
    let (answer, frames) = (message(b'W', b"\0\0\0"), frame.repeat(2));
    for border in 0..=frames.len() {
        let (head, tail) = frames.split_at(border);
        let first = [answer.as_slice(), head].concat();
        let (cut, mut frames_seen) = (tokio::sync::Notify::new(), Vec::new());
        let serve = async |mut socket: TcpStream| {
            startup(&mut socket).await;
            socket.write_all(WELCOME).await.unwrap();
            received(&mut socket).await;
            socket.write_all(&first).await.unwrap();
            cut.notified().await;
            socket.write_all(tail).await.unwrap();
            // The server sends nothing more and stays connected.
            let _ = socket.read_to_end(&mut Vec::new()).await;
        };
        let follow = async |session: Session| {
            let mut stream = session.start("s", (Lsn::ZERO, Lsn::ZERO), "p", false).await.unwrap();
            let mut seen = 0;
            while seen < frames.len() {
                if seen >= border {
                    cut.notify_one();
                }
                let read = tokio::time::timeout(LIMIT, stream.exchange(true)).await;
                seen += read.expect("what has arrived is returned").unwrap();
            }
            cut.notify_one();
            frames_seen = stream.buffer().to_vec();
        };
        connected("sslmode=disable", &Config::default(), serve, follow).await;
        assert_eq!(frames_seen, frames, "cut at {border}");
    }
}

#[tokio::test]
async fn a_row_larger_than_the_buffer_is_read_once_there_is_room_for_it() {
    let (mut server, mut stream) = stream();
    let frame = message(b'd', &vec![7; 900_000]);
    let sent = frame.clone();
    let server = tokio::spawn(async move { server.write_all(&sent).await });
    stream.make_room(frame.len()).unwrap();
    while stream.buffer().len() < frame.len() {
        assert!(stream.exchange(true).await.unwrap() > 0);
    }
    assert_eq!(stream.buffer(), frame);
    server.await.unwrap().unwrap();
    let refused = stream.make_room(stream.max_frame() + 1).unwrap_err();
    assert_eq!(refused.code().to_string(), "WR-6802");
}

#[tokio::test]
async fn a_status_update_says_one_position_three_times_and_never_an_earlier_one() {
    let (mut server, mut stream) = stream();
    for (position, expected) in [(90, 100), (200, 200), (150, 200)] {
        stream.confirm(stored(position));
        assert_eq!(stream.position(), Lsn::from_wire(expected));
        stream.queue_status(position == 200);
        assert_eq!(stream.exchange(false).await.unwrap(), 0);
        let (tag, body) = received(&mut server).await;
        assert_eq!((tag, body.len(), body[0]), (b'd', 34, b'r'));
        for field in 0..3 {
            assert_eq!(body[1 + 8 * field..9 + 8 * field], expected.to_be_bytes());
        }
        let clock = i64::from_be_bytes(body[25..33].try_into().unwrap());
        // Between 2025 and 2100, counted from 2000.
        assert!((25 * 31_557_600_000_000..100 * 31_557_600_000_000).contains(&clock), "{clock}");
        assert_eq!(body[33], u8::from(position == 200));
    }
}

#[tokio::test]
async fn a_server_that_does_not_read_costs_neither_memory_nor_bytes() {
    let (mut server, mut stream) = stream();
    let mut queued = 0;
    // Fill the socket: each write may be cancelled half-way.
    loop {
        stream.queue_status(false);
        let exchange = tokio::time::timeout(Duration::from_millis(20), stream.exchange(false)).await;
        if exchange.is_err() {
            break;
        }
        queued += 1;
    }
    for _ in 0..1_000 {
        stream.queue_status(false);
    }
    let reader = tokio::spawn(async move {
        let mut all = Vec::new();
        server.read_to_end(&mut all).await.unwrap();
        all
    });
    stream.exchange(false).await.unwrap();
    drop(stream);
    let all = reader.await.unwrap();
    assert_eq!((all.len() % 39, all.len() / 39), (0, queued + 4));
    assert!(all.chunks(39).all(|update| update.starts_with(b"d\0\0\0\x26r")));
}

#[tokio::test]
async fn reading_goes_on_while_nothing_can_be_written() {
    let (mut server, mut stream) = stream();
    loop {
        stream.queue_status(false);
        if tokio::time::timeout(Duration::from_millis(20), stream.exchange(false)).await.is_err() {
            break;
        }
    }
    server.write_all(b"abc").await.unwrap();
    assert_eq!(stream.exchange(true).await.unwrap(), 3);
}

#[tokio::test]
async fn the_end_is_in_order_and_carries_the_last_position() {
    let (mut server, mut stream) = stream();
    stream.confirm(stored(300));
    // Half a frame is sent when the client ends the stream.
    let frame = message(b'd', &[b'w'; 300_000]);
    let (head, tail) = frame.split_at(1_000);
    server.write_all(head).await.unwrap();
    stream.exchange(true).await.unwrap();
    let tail = tail.to_vec();
    let server = tokio::spawn(async move {
        let (mut read, mut write) = server.into_split();
        let writer = tokio::spawn(async move {
            write.write_all(&tail).await.unwrap();
            write
        });
        let (_, status) = received(&mut read).await;
        assert_eq!(status[9..17], 300_u64.to_be_bytes());
        assert_eq!(received(&mut read).await, (b'c', Vec::new()));
        let mut write = writer.await.unwrap();
        for part in [message(b'c', b""), message(b'C', b"COPY 0\0"), message(b'Z', b"I")].concat().chunks(1) {
            write.write_all(part).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(received(&mut read).await, (b'X', Vec::new()));
        assert_eq!(read.read_to_end(&mut Vec::new()).await.unwrap(), 0);
    });
    stream.finish(LIMIT).await.unwrap();
    server.await.unwrap();
}

#[tokio::test]
async fn a_server_that_shuts_down_ends_the_stream_by_closing() {
    let (mut server, stream) = stream();
    let server = tokio::spawn(async move {
        received(&mut server).await;
        received(&mut server).await;
        server.write_all(&message(b'C', b"COPY 0\0")).await.unwrap();
    });
    stream.finish(LIMIT).await.unwrap();
    server.await.unwrap();
}

#[tokio::test]
async fn a_server_that_does_not_end_the_stream_is_left_in_time() {
    let (_server, stream) = stream();
    let left = stream.finish(Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(left, Error::NoEnd { .. }), "{left:?}");
    assert_eq!(left.fate(), Fate::Transient);
}

#[tokio::test]
async fn an_error_at_the_end_is_told() {
    let (mut server, stream) = stream();
    server.write_all(&message(b'E', b"SFATAL\0C57P01\0Mno\0\0")).await.unwrap();
    let error = stream.finish(LIMIT).await.unwrap_err();
    assert!(error.is_shutdown(), "{error:?}");
}
