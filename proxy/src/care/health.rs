//! What calls have shown of one model at one endpoint: whether it is well, and how quick it is.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::breaker::{Breaker, Entry, Failure, Rules};

/// How long what a model has shown counts as its speed, in milliseconds: one that rules keep from calls
/// because it was slow is tried again then.
const LATELY_MS: i64 = 60_000;
/// Times that are remembered of each kind of call.
const REMEMBERED: usize = 64;
/// Times below which nothing is said of their spread.
const TELLING: usize = 8;

/// Health of one model at one endpoint. Times are those of [`crate::clock::uptime_ms`].
#[derive(Debug, Default)]
pub(crate) struct Health {
    breaker: Mutex<Breaker>,
    /// Calls are not let through as any: what everybody may read without the lock.
    is_out: AtomicBool,
    /// Calls under way.
    pub(super) under_way: AtomicU32,
    /// Milliseconds to the first content, over the last calls; 0 before the first.
    first_byte_ms: AtomicU32,
    /// When the last of them had it.
    came_at_ms: AtomicI64,
    /// The same one by one, for streams and for answers that come whole.
    pub(crate) streams: Speeds,
    pub(crate) wholes: Speeds,
}

impl Health {
    /// Whether a call would be let through.
    pub(crate) fn is_usable(&self, now_ms: i64) -> bool {
        !self.is_out() || self.lock().is_usable(now_ms)
    }

    /// Whether it is left alone, or only tried.
    pub(crate) fn is_out(&self) -> bool {
        self.is_out.load(Ordering::Relaxed)
    }

    /// When its rest is over.
    pub(crate) fn until_ms(&self) -> i64 {
        if self.is_out() {
            self.lock().until_ms()
        } else {
            0
        }
    }

    /// Calls under way.
    pub(crate) fn under_way(&self) -> u32 {
        self.under_way.load(Ordering::Relaxed)
    }

    /// Lets a call through, if any.
    pub(super) fn enter(&self, now_ms: i64) -> Option<Entry> {
        if self.is_out() {
            self.lock().enter(now_ms)
        } else {
            Some(Entry::Through)
        }
    }

    /// A call has ended well.
    pub(super) fn succeeded(&self, entry: Entry, now_ms: i64, rules: &Rules) {
        let mut breaker = self.lock();
        breaker.succeeded(entry, now_ms, rules);
        self.is_out.store(!breaker.is_closed(), Ordering::Relaxed);
    }

    /// A call was answered, if only by saying what is wrong with it.
    pub(super) fn answered(&self, entry: Entry, now_ms: i64, rules: &Rules) {
        let mut breaker = self.lock();
        breaker.answered(entry, now_ms, rules);
        self.is_out.store(!breaker.is_closed(), Ordering::Relaxed);
    }

    /// A call has failed; says whether that is one too many.
    pub(super) fn failed(&self, entry: Entry, now_ms: i64, luck: u64, rules: &Rules) -> bool {
        self.lock().failed(entry, now_ms, luck, rules) == Failure::Trips
    }

    /// Leaves it alone; `false` if it is already.
    pub(super) fn open(&self, now_ms: i64, luck: u64, rules: &Rules) -> bool {
        let mut breaker = self.lock();
        let opened = breaker.open(now_ms, luck, rules);
        self.is_out.store(!breaker.is_closed(), Ordering::Relaxed);
        opened
    }

    /// A call has ended without showing anything.
    pub(super) fn left(&self, entry: Entry) {
        if entry != Entry::Through {
            self.lock().left(entry);
        }
    }

    /// The first content came `first_byte_ms` after the call was sent.
    pub(crate) fn came(&self, first_byte_ms: u32, is_stream: bool, now_ms: i64) {
        // The last eight calls or so; a call that another overtakes here is no loss.
        let now = match self.first_byte_ms(now_ms) {
            None => first_byte_ms,
            Some(before) => before - before / 8 + first_byte_ms / 8,
        };
        self.first_byte_ms.store(now.max(1), Ordering::Relaxed);
        self.came_at_ms.store(now_ms, Ordering::Relaxed);
        self.speeds(is_stream).add(first_byte_ms);
    }

    /// How long the first content has taken lately.
    pub(crate) fn first_byte_ms(&self, now_ms: i64) -> Option<u32> {
        let since = now_ms - self.came_at_ms.load(Ordering::Relaxed);
        let known = self.first_byte_ms.load(Ordering::Relaxed);
        (known > 0 && since <= LATELY_MS).then_some(known)
    }

    /// What streams, or answers that come whole, took to their first content.
    pub(crate) fn speeds(&self, is_stream: bool) -> &Speeds {
        if is_stream {
            &self.streams
        } else {
            &self.wholes
        }
    }

    fn lock(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last times of calls, in milliseconds.
#[derive(Debug)]
pub(crate) struct Speeds {
    times: [AtomicU32; REMEMBERED],
    count: AtomicU32,
}

impl Default for Speeds {
    fn default() -> Self {
        Self {
            times: [const { AtomicU32::new(0) }; REMEMBERED],
            count: AtomicU32::new(0),
        }
    }
}

impl Speeds {
    fn add(&self, ms: u32) {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let place = usize::try_from(count).unwrap_or(0) % REMEMBERED;
        if let Some(slot) = self.times.get(place) {
            slot.store(ms, Ordering::Relaxed);
        }
    }

    /// The time that so many percent of the last calls did not pass; `None` after few calls.
    pub(crate) fn percentile(&self, percent: usize) -> Option<u32> {
        let count = usize::try_from(self.count.load(Ordering::Relaxed)).ok()?;
        let count = count.min(REMEMBERED);
        if count < TELLING {
            return None;
        }
        let mut times = [0; REMEMBERED];
        for (time, slot) in times.iter_mut().zip(&self.times) {
            *time = slot.load(Ordering::Relaxed);
        }
        let known = times.get_mut(..count)?;
        known.sort_unstable();
        let rank = (count * percent).div_ceil(100).clamp(1, count);
        known.get(rank - 1).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise one slow answer would keep a model from all calls of a rule for ever.
    #[test]
    fn what_was_slow_a_minute_ago_is_not_held_against_a_model() {
        let health = Health::default();
        assert_eq!(health.first_byte_ms(0), None);
        health.came(8_000, true, 1_000);
        health.came(800, true, 2_000);
        assert_eq!(health.first_byte_ms(2_000), Some(7_100));
        assert_eq!(health.first_byte_ms(62_000), Some(7_100));
        assert_eq!(health.first_byte_ms(62_001), None);
        health.came(300, true, 70_000);
        assert_eq!(health.first_byte_ms(70_000), Some(300));
    }

    #[test]
    fn percentiles_are_those_of_the_last_calls_and_of_none_after_few() {
        let speeds = Speeds::default();
        for ms in 1..8 {
            speeds.add(ms);
        }
        assert_eq!(speeds.percentile(50), None);
        for ms in 8..=20 {
            speeds.add(ms);
        }
        assert_eq!(speeds.percentile(50), Some(10));
        assert_eq!(speeds.percentile(95), Some(19));
        for _ in 0..64 {
            speeds.add(7);
        }
        assert_eq!(speeds.percentile(95), Some(7), "older ones are forgotten");
    }
}
