//! Slices: how many nodes share a budget without a round trip for each call. A node has a part of
//! each window granted to it, spends from it alone, and asks for more or gives back in rounds. What
//! all nodes are granted never exceeds the limit, so what they spend does not either.
//!
//! A slice is what a node would spend in [`AHEAD_S`] seconds at its present rate, at most a twentieth
//! of the limit and at most an even share of half of what is left; near the limit this is the single
//! call that waits. A node that dies keeps what it was granted, until it comes back and its journal
//! tells what it spent, or until it is retired by a person.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::budget::Budget;
use crate::hold::Meter;

/// Seconds of spending that a node has ahead.
const AHEAD_S: i64 = 10;
/// A slice's part of the limit at most: one in so many.
const PARTS: i64 = 20;
/// After so long without a round, slices are not spent from: the node may have been retired.
pub const LEASE_MS: i64 = 600_000;
/// A node stops so much earlier than others take it for dead, whatever its clock says.
pub const MARGIN_MS: i64 = 60_000;
/// How long what a call needs is asked for after it last said so.
const NEED_MS: i64 = 500;
/// After so long without a round the ledger counts as out of reach.
const FRESH_MS: i64 = 3_000;

/// What a node asks for in a round, for one budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// The budget's id.
    pub budget: Arc<str>,
    pub tenant: Arc<str>,
    /// The bucket that is spent from.
    pub start_ms: i64,
    /// Where the window begins that counts against the limit.
    pub from_ms: i64,
    /// All that may be spent in the window.
    pub limit: i64,
    /// What the node can not give back: taken, or free for calls while the round is under way.
    pub floor: i64,
    /// What it would like to have granted in all.
    pub wish: i64,
    /// What a call that waits needs granted in all; the floor where none waits.
    pub need: i64,
}

/// One node's part of one bucket, as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    pub start_ms: i64,
    pub node: Arc<str>,
    pub granted: i64,
    pub settled: i64,
}

/// The answer to a [`Want`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub budget: Arc<str>,
    pub start_ms: i64,
    pub granted: i64,
    /// What others were granted or have spent in the window.
    pub others: i64,
    /// What all nodes have settled in the window.
    pub settled: i64,
    /// Another node waits for some of it.
    pub others_wait: bool,
}

/// The answers of one round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leased {
    /// The ledger's own clock, in milliseconds since 1970; `None` where it has none.
    pub now_ms: Option<i64>,
    pub grants: Vec<Grant>,
}

/// What `node` is granted, given all `slices` of the window. Never less than its floor or what it was
/// granted before, whichever is smaller; never so much that all slices together pass the limit.
pub fn decide(want: &Want, node: &str, slices: &[Slice], others_wait: bool, nodes: i64) -> Grant {
    let (mut others, mut settled, mut own, mut elsewhere) = (0_i64, 0_i64, 0_i64, 0_i64);
    for slice in slices {
        settled = settled.saturating_add(slice.settled);
        let taken = slice.granted.max(slice.settled);
        if *slice.node != *node {
            others = others.saturating_add(taken);
        } else if slice.start_ms == want.start_ms {
            own = slice.granted;
        } else {
            elsewhere = elsewhere.saturating_add(taken);
        }
    }
    let room = want
        .limit
        .saturating_sub(others)
        .saturating_sub(elsewhere)
        .max(0);
    let free = room.saturating_sub(want.floor).max(0);
    // An even share of half of what is left: the rest is for whoever asks next.
    let share = free
        .checked_div(nodes.max(1).saturating_mul(2))
        .unwrap_or(free);
    let generous = if others_wait { 0 } else { share };
    let ahead = want.wish.saturating_sub(want.floor).clamp(0, generous);
    let mut target = want.floor.saturating_add(ahead);
    if want.need <= room {
        target = target.max(want.need);
    }
    let least = own.min(want.floor);
    Grant {
        budget: Arc::clone(&want.budget),
        start_ms: want.start_ms,
        granted: target.min(room).max(least),
        others,
        settled,
        others_wait,
    }
}

impl Meter {
    /// Whether slices may be spent from at `now_ms`.
    pub(crate) fn lease_is_valid(&self, now_ms: i64) -> bool {
        let since = now_ms.saturating_sub(self.leased_at_ms.load(Ordering::Acquire));
        since < LEASE_MS.saturating_sub(MARGIN_MS)
    }

