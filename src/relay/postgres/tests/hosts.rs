//! Several hosts.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use crate::relay::postgres::Config;
use crate::relay::postgres::Error;
use crate::relay::postgres::Session;
use crate::relay::postgres::tests::fake::WELCOME;
use crate::relay::postgres::tests::fake::listen;
use crate::relay::postgres::tests::fake::message;
use crate::relay::postgres::tests::fake::received;
use crate::relay::postgres::tests::fake::startup;
use crate::relay::postgres::tests::fake::target;
use walrelay_events::fault::Diagnose as _;
use walrelay_events::fault::Fate;

async fn welcome(listener: TcpListener, is_standby: bool) {
    let (mut socket, _) = listener.accept().await.unwrap();
    startup(&mut socket).await;
    socket.write_all(WELCOME).await.unwrap();
    assert_eq!(received(&mut socket).await.0, b'Q');
    let row = message(b'D', if is_standby { b"\0\x01\0\0\0\x01t" } else { b"\0\x01\0\0\0\x01f" });
    socket.write_all(&[row, message(b'Z', b"I")].concat()).await.unwrap();
}

#[tokio::test]
async fn a_host_that_is_away_or_a_standby_is_passed_over() {
    let (away, away_at) = listen().await;
    drop(away);
    let ((standby, standby_at), (primary, primary_at)) = (listen().await, listen().await);
    let url =
        format!("postgres://u@{away_at},{standby_at},{primary_at}/d?sslmode=disable&target_session_attrs=read-write");
    let target = target(&url);
    let (config, name) = (Config::default(), "test");
    let (session, (), ()) =
        tokio::join!(Session::connect(&target, &config, name), welcome(standby, true), welcome(primary, false));
    session.unwrap();
}

#[tokio::test]
async fn a_host_that_does_not_answer_leaves_time_for_the_next() {
    let ((_mute, mute_at), (primary, primary_at)) = (listen().await, listen().await);
    let url = format!("postgres://u@{mute_at},{primary_at}/d?sslmode=disable&target_session_attrs=primary");
    let config = Config { connect_timeout: Duration::from_millis(400), ..Config::default() };
    let target = target(&url);
    let (session, ()) = tokio::join!(Session::connect(&target, &config, "test"), welcome(primary, false));
    session.unwrap();
}

#[tokio::test]
async fn if_none_will_do_each_says_why() {
    let ((away, away_at), (mute, mute_at)) = (listen().await, listen().await);
    drop(away);
    let url = format!("postgres://u@{away_at},{mute_at}/d?sslmode=disable");
    let config = Config { connect_timeout: Duration::from_millis(200), ..Config::default() };
    let refused = Session::connect(&target(&url), &config, "test").await.unwrap_err();
    drop(mute);
    let text = refused.to_string();
    assert!(text.contains(&format!("connection to {away_at} failed: Connection refused")), "{text}");
    assert!(text.contains(&format!("connection to {mute_at} timed out after")), "{text}");
    assert_eq!(refused.fate(), Fate::Transient);
}

#[tokio::test]
async fn a_host_that_refuses_us_ends_the_search() {
    let ((first, first_at), (_second, second_at)) = (listen().await, listen().await);
    let target = target(&format!("postgres://u@{first_at},{second_at}/d?sslmode=disable"));
    let config = Config::default();
    let refuse = async {
        let (mut socket, _) = first.accept().await.unwrap();
        startup(&mut socket).await;
        socket.write_all(&message(b'E', b"SFATAL\0C28P01\0Mno\0\0")).await.unwrap();
    };
    let (refused, ()) = tokio::join!(Session::connect(&target, &config, "test"), refuse);
    assert!(matches!(refused, Err(Error::Server(_))), "{refused:?}");
}
