//! The budgets and limits of one tenant under one lock: finding those of a call, checking them all and
//! only then changing them, and taking up what the ledger knows of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::budget::{Amounts, Bucket, Budget, BudgetError, Override};
use crate::config::{BudgetConfig, LimitConfig};
use crate::entry::{Held, Subject};
use crate::hold::{Denied, Meter, Posture};
use crate::ledger::{Known, LedgerError, Spent};
use crate::money::NanoUsd;
use crate::standing::{Standing, Unit};
use crate::window::Period;

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
    pub(crate) budgets: HashMap<Arc<str>, Budget>,
    /// Ids by the narrowest thing they name.
    by_name: HashMap<Place, Vec<Arc<str>>>,
    /// Those that stand for one budget for each name.
    patterns: Vec<Budget>,
    /// What the ledger knew of windows, for budgets that patterns make later.
    known: HashMap<Arc<str>, Vec<Bucket>>,
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

/// What the meter asks of the past.
pub trait Past {
    /// What is known of windows that begin at `from_ms` or later.
    fn windows(&self, from_ms: i64) -> Result<Vec<Known>, LedgerError>;
    /// What was spent from `from_ms` on.
    fn spent(&self, from_ms: i64) -> Result<Vec<Spent>, LedgerError>;
    /// Writes down what was spent before a budget was there.
    fn begin(&self, begun: &[Known]) -> Result<(), LedgerError>;
}

