//! Charts as SVG made here: no script is needed to see them, and each has its numbers as a table below.

use std::fmt::Write;

use maud::{Markup, html};
use meter::routing::Interval;

use crate::number;

/// What the numbers of a chart are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Nano-USD.
    Usd,
    Count,
    /// Thousandths.
    Share,
}

impl Unit {
    fn axis(self, value: i64) -> String {
        match self {
            Self::Usd => number::short_usd(value),
            Self::Count => number::short(value),
            Self::Share => number::percent(value),
        }
    }

    fn exact(self, value: i64) -> String {
        match self {
            Self::Usd => number::usd(value, number::digits(value)),
            Self::Count => number::count(value),
            Self::Share => number::percent(value),
        }
    }
}

/// One colour of a chart.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    pub(crate) name: String,
    /// Which part of the use it is, see [`crate::ask::of`]; `None` where it is no plain sum.
    pub(crate) of: Option<String>,
    pub(crate) values: Vec<i64>,
}

/// Values over time.
#[derive(Debug)]
pub(crate) struct Chart {
    pub(crate) id: &'static str,
    pub(crate) caption: String,
    pub(crate) unit: Unit,
    /// Which sum it is, as in [`crate::ask::key`]; `None` where it is no plain sum.
    pub(crate) measure: Option<String>,
    /// What is true of every number: names of the filter.
    pub(crate) of: String,
    /// The places on the axis, each with its part of the name of the sum.
    pub(crate) places: Vec<(String, String)>,
    pub(crate) series: Vec<Series>,
}

const WIDTH: i64 = 960;
const HEIGHT: i64 = 250;
const LEFT: i64 = 64;
const TOP: i64 = 12;
const BOTTOM: i64 = 26;
const BODY: i64 = HEIGHT - TOP - BOTTOM;
/// Colours there are; a chart has no more series.
pub(crate) const COLOURS: usize = 7;

impl Chart {
    /// Bars, one on the other.
    pub(crate) fn stacked(&self) -> Markup {
        let totals: Vec<i64> = (0..self.places.len())
            .map(|place| self.values_at(place).filter(|value| *value > 0).sum())
            .collect();
        let scale = Scale::over(totals.iter().copied().max().unwrap_or(0));
        let step = self.step();
        let gap = (step / 5).clamp(1, 10);
        let mut paths = vec![String::new(); self.series.len()];
        for place in 0..self.places.len() {
            let (x, mut below) = (self.x(place) + gap / 2, 0);
            for (series, path) in self.series.iter().zip(&mut paths) {
                let value = series.values.get(place).copied().unwrap_or(0).max(0);
                let (top, bottom) = (scale.y(below + value), scale.y(below));
                below += value;
                if bottom > top {
                    let (width, height) = ((step - gap).max(1), bottom - top);
                    // Writing to a String can not fail.
                    let _written = write!(path, "M{x} {top}h{width}v{height}h-{width}z");
                }
            }
        }
        let drawing = html! {
            @for (n, path) in paths.iter().enumerate() {
                path fill={ "url(#" (self.id) "-" (n) ")" } d=(path) {}
            }
        };
        let swatch = |n: usize| {
            html! { rect width="14" height="12" fill={ "url(#" (self.id) "-" (n) ")" } {} }
        };
        self.figure(&scale, &drawing, &totals, &self.legend(&swatch))
    }

    /// One line each; the table below feeds the chart that can be zoomed, where scripts run.
    pub(crate) fn lines(&self) -> Markup {
        let all = self.series.iter().flat_map(|series| &series.values);
        let scale = Scale::over(all.copied().max().unwrap_or(0));
        let half = self.step() / 2;
        let drawing = html! {
            // The first one lies on top.
            @for (n, series) in self.series.iter().enumerate().rev() {
                path class={ "line l" (n) } d=(line(series.values.iter().enumerate().map(|(place, value)| {
                    (self.x(place) + half, scale.y(*value))
                }))) {}
            }
        };
        let firsts: Vec<i64> = (0..self.places.len())
            .map(|place| self.values_at(place).next().unwrap_or(0))
            .collect();
        let swatch = |n: usize| html! { path class={ "line l" (n) } d="M0 6H18" {} };
        self.figure(&scale, &drawing, &firsts, &self.legend(&swatch))
    }

    fn values_at(&self, place: usize) -> impl Iterator<Item = i64> {
        self.series
            .iter()
            .filter_map(move |series| series.values.get(place).copied())
    }

    fn step(&self) -> i64 {
        let places = i64::try_from(self.places.len()).unwrap_or(1).max(1);
        ((WIDTH - LEFT) / places).max(1)
    }

    fn x(&self, place: usize) -> i64 {
        let places = i64::try_from(self.places.len()).unwrap_or(1).max(1);
        LEFT + (WIDTH - LEFT) * i64::try_from(place).unwrap_or(0) / places
    }

