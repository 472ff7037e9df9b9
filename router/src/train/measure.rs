//! Measures of routing quality, as `eval_routing.py` has them. Rows in the order of falling score go deep;
//! y(x) is the mean quality when the top share x has gone, W all fast, S all deep.
//! PGR(x) = (y(x) - W) / (S - W). PGR@20 is at x = .2, APGR the mean over all x (RouteLLM, Ong et al.
//! 2024), CPT(p) the least x with PGR(x) >= p, AUROC and ECE are of the label "deep needed".
//! STRAT spends the same budget in each source and averages gains; POOLED is one ranking, MIX the same with
//! each source at equal weight.

use std::collections::BTreeMap;

use super::data::Row;
use super::shuffle::Random;

/// Points of an averaged gain curve: shares of 0, 0.5 %, ..., 100 %.
const GRID: usize = 201;
/// The share that PGR@20 looks at.
const BUDGET: f64 = 0.2;
const BINS: usize = 10;

/// What is measured of one set of rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measures {
    pub(crate) apgr: f64,
    pub(crate) pgr: f64,
    pub(crate) cpt50: f64,
    pub(crate) cpt80: f64,
    pub(crate) auroc: f64,
    pub(crate) ece: f64,
}

impl Measures {
    pub(crate) fn all(&self) -> [f64; 6] {
        [
            self.apgr, self.pgr, self.cpt50, self.cpt80, self.auroc, self.ece,
        ]
    }
}

/// Rows of one source, ordered once; bootstrap weights may change.
struct Ranking {
    /// Places, falling score.
    order: Vec<usize>,
    /// Where each run of equal scores ends in `order`.
    ends: Vec<usize>,
}

/// Gains along shares of rows gone deep.
#[derive(Clone)]
pub(crate) struct Curve {
    x: Vec<f64>,
    gain: Vec<f64>,
}

/// All rows of a table, ranked by one score.
pub(crate) struct Evaluation<'a> {
    rows: &'a [&'a Row],
    scores: &'a [f32],
    sources: Vec<(String, Ranking)>,
    pooled: Ranking,
    /// Each row's weight when sources weigh the same.
    even: Vec<f64>,
    clusters: Vec<usize>,
}

