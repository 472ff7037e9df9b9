//! The meter's part of the configuration.

use serde::Deserialize;

use crate::budget::Window;

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

/// `[[budget]]`: a limit on one node of the tree tenant, team, project, key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BudgetConfig {
    /// The tenant it limits.
    pub tenant: String,
    /// Narrows it to one team of the tenant.
    #[serde(default)]
    pub team: Option<String>,
    /// Narrows it to one project.
    #[serde(default)]
    pub project: Option<String>,
    /// Narrows it to one key, by its public id.
    #[serde(default)]
    pub key: Option<String>,
    /// The limit: decimal USD in quotes.
    pub limit_usd: String,
    /// The calendar window, in UTC, after which it begins anew.
    pub window: Window,
    /// A hard budget refuses what does not fit; a soft one only shows it.
    #[serde(default = "yes")]
    pub hard: bool,
}

fn yes() -> bool {
    true
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
