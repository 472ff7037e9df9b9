//! A task over time: for each step, when models thought and tools acted.

use std::fmt::Write;

use maud::{Markup, html};

use crate::ask::Ask;
use crate::number;
use crate::period;
use crate::table::{Cell, Table};

use super::shape::{Call, Effect, Task};
use super::words::{cut, took};

const WIDTH: i64 = 960;
const LEFT: i64 = 150;
const LANE: i64 = 20;
const TOP: i64 = 18;
/// The narrowest bar.
const LEAST: i64 = 2;

/// Something that took time.
struct Bar {
    from_ms: i64,
    until_ms: i64,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Fast,
    Deep,
    /// A call that no tier has answered yet, or that failed.
    Other,
    Act,
}

const KINDS: [(Kind, &str, &str); 4] = [
    (Kind::Fast, "s2", "Fast calls"),
    (Kind::Deep, "s0", "Deep calls"),
    (Kind::Other, "s4", "Calls without an answer"),
    (Kind::Act, "s1", "Acts and looks"),
];

/// A step, or what belongs to none, with its bars.
struct Lane {
    name: String,
    bars: Vec<Bar>,
}

/// The drawing, and the same as a table.
pub(super) fn parts(ask: &Ask, task: &Task, calls: &[Call], effects: &[Effect]) -> (Markup, Table) {
    let until_ms = task
        .ended_at_ms
        .unwrap_or(ask.now_ms)
        .max(task.created_at_ms + 1);
    let lanes = lanes(task, calls, effects, until_ms);
    let table = table(ask, &lanes);
    (drawing(ask, &lanes, (task.created_at_ms, until_ms)), table)
}

fn lanes(task: &Task, calls: &[Call], effects: &[Effect], now_ms: i64) -> Vec<Lane> {
    let mut names: Vec<(Option<&str>, String)> = vec![(None, "plan, judge, close".to_owned())];
    for node in &task.plan.nodes {
        let name = format!("{} {}", cut(&node.id, 8), cut(&node.title, 14));
        names.push((Some(&node.id), name));
    }
    // Steps of earlier plans have their times, too.
    let mine = calls.iter().filter_map(|call| call.purpose.node.as_deref());
    for id in mine.chain(effects.iter().map(|effect| effect.node.as_str())) {
        if !names.iter().any(|(known, _)| *known == Some(id)) {
            names.push((Some(id), format!("{} (earlier plan)", cut(id, 8))));
        }
    }
    let lane = |(id, name): (Option<&str>, String)| {
        let calls = calls
            .iter()
            .filter(|call| call.purpose.node.as_deref() == id);
        let effects = effects
            .iter()
            .filter(|effect| Some(effect.node.as_str()) == id);
        let bars = calls
            .map(|call| call_bar(call, now_ms))
            .chain(effects.filter_map(|effect| effect_bar(effect, now_ms)))
            .collect();
        Lane { name, bars }
    };
    names.into_iter().map(lane).collect()
}

fn call_bar(call: &Call, now_ms: i64) -> Bar {
    let kind = match call.tier.as_deref() {
        Some("fast") => Kind::Fast,
        Some("deep") => Kind::Deep,
        _ => Kind::Other,
    };
    Bar {
        from_ms: call.at_ms,
        until_ms: call.ms.map_or(now_ms, |ms| call.at_ms + ms),
        kind,
    }
}

/// From when it left; what never left took no time.
fn effect_bar(effect: &Effect, now_ms: i64) -> Option<Bar> {
    (effect.committed_at_ms > 0).then(|| Bar {
        from_ms: effect.committed_at_ms,
        until_ms: effect.ended_at_ms.unwrap_or(now_ms),
        kind: Kind::Act,
    })
}

