//! Unit economics: what does one result cost, who earns, and why did the cost change?

mod finished;

use std::collections::BTreeMap;

use maud::{Markup, html};
use meter::LedgerError;
use meter::finance::{BINS, Bin, Sums, Tasks};
use meter::ledger::Dimension;

use crate::ask::{self, Ask};
use crate::chart::{self, Fall, Unit};
use crate::desk::Sources;
use crate::figures::{Measure, int, total};
use crate::frame::Page;
use crate::number;
use crate::table::{Cell, Table, named};

pub(crate) fn page(ask: &Ask, sources: Sources<'_>) -> Result<Page, LedgerError> {
    let finance = sources.finance;
    let bins = finance.bins(&ask.filter)?;
    let told = finance.tasks(&ask.filter)?;
    let tasks = workflows(ask, &told, &bins);
    let ends = finished::table(ask, &told);
    let tiers = finished::tiers(ask, &told);
    let tenants = finance.sums(&ask.filter, &[Dimension::Tenant], ask.grain())?;
    let tenants: BTreeMap<&str, Sums> = tenants
        .iter()
        .map(|line| (line.group.first().map_or("", String::as_str), line.sums))
        .collect();
    let customers = customers(ask, &tenants);
    let (prior, end) = ask.period.before();
    let before = ask.during(ask.period.between(prior, end));
    let by = [Dimension::Model];
    let now = finance.sums(&ask.filter, &by, ask.grain())?;
    let then = finance.sums(&before, &by, ask.grain())?;
    let (falls, causes) = causes(ask, &before, &split(&then, &now));
    let body = html! {
        section { h2 { "Workflows" } (tasks.html(ask))
            p.note { "A task is what a caller names with x-pareto-task; it belongs to the day on which it began. "
                "p50 and p95 are upper ends of steps of 1, 2, 5." } }
        section { h2 #finished { "Finished tasks" } (ends.html(ask))
            p.note { "Finished: those that ended as completed, or of which a caller said that they succeeded. "
                "What the others cost stands apart, so that both together are what all tasks cost." } }
        section { h2 #tiers { "Tasks by tier" } (tiers.html(ask))
            p.note { "Calls of tasks alone, by the tier that answered them, retries among them." } }
        section { h2 { "Tasks by cost" } (histogram(&bins)) }
        section { h2 { "Customers by margin" } (customers.html(ask)) }
        section { h2 #change { "Why the cost changed" }
            (chart::waterfall("From the cost of the period before to this one\u{2019}s", &falls))
            (causes.html(ask))
            p.note { "Volume: more or fewer tokens at the average price of before. Price: each model\u{2019}s price for a token, at today\u{2019}s tokens. "
                "Mix: the rest, which is the shift between models, those that are new among them." } }
    };
    Ok(Page {
        title: "Unit economics".to_owned(),
        lead: "What does one result cost?".to_owned(),
        body,
        tables: vec![tasks, customers, causes, ends, tiers],
        ..Page::default()
    })
}

/// Tasks by workflow, with their success and what a success cost.
fn workflows(ask: &Ask, tasks: &[Tasks], bins: &[Bin]) -> Table {
    let names = [
        "Workflow",
        "Tasks",
        "Calls",
        "Success",
        "Cost",
        "Per task",
        "Per success",
        "p50",
        "p95",
    ];
    let mut table = Table::new(
        "workflows",
        "Tasks that began in the period, by workflow",
        &names,
    );
    table.empty = "No caller named a task in this period. The headers x-pareto-task and x-pareto-workflow do.";
    let mut groups: BTreeMap<&str, Vec<&Tasks>> = BTreeMap::new();
    for some in tasks {
        groups.entry(&some.workflow).or_default().push(some);
    }
    let all: Vec<&Tasks> = tasks.iter().collect();
    for (name, some) in &groups {
        let own: Vec<&Bin> = bins.iter().filter(|bin| bin.workflow == *name).collect();
        table.rows.push(workflow(ask, Some(name), some, &own));
    }
    table.total = Some(workflow(ask, None, &all, &bins.iter().collect::<Vec<_>>()));
    table
}

