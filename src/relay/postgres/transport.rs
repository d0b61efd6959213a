//! A byte stream to PostgreSQL: a TCP or Unix socket, with or without TLS.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use socket2::SockRef;
use socket2::TcpKeepalive;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt as _;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::net::UnixStream;
use tokio_openssl::SslStream;

use super::Error;
use super::Host;
use super::SslMode;
use super::tls;
use super::tls::Connector;

/// A dead peer is noticed by the kernel after idle + interval * retries seconds, whatever the relay does.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;
/// How long bytes of ours may stay unacknowledged before the kernel gives the connection up.
const MAX_UNACKNOWLEDGED: Duration = Duration::from_secs(60);

/// The stream.
#[derive(Debug)]
pub(super) enum Transport {
    /// Plain TCP.
    Tcp(TcpStream),
    /// A Unix socket; TLS is never used on it, as in libpq.
    Unix(UnixStream),
    /// TLS over TCP.
    Tls(Box<SslStream<TcpStream>>),
}

impl Transport {
    /// Connects to a Unix socket.
    pub(super) async fn unix(host: &Host, path: &std::path::Path) -> Result<Self, Error> {
        let socket = UnixStream::connect(path).await.map_err(Error::io(format!("connect to {host}")))?;
        Ok(Self::Unix(socket))
    }

    /// Connects to an address and agrees on TLS.
    pub(super) async fn tcp(
        host: &Host,
        address: SocketAddr,
        mode: SslMode,
        connector: Option<&Connector>,
    ) -> Result<Self, Error> {
        let mut socket = TcpStream::connect(address).await.map_err(Error::io(format!("connect to {host}")))?;
        tune(&socket).map_err(Error::io(format!("set up the connection to {host}")))?;
        let Some(connector) = connector.filter(|_| mode != SslMode::Disable) else {
            return Ok(Self::Tcp(socket));
        };
        match ask_for_tls(host, &mut socket).await? {
            b'S' => Ok(Self::Tls(Box::new(tls::handshake(connector, host, socket).await?))),
            b'N' if mode == SslMode::Prefer => Ok(Self::Tcp(socket)),
            b'N' => Err(Error::TlsRefused { host: host.to_string() }),
            // An error message of a server that has no room for us even before TLS; nothing in it can be trusted.
            b'E' => Err(Error::io(format!("ask {host} for TLS"))(io::ErrorKind::ConnectionRefused.into())),
            kind => Err(Error::unknown("answer to the TLS request", kind)),
        }
    }

    /// Gives the hash that binds an authentication to this TLS session, if there is one.
    pub(super) fn end_point_hash(&self) -> Option<Vec<u8>> {
        match self {
            Self::Tls(stream) => tls::end_point_hash(stream.ssl()),
            Self::Tcp(_) | Self::Unix(_) => None,
        }
    }

    /// Says whether TLS protects the stream.
    pub(super) const fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }
}

/// [SSL Session Encryption](https://www.postgresql.org/docs/18/protocol-flow.html#PROTOCOL-FLOW-SSL).
///
/// The answer is read as a single byte straight from the socket: whatever somebody may have put behind it is then taken
/// for TLS and fails there, instead of being believed as if it had come through TLS.
async fn ask_for_tls(host: &Host, socket: &mut TcpStream) -> Result<u8, Error> {
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    socket.write_all(&request).await.map_err(Error::io(format!("ask {host} for TLS")))?;
    socket.read_u8().await.map_err(Error::io(format!("ask {host} for TLS")))
}

/// The receive buffer is left to the kernel: setting it would end its autotuning, which goes further on a long link.
fn tune(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_RETRIES);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(MAX_UNACKNOWLEDGED))?;
    Ok(())
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, into),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, into),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(context, into),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Unix(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
        }
    }
}
