//! What a run says, as JSON and for tables and pages.

use serde::Serialize;

use super::call::{Dialect, Shape};
use super::figures::{self, Figures};
use super::stats::{Interval, micros, over, real};
use super::tally::{Errors, SLICES, Tally};
use super::window::{Measured, Target};

/// A whole run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub workload: String,
    pub shape: Shape,
    pub conditions: Conditions,
    /// The target to which ratios are taken.
    pub reference: Option<String>,
    /// The endpoint itself: what targets add, they add to this.
    pub direct: Option<String>,
    pub targets: Vec<TargetReport>,
    /// Each run over the reference around it, by target and figure.
    pub ratios: Vec<Compared>,
    /// What each run takes longer than a direct call, in microseconds.
    pub added: Vec<Compared>,
    /// The median of the same over that of what the reference adds.
    pub added_ratios: Vec<Compared>,
    /// Rates that were tried, where the workload rises.
    pub steps: Vec<Step>,
}

/// Under which circumstances figures were taken.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Conditions {
    pub version: String,
    pub cores: usize,
    pub cpu: String,
    pub kernel: String,
    pub unix_s: u64,
    /// Processes that wanted a core in the minute before the end: above none, others had a part in the figures.
    pub load_average: f64,
    pub seed: u64,
    pub rounds: usize,
    pub window_s: f64,
    pub threads: usize,
}

/// Everything about one target.
#[derive(Debug, Clone, Serialize)]
pub struct TargetReport {
    pub name: String,
    pub address: String,
    pub model: String,
    pub dialect: Dialect,
    pub runs: Vec<Run>,
    /// All rounds together.
    pub planned: u64,
    pub good: u64,
    pub errors: Errors,
    pub late: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// The median of each figure over the rounds.
    pub figures: Figures,
    /// Latency by quantile over all rounds: (quantile, microseconds).
    pub curve: Vec<(f64, f64)>,
    pub first_curve: Vec<(f64, f64)>,
    pub transit_curve: Vec<(f64, f64)>,
    pub series: Vec<Point>,
}

/// One window.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    pub round: usize,
    /// The middle of the window, in seconds from the first one's.
    pub at_s: f64,
    pub seconds: f64,
    pub good: u64,
    pub errors: Errors,
    pub figures: Figures,
}

/// A figure of a target over the rounds.
#[derive(Debug, Clone, Serialize)]
pub struct Compared {
    pub target: String,
    pub figure: &'static str,
    pub over: Interval,
}

/// A part of the time: of all rounds' windows laid on each other.
#[derive(Debug, Clone, Serialize)]
pub struct Point {
    pub at_s: f64,
    pub calls_per_s: f64,
    pub failed_per_s: f64,
    pub p50_us: f64,
    pub p99_us: f64,
}

/// A rate that was tried on a target.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    pub target: String,
    pub per_second: f64,
    /// The objective was met.
    pub met: bool,
    /// It is the highest that met the objective.
    pub knee: bool,
    pub figures: Figures,
    pub errors: Errors,
}

impl Conditions {
    /// Of this machine now.
    pub fn here() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpu = read("/proc/cpuinfo");
        let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name"));
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cores: read("/proc/cpuinfo").matches("processor\t:").count(),
            cpu: cpu
                .unwrap_or_default()
                .trim_matches(['\t', ' ', ':'])
                .to_owned(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_average: read("/proc/loadavg")
                .split(' ')
                .next()
                .and_then(|it| it.parse().ok())
                .unwrap_or(0.0),
            unix_s: now.map_or(0, |since| since.as_secs()),
            ..Self::default()
        }
    }
}

impl TargetReport {
    /// A target that has not been asked yet.
    pub fn new(target: &Target) -> Self {
        Self {
            name: target.name.clone(),
            address: format!("{}{}", target.address, target.base),
            model: target.model.clone(),
            dialect: target.dialect,
            runs: Vec::new(),
            planned: 0,
            good: 0,
            errors: Errors::default(),
            late: 0,
            bytes_in: 0,
            bytes_out: 0,
            figures: Figures::new(),
            curve: Vec::new(),
            first_curve: Vec::new(),
            transit_curve: Vec::new(),
            series: Vec::new(),
        }
    }

    /// Takes in all rounds' sum.
    pub(super) fn sum(&mut self, sum: &Tally, streams: bool) {
        (self.planned, self.good) = (sum.planned, sum.good);
        self.errors = sum.errors.clone();
        (self.late, self.bytes_in, self.bytes_out) = (sum.late, sum.bytes_in, sum.bytes_out);
        self.curve = figures::curve(&sum.latency);
        if streams {
            self.first_curve = figures::curve(&sum.first);
            self.transit_curve = figures::curve(&sum.transit);
        }
        let seconds: f64 = self.runs.iter().map(|run| run.seconds).sum();
        let rounds = real(u64::try_from(self.runs.len()).unwrap_or(1)).max(1.0);
        let slices = real(SLICES);
        let width = seconds / slices;
        let point = |(place, slice): (usize, &super::tally::Slice)| {
            let at = |quantile| micros(slice.latency.value_at_quantile(quantile));
            Point {
                at_s: real(u64::try_from(place).unwrap_or(0)) * width / rounds,
                calls_per_s: over(real(slice.ended), width).unwrap_or(0.0),
                failed_per_s: over(real(slice.failed), width).unwrap_or(0.0),
                p50_us: at(0.5),
                p99_us: at(0.99),
            }
        };
        self.series = sum.slices.iter().enumerate().map(point).collect();
        for figure in figures::FIGURES {
            let of = |run: &Run| run.figures.get(figure.name).copied();
            let values: Vec<f64> = self.runs.iter().filter_map(of).collect();
            if let Some(median) = super::stats::median(&values) {
                self.figures.insert(figure.name, median);
            }
        }
    }
}

impl Run {
    /// A window's figures; `first` is the middle of the first window.
    pub(super) fn of(measured: &Measured, round: usize, first: f64, streams: bool) -> Self {
        Self {
            round,
            at_s: measured.at - first,
            seconds: measured.seconds,
            good: measured.tally.good,
            errors: measured.tally.errors.clone(),
            figures: figures::of(measured, streams),
        }
    }
}