    /// Whether the ledger has answered lately.
    pub(crate) fn lease_is_fresh(&self, now_ms: i64) -> bool {
        now_ms.saturating_sub(self.leased_at_ms.load(Ordering::Acquire)) < FRESH_MS
    }

    /// What this node asks for now. From here until [`Meter::took`], it spends no more than it says
    /// in each floor. `elapsed_ms` is the time since the last round.
    pub fn wants(&self, now_ms: i64, elapsed_ms: i64) -> Vec<Want> {
        let mut wants = Vec::new();
        for account in &self.accounts {
            let mut books = account.value().lock();
            let ceilings: Vec<(Arc<str>, i64)> = books
                .budgets
                .values()
                .filter(|it| it.hard)
                .map(|it| (Arc::clone(&it.id), books.ceiling(it, now_ms)))
                .collect();
            for (id, ceiling) in ceilings {
                if let Some(budget) = books.budgets.get_mut(&id) {
                    wants.extend(want(budget, ceiling, now_ms, elapsed_ms));
                }
            }
        }
        wants
    }

    /// Takes what a round granted. `began_ms` is when the round began, on this node's clock.
    pub fn took(&self, grants: &[Grant], began_ms: i64) {
        for account in &self.accounts {
            let mut books = account.value().lock();
            for grant in grants {
                let Some(budget) = books.budgets.get_mut(&grant.budget) else {
                    continue;
                };
                budget.lease.settled = grant.settled;
                budget.lease.others_wait = grant.others_wait;
                for bucket in &mut budget.buckets {
                    bucket.others = 0;
                    if bucket.start_ms == grant.start_ms {
                        bucket.granted = grant.granted;
                    }
                }
                if let Some(last) = budget.buckets.back_mut() {
                    last.others = grant.others;
                }
            }
            drop(books);
            account.value().wake();
        }
        self.leased_at_ms.fetch_max(began_ms, Ordering::AcqRel);
    }

    /// Waits until a call needs a slice.
    pub async fn hunger(&self) {
        self.hungry.notified().await;
    }

    /// Whether this node shares its budgets with others.
    pub fn is_shared(&self) -> bool {
        self.leased
    }
}

/// What is asked for of one budget: for the bucket that is spent from, and, where a rolling window has
/// moved on, what was left of buckets before it.
fn want(budget: &mut Budget, ceiling: i64, now_ms: i64, elapsed_ms: i64) -> Vec<Want> {
    budget.roll(now_ms);
    let lease = &mut budget.lease;
    let rate = lease
        .since
        .saturating_mul(1_000)
        .checked_div(elapsed_ms.max(1))
        .unwrap_or(0);
    // Rises at once, sinks by an eighth a round: a burst is not over at its first pause.
    let sunk = lease
        .burn
        .saturating_sub(lease.burn.div_euclid(8))
        .saturating_sub(1);
    lease.burn = rate.max(sunk).max(0);
    lease.since = 0;
    // What was granted for a call must still be there when the call has woken up.
    if now_ms.saturating_sub(lease.need_at_ms) > NEED_MS {
        lease.need = 0;
    }
    let (burn, need, others_wait) = (lease.burn, lease.need, lease.others_wait);
    let part = ceiling.checked_div(PARTS).unwrap_or(0);
    let ahead = if budget.retired {
        0
    } else {
        burn.saturating_mul(AHEAD_S).min(part)
    };
    let (start_ms, from_ms) = (budget.span.start_ms, budget.span.from_ms);
    let mut wants = Vec::new();
    for bucket in &mut budget.buckets {
        let is_last = bucket.start_ms == start_ms;
        let taken = bucket.taken();
        let wish = taken.saturating_add(if is_last { ahead } else { 0 });
        let need = if is_last && need > 0 {
            taken.saturating_add(need)
        } else {
            0
        };
        if bucket.granted == wish && need == 0 && !is_last {
            continue;
        }
        if bucket.granted == 0 && wish == 0 && need == 0 {
            continue;
        }
        let keep = if others_wait { taken } else { wish };
        bucket.granted = bucket.granted.min(keep.max(taken));
        wants.push(Want {
            budget: Arc::clone(&budget.id),
            tenant: Arc::clone(&budget.tenant),
            start_ms: bucket.start_ms,
            from_ms,
            limit: ceiling,
            floor: bucket.granted.max(taken),
            wish,
            need: need.max(taken),
        });
    }
    wants
}

#[cfg(test)]
mod tests;
