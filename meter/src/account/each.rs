//! Budgets and limits of `tenant = "*"`: every tenant has its own of them, made when it is first asked for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::past::{Windows, remember};
use super::{Account, Books};
use crate::budget::{Budget, Override};
use crate::hold::Meter;

/// What tenants without an account get one of.
#[derive(Debug, Default)]
pub(crate) struct Each {
    /// They stand for no tenant yet.
    pub(super) budgets: Vec<Budget>,
    /// What the ledger knew of windows, by tenant.
    pub(super) known: HashMap<Arc<str>, Windows>,
    pub(super) overrides: Vec<Override>,
}

impl Each {
    /// The budgets of `tenant`: its own, and those that every tenant has. One of its own stands for one of
    /// everybody's that covers the same for as long.
    pub(super) fn with_own(&self, tenant: &Arc<str>, mut own: Vec<Budget>) -> Vec<Budget> {
        for each in &self.budgets {
            let same = |it: &Budget| {
                it.scope == each.scope && it.unit == each.unit && it.window == each.window
            };
            if own.iter().any(same) {
                continue;
            }
            let mut budget = each.for_tenant(tenant);
            if let Some(known) = self.known.get(tenant) {
                remember(&mut budget, known);
            }
            own.push(budget);
        }
        own
    }
}

impl Account {
    pub(super) fn new(budgets: Vec<Budget>, known: Windows) -> Self {
        let mut books = Books {
            known,
            ..Books::default()
        };
        books.merge(budgets);
        Self {
            books: Mutex::new(books),
            released: watch::Sender::new(0),
        }
    }

    /// Takes dated changes of limits; those that were there before and are not now are gone.
    pub(super) fn set_overrides(&self, overrides: &[Override]) {
        let mut books = self.lock();
        for budget in books.budgets.values_mut() {
            let own = overrides.iter().filter(|it| *it.budget == *budget.id);
            budget.overrides = own.cloned().collect();
        }
        let later = overrides
            .iter()
            .filter(|it| books.patterns.iter().any(|made| made.has_made(&it.budget)));
        books.overrides = later.cloned().collect();
    }
}

impl Meter {
    /// The budgets that calls of `tenant` count against; `None` where there are none.
    pub(crate) fn account(&self, tenant: &str) -> Option<Arc<Account>> {
        if let Some(account) = self.accounts.get(tenant) {
            return Some(Arc::clone(account.value()));
        }
        // Kept until the account is there to be seen: a new configuration comes before it or after it.
        let each = self.each.read().unwrap_or_else(PoisonError::into_inner);
        if each.budgets.is_empty() {
            return None;
        }
        let tenant = Arc::from(tenant);
        let made = || {
            let known = each.known.get(&tenant).cloned().unwrap_or_default();
            let account = Account::new(each.with_own(&tenant, Vec::new()), known);
            account.set_overrides(&each.overrides);
            Arc::new(account)
        };
        let account = self
            .accounts
            .entry(Arc::clone(&tenant))
            .or_insert_with(made);
        Some(Arc::clone(account.value()))
    }
}
