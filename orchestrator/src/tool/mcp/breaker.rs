//! When a server may be tried again: pauses between starts, and a longer one after failures in a row.

use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row after which nothing is tried for a while.
const LIMIT: u32 = 5;
/// For how long.
const OPEN: Duration = Duration::from_secs(30);
/// The pause before the second start; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// What is known of a server's failures. Starts and calls are counted apart: a server that starts well
/// and dies in each call has failed all the same.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    starts: u32,
    calls: u32,
    open_until: Option<Instant>,
    start_after: Option<Instant>,
}

impl Breaker {
    /// How long nothing is to be tried; `None` where it may be.
    pub(super) fn refuses(&self, now: Instant) -> Option<Duration> {
        let left = self.open_until?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// How long to wait before a start.
    pub(super) fn pause(&self, now: Instant) -> Duration {
        self.start_after
            .map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
    }

    pub(super) fn started(&mut self) {
        self.starts = 0;
    }

    pub(super) fn start_failed(&mut self, now: Instant) {
        self.starts = self.starts.saturating_add(1);
        self.failed(now, self.starts);
    }

    pub(super) fn answered(&mut self) {
        self.calls = 0;
        self.start_after = None;
    }

    pub(super) fn call_failed(&mut self, now: Instant) {
        self.calls = self.calls.saturating_add(1);
        self.failed(now, self.calls);
    }

    fn failed(&mut self, now: Instant, in_a_row: u32) {
        // The first one may be tried again at once.
        let doublings = in_a_row.saturating_sub(2).min(16);
        self.start_after = (in_a_row > 1)
            .then(|| now.checked_add(FIRST_PAUSE.saturating_mul(1 << doublings).min(OPEN)))
            .flatten();
        if in_a_row >= LIMIT {
            self.open_until = now.checked_add(OPEN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_failures_in_a_row_open_it_for_thirty_seconds() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..4 {
            breaker.call_failed(now);
        }
        breaker.answered();
        for _ in 0..4 {
            breaker.call_failed(now);
            assert_eq!(breaker.refuses(now), None);
        }
        breaker.call_failed(now);
        assert_eq!(breaker.refuses(now), Some(OPEN));
        let later = now + OPEN;
        assert_eq!(breaker.refuses(later), None);
        // One more failure is enough then, one answer clears it.
        breaker.call_failed(later);
        assert_eq!(breaker.refuses(later), Some(OPEN));
        breaker.answered();
        breaker.call_failed(later + OPEN);
        assert_eq!(breaker.refuses(later + OPEN), None);
    }

    #[test]
    fn a_start_does_not_excuse_calls() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..5 {
            breaker.started();
            breaker.call_failed(now);
        }
        assert_eq!(breaker.refuses(now), Some(OPEN));
    }

    #[test]
    fn pauses_between_starts_grow() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        let pauses = [0, 250, 500, 1_000, 2_000].map(Duration::from_millis);
        for pause in pauses {
            breaker.start_failed(now);
            assert_eq!(breaker.pause(now), pause);
        }
        assert_eq!(breaker.pause(now + OPEN), Duration::ZERO);
    }
}
