//! Holds: a bound is reserved on every level of the path in one step, before the upstream sees the
//! call, and each hold ends in exactly one settlement.

mod denied;
mod settled;

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use dashmap::DashMap;
pub use denied::Denied;
use foldhash::fast::RandomState;
pub use settled::Settled;
use tokio::sync::{Notify, watch};
use wire::{RequestId, Usage, UsageSource};

use crate::account::{Account, Each, Taken};
use crate::budget::Amounts;
use crate::carried::Carried;
use crate::entry::{Charge, Entry, Held, Outcome, Record, Subject};
use crate::ledger::{Journal, JournalError, Position, written};
use crate::money::NanoUsd;
use crate::point;
use crate::price::{Rated, Rates};
use crate::sell::SellBook;
use crate::standing::{Standing, Unit};

/// A clock may be this far behind the latest moment that was seen before hard budgets are closed:
/// less is what clocks are set by, and what threads overtake each other by.
const CLOCK_SLACK_MS: i64 = 5_000;

/// Decides who may spend, and writes down who did. One per process; cheap to share.
#[derive(Debug)]
pub struct Meter {
    /// One lock a tenant: all levels of a path lie in one tenant, so a hold is one atomic step.
    pub(crate) accounts: DashMap<Arc<str>, Arc<Account>, RandomState>,
    /// What tenants get that have no account yet.
    pub(crate) each: RwLock<Each>,
    pub(crate) journal: Arc<dyn Journal>,
    /// Holds of calls that an earlier process still serves.
    pub(crate) carried: Mutex<HashMap<(RequestId, u16), Carried>>,
    /// Budgets are shared with other nodes, of which this is one: it spends from slices leased to it.
    pub(crate) leased: bool,
    /// When the slices were last confirmed, on this node's clock.
    pub(crate) leased_at_ms: AtomicI64,
    /// Told when a call waits for a slice.
    pub(crate) hungry: Notify,
    /// The latest moment at which anything was held.
    latest_ms: AtomicI64,
    /// Settlements that the journal did not take, to be given to it again.
    unwritten: Mutex<Vec<Record>>,
    /// What budgets decided since it was last asked, by tenant, budget and decision.
    pub(crate) decisions: Mutex<Vec<Decision>>,
    /// How many holds are open.
    pub(crate) open: AtomicI64,
}

/// So many calls that a budget had its say on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The start of the hour, in milliseconds since 1970.
    pub start_ms: i64,
    pub tenant: Arc<str>,
    /// The budget's id.
    pub budget: Arc<str>,
    /// `wait`, `degrade`, `deny` or `unavailable`.
    pub decision: &'static str,
    pub calls: u64,
}

impl Decision {
    /// Whether both are the same decision of one budget in one hour.
    pub fn is_like(&self, other: &Self) -> bool {
        (self.start_ms, &self.tenant, &self.budget, self.decision)
            == (other.start_ms, &other.tenant, &other.budget, other.decision)
    }
}

/// What an attempt may cost, and how it will be rated.
#[derive(Debug, Clone)]
pub struct Estimate {
    /// The hold to be; its `held_at_ms`, `bound` and `price` are filled in by [`Meter::hold`].
    pub held: Held,
    /// The prices; `None` for an unpriced model, which no hard budget admits.
    pub rates: Option<Arc<Rates>>,
    /// The deep tier's prices, for the comparison in [`Entry::baseline`].
    pub baseline: Option<Arc<Rates>>,
    /// What tenants pay.
    pub sell: Arc<SellBook>,
    /// Hard budgets let an unpriced model through, to be rated later.
    pub admits_unpriced: bool,
}

impl Estimate {
    /// The most that the attempt can cost; `None` for an unpriced model.
    pub fn bound(&self) -> Option<NanoUsd> {
        let usage = &self.held.bound_usage;
        let rates = self.rates.as_ref()?;
        Some(rates.bound(usage.prompt(), usage.answer()))
    }
}

/// A reservation for one attempt. Dropped unsettled, it settles itself: at nothing before
/// [`Hold::sent`], at its bound afterwards, because the upstream may bill for what it was sent.
#[derive(Debug)]
pub struct Hold {
    meter: Arc<Meter>,
    account: Option<Arc<Account>>,
    /// Which budgets and limits carry it, and in which of their windows.
    taken: Vec<Taken>,
    held: Option<Held>,
    rates: Option<Arc<Rates>>,
    baseline: Option<Arc<Rates>>,
    sell: Arc<SellBook>,
    position: Position,
    sent_at_ms: Option<i64>,
}

/// How an attempt ended, as far as the caller of [`Hold::post`] knows.
#[derive(Debug, Clone, Copy)]
pub struct Settlement {
    pub outcome: Outcome,
    /// The upstream's HTTP status; 0 where none arrived.
    pub status: u16,
    pub usage: Usage,
    pub source: UsageSource,
    /// The most that can have been used, where usage was counted.
    pub upper: Option<Usage>,
    pub first_byte_ms: Option<u32>,
    pub now_ms: i64,
}

