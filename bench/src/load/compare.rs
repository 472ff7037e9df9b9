//! Several targets in one run: short windows in turns, the order by lot, each figure held against the
//! reference's windows around it, because a machine's speed moves within minutes.

use std::sync::Arc;
use std::time::Duration;

use super::call::Shape;
use super::chance::Chance;
use super::figures::{ADDED, FIGURES};
use super::report::{Compared, Conditions, Report, Run, TargetReport};
use super::stats::{self, Taken, interval};
use super::tally::Tally;
use super::window::{self, Gauges, Plan, Prepared, Target};
use crate::conversation::Prompt;

/// Targets, and how they are compared.
#[derive(Debug)]
pub struct Comparison {
    pub plan: Plan,
    pub targets: Vec<Target>,
    pub rounds: usize,
    /// Names of the targets to which ratios and additions are taken.
    pub reference: Option<String>,
    pub direct: Option<String>,
    /// Between two windows, for servers to come to rest.
    pub pause: Duration,
    pub prompts: Arc<[Prompt]>,
}

/// What is under way.
#[derive(Debug)]
pub struct Progress<'a> {
    pub target: &'a str,
    /// Windows that are over, and all of them.
    pub done: usize,
    pub of: usize,
    pub gauges: &'a Gauges,
}

impl Comparison {
    /// Calls made ahead for each target.
    pub(super) fn prepare(&self, shape: &Shape) -> Vec<Prepared> {
        let each = self.targets.iter();
        each.map(|target| target.prepare(shape, &self.prompts))
            .collect()
    }

