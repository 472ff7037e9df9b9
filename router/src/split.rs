//! Holding the split: a tracker follows the quantile of the scores, and a debt ledger overrules it
//! before the running count strays.

use serde::{Deserialize, Serialize};
use wire::Tier;

use crate::cascade::Band;
use crate::score::{Score, quantile_above};

/// How far the count of deep calls may stray from its target, in thousandths of a call. A call and a half:
/// any window of 1,000 is then within 0.3 points for a tenant, and a few tenants mixed within 1.
const BOUND: i64 = 1_500;
/// How far it may stray, in thousandths of a call, before a call may no longer stay where the one
/// before it went.
const STAY_BOUND: i64 = 5_000;
/// How far the threshold moves for each call.
const STEP: f32 = 0.004;

/// One tenant's split. Saved and restored as a whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Split {
    /// The target in thousandths.
    target: u16,
    /// Scores above it go deep.
    threshold: f32,
    /// Calls decided, and those among them that went deep.
    total: u64,
    deep: u64,
    /// Deep calls beyond the target, in thousandths of a call.
    debt: i64,
}

/// A tier and who chose it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    pub tier: Tier,
    /// The debt ledger overruled the score.
    pub overruled: bool,
    /// It is near the threshold and goes fast first; see [`Split::escalate`].
    pub near: bool,
}

impl Split {
    /// A split that begins at the threshold that fits the training prompts.
    pub fn new(deep_per_thousand: u16) -> Self {
        let target = deep_per_thousand.min(1_000);
        Self {
            target,
            threshold: quantile_above(target),
            total: 0,
            deep: 0,
            debt: 0,
        }
    }

    /// Chooses a tier for a call and counts it.
    pub fn choose(&mut self, score: Score) -> Choice {
        self.choose_beside(score, None)
    }

    /// The same, but a call in the `band` around the threshold is wanted fast.
    pub fn choose_beside(&mut self, score: Score, band: Option<Band>) -> Choice {
        let target = i64::from(self.target);
        let near = band.is_some_and(|band| band.holds(score, self.threshold));
        let wanted = if near { Tier::Fast } else { self.wants(score) };
        let tier = match wanted {
            Tier::Deep if self.debt + 1_000 - target > BOUND => Tier::Fast,
            Tier::Fast if self.debt - target < -BOUND => Tier::Deep,
            tier => tier,
        };
        // The threshold follows what the score wanted, so that it keeps learning when overruled.
        let share = f32::from(self.target) / 1_000.0;
        let above = if wanted == Tier::Deep { 1.0 } else { 0.0 };
        self.threshold = (self.threshold + STEP * (above - share)).clamp(0.0, 1.0);
        self.count(tier);
        Choice {
            tier,
            overruled: tier != wanted,
            near: near && tier == Tier::Fast,
        }
    }

    /// Turns a call that was counted as fast into a deep one, if the count allows that: its fast answer
    /// failed a check. Wanted or granted, it moves the threshold like any call that the score wants
    /// deep, so that first choices and escalations together come to the target.
    pub fn escalate(&mut self) -> bool {
        self.threshold = (self.threshold + STEP).clamp(0.0, 1.0);
        let allowed = self.total > self.deep && self.debt + 1_000 <= BOUND;
        if allowed {
            self.deep += 1;
            self.debt += 1_000;
        }
        allowed
    }

    /// Takes an escalation back that brought no answer: the call is a fast one again.
    pub fn stay_fast(&mut self) {
        if self.deep > 0 {
            self.deep -= 1;
            self.debt -= 1_000;
        }
    }

    /// The tier that the score asks for, whatever the count.
    pub fn wants(&self, score: Score) -> Tier {
        if score.0 > self.threshold {
            Tier::Deep
        } else {
            Tier::Fast
        }
    }

    /// The target share of deep calls, in thousandths.
    pub fn target(&self) -> u16 {
        self.target
    }

    /// Counts a call that stays with the tier of the one before it, if the count allows that.
    pub fn stay(&mut self, tier: Tier) -> bool {
        let allowed = (self.debt + self.worth(tier)).abs() <= STAY_BOUND;
        if allowed {
            self.count(tier);
        }
        allowed
    }

    /// Takes back a call that was refused before any upstream saw it.
    pub fn forget(&mut self, tier: Tier) {
        if self.total == 0 || (tier == Tier::Deep && self.deep == 0) {
            return;
        }
        self.total -= 1;
        self.deep -= u64::from(tier == Tier::Deep);
        self.debt -= self.worth(tier);
    }

