//! What is written down about money: the hold before a call, and the entry that settles it.
//! Both travel through the journal as [`Record`]s; entries become rows of the ledger.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wire::{RequestId, Tier, Usage, UsageSource};

use crate::{NanoUsd, Routing};

/// Who pays: the path through the budget tree, from the tenant down to the key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Subject {
    pub tenant: Arc<str>,
    /// A team of the tenant; empty where the key has none.
    pub team: Arc<str>,
    /// A project of the team (or of the tenant, where there is no team); empty where there is none.
    pub project: Arc<str>,
    /// The public id of the key.
    pub key: Arc<str>,
    /// The end user that the caller names with `x-pareto-user`; empty where it names none.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub user: Arc<str>,
    /// The task that the caller names with `x-pareto-task`; empty where it names none.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub task: Arc<str>,
    /// The kind of task, from `x-pareto-workflow`; empty where the caller names none.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub workflow: Arc<str>,
}

impl Subject {
    /// The owner of a key, with nobody named beside it.
    pub fn of_key(tenant: &str, team: &str, project: &str, key: &str) -> Self {
        Self {
            tenant: Arc::from(tenant),
            team: Arc::from(team),
            project: Arc::from(project),
            key: Arc::from(key),
            user: Arc::default(),
            task: Arc::default(),
            workflow: Arc::default(),
        }
    }
}

fn is_empty(text: &Arc<str>) -> bool {
    text.is_empty()
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_nothing(amount: &NanoUsd) -> bool {
    *amount == NanoUsd::ZERO
}

/// A budget's window that a hold counts in, so that its settlement finds it again, on any node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Charge {
    /// The budget's id.
    pub budget: Arc<str>,
    /// The start of its window, in milliseconds since 1970.
    pub start_ms: i64,
}

/// A reservation, made before one attempt at one upstream. Identified by `(request, attempt)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub request: RequestId,
    /// 0 for the first upstream tried, 1 for the first fallback, and so on.
    pub attempt: u16,
    pub subject: Subject,
    /// The dialect's name, for instance `openai_chat`.
    pub dialect: Arc<str>,
    /// The `model` that the caller wrote.
    pub requested: Arc<str>,
    /// The configured model that this attempt goes to.
    pub model: Arc<str>,
    /// The configured endpoint that this attempt goes to.
    pub endpoint: Arc<str>,
    pub tier: Tier,
    /// Why this tier: `auto`, `pinned`, `fallback` and so on; see the router.
    pub reason: Arc<str>,
    /// The classifier's probability that deep is needed, in thousandths; `None` when it was not asked.
    pub score_milli: Option<u16>,
    pub stream: bool,
    /// Milliseconds since 1970 at which the hold was made; the call belongs to this moment's windows.
    pub held_at_ms: i64,
    /// The bound: this attempt can not cost more.
    pub bound: NanoUsd,
    /// Usage that the bound was computed from.
    pub bound_usage: Usage,
    /// Which prices rate it, for instance `openai/gpt-5-mini@2026-10-01T01:47:31Z`; empty when unpriced.
    pub price: Arc<str>,
    /// What the translation could not carry; empty where nothing was lost or translated.
    #[serde(default)]
    pub losses: Arc<str>,
    /// The conversation it belongs to.
    #[serde(default)]
    pub session: u64,
    /// The service lane that rates it: `standard`, `flex`, `priority`, `batch` and so on.
    #[serde(default)]
    pub lane: Arc<str>,
    /// The first digits of the price book's version, whose periods rated it.
    #[serde(default)]
    pub book: Arc<str>,
    /// The money budgets that carry it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub charges: Vec<Charge>,
    /// The check that a fast answer failed: this attempt's own, or that of the attempt which this one
    /// follows. Empty where none did.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub escalated: Arc<str>,
    /// Why it went there: all of it with the first attempt, class and step with later ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routing: Option<Box<Routing>>,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The answer was delivered whole.
    Completed,
    /// The caller left before the end.
    Disconnected,
    /// The upstream failed after it had begun to answer.
    Interrupted,
    /// The upstream refused or could not be reached; it bills nothing for that.
    Failed,
    /// The gateway died during the attempt, which is charged at its bound until reconciled.
    Orphaned,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 5] = [
        Self::Completed,
        Self::Disconnected,
        Self::Interrupted,
        Self::Failed,
        Self::Orphaned,
    ];

    /// The word used in labels and the ledger.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Disconnected => "disconnected",
            Self::Interrupted => "interrupted",
            Self::Failed => "failed",
            Self::Orphaned => "orphaned",
        }
    }
}

/// The settlement of one hold. A void is an entry that costs nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub held: Held,
    pub outcome: Outcome,
    /// The upstream's HTTP status; 0 where none arrived.
    pub status: u16,
    pub settled_at_ms: i64,
    pub usage: Usage,
    pub source: UsageSource,
    /// What the attempt cost. Zero for an unpriced model, whose `held.price` is empty.
    pub cost: NanoUsd,
    /// What the same usage would have cost at the deep tier; equal to `cost` for deep calls.
    pub baseline: NanoUsd,
    /// What the list price would have been, before discounts of one's own.
    #[serde(default)]
    pub list: NanoUsd,
    /// What the tenant pays for it, by the rules that can be told call by call.
    #[serde(default)]
    pub sell: NanoUsd,
    /// What cache reads saved against plain input, less the premium of cache writes.
    #[serde(default)]
    pub cache_saved: NanoUsd,
    /// What it may cost beyond `cost`, where its usage was only counted: hard budgets are charged with
    /// it too, until a bill tells.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub suspense: NanoUsd,
    /// The number of prompt tokens above which its long-context prices begin; 0 for the base prices.
    #[serde(default)]
    pub context_tier: u64,
    /// Milliseconds from the hold to the first content byte; `None` where none arrived.
    pub first_byte_ms: Option<u32>,
}

impl Entry {
    /// What nobody saw the end of: charged at its bound until reconciled.
    pub fn orphan(held: Held, now_ms: i64) -> Self {
        Self {
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
            suspense: NanoUsd::ZERO,
            context_tier: 0,
            first_byte_ms: None,
            held,
        }
    }
}

/// One record of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Record {
    Hold(Box<Held>),
    Settle(Box<Entry>),
}
