//! Holding the split: the threshold is the quantile of the last scores, moved by the debt of deep calls
//! that has run up, and a ledger overrules it before the running count strays.

use serde::{Deserialize, Serialize};
use wire::Tier;

use crate::cascade::Band;
use crate::score::{Score, quantile_above};

/// How far the count of deep calls may stray from its target by choice, in thousandths of a call. A narrow
/// bound costs quality: the fewer calls a choice is made among, the worse the best of them. Replayed training
/// prompts lose .03 of PGR at 1.5 calls, less than .01 at four.
const BOUND: i64 = 4_000;
/// How far it may stray before a call may no longer stay where the one before it went, or where a lot sends
/// it. Five calls: the debt at the two ends of a window differs by ten at most, so any window of 1,000 is
/// within 1.0 points by construction, whatever the scores.
const STAY_BOUND: i64 = 5_000;
/// What is forgotten of the debt of all splits together with each call that counts, as a part of it: at its
/// bound, eight calls in a thousand.
const FORGOTTEN: i64 = 512;
/// Scores that the threshold is taken from: enough to know a quantile by, few enough to forget an old
/// mix of prompts within a hundred calls.
const RECENT: usize = 128;
/// Scores that stand for the training prompts where there are none yet.
const PRIOR: u16 = 16;

/// One tenant's split. Saved and restored as a whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "Saved")]
pub struct Split {
    /// The target in thousandths.
    target: u16,
    /// Calls decided, and those among them that went deep.
    total: u64,
    deep: u64,
    /// Deep calls beyond the target, in thousandths of a call.
    debt: i64,
    /// The last scores, in parts of 65,535, and where the next one goes.
    recent: Vec<u16>,
    next: usize,
    /// The same scores, the lowest first.
    #[serde(skip)]
    sorted: Vec<u16>,
}

/// A split as it was saved.
#[derive(Deserialize)]
struct Saved {
    target: u16,
    total: u64,
    deep: u64,
    debt: i64,
    #[serde(default)]
    recent: Vec<u16>,
    #[serde(default)]
    next: usize,
}

