//! The report as one page: tables and plots, with nothing from elsewhere.

mod plot;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::figures::{FIGURES, title};
use super::report::{Compared, Report, Step, TargetReport};
use plot::{Dots, Line, Scale, color};

const STYLE: &str = "
:root { color-scheme: light dark; --ink: light-dark(#1c1c1a, #e8e6df); --soft: light-dark(#6b6a64, #a09e95);
  --rule: light-dark(#dcdad2, #3a3934); --back: light-dark(#fcfbf8, #191917); }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back); max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2.5rem; } p, figcaption { color: var(--soft); max-width: 48rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--rule); text-align: right; white-space: nowrap; }
th { font-weight: 500; color: var(--soft); } th:first-child, td:first-child { text-align: left; }
figure { margin: 1.5rem 0; } svg { width: 100%; height: auto; font: 12px system-ui, sans-serif; }
svg text { fill: var(--soft); } svg .name { fill: var(--ink); } .grid { stroke: var(--rule); } .one { stroke: var(--soft); stroke-dasharray: 4 3; }
";

/// The page.
pub fn html(report: &Report) -> String {
    let (it, shape) = (&report.conditions, &report.shape);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "pareto bench: " (report.workload) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "pareto bench: " (report.workload) }
                p {
                    "Bodies of " (shape.body_bytes) " bytes" @if shape.model_last { ", model as the last key" }
                    @if shape.stream { ", streamed" } ". " (it.rounds) " rounds of " (it.window_s) " s for each target, seed "
                    (it.seed) ", " (it.threads) " threads of load. " (it.cores) " cores, " (it.cpu) ", Linux " (it.kernel) "."
                }
                p { "Latency counts from the moment for which a call was planned, not from the one in which it was sent." }
                (legend(report))
                h2 { "Calls" }
                (outcome(report))
                h2 { "Figures, median of rounds" }
                (figures(report))
                @if !report.steps.is_empty() { h2 { "Rates" } (steps(&report.steps)) }
                (curves(report))
                (series(report))
                @if let Some(reference) = &report.reference {
                    (compared("ratio", &report.ratios, report, &format!("Times {reference}"), Scale::Log, Some(1.0)))
                }
                @if let Some(direct) = &report.direct {
                    (compared("added", &report.added, report, &format!("More than {direct}, microseconds"), Scale::Linear, Some(0.0)))
                }
                @if let Some(reference) = &report.reference {
                    (compared("added-ratio", &report.added_ratios, report, &format!("Times what {reference} adds"), Scale::Log, Some(1.0)))
                }
            }
        }
    };
    page.into_string()
}

fn legend(report: &Report) -> Markup {
    html! {
        p {
            @for (place, target) in report.targets.iter().enumerate() {
                span style=(format!("color:{}", color(place))) { "\u{25cf} " } (target.name) "\u{2003}"
            }
        }
    }
}

fn outcome(report: &Report) -> Markup {
    let kinds = report.targets.first().map(|it| it.errors.by_name());
    html! {
        div class="wide" { table {
            tr { th { "target" } th { "address" } th { "model" } th { "good" }
                @for (name, _) in kinds.iter().flatten() { th { (name) } } }
            @for target in &report.targets {
                tr { td { (target.name) } td { (target.address) } td { (target.model) } td { (target.good) }
                    @for (_, count) in target.errors.by_name() { td { (count) } } }
            }
        } }
    }
}

fn figures(report: &Report) -> Markup {
    let has = |name: &str| {
        report
            .targets
            .iter()
            .any(|it| it.figures.contains_key(name))
    };
    let shown: Vec<_> = FIGURES.iter().filter(|figure| has(figure.name)).collect();
    html! {
        div class="wide" { table {
            tr { th { "figure" } @for target in &report.targets { th { (target.name) } } }
            @for figure in shown {
                tr { td { (figure.title) }
                    @for target in &report.targets {
                        td { @if let Some(value) = target.figures.get(figure.name) { (plot::short(*value)) } @else { "-" } }
                    }
                }
            }
        } }
    }
}

