//! Which target a call goes to next: the route's order, less those that are not well, and after a failure as
//! far as the budget of retries lets it go on.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use wire::{Fault, Refusal};

use super::deadline;
use crate::care::{LONGEST_PAUSE_MS, Lean, Passage, Shut, luck};
use crate::clock::uptime_ms;
use crate::refusal;
use crate::runtime::Target;
use crate::telemetry::{self, Hedge, Retry};

/// Attempts at most that upstreams see: two retries, so that an outage is not multiplied.
const SEEN: u16 = 3;
/// And with those that nobody saw: connections that were refused, models that do not take the call.
const TRIES: u16 = 8;
/// The longest pause that is waited for, in milliseconds.
const PATIENCE_MS: u64 = 2_000;
/// Before the same target is asked again: up to so long the first time, twice as long the next.
const BACKOFF_MS: u64 = 100;
/// How often it is.
const RETURNS: u32 = 2;

/// How long a call waits for an endpoint that has as many as it gets at once, and how often it looks.
const QUEUE: Duration = Duration::from_millis(250);
const LOOK: Duration = Duration::from_millis(10);

/// A failure that another attempt may make good.
#[derive(Debug)]
pub(crate) struct Setback {
    pub(crate) refusal: Refusal,
    /// The endpoint may have seen the call.
    pub(crate) seen: bool,
    pub(crate) back: Back,
}

/// Whether the same target may be asked again, where there is no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Back {
    No,
    /// After a moment.
    Soon,
    /// After so many milliseconds, as it said itself.
    After(u64),
    /// At once, before any other: with another key, or on another connection.
    AtOnce,
}

/// What is to be done next.
pub(super) enum Turn<'a> {
    Ask(&'a Arc<Target>, Box<Passage>),
    Wait(Instant),
    Over(Refusal),
}

/// What of a call its course depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    pub(super) is_stream: bool,
    /// Until when the caller waits.
    pub(super) deadline: Option<Instant>,
    pub(super) lean: Lean,
}

/// The way of one call from target to target.
pub(super) struct Course<'a> {
    left: Vec<&'a Arc<Target>>,
    manner: Manner,
    tries: u16,
    seen: u16,
    /// The last attempt was seen by an endpoint, so that the next is a retry.
    owes: bool,
    /// The target to go back to if there is no other, and when.
    back: Option<(&'a Arc<Target>, Instant)>,
    returns: u32,
    has_waited: bool,
    /// Until when it waits for room.
    queues: Option<Instant>,
    /// Somebody has an answer already: nothing is waited for.
    hurries: bool,
    last: Option<Refusal>,
}

impl<'a> Course<'a> {
    /// Along `left`, in this order.
    pub(super) fn along(left: Vec<&'a Arc<Target>>, manner: Manner) -> Self {
        Self {
            left,
            manner,
            tries: 0,
            seen: 0,
            owes: false,
            back: None,
            returns: 0,
            has_waited: false,
            queues: None,
            hurries: false,
            last: None,
        }
    }

    /// Along `left`, but without waiting for anybody, and no longer than for one retry.
    pub(super) fn hurried(left: Vec<&'a Arc<Target>>, manner: Manner) -> Self {
        Self {
            seen: 1,
            hurries: true,
            ..Self::along(left, manner)
        }
    }

