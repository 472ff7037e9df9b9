//! A request's body on its way from the connection, which reads it, to the call, which wants it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};

use super::chunked::{BadChunk, Chunked};
use super::head::Framing;
use crate::gateway::BodyError;

/// A caller that has sent so many bytes more is making progress.
const PROGRESS: usize = 1 << 10;

/// The body as the call sees it.
#[derive(Debug)]
pub(super) enum Upload {
    /// All of it was there.
    Whole(Bytes),
    Coming(Arc<Slot>, Option<u64>),
}

/// Where the connection puts what the call waits for.
#[derive(Debug, Default)]
pub(super) struct Slot(Mutex<Place>);

#[derive(Debug, Default)]
struct Place {
    /// Somebody waits.
    wanted: bool,
    /// Bytes that came since the reader last heard of any.
    came: usize,
    content: Option<Bytes>,
    ended: Option<Ended>,
    reader: Option<Waker>,
    connection: Option<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Whole,
    Broken,
}

impl Slot {
    fn place(&self) -> MutexGuard<'_, Place> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the call waits for the body. The connection is woken once it does.
    fn is_wanted(&self, context: &Context<'_>) -> bool {
        let mut place = self.place();
        if !place.wanted {
            let known = place.connection.as_ref();
            if !known.is_some_and(|known| known.will_wake(context.waker())) {
                place.connection = Some(context.waker().clone());
            }
        }
        place.wanted
    }

    /// Changes what is there, and wakes the reader unless it runs in this very task, which looks again by
    /// itself.
    fn put(&self, context: Option<&Context<'_>>, change: impl FnOnce(&mut Place)) {
        let mut place = self.place();
        change(&mut place);
        let is_other = |reader: &mut Waker| !context.is_some_and(|it| it.waker().will_wake(reader));
        if let Some(reader) = place.reader.take_if(is_other) {
            reader.wake();
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let slot = match self.get_mut() {
            Self::Whole(content) => {
                let content = std::mem::take(content);
                let frame = (!content.is_empty()).then(|| Ok(Frame::data(content)));
                return Poll::Ready(frame);
            }
            Self::Coming(slot, _) => slot,
        };
        let mut place = slot.place();
        if let Some(content) = place.content.take() {
            return Poll::Ready(Some(Ok(Frame::data(content))));
        }
        match place.ended {
            Some(Ended::Whole) => return Poll::Ready(None),
            Some(Ended::Broken) => {
                return Poll::Ready(Some(Err("the request's body broke off".into())));
            }
            None => {}
        }
        place.wanted = true;
        if place.came >= PROGRESS {
            // The rest is kept together; an empty frame says that it is under way.
            place.came = 0;
            return Poll::Ready(Some(Ok(Frame::data(Bytes::new()))));
        }
        place.reader = Some(context.waker().clone());
        if let Some(connection) = place.connection.take()
            && !connection.will_wake(context.waker())
        {
            connection.wake();
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(content) if content.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(content) => SizeHint::with_exact(u64::try_from(content.len()).unwrap_or(0)),
            Self::Coming(_, Some(length)) => SizeHint::with_exact(*length),
            Self::Coming(_, None) => SizeHint::default(),
        }
    }
}

/// The body as the connection sees it: read only once the call waits for it, and handed over in one piece.
#[derive(Debug)]
pub(super) struct Receiver {
    slot: Arc<Slot>,
    rest: Rest,
    content: BytesMut,
    /// Content beyond this is handed over as it comes, for the call to refuse.
    most: usize,
    /// The caller waits for a word before it sends the body.
    pub(super) expects: bool,
    /// It broke off: what follows is not the next request.
    pub(super) is_broken: bool,
}

/// What of the body is still to come.
#[derive(Debug, Clone, Copy)]
enum Rest {
    Length(u64),
    Chunked(Chunked),
    Nothing,
}

/// A request's body: what of it is in `inbox` already, and how the rest comes in.
pub(super) fn begin(
    framing: Framing,
    inbox: &mut BytesMut,
    most: usize,
) -> Result<(Upload, Option<Receiver>), BadChunk> {
    let rest = match framing {
        Framing::Unsaid | Framing::Length(0) => return Ok((Upload::Whole(Bytes::new()), None)),
        Framing::Length(length) => match usize::try_from(length) {
            Ok(short) if short <= inbox.len() => {
                return Ok((Upload::Whole(inbox.split_to(short).freeze()), None));
            }
            _ => Rest::Length(length),
        },
        Framing::Chunked => Rest::Chunked(Chunked::default()),
    };
    let slot = Arc::new(Slot::default());
    let mut receiver = Receiver {
        slot: Arc::clone(&slot),
        rest,
        content: BytesMut::new(),
        most,
        expects: false,
        is_broken: false,
    };
    if let Framing::Chunked = framing
        && !inbox.is_empty()
    {
        receiver.read(inbox, None)?;
        if receiver.is_done() {
            let content = slot.place().content.take();
            return Ok((Upload::Whole(content.unwrap_or_default()), None));
        }
    }
    let length = match framing {
        Framing::Length(length) => Some(length),
        Framing::Chunked | Framing::Unsaid => None,
    };
    Ok((Upload::Coming(slot, length), Some(receiver)))
}

impl Receiver {
    /// Whether all of it came.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.rest, Rest::Nothing)
    }

