//! The cascade: calls whose score lies near the threshold are tried fast first, and go deep only if
//! the fast answer fails a check. Here is which calls those are; the checks are the gateway's.

use serde::Deserialize;

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

/// How near to the share that goes deep a call ranks to be near the threshold: a share of calls, because
/// scores lie close together, and how close changes with every set of weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Band {
    pub(crate) margin: f32,
}

impl Cascade {
    /// The band around the threshold; `None` where nothing is tried fast first.
    pub fn band(&self) -> Option<Band> {
        let margin = f32::from(self.margin_per_thousand.min(1_000)) / 1_000.0;
        (self.enabled && margin > 0.0).then_some(Band { margin })
    }
}

impl Band {
    /// Whether a call that ranks so among the last ones is tried fast first, where `share` of them goes
    /// deep.
    pub fn holds(&self, rank: f32, share: f32) -> bool {
        (rank - share).abs() <= self.margin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_band_is_a_share_of_calls_on_either_side() {
        let band = Cascade::default().band().expect("a band");
        assert!(band.holds(0.16, 0.2) && band.holds(0.24, 0.2));
        assert!(!band.holds(0.12, 0.2) && !band.holds(0.28, 0.2));
    }

    #[test]
    fn nothing_is_near_where_the_cascade_is_off_and_everything_where_the_margin_is_all() {
        let with = |enabled, margin_per_thousand| Cascade {
            enabled,
            margin_per_thousand,
            ..Cascade::default()
        };
        assert_eq!(with(false, 50).band(), None);
        assert_eq!(with(true, 0).band(), None);
        let all = with(true, 1_000).band().expect("a band");
        assert!(all.holds(0.0, 1.0) && all.holds(1.0, 0.0));
    }
}
