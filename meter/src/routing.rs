//! Why a call went where it did, and what came of it: kept with its first attempt, so that a decision
//! can be explained, made again under another policy, and learned from.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wire::{RequestId, Tier};

use crate::finance::{Filter, Routed};
use crate::{LedgerError, NanoUsd};

/// One decision of the router.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Routing {
    /// The class whose split counts the call.
    pub class: Arc<str>,
    /// The step of an agent's work that it was taken for.
    pub step: Arc<str>,
    /// The score that deep is needed and the threshold at that moment, in millionths; absent where
    /// nothing was scored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score_ppm: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold_ppm: Option<u32>,
    /// How likely the tier was, in millionths: what estimates divide by. 0 where the first model asked is
    /// of the other tier, because none of the chosen one was at hand: that was no choice.
    pub propensity_ppm: u32,
    /// What the last layer of the classifier saw, and which state of it looked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<i32>,
    #[serde(skip_serializing_if = "is_zero")]
    pub head: u32,
    /// The version of the classifier's weights.
    pub weights: Arc<str>,
    /// Rules that applied, and rules on trial that would have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Arc<str>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub would: Vec<Arc<str>>,
    /// Models that might have answered but for a filter, each with the filter's name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub barred: Vec<(Arc<str>, Arc<str>)>,
    /// The sensitivity label that the call bore, and the headers that rules look at.
    #[serde(skip_serializing_if = "is_empty")]
    pub label: Arc<str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(Arc<str>, Arc<str>)>,
    /// What it needs a model to be able to do, one bit each, and about how long its prompt is.
    #[serde(skip_serializing_if = "is_zero")]
    pub needs: u32,
    pub prompt_tokens: u64,
    /// The model that the conversation was with before, and what leaving its cache was worth.
    #[serde(skip_serializing_if = "is_empty")]
    pub seat: Arc<str>,
    #[serde(skip_serializing_if = "is_nothing")]
    pub lost: NanoUsd,
}

fn is_empty(text: &Arc<str>) -> bool {
    text.is_empty()
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_nothing(amount: &NanoUsd) -> bool {
    *amount == NanoUsd::ZERO
}

/// What a verdict rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VerdictKind {
    /// Somebody, or a judge, scored the answer.
    Score,
    /// How much of the answer was kept when it was edited.
    Edit,
    /// The caller went on to a better model by itself.
    Escalation,
    /// The task that the call belongs to succeeded or failed.
    Outcome,
}

impl VerdictKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Score, Self::Edit, Self::Escalation, Self::Outcome];

    /// The word used in the ledger and in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Score => "score",
            Self::Edit => "edit",
            Self::Escalation => "escalation",
            Self::Outcome => "outcome",
        }
    }
}

/// What somebody says of an answer, with what the ledger knew of its call then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feedback {
    pub request: RequestId,
    pub tenant: Arc<str>,
    pub kind: VerdictKind,
    /// How good it was, from 0 to 1,000,000.
    pub good_ppm: u32,
    /// Words of whoever says so; at most 500 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// The public id of the key that said so.
    pub by: Arc<str>,
    pub at_ms: i64,
    /// When the call was held, the model that answered at last, and its tier.
    pub held_at_ms: i64,
    pub model: Arc<str>,
    pub tier: Tier,
    /// The tier that the router chose, and why; another answered where it escalated or failed over.
    pub first_tier: Tier,
    pub reason: Arc<str>,
    pub routing: Routing,
    /// All attempts together, and the same usage at the deep tier.
    pub cost: NanoUsd,
    pub baseline: NanoUsd,
}

impl Feedback {
    /// Whether the answer is what the choice of the first tier led to: of a call that escalated it is, of
    /// one that failed over to the other tier it is not.
    pub fn tells_of_the_choice(&self) -> bool {
        let is_led_to = self.tier == self.first_tier || &*self.reason == "escalated";
        is_led_to && self.routing.propensity_ppm > 0
    }
}

/// The storage of verdicts. All methods block.
pub trait Verdicts: Send + Sync + std::fmt::Debug {
    /// Adds a verdict; `false` where it is what was said last, or as much has been said of the call as is
    /// kept.
    ///
    /// # Errors
    /// When the storage does not take it.
    fn add(&self, feedback: &Feedback) -> Result<bool, LedgerError>;

    /// Verdicts behind sequence number `after`, in their order, each with its number; `None` in the place
    /// of those that are not the first of their kind on their call.
    ///
    /// # Errors
    /// When the storage does not answer.
    fn after(&self, after: i64, limit: u32) -> Result<Vec<(i64, Option<Feedback>)>, LedgerError>;

    /// Verdicts on calls that were held in a span of time; of several of one kind on one call, the last.
    ///
    /// # Errors
    /// When the storage does not answer.
    fn between(
        &self,
        from_ms: i64,
        until_ms: i64,
        tenant: Option<&str>,
    ) -> Result<Vec<Feedback>, LedgerError>;
}

/// An estimate with its 95 % interval, and the calls it rests on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Interval {
    pub value: i64,
    pub low: i64,
    pub high: i64,
    pub calls: u32,
    /// It rests on enough calls that went the way it tells of; if not, it says nothing.
    pub is_telling: bool,
}

/// What a tenant's verdicts have taught the last layer of the classifier.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Learning {
    pub tenant: String,
    /// Verdicts that were learned from.
    pub judged: u64,
    /// What was learned scores the tenant's calls.
    pub serves: bool,
    /// How often it began to, and was rolled back.
    pub turns: u32,
    /// The estimated gain in quality a call against the head that everybody begins with, and its
    /// deviation, in millionths.
    pub gain_ppm: i64,
    pub deviation_ppm: i64,
}

/// What routing is worth: sums of the ledger, and estimates from the control group and verdicts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Worth {
    pub routes: Vec<Routed>,
    /// Mean quality in millionths of what was routed, and had all of it gone fast, deep, or by a lot with
    /// the same share.
    pub routed: Interval,
    pub fast: Interval,
    pub deep: Interval,
    pub lot: Interval,
    /// The routed quality above that of the lot, and below that of all deep, in millionths.
    pub over_lot: Interval,
    pub under_deep: Interval,
    /// What a scored call costs less than it would have cost at the deep tier with an answer of the deep
    /// tier's own length, in nano-USD.
    pub saved_per_call: Interval,
    /// What each tenant's verdicts have taught.
    pub learning: Vec<Learning>,
    /// Calls that were scored, calls among them that were drawn by lot, and verdicts on calls.
    pub scored: i64,
    pub drawn: u32,
    pub verdicts: u32,
}

/// Who can tell what routing is worth.
pub trait Appraiser: Send + Sync + std::fmt::Debug {
    /// The worth of routing in a filter's time; of its names, the tenant is heard.
    ///
    /// # Errors
    /// When the ledger does not answer.
    fn worth(&self, filter: &Filter) -> Result<Worth, LedgerError>;
}
