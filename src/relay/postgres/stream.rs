//! The replication stream: WAL in, status updates out.
//!
//! Reading and writing can be cancelled at any await without losing a byte: received bytes are in the buffer, unsent
//! bytes stay queued. The reported position comes from the ledger and never goes back.

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

use super::error::Error;
use super::message;
use super::message::Messages;
use super::read_buffer::ReadBuffer;
use super::server::ServerError;
use super::transport::Transport;

/// The bytes of a frame besides its row.
const FRAME_SLACK: usize = 64 << 10;
/// The size of a status update: tag, length, kind, three positions, a time, a flag.
const STATUS_BYTES: usize = 39;
/// The queue of status updates: while the server does not read, further ones are dropped.
const MAX_QUEUED: usize = 4 * STATUS_BYTES;
/// PostgreSQL's epoch, 2000-01-01, as time since the Unix epoch.
const EPOCH: Duration = Duration::from_secs(946_684_800);

/// A replication stream.
#[derive(Debug)]
pub struct Stream {
    transport: Transport,
    read_buffer: ReadBuffer,
    queued: BytesMut,
    position: Lsn,
    max_frame: usize,
    /// Bytes that were received together with the answer to START_REPLICATION.
    unseen: usize,
}

impl Stream {
    pub(super) fn new(messages: Messages, reported: Lsn, max_row_bytes: usize) -> Self {
        let Messages { transport, mut read_buffer } = messages;
        let max_frame = max_row_bytes.saturating_add(FRAME_SLACK);
        read_buffer.set_limit(max_frame);
        let unseen = read_buffer.unread().len();
        Self { transport, read_buffer, queued: BytesMut::new(), position: reported, max_frame, unseen }
    }

    /// Writes what is queued and, if `reads`, reads everything in the socket. Gives the number of bytes read, which is
    /// 0 only without room. The first read gives the bytes that came with the answer to START_REPLICATION, since the
    /// server may send nothing more. If `reads` is false, it gives 0 when everything is written, and without anything
    /// to write it does not return. Cancel-safe.
    pub async fn exchange(&mut self, reads: bool) -> Result<usize, Error> {
        poll_fn(|context| {
            if reads && self.unseen > 0 {
                return Poll::Ready(Ok(std::mem::take(&mut self.unseen)));
            }
            let had_queued = !self.queued.is_empty();
            let written = self.poll_write(context)?;
            match written {
                Poll::Ready(()) if had_queued && !reads => Poll::Ready(Ok(0)),
                Poll::Ready(()) | Poll::Pending if reads => self.read_buffer.poll_fill(context, &mut self.transport),
                Poll::Ready(()) | Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Removes the first bytes.
    pub fn consume(&mut self, used: usize) {
        self.read_buffer.consume(used);
    }

    /// Makes room for a frame of this total length, unless it is larger than the limit.
    pub fn make_room(&mut self, length: usize) -> Result<(), Error> {
        self.read_buffer.make_room(length)
    }

    /// Advances the position in status updates.
    pub fn confirm(&mut self, stored: Reportable) {
        self.position = self.position.max(stored.lsn());
    }

    /// Queues a status update: write = flush = apply. Layout: Standby status update in
    /// [Streaming Replication Protocol](https://www.postgresql.org/docs/18/protocol-replication.html).
    pub fn queue_status(&mut self, wants_answer: bool) {
        if self.queued.len() > MAX_QUEUED - STATUS_BYTES {
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

    /// Ends the stream within `limit`: a last status update, CopyDone, and the server's CopyDone. The server handles
    /// messages in order, so its CopyDone proves that it has received the last position.
    pub async fn finish(mut self, limit: Duration) -> Result<(), Error> {
        match tokio::time::timeout(limit, self.end_copy()).await {
            Ok(ended) => ended,
            Err(_) => Err(Error::NoEnd { limit }),
        }
    }

    /// Writes a last status update within `limit` and closes. Nothing proves that the server has received it.
    pub async fn abandon(mut self, limit: Duration) -> Result<(), Error> {
        self.queue_status(false);
        match tokio::time::timeout(limit, self.exchange(false)).await {
            Ok(written) => written.map(drop),
            Err(_) => Err(Error::NoEnd { limit }),
        }
    }

    /// Gives the bytes that were received and not consumed.
    #[must_use]
    pub fn buffer(&self) -> &[u8] {
        self.read_buffer.unread()
    }

    /// Gives the size of the largest frame.
    #[must_use]
    pub const fn max_frame(&self) -> usize {
        self.max_frame
    }

    /// Gives the position in status updates.
    #[must_use]
    pub const fn position(&self) -> Lsn {
        self.position
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Result<Poll<()>, Error> {
        let failed = Error::io("could not send a status update");
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

    async fn end_copy(&mut self) -> Result<(), Error> {
        self.queued.reserve(STATUS_BYTES);
        self.queue_status(false);
        frontend::copy_done(&mut self.queued);
        // Messages that the server had sent before, then CopyDone, CommandComplete and ReadyForQuery.
        loop {
            while let Some((tag, body_start, length)) = self.front()? {
                match tag {
                    b'Z' => return self.close().await,
                    b'E' => {
                        let body = self.read_buffer.unread().get(body_start..length).unwrap_or_default();
                        return Err(ServerError::parse(body).into());
                    }
                    _ => self.read_buffer.consume(length),
                }
            }
            match self.exchange(true).await {
                Ok(_) => {}
                // A server in shutdown closes without ReadyForQuery.
                Err(Error::Closed) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives the first message if it is complete; makes room for it if it is not.
    fn front(&mut self) -> Result<Option<(u8, usize, usize)>, Error> {
        let unread = self.read_buffer.unread();
        let Some((tag, length)) = message::header(unread, i32::MAX)? else { return Ok(None) };
        if unread.len() < length {
            self.read_buffer.make_room(length)?;
            return Ok(None);
        }
        Ok(Some((tag, message::HEADER, length)))
    }

    async fn close(&mut self) -> Result<(), Error> {
        frontend::terminate(&mut self.queued);
        self.exchange(false).await?;
        // The server may have closed already.
        let _ = self.transport.shutdown().await;
        Ok(())
    }
}
