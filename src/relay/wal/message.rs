//! The messages of the handshake and of commands: few, small, and not on the hot path.

use bytes::Buf as _;
use bytes::BytesMut;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;

use crate::cursor::Cursor;
use crate::cursor::Malformed;

use super::Error;
use super::ServerError;
use super::transport::Transport;

/// Before the stream no honest message is larger.
const LENGTH_MAX: usize = 1 << 20;

/// A message of the server, outside the stream.
#[derive(Debug)]
pub(super) enum Answer {
    /// How to authenticate, and the data that goes with it.
    Authentication(i32, Vec<u8>),
    /// A setting of the session.
    Parameter(String, String),
    /// The columns of the rows that follow; their names are not needed.
    RowDescription,
    /// A row, in text.
    Row(Vec<Option<String>>),
    /// A command is done.
    Complete,
    /// The stream begins.
    CopyBoth,
    /// The next command may come.
    Ready,
    /// Nothing that concerns us.
    Aside,
}

/// A connection that exchanges whole messages.
#[derive(Debug)]
pub(super) struct Messages {
    pub(super) transport: Transport,
    pub(super) received: BytesMut,
}

impl Messages {
    pub(super) fn new(transport: Transport) -> Self {
        Self { transport, received: BytesMut::with_capacity(8 << 10) }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let io = self.transport.io();
        io.write_all(bytes).await.map_err(Error::io("send to PostgreSQL"))?;
        io.flush().await.map_err(Error::io("send to PostgreSQL"))
    }

    /// Waits for the next message. An error of the server is an error here.
    pub(super) async fn next(&mut self) -> Result<Answer, Error> {
        let length = loop {
            if let Some(length) = self.whole()? {
                break length;
            }
            let read = self.transport.io().read_buf(&mut self.received).await;
            if read.map_err(Error::io("read from PostgreSQL"))? == 0 {
                return Err(Error::Closed);
            }
        };
        let answer = parse(self.received.get(..length).unwrap_or_default());
        self.received.advance(length);
        answer
    }

    fn whole(&self) -> Result<Option<usize>, Error> {
        let mut cursor = Cursor::new(&self.received);
        let (Ok(_), Ok(value)) = (cursor.u8("message tag"), cursor.i32("message length")) else { return Ok(None) };
        let length = match usize::try_from(value) {
            Ok(length) if length >= 4 => length + 1,
            _ => return Err(Malformed::Impossible { field: "message length", value: value.into() }.into()),
        };
        if length > LENGTH_MAX {
            return Err(Error::TooLarge { length, limit: LENGTH_MAX });
        }
        Ok((self.received.len() >= length).then_some(length))
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
                    row.push(Some(String::from_utf8_lossy(cursor.sized("value")?).into_owned()));
                }
            }
            Answer::Row(row)
        }
        b'C' => Answer::Complete,
        b'W' => Answer::CopyBoth,
        b'Z' => Answer::Ready,
        b'K' | b'N' | b'I' | b'A' | b'v' => Answer::Aside,
        kind => return Err(Malformed::UnknownKind { what: "message", kind }.into()),
    })
}