impl Meter {
    /// A meter that writes to `journal`, has its budgets for itself, and knows none yet.
    pub fn new(journal: Arc<dyn Journal>) -> Self {
        Self {
            accounts: DashMap::default(),
            each: RwLock::default(),
            journal,
            carried: Mutex::default(),
            leased: false,
            leased_at_ms: AtomicI64::new(i64::MIN),
            hungry: Notify::new(),
            latest_ms: AtomicI64::new(i64::MIN),
            unwritten: Mutex::default(),
            decisions: Mutex::default(),
            open: AtomicI64::new(0),
        }
    }

    /// A meter that shares its budgets with other nodes; see [`crate::lease`].
    pub fn shared(journal: Arc<dyn Journal>) -> Self {
        Self {
            leased: true,
            ..Self::new(journal)
        }
    }

    /// Charges the holds that an earlier process left open: at their bound, until reconciled. Call
    /// before [`Meter::configure`], with the entries applied to the ledger in between.
    pub fn recover(&self, open: Vec<Held>, now_ms: i64) -> Result<usize, JournalError> {
        let count = open.len();
        for held in open {
            let entry = Entry::orphan(held, now_ms);
            self.journal.append(&Record::Settle(Box::new(entry)))?;
        }
        Ok(count)
    }

    /// Takes `now_ms` for the time, whatever was seen before: it comes from a clock that is everybody's.
    pub fn trust(&self, now_ms: i64) {
        self.latest_ms.store(now_ms, Ordering::Release);
    }

    /// Tells the latest moment that the ledger knows of: a clock before it is not trusted.
    pub fn saw(&self, at_ms: i64) {
        self.latest_ms.fetch_max(at_ms, Ordering::AcqRel);
    }

    /// Reserves the bound of `estimate` on every budget and limit of its path, or on none.
    ///
    /// Await [`Hold::written`] before the upstream sees the call, and [`Hold::synced`] before the first
    /// byte of the answer goes out.
    pub fn hold(self: &Arc<Self>, estimate: Estimate, now_ms: i64) -> Result<Hold, Denied> {
        let Estimate {
            mut held,
            rates,
            baseline,
            sell,
            admits_unpriced,
        } = estimate;
        let usage = held.bound_usage;
        held.held_at_ms = now_ms;
        held.bound = rates.as_ref().map_or(NanoUsd::ZERO, |rates| {
            rates.bound(usage.prompt(), usage.answer())
        });
        held.price = rates
            .as_ref()
            .map_or_else(|| Arc::from(""), |rates| Arc::clone(&rates.id));
        let behind_ms = self.behind_ms(now_ms);
        let account = self.account(&held.subject.tenant);
        let taken = match &account {
            Some(account) => {
                let admits = rates.is_some() || admits_unpriced;
                account.reserve(self, &held, admits, (now_ms, behind_ms))?
            }
            None => Vec::new(),
        };
        held.charges = taken
            .iter()
            .filter(|it| it.unit == Unit::Usd)
            .map(|it| Charge {
                budget: Arc::clone(&it.budget),
                start_ms: it.start_ms,
            })
            .collect();
        let mut hold = Hold {
            meter: Arc::clone(self),
            account,
            taken,
            held: None,
            rates,
            baseline,
            sell,
            position: Position::default(),
            sent_at_ms: None,
        };
        let record = Record::Hold(Box::new(held));
        point::at("hold.reserved");
        let entered = self.journal.hold(&record);
        let Record::Hold(held) = record else {
            return Ok(hold);
        };
        match entered {
            Ok(position) => {
                hold.position = position;
                hold.held = Some(*held);
                self.open.fetch_add(1, Ordering::Relaxed);
                Ok(hold)
            }
            Err(denied) => {
                // It was never written, so there is nothing to settle: only the memory gives way.
                hold.release(&Amounts::default());
                Err(denied)
            }
        }
    }

    /// How far `now_ms` lies behind what was seen, beyond what is usual; 0 while the clock is sound.
    pub(crate) fn behind_ms(&self, now_ms: i64) -> i64 {
        let latest = self.latest_ms.fetch_max(now_ms, Ordering::AcqRel);
        let behind = latest.saturating_sub(now_ms);
        if behind > CLOCK_SLACK_MS { behind } else { 0 }
    }

    /// What hard budgets leave for `subject` at `model` now, or `None` where no hard budget covers it.
    pub fn room(&self, subject: &Subject, model: &str, now_ms: i64) -> Option<NanoUsd> {
        self.account(&subject.tenant)?
            .room(subject, model, now_ms)
            .map(NanoUsd)
    }

