//! What is wrong with budgets and limits that read well, told with the place in the configuration.

use std::collections::HashSet;
use std::sync::Arc;

use super::{Budget, BudgetError};
use crate::config::{BudgetConfig, LimitConfig};
use crate::window::WindowError;

/// What is wrong with budgets or limits, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// A place in the configuration such as `budget[0].limit_usd`.
    pub place: String,
    pub message: String,
}

/// Everything wrong with budgets and limits that read well.
pub fn check(budgets: &[BudgetConfig], limits: &[LimitConfig]) -> Vec<Wrong> {
    let mut found = Vec::new();
    let mut ids = HashSet::new();
    let mut once = |budget: &Budget, place: String, found: &mut Vec<Wrong>| {
        if !ids.insert(Arc::clone(&budget.id)) {
            let message = format!("`{}` stands twice; leave one out, or name one", budget.name);
            found.push(Wrong { place, message });
        }
    };
    for (index, config) in budgets.iter().enumerate() {
        match Budget::new(config, 0) {
            Ok(budget) => once(&budget, format!("budget[{index}]"), &mut found),
            Err(error) => {
                let key = match &error {
                    BudgetError::Amount(wrong) if wrong.0 == config.limit_usd => "limit_usd",
                    BudgetError::Amount(wrong) if Some(&wrong.0) == config.grace_usd.as_ref() => {
                        "grace_usd"
                    }
                    BudgetError::Amount(_) => "borrow_usd",
                    BudgetError::Window(WindowError::Zone(_)) => "zone",
                    BudgetError::Window(WindowError::Month(_)) => "fiscal_start",
                    BudgetError::Moment(_) | BudgetError::NoLimit => "grace_until",
                };
                let message = match &error {
                    BudgetError::Amount(wrong) if wrong.0.starts_with('-') => {
                        format!("`{}` is negative; write 0 or more", wrong.0)
                    }
                    error => error.to_string(),
                };
                found.push(Wrong {
                    place: format!("budget[{index}].{key}"),
                    message,
                });
            }
        }
    }
    for (index, config) in limits.iter().enumerate() {
        let place = format!("rate_limit[{index}]");
        match Budget::limits(config, 0) {
            Ok(limits) => limits
                .iter()
                .for_each(|limit| once(limit, place.clone(), &mut found)),
            Err(error) => found.push(Wrong {
                place,
                message: error.to_string(),
            }),
        }
    }
    found
}
