//! Plots as SVG: lines on linear or logarithmic scales, and dots with intervals.

use maud::{Markup, html};

use crate::load::stats::{Interval, real};

/// How values lie on an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    Linear,
    Log,
}

/// A line of a plot.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) color: &'static str,
    pub(super) points: Vec<(f64, f64)>,
}

/// A row of a plot of dots.
#[derive(Debug)]
pub(super) struct Dots<'a> {
    pub(super) name: &'a str,
    pub(super) color: &'static str,
    pub(super) over: &'a Interval,
}

/// Colours that are told apart by most eyes and on both backgrounds.
const COLORS: [&str; 10] = [
    "#2f7ed8", "#d9682b", "#1b998b", "#b5388a", "#8a7a00", "#7b5cd6", "#c0392b", "#4a8a2a",
    "#5f6b7a", "#a9713a",
];

/// The colour of a target.
pub(super) fn color(place: usize) -> &'static str {
    COLORS[place % COLORS.len()]
}

const WIDTH: f64 = 900.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 20.0;

/// From values to places on the page.
#[derive(Debug, Clone, Copy)]
struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    /// An axis over `values`, from place `from` to place `to`.
    fn over(values: impl Iterator<Item = f64>, scale: Scale, from: f64, to: f64) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|it| it.is_finite()) {
            (low, high) = (low.min(value), high.max(value));
        }
        if low > high {
            (low, high) = (1.0, 2.0);
        }
        match scale {
            Scale::Linear => {
                let room = ((high - low) * 0.05).max(high.abs() * 0.01).max(1e-9);
                high += room;
                low = if low >= 0.0 { 0.0 } else { low - room };
            }
            Scale::Log => {
                low = low.max(1e-6) / 1.1;
                high = (high * 1.1).max(low * 1.5);
            }
        }
        Self {
            scale,
            low,
            high,
            from,
            to,
        }
    }

    fn place(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log => (value.max(1e-6) / self.low).ln() / (self.high / self.low).ln(),
        };
        self.from + share * (self.to - self.from)
    }

    /// Where lines of the grid stand.
    fn marks(&self) -> Vec<f64> {
        let mut marks = Vec::new();
        match self.scale {
            Scale::Linear => {
                let rough = (self.high - self.low) / 6.0;
                let power = 10_f64.powf(rough.log10().floor());
                let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
                let step = steps.into_iter().find(|it| *it >= rough).unwrap_or(rough);
                let mut at = (self.low / step).ceil() * step;
                while at <= self.high && marks.len() < 20 {
                    marks.push(at);
                    at += step;
                }
            }
            Scale::Log => {
                let fine = self.high / self.low < 40.0;
                let parts: &[f64] = if fine {
                    &[1.0, 1.5, 2.0, 3.0, 5.0, 7.0]
                } else {
                    &[1.0]
                };
                let mut power = 10_f64.powf(self.low.log10().floor());
                while power <= self.high {
                    let each = parts.iter().map(|part| part * power);
                    marks.extend(each.filter(|at| (self.low..=self.high).contains(at)));
                    power *= 10.0;
                }
            }
        }
        marks
    }
}

/// A plot of lines; `word` writes the marks of its lower axis.
pub(super) fn lines(
    id: &str,
    lines: &[Line],
    across: Scale,
    up: Scale,
    word: fn(f64) -> String,
) -> Markup {
    let (height, foot) = (320.0, 30.0);
    let all = || lines.iter().flat_map(|line| &line.points);
    let x = Axis::over(all().map(|it| it.0), across, LEFT, WIDTH - RIGHT);
    let y = Axis::over(all().map(|it| it.1), up, height - foot, 10.0);
    html! {
        svg id=(id) class="plot" role="img" viewBox=(format!("0 0 {WIDTH} {height}")) {
            @for mark in y.marks() {
                @let at = round(y.place(mark));
                line class="grid" x1=(LEFT) x2=(WIDTH - RIGHT) y1=(at) y2=(at) {}
                text x=(LEFT - 6.0) y=(at) dy="4" text-anchor="end" { (short(mark)) }
            }
            @for mark in x.marks() {
                @let at = round(x.place(mark));
                text x=(at) y=(height - 8.0) text-anchor="middle" { (word(mark)) }
            }
            @for line in lines {
                @let points: Vec<String> = line.points.iter().map(|it| format!("{},{}", round(x.place(it.0)), round(y.place(it.1)))).collect();
                polyline fill="none" stroke=(line.color) stroke-width="1.8" points=(points.join(" ")) { title { (line.name) } }
            }
        }
    }
}

