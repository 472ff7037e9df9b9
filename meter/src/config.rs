//! The meter's part of the configuration.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

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
    /// What becomes of offers of the price book whose sources differ.
    pub on_conflict: OnConflict,
    /// What becomes of calls under a hard budget that have no price.
    pub on_unpriced: OnUnpriced,
}

/// How figures that differ between the sources of the price book are settled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnConflict {
    /// Such offers are unpriced until a `[[price]]` settles them.
    #[default]
    Refuse,
    /// The higher figure of each class holds.
    Higher,
    /// The figures of the first source hold, which are those in the book's periods.
    First,
}

/// What becomes of a call under a hard budget that has no price.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnUnpriced {
    /// It is refused.
    #[default]
    Refuse,
    /// Its tokens are recorded, to be priced later; until then it costs the budget nothing.
    Meter,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            price_book: None,
            hold_wait_ms: 2_000,
            default_max_output: 4_096,
            on_conflict: OnConflict::Refuse,
            on_unpriced: OnUnpriced::Refuse,
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
    #[serde(default, deserialize_with = "moment")]
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

/// `[[price]]`: a price of one's own, before the price book. Amounts are USD for a million tokens, as
/// decimals in quotes. Of two that cover the same moment and lane the later one in the file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PriceConfig {
    /// The price's id, as models name it.
    pub id: String,
    /// Uncached prompt tokens. With `output`, own figures replace all lanes of the book.
    #[serde(default)]
    pub input: Option<String>,
    /// Answer tokens.
    #[serde(default)]
    pub output: Option<String>,
    /// Prompt tokens read from the cache; the input price when absent.
    #[serde(default)]
    pub cache_read: Option<String>,
    /// Prompt tokens written to the cache; the input price when absent.
    #[serde(default)]
    pub cache_write: Option<String>,
    /// Those that are kept for five minutes, or for an unstated time.
    #[serde(default)]
    pub cache_write_5m: Option<String>,
    /// Those that are kept for an hour.
    #[serde(default)]
    pub cache_write_1h: Option<String>,
    /// Reasoning tokens; the output price when absent.
    #[serde(default)]
    pub reasoning: Option<String>,
    /// Audio tokens of the prompt; the input price when absent.
    #[serde(default)]
    pub audio_input: Option<String>,
    /// A thousand searches by the provider; nothing when absent.
    #[serde(default)]
    pub web_search: Option<String>,
    /// The moment from which it holds; always when absent.
    #[serde(default, deserialize_with = "moment")]
    pub from: Option<String>,
    /// The moment from which it no longer holds.
    #[serde(default, deserialize_with = "moment")]
    pub until: Option<String>,
    /// The service lane it is for, such as `flex`; own figures without one are for the standard lane.
    #[serde(default)]
    pub lane: Option<String>,
    /// A share taken off every class: `0.12` is 12 %. Off the book's price where it has no figures.
    #[serde(default)]
    pub discount: Option<String>,
    /// The zero that the book records is meant: it is free.
    #[serde(default)]
    pub confirm_zero: bool,
    /// USD that arise every hour, shared out by tokens at the month's close.
    #[serde(default)]
    pub fixed_per_hour: Option<String>,
    /// Why it stands here, for people: a contract's number, for instance.
    #[serde(default)]
    pub why: Option<String>,
}

impl PriceConfig {
    /// A flat price: `input` and `output` in USD for a million tokens.
    pub fn flat(id: &str, input: &str, output: &str) -> Self {
        Self {
            id: id.to_owned(),
            input: Some(input.to_owned()),
            output: Some(output.to_owned()),
            ..Self::default()
        }
    }

    /// Classes with a figure of their own, beside input and output.
    pub(crate) fn classes(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("cache_read", &self.cache_read),
            ("cache_write", &self.cache_write),
            ("cache_write_5m", &self.cache_write_5m),
            ("cache_write_1h", &self.cache_write_1h),
            ("reasoning", &self.reasoning),
            ("audio_input", &self.audio_input),
        ]
        .into_iter()
        .filter_map(|(class, text)| Some((class, text.as_deref()?)))
    }
}

/// A moment: TOML's own date and time, or the same in quotes. A day alone begins at midnight UTC.
fn moment<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    struct Moment;
    impl<'de> Visitor<'de> for Moment {
        type Value = Option<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a moment such as 2026-12-01T00:00:00Z")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            let is_day = text.len() == 10;
            let full = if is_day {
                format!("{text}T00:00:00Z")
            } else {
                text.to_owned()
            };
            match full.parse::<jiff::Timestamp>() {
                Ok(at) => Ok(Some(at.to_string())),
                Err(_) => Err(E::custom(format!(
                    "`{text}` is not a moment; write 2026-12-01T00:00:00Z"
                ))),
            }
        }

        // The reader of TOML hands its own dates over as a map of one entry.
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            match map.next_entry::<String, String>()? {
                Some((_, text)) => self.visit_str(&text),
                None => Ok(None),
            }
        }
    }
    from.deserialize_any(Moment)
}

/// `[[sell]]`: what tenants pay. Amounts are decimal USD in quotes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SellConfig {
    /// The plan's name, for statements.
    pub plan: String,
    /// Who is on it; without any it is the plan of all the rest.
    #[serde(default)]
    pub tenants: Vec<String>,
    /// How use becomes money.
    pub rule: SellRule,
    /// `markup`: percent on top of the cost.
    #[serde(default)]
    pub pct: Option<String>,
    /// `fixed`: USD for a million tokens by class, named as in `[[price]]`; `web_search` for a thousand.
    #[serde(default)]
    pub prices: BTreeMap<String, String>,
    /// `graduated` and `volume`: steps from the lowest up; the last one has no `up_to`.
    #[serde(default)]
    pub tiers: Vec<SellTier>,
    /// What steps and packages count.
    #[serde(default)]
    pub measure: SellMeasure,
    /// `package`: units of a package; one that was begun is paid.
    #[serde(default)]
    pub package_size: Option<u64>,
    /// `package`: USD for each.
    #[serde(default)]
    pub package_price: Option<String>,
    /// USD each month, whatever is used.
    #[serde(default)]
    pub monthly_fee: Option<String>,
    /// Credits included each month; what is left of them expires.
    #[serde(default)]
    pub included_credits: Option<String>,
    /// USD that one credit is worth.
    #[serde(default)]
    pub credit_value: Option<String>,
    /// What happens beyond the included credits.
    #[serde(default)]
    pub overage: Overage,
}

/// How use becomes money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SellRule {
    /// Cost and a percentage, for each charge.
    Markup,
    /// Prices of classes, for each charge.
    Fixed,
    /// The month's units, each at the price of its own step.
    Graduated,
    /// The month's units, all at the price of the step that they reach.
    Volume,
    /// The month's units in packages.
    Package,
}

/// What the steps of a rule count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SellMeasure {
    /// Tokens of prompts and answers; prices are USD for a million.
    #[default]
    Tokens,
    /// Calls; prices are USD for each.
    Calls,
    /// Our cost in USD; prices are percent on top of it.
    Cost,
}

/// A step of a `graduated` or `volume` rule.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SellTier {
    /// The last unit in it: tokens, calls or USD; the highest step has none.
    #[serde(default)]
    pub up_to: Option<String>,
    /// USD for a million tokens or for each call; percent on top of the cost.
    pub unit_price: String,
    /// USD once, where the step is reached.
    #[serde(default)]
    pub flat_fee: Option<String>,
}

/// What happens when the included credits are used up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overage {
    /// It is not charged: what is beyond is kept small by a budget of the tenant.
    Block,
    /// It is charged.
    #[default]
    Bill,
}
