//! The wall clock, read in one place. Where nodes share a ledger, the ledger's clock is everybody's:
//! windows, prices and leases must not depend on whose clock is wrong.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// What the ledger's clock is ahead of this machine's, in milliseconds.
static AHEAD_MS: AtomicI64 = AtomicI64::new(0);

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    machine_ms().saturating_add(AHEAD_MS.load(Ordering::Relaxed))
}

/// Takes over a clock that reads `now_ms` at this moment.
pub(crate) fn follow(now_ms: i64) {
    AHEAD_MS.store(now_ms.saturating_sub(machine_ms()), Ordering::Relaxed);
}

/// What the clock that is followed is ahead of this machine's, in milliseconds.
pub(crate) fn ahead_ms() -> i64 {
    AHEAD_MS.load(Ordering::Relaxed)
}

fn machine_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
