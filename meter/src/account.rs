//! The budgets and limits of one tenant under one lock: finding those of a call, checking them all and
//! only then changing them, and taking up what the ledger knows of them.

mod each;
mod past;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use each::Each;
pub use past::ConfigureError;
use past::{Windows, remember};
use tokio::sync::watch;

use crate::Map;
use crate::budget::{Amounts, Bucket, Budget, Override, names};
use crate::carried::Rate;
use crate::entry::{Held, Subject};
use crate::hold::{Denied, Meter, Posture};
use crate::money::NanoUsd;
use crate::standing::{Standing, Unit};

/// Budgets made of patterns (one for each user) are looked through for idle ones at every so many.
const SWEEP_AT: usize = 4_096;

/// The budgets of one tenant.
#[derive(Debug)]
pub(crate) struct Account {
    books: Mutex<Books>,
    /// Counts holds that ended, for callers that wait.
    pub(crate) released: watch::Sender<u64>,
}

/// The narrowest thing that a budget names: its level and name; `None` for the tenant itself.
type Place = Option<(usize, Arc<str>)>;

#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) budgets: Map<Arc<str>, Budget>,
    /// Ids by the narrowest thing they name.
    by_name: Map<Place, Vec<Arc<str>>>,
    /// Those that stand for one budget for each name.
    patterns: Vec<Budget>,
    /// What the ledger knew of windows, for budgets that patterns make later.
    known: Windows,
    /// Dated changes of their limits.
    overrides: Vec<Override>,
    sweep_at: usize,
}

/// A budget that carries a hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) budget: Arc<str>,
    pub(crate) start_ms: i64,
    pub(crate) unit: Unit,
    pub(crate) amount: i64,
}

impl Books {
    /// Brings the present budgets in line with `wanted`: the same take the new limits, others retire.
    fn merge(&mut self, wanted: Vec<Budget>) {
        let (patterns, mut wanted): (Vec<_>, Vec<_>) =
            wanted.into_iter().partition(|it| it.scope.is_pattern());
        for budget in self.budgets.values_mut() {
            let at = wanted.iter().position(|other| other.id == budget.id);
            let config = at.map(|at| wanted.swap_remove(at)).or_else(|| {
                let pattern = patterns.iter().find(|it| it.has_made(&budget.id))?;
                Some(pattern.renamed(budget))
            });
            budget.adopt(config);
        }
        for budget in wanted {
            self.add(budget);
        }
        self.patterns = patterns;
    }

    fn add(&mut self, budget: Budget) {
        let narrowest = budget.scope.narrowest();
        let place = narrowest.map(|(level, name)| (level, Arc::clone(name)));
        self.by_name
            .entry(place)
            .or_default()
            .push(Arc::clone(&budget.id));
        self.budgets.insert(Arc::clone(&budget.id), budget);
    }

    /// The ids of the budgets that a call counts against, each moved on to its present window.
    fn path(&mut self, subject: &Subject, model: &str, now_ms: i64) -> Vec<Arc<str>> {
        self.make(subject, model, now_ms);
        let places = names(subject)
            .into_iter()
            .enumerate()
            .filter(|(_, name)| !name.is_empty())
            .map(|(level, name)| Some((level, Arc::clone(name))));
        let mut path = Vec::new();
        for place in std::iter::once(None).chain(places) {
            for id in self.by_name.get(&place).into_iter().flatten() {
                let Some(budget) = self.budgets.get_mut(id) else {
                    continue;
                };
                if !budget.retired && budget.scope.covers(subject, model) {
                    budget.roll(now_ms);
                    path.push(Arc::clone(id));
                }
            }
        }
        path
    }

