//! The two kinds of model a call can go to.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// `Fast` models are cheap and quick, `Deep` models dear and better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    Fast,
    Deep,
}

impl Tier {
    /// Both tiers, cheapest first.
    pub const ALL: [Self; 2] = [Self::Fast, Self::Deep];

    /// The word used in configuration, headers, labels and the ledger.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Deep => "deep",
        }
    }

    /// The other tier, where a call goes when its own has no healthy endpoint.
    pub const fn other(self) -> Self {
        match self {
            Self::Fast => Self::Deep,
            Self::Deep => Self::Fast,
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The word names no tier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a tier; write fast or deep")]
pub struct ParseTierError(String);

impl FromStr for Tier {
    type Err = ParseTierError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|tier| tier.as_str() == text)
            .ok_or_else(|| ParseTierError(text.to_owned()))
    }
}
