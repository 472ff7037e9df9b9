//! Holds: a bound is reserved on every level of the path in one step, before the upstream sees the
//! call, and each hold ends in exactly one settlement.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dashmap::DashMap;
use tokio::sync::watch;
use wire::{Usage, UsageSource};

use crate::budget::Budget;
use crate::config::BudgetConfig;
use crate::entry::{Entry, Held, Outcome, Record, Subject};
use crate::ledger::{Journal, JournalError, LedgerError, Position, Spent};
use crate::money::{NanoUsd, ParseMoneyError};
use crate::price::Rates;

/// Decides who may spend, and writes down who did. One per process; cheap to share.
#[derive(Debug)]
pub struct Meter {
    /// One lock a tenant: all levels of a path lie in one tenant, so a hold is one atomic step.
    accounts: DashMap<Arc<str>, Arc<Account>>,
    journal: Arc<dyn Journal>,
}

#[derive(Debug)]
struct Account {
    /// Places never move: holds remember them. A budget taken out of the configuration is retired.
    budgets: Mutex<Vec<Budget>>,
    /// Counts holds that ended, for callers that wait.
    released: watch::Sender<u64>,
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
}

/// Why there is no hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error(
        "budget of {budget} is used up: limit {limit} USD, settled {settled}, held {held}, \
         this call may cost {needed}"
    )]
    Budget {
        budget: String,
        limit: NanoUsd,
        settled: NanoUsd,
        held: NanoUsd,
        needed: NanoUsd,
        /// Only other calls' holds stand in the way: waiting for their end may help.
        waits: bool,
        /// When the budget's next window begins, in milliseconds since 1970.
        resets_at_ms: Option<i64>,
    },
    #[error("model `{model}` has no price, and {budget} is a hard budget; add a [[price]] for it")]
    Unpriced { model: String, budget: String },
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// A reservation for one attempt. Dropped unsettled, it settles itself: at nothing before
/// [`Hold::sent`], at its bound afterwards, because the upstream may bill for what it was sent.
#[derive(Debug)]
pub struct Hold {
    meter: Arc<Meter>,
    account: Option<Arc<Account>>,
    /// Which budgets carry it, and in which of their windows.
    charges: Vec<(usize, i64)>,
    held: Option<Held>,
    rates: Option<Arc<Rates>>,
    baseline: Option<Arc<Rates>>,
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
    pub first_byte_ms: Option<u32>,
    pub now_ms: i64,
}

/// A settled hold. The books in memory are right whether or not it could be `written`.
#[derive(Debug)]
pub struct Settled {
    pub entry: Entry,
    pub written: Result<Position, JournalError>,
}

impl Meter {
    /// A meter that writes to `journal` and knows no budget yet.
    pub fn new(journal: Arc<dyn Journal>) -> Self {
        Self {
            accounts: DashMap::new(),
            journal,
        }
    }

    /// Takes the budgets of a new configuration. What is settled in each new one is read through
    /// `spent`, which gets the start of a window and answers from the ledger; budgets that were
    /// there keep what they know.
    ///
    /// # Errors
    /// When the ledger does not answer or a limit is no amount; nothing has changed then.
    pub fn configure(
        &self,
        budgets: &[BudgetConfig],
        now_ms: i64,
        mut spent: impl FnMut(i64) -> Result<Vec<Spent>, LedgerError>,
    ) -> Result<(), ConfigureError> {
        let mut by_start: HashMap<i64, Vec<Spent>> = HashMap::new();
        let mut by_tenant: HashMap<Arc<str>, Vec<Budget>> = HashMap::new();
        for config in budgets {
            let mut budget = Budget::new(config, now_ms)?;
            let rows = match by_start.entry(budget.start_ms) {
                Slot::Occupied(known) => known.into_mut(),
                Slot::Vacant(new) => new.insert(spent(budget.start_ms)?),
            };
            budget.load(rows, &config.tenant);
            by_tenant
                .entry(Arc::from(config.tenant.as_str()))
                .or_default()
                .push(budget);
        }
        for account in &self.accounts {
            let wanted = by_tenant.remove(account.key()).unwrap_or_default();
            merge(&mut account.value().lock(), wanted);
        }
        for (tenant, budgets) in by_tenant {
            let account = Account {
                budgets: Mutex::new(budgets),
                released: watch::Sender::new(0),
            };
            self.accounts.insert(tenant, Arc::new(account));
        }
        Ok(())
    }