impl From<Saved> for Split {
    fn from(saved: Saved) -> Self {
        let mut recent = saved.recent;
        if recent.is_empty() {
            // Saved by a version that kept no scores.
            recent = prior();
        }
        recent.truncate(RECENT);
        Self {
            target: saved.target,
            total: saved.total,
            deep: saved.deep,
            debt: saved.debt,
            next: saved.next % RECENT,
            sorted: sorted(&recent),
            recent,
        }
    }
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
        let recent = prior();
        Self {
            target: deep_per_thousand.min(1_000),
            total: 0,
            deep: 0,
            debt: 0,
            next: 0,
            sorted: sorted(&recent),
            recent,
        }
    }

    /// Chooses a tier for a call and counts it.
    pub fn choose(&mut self, score: Score) -> Choice {
        self.choose_within(score, None, 0)
    }

    /// As [`Self::choose`], but a call in the `band` around the threshold is wanted fast, and `all`, the
    /// debt of all splits that are mixed with this one, is held within its bound as well. A split's own
    /// bound comes first.
    pub fn choose_within(&mut self, score: Score, band: Option<Band>, all: i64) -> Choice {
        let score = fixed(score);
        let strained = self.debt.saturating_add(all);
        let near = band.is_some_and(|band| band.holds(self.rank(score), self.share(strained)));
        let wanted = if near {
            Tier::Fast
        } else {
            self.asks(score, strained)
        };
        self.remember(score);
        let held = bounded(wanted, all, self.target);
        let tier = bounded(held, self.debt, self.target);
        self.count(tier);
        Choice {
            tier,
            overruled: tier != wanted,
            near: near && tier == Tier::Fast,
        }
    }

    /// Turns a call that was counted as fast into a deep one, if the count allows that: its fast answer
    /// failed a check. The debt that this runs up makes first choices rarer, so that both together come
    /// to the target.
    pub fn escalate(&mut self) -> bool {
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

    /// Deep calls beyond the target, in thousandths of a call.
    pub fn debt(&self) -> i64 {
        self.debt
    }

    /// The tier that the score asks for, whatever the count.
    pub fn wants(&self, score: Score) -> Tier {
        self.asks(fixed(score), 0)
    }

    /// The target share of deep calls, in thousandths.
    pub fn target(&self) -> u16 {
        self.target
    }

    fn asks(&self, score: u16, debt: i64) -> Tier {
        if self.rank(score) < self.share(debt) {
            Tier::Deep
        } else {
            Tier::Fast
        }
    }

    /// The share of calls to send deep now: the target, less as debt nears its bound, more as it nears
    /// the other. The cube leaves small debts alone, which chance alone runs up.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a debt of some thousands; beyond, it is clamped"
    )]
    fn share(&self, debt: i64) -> f32 {
        let strain = (debt as f32 / BOUND as f32).clamp(-1.0, 1.0);
        f32::from(self.target) / 1_000.0 * (1.0 - strain * strain * strain)
    }

    /// The share of the last scores that lie above this one, equal ones counted half.
    #[expect(clippy::cast_precision_loss, reason = "at most 128 of them")]
    fn rank(&self, score: u16) -> f32 {
        // In sixteen bits, so that eight are compared at once: twice 128 fits.
        let twice_above = self.recent.iter().fold(0_u16, |sum, it| {
            sum.wrapping_add(u16::from(*it > score))
                .wrapping_add(u16::from(*it >= score))
        });
        (usize::from(twice_above) + 1) as f32 / (2 * (self.recent.len() + 1)) as f32
    }

    fn remember(&mut self, score: u16) {
        if self.recent.len() < RECENT {
            self.recent.push(score);
        } else {
            if let Some(slot) = self.recent.get_mut(self.next) {
                let oldest = std::mem::replace(slot, score);
                if let Ok(at) = self.sorted.binary_search(&oldest) {
                    self.sorted.remove(at);
                }
            }
            self.next = (self.next + 1) % RECENT;
        }
        let at = self.sorted.partition_point(|it| *it < score);
        self.sorted.insert(at, score);
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
                target: deep_per_thousand.min(1_000),
                debt: 0,
                ..self.clone()
            };
        }
    }

    /// Calls decided so far, and those among them that went deep.
    pub fn counts(&self) -> (u64, u64) {
        (self.total, self.deep)
    }

    /// The score above which calls go deep now.
    pub fn threshold(&self) -> f32 {
        let share = usize::from(self.target) * self.sorted.len() / 1_000;
        let place = self.sorted.len().saturating_sub(share + 1);
        let score = self.sorted.get(place);
        score.map_or_else(
            || quantile_above(self.target),
            |score| f32::from(*score) / f32::from(u16::MAX),
        )
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

/// The debt of all splits together, after that of one has changed. Debts that a tenant has left behind, by
/// calls that stay where they are, would otherwise stand for ever, and choose in place of the score for
/// tenants that are there: so it is bounded, and fades.
pub fn together(all: i64, change: i64) -> i64 {
    (all - all / FORGOTTEN + change).clamp(-STAY_BOUND, STAY_BOUND)
}

/// The tier that keeps a debt within [`BOUND`], `wanted` where both do.
fn bounded(wanted: Tier, debt: i64, target: u16) -> Tier {
    let target = i64::from(target);
    match wanted {
        Tier::Deep if debt + 1_000 - target > BOUND => Tier::Fast,
        Tier::Fast if debt - target < -BOUND => Tier::Deep,
        tier => tier,
    }
}

fn sorted(scores: &[u16]) -> Vec<u16> {
    let mut sorted = scores.to_vec();
    sorted.sort_unstable();
    sorted
}

/// Quantiles of the training prompts' scores.
fn prior() -> Vec<u16> {
    let at = |k: u16| fixed(Score(quantile_above((2 * k + 1) * 1_000 / (2 * PRIOR))));
    (0..PRIOR).map(at).collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "0 to 65,535"
)]
fn fixed(score: Score) -> u16 {
    (score.0.clamp(0.0, 1.0) * f32::from(u16::MAX)) as u16
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
                prop_assert!(stray.abs() <= 10, "{stray} of a thousand");
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
            let all = Band { margin: 1.0 };
            for (n, score) in scores.into_iter().enumerate() {
                let choice = split.choose_within(Score(score), Some(all), 0);
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

    /// Twenty tenants take turns by chance; the debt of all is held with that of each.
    #[test]
    fn tenants_mixed_stray_no_further_than_one() {
        let mut overall = 0;
        let mut splits = vec![Split::new(200); 20];
        let (mut routed, mut chance) = (Vec::new(), 7_u64);
        for _ in 0..20_000 {
            chance ^= chance << 13;
            chance ^= chance >> 7;
            chance ^= chance << 17;
            let split = &mut splits[usize::try_from(chance % 20).expect("small")];
            let level = f32::from(u16::try_from(chance >> 48).expect("16 bits")) / 65_535.0;
            let before = split.debt;
            let choice = split.choose_within(Score(level), None, overall);
            overall = together(overall, split.debt - before);
            routed.push(i64::from(choice.tier == Tier::Deep));
            assert!(split.debt.abs() <= BOUND);
        }
        for window in routed.windows(1_000) {
            let stray = window.iter().sum::<i64>() - 200;
            assert!(stray.abs() <= 10, "{stray} of a thousand");
        }
    }

    /// Many tenants' tool loops have run fast up to the bound, and ended: the score of whoever comes next
    /// decides all the same.
    #[test]
    fn what_idle_tenants_owe_does_not_choose_for_others() {
        let mut overall = 0;
        for _ in 0..40 {
            let mut idle = Split::new(200);
            while idle.stay(Tier::Fast) {
                overall = together(overall, idle.worth(Tier::Fast));
            }
        }
        let (mut split, mut chance) = (Split::new(200), 7_u64);
        let (mut right, mut deep) = (0, 0);
        for n in 0..2_000 {
            chance ^= chance << 13;
            chance ^= chance >> 7;
            chance ^= chance << 17;
            let level = f32::from(u16::try_from(chance >> 48).expect("16 bits")) / 65_535.0;
            let before = split.debt;
            let choice = split.choose_within(Score(level), None, overall);
            overall = together(overall, split.debt - before);
            if n >= 1_000 && choice.tier == Tier::Deep {
                deep += 1;
                right += u32::from(level > 0.75);
            }
        }
        assert!((190..=210).contains(&deep), "{deep} of a thousand");
        assert!(right * 10 > deep * 8, "{right} of {deep} need it");
    }

    #[test]
    fn a_state_saved_without_scores_is_taken() {
        let saved = r#"{"target":200,"threshold":0.4,"total":9,"deep":2,"debt":200}"#;
        let mut split: Split = serde_json::from_str(saved).expect("restores");
        split.choose(Score(0.9));
        assert_eq!(split.counts().0, 10);
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
            overruled < 100,
            "the score decides, not the ledger: {overruled} of 2,000"
        );
    }
}
