//! What routing is worth, from what was logged: doubly robust estimates of the mean outcome under
//! another policy, with their intervals.
//!
//! For each call `i` with arm `a`, propensity `p` and outcome `y`, and a model `q` of the outcome by arm
//! and stratum, the value of a policy that picks arm `b` is `q(i, b) + [a = b] / p * (y - q(i, a))`. Its
//! mean is right when either the propensities or the model are (Dudík, Langford and Li, "Doubly robust
//! policy evaluation and learning", ICML 2011). The model here is the mean of the stratum and arm, the
//! call itself left out, shrunk to the mean of the arm.

use std::collections::BTreeMap;

/// Calls that the arm's mean counts as, in the mean of a stratum.
const PRIOR: f64 = 8.0;
/// Standard errors on each side of an estimate that hold 95 % of a normal distribution.
const TWO_SIDED_95: f64 = 1.959_964;

/// One call whose outcome is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// It went deep.
    pub deep: bool,
    /// The router, left alone, would have sent it deep.
    pub chosen_deep: bool,
    /// How likely its arm was.
    pub propensity: f64,
    /// Calls of one stratum are alike: a tenth of the scores, a size of prompts.
    pub stratum: u32,
    pub outcome: f64,
}

/// A policy whose mean outcome is asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Policy {
    /// What was done, the lot and the split's corrections included: its mean needs no model.
    Served,
    /// What the router would have chosen by the score alone.
    Chosen,
    Fast,
    Deep,
    /// A lot that sends this share deep.
    Lot(f64),
}

impl Policy {
    /// The probability that the policy sends a call deep.
    fn deep(self, sample: &Sample) -> f64 {
        match self {
            Self::Served => f64::from(u8::from(sample.deep)),
            Self::Chosen => f64::from(u8::from(sample.chosen_deep)),
            Self::Fast => 0.0,
            Self::Deep => 1.0,
            Self::Lot(share) => share,
        }
    }
}

/// A mean with its 95 % interval.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Estimate {
    pub value: f64,
    pub low: f64,
    pub high: f64,
    /// Calls it rests on.
    pub calls: usize,
    /// Of them, those that went where they seldom go: what is known of the road not taken. An interval
    /// that rests on a handful of them is too narrow.
    pub rare: usize,
}

/// Calls that went where they seldom go, below which there is no telling.
pub const LEAST_RARE: usize = 10;

impl Estimate {
    /// Whether it rests on enough.
    pub fn is_telling(&self) -> bool {
        self.calls >= 2 && self.rare >= LEAST_RARE
    }
}

/// The mean outcome under `policy`.
pub fn value(samples: &[Sample], policy: Policy) -> Estimate {
    mean(&values(samples, policy), rare(samples, policy))
}

/// Calls that took the way of `policy` although it was unlikely; all of them where no way is.
fn rare(samples: &[Sample], policy: Policy) -> usize {
    if policy == Policy::Served {
        return samples.len();
    }
    let took = |it: &&Sample| {
        let deep = policy.deep(it);
        (if it.deep { deep } else { 1.0 - deep }) > 0.0
    };
    let all = samples.iter().filter(took);
    let rarest = |deep: bool| {
        let arm = all.clone().filter(|it| it.deep == deep);
        let seldom = arm.clone().filter(|it| it.propensity < 0.5).count();
        // Where nothing is seldom in an arm, the lot alone sends calls there.
        let wanted = samples.iter().any(|it| {
            let share = policy.deep(it);
            (if deep { share } else { 1.0 - share }) > 0.0 && it.chosen_deep != deep
        });
        if wanted { seldom } else { samples.len() }
    };
    rarest(true).min(rarest(false))
}

/// How much better `policy` is than `other` on the same calls.
pub fn contrast(samples: &[Sample], policy: Policy, other: Policy) -> Estimate {
    let (ours, theirs) = (values(samples, policy), values(samples, other));
    let differences: Vec<f64> = ours.iter().zip(&theirs).map(|(a, b)| a - b).collect();
    let rare = rare(samples, policy).min(rare(samples, other));
    mean(&differences, rare)
}

#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    total: f64,
    calls: f64,
}

/// The value of a policy for each call.
fn values(samples: &[Sample], policy: Policy) -> Vec<f64> {
    if policy == Policy::Served {
        return samples.iter().map(|sample| sample.outcome).collect();
    }
    let mut strata: BTreeMap<(u32, bool), Sum> = BTreeMap::new();
    let mut arms = [Sum::default(); 2];
    for sample in samples {
        let [fast, deep] = &mut arms;
        let arm = if sample.deep { deep } else { fast };
        let stratum = strata.entry((sample.stratum, sample.deep)).or_default();
        for sum in [arm, stratum] {
            sum.total += sample.outcome;
            sum.calls += 1.0;
        }
    }
    let [fast, deep] = arms;
    let model = |sample: &Sample, arm: bool| {
        let own = arm == sample.deep;
        let without = |sum: Sum| Sum {
            total: sum.total - if own { sample.outcome } else { 0.0 },
            calls: sum.calls - if own { 1.0 } else { 0.0 },
        };
        let all = without(if arm { deep } else { fast });
        let arm_mean = if all.calls > 0.0 {
            all.total / all.calls
        } else {
            0.0
        };
        let near = strata.get(&(sample.stratum, arm)).copied();
        let near = without(near.unwrap_or(Sum {
            total: if own { sample.outcome } else { 0.0 },
            calls: if own { 1.0 } else { 0.0 },
        }));
        (near.total + PRIOR * arm_mean) / (near.calls + PRIOR)
    };
    samples
        .iter()
        .map(|sample| {
            let deep = policy.deep(sample);
            let expected = deep * model(sample, true) + (1.0 - deep) * model(sample, false);
            let taken = if sample.deep { deep } else { 1.0 - deep };
            let surprise = sample.outcome - model(sample, sample.deep);
            expected + taken / sample.propensity.max(1e-6) * surprise
        })
        .collect()
}