    /// Charges the holds that an earlier process left open: at their bound, until reconciled. Call
    /// before [`Meter::configure`], with the entries applied to the ledger in between.
    pub fn recover(&self, open: Vec<Held>, now_ms: i64) -> Result<usize, JournalError> {
        let count = open.len();
        for held in open {
            let entry = Entry {
                outcome: Outcome::Orphaned,
                status: 0,
                settled_at_ms: now_ms,
                usage: held.bound_usage,
                source: UsageSource::Estimated,
                cost: held.bound,
                baseline: held.bound,
                list: held.bound,
                sell: held.bound,
                cache_saved: NanoUsd::ZERO,
                context_tier: 0,
                first_byte_ms: None,
                held,
            };
            self.journal.append(&Record::Settle(Box::new(entry)))?;
        }
        Ok(count)
    }

    /// Reserves the bound of `estimate` on every budget of its path, or on none.
    ///
    /// The hold is in the journal when this returns; await [`Hold::synced`] before the first byte
    /// of the answer goes out.
    pub fn hold(self: &Arc<Self>, estimate: Estimate, now_ms: i64) -> Result<Hold, Denied> {
        let Estimate {
            mut held,
            rates,
            baseline,
        } = estimate;
        let usage = held.bound_usage;
        held.held_at_ms = now_ms;
        held.bound = rates.as_ref().map_or(NanoUsd::ZERO, |rates| {
            rates.bound(usage.prompt(), usage.answer())
        });
        held.price = rates
            .as_ref()
            .map_or_else(|| Arc::from(""), |rates| Arc::clone(&rates.id));
        let account = self.account(&held.subject.tenant);
        let charges = match &account {
            Some(account) => account.reserve(&held, rates.is_some(), now_ms)?,
            None => Vec::new(),
        };
        let mut hold = Hold {
            meter: Arc::clone(self),
            account,
            charges,
            held: None,
            rates,
            baseline,
            position: Position::default(),
            sent_at_ms: None,
        };
        let record = Record::Hold(Box::new(held));
        let written = self.journal.append(&record);
        let Record::Hold(held) = record else {
            return Ok(hold);
        };
        match written {
            Ok(position) => {
                hold.position = position;
                hold.held = Some(*held);
                Ok(hold)
            }
            Err(error) => {
                // It was never written, so there is nothing to settle: only the memory gives way.
                hold.release(held.bound, NanoUsd::ZERO);
                Err(error.into())
            }
        }
    }

    /// What hard budgets leave for `subject` now, or `None` where no hard budget covers it.
    pub fn room(&self, subject: &Subject, now_ms: i64) -> Option<NanoUsd> {
        let account = self.account(&subject.tenant)?;
        let mut budgets = account.lock();
        budgets
            .iter_mut()
            .filter(|budget| budget.hard && budget.covers(subject))
            .map(|budget| {
                budget.roll(now_ms);
                budget.left()
            })
            .min()
    }

    /// Changes whenever a hold of `tenant` ends. Subscribe before trying [`Meter::hold`], so that no
    /// end is missed in between. `None` where the tenant has no budget.
    pub fn releases(&self, tenant: &str) -> Option<watch::Receiver<u64>> {
        self.account(tenant)
            .map(|account| account.released.subscribe())
    }

