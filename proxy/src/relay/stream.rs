//! The body of a streamed answer. Polled by the caller's connection: a slow caller slows the
//! upstream, and a caller that leaves drops this, which cancels the upstream and settles the bill.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::time::{Instant, Sleep, sleep, timeout_at};
use wire::dialect::Seen;
use wire::{Dialect, Refusal};

use super::{Billing, Feed};
use crate::cascade::{Extent, Glimpse};
use crate::config;
use crate::gateway::BodyError;
use crate::panics;
use crate::refusal;
use crate::upstream::Answer;

/// How long a caller gets to read the error event before the body breaks off: some clients forget
/// what they have read when it does.
const TO_BE_READ: Duration = Duration::from_millis(50);
/// How long the connection of a stream that has ended is kept in the hope that it can be reused.
const AFTER_END: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Flowing,
    /// The last event went by; only the end of the body is awaited.
    Ended,
    /// The error event is queued; the body must break off behind it.
    Breaking,
    /// The error event is out; the connection flushes it and the caller reads it.
    Flushed,
    Done,
}

/// A streamed answer.
#[derive(Debug)]
pub(super) struct Stream {
    upstream: Answer,
    feed: Feed,
    billing: Box<Billing>,
    dialect: &'static dyn Dialect,
    state: State,
    idle: Pin<Box<Sleep>>,
    idle_after: Duration,
    last: Instant,
    /// The gateway ends, and this with it.
    cut: Arc<AtomicBool>,
}

impl Stream {
    pub(super) fn new(
        upstream: Answer,
        feed: Feed,
        billing: Box<Billing>,
        dialect: &'static dyn Dialect,
        (patience, cut): (&config::Upstream, Arc<AtomicBool>),
    ) -> Self {
        let idle_after = Duration::from_millis(patience.idle_timeout_ms);
        Self {
            upstream,
            feed,
            billing,
            dialect,
            state: State::Flowing,
            idle: Box::pin(sleep(idle_after)),
            idle_after,
            last: Instant::now(),
            cut,
        }
    }

