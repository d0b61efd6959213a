//! Ordinary queries: `tokio-postgres` on a connection that `connect` has established.
//!
//! `tokio-postgres` would send the password in clear text if a server requested it. So it gets an authenticated
//! connection: its startup message is dropped, and the server's messages after authentication are replayed to it.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::Buf as _;
use bytes::BufMut as _;
use bytes::BytesMut;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::task::JoinHandle;
use tokio_postgres::Client;
use tokio_postgres::NoTls;

use crate::lsn::Lsn;

use super::config::Config;
use super::connect;
use super::connect::Connected;
use super::connect::Purpose;
use super::error::Error;
use super::target::Found;
use super::target::Target;
use super::transport::Transport;

/// An ordinary connection.
pub struct Ordinary {
    /// Takes queries.
    pub client: Client,
    /// Resolves when the connection ends, with its error if there is one.
    pub ended: Ended,
    /// The database stores any bytes as text: it returns them only under client encoding SQL_ASCII.
    pub stores_any_bytes: bool,
    /// Which server this is.
    pub found: Found,
}

impl fmt::Debug for Ordinary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ordinary").finish_non_exhaustive()
    }
}

impl Ordinary {
    /// Gives the statements that begin a transaction which only reads. Their settings end with it, so that nothing is
    /// left on a session that a pooler shares. Unqualified names are PostgreSQL's, and rows that a policy hides are an
    /// error. The server ends each statement after `limit`, and the transaction if nothing is asked for so long.
    #[must_use]
    pub fn begin_reading(&self, limit: Duration) -> String {
        let encoding = if self.stores_any_bytes { "; SET LOCAL client_encoding = 'SQL_ASCII'" } else { "" };
        let limit = limit.as_millis();
        format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; SET LOCAL search_path = pg_catalog; \
             SET LOCAL row_security = off; SET LOCAL statement_timeout = {limit}; \
             SET LOCAL idle_in_transaction_session_timeout = {limit}{encoding}"
        )
    }
}

/// The end of an ordinary connection. Dropping it ends the connection.
#[derive(Debug)]
pub struct Ended(JoinHandle<Option<Error>>);

