//! The router's part of the configuration.

use serde::Deserialize;

use crate::cascade::Cascade;

/// `[policy]`: what calls may and may not become.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyConfig {
    /// What happens to a call whose translation would lose something.
    pub loss: LossPolicy,
}

/// What happens to a call whose translation would lose something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LossPolicy {
    /// It goes on; header, metric and log say what was lost.
    #[default]
    Report,
    /// It is refused, unless another model can take it without loss.
    Refuse,
}

impl PolicyConfig {
    /// Whether a call that would lose something is refused.
    pub fn refuses_losses(&self) -> bool {
        self.loss == LossPolicy::Refuse
    }
}

/// `[routing]`: how calls to `auto` are shared out.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The share of `auto` calls that goes to the deep tier, in thousandths, for each tenant.
    pub deep_per_thousand: u16,
    pub cascade: Cascade,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            deep_per_thousand: 200,
            cascade: Cascade::default(),
        }
    }
}