fn steps(steps: &[Step]) -> Markup {
    html! {
        div class="wide" { table {
            tr { th { "target" } th { "planned/s" } th { "calls/s" } th { "p50, us" } th { "p99, us" } th { "errors" } th { "objective" } }
            @for step in steps {
                @let figure = |name: &str| step.figures.get(name).map_or_else(|| "-".to_owned(), |value| plot::short(*value));
                tr { td { (step.target) } td { (plot::short(step.per_second)) } td { (figure("calls_per_s")) }
                    td { (figure("latency_p50_us")) } td { (figure("latency_p99_us")) } td { (step.errors.sum()) }
                    td { @if step.knee { "met: the knee" } @else if step.met { "met" } @else { "broken" } } }
            }
        } }
    }
}

type Curve = fn(&TargetReport) -> &[(f64, f64)];

fn curves(report: &Report) -> Markup {
    let all: [(&str, &str, Curve); 3] = [
        ("Latency by quantile, microseconds", "latency", |it| {
            &it.curve
        }),
        ("First token by quantile, microseconds", "first", |it| {
            &it.first_curve
        }),
        (
            "From the endpoint's write to the read here, by quantile, microseconds",
            "transit",
            |it| &it.transit_curve,
        ),
    ];
    html! {
        @for (heading, kind, of) in all {
            @let lines = lines(report, |target| of(target).iter().map(nines).collect());
            @if lines.iter().any(|line| !line.points.is_empty()) {
                h2 { (heading) }
                figure {
                    (plot::lines(&format!("curve-{kind}"), &lines, Scale::Log, Scale::Log, plot::quantile))
                    figcaption { "Every step to the right is a tenth of the calls that are left: 50 %, 90 %, 99 %, 99.9 %." }
                }
            }
        }
    }
}

/// A quantile as one over what is left.
fn nines(point: &(f64, f64)) -> (f64, f64) {
    (1.0 / (1.0 - point.0).max(1e-7), point.1)
}

fn lines(report: &Report, of: impl Fn(&TargetReport) -> Vec<(f64, f64)>) -> Vec<Line> {
    let line = |(place, target): (usize, &TargetReport)| {
        let mut points = of(target);
        // The longest has no quantile of its own.
        points.retain(|point| point.0 < 1e6 && point.1 > 0.0);
        Line {
            name: target.name.clone(),
            color: color(place),
            points,
        }
    };
    report.targets.iter().enumerate().map(line).collect()
}

fn series(report: &Report) -> Markup {
    let rate = lines(report, |target| {
        target
            .series
            .iter()
            .map(|it| (it.at_s, it.calls_per_s))
            .collect()
    });
    let p99 = lines(report, |target| {
        let with = target.series.iter().filter(|it| it.p99_us > 0.0);
        with.map(|it| (it.at_s, it.p99_us)).collect()
    });
    html! {
        h2 { "Calls a second over a window" }
        figure { (plot::lines("series-rate", &rate, Scale::Linear, Scale::Linear, plot::seconds))
            figcaption { "The windows of all rounds, laid on each other." } }
        h2 { "Latency p99 over a window, microseconds" }
        figure { (plot::lines("series-p99", &p99, Scale::Linear, Scale::Log, plot::seconds)) }
    }
}

fn compared(
    kind: &str,
    all: &[Compared],
    report: &Report,
    heading: &str,
    scale: Scale,
    mark: Option<f64>,
) -> Markup {
    let place = |name: &str| report.targets.iter().position(|it| it.name == name);
    let named = |name: &str| all.iter().any(|it| it.figure == name);
    let names: Vec<&str> = FIGURES
        .iter()
        .map(|it| it.name)
        .filter(|it| named(it))
        .collect();
    html! {
        @if !names.is_empty() {
            h2 { (heading) }
            @for name in names {
                @let rows = all.iter().filter(|it| it.figure == name);
                @let dots: Vec<Dots<'_>> = rows.map(|it| Dots {
                    name: &it.target, color: color(place(&it.target).unwrap_or(0)), over: &it.over,
                }).collect();
                figure {
                    figcaption { (title(name)) ": median, 95 % of resampled medians, and each round" }
                    (plot::dots(&format!("{kind}-{name}"), &dots, scale, mark))
                }
            }
        }
    }
}
