//! What a tenant's feedback teaches: corrections of the last layer, shrunk to none. Only the tier that
//! answered is ever judged, so each judgement weighs by how likely that tier was, and the corrected head
//! serves only while it is not seen to be worse than the one it corrects. Pure, and of bounded size.

use serde::{Deserialize, Serialize};
use wire::Tier;

use crate::score::{LAYERS, Layers, Score, calibrated};

/// Numbers that a correction is a weighted sum of: one, the score, the layers.
pub const WIDTH: usize = LAYERS + 2;
/// Weight of judgements that stands against each coefficient. Chosen, not tuned.
const SHRINK: f64 = 100.0;
/// What a judgement is worth after each later one: half after 1,400.
const KEEP: f64 = 0.9995;
/// A rare tier counts at most this much more than a sure one: beyond, chance drowns what it tells.
const MOST_WEIGHT: f64 = 10.0;
/// Judgements between two fits, and before the first head may serve.
const PACE: u32 = 16;
const LEAST: u32 = 400;
/// Deviations of the estimate by which a head must seem better to begin, and below which it is given up:
/// while it is not known to be better, the frozen one serves.
const BEGIN: f64 = 2.5;
const GIVE_UP: f64 = 0.5;
/// How far a threshold moves with each call, in units of the score before calibration.
const STEP: f32 = 0.003;

/// A last layer: what is added to the score, in the units of the gain in quality between the tiers.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Head {
    weights: [f32; WIDTH],
}

impl Head {
    /// The score with the correction. Without one it is the score of [`crate::score()`].
    pub fn score(&self, layers: &Layers) -> Score {
        Score(calibrated(self.raw(layers)))
    }

    fn raw(&self, layers: &Layers) -> f32 {
        let inputs = inputs(layers);
        let sum: f32 = self.weights.iter().zip(inputs).map(|(w, x)| w * x).sum();
        layers.raw + sum
    }
}

/// What is known of one judged call.
#[derive(Debug, Clone, Copy)]
pub struct Judged {
    pub layers: Layers,
    /// The tier that was chosen, and how likely it was.
    pub tier: Tier,
    pub propensity: f32,
    /// How good the answer was, from 0 to 1.
    pub outcome: f32,
}

/// Everything learned from one tenant. Saved and restored as a whole, some 9 KB.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Learner {
    fast: Arm,
    deep: Arm,
    live: Head,
    serves: bool,
    judged: u32,
    shadow: Shadow,
}

/// Sums for a weighted fit of the outcome of one tier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Arm {
    /// The matrix of the inputs' products, row by row, and their products with the outcome.
    products: Vec<f64>,
    answers: Vec<f64>,
    fitted: [f64; WIDTH],
}

/// How much better the live head's choices are than the frozen one's, by doubly robust estimate.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
struct Shadow {
    /// The thresholds that the target share lies above.
    frozen_above: f32,
    live_above: f32,
    count: f64,
    sum: f64,
    squares: f64,
}

impl Learner {
    /// The head to score the tenant's next call with.
    pub fn head(&self) -> Head {
        if self.serves {
            self.live
        } else {
            Head::default()
        }
    }

    /// Whether what was learned is in force.
    pub fn serves(&self) -> bool {
        self.serves
    }

    /// The estimated gain in quality for each call by the live head, and its deviation.
    pub fn advantage(&self) -> (f64, f64) {
        self.shadow.advantage()
    }

    /// Learns from a judged call; `deep_per_thousand` is the split the tenant is held to. A propensity
    /// outside of 0 to 1, or an outcome that is no number, is not learned from.
    pub fn learn(&mut self, judged: &Judged, deep_per_thousand: u16) {
        let propensity = f64::from(judged.propensity);
        let is_chance = propensity > 0.0 && propensity <= 1.0;
        if !is_chance || !judged.outcome.is_finite() {
            return;
        }
        let outcome = f64::from(judged.outcome.clamp(0.0, 1.0));
        let x = inputs(&judged.layers).map(f64::from);
        let weight = (1.0 / propensity).min(MOST_WEIGHT);
        self.compare(judged, &x, outcome, weight, deep_per_thousand);
        // The arms' fits begin where the score puts them: half the gain above and below.
        let half = 0.5 * f64::from(judged.layers.raw);
        match judged.tier {
            Tier::Deep => self.deep.add(&x, outcome - half, weight),
            Tier::Fast => self.fast.add(&x, outcome + half, weight),
        }
        self.judged = self.judged.saturating_add(1);
        if self.judged.is_multiple_of(PACE) {
            self.deep.fit();
            self.fast.fit();
            self.live = self.difference();
            self.decide();
        }
    }

