//! Medians, ratios against a reference that was measured nearby in time, and intervals by resampling.

use std::time::Duration;

use serde::Serialize;

use super::chance::Chance;

/// Resamples behind an interval.
const RESAMPLES: usize = 2_000;

/// The middle of some rounds, and how far it can be trusted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Interval {
    pub median: f64,
    /// 95 % of the medians of resampled rounds lie between these.
    pub low: f64,
    pub high: f64,
    pub min: f64,
    pub max: f64,
    /// Each round's value.
    pub rounds: Vec<f64>,
}

/// The interval of the rounds' values; `None` where there is none.
pub fn interval(rounds: &[f64], seed: u64) -> Option<Interval> {
    let sorted = sorted(rounds);
    let (min, max) = (*sorted.first()?, *sorted.last()?);
    let mut chance = Chance::new(seed);
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let drawn = (0..rounds.len()).map(|_| rounds[chance.below(rounds.len())]);
            median(&drawn.collect::<Vec<_>>()).unwrap_or_default()
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    let at = |per_mille: usize| medians[(RESAMPLES - 1) * per_mille / 1_000];
    Some(Interval {
        median: median(rounds)?,
        low: at(25),
        high: at(975),
        min,
        max,
        rounds: rounds.to_vec(),
    })
}

/// The median of some rounds over that of others. For differences, of which single ones may come to nothing or
/// less: a ratio of each would be noise. The interval is that of resampling both.
pub fn ratio_of_medians(rounds: &[f64], base: &[f64], seed: u64) -> Option<Interval> {
    let over = |a: &[f64], b: &[f64]| Some(median(a)? / median(b)?).filter(|it| it.is_finite());
    let found = over(rounds, base)?;
    let mut chance = Chance::new(seed);
    let mut drawn =
        |of: &[f64]| -> Vec<f64> { (0..of.len()).map(|_| of[chance.below(of.len())]).collect() };
    let mut all = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        let (a, b) = (drawn(rounds), drawn(base));
        all.extend(over(&a, &b));
    }
    all.sort_by(f64::total_cmp);
    let at = |per_mille: usize| all.get(all.len().saturating_sub(1) * per_mille / 1_000);
    Some(Interval {
        median: found,
        low: *at(25)?,
        high: *at(975)?,
        min: *at(0)?,
        max: *at(1_000)?,
        rounds: Vec::new(),
    })
}

/// The middle value, or the mean of the two in the middle.
pub fn median(values: &[f64]) -> Option<f64> {
    let sorted = sorted(values);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(sorted[middle - 1], upper))
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// A figure and the middle of the time in which it was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Taken {
    pub at: f64,
    pub value: f64,
}

/// What the reference would have measured at `at`: between the two runs around it by their distance,
/// outside of them the nearest.
pub fn nearest(reference: &[Taken], at: f64) -> Option<f64> {
    let before = reference
        .iter()
        .filter(|it| it.at <= at)
        .max_by(|a, b| a.at.total_cmp(&b.at));
    let after = reference
        .iter()
        .filter(|it| it.at >= at)
        .min_by(|a, b| a.at.total_cmp(&b.at));
    match (before, after) {
        (Some(before), Some(after)) if after.at > before.at => {
            let share = (at - before.at) / (after.at - before.at);
            Some(before.value + share * (after.value - before.value))
        }
        (Some(only), _) | (None, Some(only)) => Some(only.value),
        (None, None) => None,
    }
}

/// Each run divided by the reference at its time; runs without one are left out.
pub fn ratios(runs: &[Taken], reference: &[Taken]) -> Vec<f64> {
    let over = |run: &Taken| {
        let base = nearest(reference, run.at)?;
        (base.abs() > f64::EPSILON).then(|| run.value / base)
    };
    runs.iter().filter_map(over).collect()
}

