//! Prices: what did we pay, when, and under which price?

use maud::html;
use meter::LedgerError;
use meter::finance::{Filter, Priced};

use crate::ask::{self, Ask};
use crate::desk::Sources;
use crate::figures::int;
use crate::frame::Page;
use crate::number;
use crate::period;
use crate::table::{Cell, Table};

const DAY_MS: i64 = 86_400_000;

pub(crate) fn page(ask: &Ask, sources: Sources<'_>) -> Result<Page, LedgerError> {
    // Use by price is kept by whole days in UTC, whatever the zone is.
    let days = |ms: i64| ms.div_euclid(DAY_MS) * DAY_MS;
    let (from, until) = (ask.filter.from_ms, ask.filter.until_ms);
    let filter = ask
        .filter
        .clone()
        .over(days(from), days(until + DAY_MS - 1));
    let priced = sources.finance.priced(&filter)?;
    let table = table(ask, &filter, &priced);
    let unpriced: i64 = priced.iter().map(|one| one.sums.unpriced).sum();
    let body = html! {
        @if unpriced > 0 {
            p.alert { strong { (number::count(unpriced)) } " requests had no price and stand in the ledger with their tokens and no cost. A [[price]] in the configuration gives later ones theirs." }
        }
        section { h2 { "Prices in use" } (table.html(ask)) }
        p.note { "A price is an offer of the price book, the start of the period in which it holds, and its lane; a period that has rated a call is never changed. "
            "\u{201c}Paid for a million\u{201d} is what tokens of all classes came to on average; below the list, discounts of one\u{2019}s own are in it." }
    };
    Ok(Page {
        title: "Prices".to_owned(),
        lead: "What did we pay, and when?".to_owned(),
        body,
        tables: vec![table],
        ..Page::default()
    })
}

fn table(ask: &Ask, filter: &Filter, priced: &[Priced]) -> Table {
    let names = [
        "Model",
        "Price",
        "Lane",
        "Above tokens",
        "First day",
        "Last day",
        "Requests",
        "Tokens",
        "Paid for a million",
        "Cost",
        "List",
    ];
    let mut table = Table::new(
        "prices",
        format!("Prices that rated calls, {}", ask.period.title()),
        &names,
    );
    let day = |ms: i64| {
        Cell::text(
            period::moment(ms, &jiff::tz::TimeZone::UTC)
                .split(" 0")
                .next()
                .unwrap_or_default()
                .to_owned(),
        )
    };
    for one in priced {
        let usage = &one.sums.usage;
        let tokens = int(usage.prompt().saturating_add(usage.answer()));
        let each = number::ratio(one.sums.cost.0, 1_000_000, tokens);
        let sum = |measure: &str| Some(name(measure, filter, one));
        table.rows.push(vec![
            Cell::name(&one.model),
            if one.price.is_empty() {
                Cell::Mark("bad", "none".to_owned())
            } else {
                Cell::text(&one.price)
            },
            Cell::name(&one.lane),
            if one.context_tier > 0 {
                Cell::Count(one.context_tier, None)
            } else {
                Cell::Blank
            },
            day(one.first_ms),
            day(one.last_ms),
            Cell::Count(one.sums.calls, sum("calls")),
            Cell::Count(tokens, sum("tokens")),
            each.map_or(Cell::Share(None), |nano| Cell::Money(nano, None)),
            Cell::Money(one.sums.cost.0, sum("cost")),
            Cell::Money(one.sums.list.0, sum("list")),
        ]);
    }
    table
}

/// The name of a sum under one price.
fn name(measure: &str, filter: &Filter, one: &Priced) -> String {
    let mut name = ask::key(measure, filter);
    for (word, value) in [
        ("model", &one.model),
        ("lane", &one.lane),
        ("price", &one.price),
    ] {
        // What is filtered by is in the name already, with the same value.
        if !name.contains(&format!("&{word}=")) {
            for part in ["&", word, "=", &ask::encode(value)] {
                name.push_str(part);
            }
        }
    }
    format!("{name}&context={}", one.context_tier)
}
