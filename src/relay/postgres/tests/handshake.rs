//! Rejected authentication, and bytes that violate the protocol.

use std::time::Duration;
use std::time::Instant;

use proptest::prelude::*;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::net::UnixStream;

use crate::relay::postgres::Config;
use crate::relay::postgres::Error;
use crate::relay::postgres::connect::SESSION;
use crate::relay::postgres::connect_ordinary;
use crate::relay::postgres::message::Messages;
use crate::relay::postgres::tests::fake::WELCOME;
use crate::relay::postgres::tests::fake::answered;
use crate::relay::postgres::tests::fake::authentication;
use crate::relay::postgres::tests::fake::connect;
use crate::relay::postgres::tests::fake::listen;
use crate::relay::postgres::tests::fake::message;
use crate::relay::postgres::tests::fake::received;
use crate::relay::postgres::tests::fake::startup;
use crate::relay::postgres::tests::fake::target;
use crate::relay::postgres::transport::Transport;
use walrelay_events::fault::Diagnose as _;
use walrelay_events::fault::Fate;

const SCRAM: &[u8] = b"SCRAM-SHA-256\0\0";

#[tokio::test]
async fn a_server_that_trusts_us_is_taken_at_its_word_unless_channel_binding_is_asked_for() {
    let session = answered("", &Config::default(), WELCOME).await.unwrap();
    assert_eq!((session.server_version(), session.is_tls()), (150_018, false));
    let refused = answered("channel_binding=require", &Config::default(), WELCOME).await.unwrap_err();
    assert!(refused.to_string().contains("without channel binding"), "{refused}");
}

#[tokio::test]
async fn a_password_is_not_sent_in_a_weak_form() {
    for (method, data, name) in [(3, &b""[..], "clear text"), (5, &b"salt"[..], "MD5")] {
        let weak = Config { allow_weak_auth: true, ..Config::default() };
        for (params, config, is_accepted) in
            [("", Config::default(), false), ("", weak.clone(), true), ("channel_binding=require", weak, false)]
        {
            let request = authentication(method, data);
            let serve = async |mut socket: TcpStream| {
                startup(&mut socket).await;
                socket.write_all(&request).await.unwrap();
                if is_accepted {
                    let (tag, answer) = received(&mut socket).await;
                    assert_eq!((tag, answer == b"secret\0"), (b'p', method == 3));
                    socket.write_all(WELCOME).await.unwrap();
                } else {
                    assert_eq!(socket.read_to_end(&mut Vec::new()).await.unwrap(), 0, "something was sent");
                }
            };
            let result = connect(&format!("sslmode=disable&{params}"), &config, serve).await;
            match result {
                Ok(_) => assert!(is_accepted, "{name} {params}"),
                Err(error) => {
                    assert!(!is_accepted && error.to_string().contains(name), "{name} {params}: {error}");
                    assert_eq!((error.code().to_string().as_str(), error.fate()), ("WR-6703", Fate::Fatal));
                }
            }
        }
    }
}

#[tokio::test]
async fn ordinary_queries_go_through_the_same_door() {
    let (listener, address) = listen().await;
    let serve = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        startup(&mut socket).await;
        socket.write_all(&authentication(3, b"")).await.unwrap();
        assert_eq!(socket.read_to_end(&mut Vec::new()).await.unwrap(), 0, "something was sent");
    };
    let target = target(&format!("postgres://u:secret@{address}/d?sslmode=disable"));
    let config = Config::default();
    let (refused, ()) = tokio::join!(connect_ordinary(&target, &config, "test"), serve);
    assert!(matches!(refused, Err(Error::Authentication { .. })), "{refused:?}");
}

#[tokio::test]
async fn an_ordinary_connection_takes_queries_and_tells_why_it_ends() {
    let (listener, address) = listen().await;
    let serve = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let asked = startup(&mut socket).await;
        assert!(asked.windows(9).any(|window| window == b"\0test-app"), "{asked:?}");
        assert!(!asked.windows(11).any(|window| window == b"replication"));
        socket.write_all(WELCOME).await.unwrap();
        assert_eq!(received(&mut socket).await, (b'Q', format!("{SESSION}\0").into_bytes()));
        socket.write_all(&[message(b'C', b"SET\0"), message(b'Z', b"I")].concat()).await.unwrap();
        // The first message from tokio-postgres: its startup message is dropped.
        assert_eq!(received(&mut socket).await, (b'Q', b"SELECT 1\0".to_vec()));
        socket.write_all(&[message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat()).await.unwrap();
        socket.write_all(&message(b'E', b"SFATAL\0VFATAL\0C57P01\0Mgoodbye\0\0")).await.unwrap();
    };
    let target = target(&format!("postgres://u@{address}/d?sslmode=disable"));
    let client = async {
        let mut ordinary = connect_ordinary(&target, &Config::default(), "test-app").await.unwrap();
        ordinary.client.batch_execute("SELECT 1").await.unwrap();
        (&mut ordinary.ended).await
    };
    let (ended, ()) = tokio::join!(client, serve);
    assert!(ended.is_some_and(|error| error.is_shutdown()));
}

