//! Who waits for the disk, and when it is asked: one sync at a time, and the next when somebody waits.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Where many wait, syncs begin this far apart, so that those who come meanwhile share one: each costs as
/// much processor time as ten calls' records, and takes about as long.
const PACE: Duration = Duration::from_millis(2);
/// How long those who come to wait are counted, to tell how many they are.
const COUNTED: Duration = Duration::from_millis(16);
/// Of so many in that time (1,500 a second) none waits for another, and syncs follow each other: the
/// processor has the time. Of so many more, syncs are all of [`PACE`] apart.
const FEW: f64 = 24.0;
const MANY: f64 = 48.0;

/// What has reached the disk, and who waits for more.
#[derive(Debug)]
pub(super) struct Syncs {
    synced: AtomicU64,
    /// Nobody asks and all is synced: whoever writes next wakes the thread.
    idle: AtomicBool,
    /// How far apart syncs begin that nobody waits for.
    rest: Duration,
    state: Mutex<State>,
    /// Tells the thread that somebody waits, or that it is to stop.
    work: Condvar,
    /// Tells threads that wait that more is on the disk.
    moved: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Somebody waits for what lies before this.
    wanted: u64,
    waiters: Vec<Waiter>,
    next_ticket: u64,
    began: Option<Instant>,
    crowd: Crowd,
    stopping: bool,
    failed: Option<String>,
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    position: u64,
    waker: Waker,
}

/// How many come to wait.
#[derive(Debug, Default)]
struct Crowd {
    since: Option<Instant>,
    /// How many had come until then, by their tickets.
    before: u64,
    /// How far apart syncs begin.
    apart: Duration,
}

impl Crowd {
    /// How far apart syncs are to begin at `now`, when `tickets` have been given in all.
    fn apart(&mut self, tickets: u64, now: Instant) -> Duration {
        let since = *self.since.get_or_insert(now);
        let counted = now.saturating_duration_since(since);
        if counted >= COUNTED {
            let came = u32::try_from(tickets - self.before).unwrap_or(u32::MAX);
            let each = COUNTED.as_secs_f64() / counted.as_secs_f64();
            let beyond = (f64::from(came) * each - FEW).clamp(0.0, MANY);
            self.apart = PACE.mul_f64(beyond / MANY);
            (self.since, self.before) = (Some(now), tickets);
        }
        self.apart
    }
}

/// What the thread is to do.
pub(super) enum Work {
    Sync,
    Stop,
}

impl Syncs {
    pub(super) fn new(synced: u64, rest: Duration) -> Self {
        Self {
            synced: AtomicU64::new(synced),
            idle: AtomicBool::new(false),
            rest,
            state: Mutex::default(),
            work: Condvar::new(),
            moved: Condvar::new(),
        }
    }

    /// Everything before this is on the disk.
    pub(super) fn synced(&self) -> u64 {
        self.synced.load(Ordering::Acquire)
    }

    /// Notes that something was written: costs a look at a flag while the thread is at work.
    pub(super) fn written(&self) {
        if self.idle.load(Ordering::SeqCst) && self.idle.swap(false, Ordering::SeqCst) {
            let _asleep = self.lock();
            self.work.notify_one();
        }
    }

    /// A future that ends when `position` is on the disk, or never will be.
    pub(super) fn until(&self, position: u64) -> Until<'_> {
        Until {
            syncs: self,
            position,
            ticket: None,
        }
    }

    /// Waits, blocking, until `position` is on the disk; `false` when it never will be.
    pub(super) fn wait(&self, position: u64) -> bool {
        let mut state = self.lock();
        self.want(&mut state, position);
        while self.synced() < position {
            if state.failed.is_some() || state.stopping {
                return false;
            }
            state = self
                .moved
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    fn want(&self, state: &mut State, position: u64) {
        if state.wanted < position {
            // The thread is asleep only while nobody wants more than it has synced.
            if state.wanted <= self.synced() {
                self.idle.store(false, Ordering::SeqCst);
                self.work.notify_one();
            }
            state.wanted = position;
        }
    }

    /// Waits until there is something to sync; `written` tells how far the journal is.
    pub(super) fn next(&self, written: impl Fn() -> u64) -> Work {
        let mut state = self.lock();
        loop {
            let synced = self.synced();
            if written() <= synced {
                if state.stopping {
                    return Work::Stop;
                }
                self.idle.store(true, Ordering::SeqCst);
                if written() <= synced {
                    state = self
                        .work
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner);
                }
                self.idle.store(false, Ordering::SeqCst);
                continue;
            }
            let now = Instant::now();
            let tickets = state.next_ticket;
            let apart = if state.wanted > synced {
                state.crowd.apart(tickets, now)
            } else {
                self.rest
            };
            let due = state.began.map(|began| began + apart);
            match due {
                Some(due) if due > now && !state.stopping => {
                    let (woken, _) = self
                        .work
                        .wait_timeout(state, due - now)
                        .unwrap_or_else(PoisonError::into_inner);
                    state = woken;
                }
                _ => {
                    state.began = Some(now);
                    return Work::Sync;
                }
            }
        }
    }

    /// Notes that everything before `position` is on the disk, and tells who waited.
    pub(super) fn reached(&self, position: u64) {
        self.synced.fetch_max(position, Ordering::AcqRel);
        let mut state = self.lock();
        let (done, waiting) = std::mem::take(&mut state.waiters)
            .into_iter()
            .partition(|waiter| waiter.position <= position);
        state.waiters = waiting;
        drop(state);
        self.moved.notify_all();
        let done: Vec<Waiter> = done;
        for waiter in done {
            waiter.waker.wake();
        }
    }

    /// Notes that nothing more will reach the disk.
    pub(super) fn fail(&self, what: String) {
        let mut state = self.lock();
        state.failed = Some(what);
        let waiters = std::mem::take(&mut state.waiters);
        drop(state);
        self.moved.notify_all();
        for waiter in waiters {
            waiter.waker.wake();
        }
    }

    /// Has the thread sync what is left, and end.
    pub(super) fn stop(&self) {
        self.lock().stopping = true;
        self.work.notify_one();
    }

    /// Lets those go who still wait when the thread has ended.
    pub(super) fn stopped(&self) {
        if self.lock().failed.is_none() {
            self.fail("closed".to_owned());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for the disk.
#[derive(Debug)]
pub(super) struct Until<'a> {
    syncs: &'a Syncs,
    position: u64,
    /// Names this among the waiters, once it is one.
    ticket: Option<u64>,
}

impl Future for Until<'_> {
    /// Why it will never be on the disk.
    type Output = Result<(), String>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.syncs.synced() >= self.position {
            return Poll::Ready(Ok(()));
        }
        let syncs = self.syncs;
        let mut state = syncs.lock();
        // It may have been reached before the lock was.
        if syncs.synced() >= self.position {
            return Poll::Ready(Ok(()));
        }
        if let Some(what) = &state.failed {
            return Poll::Ready(Err(what.clone()));
        }
        let known = self
            .ticket
            .and_then(|ticket| state.waiters.iter_mut().find(|it| it.ticket == ticket));
        if let Some(waiter) = known {
            waiter.waker.clone_from(context.waker());
            return Poll::Pending;
        }
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.waiters.push(Waiter {
            ticket,
            position: self.position,
            waker: context.waker().clone(),
        });
        syncs.want(&mut state, self.position);
        self.ticket = Some(ticket);
        Poll::Pending
    }
}
