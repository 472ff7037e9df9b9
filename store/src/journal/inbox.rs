//! What was written and is not yet in the ledger, in memory: the batcher takes it from here, so that the
//! files are read only at a start, and where it fell behind.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What is kept at most: some ten thousand calls. Beyond it, the files have it.
const MOST: usize = 8 << 20;
/// So much is worth a transaction before its time.
const ENOUGH: usize = 2 << 20;

/// Frames on their way from the journal to the batcher.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    /// Tells the batcher that there is something, enough, or that somebody waits.
    ready: Condvar,
}

#[derive(Debug, Default)]
struct State {
    frames: Vec<u8>,
    /// Where they begin, while somebody takes them; `None` where they are to be read from the files.
    start: Option<u64>,
    /// Somebody waits for what is here, or the batcher is to stop.
    urged: bool,
    /// The batcher sleeps until something comes.
    idle: bool,
}

/// What the batcher was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Frames from this position on.
    From(u64),
    /// Nothing has come.
    Nothing,
    /// The files have it.
    Missed,
}

impl Inbox {
    /// Takes in what was written at `position`.
    pub(super) fn put(&self, frames: &[u8], position: u64) {
        let mut state = self.lock();
        let Some(start) = state.start else { return };
        let expected = start + super::segment::count(state.frames.len());
        if state.frames.len() + frames.len() > MOST || position != expected {
            state.start = None;
            state.frames = Vec::new();
            self.ready.notify_one();
            return;
        }
        let had = state.frames.len();
        state.frames.extend_from_slice(frames);
        let enough = had < ENOUGH && state.frames.len() >= ENOUGH;
        if enough || std::mem::take(&mut state.idle) {
            self.ready.notify_one();
        }
    }

    /// Takes in everything from `position` on.
    pub(super) fn resume(&self, position: u64) {
        let mut state = self.lock();
        state.frames.clear();
        state.start = Some(position);
    }

    /// Swaps what has come into `frames`, once it has been gathered for `linger`, is enough, or somebody
    /// waits for it. What was in `frames` is gone.
    pub(super) fn take(&self, frames: &mut Vec<u8>, linger: Duration) -> Taken {
        frames.clear();
        let mut state = self.lock();
        let mut until = None;
        loop {
            if state.start.is_none() {
                return Taken::Missed;
            }
            if state.urged || state.frames.len() >= ENOUGH {
                break;
            }
            let now = Instant::now();
            if state.frames.is_empty() {
                state.idle = true;
                state = self
                    .ready
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                state.idle = false;
                continue;
            }
            let until = *until.get_or_insert(now + linger);
            if now >= until {
                break;
            }
            let (woken, _) = self
                .ready
                .wait_timeout(state, until - now)
                .unwrap_or_else(PoisonError::into_inner);
            state = woken;
        }
        state.urged = false;
        let Some(start) = state.start else {
            return Taken::Missed;
        };
        if state.frames.is_empty() {
            return Taken::Nothing;
        }
        std::mem::swap(&mut state.frames, frames);
        state.start = Some(start + super::segment::count(frames.len()));
        Taken::From(start)
    }

    /// Has the batcher take what there is at once.
    pub(super) fn urge(&self) {
        self.lock().urged = true;
        self.ready.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