#[tokio::test]
async fn a_server_cannot_make_us_compute_for_ever() {
    let serve = async |mut socket: TcpStream| {
        startup(&mut socket).await;
        socket.write_all(&authentication(10, SCRAM)).await.unwrap();
        let (_, first) = received(&mut socket).await;
        let first = String::from_utf8(first).unwrap();
        let nonce = first.rsplit_once("r=").unwrap().1;
        let continued = format!("r={nonce}x,s=c2FsdA==,i=2147483648");
        socket.write_all(&authentication(11, continued.as_bytes())).await.unwrap();
        let _ = socket.read_to_end(&mut Vec::new()).await;
    };
    let start = Instant::now();
    let refused = connect("sslmode=disable", &Config::default(), serve).await.unwrap_err();
    assert!(refused.to_string().contains("iteration count"), "{refused}");
    assert!(start.elapsed() < Duration::from_millis(500));
}

#[tokio::test]
async fn a_server_that_does_not_prove_itself_is_refused() {
    for answer in [WELCOME.to_vec(), authentication(12, b"v=AAAA")] {
        let answer = [authentication(10, SCRAM), answer].concat();
        let refused = answered("", &Config::default(), &answer).await.unwrap_err();
        assert!(matches!(refused, Error::Authentication { .. }), "{refused:?}");
    }
    let other = answered("", &Config::default(), &authentication(10, b"OAUTHBEARER\0\0")).await.unwrap_err();
    assert!(other.to_string().contains("SASL authentication mechanisms"), "{other}");
}

#[tokio::test]
async fn a_refusal_carries_its_sqlstate() {
    let error = message(b'E', b"SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed\0\0");
    let refused = answered("", &Config::default(), &error).await.unwrap_err();
    assert_eq!((refused.code().to_string().as_str(), refused.is_about_rights()), ("WR-6704", true));
}

#[tokio::test]
async fn a_connection_that_breaks_off_anywhere_may_be_tried_again() {
    for length in 0..WELCOME.len() {
        let broken = answered("", &Config::default(), &WELCOME[..length]).await.unwrap_err();
        assert_eq!(broken.fate(), Fate::Transient, "after {length} bytes: {broken:?}");
    }
}

#[tokio::test]
async fn a_greeting_may_come_byte_by_byte() {
    let serve = async |mut socket: TcpStream| {
        socket.set_nodelay(true).unwrap();
        startup(&mut socket).await;
        for byte in WELCOME {
            socket.write_u8(*byte).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    connect("sslmode=disable", &Config::default(), serve).await.unwrap();
}

#[tokio::test]
async fn what_is_no_postgresql_is_refused_at_once_and_for_good() {
    let rows: [(&str, Vec<u8>); 6] = [
        ("HTTP", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        ("a negative length", b"R\xff\xff\xff\xff....".to_vec()),
        ("a length below its own", b"R\0\0\0\x03....".to_vec()),
        ("a huge length", b"R\x7f\xff\xff\xff....".to_vec()),
        ("an unknown message", message(b'?', b"")),
        ("a row before anything else", message(b'D', b"\0\0")),
    ];
    for (name, bytes) in rows {
        let refused = answered("", &Config::default(), &bytes).await.unwrap_err();
        assert_eq!(
            (refused.code().to_string().as_str(), refused.fate()),
            ("WR-7010", Fate::Fatal),
            "{name}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn after_a_failed_command_the_next_one_has_its_own_answer() {
    let serve = async |mut socket: TcpStream| {
        startup(&mut socket).await;
        socket.write_all(WELCOME).await.unwrap();
        received(&mut socket).await;
        socket.write_all(&[message(b'E', b"C42704\0Mno\0\0"), message(b'Z', b"I")].concat()).await.unwrap();
        received(&mut socket).await;
        let row = message(b'D', b"\0\x02\0\0\0\x02ok\xff\xff\xff\xff");
        let rows = [message(b'T', b"\0\0"), row, message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat();
        socket.write_all(&rows).await.unwrap();
    };
    let (listener, address) = listen().await;
    let target = target(&format!("postgres://u@{address}/d?sslmode=disable"));
    let client = async {
        let mut session = crate::relay::postgres::Session::connect(&target, &Config::default(), "test").await.unwrap();
        assert!(matches!(session.query("one").await, Err(Error::Server(_))));
        session.query("two").await.unwrap()
    };
    let (rows, ()) = tokio::join!(client, async { serve(listener.accept().await.unwrap().0).await });
    assert_eq!(rows, [[Some("ok".to_owned()), None]]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_give_messages_or_an_error_and_never_a_panic(
        bytes in proptest::collection::vec(
            prop_oneof![Just(0_u8), Just(4), proptest::sample::select(b"RSKZEDTWC".to_vec()), any::<u8>()],
            0..200,
        )
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut server, client) = UnixStream::pair().unwrap();
            server.write_all(&bytes).await.unwrap();
            drop(server);
            let mut messages = Messages::new(Transport::Unix(client));
            while messages.next().await.is_ok_and(|_| true) {}
        });
    }
}
