//! What is learned of each prompt. One run of one pair of models is mostly chance; how the source's other
//! models fared on the same prompt says more of it, so both are mixed.

use std::collections::{BTreeMap, BTreeSet};

use super::data::Row;
use super::ridge::LABELS;

/// Labels along the rows that are trained on.
pub(crate) struct Labels {
    /// Outcome of the fast and of the deep model; both less their source's mean; the mean over all
    /// models, less the source's.
    pub(crate) outcomes: Vec<[f32; LABELS]>,
    /// Gain of the deep model, less the source's mean. Sources differ in their pairs, and which source
    /// a prompt comes from must not be worth learning.
    pub(crate) gain: Vec<f32>,
    /// A source of few rows weighs more by the row, by the square root.
    pub(crate) weights: Vec<f32>,
}

/// The part of a label that is the pair's own outcome, not what other models' outcomes tell of it.
const OWN: f64 = 0.5;
/// Folds in which the outcome is told from other models', so that no row tells its own.
const FOLDS: u64 = 5;
/// Penalty on the squares of the coefficients.
const PENALTY: f64 = 5.0;
/// Rows below which a source tells nothing beyond the pair.
const LEAST_ROWS: usize = 60;

/// Makes the labels of the rows at the places `inside`, from these alone.
pub(crate) fn labels(rows: &[Row], inside: &[usize]) -> Labels {
    let mut by_source: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (place, i) in inside.iter().enumerate() {
        by_source.entry(&rows[*i].source).or_default().push(place);
    }
    let mut made = Labels {
        outcomes: vec![[0.0; LABELS]; inside.len()],
        gain: vec![0.0; inside.len()],
        weights: vec![0.0; inside.len()],
    };
    let even = inside.len() as f32 / by_source.len().max(1) as f32;
    for places in by_source.values() {
        let members: Vec<&Row> = places.iter().map(|place| &rows[inside[*place]]).collect();
        let told = denoised(&members);
        let mean = |lane: usize| told.iter().map(|t| t[lane]).sum::<f64>() / told.len() as f64;
        let means = [mean(0), mean(1), mean(2)];
        for (place, told) in places.iter().zip(&told) {
            made.outcomes[*place] = [
                told[0] as f32,
                told[1] as f32,
                (told[0] - means[0]) as f32,
                (told[1] - means[1]) as f32,
                (told[2] - means[2]) as f32,
            ];
            made.gain[*place] = (told[1] - told[0] - means[1] + means[0]) as f32;
            made.weights[*place] = (even / places.len() as f32).sqrt();
        }
    }
    made
}

/// For each row of one source: the fast model's outcome, the deep one's, and the mean of all models.
fn denoised(members: &[&Row]) -> Vec<[f64; 3]> {
    let own: Vec<[f64; 2]> = members
        .iter()
        .map(|row| [f64::from(row.weak), f64::from(row.strong)])
        .collect();
    let others = others(members);
    let Some(width) = others.first().map(Vec::len).filter(|width| *width > 0) else {
        return own
            .iter()
            .map(|[w, s]| [*w, *s, f64::midpoint(*w, *s)])
            .collect();
    };
    let inputs: Vec<Vec<f64>> = others
        .iter()
        .map(|scores| {
            let mean = scores.iter().sum::<f64>() / width as f64;
            let mut inputs = scores.clone();
            inputs.extend([mean, mean * mean, mean * mean * mean]);
            inputs
        })
        .collect();
    let mut told = vec![[0.0; 2]; members.len()];
    for fold in 0..FOLDS {
        let is_out = |k: usize| members[k].fold(FOLDS, 77) == fold;
        let learn: Vec<usize> = (0..members.len()).filter(|k| !is_out(*k)).collect();
        for lane in 0..2 {
            let answers: Vec<f64> = learn.iter().map(|k| own[*k][lane]).collect();
            let sheet: Vec<&[f64]> = learn.iter().map(|k| &*inputs[*k]).collect();
            let fit = Linear::fit(&sheet, &answers, PENALTY);
            for k in (0..members.len()).filter(|k| is_out(*k)) {
                told[k][lane] = fit.at(&inputs[k]);
            }
        }
    }
    (0..members.len())
        .map(|k| {
            let sum: f64 = others[k].iter().sum::<f64>() + own[k][0] + own[k][1];
            let mixed = |lane: usize| OWN * own[k][lane] + (1.0 - OWN) * told[k][lane];
            [mixed(0), mixed(1), sum / (width + 2) as f64]
        })
        .collect()
}