    fn figure(&self, scale: &Scale, drawing: &Markup, shown: &[i64], legend: &Markup) -> Markup {
        let every = self.places.len().div_ceil(9).max(1);
        let step = self.step();
        html! {
            figure.chart id=(self.id) data-unit=[(self.unit == Unit::Usd).then_some("usd")] {
                figcaption { (self.caption) }
                svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label={ (self.caption) "; the numbers are in the table below" } {
                    (patterns(self.id, self.series.len()))
                    (axis(scale, self.unit))
                    (drawing)
                    @for (n, (label, _)) in self.places.iter().enumerate() {
                        @if n % every == 0 {
                            text.tick x=(self.x(n) + step / 2) y=(HEIGHT - 8) text-anchor="middle" { (label) }
                        }
                        rect.hit x=(self.x(n)) y=(TOP) width=(step) height=(BODY) {
                            title { (label) ": " (self.unit.exact(shown.get(n).copied().unwrap_or(0))) }
                        }
                    }
                }
                (legend)
                (self.numbers())
            }
        }
    }

    fn legend(&self, swatch: &dyn Fn(usize) -> Markup) -> Markup {
        html! {
            @if self.series.len() > 1 {
                ul.legend {
                    @for (n, series) in self.series.iter().enumerate() {
                        li {
                            svg width="18" height="12" viewBox="0 0 18 12" aria-hidden="true" { (swatch(n)) }
                            (series.name)
                        }
                    }
                }
            }
        }
    }

    /// The numbers. Their names are put together from the table's, the row's and the column's part.
    fn numbers(&self) -> Markup {
        let all = self.series.iter().flat_map(|series| &series.values);
        let largest = all.map(|value| value.saturating_abs()).max().unwrap_or(0);
        let digits = number::digits(largest);
        html! {
            details {
                summary { "Numbers" span.hidden { " of " (self.caption) } }
                div.scroll tabindex="0" role="region" aria-label={ "Numbers of " (self.caption) } {
                    table data-measure=[&self.measure] data-of=(self.of) {
                        thead { tr {
                            td {}
                            @for series in &self.series {
                                th.n scope="col" data-of=[&series.of] { (series.name) }
                            }
                        } }
                        tbody { @for (n, (label, of)) in self.places.iter().enumerate() {
                            tr data-of=(of) {
                                th scope="row" { (label) }
                                @for series in &self.series { (self.number(series.values.get(n).copied().unwrap_or(0), digits)) }
                            }
                        } }
                    }
                }
            }
        }
    }

    fn number(&self, value: i64, digits: u32) -> Markup {
        html! {
            @match self.unit {
                Unit::Usd => td.n data-nano=(value) { (number::usd(value, digits)) },
                Unit::Count => td.n data-count=(value) { (number::count(value)) },
                Unit::Share => td.n { (number::percent(value)) },
            }
        }
    }
}

/// A vertical axis from nothing to a round number.
pub(crate) struct Scale {
    top: i64,
    tick: i64,
}

impl Scale {
    pub(crate) fn over(largest: i64) -> Self {
        let largest = largest.max(4);
        let mut tick = 1_i64;
        // 1, 2, 5 of each power of ten, until four of them reach the top.
        for factor in [2, 5, 10].iter().cycle() {
            if tick.saturating_mul(4) >= largest || tick > i64::MAX / 40 {
                break;
            }
            let power = 10_i64.pow(tick.ilog10());
            tick = power.saturating_mul(*factor);
        }
        let ticks = largest.div_euclid(tick) + i64::from(largest.rem_euclid(tick) > 0);
        Self {
            top: ticks.max(1).saturating_mul(tick),
            tick,
        }
    }

    pub(crate) fn y(&self, value: i64) -> i64 {
        let height = i128::from(BODY) * i128::from(value) / i128::from(self.top.max(1));
        TOP + BODY - i64::try_from(height).unwrap_or(BODY).clamp(-BODY, BODY)
    }

    fn ticks(&self) -> impl Iterator<Item = i64> {
        let (tick, top) = (self.tick, self.top);
        (0..=5)
            .map(move |n| tick * n)
            .take_while(move |at| *at <= top)
    }
}

/// A path through points.
fn line(points: impl Iterator<Item = (i64, i64)>) -> String {
    let mut path = String::new();
    for (n, (x, y)) in points.enumerate() {
        // Writing to a String can not fail.
        let _written = write!(path, "{}{x} {y}", if n == 0 { "M" } else { "L" });
    }
    path
}

fn axis(scale: &Scale, unit: Unit) -> Markup {
    html! {
        @for at in scale.ticks() {
            line.grid x1=(LEFT) x2=(WIDTH) y1=(scale.y(at)) y2=(scale.y(at)) {}
            text.tick x=(LEFT - 8) y=(scale.y(at) + 4) text-anchor="end" { (unit.axis(at)) }
        }
    }
}

/// A colour and a pattern for each series: either alone tells them apart.
fn patterns(id: &str, series: usize) -> Markup {
    let marks = [
        "",
        "M0 6L6 0",
        "M0 3H6",
        "M3 0V6",
        "M0 0L6 6",
        "M0 6L6 0M0 0L6 6",
        "M1 3H3M4 0H6",
    ];
    html! { defs {
        @for (n, mark) in marks.iter().enumerate().take(series) {
            pattern id={ (id) "-" (n) } width="6" height="6" patternUnits="userSpaceOnUse" {
                rect class={ "s" (n) } width="6" height="6" {}
                @if !mark.is_empty() { path.hatch d=(mark) {} }
            }
        }
    } }
}

