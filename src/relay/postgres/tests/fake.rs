//! A small fake server.

use std::net::SocketAddr;

use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::net::TcpStream;

use crate::relay::postgres::Config;
use crate::relay::postgres::Error;
use crate::relay::postgres::Session;
use crate::relay::postgres::Target;

/// The messages after authentication by `trust`.
pub(super) const WELCOME: &[u8] =
    b"R\0\0\0\x08\0\0\0\0S\0\0\0\x19server_version\x0015.18\0K\0\0\0\x0c\0\0\0\x01\0\0\0\x02Z\0\0\0\x05I";

/// Builds a message of the server.
pub(super) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag], length.to_be_bytes().as_slice(), body].concat()
}

/// Builds an authentication request.
pub(super) fn authentication(method: u8, data: &[u8]) -> Vec<u8> {
    message(b'R', &[&[0, 0, 0, method], data].concat())
}

/// Reads a message without a tag, such as the startup message.
pub(super) async fn startup<S: AsyncRead + Unpin>(socket: &mut S) -> Vec<u8> {
    let length = socket.read_u32().await.unwrap();
    let mut body = vec![0; usize::try_from(length).unwrap() - 4];
    socket.read_exact(&mut body).await.unwrap();
    body
}

/// Reads a message of the client.
pub(super) async fn received<S: AsyncRead + Unpin>(socket: &mut S) -> (u8, Vec<u8>) {
    let tag = socket.read_u8().await.unwrap();
    (tag, startup(socket).await)
}

/// Listens on a free port.
pub(super) async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Parses a connection string without the environment.
pub(super) fn target(text: &str) -> Target {
    Target::parse(text, &|_| None, &|_| None, &|_| Err(std::io::ErrorKind::NotFound.into())).unwrap()
}

/// Connects to a server that handles one connection with `serve`.
pub(super) async fn connect(
    params: &str,
    config: &Config,
    serve: impl AsyncFnOnce(TcpStream),
) -> Result<Session, Error> {
    let (listener, address) = listen().await;
    let url = format!("postgres://u:secret@{address}/d?{params}");
    let session = async { Session::connect(&target(&url), config, "test").await };
    let serve = async {
        let (socket, _) = listener.accept().await.unwrap();
        serve(socket).await;
    };
    tokio::join!(session, serve).0
}

/// The same, and runs `follow` with the session at the same time.
pub(super) async fn connected(
    params: &str,
    config: &Config,
    serve: impl AsyncFnOnce(TcpStream),
    follow: impl AsyncFnOnce(Session),
) {
    let (listener, address) = listen().await;
    let url = format!("postgres://u:secret@{address}/d?{params}");
    let client = async { follow(Session::connect(&target(&url), config, "test").await.unwrap()).await };
    let server = async {
        let (socket, _) = listener.accept().await.unwrap();
        serve(socket).await;
    };
    tokio::join!(client, server);
}

/// Connects to a server that answers the startup message with these bytes, then closes.
pub(super) async fn answered(params: &str, config: &Config, answer: &[u8]) -> Result<Session, Error> {
    let serve = async |mut socket: TcpStream| {
        startup(&mut socket).await;
        // The client may close before it has read all.
        let _ = socket.write_all(answer).await;
    };
    connect(&format!("sslmode=disable&{params}"), config, serve).await
}