/// Scores of the models that are not the pair itself, which a source may list under names of its own.
fn others(members: &[&Row]) -> Vec<Vec<f64>> {
    let nothing = || vec![Vec::new(); members.len()];
    let names: BTreeSet<&str> = members
        .iter()
        .flat_map(|row| row.outcomes.keys().map(String::as_str))
        .collect();
    if members.len() < LEAST_ROWS {
        return nothing();
    }
    let is_of_pair = |name: &str| {
        let same = |of: fn(&Row) -> f32| {
            let differ = |row: &&&Row| {
                let outcome = row.outcomes.get(name);
                outcome.is_none_or(|outcome| (outcome - of(row)).abs() > 1e-3)
            };
            members.iter().filter(differ).count() * 100 <= members.len()
        };
        same(|row| row.weak) || same(|row| row.strong)
    };
    let names: Vec<&str> = names.into_iter().filter(|name| !is_of_pair(name)).collect();
    let mean = |name: &str| {
        let known: Vec<f64> = members
            .iter()
            .filter_map(|row| row.outcomes.get(name).map(|x| f64::from(*x)))
            .collect();
        known.iter().sum::<f64>() / known.len().max(1) as f64
    };
    let means: Vec<f64> = names.iter().map(|name| mean(name)).collect();
    let scores = |row: &&Row| {
        let score =
            |(name, mean): (&&str, &f64)| row.outcomes.get(*name).map_or(*mean, |x| f64::from(*x));
        names.iter().zip(&means).map(score).collect()
    };
    members.iter().map(scores).collect()
}

/// A linear fit with shrinkage.
pub(crate) struct Linear {
    weights: Vec<f64>,
    centre: Vec<f64>,
    bias: f64,
}

impl Linear {
    /// Least squares of `answers` on `sheet`, by elimination; the mean is not shrunk.
    pub(crate) fn fit(sheet: &[&[f64]], answers: &[f64], penalty: f64) -> Self {
        let width = sheet.first().map_or(0, |row| row.len());
        let n = sheet.len().max(1) as f64;
        let centre: Vec<f64> = (0..width)
            .map(|k| sheet.iter().map(|row| row[k]).sum::<f64>() / n)
            .collect();
        let bias = answers.iter().sum::<f64>() / n;
        let mut system = vec![vec![0.0; width + 1]; width];
        for (row, answer) in sheet.iter().zip(answers) {
            for a in 0..width {
                let x = row[a] - centre[a];
                for b in 0..width {
                    system[a][b] += x * (row[b] - centre[b]);
                }
                system[a][width] += x * (answer - bias);
            }
        }
        for (k, line) in system.iter_mut().enumerate() {
            line[k] += penalty;
        }
        Self {
            weights: solve(system),
            centre,
            bias,
        }
    }

    pub(crate) fn at(&self, inputs: &[f64]) -> f64 {
        let each = self.weights.iter().zip(inputs.iter().zip(&self.centre));
        self.bias + each.map(|(w, (x, centre))| w * (x - centre)).sum::<f64>()
    }
}

/// Gauss and Jordan; the system is positive definite, so no pivot is looked for.
fn solve(mut system: Vec<Vec<f64>>) -> Vec<f64> {
    let width = system.len();
    for k in 0..width {
        let pivot = system[k].clone();
        for (other, line) in system.iter_mut().enumerate() {
            if other != k {
                let times = line[k] / pivot[k];
                for (cell, above) in line.iter_mut().zip(&pivot) {
                    *cell -= times * above;
                }
            }
        }
    }
    (0..width)
        .map(|k| system[k][width] / system[k][k])
        .collect()
}