impl Future for Ended {
    type Output = Option<Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(Result::unwrap_or_default)
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Connects for ordinary queries, possibly through a pooler, which may run each transaction on another session. So
/// nothing is set on the session: the caller sets what it needs within a transaction and prepares no statement.
pub async fn connect_shared(target: &Target, config: &Config, application_name: &str) -> Result<Ordinary, Error> {
    connect_for(Purpose::Shared, target, config, application_name).await
}

/// Connects for ordinary queries. The search path is `pg_catalog`: other names need their schema.
pub async fn connect_ordinary(target: &Target, config: &Config, application_name: &str) -> Result<Ordinary, Error> {
    connect_for(Purpose::Queries, target, config, application_name).await
}

async fn connect_for(
    purpose: Purpose,
    target: &Target,
    config: &Config,
    application_name: &str,
) -> Result<Ordinary, Error> {
    let connected = connect::connect(target, config, application_name, purpose).await?;
    let stores_any_bytes = connected.stores_any_bytes();
    let found = connected.found.clone();
    let (client, connection) = tokio_postgres::Config::new()
        .user(&target.user)
        .ssl_mode(tokio_postgres::config::SslMode::Disable)
        .connect_raw(Resumed::new(connected), NoTls)
        .await?;
    let ended = Ended(tokio::spawn(async move { connection.await.err().map(Error::from) }));
    Ok(Ordinary { client, ended, stores_any_bytes, found })
}

/// Runs a query with a timeout, after which the connection cannot be used any more.
pub async fn within<T, E: Into<Error>>(limit: Duration, query: impl Future<Output = Result<T, E>>) -> Result<T, Error> {
    match tokio::time::timeout(limit, query).await {
        Ok(answered) => answered.map_err(Into::into),
        Err(_) => Err(Error::NoAnswer { limit }),
    }
}

/// Reads a WAL position from the text of an answer. Any other text is an error, and never the position 0/0.
pub fn position(text: &str) -> Result<Lsn, Error> {
    text.parse().map_err(|_| Error::Answer { field: "WAL position" })
}

/// An authenticated connection, for a client that sends a startup message first.
struct Resumed {
    transport: Transport,
    /// The bytes that the client reads first: the replayed messages, then those received since.
    greeting: BytesMut,
    startup: Startup,
}

/// How much of the client's startup message has been dropped.
enum Startup {
    /// A part of its length field.
    Length(BytesMut),
    /// The length is known; these bytes remain.
    Body(usize),
    Over,
}

impl Resumed {
    fn new(connected: Connected) -> Self {
        let mut greeting = BytesMut::new();
        message(&mut greeting, b'R', &[&[0; 4]]);
        for (name, value) in &connected.parameters {
            message(&mut greeting, b'S', &[name.as_bytes(), b"\0", value.as_bytes(), b"\0"]);
        }
        if let Some(key) = &connected.key {
            message(&mut greeting, b'K', &[key]);
        }
        message(&mut greeting, b'Z', &[b"I"]);
        greeting.extend_from_slice(connected.messages.read_buffer.unread());
        Self { transport: connected.messages.transport, greeting, startup: Startup::Length(BytesMut::new()) }
    }
}

fn message(out: &mut BytesMut, tag: u8, parts: &[&[u8]]) {
    let length = 4 + parts.iter().map(|part| part.len()).sum::<usize>();
    out.put_u8(tag);
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    for part in parts {
        out.put_slice(part);
    }
}

impl Startup {
    /// Drops bytes of the startup message. Gives their number.
    fn drop_bytes(&mut self, bytes: &[u8]) -> usize {
        match self {
            Self::Over => 0,
            Self::Length(seen) => {
                let taken = bytes.len().min(4 - seen.len());
                seen.extend_from_slice(bytes.get(..taken).unwrap_or_default());
                if seen.len() == 4 {
                    *self = Self::Body(usize::try_from(seen.get_u32()).map_or(0, |length| length.saturating_sub(4)));
                }
                taken
            }
            Self::Body(remaining) => {
                let taken = bytes.len().min(*remaining);
                *remaining -= taken;
                if *remaining == 0 {
                    *self = Self::Over;
                }
                taken
            }
        }
    }
}

impl AsyncRead for Resumed {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.greeting.is_empty() {
            return Pin::new(&mut self.transport).poll_read(context, into);
        }
        let count = into.remaining().min(self.greeting.len());
        into.put_slice(&self.greeting.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Resumed {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.startup.drop_bytes(bytes) {
            0 => Pin::new(&mut self.transport).poll_write(context, bytes),
            dropped => Poll::Ready(Ok(dropped)),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_no_position_is_an_error_and_not_zero() {
        assert_eq!(position("1/A0").unwrap(), Lsn::from_wire(0x1_0000_00A0));
        for text in ["", "0", "1/", "NULL", "1/A0 "] {
            assert!(matches!(position(text), Err(Error::Answer { field: "WAL position" })), "{text}");
        }
    }

    #[test]
    fn the_startup_message_is_dropped_in_pieces_of_any_size() {
        let startup = [0, 0, 0, 9, 0, 3, 0, 0, 0];
        for piece in 1..=startup.len() {
            let mut state = Startup::Length(BytesMut::new());
            let mut bytes: &[u8] = &[&startup[..], b"Q"].concat();
            while !matches!(state, Startup::Over) {
                let taken = state.drop_bytes(&bytes[..piece.min(bytes.len())]);
                assert!(taken > 0);
                bytes = &bytes[taken..];
            }
            assert_eq!(bytes, b"Q");
            assert_eq!(state.drop_bytes(bytes), 0);
        }
    }
}
