//! How load is shown: a line while it runs, tables at its end.

use std::io::{IsTerminal, Write};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use comfy_table::Table;
use indicatif::{ProgressBar, ProgressStyle};

use super::engine::compare;
use super::engine::figures::{FIGURES, title};
use super::engine::report::{Compared, Report};

/// A line that says what is under way.
pub(super) struct Progress {
    bar: ProgressBar,
    terminal: bool,
    told: Instant,
}

/// How often a line is written where there is no terminal for a bar.
const PAUSE: Duration = Duration::from_secs(5);

impl Progress {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}  {elapsed}") {
            bar.set_style(style);
        }
        Self {
            bar,
            terminal: std::io::stderr().is_terminal(),
            told: Instant::now(),
        }
    }

    pub(super) fn tell(&mut self, now: &compare::Progress<'_>) {
        let of = now.of.max(now.done + 1);
        let read = |gauge: &std::sync::atomic::AtomicU64| gauge.load(Ordering::Relaxed);
        let (ended, failed) = (read(&now.gauges.ended), read(&now.gauges.failed));
        let open = read(&now.gauges.in_flight);
        let state = format!(
            "{}: {ended} calls, {failed} failed, {open} open",
            now.target
        );
        self.bar.set_length(u64::try_from(of).unwrap_or(0));
        self.bar.set_position(u64::try_from(now.done).unwrap_or(0));
        if !self.terminal && self.told.elapsed() > PAUSE {
            self.told = Instant::now();
            writeln!(std::io::stderr(), "{}/{of}  {state}", now.done).ok();
        }
        self.bar.set_message(state);
    }

    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// Figures of a table: few, because a line is short. The rest is in JSON and on the page.
const RATES: &[&str] = &[
    "calls_per_s",
    "chunks_per_s",
    "tokens_per_s",
    "cpu_s_per_1000_calls",
    "cpu_s_per_1000_chunks",
    "cpu_cores",
    "rss_before_kib",
    "rss_peak_kib",
    "rss_after_kib",
    "kib_per_stream",
];
const TIMES: &[&str] = &[
    "latency_p50_us",
    "latency_p90_us",
    "latency_p99_us",
    "latency_p999_us",
    "latency_max_us",
    "first_p50_us",
    "first_p99_us",
    "gap_p50_us",
    "gap_p99_us",
    "transit_p50_us",
    "transit_p99_us",
];

/// The whole report as text.
pub(super) fn text(report: &Report) -> String {
    let mut parts = vec![head(report), outcome(report)];
    if report.steps.is_empty() {
        parts.push(figures(report, RATES));
        parts.push(figures(report, TIMES));
    } else {
        parts.push(steps(report));
    }
    if let Some(reference) = &report.reference {
        let heading = format!("times {reference}, median of rounds (95 %)");
        parts.extend(compared(&report.ratios, &heading));
    }
    if let Some(direct) = &report.direct {
        let heading = format!("more than {direct}, median of rounds (95 %)");
        parts.extend(compared(&report.added, &heading));
    }
    if let Some(reference) = &report.reference {
        let heading = format!("times what {reference} adds, median of rounds (95 %)");
        parts.extend(compared(&report.added_ratios, &heading));
    }
    let late = report
        .targets
        .iter()
        .filter(|it| it.late * 100 > it.planned);
    for target in late.filter(|_| report.workload == "rate") {
        parts.push(format!(
            "{}: {} of {} calls began more than 1 ms late because the load had no more: its latencies say as much of \
             this machine as of the server",
            target.name, target.late, target.planned
        ));
    }
    parts.join("\n")
}

fn head(report: &Report) -> String {
    let (it, shape) = (&report.conditions, &report.shape);
    let streamed = if shape.stream { "streamed, " } else { "" };
    format!(
        "{}: {streamed}bodies of {} bytes, {} x {} s a target, {} load threads, seed {}; {} cores, {}, Linux {}",
        report.workload,
        shape.body_bytes,
        it.rounds,
        it.window_s,
        it.threads,
        it.seed,
        it.cores,
        it.cpu,
        it.kernel
    )
}

/// Calls and errors by kind.
fn outcome(report: &Report) -> String {
    let mut table = Table::new();
    let kinds = report.targets.first().map(|it| it.errors.by_name());
    let kinds = kinds.iter().flatten().map(|(name, _)| *name);
    table.set_header(["target", "good"].into_iter().chain(kinds));
    for target in &report.targets {
        let errors = target.errors.by_name().map(|(_, count)| count.to_string());
        let row = [target.name.clone(), target.good.to_string()];
        table.add_row(row.into_iter().chain(errors));
    }
    table.to_string()
}

fn figures(report: &Report, names: &[&'static str]) -> String {
    let has = |name: &&&str| {
        let mut targets = report.targets.iter();
        targets.any(|target| target.figures.contains_key(**name))
    };
    let names: Vec<&str> = names.iter().filter(has).copied().collect();
    let mut table = Table::new();
    table.set_header(std::iter::once("target").chain(names.iter().map(|name| title(name))));
    for target in &report.targets {
        let value = |name: &&str| {
            let value = target.figures.get(name);
            value.map_or_else(|| "-".to_owned(), |value| short(*value))
        };
        let row = std::iter::once(target.name.clone());
        table.add_row(row.chain(names.iter().map(value)));
    }
    table.to_string()
}

fn steps(report: &Report) -> String {
    let mut table = Table::new();
    let names = [
        "calls_per_s",
        "latency_p50_us",
        "latency_p99_us",
        "cpu_s_per_1000_calls",
    ];
    let titles = names.iter().map(|name| title(name));
    let first = ["target", "planned/s", "objective"].into_iter();
    table.set_header(first.chain(titles).chain(["errors"]));
    for step in &report.steps {
        let state = match (step.met, step.knee) {
            (_, true) => "met: the knee",
            (true, _) => "met",
            _ => "broken",
        };
        let figure = |name: &&str| {
            let value = step.figures.get(name);
            value.map_or_else(|| "-".to_owned(), |value| short(*value))
        };
        let row = [
            step.target.clone(),
            short(step.per_second),
            state.to_owned(),
        ];
        let errors = std::iter::once(step.errors.sum().to_string());
        table.add_row(
            row.into_iter()
                .chain(names.iter().map(figure))
                .chain(errors),
        );
    }
    table.to_string()
}

/// A table of targets by figures; none where nothing was compared.
fn compared(all: &[Compared], heading: &str) -> Option<String> {
    let named = |name: &str| all.iter().any(|it| it.figure == name);
    let names: Vec<&str> = FIGURES
        .iter()
        .map(|it| it.name)
        .filter(|it| named(it))
        .collect();
    let mut targets: Vec<&str> = Vec::new();
    for it in all {
        if !targets.contains(&it.target.as_str()) {
            targets.push(&it.target);
        }
    }
    if targets.is_empty() {
        return None;
    }
    let mut table = Table::new();
    table.set_header(std::iter::once(heading).chain(targets.iter().copied()));
    for name in names {
        let cell = |target: &&str| {
            let found = all
                .iter()
                .find(|it| it.target == **target && it.figure == name);
            found.map_or_else(
                || "-".to_owned(),
                |it| {
                    format!(
                        "{} ({}-{})",
                        short(it.over.median),
                        short(it.over.low),
                        short(it.over.high)
                    )
                },
            )
        };
        table.add_row(std::iter::once(title(name).to_owned()).chain(targets.iter().map(cell)));
    }
    Some(table.to_string())
}

/// A number as short as it is useful.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}