/// What each run has more than the reference at its time.
pub fn differences(runs: &[Taken], reference: &[Taken]) -> Vec<Taken> {
    let over = |run: &Taken| {
        Some(Taken {
            at: run.at,
            value: run.value - nearest(reference, run.at)?,
        })
    };
    runs.iter().filter_map(over).collect()
}

/// A count as a real number.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts of a run are far below 2^53; more would lose their last digits in print"
)]
pub fn real(count: u64) -> f64 {
    count as f64
}

/// Nanoseconds as microseconds.
pub fn micros(nanos: u64) -> f64 {
    Duration::from_nanos(nanos).as_secs_f64() * 1e6
}

/// `a / b`, and nothing where that means nothing.
pub fn over(a: f64, b: f64) -> Option<f64> {
    (b > 0.0).then(|| a / b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(rows: &[(f64, f64)]) -> Vec<Taken> {
        let each = |&(at, value)| Taken { at, value };
        rows.iter().map(each).collect()
    }

    #[test]
    fn medians_by_hand() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[4.0]), Some(4.0));
        assert_eq!(median(&[9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(&[9.0, 1.0, 5.0, 6.0]), Some(5.5));
    }

    /// The reference costs 10, then 20, as when the machine slows down to half its speed.
    #[test]
    fn a_run_is_divided_by_the_reference_around_it() {
        let reference = taken(&[(0.0, 10.0), (10.0, 20.0)]);
        let cases = [
            (-1.0, 10.0),
            (0.0, 10.0),
            (5.0, 15.0),
            (7.5, 17.5),
            (99.0, 20.0),
        ];
        for (at, expected) in cases {
            assert_eq!(nearest(&reference, at), Some(expected), "{at}");
        }
        let runs = taken(&[(5.0, 30.0), (10.0, 30.0), (99.0, 10.0)]);
        assert_eq!(ratios(&runs, &reference), [2.0, 1.5, 0.5]);
        let more: Vec<f64> = differences(&runs, &reference)
            .iter()
            .map(|it| it.value)
            .collect();
        assert_eq!(more, [15.0, 10.0, -10.0]);
        assert_eq!(ratios(&runs, &[]), [0.0; 0]);
        assert_eq!(ratios(&runs, &taken(&[(0.0, 0.0)])), [0.0; 0]);
    }

    /// By hand: 200 over 50. A round of the base that came to less than nothing moves the interval alone.
    #[test]
    fn a_ratio_of_medians_bears_single_rounds_that_are_noise() {
        let found = ratio_of_medians(&[200.0; 3], &[50.0; 3], 1).unwrap();
        assert_eq!((found.low, found.median, found.high), (4.0, 4.0, 4.0));
        let base = [50.0, 50.0, 50.0, 50.0, 50.0, 50.0, -1e6];
        let noisy = ratio_of_medians(&[200.0; 7], &base, 1).unwrap();
        assert_eq!((noisy.low, noisy.median, noisy.high), (4.0, 4.0, 4.0));
        assert_eq!(ratio_of_medians(&[1.0], &[0.0], 1), None);
        assert_eq!(ratio_of_medians(&[], &[1.0], 1), None);
    }

    #[test]
    fn intervals_hold_the_median_and_lie_within_the_rounds() {
        let rounds = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 9.0];
        let found = interval(&rounds, 1).unwrap();
        assert_eq!((found.median, found.min, found.max), (1.3, 1.0, 9.0));
        // The median of seven draws is the lowest value with 1 %, one of the two lowest with 10 % (binomial, at least
        // four of seven at 1/7 and 2/7): so the bounds of 95 % are the second lowest and the second highest.
        assert_eq!((found.low, found.high), (1.1, 1.5));
        assert_eq!(found, interval(&rounds, 1).unwrap());
        assert_eq!(interval(&[], 1), None);
        let one = interval(&[2.0], 1).unwrap();
        assert_eq!((one.low, one.median, one.high), (2.0, 2.0, 2.0));
    }
}