fn drawing(ask: &Ask, lanes: &[Lane], (from_ms, until_ms): (i64, i64)) -> Markup {
    let x = |at_ms: i64| {
        let part = i128::from((at_ms - from_ms).clamp(0, until_ms - from_ms));
        let place = part * i128::from(WIDTH - LEFT) / i128::from(until_ms - from_ms);
        LEFT + i64::try_from(place).unwrap_or(0)
    };
    let height = TOP + LANE * i64::try_from(lanes.len()).unwrap_or(0);
    let paths: Vec<(&str, String)> = KINDS
        .iter()
        .map(|(kind, class, _)| (*class, path(lanes, *kind, &x)))
        .collect();
    let quarters = [0, 1, 2, 3, 4].map(|n| from_ms + (until_ms - from_ms) * n / 4);
    html! {
        figure.chart {
            figcaption { "Calls and acts over time: " (took(until_ms - from_ms)) " from " (period::moment(from_ms, &ask.period.zone)) }
            svg viewBox=(format!("0 0 {WIDTH} {}", height + 4)) role="img" aria-label="Calls and acts over time; the table below says when each step worked" {
                @for (n, at) in quarters.iter().enumerate() {
                    line.grid x1=(x(*at)) x2=(x(*at)) y1=(TOP) y2=(height) {}
                    text.tick x=(x(*at)) y="11" text-anchor=(match n { 0 => "start", 4 => "end", _ => "middle" }) { (took(at - from_ms)) }
                }
                @for (n, lane) in lanes.iter().enumerate() {
                    text.tick x=(LEFT - 8) y=(TOP + LANE * i64::try_from(n).unwrap_or(0) + 14) text-anchor="end" { (lane.name) }
                }
                @for (class, path) in &paths { path class=(class) d=(path) {} }
            }
            ul.legend {
                @for ((_, class, name), (_, path)) in KINDS.iter().zip(&paths) {
                    @if !path.is_empty() {
                        li { svg width="18" height="12" viewBox="0 0 18 12" aria-hidden="true" { rect class=(class) width="14" height="12" {} } (name) }
                    }
                }
            }
        }
    }
}

/// All bars of one kind: calls in the upper half of their lane, acts in the lower.
fn path(lanes: &[Lane], kind: Kind, x: &dyn Fn(i64) -> i64) -> String {
    let mut path = String::new();
    for (n, lane) in lanes.iter().enumerate() {
        let top = TOP + LANE * i64::try_from(n).unwrap_or(0);
        let (top, height) = if kind == Kind::Act {
            (top + 11, 6)
        } else {
            (top + 2, 8)
        };
        let mut drawn: Option<(i64, i64)> = None;
        let mut bars: Vec<(i64, i64)> = lane
            .bars
            .iter()
            .filter(|bar| bar.kind == kind)
            .map(|bar| (x(bar.from_ms), x(bar.until_ms).max(x(bar.from_ms) + LEAST)))
            .collect();
        bars.sort_unstable();
        for (from, until) in bars {
            // What can not be told apart is drawn once, so that a drawing stays small.
            if drawn.is_some_and(|(_, end)| until <= end) {
                continue;
            }
            // Writing to a String can not fail.
            let _written = write!(path, "M{from} {top}h{}v{height}h-{0}z", until - from);
            drawn = Some((from, until));
        }
    }
    path
}

fn table(ask: &Ask, lanes: &[Lane]) -> Table {
    let names = [
        "Step",
        "First",
        "Last",
        "Calls",
        "Thinking",
        "Acts",
        "Acting",
        "Share of the time",
    ];
    let mut table = Table::new("times", "When each step worked", &names);
    table.empty = "Nothing has happened yet.";
    let all: i64 = lanes.iter().flat_map(|lane| &lane.bars).map(length).sum();
    for lane in lanes.iter().filter(|lane| !lane.bars.is_empty()) {
        let acts = |is: bool| {
            lane.bars
                .iter()
                .filter(move |bar| (bar.kind == Kind::Act) == is)
        };
        let many = |is: bool| i64::try_from(acts(is).count()).unwrap_or(0);
        let long = |is: bool| acts(is).map(length).sum::<i64>();
        let first = lane.bars.iter().map(|bar| bar.from_ms).min().unwrap_or(0);
        let last = lane.bars.iter().map(|bar| bar.until_ms).max().unwrap_or(0);
        let at = |ms: i64| Cell::text(super::history::second(ms, &ask.period.zone));
        table.rows.push(vec![
            Cell::text(lane.name.clone()),
            at(first),
            at(last),
            Cell::Count(many(false), None),
            Cell::text(took(long(false))),
            Cell::Count(many(true), None),
            Cell::text(took(long(true))),
            number::permille(long(false) + long(true), all).map_or(Cell::Blank, Cell::Bar),
        ]);
    }
    table
}

fn length(bar: &Bar) -> i64 {
    (bar.until_ms - bar.from_ms).max(0)
}