fn workflow(ask: &Ask, name: Option<&str>, tasks: &[&Tasks], bins: &[&Bin]) -> Vec<Cell> {
    let sum = |read: fn(&Tasks) -> i64| tasks.iter().map(|some| read(some)).sum::<i64>();
    let (count, calls, cost) = (sum(|t| t.tasks), sum(|t| t.calls), sum(|t| t.cost.0));
    let told: i64 = tasks
        .iter()
        .filter(|some| !some.open())
        .map(|some| some.tasks)
        .sum();
    let done: i64 = tasks
        .iter()
        .filter(|some| some.succeeded())
        .map(|some| some.tasks)
        .sum();
    let spent: i64 = tasks
        .iter()
        .filter(|some| !some.open())
        .map(|some| some.cost.0)
        .sum();
    let filter = match name {
        Some(name) => ask
            .filter
            .clone()
            .with(Dimension::Workflow, Some(name.to_owned())),
        None => ask.filter.clone(),
    };
    let of = |measure: &str| Some(ask::key(measure, &filter));
    let money = |nano: Option<i64>, of: Option<String>| {
        nano.map_or(Cell::Share(None), |nano| Cell::Money(nano, of))
    };
    vec![
        Cell::text(name.map_or("All", named)),
        Cell::Count(count, of("tasks")),
        Cell::Count(calls, of("task_calls")),
        Cell::Share(number::permille(done, told)),
        Cell::Money(cost, of("task_cost")),
        money(number::ratio(cost, 1, count), of("task_each")),
        money(number::ratio(spent, 1, done), None),
        money(within(bins, count, 50), None),
        money(within(bins, count, 95), None),
    ]
}

/// The bound that `per_cent` of the tasks do not exceed.
fn within(bins: &[&Bin], tasks: i64, per_cent: i64) -> Option<i64> {
    let wanted = (tasks.saturating_mul(per_cent) + 99) / 100;
    let mut counts: BTreeMap<usize, (i64, i64)> = BTreeMap::new();
    for bin in bins {
        let entry = counts.entry(bin.bin).or_default();
        entry.0 += bin.tasks;
        entry.1 = entry.1.max(bin.most.0);
    }
    let mut seen = 0;
    for (bin, (tasks, most)) in counts {
        seen += tasks;
        if seen >= wanted {
            return Some(BINS.get(bin).map_or(most, |bound| most.min(*bound)));
        }
    }
    None
}

fn histogram(bins: &[Bin]) -> Markup {
    if bins.is_empty() {
        return html! { p.empty { "No task in this period." } };
    }
    let mut counts = vec![0; BINS.len() + 1];
    for bin in bins {
        if let Some(count) = counts.get_mut(bin.bin) {
            *count += bin.tasks;
        }
    }
    let first = counts.iter().position(|count| *count > 0).unwrap_or(0);
    let last = counts.iter().rposition(|count| *count > 0).unwrap_or(0);
    let label = |bin: usize| match BINS.get(bin) {
        Some(bound) => format!("\u{2264} {}", number::usd(*bound, places(*bound))),
        None => "more".to_owned(),
    };
    let chart = chart::Chart {
        id: "tasks",
        caption: "Tasks by what they cost".to_owned(),
        unit: Unit::Count,
        measure: None,
        of: String::new(),
        places: (first..=last)
            .map(|bin| (label(bin), String::new()))
            .collect(),
        series: vec![chart::Series {
            name: "Tasks".to_owned(),
            of: None,
            values: counts.get(first..=last).unwrap_or_default().to_vec(),
        }],
    };
    chart.stacked()
}

/// Digits of a round bound: none more than it has.
fn places(nano: i64) -> u32 {
    match nano {
        1_000_000_000.. => 0,
        100_000_000.. => 1,
        10_000_000.. => 2,
        1_000_000.. => 3,
        _ => 4,
    }
}

