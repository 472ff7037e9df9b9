//! Where the money of a task went: a table with a line for each step, or kind of work without one, and model.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table};
use meter::NanoUsd;
use serde_json::Value;

use super::super::client::{list, number, text};
use super::super::plain;
use super::picture::money;

/// A line of the table.
#[derive(Debug, Default)]
struct Line {
    calls: i64,
    input: i64,
    output: i64,
    tools: i64,
    cost: NanoUsd,
}

impl Line {
    fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.input += other.input;
        self.output += other.output;
        self.cost += other.cost;
    }

    /// The cells behind these names.
    fn row(&self, names: [&str; 4]) -> Vec<String> {
        let counts = [self.calls, self.input, self.output, self.tools];
        // Nothing stands where there was nothing.
        let counts = counts.map(|count| {
            if count > 0 {
                count.to_string()
            } else {
                String::new()
            }
        });
        let names = names.map(|name| plain::line(name, 40));
        let cells = names.into_iter().chain(counts);
        cells.chain([self.cost.to_usd()]).collect()
    }
}

/// Where a line stands in the table, and its name: planning, the steps, what they made necessary, and the
/// end.
fn place(purpose: &Value, steps: &[Value]) -> (usize, String) {
    let node = text(purpose, "/node");
    let at = steps.iter().position(|step| text(step, "/id") == node);
    let behind = steps.len() + 2;
    match text(purpose, "/for") {
        "plan" => (0, "planning".to_owned()),
        "node" => (at.unwrap_or(steps.len()) + 1, node.to_owned()),
        "compact" => (behind, format!("notes of {node}")),
        "judge" => (behind + 2, "judging".to_owned()),
        "wrap_up" => (behind + 3, "closing".to_owned()),
        _ => (behind + 1, "planning again".to_owned()),
    }
}

/// The lines by their place, name, tier and model.
fn lines(explain: &Value, steps: &[Value]) -> BTreeMap<((usize, String), String, String), Line> {
    let mut lines: BTreeMap<_, Line> = BTreeMap::new();
    for call in list(explain, "/calls") {
        let place = place(call.get("purpose").unwrap_or(&Value::Null), steps);
        let (tier, model) = (text(call, "/tier"), text(call, "/model"));
        let line = lines.entry((place, tier.to_owned(), model.to_owned()));
        line.or_default().add(&Line {
            calls: 1,
            input: number(call, "/input_tokens"),
            output: number(call, "/output_tokens"),
            tools: 0,
            cost: money(call, "/cost_usd"),
        });
    }
    lines
}

/// The table.
pub(super) fn costs(task: &Value, explain: &Value) -> Table {
    let steps = list(task, "/plan/nodes");
    let mut table = Table::new();
    table.set_header([
        "step",
        "kind",
        "tier",
        "model",
        "calls",
        "input",
        "output",
        "tools",
        "cost, USD",
    ]);
    let (mut told, mut all) = (String::new(), Line::default());
    for (((_, name), tier, model), mut line) in lines(explain, steps) {
        let step = steps.iter().find(|it| text(it, "/id") == name);
        // A step that used two models has two lines; its tools stand in the first.
        if told != name {
            line.tools = step.map_or(0, |it| number(it, "/tool_calls"));
        }
        let kind = step.map_or("", |it| text(it, "/kind"));
        table.add_row(line.row([&name, kind, &tier, &model]));
        all.add(&line);
        told = name;
    }
    let tools = Line {
        cost: money(task, "/usage/tools_usd"),
        ..Line::default()
    };
    if tools.cost != NanoUsd::ZERO {
        table.add_row(tools.row(["tools", "", "", ""]));
        all.add(&tools);
    }
    all.tools = number(task, "/usage/tool_calls");
    table.add_row(all.row(["total", "", "", ""]));
    for column in table.column_iter_mut().skip(4) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_call_stands_in_one_line_and_the_sum_below_them() {
        let call = |purpose: Value, tier: &str, cost: &str| {
            json!({ "purpose": purpose, "tier": tier, "model": tier, "cost_usd": cost,
                "input_tokens": 10, "output_tokens": 1 })
        };
        let node = |id: &str| json!({ "for": "node", "node": id });
        let explain = json!({ "calls": [
            call(json!({ "for": "judge", "check": "d1" }), "deep", "0.000000004"),
            call(node("b"), "fast", "0.000000003"),
            call(node("a"), "deep", "0.000000002"),
            call(node("a"), "fast", "0.000000001"),
            call(node("a"), "fast", "0.000000001"),
            call(json!({ "for": "plan" }), "deep", "0.000000005"),
        ] });
        let task = json!({ "plan": { "nodes": [
                { "id": "a", "kind": "draft", "tool_calls": 2 }, { "id": "b", "kind": "act" } ] },
            "usage": { "tools_usd": "0.5", "tool_calls": 2 } });
        let table = costs(&task, &explain).to_string();
        let rows = table.lines().filter(|line| line.starts_with("| "));
        let rows: Vec<Vec<&str>> = rows
            .map(|row| row.trim_matches('|').split('|').map(str::trim).collect())
            .collect();
        let firsts: Vec<&str> = rows.iter().map(|row| row[0]).collect();
        assert_eq!(
            firsts,
            [
                "step", "planning", "a", "a", "b", "judging", "tools", "total"
            ]
        );
        assert_eq!(rows[2][4..], ["1", "10", "1", "2", "0.000000002"]);
        assert_eq!(rows[3][4..], ["2", "20", "2", "", "0.000000002"]);
        assert_eq!(rows[7][4..], ["6", "60", "6", "2", "0.500000016"]);
    }
}