/// Steps from one amount to another, each a bar that hangs where the one before ended.
pub(crate) struct Fall {
    pub(crate) name: String,
    /// The end of this bar: an amount that stands on the axis if `whole`, else what changes.
    pub(crate) nano: i64,
    pub(crate) whole: bool,
    pub(crate) sum: Option<String>,
}

/// A waterfall.
pub(crate) fn waterfall(caption: &str, falls: &[Fall]) -> Markup {
    let mut level = 0;
    let mut bars = Vec::new();
    for fall in falls {
        let (from, to) = if fall.whole {
            (0, fall.nano)
        } else {
            (level, level + fall.nano)
        };
        level = to;
        bars.push((fall, from.min(to), from.max(to)));
    }
    let scale = Scale::over(bars.iter().map(|(_, _, top)| *top).max().unwrap_or(0));
    let step = (WIDTH - LEFT) / i64::try_from(falls.len()).unwrap_or(1).max(1);
    let x = |n: usize| LEFT + step * i64::try_from(n).unwrap_or(0);
    html! {
        figure.chart {
            figcaption { (caption) }
            svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label={ (caption) "; the numbers are in the table below" } {
                (patterns("fall", 3))
                (axis(&scale, Unit::Usd))
                @for (n, (fall, low, high)) in bars.iter().enumerate() {
                    @let fill = if fall.whole { "url(#fall-0)" } else if fall.nano < 0 { "url(#fall-2)" } else { "url(#fall-1)" };
                    rect fill=(fill) x=(x(n) + step / 6) width=(step * 2 / 3) y=(scale.y(*high))
                        height=((scale.y(*low) - scale.y(*high)).max(1)) {}
                    text.value x=(x(n) + step / 2) y=(scale.y(*high) - 5) text-anchor="middle" { (number::short_usd(fall.nano)) }
                    text.tick x=(x(n) + step / 2) y=(HEIGHT - 8) text-anchor="middle" { (fall.name) }
                }
            }
            details {
                summary { "Numbers" span.hidden { " of " (caption) } }
                table {
                    tbody { @for fall in falls {
                        tr { th scope="row" { (fall.name) } td.n { (crate::table::money(fall.nano, number::digits(fall.nano), fall.sum.as_deref())) } }
                    } }
                }
            }
        }
    }
}

/// A line as small as a word.
pub(crate) fn spark(values: &[i64]) -> Markup {
    let most = values.iter().copied().max().unwrap_or(0).max(1);
    let last = i64::try_from(values.len().saturating_sub(1))
        .unwrap_or(1)
        .max(1);
    let path = line(values.iter().enumerate().map(|(n, value)| {
        let x = i64::try_from(n).unwrap_or(0) * 96 / last + 2;
        let y = i128::from((*value).max(0)) * 20 / i128::from(most);
        (x, 22 - i64::try_from(y).unwrap_or(0))
    }));
    html! { svg.spark viewBox="0 0 100 24" width="100" height="24" aria-hidden="true" { path.line.l0 d=(path) {} } }
}

/// Shares in millionths with their intervals, one below the other, on an axis from 0 to 100 %.
pub(crate) fn intervals(caption: &str, rows: &[(&str, Interval)]) -> Markup {
    const NAMES: i64 = 110;
    const AXIS: i64 = 820;
    const ROW: i64 = 30;
    let x = |ppm: i64| NAMES + (ppm.clamp(0, 1_000_000) * AXIS + 500_000).div_euclid(1_000_000);
    let height = ROW * i64::try_from(rows.len()).unwrap_or(0);
    let placed = rows
        .iter()
        .zip((0..).map(|place: i64| ROW * place + ROW - 14));
    let said: Vec<String> = rows
        .iter()
        .map(|(name, it)| {
            let share = |ppm: i64| number::percent((ppm + 500).div_euclid(1_000));
            format!(
                "{name} {}, {} to {}",
                share(it.value),
                share(it.low),
                share(it.high)
            )
        })
        .collect();
    html! {
        figure.chart {
            figcaption { (caption) }
            svg viewBox=(format!("0 0 960 {}", height + 26)) role="img" aria-label=(format!("{caption}: {}", said.join("; "))) {
                @for tenth in [0, 250_000, 500_000, 750_000, 1_000_000] {
                    line.grid x1=(x(tenth)) x2=(x(tenth)) y1="0" y2=(height) {}
                    text.tick x=(x(tenth)) y=(height + 18) text-anchor="middle" { (number::percent(tenth.div_euclid(1_000))) }
                }
                @for ((name, it), y) in placed {
                    text.tick x=(NAMES - 10) y=(y + 4) text-anchor="end" { (name) }
                    line.whisker x1=(x(it.low)) x2=(x(it.high)) y1=(y) y2=(y) {}
                    circle.dot cx=(x(it.value)) cy=(y) r="5" {}
                }
            }
        }
    }
}