    /// Takes another target; the debt starts anew, because it was measured against the old one.
    pub fn retarget(&mut self, deep_per_thousand: u16) {
        if self.target != deep_per_thousand.min(1_000) {
            *self = Self {
                total: self.total,
                deep: self.deep,
                ..Self::new(deep_per_thousand)
            };
        }
    }

    /// Calls decided so far, and those among them that went deep.
    pub fn counts(&self) -> (u64, u64) {
        (self.total, self.deep)
    }

    /// The score above which calls go deep now.
    pub fn threshold(&self) -> f32 {
        self.threshold
    }

    fn count(&mut self, tier: Tier) {
        self.total += 1;
        self.deep += u64::from(tier == Tier::Deep);
        self.debt += self.worth(tier);
    }

    fn worth(&self, tier: Tier) -> i64 {
        i64::from(tier == Tier::Deep) * 1_000 - i64::from(self.target)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever the scores do, and through a restart in the middle.
        #[test]
        fn the_count_never_strays(
            target in 0_u16..=1_000,
            blocks in prop::collection::vec((0.0_f32..1.0, 1_usize..400), 1..8),
            restart in 0_usize..100,
        ) {
            let mut split = Split::new(target);
            let mut routed: Vec<i64> = Vec::new();
            for (level, length) in blocks {
                for n in 0..length {
                    // Each block is another mix of prompts: an abrupt drift.
                    let jitter = f32::from(u8::try_from(n % 7).expect("small")) / 50.0;
                    let choice = split.choose(Score((level + jitter).min(1.0)));
                    routed.push(i64::from(choice.tier == Tier::Deep));
                    if routed.len() == restart {
                        let text = serde_json::to_string(&split).expect("saves");
                        split = serde_json::from_str(&text).expect("restores");
                    }
                    let n = i64::try_from(routed.len()).expect("small");
                    let stray = routed.iter().sum::<i64>() * 1_000 - i64::from(target) * n;
                    prop_assert!(stray.abs() <= BOUND, "{stray} after {n}");
                }
            }
            for window in routed.windows(1_000) {
                let stray = window.iter().sum::<i64>() - i64::from(target);
                prop_assert!(stray.abs() <= 3, "{stray} of a thousand");
            }
        }

        /// Some answers fail their check, and some escalations bring nothing: the count stays in its
        /// bound, whoever asks.
        #[test]
        fn escalations_stay_within_the_target(
            target in 0_u16..=1_000,
            failing in 0_u32..=10,
            useless in 0_u32..=10,
            scores in prop::collection::vec(0.0_f32..1.0, 1..3_000),
        ) {
            let mut split = Split::new(target);
            let all = Band { below: 1.0, above: 1.0 };
            for (n, score) in scores.into_iter().enumerate() {
                let choice = split.choose_beside(Score(score), Some(all));
                let n = u32::try_from(n).expect("small");
                if choice.near && n % 10 < failing && split.escalate() && n / 10 % 10 < useless {
                    split.stay_fast();
                }
                let (total, deep) = split.counts();
                let (total, deep) = (i64::try_from(total).expect("small"), i64::try_from(deep).expect("small"));
                let stray = deep * 1_000 - i64::from(target) * total;
                prop_assert!(stray.abs() <= BOUND + 1_000, "{stray} after {total}");
                prop_assert!(stray <= BOUND, "{stray} after {total}");
            }
        }

        #[test]
        fn a_call_taken_back_was_never_there(scores in prop::collection::vec(0.0_f32..1.0, 1..50)) {
            let mut split = Split::new(200);
            for score in scores {
                let before = (split.counts(), split.debt);
                let choice = split.choose(Score(score));
                split.forget(choice.tier);
                prop_assert_eq!((split.counts(), split.debt), before);
                split.choose(Score(score));
            }
        }
    }

    #[test]
    fn the_threshold_follows_the_scores() {
        let mut split = Split::new(200);
        let mut overruled = 0;
        for n in 0..4_000_u16 {
            let score = f32::from(n.wrapping_mul(7_919) % 1_000) / 1_000.0;
            overruled += u32::from(split.choose(Score(score)).overruled && n >= 2_000);
        }
        assert!(
            (split.threshold() - 0.8).abs() < 0.1,
            "{}",
            split.threshold()
        );
        assert!(
            overruled < 600,
            "the score decides, not the ledger: {overruled} of 2,000"
        );
    }
}
