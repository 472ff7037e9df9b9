//! The body of an endpoint's answer. It owns its connection, reads when it is asked to, and gives the
//! connection back when the answer ended cleanly; dropped before that, it closes it, which cancels the call.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::http2::Hold;
use super::pool::{Line, Pool};
use crate::gateway::BodyError;
use crate::http1::chunked::Chunked;
use crate::http1::head::Framing;
use crate::http1::scratch;

/// An answer's body.
#[derive(Debug)]
pub(crate) enum Answer {
    Http1(Reading),
    Http2(
        Incoming,
        #[expect(dead_code, reason = "it is kept for as long as the body")] Hold,
    ),
}

/// What is read of an answer, and where.
pub(crate) struct Reading {
    line: Option<Line>,
    coding: Coding,
    /// Content that came with the head.
    first: Bytes,
    /// What is wrong with what came with the head: the answer has begun all the same.
    broken: Option<io::Error>,
    /// Where the connection goes when the answer is whole.
    home: Option<Arc<Pool>>,
    /// The whole length, where the head said it.
    length: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
enum Coding {
    Length(u64),
    Chunked(Chunked),
    ToTheEnd,
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let coding = &self.coding;
        f.debug_struct("Reading")
            .field("coding", coding)
            .finish_non_exhaustive()
    }
}

impl Reading {
    /// The body behind a head; `first` came with that. `home` is missing where the connection can not be
    /// used again.
    pub(super) fn new(
        line: Line,
        framing: Framing,
        first: &mut [u8],
        home: Option<Arc<Pool>>,
    ) -> Self {
        let (coding, length) = match framing {
            Framing::Length(length) => (Coding::Length(length), Some(length)),
            Framing::Chunked => (Coding::Chunked(Chunked::default()), None),
            Framing::Unsaid => (Coding::ToTheEnd, None),
        };
        let mut reading = Self {
            line: Some(line),
            coding,
            first: Bytes::new(),
            broken: None,
            home,
            length,
        };
        match reading.coding.decode(first) {
            Ok((content, is_whole)) => {
                reading.first = content.bytes;
                if is_whole {
                    reading.end(content.is_more);
                }
            }
            Err(error) => {
                reading.line = None;
                reading.broken = Some(error);
            }
        }
        reading
    }

    /// The answer is whole: its connection can take another call unless something stands behind it.
    fn end(&mut self, is_more: bool) {
        if let (Some(line), Some(home), false) = (self.line.take(), self.home.take(), is_more) {
            home.put(line);
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if !self.first.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.first))));
        }
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        loop {
            let Some(line) = &mut self.line else {
                return Poll::Ready(None);
            };
            let coding = &mut self.coding;
            let read = scratch::poll_read(&mut line.socket, context, |came| {
                if came.is_empty() {
                    coding.ended()
                } else {
                    coding.decode(came)
                }
            });
            let (content, is_whole) = match ready!(read).and_then(|decoded| decoded) {
                Ok(decoded) => decoded,
                Err(error) => {
                    self.line = None;
                    return Poll::Ready(Some(Err(error)));
                }
            };
            if is_whole {
                self.end(content.is_more);
            }
            if !content.bytes.is_empty() {
                return Poll::Ready(Some(Ok(content.bytes)));
            }
        }
    }
}

/// Content, and whether something follows the message it belongs to.
struct Content {
    bytes: Bytes,
    is_more: bool,
}

impl Coding {
    /// The content in a piece, and whether the message ends in it.
    fn decode(&mut self, piece: &mut [u8]) -> io::Result<(Content, bool)> {
        let (content, used, is_whole) = match self {
            Self::Length(left) => {
                let length = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(piece.len());
                *left -= u64::try_from(length).unwrap_or(0);
                (0..length, length, *left == 0)
            }
            Self::Chunked(chunked) => {
                let decoded = chunked.decode(piece);
                let decoded =
                    decoded.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                (decoded.content, decoded.used, chunked.is_done())
            }
            Self::ToTheEnd => (0..piece.len(), piece.len(), false),
        };
        let content = Content {
            is_more: used < piece.len(),
            bytes: Bytes::copy_from_slice(piece.get(content).unwrap_or_default()),
        };
        Ok((content, is_whole))
    }

    /// The connection ended, and with it the message if nothing else says where it does.
    fn ended(self) -> io::Result<(Content, bool)> {
        let nothing = Content {
            bytes: Bytes::new(),
            is_more: true,
        };
        match self {
            Self::ToTheEnd => Ok((nothing, true)),
            Self::Length(_) | Self::Chunked(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Http1(reading) => {
                let polled = ready!(reading.poll(context));
                Poll::Ready(polled.map(|read| read.map(Frame::data).map_err(BodyError::from)))
            }
            Self::Http2(body, _) => {
                let polled = ready!(Pin::new(body).poll_frame(context));
                Poll::Ready(polled.map(|read| read.map_err(BodyError::from)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(reading) => {
                reading.line.is_none() && reading.first.is_empty() && reading.broken.is_none()
            }
            Self::Http2(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(reading) => reading.length.map(SizeHint::with_exact).unwrap_or_default(),
            Self::Http2(body, _) => body.size_hint(),
        }
    }
}