    /// The next thing to do.
    pub(super) fn turn(&mut self) -> Turn<'a> {
        if self.tries >= TRIES || self.seen >= SEEN {
            return self.over();
        }
        self.drop_late();
        let now = uptime_ms();
        let mut shut = None;
        for place in 0..self.left.len() {
            let Some(target) = self.left.get(place).copied() else {
                break;
            };
            match target.enter(self.manner.lean, now) {
                Ok(passage) => {
                    self.left.remove(place);
                    return self.ask(target, passage);
                }
                Err(why) => shut = Some(better(shut, (why, target))),
            }
        }
        if self.hurries {
            return self.over();
        }
        if let Some((target, at)) = self.back {
            if Instant::now() < at {
                return self.wait(at);
            }
            self.back = None;
            return match target.enter(self.manner.lean, now) {
                Ok(passage) => self.ask(target, passage),
                Err(_) => self.over(),
            };
        }
        match shut {
            Some((Shut::Pauses(ms), _)) if self.seen == 0 => {
                self.last = Some(worse(self.last.take(), paused(ms)));
                if ms > PATIENCE_MS || std::mem::replace(&mut self.has_waited, true) {
                    return self.over();
                }
                self.wait(Instant::now() + Duration::from_millis(ms.max(1)))
            }
            Some((Shut::Full, _)) if self.seen == 0 => {
                self.last = Some(worse(self.last.take(), full()));
                let now = Instant::now();
                if now >= *self.queues.get_or_insert(now + QUEUE) {
                    return self.over();
                }
                self.wait(now + LOOK)
            }
            // All of them rest: the least bad is asked, which is better than nobody.
            Some((Shut::Rests(_), target)) if self.seen == 0 => {
                self.left.retain(|other| !Arc::ptr_eq(other, target));
                match target.enter_all_the_same() {
                    Some(passage) => self.ask(target, passage),
                    None => self.over(),
                }
            }
            _ => self.over(),
        }
    }

    /// Asks `target`, if the call may be asked once more.
    fn ask(&mut self, target: &'a Arc<Target>, passage: Passage) -> Turn<'a> {
        let retry = match (self.tries, self.owes) {
            (0, _) => None,
            (_, false) => Some(Retry::Free),
            (_, true) if target.group.take_retry(uptime_ms()) => Some(Retry::Taken),
            _ => Some(Retry::Denied),
        };
        if let Some(retry) = retry {
            telemetry::retried(target, retry);
        }
        if retry == Some(Retry::Denied) {
            return self.over();
        }
        self.owes = false;
        Turn::Ask(target, Box::new(passage))
    }

    /// Waits, if the caller does.
    fn wait(&mut self, until: Instant) -> Turn<'a> {
        if self.manner.deadline.is_some_and(|it| it <= until) {
            return self.over();
        }
        Turn::Wait(until)
    }

    /// Passes by those that need more time than is left.
    fn drop_late(&mut self) {
        let Manner {
            is_stream,
            deadline,
            ..
        } = self.manner;
        if deadline.is_none() {
            return;
        }
        let mut late = None;
        self.left.retain(|target| {
            let why = deadline::too_late(target, is_stream, deadline);
            let stays = why.is_none();
            late = late.take().or(why);
            stays
        });
        if let (Some(late), None) = (late, &self.last) {
            self.last = Some(late);
        }
    }

    fn over(&mut self) -> Turn<'a> {
        let none = || refusal::upstream(503, "no_upstream", "no upstream is configured".to_owned());
        Turn::Over(self.last.take().unwrap_or_else(none))
    }

    /// Another one of the same tier to be asked beside `first`, as far as there may be such calls.
    pub(super) fn beside(&mut self, first: &Target) -> Option<(&'a Arc<Target>, Box<Passage>)> {
        self.drop_late();
        let now = uptime_ms();
        for place in 0..self.left.len() {
            let target = self.left.get(place).copied()?;
            if target.tier != first.tier {
                continue;
            }
            if let Ok(passage) = target.enter(self.manner.lean, now) {
                if !first.group.take_hedge(now) {
                    telemetry::hedged(first, Hedge::Denied);
                    return None;
                }
                self.left.remove(place);
                return Some((target, Box::new(passage)));
            }
        }
        None
    }

    /// `target` could not be asked at all; the others may be.
    pub(super) fn passes_by(&mut self, target: &Arc<Target>, refusal: Refusal) {
        self.tries += 1;
        self.last = Some(worse(self.last.take(), refusal));
        self.others_first(target);
    }

    /// `target` is to be asked again at once, with another body.
    pub(super) fn again(&mut self, target: &'a Arc<Target>) {
        self.tries += 1;
        self.left.insert(0, target);
    }

    /// `target` has failed.
    pub(super) fn failed(&mut self, target: &'a Arc<Target>, setback: Setback) {
        let Setback {
            refusal,
            seen,
            back,
        } = setback;
        self.tries += 1;
        self.seen += u16::from(seen);
        self.owes |= seen;
        self.last = Some(worse(self.last.take(), refusal));
        let now = Instant::now();
        match back {
            Back::AtOnce => {
                self.left.insert(0, target);
                return;
            }
            Back::Soon if self.returns < RETURNS => {
                let most = (BACKOFF_MS << self.returns).min(PATIENCE_MS);
                self.returns += 1;
                self.back = Some((target, now + Duration::from_millis(luck() % (most + 1))));
            }
            Back::After(ms) if ms <= PATIENCE_MS && self.returns < RETURNS => {
                self.returns += 1;
                self.back = Some((target, now + Duration::from_millis(ms)));
            }
            Back::No | Back::Soon | Back::After(_) => self.back = None,
        }
        self.others_first(target);
    }

    /// Whoever failed is likely to fail in another dialect too.
    fn others_first(&mut self, target: &Target) {
        self.left
            .sort_by_key(|other| other.endpoint.origin == target.endpoint.origin);
    }
}

/// Of targets that take no call the best one: one that rests may be asked if need be, and of two the one that
/// has rested longer; of two that pause the one whose pause is shorter.
fn better<'a>(
    known: Option<(Shut, &'a Arc<Target>)>,
    other: (Shut, &'a Arc<Target>),
) -> (Shut, &'a Arc<Target>) {
    let Some(known) = known else {
        return other;
    };
    let rank = |shut: Shut| match shut {
        Shut::Full => (0, 0),
        Shut::Pauses(ms) if ms <= PATIENCE_MS => (1, i64::try_from(ms).unwrap_or(i64::MAX)),
        Shut::Rests(until_ms) => (2, until_ms),
        Shut::Pauses(ms) => (3, i64::try_from(ms).unwrap_or(i64::MAX)),
    };
    if rank(other.0) < rank(known.0) {
        other
    } else {
        known
    }
}

/// Every model that could take the call has as many as it gets at once.
fn full() -> Refusal {
    let what =
        "every model that could take this call has as many as it gets at once; try again shortly";
    Refusal {
        retry_after_s: Some(1),
        ..refusal::upstream(503, "upstream_full", what.to_owned())
    }
}

/// Every model that could take the call has asked for a pause.
fn paused(ms: u64) -> Refusal {
    let what = "every model that could take this call is at its rate limit; try again later";
    Refusal {
        retry_after_s: Some(ms.min(LONGEST_PAUSE_MS).div_ceil(1_000)),
        ..refusal::upstream(429, "upstream_rate_limited", what.to_owned())
    }
}

/// Of two failures the one to tell: an outage stays one, even if a fallback could not take the call. Of two
/// pauses the shorter one is told.
fn worse(before: Option<Refusal>, after: Refusal) -> Refusal {
    match before {
        Some(before) if before.fault == Fault::Upstream && after.fault == Fault::Caller => before,
        Some(before) if (before.status, after.status) == (429, 429) => Refusal {
            retry_after_s: before.retry_after_s.min(after.retry_after_s),
            ..after
        },
        _ => after,
    }
}
