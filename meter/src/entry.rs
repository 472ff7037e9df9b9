//! What is written down about money: the hold before a call, and the entry that settles it.
//! Both travel through the journal as [`Record`]s; entries become rows of the ledger.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wire::{RequestId, Tier, Usage, UsageSource};

use crate::NanoUsd;

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
    /// Milliseconds from the hold to the first content byte; `None` where none arrived.
    pub first_byte_ms: Option<u32>,
}

/// One record of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Record {
    Hold(Box<Held>),
    Settle(Box<Entry>),
}
