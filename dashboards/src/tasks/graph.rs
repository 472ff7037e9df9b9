//! A plan as a drawing: steps in layers, each behind all that it waits for. The table below it says the
//! same in words.

use std::collections::BTreeMap;
use std::fmt::Write;

use maud::{Markup, html};

use crate::number;

use super::shape::{Node, Plan};
use super::words::{cut, spoken, tone};

const WIDTH: i64 = 214;
const HEIGHT: i64 = 78;
const ACROSS: i64 = 56;
const BETWEEN: i64 = 16;
const EDGE: i64 = 4;

/// A step with its place.
struct Placed<'a> {
    node: &'a Node,
    x: i64,
    y: i64,
}

/// The drawing. Where steps wait for each other in a circle, which no plan in force does, each still has
/// a place.
pub(super) fn svg(plan: &Plan) -> Markup {
    let placed = place(&plan.nodes);
    let right = placed.values().map(|it| it.x + WIDTH).max().unwrap_or(0) + EDGE;
    let bottom = placed.values().map(|it| it.y + HEIGHT).max().unwrap_or(0) + EDGE;
    let label = format!(
        "The plan, revision {}: {} steps; the table below says the same",
        plan.rev,
        plan.nodes.len()
    );
    html! {
        div.graph.scroll tabindex="0" role="region" aria-label="The plan as a drawing" {
            svg role="img" aria-label=(label) width=(right) height=(bottom) viewBox=(format!("0 0 {right} {bottom}")) {
                path.edge d=(edges(&placed)) {}
                @for it in plan.nodes.iter().filter_map(|node| placed.get(node.id.as_str())) { (step(it)) }
            }
        }
    }
}

fn step(it: &Placed<'_>) -> Markup {
    let (node, x, y) = (it.node, it.x, it.y);
    let model = match node.models.first() {
        Some(model) if node.models.len() > 1 => format!("{model} +{}", node.models.len() - 1),
        Some(model) => model.clone(),
        None => format!("asks for {}", node.asks_for),
    };
    html! {
        rect class={ "step " (tone(&node.status)) } x=(x) y=(y) width=(WIDTH) height=(HEIGHT) rx="3" {}
        text.name x=(x + 10) y=(y + 18) { (cut(&node.id, 12)) " \u{b7} " (cut(&node.title, 18)) }
        text.small x=(x + 10) y=(y + 35) { (cut(&node.kind, 14)) " \u{b7} " (spoken(&node.status)) }
        text.small x=(x + 10) y=(y + 51) { (cut(&model, 32)) }
        text.small x=(x + 10) y=(y + 67) { (number::usd(node.cost_usd, number::digits(node.cost_usd))) " \u{b7} " (node.calls) " calls, " (node.tool_calls) " acts" }
    }
}

/// A curve from each step to those that wait for it.
fn edges(placed: &BTreeMap<&str, Placed<'_>>) -> String {
    let mut path = String::new();
    for to in placed.values() {
        for from in to
            .node
            .depends_on
            .iter()
            .filter_map(|id| placed.get(id.as_str()))
        {
            let (x1, y1) = (from.x + WIDTH, from.y + HEIGHT / 2);
            let (x2, y2) = (to.x, to.y + HEIGHT / 2);
            let half = ACROSS / 2;
            // Writing to a String can not fail.
            let _written = write!(
                path,
                "M{x1} {y1}C{} {y1} {} {y2} {x2} {y2}m-6-4l6 4l-6 4",
                x1 + half,
                x2 - half
            );
        }
    }
    path
}

fn place(nodes: &[Node]) -> BTreeMap<&str, Placed<'_>> {
    let depths = depths(nodes);
    let layers = depths.values().copied().max().unwrap_or(0);
    let mut placed: BTreeMap<&str, Placed<'_>> = BTreeMap::new();
    let mut x = EDGE;
    for layer in 0..=layers {
        let mut mine: Vec<&Node> = nodes
            .iter()
            .filter(|node| depths.get(node.id.as_str()) == Some(&layer))
            .collect();
        // Near what they wait for, so that edges cross little.
        mine.sort_by_key(|node| {
            let before = node
                .depends_on
                .iter()
                .filter_map(|id| placed.get(id.as_str()));
            let heights: Vec<i64> = before.map(|it| it.y).collect();
            let many = i64::try_from(heights.len()).unwrap_or(1).max(1);
            heights.iter().sum::<i64>() / many
        });
        let mut y = EDGE;
        for node in mine {
            placed.insert(&node.id, Placed { node, x, y });
            y += HEIGHT + BETWEEN;
        }
        x += WIDTH + ACROSS;
    }
    placed
}

/// How many steps stand before each, on the longest way.
fn depths(nodes: &[Node]) -> BTreeMap<&str, usize> {
    let mut depths: BTreeMap<&str, usize> =
        nodes.iter().map(|node| (node.id.as_str(), 0)).collect();
    // The longest way has no more steps than there are.
    for _ in 0..nodes.len() {
        let mut is_changed = false;
        for node in nodes {
            let before = node
                .depends_on
                .iter()
                .filter_map(|id| depths.get(id.as_str()));
            let depth = before.max().map_or(0, |most| most + 1).min(nodes.len() - 1);
            if depths.insert(&node.id, depth) != Some(depth) {
                is_changed = true;
            }
        }
        if !is_changed {
            break;
        }
    }
    depths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str, before: &[&str]) -> Node {
        Node {
            id: id.to_owned(),
            depends_on: before.iter().map(|it| (*it).to_owned()).collect(),
            ..Node::default()
        }
    }

    #[test]
    fn each_step_stands_behind_all_that_it_waits_for() {
        let nodes = [
            node("e", &["d", "a"]),
            node("a", &[]),
            node("b", &["a"]),
            node("c", &["a"]),
            node("d", &["b", "c"]),
        ];
        let placed = place(&nodes);
        for node in &nodes {
            for before in &node.depends_on {
                assert!(placed[before.as_str()].x < placed[node.id.as_str()].x);
            }
        }
        let mut places: Vec<(i64, i64)> = placed.values().map(|it| (it.x, it.y)).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), 5, "no two in one place");
    }

    #[test]
    fn steps_in_a_circle_or_after_nothing_still_have_places() {
        let nodes = [node("a", &["b"]), node("b", &["a"]), node("c", &["gone"])];
        assert_eq!(place(&nodes).len(), 3);
        assert!(place(&[]).is_empty());
    }
}