    /// Takes what the upstream has: `Ready` when there is something to give out or the state changed.
    fn poll_upstream(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Some(beyond) = self.feed.beyond() {
            self.take(beyond);
            return Poll::Ready(());
        }
        match Pin::new(&mut self.upstream).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                self.last = Instant::now();
                if let Ok(data) = frame.into_data() {
                    self.take(data);
                }
                Poll::Ready(())
            }
            Poll::Ready(Some(Err(_))) => {
                self.break_off("the upstream's stream broke off");
                Poll::Ready(())
            }
            Poll::Ready(None) => {
                self.end();
                Poll::Ready(())
            }
            Poll::Pending => self.poll_idle(context),
        }
    }

    /// Reads on until `until`, as long as the answer is under way. `false` once nothing more is read.
    pub(super) async fn read_on(&mut self, until: Instant) -> bool {
        if self.state != State::Flowing {
            return false;
        }
        let read = poll_fn(|context| self.poll_upstream(context));
        timeout_at(until, read).await.is_ok()
    }

    /// What is seen of an answer that is held, and whether that is all of it.
    pub(super) fn glimpse(&self) -> Option<(&Glimpse, Extent)> {
        let extent = if self.is_whole() {
            Extent::Whole
        } else {
            Extent::Beginning
        };
        self.feed.glimpse().map(|glimpse| (glimpse, extent))
    }

    fn is_whole(&self) -> bool {
        self.feed.facts().finished && matches!(self.state, State::Ended | State::Done)
    }

    /// Whether it broke off: what there is of it is of no use.
    pub(super) fn is_broken(&self) -> bool {
        matches!(self.state, State::Breaking | State::Flushed)
    }

    /// Bytes that wait for the caller.
    pub(super) fn queued(&self) -> usize {
        self.feed.queued()
    }

    /// Notes the check that the answer failed.
    pub(super) fn doubt(&mut self, cause: &str, gives_way: bool) {
        self.billing.doubt(cause, gives_way);
    }

    /// Lets what was held back go on its way.
    pub(super) fn release(&mut self) {
        self.billing.stays();
        self.feed.release();
        if matches!(self.state, State::Ended | State::Done) {
            let _done = self.complete();
        }
    }

    /// Ends it unreleased, because a better answer has begun.
    pub(super) fn cut(mut self) {
        let facts = self.feed.facts();
        if self.is_whole() {
            // It is not what its caller gets.
            let _written = self.billing.complete(&facts);
        } else {
            self.billing.cut(&facts);
        }
    }

    /// Settles an answer that is whole; one that is held is settled when it is released or cut. `false` where
    /// that will never be written down: then it does not end as if all were well.
    fn complete(&mut self) -> bool {
        if self.feed.is_held() {
            return true;
        }
        let Err(error) = self.billing.complete(&self.feed.facts()) else {
            return true;
        };
        self.break_behind(&refusal::journal(&error));
        false
    }

    /// The answer came to its end; what is left is the end of its body.
    pub(super) fn ended(&mut self) {
        if !self.complete() {
            return;
        }
        self.state = State::Ended;
        self.idle_after = AFTER_END;
        self.idle.as_mut().reset(Instant::now() + AFTER_END);
    }

    fn take(&mut self, data: Bytes) {
        if self.state == State::Ended {
            // Text behind the end is nobody's answer: drop it with the connection it came from.
            self.state = State::Done;
            return;
        }
        match self.feed.push(data) {
            Seen::End => self.ended(),
            Seen::Error => self.failed(),
            Seen::Broken => self.break_off("the upstream sent what is no event of its dialect"),
            Seen::Content if self.billing.is_over_cap(self.feed.content_events()) => {
                self.break_off("the upstream wrote more than the output cap it was given");
            }
            Seen::Quiet | Seen::Content | Seen::UsageOnly => {}
        }
    }

    /// The body ended: cleanly if the answer was complete, and visibly broken if not.
    fn end(&mut self) {
        match self.state {
            State::Ended => self.state = State::Done,
            State::Flowing if self.feed.facts().finished => {
                self.feed.flush();
                if self.complete() {
                    self.state = State::Done;
                }
            }
            _ => self.break_off("the upstream's stream ended before its answer did"),
        }
    }

    /// The upstream told of a failure, and may have repeated its key there. Its own event is queued where events go
    /// out as they came.
    fn failed(&mut self) {
        let endpoint = &self.billing.passage.target().endpoint;
        if let Some(last) = self.feed.queue.back_mut() {
            *last = endpoint.without_keys(std::mem::take(last));
        }
        let told = self.feed.failure().map(|told| {
            let told = endpoint.without_keys(Bytes::copy_from_slice(told.as_bytes()));
            format!("the upstream failed: {}", String::from_utf8_lossy(&told))
        });
        let known = "the upstream reported an error inside its stream";
        self.break_off(&told.unwrap_or_else(|| known.to_owned()));
    }

    fn break_off(&mut self, what: &str) {
        if self.state == State::Ended {
            self.state = State::Done;
            return;
        }
        self.billing.interrupt(&self.feed.facts());
        let refusal = refusal::upstream(502, "upstream_interrupted", what.to_owned());
        self.break_with(&refusal);
    }

    /// Queues the error event, behind which the body breaks off.
    fn break_with(&mut self, refusal: &Refusal) {
        let event =
            self.dialect
                .refuse_in_stream(refusal, self.billing.trace.request, self.feed.next());
        self.feed.push_own(event);
        self.state = State::Breaking;
    }

    /// The same where the end of the answer may be among what waits.
    fn break_behind(&mut self, refusal: &Refusal) {
        self.feed.queue.clear();
        self.break_with(refusal);
    }

    /// A panic ends this answer alone, in words of its dialect. Its bill is settled by what is known.
    fn panicked(&mut self) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        panics::caught(self.billing.trace.request);
        match self.state {
            State::Flowing => {}
            // All of it is out, and settled.
            State::Ended | State::Done => {
                self.state = State::Done;
                return Poll::Ready(None);
            }
            // Even while it was told.
            State::Breaking | State::Flushed => {
                self.state = State::Done;
                return Poll::Ready(Some(Err("the gateway failed on this answer".into())));
            }
        }
        self.break_behind(&refusal::panicked());
        let settling = AssertUnwindSafe(|| self.billing.interrupt(&self.feed.facts()));
        if catch_unwind(settling).is_err() {
            panics::caught(self.billing.trace.request);
        }
        let event = self.feed.queue.pop_front().unwrap_or_default();
        Poll::Ready(Some(Ok(Frame::data(event))))
    }

    /// The next piece for the caller.
    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if let Some(piece) = self.feed.queue.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            match self.state {
                State::Flowing | State::Ended => ready!(self.poll_upstream(context)),
                State::Breaking => {
                    // An error right now would throw away the event that is still in the
                    // connection's buffer, and with some clients the one that was read as well.
                    self.state = State::Flushed;
                    self.idle.as_mut().reset(Instant::now() + TO_BE_READ);
                }
                State::Flushed => {
                    ready!(self.idle.as_mut().poll(context));
                    self.state = State::Done;
                    return Poll::Ready(Some(Err("the upstream's answer is incomplete".into())));
                }
                State::Done => return Poll::Ready(None),
            }
        }
    }

    /// The timer is moved only when it fires, not with every frame.
    fn poll_idle(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.cut.load(Ordering::Relaxed) {
            self.break_off("the gateway is shutting down");
            return Poll::Ready(());
        }
        loop {
            ready!(self.idle.as_mut().poll(context));
            let due = self.last + self.idle_after;
            if due <= Instant::now() {
                self.break_off("the upstream's stream stood still");
                return Poll::Ready(());
            }
            self.idle.as_mut().reset(due);
        }
    }
}

impl Body for Stream {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        // Whoever asks serves a whole connection, with other calls behind this one.
        catch_unwind(AssertUnwindSafe(|| this.poll_next(context)))
            .unwrap_or_else(|_| this.panicked())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Settles only what nothing above has settled: the caller left.
        self.billing.disconnect(&self.feed.facts());
    }
}
