//! A request body made of pieces: the caller's bytes with edits between them, none of it copied.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// The pieces still to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Pieces {
    queue: VecDeque<Bytes>,
    left: u64,
}

impl From<Vec<Bytes>> for Pieces {
    fn from(pieces: Vec<Bytes>) -> Self {
        let left = pieces
            .iter()
            .map(|piece| u64::try_from(piece.len()).unwrap_or(0))
            .sum();
        Self {
            queue: pieces.into(),
            left,
        }
    }
}

impl Pieces {
    /// The pieces themselves.
    pub(super) fn into_queue(self) -> VecDeque<Bytes> {
        self.queue
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.queue.pop_front();
        self.left -= piece
            .as_ref()
            .map_or(0, |piece| u64::try_from(piece.len()).unwrap_or(0));
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.queue.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
