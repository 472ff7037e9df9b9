//! Those who wait for a place: the most urgent first, among them whoever's tenant has least for its weight,
//! and of one tenant the oldest, or the newest once the oldest has waited for long.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{Flight, Priority, Share};

/// Who has waited so long is likely to leave before its turn: from then on the newest go first, and are
/// served well, where otherwise all would be served badly.
const LONG: Duration = Duration::from_millis(100);
/// Where a tenant's calls have waited for long without a pause, more of them than can be served come: they are
/// told so soon, and do not wait as one would in a burst that ends.
const CROWDED: Duration = Duration::from_millis(20);

/// The line.
#[derive(Debug, Default)]
pub(super) struct Line {
    state: Mutex<State>,
    /// How many wait, by rank, for a look without the lock.
    lengths: [AtomicUsize; Priority::ALL.len()],
}

#[derive(Debug, Default)]
struct State {
    ranks: [BTreeMap<Arc<str>, Queue>; Priority::ALL.len()],
    next: u64,
}

/// Those of one tenant, the oldest first.
#[derive(Debug)]
struct Queue {
    share: Arc<Share>,
    /// Since when somebody has been in it.
    since: Instant,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    since: Instant,
    place: oneshot::Sender<Flight>,
}

/// A place in the line, given up when it is dropped.
#[derive(Debug)]
pub(super) struct Ticket<'a> {
    line: &'a Line,
    tenant: Arc<str>,
    priority: Priority,
    number: u64,
    patience: Duration,
    place: oneshot::Receiver<Flight>,
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn length(&self, rank: usize) -> usize {
        let length = self.lengths.get(rank);
        length.map_or(0, |length| length.load(Ordering::SeqCst))
    }

    fn shorten(&self, rank: usize) {
        if let Some(length) = self.lengths.get(rank) {
            length.fetch_sub(1, Ordering::SeqCst);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        (0..Priority::ALL.len()).all(|rank| self.length(rank) == 0)
    }

    /// Whether anybody waits who is as urgent as `priority`.
    pub(super) fn is_ahead_of(&self, priority: Priority) -> bool {
        (0..=priority.rank()).any(|rank| self.length(rank) > 0)
    }

    /// Stands in line for a place, for `patience` at the longest, where at most `most` wait; `None` where
    /// nobody else gives way. Whoever does gets no place.
    pub(super) fn join(
        &self,
        share: &Arc<Share>,
        priority: Priority,
        (most, patience): (usize, Duration),
    ) -> Option<Ticket<'_>> {
        let rank = priority.rank();
        let mut state = self.lock();
        let all: usize = (0..Priority::ALL.len()).map(|rank| self.length(rank)).sum();
        if all >= most {
            let from = state.gives_way(share, rank)?;
            self.shorten(from);
        }
        let (to, place) = oneshot::channel();
        let number = state.next;
        state.next += 1;
        let now = Instant::now();
        let queues = state.ranks.get_mut(rank)?;
        let queue = queues.entry(Arc::clone(&share.tenant));
        let queue = queue.or_insert_with(|| Queue {
            share: Arc::clone(share),
            since: now,
            waiting: VecDeque::new(),
        });
        let patience = if now - queue.since > LONG {
            patience.min(CROWDED)
        } else {
            patience
        };
        queue.waiting.push_back(Waiting {
            number,
            since: now,
            place: to,
        });
        self.lengths.get(rank)?.fetch_add(1, Ordering::SeqCst);
        Some(Ticket {
            line: self,
            tenant: Arc::clone(&share.tenant),
            priority,
            number,
            patience,
            place,
        })
    }

    /// Gives places to those who wait, as long as `take` finds some.
    pub(super) fn call_in(&self, take: impl Fn(&Arc<Share>, Priority) -> Option<Flight>) {
        let mut given = Vec::new();
        let mut state = self.lock();
        let State { ranks, next } = &mut *state;
        for priority in Priority::ALL {
            let rank = priority.rank();
            while self.length(rank) > 0 {
                let Some(queues) = ranks.get_mut(rank) else {
                    break;
                };
                let least = queues.values_mut().min_by_key(|it| it.share.load());
                let Some(queue) = least else { break };
                let Some(flight) = take(&queue.share, priority) else {
                    break;
                };
                *next += 1;
                queue.share.turn.store(*next, Ordering::Relaxed);
                let is_late = queue
                    .waiting
                    .front()
                    .is_some_and(|it| it.since.elapsed() > LONG);
                let waiting = if is_late {
                    queue.waiting.pop_back()
                } else {
                    queue.waiting.pop_front()
                };
                if queue.waiting.is_empty() {
                    let tenant = Arc::clone(&queue.share.tenant);
                    queues.remove(&tenant);
                }
                self.shorten(rank);
                given.push((waiting, flight));
            }
        }
        drop(state);
        for (waiting, flight) in given {
            if let Some(waiting) = waiting {
                // Who has left meanwhile gives the place back by dropping it.
                let _left = waiting.place.send(flight);
            }
        }
    }
}

impl State {
    /// Sends the newest away of those who should wait least: less urgent than `rank`, or of a tenant that
    /// waits more than `share`'s. Tells the rank that it stood in.
    fn gives_way(&mut self, share: &Share, rank: usize) -> Option<usize> {
        let last = self.ranks.iter().rposition(|queues| !queues.is_empty())?;
        let queues = self.ranks.get_mut(last)?;
        let own = queues.get(&share.tenant).map_or(0, Queue::load);
        let longest = queues.values_mut().max_by_key(|it| it.load())?;
        if last < rank || (last == rank && longest.load() <= own.saturating_add(1 << 20)) {
            return None;
        }
        longest.waiting.pop_back();
        if longest.waiting.is_empty() {
            let tenant = Arc::clone(&longest.share.tenant);
            queues.remove(&tenant);
        }
        Some(last)
    }
}

impl Queue {
    /// How many wait, for one of the tenant's weight.
    fn load(&self) -> u64 {
        let waiting = u64::try_from(self.waiting.len()).unwrap_or(u64::MAX);
        waiting.saturating_mul(1 << 20) / u64::from(self.share.weight)
    }
}

impl Ticket<'_> {
    /// Waits for the place; `None` where none came in time, or this one had to give way.
    pub(super) async fn place(mut self) -> Option<Flight> {
        timeout(self.patience, &mut self.place).await.ok()?.ok()
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let rank = self.priority.rank();
        let mut state = self.line.lock();
        let Some(queues) = state.ranks.get_mut(rank) else {
            return;
        };
        let Some(queue) = queues.get_mut(&self.tenant) else {
            return;
        };
        // The oldest give up first, so this one is near the front.
        let at = queue.waiting.iter().position(|it| it.number == self.number);
        let Some(at) = at else { return };
        let gone = queue.waiting.remove(at);
        if queue.waiting.is_empty() {
            queues.remove(&self.tenant);
        }
        self.line.shorten(rank);
        drop(state);
        drop(gone);
    }
}
