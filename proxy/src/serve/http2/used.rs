//! How one connection is used, as its limits need to know it: requests, bytes that callers take, resets.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::task::AtomicWaker;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Limits;
use crate::serve::Doors;

/// Streams that a caller may reset before their answer's end within so long, where they are also more than half
/// of the connection's: agents that are stopped leave some dozens, a flood thousands.
const LEFT: usize = 100;
const LEFT_WITHIN: Duration = Duration::from_secs(10);
/// Requests that may come after the last one, since their caller had not heard yet: as many as it may have open.
const LATE: usize = 100;

/// Why a connection is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The gateway ends, or the connection has made as many requests as it may.
    Due,
    /// Nothing is under way, and nothing was for long.
    Idle,
    /// Its caller takes nothing of what waits.
    Stuck,
    /// Its caller resets too much of what it asks for, or does not stop asking.
    Flood,
}

/// How much a connection is used.
#[derive(Debug)]
pub(super) struct Use {
    /// Requests so far, and how many there may be.
    requests: AtomicUsize,
    most: usize,
    /// Of them under way: until all of the answer is taken.
    open: AtomicUsize,
    /// Bytes of answers that the socket took, and those that wait for it.
    taken: AtomicUsize,
    waiting: AtomicUsize,
    left: Mutex<Left>,
    /// As many requests came as may.
    is_full: CancellationToken,
    is_flood: CancellationToken,
    /// The stream whose task begins next.
    newest: Mutex<Option<Arc<Stream>>>,
}

/// Streams that the caller reset before their end: since the connection began, and since when how many.
#[derive(Debug)]
struct Left {
    all: usize,
    since: Instant,
    count: usize,
}

impl Use {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            requests: AtomicUsize::new(0),
            most: limits.requests,
            open: AtomicUsize::new(0),
            taken: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            left: Mutex::new(Left {
                all: 0,
                since: Instant::now(),
                count: 0,
            }),
            is_full: CancellationToken::new(),
            is_flood: CancellationToken::new(),
            newest: Mutex::new(None),
        }
    }

    /// Ends once the connection is to end, and says why.
    pub(super) async fn end(&self, limits: &Limits, doors: &Doors) -> End {
        tokio::select! {
            () = self.ending(doors) => End::Due,
            () = self.is_full.cancelled() => End::Due,
            () = self.idle(limits) => End::Idle,
            () = self.stuck(limits) => End::Stuck,
            () = self.is_flood.cancelled() => End::Flood,
        }
    }

    /// Ends once a connection that was told to end is not to be waited for any longer, and says why.
    pub(super) async fn farewell(&self, end: End, limits: &Limits) -> End {
        match end {
            End::Stuck => tokio::time::sleep(super::FAREWELL).await,
            // What it sends meanwhile is served as well.
            End::Flood => tokio::time::sleep(super::FAREWELL / 10).await,
            End::Due | End::Idle => {
                return tokio::select! {
                    () = self.gone(), if end == End::Idle => End::Idle,
                    () = self.stuck(limits) => End::Stuck,
                    () = self.is_flood.cancelled() => End::Flood,
                };
            }
        }
        end
    }

    /// Ends once a connection has been idle for as long as it may.
    async fn idle(&self, limits: &Limits) {
        let mut patience = Duration::from_millis(limits.head_timeout_ms);
        let mut before = (0, 0);
        loop {
            tokio::time::sleep(patience).await;
            let now = self.so_far();
            if self.open.load(Ordering::Relaxed) == 0 && now == before {
                return;
            }
            before = now;
            patience = Duration::from_millis(limits.idle_timeout_ms);
        }
    }

    /// Requests, and bytes of answers that were taken.
    fn so_far(&self) -> (usize, usize) {
        let so_far = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        (so_far(&self.requests), so_far(&self.taken))
    }

    /// Ends where an idle connection stays idle: whoever does not answer the farewell is not waited for.
    async fn gone(&self) {
        let mut before = (usize::MAX, 0);
        loop {
            tokio::time::sleep(super::FAREWELL).await;
            let now = self.so_far();
            if now == before && self.open.load(Ordering::Relaxed) == 0 {
                return;
            }
            before = now;
        }
    }

    /// Ends once the gateway is about to end, and a request has come: before, the library would close the
    /// connection on whoever has just opened it.
    async fn ending(&self, doors: &Doors) {
        doors.draining().await;
        while self.requests.load(Ordering::Relaxed) == 0 && !doors.closed.is_cancelled() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends once answers wait, and nothing was taken of any for longer than writing may take: streams that are
    /// not read end first, so that it is the socket that takes nothing.
    async fn stuck(&self, limits: &Limits) {
        let patience = Duration::from_millis(limits.write_timeout_ms);
        still(patience, 3, &self.waiting, &self.taken).await;
    }

    /// The stream that has just begun, for its task.
    pub(super) fn newest(&self) -> Option<Arc<Stream>> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.take()
    }

    /// Notes that a stream was reset by its caller.
    fn leave(&self) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if left.since.elapsed() > LEFT_WITHIN {
            left.since = Instant::now();
            left.count = 0;
        }
        left.count += 1;
        left.all += 1;
        if left.count > LEFT && left.all > self.requests.load(Ordering::Relaxed) / 2 {
            self.is_flood.cancel();
        }
    }
}

