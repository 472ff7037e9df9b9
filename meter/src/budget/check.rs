//! What is wrong with budgets and limits that read well, told with the place in the configuration.

use std::collections::HashSet;
use std::sync::Arc;

use super::scope::EACH;
use super::{Budget, BudgetError};
use crate::config::{BudgetConfig, Degrade, LimitConfig};
use crate::window::WindowError;

/// What is wrong with budgets or limits, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// A place in the configuration such as `budget[0].limit_usd`.
    pub place: String,
    pub message: String,
}

/// Everything wrong with budgets and limits that read well, where `models` are those that there are.
pub fn check(budgets: &[BudgetConfig], limits: &[LimitConfig], models: &[&str]) -> Vec<Wrong> {
    let mut found = Vec::new();
    for (index, config) in budgets.iter().enumerate() {
        let place = format!("budget[{index}]");
        applies(&place, &covered(config), &config.models, models, &mut found);
        shares(&place, config, &mut found);
    }
    for (index, config) in limits.iter().enumerate() {
        let place = format!("rate_limit[{index}]");
        applies(&place, &limited(config), &config.models, models, &mut found);
    }
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
                    BudgetError::Amount(wrong) if wrong.text == config.limit_usd => "limit_usd",
                    BudgetError::Amount(wrong)
                        if Some(&wrong.text) == config.grace_usd.as_ref() =>
                    {
                        "grace_usd"
                    }
                    BudgetError::Amount(_) => "borrow_usd",
                    BudgetError::Window(WindowError::Zone(_)) => "zone",
                    BudgetError::Window(WindowError::Month(_)) => "fiscal_start",
                    BudgetError::Moment(_) | BudgetError::NoLimit => "grace_until",
                };
                let message = match &error {
                    BudgetError::Amount(wrong) if wrong.text.starts_with('-') => {
                        format!("`{}` is negative; write 0 or more", wrong.text)
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

/// What is named, by key; the tenant first.
type Named<'a> = [(&'static str, Option<&'a str>); 6];

fn covered(config: &BudgetConfig) -> Named<'_> {
    [
        ("tenant", Some(&config.tenant)),
        ("team", config.team.as_deref()),
        ("project", config.project.as_deref()),
        ("key", config.key.as_deref()),
        ("user", config.user.as_deref()),
        ("task", config.task.as_deref()),
    ]
}

fn limited(config: &LimitConfig) -> Named<'_> {
    [
        ("tenant", Some(&config.tenant)),
        ("team", config.team.as_deref()),
        ("project", config.project.as_deref()),
        ("key", config.key.as_deref()),
        ("user", config.user.as_deref()),
        ("task", config.task.as_deref()),
    ]
}

/// Names that no call has: what covers no call limits nothing, and nobody would see it.
fn applies(
    place: &str,
    named: &Named<'_>,
    own: &[String],
    models: &[&str],
    found: &mut Vec<Wrong>,
) {
    let mut say = |key: &str, message: String| {
        found.push(Wrong {
            place: format!("{place}.{key}"),
            message,
        });
    };
    for (key, name) in named {
        match name {
            Some("") => say(
                key,
                "is empty; name one, or write \"*\" for each one".to_owned(),
            ),
            Some(name) if name.contains('*') && *name != EACH => {
                let message =
                    format!("`{name}` is no pattern; name one, or write \"*\" for each one");
                say(key, message);
            }
            _ => {}
        }
    }
    for (index, model) in own.iter().enumerate() {
        if models.contains(&model.as_str()) {
            continue;
        }
        let known = models.join(", ");
        let message = match model.as_str() {
            EACH => "leave `models` out for all of them".to_owned(),
            "auto" | "fast" | "deep" => {
                format!(
                    "`{model}` is what callers write; name models that their calls go to: {known}"
                )
            }
            _ => format!("no model `{model}`; write one of {known}"),
        };
        say(&format!("models[{index}]"), message);
    }
}

/// Parts of the limit that nothing ever reaches.
fn shares(place: &str, config: &BudgetConfig, found: &mut Vec<Wrong>) {
    if config.thresholds.iter().any(|it| !(1..=200).contains(it)) {
        found.push(Wrong {
            place: format!("{place}.thresholds"),
            message: "per cent of the limit are from 1 to 200".to_owned(),
        });
    }
    let Degrade { tell, fast, free } = config.degrade;
    for (key, share) in [("tell", tell), ("fast", fast), ("free", free)] {
        if config.hard && share > 100 {
            found.push(Wrong {
                place: format!("{place}.degrade.{key}"),
                message: "a hard budget ends at 100 per cent; write 0 for never".to_owned(),
            });
        }
    }
}