    /// Makes the budgets of this subject that patterns stand for, where they are not there yet.
    fn make(&mut self, subject: &Subject, model: &str, now_ms: i64) {
        let mut made = Vec::new();
        for pattern in &self.patterns {
            if !pattern.scope.covers(subject, model) {
                continue;
            }
            let scope = pattern.scope.of(subject);
            let place = scope
                .narrowest()
                .map(|(level, name)| (level, Arc::clone(name)));
            let is_there = self.by_name.get(&place).is_some_and(|ids| {
                ids.iter().filter_map(|id| self.budgets.get(id)).any(|it| {
                    it.scope == scope && it.unit == pattern.unit && it.window == pattern.window
                })
            });
            if !is_there {
                let mut own = pattern.for_one(subject);
                own.roll(now_ms);
                remember(&mut own, &self.known);
                let changes = self.overrides.iter().filter(|it| *it.budget == *own.id);
                own.overrides = changes.cloned().collect();
                made.push(own);
            }
        }
        for budget in made {
            self.add(budget);
        }
        if self.budgets.len() >= self.sweep_at.max(SWEEP_AT) {
            self.sweep(now_ms);
        }
    }

    /// Forgets budgets of patterns in which nothing has happened.
    fn sweep(&mut self, now_ms: i64) {
        let patterns = &self.patterns;
        self.budgets.retain(|id, budget| {
            budget.roll(now_ms);
            let made = patterns.iter().any(|it| it.has_made(id));
            !made || !budget.is_idle()
        });
        let budgets = &self.budgets;
        self.by_name.retain(|_, ids| {
            ids.retain(|id| budgets.contains_key(id));
            !ids.is_empty()
        });
        self.sweep_at = self.budgets.len().saturating_mul(2);
    }

    /// All that may be spent of a budget now, with what it may borrow.
    pub(crate) fn ceiling(&self, budget: &Budget, now_ms: i64) -> i64 {
        let own = budget.ceiling(now_ms);
        if budget.borrow == 0 {
            return own;
        }
        own.saturating_sub(budget.borrow)
            .saturating_add(self.to_borrow(budget, now_ms))
    }

    /// What a child of a budget may spend beyond its own limit: what its parent has not given to
    /// anybody, less what others have borrowed of it.
    fn to_borrow(&self, budget: &Budget, now_ms: i64) -> i64 {
        let Some(parent) = self.parent(budget) else {
            return 0;
        };
        let mut free = parent.limit.saturating_add(parent.extra(now_ms));
        for child in self.budgets.values() {
            let is_child = self.parent(child).is_some_and(|it| it.id == parent.id);
            if child.retired || !is_child {
                continue;
            }
            free = free.saturating_sub(child.limit);
            if child.id != budget.id {
                let over = child.used().saturating_sub(child.limit).max(0);
                free = free.saturating_sub(over);
            }
        }
        free.clamp(0, budget.borrow)
    }

    /// The narrowest budget above this one.
    fn parent(&self, budget: &Budget) -> Option<&Budget> {
        let mut above: Vec<&Budget> = self
            .budgets
            .values()
            .filter(|it| !it.retired && it.is_above(budget))
            .collect();
        above.sort_by(|a, b| {
            let inner = b.is_above(a).cmp(&a.is_above(b));
            inner.then_with(|| a.id.cmp(&b.id))
        });
        above.first().copied()
    }
}

