//! Chargeback: what do I invoice? Months of each tenant, and the lines of one.

use std::collections::BTreeMap;

use jiff::civil::Date;
use maud::html;
use meter::LedgerError;
use meter::finance::{Filter, Line, Statement, Status, Sums};
use meter::ledger::Dimension;

use crate::ask::{self, Ask, word};
use crate::desk::Sources;
use crate::figures::{Measure, int, total};
use crate::frame::{Page, Select};
use crate::period::{Span, months};
use crate::table::{Cell, Table, count, money, named};

pub(crate) fn page(ask: &Ask, sources: Sources<'_>) -> Result<Page, LedgerError> {
    let lines = sources.finance.sums(
        &ask.filter,
        &[Dimension::Day, Dimension::Tenant],
        ask.grain(),
    )?;
    let closed = sources.finance.statements(&ask.filter)?;
    let all = calendar(ask);
    let bills = bills(&all, &lines);
    let matrix = matrix(ask, &all, &bills, &closed);
    let month = ask
        .param("month")
        .and_then(|text| all.iter().find(|one| one.name == text))
        .or(all.last());
    let (Some(month), tenants) = (month, names(&bills)) else {
        return Ok(Page::default());
    };
    let named_one = ask
        .filter
        .tenant
        .clone()
        .or_else(|| ask.param("bill").map(str::to_owned));
    let tenant = named_one
        .or_else(|| tenants.first().map(|&name| name.to_owned()))
        .unwrap_or_default();
    let filter = ask
        .during(month.span)
        .with(Dimension::Tenant, Some(tenant.clone()));
    let by = [
        Dimension::Team,
        Dimension::Project,
        Dimension::Model,
        Dimension::Lane,
    ];
    let lines = sources.finance.sums(&filter, &by, ask.grain())?;
    let sums = total(lines.iter().map(|line| &line.sums));
    let statement = statement(&tenant, &lines, &filter);
    let status = closed
        .iter()
        .find(|one| one.tenant == tenant && one.month == month.name);
    let body = html! {
        section { h2 { "Months" } (matrix.html(ask)) }
        section #statement { h2 { (named(&tenant)) ", " (month.first.strftime("%B %Y")) }
            (state(status, ask, &sums, &filter))
            (statement.html(ask)) }
    };
    let selects = selects(&all, month, &tenants, &tenant);
    Ok(Page {
        title: "Chargeback".to_owned(),
        lead: "What do I invoice?".to_owned(),
        body,
        tables: vec![matrix, statement],
        selects,
        ..Page::default()
    })
}

fn selects(all: &[Month], month: &Month, tenants: &[&str], tenant: &str) -> Vec<Select> {
    let title = |one: &Month| one.first.strftime("%B %Y").to_string();
    let months = all.iter().rev().map(|one| (one.name.clone(), title(one)));
    let names = tenants
        .iter()
        .map(|&name| (name.to_owned(), named(name).to_owned()));
    vec![
        Select {
            name: "month",
            label: "Statement of",
            options: months.collect(),
            chosen: month.name.clone(),
        },
        Select {
            name: "bill",
            label: "For",
            options: names.collect(),
            chosen: tenant.to_owned(),
        },
    ]
}

/// A calendar month, as far as the period covers it.
struct Month {
    /// `2026-11`.
    name: String,
    first: Date,
    span: Span,
}

fn calendar(ask: &Ask) -> Vec<Month> {
    let mut found = Vec::new();
    let mut first = ask.period.first.first_of_month();
    while first < ask.period.end && found.len() < 40 {
        let next = months(first, 1);
        found.push(Month {
            name: first.strftime("%Y-%m").to_string(),
            first,
            span: ask
                .period
                .between(first.max(ask.period.first), next.min(ask.period.end)),
        });
        first = next;
    }
    found
}

/// Sums by tenant and place of the month.
type Bills = BTreeMap<String, BTreeMap<usize, Sums>>;

fn bills(all: &[Month], lines: &[Line]) -> Bills {
    let mut bills = Bills::new();
    for line in lines {
        let place = all.partition_point(|month| month.span.from_ms <= line.at_ms);
        let (Some(place), Some(tenant)) = (place.checked_sub(1), line.group.first()) else {
            continue;
        };
        let months = bills.entry(tenant.clone()).or_default();
        months.entry(place).or_default().add(&line.sums);
    }
    bills
}

/// Tenants, those that pay most first.
fn names(bills: &Bills) -> Vec<&str> {
    let mut names: Vec<&String> = bills.keys().collect();
    let paid = |name: &String| {
        bills
            .get(name)
            .map_or(0, |months| total(months.values()).sell.0)
    };
    names.sort_by_key(|name| (std::cmp::Reverse(paid(name)), (*name).clone()));
    names.into_iter().map(String::as_str).collect()
}

