//! The stream: bytes of the log in, status updates out.
//!
//! Reading and writing may be given up at any await without losing a byte: what was read is in the buffer, what was not
//! yet written stays queued. The position that is reported comes from the ledger and never goes back.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;
use std::time::SystemTime;

use bytes::Buf as _;
use bytes::BufMut as _;
use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::io::AsyncWrite as _;
use tokio::io::AsyncWriteExt as _;

use crate::lsn::Lsn;
use crate::relay::stream::feedback::Reportable;

use super::Error;
use super::ServerError;
use super::inbox::Inbox;
use super::message;
use super::message::Messages;
use super::transport::Transport;

/// What a frame has besides its row.
const FRAME_SLACK: usize = 64 << 10;
/// A status update on the wire: tag, length, kind, three positions, a time, a flag.
const STATUS_BYTES: usize = 39;
/// Status updates that may wait to be written: with a server that does not read, more of the same would not help.
const QUEUED_MAX: usize = 4 * STATUS_BYTES;
/// PostgreSQL's clock starts this long after the Unix clock, on 2000-01-01.
const EPOCH: Duration = Duration::from_secs(946_684_800);

/// A stream of the log.
#[derive(Debug)]
pub struct Stream {
    transport: Transport,
    inbox: Inbox,
    queued: BytesMut,
    position: Lsn,
    frame_max: usize,
    /// Bytes that arrived together with the answer to START_REPLICATION: the caller has not seen them.
    unseen: usize,
}

impl Stream {
    pub(super) fn new(messages: Messages, reported: Lsn, row_bytes_max: usize) -> Self {
        let Messages { transport, mut inbox } = messages;
        let frame_max = row_bytes_max.saturating_add(FRAME_SLACK);
        inbox.set_limit(frame_max);
        let unseen = inbox.unread().len();
        Self { transport, inbox, queued: BytesMut::new(), position: reported, frame_max, unseen }
    }

    /// Writes what is queued and, if `reads`, reads whatever the socket holds. Returns how much was read, which is 0 only
    /// if there is no room. The first read returns what came with the answer to START_REPLICATION: a server that then has
    /// nothing to add must not hide it. Without reading it returns 0 when all is written, and with nothing to write it does
    /// not return. Cancel-safe.
    pub async fn exchange(&mut self, reads: bool) -> Result<usize, Error> {
        poll_fn(|context| {
            if reads && self.unseen > 0 {
                return Poll::Ready(Ok(std::mem::take(&mut self.unseen)));
            }
            let had_queued = !self.queued.is_empty();
            let written = self.poll_write(context)?;
            match written {
                Poll::Ready(()) if had_queued && !reads => Poll::Ready(Ok(0)),
                Poll::Ready(()) | Poll::Pending if reads => self.inbox.poll_fill(context, &mut self.transport),
                Poll::Ready(()) | Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Lets go of the first bytes.
    pub fn consume(&mut self, used: usize) {
        self.inbox.consume(used);
    }

    /// Makes room for a frame of this whole length, unless it is larger than may be read.
    pub fn make_room(&mut self, length: usize) -> Result<(), Error> {
        self.inbox.make_room(length)
    }

    /// Raises the position that status updates report.
    pub fn confirm(&mut self, stored: Reportable) {
        self.position = self.position.max(stored.lsn());
    }

    /// Queues a status update: write = flush = apply.
    pub fn queue_status(&mut self, wants_answer: bool) {
        if self.queued.len() > QUEUED_MAX - STATUS_BYTES {
            return;
        }
        self.queued.put_u8(b'd');
        self.queued.put_u32(38);
        self.queued.put_u8(b'r');
        for _ in 0..3 {
            self.queued.put_u64(self.position.to_wire());
        }
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + EPOCH).unwrap_or_default();
        self.queued.put_i64(i64::try_from(since.as_micros()).unwrap_or(i64::MAX));
        self.queued.put_u8(u8::from(wants_answer));
    }

    /// Ends the stream in order, within `limit`: a last status update, CopyDone, and the server's own end. The server
    /// takes messages in their order, so its end proves that it has taken the last position.
    pub async fn finish(mut self, limit: Duration) -> Result<(), Error> {
        match tokio::time::timeout(limit, self.say_goodbye()).await {
            Ok(ended) => ended,
            Err(_) => Err(Error::NoEnd { limit }),
        }
    }

    /// Writes a last status update, within `limit`, and leaves. Nothing proves that the server has taken it.
    pub async fn abandon(mut self, limit: Duration) -> Result<(), Error> {
        self.queue_status(false);
        match tokio::time::timeout(limit, self.exchange(false)).await {
            Ok(written) => written.map(drop),
            Err(_) => Err(Error::NoEnd { limit }),
        }
    }

    /// Gives what was read and not consumed.
    #[must_use]
    pub fn buffer(&self) -> &[u8] {
        self.inbox.unread()
    }

    /// Gives the largest frame that may be read.
    #[must_use]
    pub const fn frame_max(&self) -> usize {
        self.frame_max
    }

    /// Gives the position that status updates report.
    #[must_use]
    pub const fn position(&self) -> Lsn {
        self.position
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Result<Poll<()>, Error> {
        let failed = Error::io("send a status update");
        while !self.queued.is_empty() {
            match Pin::new(&mut self.transport).poll_write(context, &self.queued) {
                Poll::Ready(Ok(0)) => return Err(failed(ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => self.queued.advance(written),
                Poll::Ready(Err(error)) => return Err(failed(error)),
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
        Ok(Poll::Ready(()))
    }

    async fn say_goodbye(&mut self) -> Result<(), Error> {
        self.queued.reserve(STATUS_BYTES);
        self.queue_status(false);
        frontend::copy_done(&mut self.queued);
        // What the server still had on the way to us, and its own end: CopyDone, CommandComplete, ReadyForQuery.
        loop {
            while let Some((tag, body_start, length)) = self.front()? {
                match tag {
                    b'Z' => return self.close().await,
                    b'E' => {
                        let body = self.inbox.unread().get(body_start..length).unwrap_or_default();
                        return Err(ServerError::parse(body).into());
                    }
                    _ => self.inbox.consume(length),
                }
            }
            match self.exchange(true).await {
                Ok(_) => {}
                // A server that shuts down closes without ReadyForQuery.
                Err(Error::Closed) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Looks at the first message if it is whole, and makes room for it if it is not.
    fn front(&mut self) -> Result<Option<(u8, usize, usize)>, Error> {
        let unread = self.inbox.unread();
        let Some((tag, length)) = message::header(unread, i32::MAX)? else { return Ok(None) };
        if unread.len() < length {
            self.inbox.make_room(length)?;
            return Ok(None);
        }
        Ok(Some((tag, message::HEADER, length)))
    }

    async fn close(&mut self) -> Result<(), Error> {
        frontend::terminate(&mut self.queued);
        self.exchange(false).await?;
        // The server may be faster and be gone already.
        let _ = self.transport.shutdown().await;
        Ok(())
    }
}
