//! Taking up a configuration: its budgets, with what the ledger knows of their windows.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use super::{Account, Each};
use crate::budget::{Bucket, Budget, BudgetError, Override};
use crate::config::{BudgetConfig, LimitConfig};
use crate::entry::Subject;
use crate::hold::Meter;
use crate::ledger::{Known, LedgerError, Past};
use crate::standing::Unit;
use crate::window::Period;

/// What the ledger knows of windows, by budget.
pub(super) type Windows = HashMap<Arc<str>, Vec<Bucket>>;

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
        // What is known of the past is known as of now: a clock that is before it is not trusted.
        self.saw(now_ms);
        let mut wanted = Vec::with_capacity(budgets.len());
        for config in budgets {
            wanted.push(Budget::new(config, now_ms)?);
        }
        for config in limits {
            wanted.append(&mut Budget::limits(config, now_ms)?);
        }
        let known = take_up(&mut wanted, node, past)?;
        let mut each = self.each.write().unwrap_or_else(PoisonError::into_inner);
        let (budgets, wanted) = wanted.into_iter().partition(Budget::is_for_each_tenant);
        *each = Each {
            budgets,
            known,
            overrides: std::mem::take(&mut each.overrides),
        };
        self.share_out(&each, wanted);
        Ok(())
    }

    /// Gives each tenant that is known its budgets. Others get theirs with their first call.
    fn share_out(&self, each: &Each, wanted: Vec<Budget>) {
        let mut by_tenant: HashMap<Arc<str>, Vec<Budget>> = HashMap::new();
        for budget in wanted {
            by_tenant
                .entry(Arc::clone(&budget.tenant))
                .or_default()
                .push(budget);
        }
        if !each.budgets.is_empty() {
            for tenant in each.known.keys() {
                by_tenant.entry(Arc::clone(tenant)).or_default();
            }
        }
        let known = |tenant: &Arc<str>| each.known.get(tenant).cloned().unwrap_or_default();
        for account in &self.accounts {
            let own = by_tenant.remove(account.key()).unwrap_or_default();
            let mut books = account.value().lock();
            books.known = known(account.key());
            books.merge(each.with_own(account.key(), own));
        }
        for (tenant, own) in by_tenant {
            let account = Account::new(each.with_own(&tenant, own), known(&tenant));
            self.accounts.insert(tenant, Arc::new(account));
        }
    }

    /// Takes dated changes of limits; those that were there before and are not now are gone.
    pub fn set_overrides(&self, overrides: &[Override]) {
        let mut each = self.each.write().unwrap_or_else(PoisonError::into_inner);
        overrides.clone_into(&mut each.overrides);
        for account in &self.accounts {
            account.value().set_overrides(overrides);
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
/// not know, from what was spent by anybody it covers. Returns what patterns will need, by tenant.
fn take_up(
    wanted: &mut [Budget],
    node: &str,
    past: &dyn Past,
) -> Result<HashMap<Arc<str>, Windows>, LedgerError> {
    let money = || wanted.iter().filter(|it| it.unit == Unit::Usd);
    let Some(from_ms) = money()
        .filter(|it| it.span.end_ms.is_some())
        .map(|it| it.span.from_ms)
        .chain(money().map(|_| i64::MAX))
        .min()
    else {
        return Ok(HashMap::new());
    };
    let mut known: HashMap<Arc<str>, Windows> = HashMap::new();
    for row in past.windows(from_ms)? {
        let windows = known.entry(Arc::clone(&row.tenant)).or_default();
        let buckets = windows.entry(Arc::clone(&row.budget)).or_default();
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
        if !known.values().flat_map(Windows::keys).any(seen) {
            begun.append(&mut before(budget, past)?);
        }
    }
    past.begin_windows(&begun)?;
    for row in begun {
        let windows = known.entry(row.tenant).or_default();
        windows.entry(row.budget).or_default().push(Bucket {
            start_ms: row.start_ms,
            base: row.settled,
            ..Bucket::default()
        });
    }
    for budget in wanted.iter_mut() {
        if let Some(windows) = known.get(&budget.tenant) {
            remember(budget, windows);
        }
    }
    Ok(known)
}

/// What was spent in the present window by whom a new budget covers.
fn before(budget: &Budget, past: &dyn Past) -> Result<Vec<Known>, LedgerError> {
    let mut found: HashMap<(Arc<str>, Arc<str>, i64), i64> = HashMap::new();
    for row in past.spent(budget.span.from_ms)? {
        let mut subject = Subject::of_key(&row.tenant, &row.team, &row.project, &row.key);
        subject.user = Arc::clone(&row.user);
        let is_its = budget.is_for_each_tenant() || row.tenant == budget.tenant;
        if !is_its || !budget.scope.covers(&subject, &row.model) {
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
        let own = budget
            .is_for_each_tenant()
            .then(|| budget.for_tenant(&row.tenant));
        let own = own.as_ref().unwrap_or(budget);
        let id = if own.scope.is_pattern() {
            own.for_one(&subject).id
        } else {
            Arc::clone(&own.id)
        };
        let sum = found.entry((id, row.tenant, start_ms)).or_default();
        *sum = sum.saturating_add(row.cost.0);
    }
    let known = |((id, tenant, start_ms), settled)| Known {
        budget: id,
        start_ms,
        node: Arc::from(""),
        tenant,
        granted: 0,
        settled,
    };
    Ok(found.into_iter().map(known).collect())
}

/// Gives a budget what is known of its windows.
pub(super) fn remember(budget: &mut Budget, known: &Windows) {
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
    let later = past.iter().filter(|it| it.start_ms > start_ms);
    budget.ahead = later.copied().collect();
    if buckets.last().is_none_or(|last| last.start_ms < start_ms) {
        buckets.push(Bucket {
            start_ms,
            ..Bucket::default()
        });
    }
    budget.buckets = buckets.into();
}