fn matrix(ask: &Ask, all: &[Month], bills: &Bills, closed: &[Statement]) -> Table {
    let measure = Measure::of(ask.view);
    let mut table = Table::new(
        "months",
        format!(
            "{} by month and tenant, {}",
            measure.title,
            ask.period.title()
        ),
        &["Tenant"],
    );
    for month in all {
        let own: Vec<&Statement> = closed
            .iter()
            .filter(|one| one.month == month.name)
            .collect();
        let done = !own.is_empty() && own.iter().all(|one| one.status == Status::Closed);
        let state = if done { "closed" } else { "draft" };
        table
            .columns
            .push(format!("{} ({state})", month.first.strftime("%b %Y")));
    }
    table.columns.push("Total".to_owned());
    let mut whole: BTreeMap<usize, Sums> = BTreeMap::new();
    for name in names(bills) {
        let Some(own) = bills.get(name) else { continue };
        for (place, sums) in own {
            whole.entry(*place).or_default().add(sums);
        }
        let filter = ask
            .filter
            .clone()
            .with(Dimension::Tenant, Some(name.to_owned()));
        let shown = if name.is_empty() { ask::NONE } else { name };
        let first = Cell::Link(
            named(name).to_owned(),
            ask.link("/chargeback", &[("bill", shown)]),
        );
        table.rows.push(line(measure, first, all, own, &filter));
    }
    table.total = Some(line(measure, Cell::text("Total"), all, &whole, &ask.filter));
    table
}

fn line(
    measure: Measure,
    first: Cell,
    all: &[Month],
    own: &BTreeMap<usize, Sums>,
    filter: &Filter,
) -> Vec<Cell> {
    let mut row = vec![first];
    for (place, month) in all.iter().enumerate() {
        let sums = own.get(&place).copied().unwrap_or_default();
        let filter = filter.clone().over(month.span.from_ms, month.span.until_ms);
        row.push(measure.cell(&sums, &filter));
    }
    row.push(measure.cell(&total(own.values()), filter));
    row
}

/// How far the bill is, and what it comes to.
fn state(status: Option<&Statement>, ask: &Ask, all: &Sums, filter: &Filter) -> maud::Markup {
    let more = |name: &'static str, nano: i64| html! { @if nano != 0 { dt { (name) } dd { (money(nano, 2, None)) } } };
    html! {
        dl.facts {
            dt { "Status" }
            dd { @match status {
                Some(one) if one.status == Status::Closed => { span class="mark good" { "closed" } " version " (one.version) },
                _ => span class="mark fair" { @if filter.until_ms <= ask.now_ms { "draft" } @else { "draft, month not over" } },
            } }
            dt { "Usage" } dd { (money(all.sell.0, 2, Some(&ask::key("sell", filter)))) }
            @if let Some(one) = status {
                (more("Credits", one.credits.0)) (more("Adjustments", one.adjustments.0)) (more("Rounding", one.rounding.0))
            }
            dt { "At cost" } dd { (money(all.cost.0, 2, Some(&ask::key("cost", filter)))) }
            dt { "Requests" } dd { (count(all.calls, Some(&ask::key("calls", filter)))) }
        }
    }
}

/// The lines of one bill.
fn statement(tenant: &str, lines: &[Line], filter: &Filter) -> Table {
    let names = [
        "Team",
        "Project",
        "Model",
        "Lane",
        "Requests",
        "Prompt tokens",
        "Answer tokens",
        "List",
        "Cost",
        "Sell",
    ];
    let mut table = Table::new(
        "lines",
        format!("Lines of {}, by {}", named(tenant), word(Dimension::Team)),
        &names,
    );
    let by = [
        Dimension::Team,
        Dimension::Project,
        Dimension::Model,
        Dimension::Lane,
    ];
    let figures = |sums: &Sums, filter: &Filter| {
        let of = |word: &str| Some(ask::key(word, filter));
        vec![
            Cell::Count(sums.calls, of("calls")),
            Cell::Count(int(sums.usage.prompt()), of("prompt")),
            Cell::Count(int(sums.usage.answer()), of("answer")),
            Cell::Money(sums.list.0, of("list")),
            Cell::Money(sums.cost.0, of("cost")),
            Cell::Money(sums.sell.0, of("sell")),
        ]
    };
    let mut order: Vec<&Line> = lines.iter().collect();
    order.sort_by(|a, b| a.group.cmp(&b.group));
    for line in order {
        let mut own = filter.clone();
        for (dimension, value) in by.iter().zip(&line.group) {
            own = own.with(*dimension, Some(value.clone()));
        }
        let mut row: Vec<Cell> = line.group.iter().map(|value| Cell::name(value)).collect();
        row.extend(figures(&line.sums, &own));
        table.rows.push(row);
    }
    let all = total(lines.iter().map(|line| &line.sums));
    let mut row = vec![Cell::text("Total"), Cell::Blank, Cell::Blank, Cell::Blank];
    row.extend(figures(&all, filter));
    table.total = Some(row);
    table
}