impl<'a> Evaluation<'a> {
    pub(crate) fn of(rows: &'a [&'a Row], scores: &'a [f32]) -> Self {
        let mut by_source: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        let mut numbers: BTreeMap<u64, usize> = BTreeMap::new();
        let mut clusters = Vec::new();
        for (place, row) in rows.iter().enumerate() {
            by_source.entry(&row.source).or_default().push(place);
            let next = numbers.len();
            clusters.push(*numbers.entry(row.cluster).or_insert(next));
        }
        let mut even = vec![0.0; rows.len()];
        for members in by_source.values() {
            for i in members {
                even[*i] = 1.0 / members.len() as f64;
            }
        }
        let sources = by_source
            .into_iter()
            .map(|(source, members)| (source.to_owned(), Ranking::of(members, scores)))
            .collect();
        let pooled = Ranking::of((0..rows.len()).collect(), scores);
        Self {
            rows,
            scores,
            sources,
            pooled,
            even,
            clusters,
        }
    }

    /// Each source by name, then STRAT, POOLED and MIX.
    pub(crate) fn measures(&self, weights: &[f64]) -> Vec<(String, usize, Measures)> {
        let mut table = Vec::new();
        let mut average = [0.0; GRID];
        let mut auroc = 0.0;
        for (source, ranking) in &self.sources {
            let curve = ranking.curve(self.rows, weights);
            let measures = self.whole(&curve, ranking, weights);
            auroc += measures.auroc / self.sources.len() as f64;
            for (k, sum) in average.iter_mut().enumerate() {
                let x = k as f64 / (GRID - 1) as f64;
                *sum += curve.at(x) / self.sources.len() as f64;
            }
            table.push((source.clone(), ranking.order.len(), measures));
        }
        let grid = (0..GRID).map(|k| k as f64 / (GRID - 1) as f64).collect();
        let strat = Curve {
            x: grid,
            gain: average.to_vec(),
        }
        .measures();
        table.push((
            "STRAT".to_owned(),
            self.rows.len(),
            Measures { auroc, ..strat },
        ));
        let curve = self.pooled.curve(self.rows, weights);
        let pooled = self.whole(&curve, &self.pooled, weights);
        table.push(("POOLED".to_owned(), self.rows.len(), pooled));
        let mixed: Vec<f64> = self.even.iter().zip(weights).map(|(a, b)| a * b).collect();
        let curve = self.pooled.curve(self.rows, &mixed);
        let mix = self.whole(&curve, &self.pooled, &mixed);
        let mix = Measures {
            ece: f64::NAN,
            ..mix
        };
        table.push(("MIX".to_owned(), self.rows.len(), mix));
        table
    }

    /// The measures of the rows as they are.
    pub(crate) fn measures_once(&self) -> Vec<(String, usize, Measures)> {
        self.measures(&vec![1.0; self.rows.len()])
    }

    /// 95 % intervals of each measure: clusters drawn with replacement `draws` times.
    pub(crate) fn intervals(&self, draws: usize, seed: u64) -> Vec<[(f64, f64); 6]> {
        let clusters = self.clusters.iter().max().map_or(0, |most| most + 1);
        let mut random = Random::new(seed);
        let mut drawn: Vec<Vec<[f64; 6]>> = Vec::new();
        for _ in 0..draws {
            let mut times = vec![0.0; clusters];
            for _ in 0..clusters {
                times[random.below(clusters)] += 1.0;
            }
            let weights: Vec<f64> = self.clusters.iter().map(|c| times[*c]).collect();
            drawn.push(
                self.measures(&weights)
                    .iter()
                    .map(|line| line.2.all())
                    .collect(),
            );
        }
        let lines = self.sources.len() + 3;
        let interval = |line: usize, k: usize| {
            let mut values: Vec<f64> = drawn.iter().map(|draw| draw[line][k]).collect();
            values.sort_by(f64::total_cmp);
            let at = |q: f64| values[((values.len() - 1) as f64 * q).round() as usize];
            (at(0.025), at(0.975))
        };
        (0..lines)
            .map(|line| std::array::from_fn(|k| interval(line, k)))
            .collect()
    }

    fn whole(&self, curve: &Curve, ranking: &Ranking, weights: &[f64]) -> Measures {
        Measures {
            auroc: ranking.auroc(self.rows, weights),
            ece: ranking.ece(self.rows, self.scores),
            ..curve.measures()
        }
    }
}

/// Measures of one ranking over the rows at the places `members`.
pub(crate) fn of_members(rows: &[&Row], scores: &[f32], members: &[usize]) -> Measures {
    let ranking = Ranking::of(members.to_vec(), scores);
    let weights = vec![1.0; rows.len()];
    Measures {
        auroc: ranking.auroc(rows, &weights),
        ece: ranking.ece(rows, scores),
        ..ranking.curve(rows, &weights).measures()
    }
}

impl Ranking {
    fn of(mut order: Vec<usize>, scores: &[f32]) -> Self {
        order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
        let mut ends: Vec<usize> = (1..order.len())
            .filter(|k| scores[order[*k]].to_bits() != scores[order[k - 1]].to_bits())
            .collect();
        ends.push(order.len());
        Self { order, ends }
    }

    /// Among equal scores gains are spread evenly: the value to expect of a random order.
    fn curve(&self, rows: &[&Row], weights: &[f64]) -> Curve {
        let total: f64 = self.order.iter().map(|i| weights[*i]).sum();
        let (mut x, mut gain) = (vec![0.0], vec![0.0]);
        let (mut start, mut share, mut sum) = (0, 0.0, 0.0);
        for end in &self.ends {
            for i in &self.order[start..*end] {
                share += weights[*i] / total;
                sum += weights[*i] * f64::from(rows[*i].gain()) / total;
            }
            x.push(share);
            gain.push(sum);
            start = *end;
        }
        Curve { x, gain }
    }

