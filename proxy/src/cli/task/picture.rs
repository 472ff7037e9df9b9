//! How a task stands, as a few lines: the plan as a tree, what is spent, what it is doing now.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table};
use meter::NanoUsd;
use serde_json::Value;

use super::super::client::{list, number, text};
use super::super::plain;

/// Letters of the bar of what is spent.
const BAR: i128 = 24;

/// A step of the plan with its place in the tree.
struct Placed<'a> {
    node: &'a Value,
    depth: usize,
    /// What it waits for besides the step that it hangs on.
    also: Vec<&'a str>,
}

/// The plan in the order of a tree. A step hangs on the one of those it needs that comes last; the others
/// are named beside it.
fn tree(plan: &Value) -> Vec<Placed<'_>> {
    let nodes = list(plan, "/nodes");
    let mut depths: BTreeMap<&str, usize> = BTreeMap::new();
    let mut parents: BTreeMap<&str, &str> = BTreeMap::new();
    // What a step needs may stand behind it; a plan has no circles, so this comes to an end.
    for _ in nodes {
        for node in nodes {
            let needs = list(node, "/depends_on").iter().filter_map(Value::as_str);
            let deepest = needs.max_by_key(|need| depths.get(need).copied().unwrap_or(0));
            let depth = deepest.map_or(0, |need| depths.get(need).copied().unwrap_or(0) + 1);
            depths.insert(text(node, "/id"), depth);
            if let Some(parent) = deepest {
                parents.insert(text(node, "/id"), parent);
            }
        }
    }
    let mut placed = Vec::new();
    let roots = nodes
        .iter()
        .filter(|it| !parents.contains_key(text(it, "/id")));
    let mut open: Vec<&Value> = roots.rev().collect();
    while let Some(node) = open.pop() {
        let id = text(node, "/id");
        let needs = list(node, "/depends_on").iter().filter_map(Value::as_str);
        let parent = parents.get(id).copied().unwrap_or_default();
        placed.push(Placed {
            node,
            depth: depths.get(id).copied().unwrap_or(0),
            also: needs.filter(|need| *need != parent).collect(),
        });
        let children = nodes
            .iter()
            .filter(|it| parents.get(text(it, "/id")) == Some(&id));
        open.extend(children.rev());
        if placed.len() > nodes.len() {
            break;
        }
    }
    placed
}

fn mark(status: &str) -> &'static str {
    match status {
        "running" => "▶",
        "succeeded" => "✓",
        "failed" => "✗",
        "skipped" => "-",
        _ => "·",
    }
}

/// The plan, a line for each step, none longer than `width`.
pub(super) fn plan_lines(plan: &Value, width: usize) -> Vec<String> {
    let lines = tree(plan).into_iter().map(|placed| {
        let node = placed.node;
        let hang = if placed.depth > 0 { "└ " } else { "" };
        let models = list(node, "/models").iter().filter_map(Value::as_str);
        let models: Vec<&str> = models.collect();
        let line = format!(
            "{:indent$}{hang}{} {} {:<9} {:<10} {}",
            "",
            mark(text(node, "/status")),
            text(node, "/id"),
            text(node, "/status"),
            text(node, "/kind"),
            plain::line(text(node, "/title"), 48),
            indent = placed.depth.saturating_sub(1) * 2,
        );
        let mut more = Vec::new();
        if !placed.also.is_empty() {
            more.push(format!(" (and after {})", placed.also.join(", ")));
        }
        if number(node, "/attempt") > 1 {
            more.push(format!(" (attempt {})", number(node, "/attempt")));
        }
        if !models.is_empty() {
            let models = models.join(", ");
            more.push(format!("  {models}  {} USD", text(node, "/cost_usd")));
        }
        plain::line_kept(&(line + &more.concat()), width)
    });
    lines.collect()
}

