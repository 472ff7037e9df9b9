//! Chargeback: what do I invoice? Months of each tenant, and the lines of one.

use std::collections::BTreeMap;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use maud::{Markup, html};
use meter::finance::{Filter, Line, Statement, Sums};
use meter::ledger::Dimension;
use meter::{LedgerError, NanoUsd};

use crate::ask::{self, Ask, word};
use crate::desk::Sources;
use crate::figures::{Measure, int, total};
use crate::frame::{Page, Select};
use crate::period::{self, Span, months};
use crate::table::{Cell, Table, count, money, named};

pub(crate) fn page(ask: &Ask, sources: Sources<'_>) -> Result<Page, LedgerError> {
    let lines = sources.finance.sums(
        &ask.filter,
        &[Dimension::Day, Dimension::Tenant],
        ask.grain(),
    )?;
    let mut all = calendar(ask);
    // Months before the first use would be columns of nothing.
    let used = bills(&all, &lines)
        .values()
        .filter_map(|months| months.keys().min().copied())
        .min();
    all.drain(..used.unwrap_or(0).min(all.len().saturating_sub(1)));
    let closed = closed(ask, sources, &all)?;
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
    let done = register(ask, &closed);
    let body = html! {
        section { h2 { "Months" } (matrix.html(ask)) }
        section { h2 { "Closed statements" } (done.html(ask)) }
        section #statement { h2 { (named(&tenant)) ", " (month.first.strftime("%B %Y")) }
            (state(status, ask, &sums, &filter))
            (statement.html(ask)) }
        p.note { "Statements are of calendar months in UTC; what became known after the close stands in the month\u{2019}s figures here, and comes as a note on the next statement. "
            "Due is what was used, less what waits for a provider\u{2019}s bill, with notes, less credits. " code { "pareto statements" } " drafts, closes and verifies them." }
    };
    let selects = selects(&all, month, &tenants, &tenant);
    Ok(Page {
        title: "Chargeback".to_owned(),
        lead: "What do I invoice?".to_owned(),
        body,
        tables: vec![matrix, statement, done],
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
        let place = |bill: &BTreeMap<usize, Sums>| {
            bill.keys()
                .any(|n| all.get(*n).is_some_and(|other| other.name == month.name))
        };
        let bills = bills.values().filter(|bill| place(bill)).count();
        let state = match own.len() {
            0 => "draft".to_owned(),
            closed if closed >= bills => "closed".to_owned(),
            closed => format!("{closed} of {bills} closed"),
        };
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

/// Statements of the months that the page shows, whole months whatever the zone is.
fn closed(ask: &Ask, sources: Sources<'_>, all: &[Month]) -> Result<Vec<Statement>, LedgerError> {
    let first = all.first().map_or(ask.period.first, |month| month.first);
    let end = all
        .last()
        .map_or(ask.period.end, |month| months(month.first, 1));
    let utc = |date| period::midnight(date, &TimeZone::UTC);
    let filter = ask.filter.clone().over(utc(first), utc(end));
    sources.finance.statements(&filter)
}

/// The name of one figure of a closed statement.
fn figure(measure: &str, one: &Statement) -> String {
    format!(
        "{measure}?tenant={}&month={}",
        ask::encode(&one.tenant),
        one.month
    )
}

/// Statements that were closed, newest month first.
fn register(ask: &Ask, closed: &[Statement]) -> Table {
    let names = [
        "Month",
        "Tenant",
        "Number",
        "Closed",
        "Used",
        "Waiting",
        "Notes and plan",
        "Credits",
        "Rounding",
        "Due",
    ];
    let mut table = Table::new(
        "closed",
        format!("Closed statements, {}", ask.period.title()),
        &names,
    );
    table.empty = "No month was closed yet.";
    let mut order: Vec<&Statement> = closed.iter().collect();
    order.sort_by_key(|one| (std::cmp::Reverse(&one.month), &one.tenant));
    for one in order {
        let of = |measure: &str| Some(figure(measure, one));
        table.rows.push(vec![
            Cell::text(&one.month),
            Cell::Link(
                named(&one.tenant).to_owned(),
                ask.link(
                    "/chargeback",
                    &[("bill", &one.tenant), ("month", &one.month)],
                ),
            ),
            Cell::Count(i64::from(one.number), of("statement_number")),
            Cell::text(period::moment(one.closed_at_ms, &ask.period.zone)),
            Cell::Money(one.sell.0, of("statement_sell")),
            Cell::Money(one.suspense.0, None),
            Cell::Money(one.notes.0, None),
            Cell::Money(one.credits.0, of("statement_credits")),
            Cell::Money(one.rounding.0, None),
            Cell::Money(one.due.0, of("statement_due")),
        ]);
    }
    table
}

/// How far the bill is, and what it comes to.
fn state(status: Option<&Statement>, ask: &Ask, all: &Sums, filter: &Filter) -> Markup {
    let of = |word: &str| ask::key(word, filter);
    html! {
        dl.facts {
            dt { "Status" }
            dd { @match status {
                Some(one) => { span class="mark good" { "closed" } " number " (one.number) ", "
                    (period::moment(one.closed_at_ms, &ask.period.zone)) },
                None => span class="mark fair" { @if filter.until_ms <= ask.now_ms { "draft" } @else { "draft, month not over" } },
            } }
            @match status {
                Some(one) => (sealed(one, all, &of("sell"))),
                None => {
                    dt { "Used so far" } dd { (money(all.sell.0, 2, Some(&of("sell")))) }
                    @if all.estimated > 0 {
                        dt { "Estimates in it" } dd { (count(all.estimated, Some(&of("estimated")))) " requests, " (money(all.estimated_cost.0, 2, Some(&of("estimated_cost")))) " at cost: not due before a bill confirms them" }
                    }
                }
            }
            dt { "At cost" } dd { (money(all.cost.0, 2, Some(&of("cost")))) }
            dt { "Requests" } dd { (count(all.calls, Some(&of("calls")))) }
        }
    }
}

/// The figures of a closed statement, and what has changed in its month since.
fn sealed(one: &Statement, all: &Sums, sell: &str) -> Markup {
    let more = |name: &'static str, amount: NanoUsd| html! { @if amount != NanoUsd::ZERO { dt { (name) } dd { (money(amount.0, 2, None)) } } };
    html! {
        dt { "Used" } dd { (money(one.sell.0, 2, Some(&figure("statement_sell", one)))) }
        (more("Rounding in it", one.rounding))
        (more("Waiting for a bill", -one.suspense))
        (more("Notes and plan", one.notes))
        (more("Credits", -one.credits))
        dt { "Due" } dd { strong { (money(one.due.0, 2, Some(&figure("statement_due", one)))) } }
        dt { "Month as it stands now" } dd { (money(all.sell.0, 2, Some(sell))) }
        dt { "Digest" } dd { code title=(one.hash) { (one.hash.get(..16).unwrap_or_default()) "\u{2026}" } }
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