    /// The live head is what the deep arm gains over the fast one, beyond the score.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a coefficient needs no more"
    )]
    fn difference(&self) -> Head {
        let mut head = Head::default();
        let arms = self.deep.fitted.iter().zip(&self.fast.fitted);
        for (weight, (deep, fast)) in head.weights.iter_mut().zip(arms) {
            *weight = (deep - fast) as f32;
        }
        head
    }

    /// Takes the call into the comparison of heads, before it is learned from.
    fn compare(
        &mut self,
        judged: &Judged,
        x: &[f64; WIDTH],
        outcome: f64,
        weight: f64,
        deep_per_thousand: u16,
    ) {
        let half = 0.5 * f64::from(judged.layers.raw);
        let (deep, fast) = (self.deep.at(x) + half, self.fast.at(x) - half);
        let gain = match judged.tier {
            Tier::Deep => deep - fast + weight * (outcome - deep),
            Tier::Fast => deep - fast - weight * (outcome - fast),
        };
        let live = self.live.raw(&judged.layers);
        let share = f32::from(deep_per_thousand) / 1_000.0;
        self.shadow.take(judged.layers.raw, live, gain, share);
    }

    fn decide(&mut self) {
        let (mean, deviation) = self.shadow.advantage();
        if self.judged < LEAST || mean < GIVE_UP * deviation {
            self.serves = false;
        } else if mean > BEGIN * deviation {
            self.serves = true;
        }
    }
}

impl Shadow {
    fn take(&mut self, frozen: f32, live: f32, gain: f64, share: f32) {
        let follow = |above: &mut f32, score: f32| {
            let is_above = score > *above;
            *above += STEP * (f32::from(u8::from(is_above)) - share);
            is_above
        };
        let differ = f64::from(u8::from(follow(&mut self.live_above, live)))
            - f64::from(u8::from(follow(&mut self.frozen_above, frozen)));
        let gained = differ * gain;
        self.count = self.count * KEEP + 1.0;
        self.sum = self.sum * KEEP + gained;
        self.squares = self.squares * KEEP + gained * gained;
    }

    fn advantage(&self) -> (f64, f64) {
        let n = self.count.max(1.0);
        let mean = self.sum / n;
        let variance = (self.squares / n - mean * mean).max(0.0);
        (mean, (variance / n).sqrt().max(1e-6))
    }
}

impl Default for Arm {
    fn default() -> Self {
        Self {
            products: vec![0.0; WIDTH * WIDTH],
            answers: vec![0.0; WIDTH],
            fitted: [0.0; WIDTH],
        }
    }
}

impl Arm {
    fn add(&mut self, x: &[f64; WIDTH], answer: f64, weight: f64) {
        for (row, a) in self.products.chunks_exact_mut(WIDTH).zip(x) {
            for (cell, b) in row.iter_mut().zip(x) {
                *cell = *cell * KEEP + weight * a * b;
            }
        }
        for (cell, a) in self.answers.iter_mut().zip(x) {
            *cell = *cell * KEEP + weight * a * answer;
        }
    }

    fn at(&self, x: &[f64; WIDTH]) -> f64 {
        self.fitted.iter().zip(x).map(|(w, x)| w * x).sum()
    }

