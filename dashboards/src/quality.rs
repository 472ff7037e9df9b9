//! Data quality: can the numbers be trusted?

use maud::html;
use meter::LedgerError;
use meter::books::Capture;
use meter::finance::{Changed, Filter, Line, Reconciled, Sums};
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
    let changes = changes(ask, &sources.finance.changed(&ask.filter)?);
    let told = bills(ask, &reconciled(ask, sources)?);
    let captures = captures(ask, &sources.finance.captured()?);
    let of = |word: &str| ask::key(word, &ask.filter);
    let share = |part: i64| html! { @match number::permille(part, all.calls) { Some(share) => (number::percent(share)), None => "\u{2013}" } };
    let body = html! {
        dl.tiles {
            (tile("Usage told by the provider", &share(all.calls - all.counted - all.estimated), &html! { "of " (count(all.calls, Some(&of("calls")))) " requests" }))
            (tile("Counted by us", &share(all.counted), &html! { (count(all.counted, Some(&of("counted")))) " requests" }))
            (tile("Estimated at the bound", &share(all.estimated), &html! {
                (count(all.estimated, Some(&of("estimated")))) " requests, " (money(all.estimated_cost.0, number::digits(all.estimated_cost.0), Some(&of("estimated_cost")))) }))
            (tile("Without a price", &share(all.unpriced), &html! { (count(all.unpriced, Some(&of("unpriced")))) " requests" }))
            (tile("Corrected", &money(all.corrected.0, number::digits(all.corrected.0), Some(&of("corrected"))), &html! { "by later entries, inside the cost" }))
            (tile("In suspense", &money(all.suspense.0, number::digits(all.suspense.0), Some(&of("suspense"))), &html! { "may come on top, until a bill tells" }))
            (tile("Holds open", &html! { (count(open.holds, None)) }, &html! {
                @if open.latest_ms > 0 { "ledger up to " (period::moment(open.latest_ms, &ask.period.zone)) } @else { "the ledger is empty" } }))
        }
        section { h2 { "Requests not told by the provider" } (chart(ask, &days, &daily).stacked()) }
        section { h2 { "By model" } (models.html(ask)) }
        section { h2 { "By day" } (table.html(ask)) }
        div.pair {
            section { h2 { "Late, corrected, orphaned" } (changes.html(ask)) }
            section { h2 { "Captured of providers\u{2019} bills" } (captures.html(ask)) }
        }
        section { h2 { "Providers\u{2019} bills" } (told.html(ask))
            p.note { "Bills are by whole days in UTC, and for all tenants together; of the filters, provider and model are heard. A difference is the bill less the ledger." } }
    };
    Ok(Page {
        title: "Data quality".to_owned(),
        lead: "Can I trust the numbers?".to_owned(),
        body,
        tables: vec![models, table, told, changes, captures],
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

const DAY_MS: i64 = 86_400_000;

/// What bills and the ledger say of the days that the period touches.
fn reconciled(ask: &Ask, sources: Sources<'_>) -> Result<Vec<Reconciled>, LedgerError> {
    let day = |ms: i64| ms.div_euclid(DAY_MS) * DAY_MS;
    let (from, until) = (ask.filter.from_ms, ask.filter.until_ms);
    let filter = ask.filter.clone();
    let filter = filter.over(day(from), day(until + DAY_MS - 1));
    sources.finance.reconciled(&filter)
}

/// What providers billed against what is booked.
fn bills(ask: &Ask, all: &[Reconciled]) -> Table {
    let mut table = Table::new(
        "bills",
        format!(
            "Providers\u{2019} bills against the ledger, {}",
            ask.period.title()
        ),
        &[
            "Day",
            "Provider",
            "Model",
            "Billed",
            "Booked",
            "Difference",
            "Captured",
            "Cause",
        ],
    );
    table.empty = "No provider\u{2019}s bill of this time was read in.";
    let (mut billed, mut booked) = (0, 0);
    for one in all {
        let filter = Filter::default()
            .over(one.day_ms, one.day_ms + DAY_MS)
            .with(Dimension::Endpoint, Some(one.provider.clone()))
            .with(Dimension::Model, Some(one.model.clone()));
        let of = |word: &str| Some(ask::key(word, &filter));
        billed += one.billed.0;
        booked += one.booked.0;
        let date = period::moment(one.day_ms, &jiff::tz::TimeZone::UTC);
        table.rows.push(vec![
            Cell::text(date.trim_end_matches(" 00:00")),
            Cell::name(&one.provider),
            Cell::name(&one.model),
            Cell::Money(one.billed.0, of("billed")),
            Cell::Money(one.booked.0, of("cost")),
            Cell::Money((one.billed - one.booked).0, None),
            Cell::Share(number::permille(one.booked.0, one.billed.0)),
            match one.cause.as_str() {
                "" => Cell::Blank,
                "none" => Cell::Mark("good", "agrees".to_owned()),
                cause => Cell::Mark("fair", cause.to_owned()),
            },
        ]);
    }
    let mut total = vec![Cell::text("Total"), Cell::Blank, Cell::Blank];
    total.extend([billed, booked, billed - booked].map(|nano| Cell::Money(nano, None)));
    total.extend([Cell::Share(number::permille(booked, billed)), Cell::Blank]);
    table.total = Some(total);
    table
}

/// How much of the bills the ledger had, by provider.
fn captures(ask: &Ask, all: &[Capture]) -> Table {
    let mut table = Table::new(
        "captures",
        "What the ledger had of providers\u{2019} bills",
        &["Provider", "Captured", "Reconciled", "State"],
    );
    table.empty = "No provider\u{2019}s bill was held against the ledger yet.";
    for one in all {
        // A bill that is seen to a hundredth is what alerts ask for.
        let good = one.ratio_ppm >= 990_000;
        table.rows.push(vec![
            Cell::name(&one.endpoint),
            Cell::Share(number::ratio(one.ratio_ppm, 1, 1_000)),
            Cell::text(period::moment(one.reconciled_at_ms, &ask.period.zone)),
            Cell::Mark(
                if good { "good" } else { "bad" },
                if good { "fine" } else { "below 99 %" }.to_owned(),
            ),
        ]);
    }
    table
}

/// Rows beside settled entries, by kind.
fn changes(ask: &Ask, all: &[Changed]) -> Table {
    let mut table = Table::new(
        "changes",
        "Rows that came after calls were settled, and holds that nobody settled",
        &["Kind", "Rows", "Cost", "Sell"],
    );
    table.empty = "No call of this time was corrected, late or orphaned.";
    for one in all {
        let of = |word: &str| Some(format!("{}&kind={}", ask::key(word, &ask.filter), one.kind));
        table.rows.push(vec![
            Cell::text(match one.kind.as_str() {
                "rerate" => "priced anew",
                "late" => "late usage",
                "reconcile" => "by a provider\u{2019}s bill",
                "correct" => "corrected by a person",
                "orphaned" => "hold that nobody settled, at its bound",
                other => other,
            }),
            Cell::Count(one.rows, of("rows")),
            Cell::Money(one.cost.0, of("cost")),
            Cell::Money(one.sell.0, of("sell")),
        ]);
    }
    table
}
