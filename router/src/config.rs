//! The router's part of the configuration.

use serde::Deserialize;

/// `[routing]`: how calls to `auto` are shared out.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The share of `auto` calls that goes to the deep tier, in thousandths, for each tenant.
    pub deep_per_thousand: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            deep_per_thousand: 200,
        }
    }
}