    /// What the budgets of `subject` ask of its calls now.
    pub fn posture(&self, subject: &Subject, now_ms: i64) -> Posture {
        self.account(&subject.tenant)
            .map_or_else(Posture::default, |account| account.posture(subject, now_ms))
    }

    /// Changes whenever a hold of `tenant` ends. Subscribe before trying [`Meter::hold`], so that no
    /// end is missed in between. `None` where the tenant has no budget.
    pub fn releases(&self, tenant: &str) -> Option<watch::Receiver<u64>> {
        self.account(tenant)
            .map(|account| account.released.subscribe())
    }

    /// Every budget and limit as it stands, by tenant and name.
    pub fn standings(&self, now_ms: i64) -> Vec<Standing> {
        self.sorted(|account| account.standings(now_ms))
    }

    /// The same without their parents: for who asks often.
    pub fn standings_alone(&self, now_ms: i64) -> Vec<Standing> {
        self.sorted(|account| account.standings_alone(now_ms))
    }

    fn sorted(&self, of: impl Fn(&Account) -> Vec<Standing>) -> Vec<Standing> {
        let accounts = self.accounts.iter();
        let mut all: Vec<_> = accounts.flat_map(|account| of(account.value())).collect();
        all.sort_by(|a, b| (&a.tenant, &a.id).cmp(&(&b.tenant, &b.id)));
        all
    }

