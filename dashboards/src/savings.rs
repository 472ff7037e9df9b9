//! Savings: does routing pay?

use std::collections::BTreeMap;

use maud::html;
use meter::LedgerError;
use meter::finance::{Filter, Sums};
use meter::ledger::Dimension;

use crate::ask::{self, Ask};
use crate::chart::{self, Fall};
use crate::desk::Sources;
use crate::figures::{Measure, hits, total};
use crate::frame::{Page, tile, title};
use crate::number;
use crate::table::{Cell, Table, count, money};

pub(crate) fn page(ask: &Ask, sources: Sources<'_>) -> Result<Page, LedgerError> {
    let lines = sources.finance.sums(
        &ask.filter,
        &[Dimension::Tier, Dimension::Model],
        ask.grain(),
    )?;
    let tenants = sources
        .finance
        .sums(&ask.filter, &[Dimension::Tenant], ask.grain())?;
    let (mut tiers, mut models) = (BTreeMap::new(), BTreeMap::new());
    for line in &lines {
        if let [tier, model] = line.group.as_slice() {
            tiers
                .entry(tier.as_str())
                .or_insert_with(Sums::default)
                .add(&line.sums);
            models
                .entry(model.as_str())
                .or_insert_with(Sums::default)
                .add(&line.sums);
        }
    }
    let groups: BTreeMap<&str, Sums> = tenants
        .iter()
        .map(|line| (line.group.first().map_or("", String::as_str), line.sums))
        .collect();
    let all = total(tiers.values());
    let by_tier = by(ask, Dimension::Tier, "tiers", &tiers, &all);
    let by_model = by(ask, Dimension::Model, "models", &models, &all);
    let by_tenant = by(ask, Dimension::Tenant, "tenants", &groups, &all);
    let body = html! {
        (tiles(ask, &all, &tiers))
        section { h2 { "From all deep to what was paid" }
            (chart::waterfall("Cost had every call gone deep without a cache, and what brought it down", &falls(ask, &all)))
            p.note { "The baseline prices the same tokens at the deep tier. A deep model may answer at another length than the fast one did; "
                "that difference is not known for calls that were not made, so the saving is that of price alone." } }
        section { h2 { "By tier" } (by_tier.html(ask)) }
        section { h2 { "By model" } (by_model.html(ask)) }
        section { h2 { "By tenant" } (by_tenant.html(ask)) }
    };
    Ok(Page {
        title: "Savings".to_owned(),
        lead: "Does routing pay?".to_owned(),
        body,
        tables: vec![by_tier, by_model, by_tenant],
        ..Page::default()
    })
}

fn tiles(ask: &Ask, all: &Sums, tiers: &BTreeMap<&str, Sums>) -> maud::Markup {
    let of = |word: &str| ask::key(word, &ask.filter);
    let digits = |nano: i64| {
        if nano.abs() >= 10_000_000_000_000 {
            0
        } else {
            number::digits(nano)
        }
    };
    let (routed, cached) = (all.routed().0, all.cache_saved.0);
    let deep = tiers.get("deep").map_or(0, |sums| sums.calls);
    html! {
        dl.tiles {
            (tile("Saved by routing", &money(routed, digits(routed), Some(&of("saved"))), &html! {
                @if let Some(share) = number::permille(routed, all.baseline.0) { (number::percent(share)) " of the baseline" } }))
            (tile("Saved by providers\u{2019} caches", &money(cached, digits(cached), Some(&of("cache_saved"))), &html! {
                @if let Some(share) = hits(all) { (number::percent(share)) " of prompt tokens" } }))
            (tile("Calls on the deep tier", &html! { @match number::permille(deep, all.calls) { Some(share) => (number::percent(share)), None => "\u{2013}" } },
                &html! { (count(deep, Some(&ask::key("calls", &ask.filter.clone().with(Dimension::Tier, Some("deep".to_owned()))))))  " of " (count(all.calls, Some(&of("calls")))) }))
            (tile("Spent on retries", &money(all.retry_cost.0, digits(all.retry_cost.0), Some(&of("retry"))), &html! {
                (count(all.retries, Some(&of("retries")))) " attempts after the first" }))
            (tile("Not delivered whole", &money(all.wasted_cost.0, digits(all.wasted_cost.0), Some(&of("wasted"))), &html! { "answers cut short" }))
        }
    }
}

fn falls(ask: &Ask, all: &Sums) -> Vec<Fall> {
    let fall = |name: &str, nano: i64, whole: bool, sum: &str| Fall {
        name: name.to_owned(),
        nano,
        whole,
        sum: Some(ask::key(sum, &ask.filter)),
    };
    vec![
        fall(
            "All deep, no cache",
            (all.baseline + all.cache_saved).0,
            true,
            "undiscounted",
        ),
        fall("Routing", -all.routed().0, false, "minus_saved"),
        fall(
            "Provider cache",
            -all.cache_saved.0,
            false,
            "minus_cache_saved",
        ),
        fall("Paid", all.cost.0, true, "cost"),
    ]
}

fn by(
    ask: &Ask,
    by: Dimension,
    id: &'static str,
    groups: &BTreeMap<&str, Sums>,
    all: &Sums,
) -> Table {
    let names = [
        title(by),
        "Requests",
        "Share",
        "All deep",
        "Cost",
        "Saved",
        "Saved %",
        "Cache saved",
        "Retries",
        "Failed",
    ];
    let mut table = Table::new(
        id,
        format!("Savings by {}", title(by).to_lowercase()),
        &names,
    );
    let row = |first: Cell, sums: &Sums, filter: &Filter| {
        let of = |word: &str| Some(ask::key(word, filter));
        vec![
            first,
            Cell::Count(sums.calls, of("calls")),
            Cell::Share(number::permille(sums.calls, all.calls)),
            Cell::Money(sums.baseline.0, of("baseline")),
            Cell::Money(sums.cost.0, of("cost")),
            Measure::named("saved").map_or(Cell::Blank, |one| one.cell(sums, filter)),
            Cell::Share(number::permille(sums.routed().0, sums.baseline.0)),
            Cell::Money(sums.cache_saved.0, of("cache_saved")),
            Cell::Share(number::permille(sums.retries, sums.calls)),
            Cell::Share(number::permille(sums.failed, sums.calls)),
        ]
    };
    let mut order: Vec<(&&str, &Sums)> = groups.iter().collect();
    order.sort_by_key(|(name, sums)| (std::cmp::Reverse(sums.routed()), **name));
    for (name, sums) in order {
        let filter = ask.filter.clone().with(by, Some((*name).to_owned()));
        table.rows.push(row(Cell::name(name), sums, &filter));
    }
    table.total = Some(row(Cell::text("Total"), all, &ask.filter));
    table
}
