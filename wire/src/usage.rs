//! What a call used, in disjoint classes: no token is counted in two of them, so sums are sums.

use std::fmt;
use std::ops::AddAssign;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The most that one figure of a call can be: no model has such a window. A larger one is a broken endpoint or a
/// slip of the pen, and sums of many calls stay within their types.
pub const MOST: u64 = 100_000_000;

/// Tokens by class. Providers report overlapping figures; each dialect takes the overlaps out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Prompt tokens that were neither read from nor written to a cache.
    pub input: u64,
    /// Prompt tokens read from the provider's prompt cache.
    pub cache_read: u64,
    /// Prompt tokens written to a cache that lives five minutes (or for an unstated time).
    pub cache_write_5m: u64,
    /// Prompt tokens written to a cache that lives one hour.
    pub cache_write_1h: u64,
    /// Visible answer tokens.
    pub output: u64,
    /// Reasoning tokens, shown or not.
    pub reasoning: u64,
    /// Audio tokens of the prompt.
    pub audio_input: u64,
    /// Audio tokens of the answer.
    pub audio_output: u64,
    /// Web searches that the provider ran.
    pub web_searches: u64,
}

impl Usage {
    /// All tokens of the prompt side; this is what long-context price tiers look at.
    pub fn prompt(&self) -> u64 {
        self.input
            .saturating_add(self.cache_read)
            .saturating_add(self.cache_write())
            .saturating_add(self.audio_input)
    }

    /// Whether nothing was used.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// All tokens of the answer side.
    pub fn answer(&self) -> u64 {
        self.output
            .saturating_add(self.reasoning)
            .saturating_add(self.audio_output)
    }

    /// The prompt side of this with the answer side of `answer`.
    #[must_use]
    pub fn with_answer(self, answer: Self) -> Self {
        Self {
            output: answer.output,
            reasoning: answer.reasoning,
            audio_output: answer.audio_output,
            ..self
        }
    }

    /// What is known once this was reported behind `earlier`: figures of a stream grow, so a side of zeros takes
    /// nothing back.
    #[must_use]
    pub fn behind(self, earlier: Self) -> Self {
        let prompt = if self.prompt() == 0 { earlier } else { self };
        let answer = if self.answer() == 0 { earlier } else { self };
        Self {
            web_searches: self.web_searches.max(earlier.web_searches),
            ..prompt.with_answer(answer)
        }
    }

    /// Tokens written to a prompt cache, however long it lives.
    pub fn cache_write(&self) -> u64 {
        self.cache_write_5m.saturating_add(self.cache_write_1h)
    }

    /// Audio tokens of both sides.
    pub fn audio(&self) -> u64 {
        self.audio_input.saturating_add(self.audio_output)
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.input = self.input.saturating_add(other.input);
        self.cache_read = self.cache_read.saturating_add(other.cache_read);
        self.cache_write_5m = self.cache_write_5m.saturating_add(other.cache_write_5m);
        self.cache_write_1h = self.cache_write_1h.saturating_add(other.cache_write_1h);
        self.output = self.output.saturating_add(other.output);
        self.reasoning = self.reasoning.saturating_add(other.reasoning);
        self.audio_input = self.audio_input.saturating_add(other.audio_input);
        self.audio_output = self.audio_output.saturating_add(other.audio_output);
        self.web_searches = self.web_searches.saturating_add(other.web_searches);
    }
}

/// Where a usage figure comes from; finance filters on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UsageSource {
    /// The provider reported it.
    Provider,
    /// Counted by the gateway from what it saw.
    Counted,
    /// The bound that was held, because nothing better is known.
    Estimated,
}

impl UsageSource {
    /// Every source, most trusted first.
    pub const ALL: [Self; 3] = [Self::Provider, Self::Counted, Self::Estimated];

    /// The word used in labels and the ledger.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::Counted => "counted",
            Self::Estimated => "estimated",
        }
    }
}

impl fmt::Display for UsageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The word names no usage source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a usage source; write provider, counted or estimated")]
pub struct ParseUsageSourceError(String);

impl FromStr for UsageSource {
    type Err = ParseUsageSourceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|source| source.as_str() == text)
            .ok_or_else(|| ParseUsageSourceError(text.to_owned()))
    }
}