    /// How many holds are open.
    pub fn open_holds(&self) -> u64 {
        u64::try_from(self.open.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// What is told to a call that no free model takes, when `budget` leaves money only for those.
    pub fn only_free(&self, budget: &str, now_ms: i64) -> Denied {
        let found = self
            .standings(now_ms)
            .into_iter()
            .find(|it| it.id == budget);
        Denied::OnlyFree {
            budget: found
                .as_ref()
                .map_or_else(|| budget.to_owned(), |it| it.name.clone()),
            limit: NanoUsd(
                found
                    .as_ref()
                    .map_or(0, |it| it.limit.saturating_add(it.extra)),
            ),
            settled: NanoUsd(found.as_ref().map_or(0, |it| it.settled)),
            resets_at_ms: found.and_then(|it| it.resets_at_ms),
        }
    }

    /// Notes that a budget had its say on a call.
    pub fn note(&self, tenant: &Arc<str>, budget: &str, decision: &'static str, now_ms: i64) {
        const HOUR_MS: i64 = 3_600_000;
        let start_ms = now_ms.div_euclid(HOUR_MS).saturating_mul(HOUR_MS);
        let mut all = self
            .decisions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let same = |it: &&mut Decision| {
            it.start_ms == start_ms
                && it.tenant == *tenant
                && &*it.budget == budget
                && it.decision == decision
        };
        match all.iter_mut().find(same) {
            Some(known) => known.calls = known.calls.saturating_add(1),
            None => all.push(Decision {
                start_ms,
                tenant: Arc::clone(tenant),
                budget: Arc::from(budget),
                decision,
                calls: 1,
            }),
        }
    }

    /// Notes that a call of `tenant` waits for what stands in its way.
    pub fn note_wait(&self, tenant: &Arc<str>, denied: &Denied, now_ms: i64) {
        if let Some((name, _)) = denied.decision() {
            self.note_named(tenant, name, "wait", now_ms);
        }
    }

    /// Notes that a call of `tenant` was turned away.
    pub fn note_denied(&self, tenant: &Arc<str>, denied: &Denied, now_ms: i64) {
        if let Some((name, decision)) = denied.decision() {
            self.note_named(tenant, name, decision, now_ms);
        }
    }

    fn note_named(&self, tenant: &Arc<str>, name: &str, decision: &'static str, now_ms: i64) {
        let id = self.account(tenant).and_then(|account| account.id_of(name));
        self.note(tenant, id.as_deref().unwrap_or(name), decision, now_ms);
    }

    /// Gives settlements that could not be written to the journal again, as long as it takes them;
    /// returns how many are left. Their holds are in the journal, so that nothing is lost if this
    /// process ends before: the next start charges them at their bound.
    pub fn write_again(&self) -> usize {
        let mut unwritten = self.lock_unwritten();
        while let Some(record) = unwritten.last() {
            if self.journal.append(record).is_err() {
                break;
            }
            unwritten.pop();
        }
        unwritten.len()
    }

    pub(crate) fn lock_unwritten(&self) -> std::sync::MutexGuard<'_, Vec<Record>> {
        self.unwritten
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What budgets decided since this was last asked.
    pub fn take_decisions(&self) -> Vec<Decision> {
        std::mem::take(
            &mut *self
                .decisions
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }
}

/// What budgets ask of a caller's calls before a limit is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posture {
    /// What is left of the tightest budget that wants it told.
    pub remaining: Option<NanoUsd>,
    /// The budget that sends calls to the fast tier, where one does.
    pub fast: Option<Arc<str>>,
    /// The budget that leaves only models that cost nothing, where one does.
    pub free: Option<Arc<str>>,
    /// The share of deep calls that the pace of spending allows, in thousandths of the usual share.
    pub pace: u16,
}

impl Default for Posture {
    fn default() -> Self {
        Self {
            remaining: None,
            fast: None,
            free: None,
            pace: 1_000,
        }
    }
}

impl Hold {
    /// The upstream is about to see the call: from here on, dropping the hold charges its bound.
    pub fn sent(&mut self, now_ms: i64) {
        self.sent_at_ms = Some(now_ms);
    }

    /// Notes the check that the answer failed.
    pub fn doubt(&mut self, cause: &str) {
        if let Some(held) = &mut self.held {
            held.escalated = Arc::from(cause);
        }
    }

    /// What was reserved; `None` only once settled.
    pub fn held(&self) -> Option<&Held> {
        self.held.as_ref()
    }

    /// Waits until the hold is in the journal, where it survives the death of the process; holds of calls
    /// that come together are written together.
    ///
    /// # Errors
    /// When it can not be written. Then there is no hold, and nothing to settle.
    pub async fn written(&mut self) -> Result<(), JournalError> {
        match written(&*self.meter.journal, self.position).await {
            Ok(()) => {
                point::at("hold.written");
                Ok(())
            }
            Err(error) => {
                if self.held.take().is_some() {
                    self.meter.open.fetch_sub(1, Ordering::Relaxed);
                }
                self.release(&Amounts::default());
                Err(error)
            }
        }
    }

    /// Waits until the hold is on the disk.
    pub async fn synced(&self) -> Result<(), JournalError> {
        self.meter.journal.synced(self.position).await
    }

    /// Settles the attempt at what it used. What is returned is still to be written; dropped, it is.
    pub fn post(mut self, settlement: &Settlement) -> Option<Settled> {
        self.settle(settlement)
    }

    fn settle(&mut self, settlement: &Settlement) -> Option<Settled> {
        let held = self.held.take()?;
        self.meter.open.fetch_sub(1, Ordering::Relaxed);
        let Settlement {
            outcome,
            status,
            usage,
            source,
            upper,
            first_byte_ms,
            now_ms,
        } = *settlement;
        let rated = match (&self.rates, source) {
            // The bound's classes are not known, so it is charged as the amount it is.
            (Some(_), UsageSource::Estimated) => Rated {
                cost: held.bound,
                list: held.bound,
                ..Rated::default()
            },
            (Some(rates), _) => rates.rate(&usage, now_ms),
            (None, _) => Rated::default(),
        };
        let cost = rated.cost;
        let baseline = match &self.baseline {
            Some(rates) if source != UsageSource::Estimated => rates.rate(&usage, now_ms).cost,
            _ => cost,
        };
        let sell = self.sell.unit(&held.subject.tenant, &usage, cost);
        let most = match (&self.rates, upper) {
            (Some(rates), Some(upper)) => rates.bound(upper.prompt(), upper.answer()),
            _ => cost,
        };
        let suspense = (most.min(held.bound) - cost).max(NanoUsd::ZERO);
        self.release(&Amounts::settled(&held, cost + suspense, &usage));
        let entry = Entry {
            held,
            outcome,
            status,
            settled_at_ms: now_ms,
            usage,
            source,
            cost,
            baseline,
            list: rated.list,
            sell,
            cache_saved: rated.cache_saved,
            suspense,
            context_tier: rated.context_tier,
            first_byte_ms,
        };
        Settled::enter(entry, Arc::clone(&self.meter))
    }

    fn release(&mut self, settled: &Amounts) {
        if let Some(account) = self.account.take() {
            account.release(&std::mem::take(&mut self.taken), settled);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let Some(held) = &self.held else {
            // It may never have come as far as the journal: then only the memory gives way.
            return self.release(&Amounts::default());
        };
        let (bound_usage, made_ms) = (held.bound_usage, held.held_at_ms);
        let settlement = Settlement {
            outcome: Outcome::Disconnected,
            status: 0,
            usage: bound_usage,
            source: UsageSource::Estimated,
            upper: None,
            first_byte_ms: None,
            now_ms: self.sent_at_ms.unwrap_or(made_ms),
        };
        let never_sent = Settlement {
            outcome: Outcome::Failed,
            usage: Usage::default(),
            source: UsageSource::Provider,
            ..settlement
        };
        let settled = self.settle(if self.sent_at_ms.is_some() {
            &settlement
        } else {
            &never_sent
        });
        // Where even the journal fails, the hold stays open in it and is charged at the next start.
        drop(settled);
    }
}

#[cfg(test)]
mod tests;