/// Tenants by what is left of what they pay.
fn customers(ask: &Ask, tenants: &BTreeMap<&str, Sums>) -> Table {
    let names = [
        "Tenant",
        "Sell",
        "Cost",
        "Margin",
        "Margin %",
        "Retries",
        "Of the cost",
    ];
    let mut table = Table::new("customers", "Tenants by margin, lowest first", &names);
    let mut order: Vec<(&&str, &Sums)> = tenants.iter().collect();
    order.sort_by_key(|(name, sums)| (sums.sell - sums.cost, **name));
    let row = |first: Cell, sums: &Sums, filter: &meter::finance::Filter| {
        let cell = |word| Measure::named(word).map(|one| one.cell(sums, filter));
        let mut row = vec![first];
        row.extend(["sell", "cost", "margin"].into_iter().filter_map(cell));
        row.push(Cell::Share(number::permille(
            (sums.sell - sums.cost).0,
            sums.sell.0,
        )));
        row.push(Cell::Money(
            sums.retry_cost.0,
            Some(ask::key("retry", filter)),
        ));
        row.push(Cell::Share(number::permille(
            sums.retry_cost.0,
            sums.cost.0,
        )));
        row
    };
    for (name, sums) in order {
        let filter = ask
            .filter
            .clone()
            .with(Dimension::Tenant, Some((*name).to_owned()));
        table.rows.push(row(Cell::name(name), sums, &filter));
    }
    table.total = Some(row(
        Cell::text("Total"),
        &total(tenants.values()),
        &ask.filter,
    ));
    table
}

/// A change of cost by cause; the parts add up exactly.
struct Causes {
    before: i64,
    volume: i64,
    mix: i64,
    price: i64,
    now: i64,
}

fn split(then: &[meter::finance::Line], now: &[meter::finance::Line]) -> Causes {
    let read = |lines: &[meter::finance::Line]| -> BTreeMap<String, (i64, i64)> {
        let group = |line: &meter::finance::Line| line.group.first().cloned().unwrap_or_default();
        let tokens = |sums: &Sums| int(sums.usage.prompt().saturating_add(sums.usage.answer()));
        lines
            .iter()
            .map(|line| (group(line), (tokens(&line.sums), line.sums.cost.0)))
            .collect()
    };
    let (then, now) = (read(then), read(now));
    let sum = |all: &BTreeMap<String, (i64, i64)>| {
        all.values().fold((0_i64, 0_i64), |(tokens, cost), (t, c)| {
            (tokens + t, cost + c)
        })
    };
    let ((tokens, before), (more, after)) = (sum(&then), sum(&now));
    let volume = number::ratio(before, more - tokens, tokens).unwrap_or(after - before);
    let price: i64 = now
        .iter()
        .filter_map(|(model, (tokens, cost))| {
            let (tokens_then, cost_then) = then.get(model)?;
            Some(cost - number::ratio(*cost_then, *tokens, *tokens_then)?)
        })
        .sum();
    Causes {
        before,
        volume,
        mix: after - before - volume - price,
        price,
        now: after,
    }
}

fn causes(ask: &Ask, before: &meter::finance::Filter, causes: &Causes) -> (Vec<Fall>, Table) {
    let mut table = Table::new(
        "causes",
        "Change of the cost by cause",
        &["Cause", "Amount", "Of the cost before"],
    );
    let mut falls = Vec::new();
    for (name, nano, sum) in [
        ("Before", causes.before, Some(ask::key("cost", before))),
        ("Volume", causes.volume, None),
        ("Mix", causes.mix, None),
        ("Price", causes.price, None),
        ("Now", causes.now, Some(ask::key("cost", &ask.filter))),
    ] {
        let whole = sum.is_some();
        table.rows.push(vec![
            Cell::text(name),
            Cell::Money(nano, sum.clone()),
            if whole {
                Cell::Blank
            } else {
                Cell::Change(number::permille(nano, causes.before))
            },
        ]);
        falls.push(Fall {
            name: name.to_owned(),
            nano,
            whole,
            sum,
        });
    }
    (falls, table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(model: &str, tokens: u64, cost: i64) -> meter::finance::Line {
        let mut line = meter::finance::Line {
            group: vec![model.to_owned()],
            ..meter::finance::Line::default()
        };
        line.sums.usage.input = tokens;
        line.sums.cost = meter::NanoUsd(cost);
        line
    }

    #[test]
    fn causes_add_up_and_are_told_apart() {
        let then = [line("a", 100, 1_000), line("b", 100, 3_000)];
        let twice = [line("a", 200, 2_000), line("b", 200, 6_000)];
        let made = split(&then, &twice);
        assert_eq!((made.volume, made.mix, made.price), (4_000, 0, 0));
        let moved = [line("a", 200, 2_000)];
        let made = split(&then, &moved);
        assert_eq!((made.volume, made.mix, made.price), (0, -2_000, 0));
        let dearer = [line("a", 100, 1_500), line("b", 100, 3_000)];
        let made = split(&then, &dearer);
        assert_eq!((made.volume, made.mix, made.price), (0, 0, 500));
    }
}