impl Account {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Books> {
        // A panic while the lock was held can not have left a half-made change: see `reserve`.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes callers that wait for room.
    pub(crate) fn wake(&self) {
        self.released
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Checks every budget of the path first and changes them all afterwards.
    pub(crate) fn reserve(
        &self,
        meter: &Meter,
        held: &Held,
        priced: bool,
        (now_ms, behind_ms): (i64, i64),
    ) -> Result<Vec<Taken>, Denied> {
        let mut books = self.lock();
        let path = books.path(&held.subject, &held.model, now_ms);
        let amounts = Amounts::held(held);
        let mut waits = None;
        for id in &path {
            let Some(budget) = books.budgets.get(id).filter(|it| it.hard) else {
                continue;
            };
            let name = || budget.name.clone();
            if budget.unit == Unit::Usd && behind_ms > 0 {
                let budget = name();
                return Err(Denied::Clock { budget, behind_ms });
            }
            if budget.unit == Unit::Usd && !priced {
                let (model, budget) = (held.model.to_string(), name());
                return Err(Denied::Unpriced { model, budget });
            }
            let amount = amounts.of(budget.unit);
            let ceiling = books.ceiling(budget, now_ms);
            let admitted = if meter.leased {
                slice(meter, budget, amount, ceiling, now_ms)
            } else if budget.used().saturating_add(amount) <= ceiling {
                Ok(())
            } else {
                Err(full(budget, amount, ceiling))
            };
            let Err(denied) = admitted else { continue };
            if !meter.leased || !denied.waits() {
                return Err(denied);
            }
            if let Some(budget) = books.budgets.get_mut(id) {
                budget.lease.need = budget.lease.need.max(amount);
                budget.lease.need_at_ms = now_ms;
            }
            waits = Some(denied);
        }
        if let Some(denied) = waits {
            meter.hungry.notify_one();
            return Err(denied);
        }
        let mut taken = Vec::with_capacity(path.len());
        for id in path {
            if let Some(budget) = books.budgets.get_mut(&id) {
                let amount = amounts.of(budget.unit);
                let start_ms = budget.hold(amount);
                taken.push(Taken {
                    budget: id,
                    start_ms,
                    unit: budget.unit,
                    amount,
                });
            }
        }
        Ok(taken)
    }

    /// Counts a hold that another process has made, whether or not it fits: it is there.
    pub(crate) fn carry(&self, held: &Held, now_ms: i64) -> Vec<Taken> {
        let mut books = self.lock();
        let path = books.path(&held.subject, &held.model, now_ms);
        let amounts = Amounts::held(held);
        let mut taken = Vec::with_capacity(path.len());
        for charge in &held.charges {
            let Some(budget) = books.budgets.get_mut(&charge.budget) else {
                continue;
            };
            budget.carry(charge.start_ms, amounts.cost.0);
            taken.push(Taken {
                budget: Arc::clone(&charge.budget),
                start_ms: charge.start_ms,
                unit: Unit::Usd,
                amount: amounts.cost.0,
            });
        }
        for id in path {
            let budget = books.budgets.get_mut(&id);
            let Some(budget) = budget.filter(|it| it.unit != Unit::Usd) else {
                continue;
            };
            let amount = amounts.of(budget.unit);
            taken.push(Taken {
                budget: id,
                start_ms: budget.hold(amount),
                unit: budget.unit,
                amount,
            });
        }
        taken
    }

    /// What is used of its rate limits, less what is held.
    pub(crate) fn rates(&self, tenant: &Arc<str>, now_ms: i64) -> Vec<Rate> {
        let books = self.rolled(now_ms);
        let limits = books.budgets.values().filter(|it| it.unit != Unit::Usd);
        let used = limits.map(|it| Rate {
            tenant: Arc::clone(tenant),
            budget: Arc::clone(&it.id),
            start_ms: it.span.start_ms,
            used: it.settled(),
        });
        used.filter(|it| it.used != 0).collect()
    }

    /// Takes up what another process has used of a rate limit.
    pub(crate) fn take_rate(&self, rate: &Rate) {
        let mut books = self.lock();
        let bucket = Bucket {
            start_ms: rate.start_ms,
            base: rate.used,
            ..Bucket::default()
        };
        match books.budgets.get_mut(&rate.budget) {
            Some(budget) => {
                let mut buckets = budget.buckets.iter_mut();
                if let Some(known) = buckets.find(|it| it.start_ms == rate.start_ms) {
                    known.base = rate.used;
                }
            }
            // One of a pattern: it is made when it is needed.
            None => books
                .known
                .entry(Arc::clone(&rate.budget))
                .or_default()
                .push(bucket),
        }
    }

    /// Ends what a hold has taken, at what it came to.
    pub(crate) fn release(&self, taken: &[Taken], settled: &Amounts) {
        let mut books = self.lock();
        for it in taken {
            if let Some(budget) = books.budgets.get_mut(&it.budget) {
                budget.release(it.start_ms, it.amount, settled.of(it.unit));
            }
        }
        drop(books);
        self.wake();
    }

    /// What hard budgets of money leave; `None` where there is none.
    pub(crate) fn room(&self, subject: &Subject, model: &str, now_ms: i64) -> Option<i64> {
        let mut books = self.lock();
        let path = books.path(subject, model, now_ms);
        path.iter()
            .filter_map(|id| books.budgets.get(id))
            .filter(|it| it.hard && it.unit == Unit::Usd)
            // A slice grows when it is asked for: what is left of the budget is what counts.
            .map(|it| it.left(now_ms))
            .min()
    }

    /// What the budgets of `subject` that are not for some models ask of its calls.
    pub(crate) fn posture(&self, subject: &Subject, now_ms: i64) -> Posture {
        let mut books = self.lock();
        let mut posture = Posture::default();
        for id in books.path(subject, "", now_ms) {
            let Some(budget) = books.budgets.get(&id).filter(|it| it.unit == Unit::Usd) else {
                continue;
            };
            let state = budget.state(now_ms);
            if state != "allow" {
                let left = NanoUsd(budget.left(now_ms));
                let least = posture.remaining.map_or(left, |known| known.min(left));
                posture.remaining = Some(least);
            }
            if matches!(state, "fast" | "free" | "deny") {
                posture.fast.get_or_insert_with(|| Arc::clone(&id));
            }
            if state == "free" {
                posture.free.get_or_insert_with(|| Arc::clone(&id));
            }
            posture.pace = posture.pace.min(budget.pace(now_ms));
        }
        posture
    }

    /// Every budget as it stands.
    pub(crate) fn standings(&self, now_ms: i64) -> Vec<Standing> {
        let books = self.rolled(now_ms);
        let present = books.budgets.values().filter(|it| !it.retired);
        present
            .map(|it| it.standing(now_ms, books.parent(it)))
            .collect()
    }

    /// The same without their parents, which take looking at each pair of them.
    pub(crate) fn standings_alone(&self, now_ms: i64) -> Vec<Standing> {
        let books = self.rolled(now_ms);
        let present = books.budgets.values().filter(|it| !it.retired);
        present.map(|it| it.standing(now_ms, None)).collect()
    }

    fn rolled(&self, now_ms: i64) -> MutexGuard<'_, Books> {
        let mut books = self.lock();
        for budget in books.budgets.values_mut() {
            budget.roll(now_ms);
        }
        books
    }