    /// Whether the call waits for it.
    pub(super) fn is_wanted(&self, context: &Context<'_>) -> bool {
        !self.is_done() && self.slot.is_wanted(context)
    }

    /// Where bytes of the body can be read to as they are, and how many at most; `None` for those that
    /// have to be decoded.
    pub(super) fn room(&mut self) -> Option<(&mut BytesMut, usize)> {
        let Rest::Length(left) = self.rest else {
            return None;
        };
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        // What is declared and never comes costs nothing: room grows with what came.
        let grown = self.content.len().max(128 << 10).min(left);
        if self.content.capacity() - self.content.len() < grown.min(16 << 10) {
            self.content.reserve(grown);
        }
        Some((&mut self.content, left))
    }

    /// Notes `length` bytes that were read to where [`Self::room`] said.
    pub(super) fn came(&mut self, length: usize, context: &Context<'_>) {
        self.count(length);
        self.hand_over(length, Some(context));
    }

    fn count(&mut self, length: usize) {
        if let Rest::Length(left) = &mut self.rest {
            *left = left.saturating_sub(u64::try_from(length).unwrap_or(0));
            if *left == 0 {
                self.rest = Rest::Nothing;
            }
        }
    }

    /// Takes what of `inbox` belongs to the body.
    pub(super) fn take(
        &mut self,
        inbox: &mut BytesMut,
        context: &Context<'_>,
    ) -> Result<(), BadChunk> {
        self.read(inbox, Some(context))
    }

    fn read(
        &mut self,
        inbox: &mut BytesMut,
        context: Option<&Context<'_>>,
    ) -> Result<(), BadChunk> {
        let before = self.content.len();
        match &mut self.rest {
            Rest::Nothing => return Ok(()),
            Rest::Length(left) => {
                let length = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(inbox.len());
                let room = usize::try_from(*left).unwrap_or(usize::MAX).min(128 << 10);
                self.content.reserve(room.max(length));
                self.content
                    .extend_from_slice(inbox.get(..length).unwrap_or_default());
                inbox.advance(length);
                self.count(length);
            }
            Rest::Chunked(chunked) => match chunked.decode(inbox) {
                Ok(decoded) => {
                    let content = inbox.get(decoded.content).unwrap_or_default();
                    self.content.extend_from_slice(content);
                    inbox.advance(decoded.used);
                    if chunked.is_done() {
                        self.rest = Rest::Nothing;
                    }
                }
                Err(error) => {
                    self.end(context);
                    return Err(error);
                }
            },
        }
        if inbox.is_empty() {
            *inbox = BytesMut::new();
        }
        self.hand_over(self.content.len() - before, context);
        Ok(())
    }

    fn hand_over(&mut self, length: usize, context: Option<&Context<'_>>) {
        let whole = self.is_done();
        let content = (whole || self.content.len() > self.most)
            .then(|| std::mem::take(&mut self.content).freeze());
        self.slot.put(context, |place| {
            place.came += length;
            if whole {
                place.ended = Some(Ended::Whole);
            }
            if let Some(content) = content.filter(|it| !it.is_empty()) {
                place.content = Some(content);
                place.wanted = false;
            }
        });
    }

    /// The rest never comes.
    pub(super) fn break_off(&mut self, context: &Context<'_>) {
        self.end(Some(context));
    }

    fn end(&mut self, context: Option<&Context<'_>>) {
        self.rest = Rest::Nothing;
        self.is_broken = true;
        self.content = BytesMut::new();
        self.slot
            .put(context, |place| place.ended = Some(Ended::Broken));
    }
}