/// A plot of dots: a row each, with its interval and its rounds; a line at `mark`.
pub(super) fn dots(id: &str, rows: &[Dots<'_>], scale: Scale, mark: Option<f64>) -> Markup {
    let (step, foot, left) = (26.0, 26.0, 150.0);
    let height = step * real(u64::try_from(rows.len()).unwrap_or(1)) + foot;
    let all = rows.iter().flat_map(|row| [row.over.min, row.over.max]);
    let x = Axis::over(all.chain(mark), scale, left, WIDTH - 150.0);
    html! {
        svg id=(id) class="plot" role="img" viewBox=(format!("0 0 {WIDTH} {height}")) {
            @for mark in x.marks() {
                @let at = round(x.place(mark));
                line class="grid" x1=(at) x2=(at) y1="0" y2=(height - foot) {}
                text x=(at) y=(height - 8.0) text-anchor="middle" { (short(mark)) }
            }
            @if let Some(mark) = mark {
                @let at = round(x.place(mark));
                line class="one" x1=(at) x2=(at) y1="0" y2=(height - foot) {}
            }
            @for (place, row) in rows.iter().enumerate() {
                @let y = step * (real(u64::try_from(place).unwrap_or(0)) + 0.5);
                @let over = row.over;
                text class="name" x=(left - 10.0) y=(y) dy="4" text-anchor="end" { (row.name) }
                @for value in &over.rounds {
                    circle cx=(round(x.place(*value))) cy=(y) r="2.5" fill=(row.color) opacity="0.35" {}
                }
                line x1=(round(x.place(over.low))) x2=(round(x.place(over.high))) y1=(y) y2=(y) stroke=(row.color) stroke-width="2" {}
                circle cx=(round(x.place(over.median))) cy=(y) r="5" fill=(row.color) {}
                text x=(WIDTH - 140.0) y=(y) dy="4" {
                    (short(over.median)) " (" (short(over.low)) " to " (short(over.high)) ")"
                }
            }
        }
    }
}

/// A quantile from one over what is left of it.
pub(super) fn quantile(value: f64) -> String {
    let per_cent = 100.0 * (1.0 - 1.0 / value);
    format!("{} %", trimmed(per_cent, 4))
}

/// A time.
pub(super) fn seconds(value: f64) -> String {
    format!("{} s", trimmed(value, 2))
}

/// A number as short as it is useful.
pub(super) fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 1e6 => format!("{}M", trimmed(value / 1e6, 2)),
        size if size >= 1e4 => format!("{}k", trimmed(value / 1e3, 1)),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 0.1 => trimmed(value, 2),
        _ => trimmed(value, 5),
    }
}

fn trimmed(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    if text.contains('.') {
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    text
}

/// A place to a tenth of a unit: a page of thousands of points stays small.
fn round(place: f64) -> f64 {
    (place * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lie_between_the_ends_of_their_axis() {
        for (scale, values) in [
            (Scale::Linear, vec![0.0, 3.0, 12.0]),
            (Scale::Linear, vec![-5.0, 5.0]),
            (Scale::Log, vec![0.9, 1.0, 700.0]),
            (Scale::Log, vec![2.0]),
            (Scale::Linear, vec![]),
        ] {
            let axis = Axis::over(values.iter().copied(), scale, 100.0, 500.0);
            let places: Vec<f64> = values.iter().map(|it| axis.place(*it)).collect();
            assert!(
                places.iter().all(|at| (99.9..=500.1).contains(at)),
                "{places:?}"
            );
            assert!(places.windows(2).all(|two| two[0] < two[1]));
            let marks = axis.marks();
            assert!(
                !marks.is_empty() && marks.len() <= 20,
                "{values:?} {marks:?}"
            );
        }
    }

    #[test]
    fn numbers_are_short() {
        let cases = [
            (1_234_567.0, "1.23M"),
            (56_780.0, "56.8k"),
            (432.1, "432"),
            (1.5, "1.5"),
            (0.034_56, "0.03456"),
        ];
        for (value, text) in cases {
            assert_eq!(short(value), text);
        }
        assert_eq!(quantile(1_000.0), "99.9 %");
    }
}
