//! Rising rates up to the knee: the highest rate at which a target still meets an objective.

use super::compare::{Comparison, Progress};
use super::report::{Report, Run, Step, TargetReport};
use super::stats::{over, real};
use super::tally::Tally;
use super::window::{self, Gauges, Measured, Workload};

/// What must hold at a rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Objective {
    /// This quantile of latency, from the planned start,
    pub quantile: f64,
    /// in milliseconds at most,
    pub limit_ms: f64,
    /// and at most this share of calls that fail.
    pub errors: f64,
}

/// Rates to try.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ladder {
    pub from: f64,
    /// Each rate over the one before.
    pub factor: f64,
    /// No rate above this.
    pub most: f64,
    /// How often the span between the last good and the first bad rate is halved.
    pub halvings: usize,
    pub objective: Objective,
}

impl Objective {
    fn is_met(&self, measured: &Measured) -> bool {
        let tally = &measured.tally;
        let failed = over(real(tally.errors.sum()), real(tally.ended())).unwrap_or(1.0);
        let nanos = tally.latency.value_at_quantile(self.quantile);
        failed <= self.errors && super::stats::micros(nanos) <= self.limit_ms * 1_000.0
    }
}

/// Where a target stands on the ladder.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Standing {
    good: f64,
    bad: Option<f64>,
    halved: usize,
}

impl Standing {
    /// The next rate to try; `None` at the knee.
    fn next(&self, ladder: &Ladder) -> Option<f64> {
        let Some(bad) = self.bad else {
            let next = if self.good > 0.0 {
                self.good * ladder.factor.max(1.05)
            } else {
                ladder.from
            };
            return (next <= ladder.most).then_some(next);
        };
        // Where even the first rate was too high, there is nothing to halve.
        let more = self.good > 0.0 && self.halved < ladder.halvings;
        more.then(|| f64::midpoint(self.good, bad))
    }

    fn take(&mut self, per_second: f64, met: bool) {
        self.halved += usize::from(self.bad.is_some());
        if met {
            self.good = self.good.max(per_second);
        } else {
            self.bad = Some(per_second);
        }
    }
}

/// Climbs with all targets in turns.
///
/// # Errors
/// The load itself can not run.
pub fn run(
    comparison: &Comparison,
    ladder: &Ladder,
    watch: &mut dyn FnMut(&Progress<'_>),
) -> anyhow::Result<Report> {
    let made = comparison.prepare(&comparison.plan.shape);
    let streams = comparison.plan.shape.stream;
    let mut reports: Vec<_> = comparison.targets.iter().map(TargetReport::new).collect();
    let mut sums: Vec<Tally> = reports.iter().map(|_| Tally::default()).collect();
    let mut standings = vec![Standing::default(); reports.len()];
    let (mut steps, mut first, mut done) = (Vec::new(), None, 0);
    loop {
        let mut tried = false;
        for (place, target) in comparison.targets.iter().enumerate() {
            let Some(per_second) = standings[place].next(ladder) else {
                continue;
            };
            tried = true;
            let mut plan = comparison.plan.clone();
            plan.workload = Workload::Rate { per_second };
            let label = format!("{} at {per_second:.0}/s", target.name);
            let mut told = |gauges: &Gauges| {
                watch(&Progress {
                    target: &label,
                    done,
                    of: 0,
                    gauges,
                });
            };
            let measured = window::run(target, &plan, &made[place], &mut told)?;
            let met = ladder.objective.is_met(&measured);
            standings[place].take(per_second, met);
            let first = *first.get_or_insert(measured.at);
            let run = Run::of(&measured, done, first, streams);
            steps.push(Step {
                target: target.name.clone(),
                per_second,
                met,
                knee: false,
                figures: run.figures.clone(),
                errors: run.errors.clone(),
            });
            reports[place].runs.push(run);
            sums[place].merge(&measured.tally);
            done += 1;
            std::thread::sleep(comparison.pause);
        }
        if !tried {
            break;
        }
    }
    for (report, sum) in reports.iter_mut().zip(&sums) {
        report.sum(sum, streams);
    }
    for (standing, target) in standings.iter().zip(&comparison.targets) {
        let knee = |step: &&mut Step| {
            step.target == target.name && step.met && step.per_second >= standing.good
        };
        if let Some(step) = steps.iter_mut().find(knee) {
            step.knee = true;
        }
    }
    let mut report = comparison.blank("steps", reports);
    report.steps = steps;
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LADDER: Ladder = Ladder {
        from: 100.0,
        factor: 2.0,
        most: 10_000.0,
        halvings: 2,
        objective: Objective {
            quantile: 0.99,
            limit_ms: 50.0,
            errors: 0.01,
        },
    };

    /// The rates that are tried on a target that bears `most` calls a second.
    fn climb(most: f64) -> (Vec<f64>, f64) {
        let (mut standing, mut tried) = (Standing::default(), Vec::new());
        while let Some(rate) = standing.next(&LADDER) {
            tried.push(rate);
            standing.take(rate, rate <= most);
        }
        (tried, standing.good)
    }

    #[test]
    fn the_knee_is_found_by_doubling_and_halving() {
        let tried = vec![100.0, 200.0, 400.0, 800.0, 600.0, 700.0];
        assert_eq!(climb(650.0), (tried, 600.0));
        assert_eq!(climb(50.0), (vec![100.0], 0.0));
        assert_eq!(
            climb(1e9),
            (
                vec![100.0, 200.0, 400.0, 800.0, 1_600.0, 3_200.0, 6_400.0],
                6_400.0
            )
        );
    }
}
