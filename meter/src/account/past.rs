//! Taking up a configuration: its budgets, with what the ledger knows of their windows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::{Account, Books};
use crate::budget::{Bucket, Budget, BudgetError, Override};
use crate::config::{BudgetConfig, LimitConfig};
use crate::entry::Subject;
use crate::hold::Meter;
use crate::ledger::{Known, LedgerError, Past};
use crate::standing::Unit;
use crate::window::Period;

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
    past.begin_windows(&begun)?;
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
pub(super) fn remember(budget: &mut Budget, known: &HashMap<Arc<str>, Vec<Bucket>>) {
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
