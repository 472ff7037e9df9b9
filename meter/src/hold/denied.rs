//! Why there is no hold, in words that a caller can act on.

use serde::{Deserialize, Serialize};

use crate::ledger::JournalError;
use crate::money::NanoUsd;
use crate::standing::Unit;

/// Why there is no hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "lowercase")]
pub enum Denied {
    #[error(
        "budget of {budget} is used up: limit {limit} USD, settled {settled}, held {held}, \
         this call may cost {needed}"
    )]
    Budget {
        budget: String,
        limit: NanoUsd,
        settled: NanoUsd,
        held: NanoUsd,
        needed: NanoUsd,
        /// Only other calls' holds stand in the way: waiting for their end may help.
        waits: bool,
        /// When the budget's next window begins, in milliseconds since 1970.
        resets_at_ms: Option<i64>,
    },
    #[error("limit of {limit}: {allowed}, and this call needs {needed} more than is left")]
    Rate {
        limit: String,
        unit: Unit,
        allowed: i64,
        needed: i64,
        /// Only calls under way stand in its way.
        waits: bool,
        /// When the minute ends, in milliseconds since 1970.
        resets_at_ms: Option<i64>,
    },
    #[error(
        "budget of {budget} leaves money only for models that cost nothing: limit {limit} USD, \
         settled {settled}; name a free model, or ask for a higher limit"
    )]
    OnlyFree {
        budget: String,
        limit: NanoUsd,
        settled: NanoUsd,
        resets_at_ms: Option<i64>,
    },
    #[error("model `{model}` has no price, and {budget} is a hard budget; add a [[price]] for it")]
    Unpriced { model: String, budget: String },
    #[error("what is left of {budget} can not be asked for at the moment; try again later")]
    Unavailable { budget: String },
    #[error(
        "the gateway's clock is {behind_ms} ms behind what it has seen, and {budget} is a hard \
         budget; try again later"
    )]
    Clock { budget: String, behind_ms: i64 },
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl Denied {
    /// Whether only other calls' holds stand in the way, so that waiting for their end may help.
    pub fn waits(&self) -> bool {
        matches!(
            self,
            Self::Budget { waits: true, .. } | Self::Rate { waits: true, .. }
        )
    }

    /// Which budget or limit turns a call away with it, and what that counts as.
    pub(super) fn decision(&self) -> Option<(&str, &'static str)> {
        match self {
            Self::Budget { budget, .. } | Self::OnlyFree { budget, .. } => Some((budget, "deny")),
            Self::Rate { limit, .. } => Some((limit, "deny")),
            Self::Unavailable { budget } | Self::Clock { budget, .. } => {
                Some((budget, "unavailable"))
            }
            Self::Unpriced { .. } | Self::Journal(_) => None,
        }
    }
}
