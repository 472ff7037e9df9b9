//! How a budget stands, for people: what pages, metrics and the admin API show of it.

use serde::{Deserialize, Serialize};

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Nano-USD.
    Usd,
    /// Requests.
    Requests,
    /// Tokens of prompt and answer.
    Tokens,
    /// Calls under way at once.
    Concurrency,
}

/// One budget or rate limit with its present state. Amounts are in its unit: nano-USD for money.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// Its stable name, which charges and the decisions log carry.
    pub id: String,
    pub tenant: String,
    /// `tenant`, `team`, `project`, `key`, `user`, `task` or `model`: the narrowest thing it names.
    pub level: &'static str,
    /// What it names below the tenant, widest first, and `model` for each of its models.
    pub covers: Vec<(&'static str, String)>,
    /// What it limits, for people: `tenant acme, team search, per month`.
    pub name: String,
    /// The id of the budget above it, where there is one.
    pub parent: Option<String>,
    pub unit: Unit,
    /// For people: `month`, `day in Europe/Berlin`, `rolling 24 h`, `fiscal quarter`.
    pub window: String,
    pub hard: bool,
    /// The limit as configured.
    pub limit: i64,
    /// What grace and overrides in force add to it.
    pub extra: i64,
    pub settled: i64,
    pub held: i64,
    /// What other nodes may still spend of it; 0 where the ledger is not shared.
    pub leased: i64,
    pub start_ms: i64,
    /// How long its window is; `None` where it never ends.
    pub window_ms: Option<i64>,
    /// When its next window begins; `None` where it never does, or rolls.
    pub resets_at_ms: Option<i64>,
    /// Per cent of the limit at which something happens: tell, force the fast tier, free models only.
    pub thresholds: Vec<u8>,
    /// What it does to calls at present: `allow`, `tell`, `fast`, `free` or `deny`.
    pub state: &'static str,
    /// Whether the burn is slowed so that the money lasts to the window's end.
    pub paced: bool,
}

impl Standing {
    /// What may still be held, with grace and overrides; never below nothing.
    pub fn left(&self) -> i64 {
        self.limit
            .saturating_add(self.extra)
            .saturating_sub(self.settled)
            .saturating_sub(self.held)
            .saturating_sub(self.leased)
            .max(0)
    }
}