/// Ends once something waits and nothing was taken for `patience`, looked at every half of it: it must be found
/// unchanged so many `times`.
async fn still(patience: Duration, times: u32, waiting: &AtomicUsize, taken: &AtomicUsize) {
    let mut before = (None, 0);
    loop {
        tokio::time::sleep(patience / 2).await;
        let waits = waiting.load(Ordering::Relaxed) > 0;
        let now = waits.then(|| taken.load(Ordering::Relaxed));
        let unchanged = if waits && now == before.0 {
            before.1 + 1
        } else {
            0
        };
        if unchanged >= times {
            return;
        }
        before = (now, unchanged);
    }
}

/// One request of a connection and its answer. It is there until the last byte of that is taken or given up.
#[derive(Debug)]
pub(super) struct Stream {
    of: Arc<Use>,
    /// Bytes of its answer that the socket took, and those that wait for it.
    taken: AtomicUsize,
    waiting: AtomicUsize,
    /// The answer came to an end, so that a reset is none of the caller's.
    is_ended: AtomicBool,
    /// Whoever waits until all is taken.
    reader: AtomicWaker,
}

impl Stream {
    /// Begins the next stream; its task finds it by [`Use::newest`].
    pub(super) fn begin(of: &Arc<Use>) -> Arc<Self> {
        let requests = of.requests.fetch_add(1, Ordering::Relaxed) + 1;
        of.open.fetch_add(1, Ordering::Relaxed);
        if requests >= of.most {
            of.is_full.cancel();
        }
        if requests >= of.most.saturating_add(LATE) {
            of.is_flood.cancel();
        }
        let stream = Arc::new(Self {
            of: Arc::clone(of),
            taken: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            is_ended: AtomicBool::new(false),
            reader: AtomicWaker::new(),
        });
        let mut newest = of.newest.lock().unwrap_or_else(PoisonError::into_inner);
        *newest = Some(Arc::clone(&stream));
        stream
    }

    /// Ends once the answer waits, and nothing of it was taken for `patience`.
    pub(super) async fn stalled(&self, patience: Duration) {
        still(patience, 2, &self.waiting, &self.taken).await;
    }

    /// The answer came to its end, well or not.
    pub(super) fn ended(&self) {
        self.is_ended.store(true, Ordering::Relaxed);
    }

    /// Its task has ended; before the answer did only where the caller wanted it to.
    pub(super) fn over(&self) {
        if !self.is_ended.load(Ordering::Relaxed) {
            self.of.leave();
        }
    }

    /// Waits until all that was given is taken.
    pub(super) fn poll_taken(&self, context: &Context<'_>) -> Poll<()> {
        self.reader.register(context.waker());
        if self.waiting.load(Ordering::Acquire) == 0 {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Bytes of the answer, which wait from now on.
    pub(super) fn piece(self: &Arc<Self>, bytes: Bytes) -> Piece {
        self.waiting.fetch_add(bytes.len(), Ordering::Relaxed);
        self.of.waiting.fetch_add(bytes.len(), Ordering::Relaxed);
        Piece {
            bytes,
            stream: Arc::clone(self),
        }
    }

    /// So many bytes do not wait any longer.
    fn done(&self, count: usize) {
        self.of.waiting.fetch_sub(count, Ordering::Relaxed);
        if self.waiting.fetch_sub(count, Ordering::AcqRel) == count {
            self.reader.wake();
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.of.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes of an answer. The library holds them until the socket takes them or the stream is reset.
#[derive(Debug)]
pub(super) struct Piece {
    bytes: Bytes,
    stream: Arc<Stream>,
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.stream.taken.fetch_add(count, Ordering::Relaxed);
        self.stream.of.taken.fetch_add(count, Ordering::Relaxed);
        self.stream.done(count);
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if !self.bytes.is_empty() {
            self.stream.done(self.bytes.len());
        }
    }
}
