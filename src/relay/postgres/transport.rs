//! A byte stream to PostgreSQL: a TCP socket with or without TLS, or a Unix socket.

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

use super::error::Error;
use super::target::Host;
use super::target::SslMode;
use super::tls;
use super::tls::Connector;

/// The kernel detects a dead peer after idle + interval * retries.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;
/// TCP_USER_TIMEOUT: how long sent bytes may be unacknowledged before the kernel closes the connection.
const MAX_UNACKNOWLEDGED: Duration = Duration::from_secs(60);

/// The byte stream.
#[derive(Debug)]
pub(super) enum Transport {
    /// Plain TCP.
    Tcp(TcpStream),
    /// A Unix socket, as in libpq always without TLS.
    Unix(UnixStream),
    /// TLS over TCP.
    Tls(Box<SslStream<TcpStream>>),
}

impl Transport {
    /// Connects to a Unix socket.
    pub(super) async fn unix(host: &Host, path: &std::path::Path) -> Result<Self, Error> {
        let socket = UnixStream::connect(path).await.map_err(Error::io(format!("connection to {host} failed")))?;
        Ok(Self::Unix(socket))
    }

    /// Connects to an address and negotiates TLS.
    pub(super) async fn tcp(
        host: &Host,
        address: SocketAddr,
        mode: SslMode,
        connector: Option<&Connector>,
    ) -> Result<Self, Error> {
        let mut socket =
            TcpStream::connect(address).await.map_err(Error::io(format!("connection to {host} failed")))?;
        tune(&socket).map_err(Error::io(format!("could not set socket options for {host}")))?;
        let Some(connector) = connector.filter(|_| mode != SslMode::Disable) else {
            return Ok(Self::Tcp(socket));
        };
        match request_tls(host, &mut socket).await? {
            b'S' => Ok(Self::Tls(Box::new(tls::handshake(connector, host, socket).await?))),
            b'N' if mode == SslMode::Prefer => Ok(Self::Tcp(socket)),
            b'N' => Err(Error::TlsRefused { host: host.to_string() }),
            // An error message before TLS, for example about too many connections: its text cannot be trusted.
            b'E' => {
                Err(Error::io(format!("could not negotiate TLS with {host}"))(io::ErrorKind::ConnectionRefused.into()))
            }
            kind => Err(Error::unknown("response to the SSL negotiation request", kind)),
        }
    }

    /// Gives the hash for channel binding with this TLS session, if there is one.
    pub(super) fn end_point_hash(&self) -> Option<Vec<u8>> {
        match self {
            Self::Tls(stream) => tls::end_point_hash(stream.ssl()),
            Self::Tcp(_) | Self::Unix(_) => None,
        }
    }

    /// Says whether the stream uses TLS.
    pub(super) const fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }
}

/// [SSL Session Encryption](https://www.postgresql.org/docs/18/protocol-flow.html#PROTOCOL-FLOW-SSL).
///
/// Reads the response as a single byte directly from the socket: bytes that an attacker injected after it then fail in
/// the handshake and are not taken for data of the TLS session.
async fn request_tls(host: &Host, socket: &mut TcpStream) -> Result<u8, Error> {
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    socket.write_all(&request).await.map_err(Error::io(format!("could not negotiate TLS with {host}")))?;
    socket.read_u8().await.map_err(Error::io(format!("could not negotiate TLS with {host}")))
}

/// Does not set the receive buffer: that would end the kernel's autotuning.
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
