//! The meter's part of the configuration.

use serde::Deserialize;

use crate::window::Period;

/// `[meter]`: how holds are made.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A price book file that replaces the embedded one, in the format of `config/prices.json`.
    pub price_book: Option<std::path::PathBuf>,
    /// Milliseconds that a call waits when only other calls' holds stand between it and the budget.
    pub hold_wait_ms: u64,
    /// Output cap in tokens written into a call under a hard budget that names none.
    pub default_max_output: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            price_book: None,
            hold_wait_ms: 2_000,
            default_max_output: 4_096,
        }
    }
}

/// `[[budget]]`: a limit in money on one node of the tree tenant, team, project, key, or on a user, a
/// task or some models. `"*"` as a name stands for each one of its own.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BudgetConfig {
    /// The tenant it limits.
    pub tenant: String,
    /// What it is called, in answers and logs; made of what it limits if absent.
    #[serde(default)]
    pub name: Option<String>,
    /// Narrows it to one team of the tenant.
    #[serde(default)]
    pub team: Option<String>,
    /// Narrows it to one project.
    #[serde(default)]
    pub project: Option<String>,
    /// Narrows it to one key, by its public id.
    #[serde(default)]
    pub key: Option<String>,
    /// Narrows it to one end user, as callers name them with `x-pareto-user`.
    #[serde(default)]
    pub user: Option<String>,
    /// Narrows it to one task, as callers name them with `x-pareto-task`.
    #[serde(default)]
    pub task: Option<String>,
    /// Narrows it to some models.
    #[serde(default)]
    pub models: Vec<String>,
    /// The limit: decimal USD in quotes.
    pub limit_usd: String,
    /// The window after which it begins anew, or over which it rolls.
    pub window: Period,
    /// The time zone in which days and months begin.
    #[serde(default = "utc")]
    pub zone: String,
    /// The month, 1 to 12, in which the fiscal year of quarters and years begins.
    #[serde(default = "january")]
    pub fiscal_start: i8,
    /// A hard budget refuses what does not fit; a soft one only shows it.
    #[serde(default = "yes")]
    pub hard: bool,
    /// Decimal USD that may be spent beyond the limit.
    #[serde(default)]
    pub grace_usd: Option<String>,
    /// The moment, such as 2026-12-01T00:00:00Z, until which there is grace; always if absent.
    #[serde(default)]
    pub grace_until: Option<String>,
    /// Decimal USD that it may borrow of what the budget above it has not given to others.
    #[serde(default)]
    pub borrow_usd: Option<String>,
    /// Per cent of the limit at which webhooks are told.
    #[serde(default = "told_at")]
    pub thresholds: Vec<u8>,
    /// What happens before the limit is reached.
    #[serde(default)]
    pub degrade: Degrade,
    /// `linear` sends fewer calls to the deep tier when the money would not last to the window's end.
    #[serde(default)]
    pub pacing: Pacing,
}

impl BudgetConfig {
    /// A hard budget of a whole tenant, with nothing else said.
    pub fn of_tenant(tenant: &str, limit_usd: &str, window: Period) -> Self {
        Self {
            tenant: tenant.to_owned(),
            name: None,
            team: None,
            project: None,
            key: None,
            user: None,
            task: None,
            models: Vec::new(),
            limit_usd: limit_usd.to_owned(),
            window,
            zone: utc(),
            fiscal_start: january(),
            hard: true,
            grace_usd: None,
            grace_until: None,
            borrow_usd: None,
            thresholds: told_at(),
            degrade: Degrade::default(),
            pacing: Pacing::None,
        }
    }
}

/// `budget.degrade`: per cent of the limit at which calls are treated otherwise; 0 for never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Degrade {
    /// Answers tell what is left, in `x-pareto-budget-remaining`.
    pub tell: u8,
    /// Calls that leave the choice to the router go to the fast tier.
    pub fast: u8,
    /// Only models that cost nothing are called.
    pub free: u8,
}

impl Default for Degrade {
    fn default() -> Self {
        Self {
            tell: 75,
            fast: 90,
            free: 98,
        }
    }
}

/// Whether the burn is slowed before the limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pacing {
    #[default]
    None,
    /// The plan is a straight line over the window.
    Linear,
}

/// `[[limit]]`: a limit on the rate of calls, on the same tree as budgets.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitConfig {
    /// The tenant it limits.
    pub tenant: String,
    #[serde(default)]
    pub team: Option<String>,
    #[serde(default)]
    pub project: Option<String>,
    #[serde(default)]
    pub key: Option<String>,
    #[serde(default)]
    pub user: Option<String>,
    #[serde(default)]
    pub task: Option<String>,
    #[serde(default)]
    pub models: Vec<String>,
    /// Calls a minute.
    #[serde(default)]
    pub requests_per_minute: Option<u32>,
    /// Tokens a minute, of prompts and answers; what a call may use is reserved first.
    #[serde(default)]
    pub tokens_per_minute: Option<u64>,
    /// Calls under way at once.
    #[serde(default)]
    pub concurrency: Option<u32>,
}

fn yes() -> bool {
    true
}

fn utc() -> String {
    "UTC".to_owned()
}

fn january() -> i8 {
    1
}

fn told_at() -> Vec<u8> {
    vec![50, 75, 90, 100]
}

/// `[[price]]`: a price of one's own, before the price book. Amounts are USD for a million tokens.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceConfig {
    /// The price's id, as models name it.
    pub id: String,
    /// Uncached prompt tokens.
    pub input: String,
    /// Answer tokens.
    pub output: String,
    /// Prompt tokens read from the cache; the input price when absent.
    #[serde(default)]
    pub cache_read: Option<String>,
    /// Prompt tokens written to the cache; the input price when absent.
    #[serde(default)]
    pub cache_write: Option<String>,
}
