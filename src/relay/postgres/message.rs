//! The messages of authentication and of commands: few and small.

use std::future::poll_fn;

use tokio::io::AsyncWriteExt as _;

use crate::cursor::Cursor;
use crate::cursor::Malformed;

use super::error::Error;
use super::read_buffer::ReadBuffer;
use super::server::ServerError;
use super::transport::Transport;

/// The largest message before the stream.
const MAX_LENGTH: i32 = 1 << 20;
/// The buffer for one.
const MAX_ROOM: usize = (1 << 20) + 1;

/// A message of the server, outside the stream.
#[derive(Debug)]
pub(super) enum Answer {
    /// An authentication request and its data.
    Authentication(i32, Vec<u8>),
    /// A setting of the session.
    Parameter(String, String),
    /// BackendKeyData.
    Key(Vec<u8>),
    /// The description of the rows that follow; not used.
    RowDescription,
    /// A row as text.
    Row(Vec<Option<String>>),
    /// The command is complete.
    Complete,
    /// The stream starts.
    CopyBoth,
    /// Ready for the next command.
    Ready,
    /// A message that needs no action.
    Ignored,
}

/// A connection that exchanges whole messages.
#[derive(Debug)]
pub(super) struct Messages {
    pub(super) transport: Transport,
    pub(super) read_buffer: ReadBuffer,
}

impl Answer {
    /// Gives the error for a message that is not expected here.
    pub(super) const fn unexpected(&self, field: &'static str) -> Error {
        Error::Answer { field }
    }
}

impl Messages {
    pub(super) fn new(transport: Transport) -> Self {
        Self { transport, read_buffer: ReadBuffer::new(MAX_ROOM) }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.transport.write_all(bytes).await.map_err(Error::io("could not send data to server"))?;
        self.transport.flush().await.map_err(Error::io("could not send data to server"))
    }

    /// Waits for the next message. An error of the server is an error here.
    pub(super) async fn next(&mut self) -> Result<Answer, Error> {
        loop {
            let unread = self.read_buffer.unread();
            if let Some((_, length)) = header(unread, MAX_LENGTH)? {
                if let Some(message) = unread.get(..length) {
                    let answer = parse(message);
                    self.read_buffer.consume(length);
                    return answer;
                }
                self.read_buffer.make_room(length)?;
            }
            poll_fn(|context| self.read_buffer.poll_fill(context, &mut self.transport)).await?;
        }
    }
}

/// The size of the tag and the length in front of every message.
pub(super) const HEADER: usize = 5;

/// Gives the tag and the total length of the first message, once its header is complete.
pub(super) fn header(unread: &[u8], limit: i32) -> Result<Option<(u8, usize)>, Malformed> {
    let mut cursor = Cursor::new(unread);
    let (Ok(tag), Ok(value)) = (cursor.u8("message tag"), cursor.i32("message length")) else { return Ok(None) };
    match usize::try_from(value) {
        // The length counts itself, but not the tag.
        Ok(length) if (4..=limit).contains(&value) => Ok(Some((tag, length + 1))),
        _ => Err(Malformed::Impossible { field: "message length", value: value.into() }),
    }
}

fn parse(message: &[u8]) -> Result<Answer, Error> {
    let mut cursor = Cursor::new(message);
    let tag = cursor.u8("message tag")?;
    cursor.i32("message length")?;
    Ok(match tag {
        b'R' => {
            let method = cursor.i32("authentication method")?;
            Answer::Authentication(method, cursor.rest().to_vec())
        }
        b'S' => {
            let name = cursor.text("parameter name")?.to_owned();
            Answer::Parameter(name, cursor.text("parameter value")?.to_owned())
        }
        b'E' => return Err(ServerError::parse(cursor.rest()).into()),
        b'K' => Answer::Key(cursor.rest().to_vec()),
        b'T' => Answer::RowDescription,
        b'D' => {
            let count = cursor.count("column count")?;
            let mut row = Vec::new();
            for _ in 0..count {
                let mut ahead = cursor;
                if ahead.i32("value length")? == -1 {
                    cursor = ahead;
                    row.push(None);
                } else {
                    let value = std::str::from_utf8(cursor.sized("value")?);
                    row.push(Some(value.map_err(|_| Malformed::NotUtf8 { field: "value" })?.to_owned()));
                }
            }
            Answer::Row(row)
        }
        b'C' => Answer::Complete,
        b'W' => Answer::CopyBoth,
        b'Z' => Answer::Ready,
        b'N' | b'I' | b'A' | b'v' => Answer::Ignored,
        kind => return Err(Malformed::UnknownKind { what: "message", kind }.into()),
    })
}