/// A mean with its interval, which is as wide as Student's for as many calls as are rare: the first
/// term of its expansion by degrees of freedom (Cornish and Fisher, 1960).
#[expect(clippy::cast_precision_loss, reason = "a count of calls")]
fn mean(values: &[f64], rare: usize) -> Estimate {
    let n = values.len() as f64;
    if values.is_empty() {
        return Estimate::default();
    }
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let error = (squares / (n - 1.0).max(1.0) / n).sqrt();
    // One call alone says nothing of how far off it is.
    let error = if values.len() < 2 { 1.0 } else { error };
    let freedom = rare.saturating_sub(1).max(1) as f64;
    let wide = TWO_SIDED_95 + (TWO_SIDED_95.powi(3) + TWO_SIDED_95) / (4.0 * freedom);
    Estimate {
        value: mean,
        low: mean - wide * error,
        high: mean + wide * error,
        calls: values.len(),
        rare,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small generator, so that the test is the same in every run.
    fn random(state: &mut u64) -> f64 {
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        #[expect(clippy::cast_precision_loss, reason = "31 bits")]
        let bits = (*state >> 33) as f64;
        bits / f64::from(1_u32 << 31)
    }

    /// A world in which deep is better where the score is high, and the router sends a fifth deep.
    fn world(calls: usize, control: f64, state: &mut u64) -> (Vec<Sample>, [f64; 3]) {
        let mut truth = [0.0; 3];
        let mut samples = Vec::new();
        for _ in 0..calls {
            let score = random(state);
            let (fast, deep) = (0.9 - 0.6 * score, 0.9 - 0.2 * score);
            let chosen_deep = score > 0.8;
            let drawn = random(state) < control;
            let goes_deep = if drawn {
                random(state) < 0.2
            } else {
                chosen_deep
            };
            let share = if goes_deep { 0.2 } else { 0.8 };
            let own = if goes_deep == chosen_deep {
                1.0 - control
            } else {
                0.0
            };
            let quality = if goes_deep { deep } else { fast };
            for (sum, value) in
                truth
                    .iter_mut()
                    .zip([if chosen_deep { deep } else { fast }, fast, deep])
            {
                *sum += value;
            }
            samples.push(Sample {
                deep: goes_deep,
                chosen_deep,
                propensity: own + control * share,
                stratum: (1..10)
                    .filter(|tenth| score * 10.0 >= f64::from(*tenth))
                    .sum(),
                outcome: f64::from(u8::from(random(state) < quality)),
            });
        }
        #[expect(clippy::cast_precision_loss, reason = "a count of calls")]
        let n = calls as f64;
        (samples, truth.map(|sum| sum / n))
    }

    #[test]
    fn intervals_hold_the_truth_as_often_as_they_say() {
        let mut state = 7;
        let mut held = [0; 3];
        for _ in 0..200 {
            let (samples, truth) = world(1_000, 0.2, &mut state);
            let policies = [Policy::Chosen, Policy::Fast, Policy::Deep];
            for ((policy, truth), held) in policies.iter().zip(truth).zip(&mut held) {
                let estimate = value(&samples, *policy);
                *held += u32::from(estimate.low <= truth && truth <= estimate.high);
            }
        }
        for held in held {
            assert!((180..=200).contains(&held), "{held} of 200 hold the truth");
        }
    }

    #[test]
    fn a_plain_mean_of_what_was_served_would_be_wrong() {
        let mut state = 11;
        let (samples, [_, fast, deep]) = world(20_000, 0.05, &mut state);
        let served: Vec<&Sample> = samples.iter().filter(|it| it.deep).collect();
        #[expect(clippy::cast_precision_loss, reason = "a count of calls")]
        let naive = served.iter().map(|it| it.outcome).sum::<f64>() / served.len() as f64;
        let robust = value(&samples, Policy::Deep);
        assert!((naive - deep).abs() > 0.05, "{naive} against {deep}");
        assert!(
            (robust.value - deep).abs() < 0.03,
            "{robust:?} against {deep}"
        );
        let gain = contrast(&samples, Policy::Deep, Policy::Fast);
        assert!((gain.value - (deep - fast)).abs() < 0.05, "{gain:?}");
    }

    #[test]
    fn a_handful_of_calls_that_went_another_way_tell_nothing() {
        assert!(!value(&[], Policy::Deep).is_telling());
        let mut state = 3;
        let (few, _) = world(200, 0.02, &mut state);
        assert!(!value(&few, Policy::Deep).is_telling());
        assert!(value(&few, Policy::Served).is_telling());
        let (many, _) = world(20_000, 0.02, &mut state);
        for policy in [Policy::Deep, Policy::Fast, Policy::Lot(0.2)] {
            assert!(value(&many, policy).is_telling(), "{policy:?}");
        }
    }
}