/// The new configuration of budgets can not be taken.
#[derive(Debug, thiserror::Error)]
pub enum ConfigureError {
    #[error("a budget or limit: {0}")]
    Budget(#[from] BudgetError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Meter {
    /// Takes the budgets and limits of a new configuration. What is settled in each new one is read
    /// from `past`; those that were there keep what they know. `node` is who this process is there.
    ///
    /// # Errors
    /// When the ledger does not answer or a limit is no amount; nothing has changed then.
    pub fn configure(
        &self,
        budgets: &[BudgetConfig],
        limits: &[LimitConfig],
        node: &str,
        now_ms: i64,
        past: &dyn Past,
    ) -> Result<(), ConfigureError> {
        let mut wanted = Vec::with_capacity(budgets.len());
        for config in budgets {
            wanted.push(Budget::new(config, now_ms)?);
        }
        for config in limits {
            wanted.append(&mut Budget::limits(config, now_ms)?);
        }
        let known = take_up(&mut wanted, node, past)?;
        let mut by_tenant: HashMap<Arc<str>, Vec<Budget>> = HashMap::new();
        for budget in wanted {
            by_tenant
                .entry(Arc::clone(&budget.tenant))
                .or_default()
                .push(budget);
        }
        for account in &self.accounts {
            let wanted = by_tenant.remove(account.key()).unwrap_or_default();
            let mut books = account.value().lock();
            books.known.clone_from(&known);
            books.merge(wanted);
        }
        for (tenant, budgets) in by_tenant {
            let mut books = Books {
                known: known.clone(),
                ..Books::default()
            };
            books.merge(budgets);
            let account = Account {
                books: Mutex::new(books),
                released: watch::Sender::new(0),
            };
            self.accounts.insert(tenant, Arc::new(account));
        }
        Ok(())
    }

    /// Takes dated changes of limits; those that were there before and are not now are gone.
    pub fn set_overrides(&self, overrides: &[Override]) {
        for account in &self.accounts {
            let mut books = account.value().lock();
            for budget in books.budgets.values_mut() {
                let own = overrides.iter().filter(|it| *it.budget == *budget.id);
                budget.overrides = own.cloned().collect();
            }
            drop(books);
            account.value().wake();
        }
    }

    /// Takes up what corrections have changed in windows of the past, and what other processes did.
    pub fn set_bases(&self, known: &[Known]) {
        let bases: HashMap<(&str, i64), i64> = known
            .iter()
            .filter(|it| it.node.is_empty())
            .map(|it| ((&*it.budget, it.start_ms), it.settled))
            .collect();
        for account in &self.accounts {
            let mut books = account.value().lock();
            for budget in books.budgets.values_mut() {
                for bucket in &mut budget.buckets {
                    if let Some(base) = bases.get(&(&*budget.id, bucket.start_ms)) {
                        bucket.base = *base;
                    }
                }
            }
            drop(books);
            account.value().wake();
        }
    }
}

/// Sets what was spent before, from the windows that the ledger knows, or, for a budget that it does
/// not know, from what was spent by anybody it covers. Returns what patterns will need.
fn take_up(
    wanted: &mut [Budget],
    node: &str,
    past: &dyn Past,
) -> Result<HashMap<Arc<str>, Vec<Bucket>>, LedgerError> {
    let money = || wanted.iter().filter(|it| it.unit == Unit::Usd);
    let Some(from_ms) = money()
        .filter(|it| it.span.end_ms.is_some())
        .map(|it| it.span.from_ms)
        .chain(money().map(|_| i64::MAX))
        .min()
    else {
        return Ok(HashMap::new());
    };
    let mut known: HashMap<Arc<str>, Vec<Bucket>> = HashMap::new();
    for row in past.windows(from_ms)? {
        let buckets = known.entry(Arc::clone(&row.budget)).or_default();
        let place = buckets.iter().position(|it| it.start_ms == row.start_ms);
        let place = place.unwrap_or_else(|| {
            buckets.push(Bucket {
                start_ms: row.start_ms,
                ..Bucket::default()
            });
            buckets.len().saturating_sub(1)
        });
        let Some(bucket) = buckets.get_mut(place) else {
            continue;
        };
        if row.node.is_empty() {
            bucket.base = row.settled;
        } else if *row.node == *node {
            bucket.settled = row.settled;
            bucket.granted = row.granted;
        } else {
            let taken = row.granted.max(row.settled);
            bucket.others = bucket.others.saturating_add(taken);
        }
    }
    let mut begun = Vec::new();
    for budget in wanted.iter_mut().filter(|it| it.unit == Unit::Usd) {
        let seen = |id: &Arc<str>| *id == budget.id || budget.has_made(id);
        if !known.keys().any(seen) {
            begun.append(&mut before(budget, past)?);
        }
    }
    past.begin(&begun)?;
    for row in begun {
        known.entry(row.budget).or_default().push(Bucket {
            start_ms: row.start_ms,
            base: row.settled,
            ..Bucket::default()
        });
    }
    for budget in wanted.iter_mut() {
        remember(budget, &known);
    }
    Ok(known)
}

/// What was spent in the present window by whom a new budget covers.
fn before(budget: &Budget, past: &dyn Past) -> Result<Vec<Known>, LedgerError> {
    let mut found: HashMap<(Arc<str>, i64), i64> = HashMap::new();
    for row in past.spent(budget.span.from_ms)? {
        let mut subject = Subject::of_key(&row.tenant, &row.team, &row.project, &row.key);
        subject.user = Arc::clone(&row.user);
        if row.tenant != budget.tenant || !budget.scope.covers(&subject, &row.model) {
            continue;
        }
        // An hour counts in the bucket of its end: it leaves a rolling window late, never early.
        let start_ms = match budget.window.period {
            Period::Rolling(_) => {
                let end = row.start_ms.saturating_add(3_599_999);
                budget.window.at(end).start_ms.min(budget.span.start_ms)
            }
            _ => budget.span.start_ms,
        };
        let id = if budget.scope.is_pattern() {
            budget.for_one(&subject).id
        } else {
            Arc::clone(&budget.id)
        };
        let sum = found.entry((id, start_ms)).or_default();
        *sum = sum.saturating_add(row.cost.0);
    }
    let known = |((id, start_ms), settled)| Known {
        budget: id,
        start_ms,
        node: Arc::from(""),
        tenant: Arc::clone(&budget.tenant),
        granted: 0,
        settled,
    };
    Ok(found.into_iter().map(known).collect())
}

/// Gives a budget what is known of its windows.
fn remember(budget: &mut Budget, known: &HashMap<Arc<str>, Vec<Bucket>>) {
    let Some(past) = known.get(&budget.id) else {
        return;
    };
    let (from_ms, start_ms) = (budget.span.from_ms, budget.span.start_ms);
    let mut buckets: Vec<Bucket> = past
        .iter()
        .copied()
        .filter(|it| it.start_ms >= from_ms && it.start_ms <= start_ms)
        .collect();
    buckets.sort_by_key(|it| it.start_ms);
    if buckets.last().is_none_or(|last| last.start_ms < start_ms) {
        buckets.push(Bucket {
            start_ms,
            ..Bucket::default()
        });
    }
    budget.buckets = buckets.into();
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
        let named = [
            &subject.team,
            &subject.project,
            &subject.key,
            &subject.user,
            &subject.task,
        ];
        let places = named
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
            if budget.unit == Unit::Usd {
                let budget = budget.name.clone();
                if behind_ms > 0 {
                    return Err(Denied::Clock { budget, behind_ms });
                }
                if !priced {
                    let model = held.model.to_string();
                    return Err(Denied::Unpriced { model, budget });
                }
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
    pub(crate) fn room(
        &self,
        subject: &Subject,
        model: &str,
        now_ms: i64,
        leased: bool,
    ) -> Option<i64> {
        let mut books = self.lock();
        let path = books.path(subject, model, now_ms);
        path.iter()
            .filter_map(|id| books.budgets.get(id))
            .filter(|it| it.hard && it.unit == Unit::Usd)
            // A slice grows when it is asked for: what is left of the budget is what counts.
            .map(|it| it.left(now_ms, false).max(it.left(now_ms, leased)))
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
                let left = NanoUsd(budget.left(now_ms, false));
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
        let mut books = self.lock();
        for budget in books.budgets.values_mut() {
            budget.roll(now_ms);
        }
        let present = books.budgets.values().filter(|it| !it.retired);
        present
            .map(|it| it.standing(now_ms, books.parent(it)))
            .collect()
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