    fn auroc(&self, rows: &[&Row], weights: &[f64]) -> f64 {
        let (mut above, mut won, mut start) = (0.0, 0.0, 0);
        let mut below = 0.0;
        for end in &self.ends {
            let (mut yes, mut no) = (0.0, 0.0);
            for i in &self.order[start..*end] {
                if rows[*i].needs_deep() {
                    yes += weights[*i];
                } else {
                    no += weights[*i];
                }
            }
            won += no * (above + yes / 2.0);
            above += yes;
            below += no;
            start = *end;
        }
        won / (above * below)
    }

    /// Expected calibration error over ten bins of equally many rows.
    fn ece(&self, rows: &[&Row], scores: &[f32]) -> f64 {
        let n = self.order.len();
        let bin = |k: usize| &self.order[n * k / BINS..n * (k + 1) / BINS];
        (0..BINS)
            .map(|k| {
                let said: f64 = bin(k).iter().map(|i| f64::from(scores[*i])).sum();
                let was = bin(k).iter().filter(|i| rows[**i].needs_deep()).count();
                (said - was as f64).abs() / n as f64
            })
            .sum()
    }
}

impl Curve {
    /// The gain at a share of deep calls.
    pub(crate) fn at(&self, share: f64) -> f64 {
        let k = self
            .x
            .partition_point(|x| *x < share)
            .clamp(1, self.x.len() - 1);
        let (x0, x1) = (self.x[k - 1], self.x[k]);
        let part = if x1 > x0 {
            ((share - x0) / (x1 - x0)).clamp(0.0, 1.0)
        } else {
            1.0
        };
        self.gain[k - 1] + part * (self.gain[k] - self.gain[k - 1])
    }

    fn measures(&self) -> Measures {
        let gap = *self.gain.last().unwrap_or(&f64::NAN);
        let steps = self.x.windows(2).zip(self.gain.windows(2));
        let area: f64 = steps
            .map(|(x, gain)| (x[1] - x[0]) * f64::midpoint(gain[0], gain[1]))
            .sum();
        Measures {
            apgr: area / gap,
            pgr: self.at(BUDGET) / gap,
            cpt50: self.first(0.5 * gap),
            cpt80: self.first(0.8 * gap),
            auroc: f64::NAN,
            ece: f64::NAN,
        }
    }

    /// The least share at which the gain is reached.
    fn first(&self, wanted: f64) -> f64 {
        let Some(k) = self.gain.iter().position(|gain| *gain >= wanted - 1e-12) else {
            return f64::NAN;
        };
        if k == 0 {
            return 0.0;
        }
        let (low, high) = (self.gain[k - 1], self.gain[k]);
        let part = if high > low {
            (wanted - low) / (high - low)
        } else {
            1.0
        };
        self.x[k - 1] + part * (self.x[k] - self.x[k - 1])
    }
}

/// Slope and offset of the logistic curve that fits the labels best, by Newton's method.
pub(crate) fn calibrate(rows: &[&Row], raw: &[f32]) -> (f32, f32) {
    let (mut slope, mut offset) = (1.0_f64, 0.0_f64);
    for _ in 0..50 {
        let (mut g0, mut g1, mut h00, mut h01, mut h11) = (0.0, 0.0, 1e-9, 0.0, 1e-9);
        for (row, raw) in rows.iter().zip(raw) {
            let x = f64::from(*raw);
            let p = 1.0 / (1.0 + (-(slope * x + offset)).exp());
            let (error, w) = (p - f64::from(u8::from(row.needs_deep())), p * (1.0 - p));
            (g0, g1) = (g0 + error, g1 + error * x);
            (h00, h01, h11) = (h00 + w, h01 + w * x, h11 + w * x * x);
        }
        let determinant = h00 * h11 - h01 * h01;
        offset -= (g0 * h11 - g1 * h01) / determinant;
        slope -= (g1 * h00 - g0 * h01) / determinant;
    }
    (slope as f32, offset as f32)
}

/// The calibrated probability of a raw score.
pub(crate) fn probability(raw: f32, (slope, offset): (f32, f32)) -> f32 {
    1.0 / (1.0 + (-(slope * raw + offset)).exp())
}
