//! Care for upstreams: which of them are well, which rest, how long, and how often a call may go on to the
//! next. What is kept here is what calls have shown; no probe is ever billed.

mod balance;
mod breaker;
mod group;
mod health;
mod limit;
mod passage;
mod pause;
mod retries;

pub(crate) use balance::{Lean, seed};
pub(crate) use group::Group;
pub(crate) use health::Health;
pub(crate) use limit::Limit;
pub(crate) use passage::{Passage, Shut, Standing};
pub(crate) use pause::{asked_ms, used_up_ms};

use std::sync::atomic::{AtomicU64, Ordering};

use crate::machine;

/// The longest that an endpoint's own word on a pause is obeyed, in milliseconds.
pub(crate) const LONGEST_PAUSE_MS: u64 = 60_000;

/// Bits that differ from those before, for jitter: nobody gains by guessing them.
pub(crate) fn luck() -> u64 {
    static STATE: AtomicU64 = AtomicU64::new(0x243f_6a88_85a3_08d3);
    if let Some(machine) = machine::played() {
        return (machine.luck)();
    }
    mixed(STATE.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed))
}

/// Spreads the bits of a number over all of it.
pub(crate) fn mixed(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
