//! The wall clock, read in one place. Where nodes share a ledger, the ledger's clock is everybody's:
//! windows, prices and leases must not depend on whose clock is wrong.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::machine;

/// What the ledger's clock is ahead of this machine's, in milliseconds.
static AHEAD_MS: AtomicI64 = AtomicI64::new(0);

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    machine_ms().saturating_add(AHEAD_MS.load(Ordering::Relaxed))
}

/// Milliseconds since this process first asked: for what must not jump when a clock is set.
pub(crate) fn uptime_ms() -> i64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    if let Some(machine) = machine::played() {
        return (machine.now_ms)();
    }
    i64::try_from(START.elapsed().as_millis()).unwrap_or(i64::MAX)
}

/// Takes over a clock that was asked when this machine's read `asked_ms`, and has answered `read_ms` by now.
pub(crate) fn follow(read_ms: i64, asked_ms: i64) {
    let ahead = ahead_by(ahead_ms(), read_ms, (asked_ms, machine_ms()));
    AHEAD_MS.store(ahead, Ordering::Relaxed);
}

/// What a clock is ahead, `known_ms` until now, that read `read_ms` at some moment between two of this machine's:
/// what was known, as far as that can be. A process that was frozen while it asked thaws with an old
/// answer, and must not take it for the present.
fn ahead_by(known_ms: i64, read_ms: i64, (asked_ms, answered_ms): (i64, i64)) -> i64 {
    let asked = read_ms.saturating_sub(asked_ms);
    let answered = read_ms.saturating_sub(answered_ms);
    known_ms.max(asked.min(answered)).min(asked.max(answered))
}

/// What the clock that is followed is ahead of this machine's, in milliseconds.
pub(crate) fn ahead_ms() -> i64 {
    AHEAD_MS.load(Ordering::Relaxed)
}

/// What this machine's own clock reads, in milliseconds since 1970.
pub(crate) fn machine_ms() -> i64 {
    if let Some(machine) = machine::played() {
        return (machine.now_ms)();
    }
    i64::try_from(since_1970().as_millis()).unwrap_or(i64::MAX)
}

/// Nanoseconds since 1970 by this machine's clock: for what is drawn beside what other machines have seen.
pub(crate) fn unix_ns() -> u64 {
    u64::try_from(since_1970().as_nanos()).unwrap_or(u64::MAX)
}

fn since_1970() -> Duration {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_lay_about_while_the_process_was_frozen_does_not_set_the_clock_back() {
        assert_eq!(ahead_by(0, 10_001, (10_000, 15_000)), 0);
        assert_eq!(ahead_by(300, 10_301, (10_000, 15_000)), 300);
        // A quick answer says how it is, to its own length.
        assert_eq!(ahead_by(0, 10_500, (10_000, 10_002)), 498);
        assert_eq!(ahead_by(900, 10_500, (10_000, 10_002)), 500);
        // This machine's clock was set back meanwhile.
        assert_eq!(ahead_by(0, 10_000, (10_000, 4_000)), 0);
        assert_eq!(ahead_by(0, 10_000, (4_000, 4_001)), 5_999);
    }
}
