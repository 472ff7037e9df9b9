//! Whether a conversation changes its model, in money: what the prompt cache is worth that a change
//! loses, against what the change gains.

use serde::Deserialize;

use crate::score::Score;

/// `[routing.switch]`: how dear a change of the model is taken to be.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SwitchConfig {
    /// Off, each call of a conversation goes where its own score says, but for tool loops.
    pub enabled: bool,
    /// How much more than the cache that is lost a change must gain: 0.25 is a quarter more.
    pub hysteresis: f32,
    /// Seconds after a conversation's last call in which its cached prompt is taken to be there.
    pub cache_ttl_s: u32,
}

impl Default for SwitchConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            hysteresis: 0.25,
            cache_ttl_s: 300,
        }
    }
}

/// What is at stake when a conversation would change its model. Amounts are nano-USD for this one call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stakes {
    /// Reading the cached prefix anew at the other model, less what reading it from the cache costs
    /// there: what the change loses. Weighted by how often prompts of that model are found in its cache.
    pub lost_nano_usd: i64,
    /// What the call costs more at the deep tier than at the fast one, both with a warm cache.
    pub premium_nano_usd: i64,
}

/// What the change would gain, in nano-USD. At the threshold the deep tier is worth just its premium:
/// that is what holding a threshold says. So a score is worth its share of the threshold in premiums,
/// and going deep gains `premium * (score / threshold - 1)`; going fast gains the negative of it.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "an estimate of a gain, which no account is charged with"
)]
pub fn gain(score: Score, threshold: f32, premium_nano_usd: i64, to_deep: bool) -> i64 {
    let worth = f64::from(score.0) / f64::from(threshold.max(1e-3)) - 1.0;
    let gain = premium_nano_usd.max(0) as f64 * worth;
    (if to_deep { gain } else { -gain }) as i64
}

impl SwitchConfig {
    /// Whether a gain pays for what is lost.
    #[expect(
        clippy::cast_precision_loss,
        reason = "an estimate against an estimate"
    )]
    pub fn pays(&self, gain_nano_usd: i64, stakes: &Stakes) -> bool {
        let lost = stakes.lost_nano_usd.max(0) as f64;
        gain_nano_usd as f64 > lost * (1.0 + f64::from(self.hysteresis.max(0.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_cached_prompt_is_not_left_for_a_small_gain() {
        let config = SwitchConfig::default();
        let long = Stakes {
            lost_nano_usd: 50_000_000,
            premium_nano_usd: 20_000_000,
        };
        let short = Stakes {
            lost_nano_usd: 50_000,
            ..long
        };
        let pays = |score: f32, stakes: &Stakes, to_deep| {
            config.pays(
                gain(Score(score), 0.3, stakes.premium_nano_usd, to_deep),
                stakes,
            )
        };
        assert!(!pays(0.31, &long, true));
        assert!(!pays(0.9, &long, true), "two premiums do not pay for it");
        assert!(pays(0.31, &short, true));
        assert!(pays(0.1, &short, false));
        assert!(
            !pays(0.3, &short, true),
            "at the threshold nothing is gained"
        );
        assert!(!pays(0.2999, &short, false), "nor the other way");
    }
}
