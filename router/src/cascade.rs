//! The cascade: calls whose score lies near the threshold are tried fast first, and go deep only if
//! the fast answer fails a check. Here is which calls those are; the checks are the gateway's.

use serde::Deserialize;

use crate::score::{Score, quantile_above};

/// `[routing.cascade]`: which calls are tried fast first, and what their answers are held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the configuration, none a state"
)]
pub struct Cascade {
    pub enabled: bool,
    /// Half the width of the band around the threshold, as a share of calls in thousandths.
    pub margin_per_thousand: u16,
    /// The model declined, in its dialect's own way or in so many words.
    pub refusal: bool,
    /// It was cut at a limit that the caller did not set, or is empty.
    pub truncation: bool,
    /// It is not the JSON that was asked for.
    pub schema: bool,
    /// It calls a tool that was not offered, or with arguments that the tool does not take.
    pub tool_arguments: bool,
    /// It says itself that it does not know.
    pub doubt: bool,
    /// Its first tokens were improbable, where the caller asked for log probabilities.
    pub logprob: bool,
    /// Mean log probability, in thousandths of a nat, below which they were.
    pub logprob_threshold_milli: i32,
    /// Content events and bytes of text that are held back of a stream, whichever comes first.
    pub hold_tokens: u32,
    pub hold_bytes: u32,
    /// The longest that they are held, from the first content.
    pub hold_ms: u64,
    /// The same for a stream of tool calls, or of JSON that was asked for: those are checked whole.
    pub hold_whole_bytes: u32,
    pub hold_whole_ms: u64,
}

impl Default for Cascade {
    fn default() -> Self {
        Self {
            enabled: true,
            margin_per_thousand: 50,
            refusal: true,
            truncation: true,
            schema: true,
            tool_arguments: true,
            doubt: true,
            logprob: false,
            logprob_threshold_milli: -1_000,
            hold_tokens: 24,
            hold_bytes: 160,
            hold_ms: 300,
            hold_whole_bytes: 8_192,
            hold_whole_ms: 2_000,
        }
    }
}

/// How far from the threshold scores are near it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Band {
    pub(crate) below: f32,
    pub(crate) above: f32,
}

impl Cascade {
    /// The band around the threshold of a split with this target; `None` where nothing is tried fast
    /// first.
    ///
    /// The margin is a share of calls, because scores lie close together and how close changes with
    /// every set of weights; the quantiles that come with the weights turn it into scores.
    pub fn band(&self, deep_per_thousand: u16) -> Option<Band> {
        if !self.enabled || self.margin_per_thousand == 0 {
            return None;
        }
        let margin = self.margin_per_thousand.min(1_000);
        let target = deep_per_thousand.min(1_000);
        // A margin of everything means everything, also beyond what the quantiles have seen.
        if margin == 1_000 {
            let (below, above) = (1.0, 1.0);
            return Some(Band { below, above });
        }
        let middle = quantile_above(target);
        let below = middle - quantile_above(target.saturating_add(margin).min(1_000));
        let above = quantile_above(target.saturating_sub(margin)) - middle;
        Some(Band { below, above })
    }
}

impl Band {
    /// Whether a call of this score is tried fast first.
    pub fn holds(&self, score: Score, threshold: f32) -> bool {
        let distance = score.0 - threshold;
        (-self.below..=self.above).contains(&distance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_band_is_a_share_of_calls_on_either_side() {
        let cascade = Cascade::default();
        let (threshold, band) = (quantile_above(200), cascade.band(200).expect("a band"));
        let holds = |per_thousand: u16| band.holds(Score(quantile_above(per_thousand)), threshold);
        let inside: Vec<u16> = (0..=1_000).step_by(10).filter(|it| holds(*it)).collect();
        assert!(inside.contains(&160) && inside.contains(&240), "{inside:?}");
        assert!(
            !inside.contains(&120) && !inside.contains(&280),
            "{inside:?}"
        );
    }

    #[test]
    fn nothing_is_near_where_the_cascade_is_off_and_everything_where_the_margin_is_all() {
        let off = Cascade {
            enabled: false,
            ..Cascade::default()
        };
        assert_eq!(off.band(200), None);
        let none = Cascade {
            margin_per_thousand: 0,
            ..Cascade::default()
        };
        assert_eq!(none.band(200), None);
        let all = Cascade {
            margin_per_thousand: 1_000,
            ..Cascade::default()
        };
        let all = all.band(200).expect("a band");
        assert!(all.holds(Score(0.0), 1.0) && all.holds(Score(1.0), 0.0));
    }
}
