//! The stream: bytes of the log in, status updates out.
//!
//! Reading and writing may be given up at any await without losing a byte: what was read is in the buffer, what was not
//! yet written stays queued. The position that is reported comes from the ledger and never goes back.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;
use std::time::SystemTime;

use bytes::Buf as _;
use bytes::BufMut as _;
use bytes::BytesMut;
use tokio::io::AsyncWrite as _;
use tokio_util::io::poll_read_buf;
use tokio_util::io::poll_write_buf;

use crate::lsn::Lsn;
use crate::relay::ledger::Confirmed;

use super::Error;
use super::message::Messages;
use super::transport::Transport;

/// The room for reading that is kept free.
const BUFFER: usize = 256 << 10;
/// What a frame has besides its row.
const FRAME_SLACK: usize = 64 << 10;
/// Status updates that may wait to be written.
const QUEUED_MAX: usize = 4 * STATUS_BYTES;
const STATUS_BYTES: usize = 39;
/// PostgreSQL's clock starts this long after the Unix clock.
const EPOCH: Duration = Duration::from_secs(946_684_800);

/// A stream of the log.
#[derive(Debug)]
pub struct Stream {
    transport: Transport,
    received: BytesMut,
    queued: BytesMut,
    position: Lsn,
    frame_max: usize,
}

impl Stream {
    pub(super) fn new(messages: Messages, from: Lsn, row_bytes_max: usize) -> Self {
        let Messages { transport, mut received } = messages;
        received.reserve(BUFFER);
        let frame_max = row_bytes_max.saturating_add(FRAME_SLACK);
        Self { transport, received, queued: BytesMut::new(), position: from, frame_max }
    }

    /// Writes what is queued and, if `reads`, reads once whatever the socket holds. Returns how much was read; without
    /// reading it returns when all is written, and with nothing to write it does not return. Cancel-safe.
    pub async fn exchange(&mut self, reads: bool) -> Result<usize, Error> {
        if self.received.capacity() - self.received.len() < BUFFER / 4 {
            self.received.reserve(BUFFER);
        }
        let (io, queued, received) = (self.transport.io(), &mut self.queued, &mut self.received);
        let had_queued = !queued.is_empty();
        let exchanged = poll_fn(|context| {
            while !queued.is_empty() {
                match poll_write_buf(Pin::new(&mut *io), context, queued) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => break,
                }
            }
            if had_queued && queued.is_empty() {
                if let Poll::Ready(Err(error)) = Pin::new(&mut *io).poll_flush(context) {
                    return Poll::Ready(Err(error));
                }
                if !reads {
                    return Poll::Ready(Ok(None));
                }
            }
            if reads { poll_read_buf(Pin::new(&mut *io), context, received).map_ok(Some) } else { Poll::Pending }
        });
        match exchanged.await.map_err(Error::io("follow the stream"))? {
            Some(0) => Err(Error::Closed),
            Some(read) => Ok(read),
            None => Ok(0),
        }
    }

    /// Gives what was read and not consumed.
    #[must_use]
    pub fn buffer(&self) -> &[u8] {
        &self.received
    }

    /// Gives the largest frame that may be read.
    #[must_use]
    pub const fn frame_max(&self) -> usize {
        self.frame_max
    }

    /// Lets go of the first bytes.
    pub fn consume(&mut self, used: usize) {
        self.received.advance(used.min(self.received.len()));
    }

    /// Makes room for a frame of this whole length, unless it is larger than may be read.
    pub fn make_room(&mut self, length: usize) -> Result<(), Error> {
        if length > self.frame_max {
            return Err(Error::TooLarge { length, limit: self.frame_max });
        }
        self.received.reserve(length.saturating_sub(self.received.len()));
        Ok(())
    }

    /// Raises the position that status updates report.
    pub fn confirm(&mut self, confirmed: Confirmed) {
        self.position = self.position.max(confirmed.lsn());
    }

    /// Gives the position that status updates report.
    #[must_use]
    pub const fn position(&self) -> Lsn {
        self.position
    }

    /// Queues a status update: write = flush = apply.
    pub fn queue_status(&mut self, wants_answer: bool) {
        if self.queued.len() > QUEUED_MAX - STATUS_BYTES {
            // The server does not read; more of the same would not help.
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

    /// Ends the stream in order: a last status update, CopyDone, and the server's own end, all within `limit`.
    pub async fn finish(mut self, limit: Duration) -> Result<(), Error> {
        let goodbye = async {
            self.queue_status(false);
            // CopyDone.
            self.queued.put_slice(b"c\0\0\0\x04");
            self.exchange(false).await?;
            // The server may still be sending; its end is CommandComplete and ReadyForQuery, or just the end.
            loop {
                self.received.clear();
                self.received.reserve(BUFFER);
                match self.exchange(true).await {
                    Ok(_) if self.received.ends_with(b"Z\0\0\0\x05I") => break,
                    Ok(_) => {}
                    Err(Error::Closed) => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
            // Terminate.
            self.queued.put_slice(b"X\0\0\0\x04");
            self.exchange(false).await.map(drop)
        };
        match tokio::time::timeout(limit, goodbye).await {
            Ok(ended) => ended,
            Err(_) => Ok(()),
        }
    }
}
