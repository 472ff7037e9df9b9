//! Data quality: can the numbers be trusted?

use maud::html;
use meter::LedgerError;
use meter::finance::{Filter, Line, Reconciled, Sums};
use meter::ledger::Dimension;

use crate::ask::{self, Ask};
use crate::chart::{Chart, Series, Unit};
use crate::desk::Sources;
use crate::figures::{Days, timeless, total};
use crate::frame::{Page, tile};
use crate::number;
use crate::period;
use crate::table::{Cell, Table, count, money};

pub(crate) fn page(ask: &Ask, sources: Sources<'_>) -> Result<Page, LedgerError> {
    let by = [Dimension::Day, Dimension::Model];
    let lines = sources.finance.sums(&ask.filter, &by, ask.grain())?;
    let days = Days::new(ask.period.days(ask.period.first, ask.period.end), &lines);
    let daily = days.totals();
    let all = total(&daily);
    let open = sources.finance.open()?;
    let models = models(ask, &lines);
    let table = by_day(ask, &days, &daily);
    let bills = bills(ask, &sources.finance.reconciled(&ask.filter)?);
    let of = |word: &str| ask::key(word, &ask.filter);
    let share = |part: i64| html! { @match number::permille(part, all.calls) { Some(share) => (number::percent(share)), None => "\u{2013}" } };
    let body = html! {
        dl.tiles {
            (tile("Usage told by the provider", &share(all.calls - all.counted - all.estimated), &html! { "of " (count(all.calls, Some(&of("calls")))) " requests" }))
            (tile("Counted by us", &share(all.counted), &html! { (count(all.counted, Some(&of("counted")))) " requests" }))
            (tile("Estimated at the bound", &share(all.estimated), &html! {
                (count(all.estimated, Some(&of("estimated")))) " requests, " (money(all.estimated_cost.0, number::digits(all.estimated_cost.0), Some(&of("estimated_cost")))) }))
            (tile("Without a price", &share(all.unpriced), &html! { (count(all.unpriced, Some(&of("unpriced")))) " requests" }))
            (tile("Corrected", &money(all.corrected.0, number::digits(all.corrected.0), None), &html! { "by later entries" }))
            (tile("Holds open", &html! { (count(open.holds, None)) }, &html! {
                @if open.latest_ms > 0 { "ledger up to " (period::moment(open.latest_ms, &ask.period.zone)) } @else { "the ledger is empty" } }))
        }
        section { h2 { "Requests not told by the provider" } (chart(ask, &days, &daily).stacked()) }
        section { h2 { "By model" } (models.html(ask)) }
        section { h2 { "By day" } (table.html(ask)) }
        section { h2 { "Providers\u{2019} bills" } (bills.html(ask)) }
    };
    Ok(Page {
        title: "Data quality".to_owned(),
        lead: "Can I trust the numbers?".to_owned(),
        body,
        tables: vec![models, table, bills],
        ..Page::default()
    })
}

fn chart(ask: &Ask, days: &Days, daily: &[Sums]) -> Chart {
    let series = |name: &str, read: fn(&Sums) -> i64| Series {
        name: name.to_owned(),
        of: None,
        values: daily.iter().map(read).collect(),
    };
    Chart {
        id: "sources",
        caption: format!(
            "Requests per day whose usage the provider did not tell, {}",
            ask.period.title()
        ),
        unit: Unit::Count,
        measure: None,
        of: timeless(&ask.filter),
        places: days.places(&(0..days.days.len())),
        series: vec![
            series("Counted by us", |sums| sums.counted),
            series("Estimated at the bound", |sums| sums.estimated),
            series("Without a price", |sums| sums.unpriced),
        ],
    }
}

fn row(first: Cell, sums: &Sums, filter: &Filter) -> Vec<Cell> {
    let of = |word: &str| Some(ask::key(word, filter));
    vec![
        first,
        Cell::Count(sums.calls, of("calls")),
        Cell::Count(sums.failed, of("failed")),
        Cell::Count(sums.counted, of("counted")),
        Cell::Count(sums.estimated, of("estimated")),
        Cell::Money(sums.estimated_cost.0, of("estimated_cost")),
        Cell::Count(sums.unpriced, of("unpriced")),
        Cell::Share(number::permille(
            sums.calls - sums.estimated - sums.unpriced,
            sums.calls,
        )),
    ]
}

const NAMES: [&str; 8] = [
    "",
    "Requests",
    "Failed",
    "Counted",
    "Estimated",
    "Estimated cost",
    "Unpriced",
    "Sure",
];

fn models(ask: &Ask, lines: &[Line]) -> Table {
    let mut table = Table::new("models", "Where usage comes from, by model", &NAMES);
    table.columns.splice(..1, ["Model".to_owned()]);
    let mut groups = std::collections::BTreeMap::new();
    for line in lines {
        let name = line.group.first().map_or("", String::as_str);
        groups
            .entry(name)
            .or_insert_with(Sums::default)
            .add(&line.sums);
    }
    for (name, sums) in &groups {
        let filter = ask
            .filter
            .clone()
            .with(Dimension::Model, Some((*name).to_owned()));
        table.rows.push(row(Cell::name(name), sums, &filter));
    }
    table.total = Some(row(
        Cell::text("Total"),
        &total(groups.values()),
        &ask.filter,
    ));
    table
}

fn by_day(ask: &Ask, days: &Days, daily: &[Sums]) -> Table {
    let mut table = Table::new("days", "Where usage comes from, by day", &NAMES);
    table.columns.splice(..1, ["Day".to_owned()]);
    for (day, sums) in days
        .days
        .iter()
        .zip(daily)
        .rev()
        .filter(|(_, sums)| sums.calls > 0)
    {
        let date = Cell::text(day.date.to_string());
        table.rows.push(row(date, sums, &ask.during(day.span)));
    }
    table
}

/// What providers billed against what is booked.
fn bills(ask: &Ask, all: &[Reconciled]) -> Table {
    let mut table = Table::new(
        "bills",
        "Providers\u{2019} bills against the ledger",
        &["Day", "Provider", "Billed", "Booked", "Difference"],
    );
    table.empty = "No provider\u{2019}s bill was read in yet.";
    for one in all {
        table.rows.push(vec![
            Cell::text(period::moment(one.day_ms, &ask.period.zone)),
            Cell::name(&one.provider),
            Cell::Money(one.billed.0, None),
            Cell::Money(one.booked.0, None),
            Cell::Money((one.billed - one.booked).0, None),
        ]);
    }
    table
}