    /// The id of the budget or limit that people are told of as `name`.
    pub(crate) fn id_of(&self, name: &str) -> Option<Arc<str>> {
        let books = self.lock();
        let mut present = books.budgets.values().filter(|it| !it.retired);
        present
            .find(|it| it.name == name)
            .map(|it| Arc::clone(&it.id))
    }
}

/// What is told where `amount` does not fit.
fn full(budget: &Budget, amount: i64, ceiling: i64) -> Denied {
    let settled = budget.settled().max(budget.lease.settled);
    let waits = settled.saturating_add(amount) <= ceiling;
    let resets_at_ms = budget.span.end_ms;
    match budget.unit {
        Unit::Usd => Denied::Budget {
            budget: budget.name.clone(),
            limit: NanoUsd(ceiling),
            settled: NanoUsd(settled),
            held: NanoUsd(budget.used().saturating_sub(settled).max(0)),
            needed: NanoUsd(amount),
            waits,
            resets_at_ms,
        },
        unit => Denied::Rate {
            limit: budget.name.clone(),
            unit,
            allowed: ceiling,
            needed: amount,
            waits,
            resets_at_ms,
        },
    }
}

/// Whether the slice that this node has of the budget leaves room. Where it does not, the call may
/// wait for a larger one, as long as the ledger can be asked for it.
fn slice(
    meter: &Meter,
    budget: &Budget,
    amount: i64,
    ceiling: i64,
    now_ms: i64,
) -> Result<(), Denied> {
    let last = budget.buckets.back().copied().unwrap_or_default();
    let fits = last.taken().saturating_add(amount) <= last.granted;
    if amount == 0 || (fits && meter.lease_is_valid(now_ms)) {
        return Ok(());
    }
    if !meter.lease_is_fresh(now_ms) {
        return Err(Denied::Unavailable {
            budget: budget.name.clone(),
        });
    }
    Err(full(budget, amount, ceiling))
}
