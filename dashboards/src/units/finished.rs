//! What finished tasks cost, what those cost that were not finished, and how much of tasks went deep.

use std::collections::BTreeMap;

use meter::finance::{Filter, Tasks};
use meter::ledger::Dimension;

use crate::ask::{self, Ask};
use crate::number;
use crate::table::{Cell, Table, named};

/// Sums over some tasks.
#[derive(Debug, Default)]
struct Sum {
    tasks: i64,
    cost: i64,
    finished: i64,
    finished_cost: i64,
    /// Those of which nobody has told yet how they ended.
    open: i64,
    fast: (i64, i64),
    deep: (i64, i64),
}

impl Sum {
    fn add(&mut self, some: &Tasks) {
        self.tasks += some.tasks;
        self.cost += some.cost.0;
        if some.succeeded() {
            self.finished += some.tasks;
            self.finished_cost += some.cost.0;
        }
        if some.open() {
            self.open += some.tasks;
        }
        let add = |sum: &mut (i64, i64), calls, cost: meter::NanoUsd| {
            *sum = (sum.0 + calls, sum.1 + cost.0);
        };
        add(&mut self.fast, some.fast_calls, some.fast_cost);
        add(&mut self.deep, some.deep_calls, some.deep_cost);
    }
}

/// By workflow, and all of them last.
fn sums(tasks: &[Tasks]) -> (BTreeMap<&str, Sum>, Sum) {
    let (mut groups, mut all) = (BTreeMap::<&str, Sum>::new(), Sum::default());
    for some in tasks {
        groups.entry(&some.workflow).or_default().add(some);
        all.add(some);
    }
    (groups, all)
}

/// A row for each workflow, and the totals, each with the filter that its sums are over.
fn filled(
    mut table: Table,
    ask: &Ask,
    tasks: &[Tasks],
    row: fn(&Sum, &Filter) -> Vec<Cell>,
) -> Table {
    let (groups, all) = sums(tasks);
    let with = |first: Cell, sum: &Sum, filter: &Filter| {
        let mut cells = vec![first];
        cells.extend(row(sum, filter));
        cells
    };
    for (name, sum) in &groups {
        let filter = ask.filter.clone();
        let filter = filter.with(Dimension::Workflow, Some((*name).to_owned()));
        table.rows.push(with(Cell::text(named(name)), sum, &filter));
    }
    table.total = Some(with(Cell::text("All"), &all, &ask.filter));
    table.empty = "No caller named a task in this period, and none ran here.";
    table
}

/// What finished tasks cost, beside those that were not finished.
pub(super) fn table(ask: &Ask, tasks: &[Tasks]) -> Table {
    let names = [
        "Workflow",
        "Finished",
        "Of all",
        "Cost of finished",
        "Per finished task",
        "Not finished",
        "Of these open",
        "Cost of not finished",
        "Of the cost",
    ];
    let table = Table::new("finished", "Finished tasks, by workflow", &names);
    filled(table, ask, tasks, |sum, filter| {
        let of = |measure: &str| Some(ask::key(measure, filter));
        let wasted = sum.cost - sum.finished_cost;
        let each = number::ratio(sum.finished_cost, 1, sum.finished);
        vec![
            Cell::Count(sum.finished, of("ended_tasks")),
            Cell::Share(number::permille(sum.finished, sum.tasks)),
            Cell::Money(sum.finished_cost, of("ended_cost")),
            each.map_or(Cell::Share(None), |each| {
                Cell::Money(each, of("ended_each"))
            }),
            Cell::Count(sum.tasks - sum.finished, of("unended_tasks")),
            Cell::Count(sum.open, None),
            Cell::Money(wasted, of("unended_cost")),
            Cell::Share(number::permille(wasted, sum.cost)),
        ]
    })
}

/// How much of tasks each tier answered.
pub(super) fn tiers(ask: &Ask, tasks: &[Tasks]) -> Table {
    let names = [
        "Workflow",
        "Fast calls",
        "Deep calls",
        "Deep share",
        "Fast cost",
        "Deep cost",
        "Deep share of the cost",
    ];
    let table = Table::new("tiers", "Calls of tasks by tier, by workflow", &names);
    filled(table, ask, tasks, |sum, filter| {
        let of = |measure: &str| Some(ask::key(measure, filter));
        vec![
            Cell::Count(sum.fast.0, of("task_fast_calls")),
            Cell::Count(sum.deep.0, of("task_deep_calls")),
            Cell::Share(number::permille(sum.deep.0, sum.fast.0 + sum.deep.0)),
            Cell::Money(sum.fast.1, of("task_fast_cost")),
            Cell::Money(sum.deep.1, of("task_deep_cost")),
            Cell::Share(number::permille(sum.deep.1, sum.fast.1 + sum.deep.1)),
        ]
    })
}
