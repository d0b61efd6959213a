//! Bytes that were received and not consumed: one buffer with a cursor, of bounded size.
//!
//! It grows only for a message whose length is known and allowed, and shrinks after that message is consumed.

use std::fmt;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;

use tokio::io::AsyncRead;
use tokio::io::ReadBuf;

use super::error::Error;

/// The initial and usual size: several hundred small events per wake-up.
const USUAL: usize = 256 << 10;

/// The buffer of a socket.
pub(super) struct ReadBuffer {
    /// Always initialized, so that reading into it needs no unsafe code.
    bytes: Vec<u8>,
    /// The start of the unread bytes; `start <= end <= bytes.len()`.
    start: usize,
    end: usize,
    /// The size of the largest message.
    limit: usize,
}

impl fmt::Debug for ReadBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the bytes: they are rows.
        f.debug_struct("ReadBuffer").field("unread", &(self.end - self.start)).field("size", &self.bytes.len()).finish()
    }
}

impl ReadBuffer {
    /// Creates an empty buffer.
    pub(super) fn new(limit: usize) -> Self {
        Self { bytes: vec![0; USUAL], start: 0, end: 0, limit }
    }

    /// Changes the size of the largest message.
    pub(super) const fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Removes the first `used` unread bytes.
    pub(super) fn consume(&mut self, used: usize) {
        debug_assert!(used <= self.end - self.start, "more bytes consumed than unread");
        self.start = self.end.min(self.start + used);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.bytes.len() > USUAL && self.end - self.start <= USUAL / 2 {
            let mut usual = Vec::with_capacity(USUAL);
            usual.extend_from_slice(self.unread());
            (self.start, self.end) = (0, usual.len());
            usual.resize(USUAL, 0);
            self.bytes = usual;
        }
    }

    /// Makes room for the whole first message. A message above the limit is rejected before anything is allocated.
    pub(super) fn make_room(&mut self, length: usize) -> Result<(), Error> {
        if length > self.limit {
            return Err(Error::TooLarge { length, limit: self.limit });
        }
        if self.start + length > self.bytes.len() {
            self.compact();
        }
        if length > self.bytes.len() {
            // Exactly this size: doubling would waste up to the size of a large message.
            self.bytes.resize(length, 0);
        }
        Ok(())
    }

    /// Reads everything that the peer has sent, as far as there is room: 0 bytes only without room. The end of the
    /// connection is an error.
    pub(super) fn poll_fill<R: AsyncRead + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        reader: &mut R,
    ) -> Poll<Result<usize, Error>> {
        if self.bytes.len() - self.end < self.bytes.len() / 4 {
            self.compact();
        }
        let mut received = 0;
        loop {
            let spare = self.bytes.get_mut(self.end..).unwrap_or_default();
            if spare.is_empty() {
                return Poll::Ready(Ok(received));
            }
            let mut into = ReadBuf::new(spare);
            match Pin::new(&mut *reader).poll_read(context, &mut into) {
                Poll::Ready(Ok(())) if !into.filled().is_empty() => {
                    received += into.filled().len();
                    self.end += into.filled().len();
                }
                // Bytes before the end are handled first; the next read sees the end again.
                Poll::Ready(_) | Poll::Pending if received > 0 => return Poll::Ready(Ok(received)),
                Poll::Ready(Ok(())) => return Poll::Ready(Err(Error::Closed)),
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Err(Error::io("could not receive data from server")(error)));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Gives the unread bytes.
    pub(super) fn unread(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    fn compact(&mut self) {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn fill(read_buffer: &mut ReadBuffer, mut bytes: &[u8]) -> usize {
        poll_fn(|context| read_buffer.poll_fill(context, &mut bytes)).await.unwrap()
    }

    #[tokio::test]
    async fn a_large_message_makes_it_grow_and_its_use_makes_it_shrink() {
        let mut read_buffer = ReadBuffer::new(1 << 20);
        let large = vec![7; 900_000];
        assert_eq!(fill(&mut read_buffer, &large).await, USUAL);
        read_buffer.make_room(900_000).unwrap();
        assert_eq!(fill(&mut read_buffer, &large).await, 900_000 - USUAL);
        assert_eq!(read_buffer.unread(), large);
        read_buffer.consume(900_000 - 3);
        assert_eq!((read_buffer.unread(), read_buffer.bytes.capacity()), ([7, 7, 7].as_slice(), USUAL));
    }

    #[tokio::test]
    async fn a_message_above_the_limit_is_refused_and_nothing_is_allocated() {
        let mut read_buffer = ReadBuffer::new(1 << 20);
        let refused = read_buffer.make_room((1 << 20) + 1);
        assert!(matches!(refused, Err(Error::TooLarge { length: 1_048_577, limit: 1_048_576 })));
        assert_eq!(read_buffer.bytes.capacity(), USUAL);
    }

    #[tokio::test]
    async fn what_was_used_makes_room_for_more() {
        let mut read_buffer = ReadBuffer::new(1 << 20);
        let mut sent = 0_u8;
        let mut seen = 0_u8;
        for step in (1..4_000).rev() {
            let chunk: Vec<u8> = (0..step)
                .map(|_| {
                    sent = sent.wrapping_add(1);
                    sent
                })
                .collect();
            assert_eq!(fill(&mut read_buffer, &chunk).await, step);
            // All but the last byte, so that the buffer never falls empty by itself.
            let used = read_buffer.unread().len() - 1;
            for byte in read_buffer.unread().iter().take(used) {
                seen = seen.wrapping_add(1);
                assert_eq!(*byte, seen);
            }
            read_buffer.consume(used);
        }
        assert_eq!(read_buffer.bytes.len(), USUAL);
    }

    #[tokio::test]
    async fn the_end_of_the_connection_is_an_error() {
        let mut read_buffer = ReadBuffer::new(1 << 20);
        let ended = poll_fn(|context| read_buffer.poll_fill(context, &mut b"".as_slice())).await;
        assert!(matches!(ended, Err(Error::Closed)));
    }
}