/// The plan as a table, with what each step asked of models and tools.
pub(super) fn plan_table(plan: &Value) -> String {
    let mut table = Table::new();
    table.set_header([
        "step",
        "status",
        "kind",
        "title",
        "after",
        "models",
        "calls",
        "tools",
        "cost, USD",
    ]);
    for placed in tree(plan) {
        let node = placed.node;
        let words = |at: &str| {
            let words = list(node, at).iter().filter_map(Value::as_str);
            words.collect::<Vec<_>>().join(", ")
        };
        table.add_row([
            format!("{:1$}{2}", "", placed.depth * 2, text(node, "/id")),
            text(node, "/status").to_owned(),
            text(node, "/kind").to_owned(),
            plain::line(text(node, "/title"), 60),
            words("/depends_on"),
            words("/models"),
            number(node, "/calls").to_string(),
            number(node, "/tool_calls").to_string(),
            text(node, "/cost_usd").to_owned(),
        ]);
    }
    for column in table.column_iter_mut().skip(6) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// An amount in decimal USD, in nano-USD; nothing where it is none.
pub(super) fn money(value: &Value, at: &str) -> NanoUsd {
    let parsed = NanoUsd::from_usd(text(value, at));
    parsed.unwrap_or_default()
}

/// What is spent, beside what may be.
pub(super) fn spend(task: &Value) -> String {
    let spent = text(task, "/usage/cost_usd");
    let limit = money(task, "/usage/budget_usd");
    if limit.0 <= 0 {
        return format!("{spent} USD spent, no limit of its own");
    }
    let filled = i128::from(money(task, "/usage/cost_usd").0) * BAR / i128::from(limit.0);
    let filled = usize::try_from(filled.clamp(0, BAR)).unwrap_or(0);
    let empty = usize::try_from(BAR).unwrap_or(0).saturating_sub(filled);
    format!(
        "[{}{}] {spent} of {} USD",
        "█".repeat(filled),
        "░".repeat(empty),
        text(task, "/usage/budget_usd")
    )
}

/// The whole picture, no line longer than `width`.
pub(super) fn panel(task: &Value, now: &str, width: usize) -> String {
    let mut lines = vec![plain::line(text(task, "/objective"), width)];
    let plan = task.get("plan").unwrap_or(&Value::Null);
    lines.extend(plan_lines(plan, width));
    let waiting = text(task, "/waiting_on");
    let waits = if waiting.is_empty() {
        String::new()
    } else {
        format!(" · waits for {waiting}")
    };
    let state = format!(
        "{} · {} · {}{waits}",
        text(task, "/id"),
        text(task, "/status"),
        text(task, "/phase")
    );
    lines.push(plain::line(&state, width));
    let progress = format!(
        "{}  {} of {} steps  {} of {} checks  {} model calls  {} tool calls",
        spend(task),
        number(task, "/progress/nodes_done"),
        number(task, "/progress/nodes_total"),
        number(task, "/progress/checks_passed"),
        number(task, "/progress/checks_total"),
        number(task, "/usage/model_calls"),
        number(task, "/usage/tool_calls"),
    );
    lines.push(plain::line(&progress, width));
    lines.push(plain::line(now, width));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(id: &str, after: &[&str]) -> Value {
        json!({ "id": id, "kind": "draft", "title": id, "status": "waiting", "depends_on": after, "cost_usd": "0" })
    }

    #[test]
    fn steps_hang_on_the_last_of_those_they_need() {
        let plan = json!({ "nodes": [
            node("c", &["a", "b"]), node("a", &[]), node("b", &["a"]), node("d", &[]),
        ] });
        let lines = plan_lines(&plan, 100);
        let shown: Vec<&str> = lines.iter().map(|line| line.trim_end()).collect();
        assert_eq!(
            shown,
            [
                "· a waiting   draft      a",
                "└ · b waiting   draft      b",
                "  └ · c waiting   draft      c (and after a)",
                "· d waiting   draft      d",
            ]
        );
    }

    #[test]
    fn a_plan_that_goes_in_a_circle_is_shown_all_the_same() {
        let plan = json!({ "nodes": [node("a", &["b"]), node("b", &["a"]), node("c", &[])] });
        assert!(plan_lines(&plan, 100).len() <= 4);
    }

    #[test]
    fn the_bar_is_as_full_as_the_budget_is_spent() {
        let task = |spent: &str| json!({ "usage": { "cost_usd": spent, "budget_usd": "2" } });
        assert!(spend(&task("0.5")).starts_with("[██████░"));
        assert!(spend(&task("3")).contains(&"█".repeat(24)));
        assert!(spend(&json!({ "usage": { "cost_usd": "1" } })).contains("no limit"));
    }
}