    /// Runs all rounds.
    ///
    /// # Errors
    /// The load itself can not run; what targets do wrong is counted.
    pub fn run(&self, watch: &mut dyn FnMut(&Progress<'_>)) -> anyhow::Result<Report> {
        let (made, streams) = (self.prepare(&self.plan.shape), self.plan.shape.stream);
        let mut reports: Vec<TargetReport> = self.targets.iter().map(TargetReport::new).collect();
        let mut sums: Vec<Tally> = reports.iter().map(|_| Tally::default()).collect();
        let mut chance = Chance::new(self.plan.seed);
        let (mut order, mut first, mut done): (Vec<usize>, _, _) =
            ((0..self.targets.len()).collect(), None, 0);
        for round in 0..self.rounds.max(1) {
            chance.shuffle(&mut order);
            for &place in &order {
                let target = &self.targets[place];
                let of = self.rounds.max(1) * order.len();
                let mut told = |gauges: &Gauges| {
                    watch(&Progress {
                        target: &target.name,
                        done,
                        of,
                        gauges,
                    });
                };
                let mut plan = self.plan.clone();
                // Every round has arrivals of its own, the same for all targets.
                plan.seed = plan.seed.wrapping_add(u64::try_from(round).unwrap_or(0));
                let measured = window::run(target, &plan, &made[place], &mut told)?;
                let first = *first.get_or_insert(measured.at);
                reports[place]
                    .runs
                    .push(Run::of(&measured, round, first, streams));
                sums[place].merge(&measured.tally);
                done += 1;
                std::thread::sleep(self.pause);
            }
        }
        for (report, sum) in reports.iter_mut().zip(&sums) {
            report.sum(sum, streams);
        }
        Ok(self.report(reports))
    }

    /// A report without comparisons yet.
    pub(super) fn blank(&self, workload: &str, targets: Vec<TargetReport>) -> Report {
        Report {
            workload: workload.to_owned(),
            shape: self.plan.shape.clone(),
            conditions: Conditions {
                seed: self.plan.seed,
                rounds: self.rounds,
                window_s: self.plan.window.as_secs_f64(),
                threads: self.plan.threads,
                ..Conditions::here()
            },
            reference: self.reference.clone(),
            direct: self.direct.clone(),
            targets,
            ratios: Vec::new(),
            added: Vec::new(),
            added_ratios: Vec::new(),
            steps: Vec::new(),
        }
    }

    fn report(&self, targets: Vec<TargetReport>) -> Report {
        let mut report = self.blank(self.plan.workload.name(), targets);
        let seed = self.plan.seed;
        let compared = FIGURES.iter().filter(|figure| figure.compared);
        let names: Vec<&'static str> = compared.map(|figure| figure.name).collect();
        if let Some(reference) = &self.reference {
            report.ratios = ratios(&report.targets, reference, &names, seed);
        }
        if let Some(direct) = &self.direct {
            let reference = self.reference.as_ref().filter(|it| *it != direct);
            let reference = reference.map(String::as_str);
            (report.added, report.added_ratios) = added(&report.targets, direct, reference, seed);
        }
        report
    }
}

/// A figure of a target's rounds with their times.
fn taken(targets: &[TargetReport], name: &str, figure: &str) -> Vec<Taken> {
    let target = targets.iter().find(|target| target.name == name);
    let runs = target.map_or(&[][..], |target| &target.runs);
    let each = runs.iter().filter_map(|run| {
        let value = *run.figures.get(figure)?;
        let at = run.at_s;
        Some(Taken { at, value })
    });
    each.collect()
}

/// Each target's figures over the reference's.
pub fn ratios(
    targets: &[TargetReport],
    reference: &str,
    names: &[&'static str],
    seed: u64,
) -> Vec<Compared> {
    let mut all = Vec::new();
    for figure in names {
        let base = taken(targets, reference, figure);
        for target in targets {
            let runs = taken(targets, &target.name, figure);
            if let Some(over) = interval(&stats::ratios(&runs, &base), seed) {
                let target = target.name.clone();
                all.push(Compared {
                    target,
                    figure,
                    over,
                });
            }
        }
    }
    all
}

/// What targets add to a direct call, and that over what the reference adds.
fn added(
    targets: &[TargetReport],
    direct: &str,
    reference: Option<&str>,
    seed: u64,
) -> (Vec<Compared>, Vec<Compared>) {
    let (mut sums, mut ratios) = (Vec::new(), Vec::new());
    for figure in ADDED {
        let base = taken(targets, direct, figure);
        let more = |name: &str| -> Vec<f64> {
            let runs = stats::differences(&taken(targets, name, figure), &base);
            runs.iter().map(|run| run.value).collect()
        };
        let yardstick = reference.map(more).unwrap_or_default();
        for target in targets.iter().filter(|target| target.name != direct) {
            let values = more(&target.name);
            let compared = |over| Compared {
                target: target.name.clone(),
                figure,
                over,
            };
            sums.extend(interval(&values, seed).map(compared));
            ratios.extend(stats::ratio_of_medians(&values, &yardstick, seed).map(compared));
        }
    }
    (sums, ratios)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::figures::Figures;
    use crate::load::tally::Errors;
    use crate::load::{Dialect, Target};

    /// A target whose rounds had these values of a figure at these times.
    fn target(name: &str, figure: &'static str, rounds: &[(f64, f64)]) -> TargetReport {
        let mut report = TargetReport::new(&Target {
            name: name.to_owned(),
            address: ([127, 0, 0, 1], 1).into(),
            host: String::new(),
            base: String::new(),
            tls: None,
            dialect: Dialect::Chat,
            model: String::new(),
            key: None,
            headers: Vec::new(),
            server: None,
        });
        let run = |(round, &(at_s, value)): (usize, &(f64, f64))| Run {
            round,
            at_s,
            seconds: 1.0,
            good: 1,
            errors: Errors::default(),
            figures: Figures::from([(figure, value)]),
        };
        report.runs = rounds.iter().enumerate().map(run).collect();
        report
    }

    /// By hand, on a machine that slows down from round to round: 2, 2 and 3 times the reference.
    #[test]
    fn ratios_follow_the_reference_in_time() {
        let figure = "cpu_s_per_1000_calls";
        let targets = [
            target("nginx", figure, &[(0.0, 10.0), (2.0, 20.0), (4.0, 40.0)]),
            target("other", figure, &[(1.0, 30.0), (3.0, 60.0), (5.0, 120.0)]),
        ];
        let found = ratios(&targets, "nginx", &[figure, "latency_p50_us"], 1);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].over.rounds, [1.0, 1.0, 1.0]);
        assert_eq!(found[1].target, "other");
        assert_eq!(found[1].over.rounds, [2.0, 2.0, 3.0]);
        assert_eq!(stats::median(&found[1].over.rounds), Some(2.0));
    }

    /// By hand: direct takes 100, the reference 150, the other 300, so it adds four times as much.
    #[test]
    fn what_is_added_is_the_difference_to_direct() {
        let figure = "latency_p50_us";
        let targets = [
            target("direct", figure, &[(0.0, 100.0), (3.0, 100.0)]),
            target("nginx", figure, &[(1.0, 150.0), (4.0, 150.0)]),
            target("other", figure, &[(2.0, 300.0), (5.0, 300.0)]),
        ];
        let (sums, times) = added(&targets, "direct", Some("nginx"), 1);
        let of = |all: &[Compared], name: &str| {
            let found = all.iter().find(|it| it.target == name).unwrap();
            found.over.median
        };
        assert_eq!((of(&sums, "nginx"), of(&sums, "other")), (50.0, 200.0));
        assert_eq!((of(&times, "nginx"), of(&times, "other")), (1.0, 4.0));
    }
}