    /// Every configured budget as it stands, by tenant.
    pub fn budgets(&self, now_ms: i64) -> Vec<(Arc<str>, Vec<Budget>)> {
        let mut all: Vec<_> = self
            .accounts
            .iter()
            .map(|account| {
                let mut budgets = account.value().lock();
                budgets.iter_mut().for_each(|budget| budget.roll(now_ms));
                (Arc::clone(account.key()), budgets.clone())
            })
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    fn account(&self, tenant: &str) -> Option<Arc<Account>> {
        self.accounts
            .get(tenant)
            .map(|account| Arc::clone(account.value()))
    }
}

impl Account {
    fn lock(&self) -> MutexGuard<'_, Vec<Budget>> {
        // A panic while the lock was held can not have left a half-made change: see `reserve`.
        self.budgets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks every budget of the path first and changes them all afterwards.
    fn reserve(&self, held: &Held, priced: bool, now_ms: i64) -> Result<Vec<(usize, i64)>, Denied> {
        let mut budgets = self.lock();
        for budget in budgets
            .iter_mut()
            .filter(|budget| budget.covers(&held.subject))
        {
            budget.roll(now_ms);
            if budget.hard {
                admit(budget, held, priced)?;
            }
        }
        let mut charges = Vec::new();
        for (place, budget) in budgets.iter_mut().enumerate() {
            if budget.covers(&held.subject) {
                budget.held += held.bound;
                charges.push((place, budget.start_ms));
            }
        }
        Ok(charges)
    }
}

fn admit(budget: &Budget, held: &Held, priced: bool) -> Result<(), Denied> {
    if !priced {
        return Err(Denied::Unpriced {
            model: held.model.to_string(),
            budget: budget.name.clone(),
        });
    }
    if held.bound <= budget.left() {
        return Ok(());
    }
    Err(Denied::Budget {
        budget: budget.name.clone(),
        limit: budget.limit,
        settled: budget.settled,
        held: budget.held,
        needed: held.bound,
        waits: budget.settled + held.bound <= budget.limit,
        resets_at_ms: budget.resets_at_ms,
    })
}

/// Brings `present` in line with `wanted`: same nodes take the new limits, others retire, new ones
/// go to the end.
fn merge(present: &mut Vec<Budget>, mut wanted: Vec<Budget>) {
    for budget in present.iter_mut() {
        let at = wanted.iter().position(|other| budget.is_same(other));
        let config = at.map(|at| wanted.swap_remove(at));
        budget.adopt(config.as_ref());
    }
    present.append(&mut wanted);
}

/// The new configuration of budgets can not be taken.
#[derive(Debug, thiserror::Error)]
pub enum ConfigureError {
    #[error("limit_usd of a budget: {0}")]
    Limit(#[from] ParseMoneyError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Hold {
    /// The upstream is about to see the call: from here on, dropping the hold charges its bound.
    pub fn sent(&mut self, now_ms: i64) {
        self.sent_at_ms = Some(now_ms);
    }

    /// What was reserved; `None` only once settled.
    pub fn held(&self) -> Option<&Held> {
        self.held.as_ref()
    }

    /// Waits until the hold is on the disk.
    pub async fn synced(&self) -> Result<(), JournalError> {
        self.meter.journal.synced(self.position).await
    }

    /// Settles the attempt at what it used.
    pub fn post(mut self, settlement: &Settlement) -> Option<Settled> {
        self.settle(settlement)
    }

    fn settle(&mut self, settlement: &Settlement) -> Option<Settled> {
        let held = self.held.take()?;
        let Settlement {
            outcome,
            status,
            usage,
            source,
            first_byte_ms,
            now_ms,
        } = *settlement;
        let cost = match (&self.rates, source) {
            // The bound's classes are not known, so it is charged as the amount it is.
            (Some(_), UsageSource::Estimated) => held.bound,
            (Some(rates), _) => rates.cost(&usage),
            (None, _) => NanoUsd::ZERO,
        };
        let baseline = match &self.baseline {
            Some(rates) if source != UsageSource::Estimated => rates.cost(&usage),
            _ => cost,
        };
        self.release(held.bound, cost);
        let entry = Entry {
            held,
            outcome,
            status,
            settled_at_ms: now_ms,
            usage,
            source,
            cost,
            baseline,
            list: cost,
            sell: cost,
            cache_saved: NanoUsd::ZERO,
            context_tier: 0,
            first_byte_ms,
        };
        let record = Record::Settle(Box::new(entry));
        let written = self.meter.journal.append(&record);
        let Record::Settle(entry) = record else {
            return None;
        };
        Some(Settled {
            entry: *entry,
            written,
        })
    }

    fn release(&mut self, bound: NanoUsd, cost: NanoUsd) {
        let Some(account) = self.account.take() else {
            return;
        };
        let mut budgets = account.lock();
        for (place, start_ms) in self.charges.drain(..) {
            // A window that has passed keeps its figures in the ledger alone.
            if let Some(budget) = budgets.get_mut(place).filter(|b| b.start_ms == start_ms) {
                budget.held = budget.held - bound;
                budget.settled += cost;
            }
        }
        drop(budgets);
        account
            .released
            .send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let Some(held) = &self.held else { return };
        let (bound_usage, made_ms) = (held.bound_usage, held.held_at_ms);
        let settlement = Settlement {
            outcome: Outcome::Disconnected,
            status: 0,
            usage: bound_usage,
            source: UsageSource::Estimated,
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