    /// Ridge by Gauss and Seidel from the fit before: a few sweeps are enough, and it can not fail.
    fn fit(&mut self) {
        for _ in 0..30 {
            for k in 0..WIDTH {
                let Some(row) = self.products.get(k * WIDTH..(k + 1) * WIDTH) else {
                    continue;
                };
                let all: f64 = row.iter().zip(&self.fitted).map(|(a, w)| a * w).sum();
                let own = row.get(k).copied().unwrap_or(0.0);
                // The constant is how good the tier's answers are at all, which nothing is known of.
                let shrink = if k == 0 { 1.0 } else { SHRINK };
                let answer = self.answers.get(k).copied().unwrap_or(0.0);
                if let Some(weight) = self.fitted.get_mut(k) {
                    *weight = (answer - all + own * *weight) / (own + shrink);
                }
            }
        }
    }
}

/// One, the score, the layers.
fn inputs(layers: &Layers) -> [f32; WIDTH] {
    /// The score before calibration in deviations; it is some hundredths wide.
    const SCORE_UNIT: f32 = 0.05;
    let mut inputs = [1.0; WIDTH];
    let rest = layers.deviations();
    let score = layers.raw / SCORE_UNIT;
    for (slot, x) in inputs.iter_mut().skip(1).zip([score].iter().chain(&rest)) {
        *slot = x.clamp(-4.0, 4.0);
    }
    inputs
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layers(part: i8) -> Layers {
        let mut layers = Layers::default();
        layers.parts[3] = part;
        layers
    }

    /// Deep answers are better only where the part is high, which the score does not know.
    fn taught(calls: u32) -> Learner {
        let mut learner = Learner::default();
        teach(&mut learner, calls, |part| part >= 16);
        learner
    }

    /// Feedback of a world in which deep answers are better where `needs_deep` says so.
    fn teach(learner: &mut Learner, calls: u32, needs_deep: impl Fn(i8) -> bool) {
        let mut chance = 5_u64;
        for _ in 0..calls {
            chance = chance
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let part = i8::try_from((chance >> 33) % 128).expect("small") - 64;
            let tier = if (chance >> 50).is_multiple_of(5) {
                Tier::Deep
            } else {
                Tier::Fast
            };
            let good = tier == Tier::Deep || !needs_deep(part);
            let judged = Judged {
                layers: layers(part),
                tier,
                propensity: if tier == Tier::Deep { 0.2 } else { 0.8 },
                outcome: if good { 1.0 } else { 0.0 },
            };
            learner.learn(&judged, 200);
        }
    }

    #[test]
    fn what_feedback_shows_comes_into_force() {
        let learner = taught(2_000);
        assert!(learner.serves(), "{:?}", learner.advantage());
        let head = learner.head();
        assert!(head.score(&layers(60)) > head.score(&layers(-60)));
        let saved = serde_json::to_string(&learner).expect("saves");
        assert!(saved.len() < 40_000, "{}", saved.len());
        let restored: Learner = serde_json::from_str(&saved).expect("restores");
        assert_eq!(restored.head(), head);
    }

    #[test]
    fn a_head_does_not_outlive_its_truth() {
        let mut learner = taught(3_000);
        assert!(learner.serves(), "{:?}", learner.advantage());
        teach(&mut learner, 6_000, |part| part < -16);
        let head = learner.head();
        let is_wrong = head.score(&layers(60)) > head.score(&layers(-60));
        assert!(
            !is_wrong,
            "serves {}, {:?}",
            learner.serves(),
            learner.advantage()
        );
    }

    #[test]
    fn a_new_learner_scores_as_the_weights_do() {
        let mut other = layers(100);
        other.raw = 0.07;
        assert_eq!(
            Learner::default().head().score(&other),
            Score(calibrated(0.07))
        );
    }

    proptest! {
        /// Any feedback at all leaves finite scores.
        #[test]
        fn nonsense_does_no_harm(
            calls in prop::collection::vec((any::<i8>(), any::<f32>(), any::<f32>(), any::<bool>()), 0..300),
        ) {
            let mut learner = Learner::default();
            for (part, propensity, outcome, is_deep) in calls {
                let tier = if is_deep { Tier::Deep } else { Tier::Fast };
                learner.learn(&Judged { layers: layers(part), tier, propensity, outcome }, 200);
            }
            let score = learner.live.score(&layers(50)).0;
            prop_assert!((0.0..=1.0).contains(&score), "{score}");
        }
    }
}
