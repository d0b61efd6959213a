//! From a host to bytes: TCP or a Unix socket, with or without TLS.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use openssl::ssl::SslConnector;
use socket2::SockRef;
use socket2::TcpKeepalive;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::net::UnixStream;
use tokio_openssl::SslStream;

use super::Error;
use super::Host;
use super::SslMode;
use super::tls;

/// A dead peer is noticed within about this time.
const DEAD_AFTER: Duration = Duration::from_secs(30);
/// The kernel's buffer for what comes: a walsender that runs ahead is cheaper than one that waits.
const RECEIVE_BUFFER: usize = 1 << 20;
/// Asks for TLS: a length of 8 and a code that no protocol version has.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xD2, 0x16, 0x2F];

/// Bytes both ways.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection to a server.
pub(super) struct Transport {
    io: Box<dyn Duplex>,
    /// The channel binding data, if TLS is in force.
    pub(super) end_point: Option<Vec<u8>>,
    pub(super) is_tls: bool,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("is_tls", &self.is_tls).finish_non_exhaustive()
    }
}

impl Transport {
    pub(super) async fn open(host: &Host, mode: SslMode, connector: Option<&SslConnector>) -> Result<Self, Error> {
        match host {
            Host::Unix { directory, port } => {
                let path = directory.join(format!(".s.PGSQL.{port}"));
                let socket = UnixStream::connect(path).await.map_err(Error::io(format!("connect to {host}")))?;
                Ok(Self { io: Box::new(socket), end_point: None, is_tls: false })
            }
            Host::Tcp { name, .. } => {
                let socket = tcp(host).await.map_err(Error::io(format!("connect to {host}")))?;
                match connector {
                    None => Ok(Self { io: Box::new(socket), end_point: None, is_tls: false }),
                    Some(connector) => secure(socket, name, host, mode, connector).await,
                }
            }
        }
    }

    pub(super) const fn io(&mut self) -> &mut Box<dyn Duplex> {
        &mut self.io
    }
}

async fn tcp(host: &Host) -> std::io::Result<TcpStream> {
    let Host::Tcp { name, address, port } = host else {
        return Err(std::io::Error::other("not a TCP host"));
    };
    let socket = match address {
        Some(address) => TcpStream::connect(SocketAddr::new(*address, *port)).await?,
        None => TcpStream::connect((name.as_str(), *port)).await?,
    };
    socket.set_nodelay(true)?;
    let options = SockRef::from(&socket);
    let keepalive = TcpKeepalive::new().with_time(DEAD_AFTER / 3).with_interval(DEAD_AFTER / 6).with_retries(4);
    options.set_tcp_keepalive(&keepalive)?;
    options.set_tcp_user_timeout(Some(DEAD_AFTER))?;
    // The kernel may grant less; that is no reason to fail.
    let _ = options.set_recv_buffer_size(RECEIVE_BUFFER);
    Ok(socket)
}

async fn secure(
    mut socket: TcpStream,
    name: &str,
    host: &Host,
    mode: SslMode,
    connector: &SslConnector,
) -> Result<Transport, Error> {
    socket.write_all(&SSL_REQUEST).await.map_err(Error::io("ask for TLS"))?;
    // One byte, and no more: what follows in plain text would be trusted as if it came through TLS.
    let mut answer = [0];
    socket.read_exact(&mut answer).await.map_err(Error::io("ask for TLS"))?;
    match answer {
        [b'S'] => {}
        [b'N'] if mode == SslMode::Prefer => {
            return Ok(Transport { io: Box::new(socket), end_point: None, is_tls: false });
        }
        [b'N'] => return Err(Error::TlsRefused { host: host.to_string() }),
        _ => {
            let reason = "the server's answer to the request for TLS is neither yes nor no".to_owned();
            return Err(Error::Tls { host: host.to_string(), reason });
        }
    }
    let ssl = connector
        .configure()
        .and_then(|mut configuration| {
            configuration.set_verify_hostname(tls::checks_name(mode));
            configuration.into_ssl(name)
        })
        .map_err(Error::TlsSetup)?;
    let mut stream = SslStream::new(ssl, socket).map_err(Error::TlsSetup)?;
    if let Err(error) = Pin::new(&mut stream).connect().await {
        return Err(Error::Tls { host: host.to_string(), reason: tls::reason(stream.ssl(), &error) });
    }
    let end_point = tls::end_point(stream.ssl());
    Ok(Transport { io: Box::new(stream), end_point, is_tls: true })
}
