//! Prices: what did we pay, when, and under which price?

use maud::{Markup, html};
use meter::LedgerError;
use meter::finance::{Filter, Priced};
use meter::price::diff::{Finding, FindingKind};
use meter::price::{Listing, ModelView, PeriodView};

use crate::ask::{self, Ask};
use crate::desk::Sources;
use crate::figures::int;
use crate::frame::{Page, tile};
use crate::number;
use crate::table::{Cell, Table, count};

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
    let list = sources.prices;
    let history = history(ask, list);
    let (findings, others) = findings(list);
    let body = html! {
        (alerts(list, unpriced))
        (tiles(list))
        section { h2 { "What to know" } (findings.html(ask))
            @if others > 0 { p.note { (number::count(others)) " more of offers that no configured model uses; " code { "pareto prices check" } " lists them." } } }
        section { h2 { "Price history of the configured models" } (history.html(ask))
            p.note { "USD for a million tokens, after discounts of one\u{2019}s own. A period that has rated a call is never changed; times are UTC." } }
        section { h2 { "Prices in use" } (table.html(ask)) }
        p.note { "A price is an offer of the price book, the start of the period in which it holds, and its lane. "
            "\u{201c}Paid for a million\u{201d} is what tokens of all classes came to on average; below the list, discounts of one\u{2019}s own are in it." }
    };
    Ok(Page {
        title: "Prices".to_owned(),
        lead: "What did we pay, and when?".to_owned(),
        body,
        tables: vec![table, history, findings],
        ..Page::default()
    })
}

/// What must not be overlooked.
fn alerts(list: &Listing, unpriced: i64) -> Markup {
    let bare = list
        .findings
        .iter()
        .filter(|one| one.kind == FindingKind::Unpriced);
    html! {
        @for one in bare {
            p.alert { strong { "Model " (one.id) " has no price" } ": " (one.what) ". Its calls stand in the ledger without a cost." }
        }
        @if unpriced > 0 {
            p.alert { strong { (number::count(unpriced)) } " requests had no price and stand in the ledger with their tokens and no cost. A [[price]] in the configuration gives later ones theirs." }
        }
    }
}

fn tiles(list: &Listing) -> Markup {
    let kinds = |wanted: FindingKind| {
        let own = list.findings.iter();
        let own = own.filter(|one| one.kind == wanted && concerns(list, one));
        i64::try_from(own.count()).unwrap_or(0)
    };
    let whole = |n: usize| count(i64::try_from(n).unwrap_or(0), None);
    html! {
        dl.tiles {
            (tile("Price book", &html! { @match list.version.get(..12) { Some(version) => (version), None => "\u{2013}" } },
                &html! { "its version; " (whole(list.offers)) " offers" }))
            (tile("Sources read", &html! { @match list.age_days { Some(0) => "today", Some(1) => "1 day ago", Some(days) => { (number::count(days)) " days ago" }, None => "\u{2013}" } },
                &html! { @match list.as_of_ms { Some(ms) => (date(ms)), None => "the book does not say when" } }))
            (tile("Models without a price", &count(kinds(FindingKind::Unpriced), None), &html! { "of " (whole(list.models.len())) " configured" }))
            (tile("Sources differ", &count(kinds(FindingKind::Conflict), None), &html! { "offers in use" }))
            (tile("Changes to come", &count(kinds(FindingKind::Upcoming), None), &html! {
                "prices; " (count(kinds(FindingKind::Retires), None)) " retire, " (count(kinds(FindingKind::Ends), None)) " end" }))
        }
    }
}

/// Whether a finding is of a configured model, or of the offer of one.
fn concerns(list: &Listing, one: &Finding) -> bool {
    list.models
        .iter()
        .any(|model| model.model == one.id || model.price.as_ref() == Some(&one.id))
}

/// What is wrong with prices in use, or will be; and how many findings are of others.
fn findings(list: &Listing) -> (Table, i64) {
    let mut table = Table::new(
        "findings",
        "What is wrong with prices in use, or will change",
        &["Kind", "Of", "What"],
    );
    table.empty = "Every configured model has a sure price, and none is about to change.";
    let mut others = 0;
    for one in &list.findings {
        if !concerns(list, one) {
            others += 1;
            continue;
        }
        let (mark, word) = match one.kind {
            FindingKind::Unpriced => ("bad", "no price"),
            FindingKind::Ends => ("bad", "price ends"),
            FindingKind::Retires => ("fair", "retires"),
            FindingKind::Conflict => ("bad", "sources differ"),
            FindingKind::Zero => ("fair", "zero"),
            FindingKind::Upcoming => ("good", "upcoming"),
        };
        table.rows.push(vec![
            Cell::Mark(mark, word.to_owned()),
            Cell::text(&one.id),
            Cell::text(&one.what),
        ]);
    }
    (table, others)
}

/// Every period of every configured model's offer.
fn history(ask: &Ask, list: &Listing) -> Table {
    let names = [
        "Model",
        "Offer",
        "Lane",
        "Above tokens",
        "From",
        "Until",
        "Input",
        "Cache read",
        "Cache write",
        "Output",
        "State",
        "Why",
    ];
    let mut table = Table::new(
        "history",
        "Periods of the configured models\u{2019} prices",
        &names,
    );
    table.empty = "No configured model has an offer of the price book.";
    for model in &list.models {
        let periods = model.offer.iter().flat_map(|offer| &offer.periods);
        for one in periods {
            table.rows.push(period(ask, model, one));
        }
    }
    table
}

fn period(ask: &Ask, model: &ModelView, one: &PeriodView) -> Vec<Cell> {
    let class = |name: &str| {
        let found = one.classes.iter().find(|class| class.class == name);
        found.map_or(Cell::Blank, |class| Cell::Price(cents(&class.price)))
    };
    let day = |at: Option<i64>, open: &str| {
        Cell::text(at.map_or_else(|| open.to_owned(), |ms| date(ms).to_string()))
    };
    let (mark, state) = if one.state != "sure" {
        ("bad", one.state)
    } else if one.is_upcoming(ask.now_ms) {
        ("fair", "upcoming")
    } else if one.holds_at(ask.now_ms) {
        ("good", "in force")
    } else {
        ("", "ended")
    };
    let why = one.why.as_deref().or(one.source.as_deref());
    let own = one.is_own.then_some("own price");
    let reasons: Vec<&str> = own.into_iter().chain(why).collect();
    vec![
        Cell::name(&model.model),
        Cell::text(model.price.as_deref().unwrap_or_default()),
        Cell::name(&one.lane),
        match one.above_input_tokens {
            0 => Cell::Blank,
            above => Cell::Count(int(above), None),
        },
        day(one.from_ms, "always"),
        day(one.until_ms, "open"),
        class("input"),
        class("cache_read"),
        class("cache_write_5m"),
        class("output"),
        Cell::Mark(mark, state.to_owned()),
        Cell::text(reasons.join("; ")),
    ]
}

/// A decimal with two places at least.
fn cents(text: &str) -> String {
    let places = text.split_once('.').map_or(0, |(_, rest)| rest.len());
    let point = if places == 0 { "." } else { "" };
    format!(
        "{text}{point}{}",
        "0".repeat(2_usize.saturating_sub(places))
    )
}

/// The day of a moment, in UTC.
fn date(at_ms: i64) -> jiff::civil::Date {
    let at = jiff::Timestamp::from_millisecond(at_ms).unwrap_or_default();
    at.to_zoned(jiff::tz::TimeZone::UTC).date()
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
    let day = |ms: i64| Cell::text(date(ms).to_string());
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
