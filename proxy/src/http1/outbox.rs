//! Bytes on their way out: what is there leaves together, and nothing that is long is copied.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

use super::scratch;

/// Pieces that one write takes.
const SLICES: usize = 34;
/// Bytes that are put together rather than written in pieces: for the kernel that is less work than the copy
/// is for us.
const SMALL: usize = 4 << 10;

/// A head, pieces behind it, and what ends them.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    head: Vec<u8>,
    /// How much of the head is out.
    at: usize,
    pieces: VecDeque<Bytes>,
    tail: &'static [u8],
    is_flushed: bool,
    /// Something left since this was last cleared.
    pub(crate) moved: bool,
}

impl Outbox {
    /// A message of `head` and `pieces`.
    pub(crate) fn new(head: Vec<u8>, pieces: VecDeque<Bytes>) -> Self {
        Self {
            head,
            pieces,
            ..Self::default()
        }
    }

    /// Whether everything is out.
    pub(crate) fn is_empty(&self) -> bool {
        self.at == self.head.len()
            && self.pieces.is_empty()
            && self.tail.is_empty()
            && self.is_flushed
    }

    /// Where the next head is written.
    pub(crate) fn head(&mut self) -> &mut Vec<u8> {
        self.is_flushed = false;
        &mut self.head
    }

    /// Adds a piece. Empty ones are dropped.
    pub(crate) fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.is_flushed = false;
            self.pieces.push_back(piece);
        }
    }

    /// How many pieces wait.
    pub(crate) fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// Makes one chunk of `length` bytes of what was pushed; the last of its message where `ends`.
    pub(crate) fn chunk(&mut self, length: usize, ends: bool) {
        let head = self.head();
        // Writing to memory does not fail.
        let _written = if length > 0 {
            write!(head, "{length:x}\r\n")
        } else if ends {
            head.write_all(b"0\r\n\r\n")
        } else {
            Ok(())
        };
        self.tail = match (length > 0, ends) {
            (true, true) => b"\r\n0\r\n\r\n",
            (true, false) => b"\r\n",
            (false, _) => b"",
        };
    }

    /// Drops what is left.
    pub(crate) fn clear(&mut self) {
        *self = Self {
            is_flushed: true,
            ..Self::default()
        };
    }

    /// Writes until everything is out.
    pub(crate) fn poll<S>(&mut self, to: &mut S, context: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        S: AsyncWrite + Unpin,
    {
        loop {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut count = 0;
            let head = self.head.get(self.at..).unwrap_or_default();
            let parts = [head]
                .into_iter()
                .chain(self.pieces.iter().map(|piece| &**piece))
                .chain([self.tail]);
            for (slice, part) in slices.iter_mut().zip(parts.filter(|it| !it.is_empty())) {
                *slice = IoSlice::new(part);
                count += 1;
            }
            let Some(slices) = slices.get(..count).filter(|it| !it.is_empty()) else {
                break;
            };
            let length: usize = slices.iter().map(|slice| slice.len()).sum();
            let to = Pin::new(&mut *to);
            let written = match slices {
                [one] => to.poll_write(context, one),
                many if length <= SMALL => scratch::joined(many, |one| to.poll_write(context, one)),
                many => to.poll_write_vectored(context, many),
            };
            let written = ready!(written)?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.moved = true;
            self.advance(written);
        }
        ready!(Pin::new(to).poll_flush(context))?;
        self.is_flushed = true;
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut written: usize) {
        let of_head = written.min(self.head.len() - self.at);
        self.at += of_head;
        written -= of_head;
        if self.at == self.head.len() {
            // Heads of chunks are short and come again; that of a message does not.
            self.at = 0;
            if self.head.capacity() > 64 {
                self.head = Vec::new();
            } else {
                self.head.clear();
            }
        }
        while let Some(piece) = self.pieces.front_mut() {
            if piece.len() > written {
                piece.advance(written);
                return;
            }
            written -= piece.len();
            self.pieces.pop_front();
        }
        self.tail = self.tail.get(written..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Takes at most so many bytes a write, and nothing every other time.
    struct Slow(Vec<u8>, usize, bool);

    impl AsyncWrite for Slow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.2 = !self.2;
            if self.2 {
                return Poll::Pending;
            }
            let length = bytes.len().min(self.1);
            self.0.extend_from_slice(&bytes[..length]);
            Poll::Ready(Ok(length))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.2 = !self.2;
            if self.2 {
                return Poll::Pending;
            }
            let all: Vec<u8> = slices.iter().flat_map(|it| it.to_vec()).collect();
            let length = all.len().min(self.1);
            self.0.extend_from_slice(&all[..length]);
            Poll::Ready(Ok(length))
        }
    }

    #[test]
    fn everything_leaves_in_order_however_little_a_write_takes() {
        let wanted = b"head\r\n\r\n5\r\nhello\r\n28\r\nforty small pieces..forty small pieces..\r\n0\r\n\r\n";
        for at_once in 1..=wanted.len() {
            let mut socket = Slow(Vec::new(), at_once, false);
            let mut context = Context::from_waker(Waker::noop());
            let mut drive = |outbox: &mut Outbox| {
                for _ in 0..400 {
                    if outbox.poll(&mut socket, &mut context).is_ready() {
                        return;
                    }
                }
                panic!("never out");
            };
            let mut outbox = Outbox::default();
            outbox.head().extend_from_slice(b"head\r\n\r\n");
            outbox.push(Bytes::from_static(b"he"));
            outbox.push(Bytes::new());
            outbox.push(Bytes::from_static(b"llo"));
            outbox.chunk(5, false);
            assert!(!outbox.is_empty());
            drive(&mut outbox);
            assert!(outbox.is_empty() && outbox.moved);
            for letter in "forty small pieces..forty small pieces..".chars() {
                outbox.push(Bytes::from(letter.to_string()));
            }
            outbox.chunk(40, true);
            drive(&mut outbox);
            assert_eq!(socket.0, wanted, "{at_once} bytes a write");
        }
    }
}
