//! What calls have shown of a model's health. Passive: no probe is ever billed.

use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

/// Failures in a row after which a model is left alone for a while.
const FAILURES: u32 = 5;
/// How long, in milliseconds.
const EJECTION_MS: i64 = 10_000;
/// The longest that an endpoint's `retry-after` is obeyed, in milliseconds.
const LONGEST_MS: i64 = 60_000;

/// How long what a model has shown counts as its speed, in milliseconds: one that rules keep from calls
/// because it was slow is tried again then.
const LATELY_MS: i64 = 60_000;

/// Health of one model. Readers may see a change late; nothing depends on the order.
#[derive(Debug, Default)]
pub(crate) struct Health {
    failures: AtomicU32,
    closed_until_ms: AtomicI64,
    /// Milliseconds to the first content, over the last calls; 0 before the first.
    first_byte_ms: AtomicU32,
    /// When the last of them had it.
    came_at_ms: AtomicI64,
}

impl Health {
    /// Whether calls should go here.
    pub(crate) fn is_usable(&self, now_ms: i64) -> bool {
        self.closed_until_ms.load(Ordering::Relaxed) <= now_ms
    }

    /// A call was answered.
    pub(crate) fn succeeded(&self) {
        self.failures.store(0, Ordering::Relaxed);
    }

    /// The first content came `first_byte_ms` after the call was sent.
    pub(crate) fn came(&self, first_byte_ms: u32, now_ms: i64) {
        // The last eight calls or so; a call that another overtakes here is no loss.
        let now = match self.first_byte_ms(now_ms) {
            None => first_byte_ms,
            Some(before) => before - before / 8 + first_byte_ms / 8,
        };
        self.first_byte_ms.store(now.max(1), Ordering::Relaxed);
        self.came_at_ms.store(now_ms, Ordering::Relaxed);
    }

    /// How long the first content has taken lately.
    pub(crate) fn first_byte_ms(&self, now_ms: i64) -> Option<u32> {
        let since = now_ms - self.came_at_ms.load(Ordering::Relaxed);
        let known = self.first_byte_ms.load(Ordering::Relaxed);
        (known > 0 && since <= LATELY_MS).then_some(known)
    }

    /// A call failed by the endpoint's fault.
    pub(crate) fn failed(&self, now_ms: i64) {
        let failures = self
            .failures
            .fetch_add(1, Ordering::Relaxed)
            .saturating_add(1);
        if failures >= FAILURES {
            // One more failure after the pause ejects again.
            self.failures.store(FAILURES - 1, Ordering::Relaxed);
            self.closed_until_ms
                .fetch_max(now_ms + EJECTION_MS, Ordering::Relaxed);
        }
    }

    /// The endpoint asks to be left alone for `seconds`.
    pub(crate) fn cool_down(&self, seconds: u64, now_ms: i64) {
        let asked = i64::try_from(seconds)
            .unwrap_or(i64::MAX)
            .saturating_mul(1_000);
        self.closed_until_ms
            .fetch_max(now_ms + asked.min(LONGEST_MS), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_failures_in_a_row_close_a_model_for_a_while() {
        let health = Health::default();
        for _ in 0..4 {
            health.failed(0);
        }
        health.succeeded();
        for _ in 0..4 {
            health.failed(0);
        }
        assert!(health.is_usable(0));
        health.failed(0);
        assert!(!health.is_usable(9_999));
        assert!(health.is_usable(10_000));
        health.failed(10_000);
        assert!(
            !health.is_usable(10_001),
            "one more failure closes it again"
        );
    }

    /// Otherwise one slow answer would keep a model from all calls of a rule for ever.
    #[test]
    fn what_was_slow_a_minute_ago_is_not_held_against_a_model() {
        let health = Health::default();
        assert_eq!(health.first_byte_ms(0), None);
        health.came(8_000, 1_000);
        health.came(800, 2_000);
        assert_eq!(health.first_byte_ms(2_000), Some(7_100));
        assert_eq!(health.first_byte_ms(62_000), Some(7_100));
        assert_eq!(health.first_byte_ms(62_001), None);
        health.came(300, 70_000);
        assert_eq!(health.first_byte_ms(70_000), Some(300));
    }

    #[test]
    fn a_retry_after_is_obeyed_up_to_a_minute() {
        let health = Health::default();
        health.cool_down(2, 0);
        assert!(!health.is_usable(1_999) && health.is_usable(2_000));
        health.cool_down(u64::MAX, 0);
        assert!(health.is_usable(60_000));
    }
}
