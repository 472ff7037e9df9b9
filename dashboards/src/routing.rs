//! Routing: where calls went and why, and how much better that was than a lot.

use std::collections::BTreeMap;

use maud::{Markup, html};
use meter::finance::{Routed, RoutedSum, Sums};
use meter::ledger::Dimension;
use meter::routing::Interval;
use meter::{LedgerError, Worth};

use crate::ask::{self, Ask};
use crate::chart;
use crate::desk::Sources;
use crate::figures::total;
use crate::frame::{Page, tile};
use crate::number;
use crate::table::{Cell, Table, count, money};

pub(crate) fn page(ask: &Ask, sources: Sources<'_>) -> Result<Page, LedgerError> {
    let worth = sources.worth.worth(&ask.filter)?;
    let tiers = sources
        .finance
        .sums(&ask.filter, &[Dimension::Tier], ask.grain())?;
    let all = total(tiers.iter().map(|line| &line.sums));
    let deep = tiers.iter().find(|line| line.group == ["deep"]);
    let deep = deep.map_or(0, |line| line.sums.calls);
    let routes = &worth.routes;
    let by_class = table("classes", "Tenant and class", routes, |it| {
        format!("{} / {}", it.tenant, shown(&it.class))
    });
    let by_step = table("steps", "Step", routes, |it| shown(&it.step).to_owned());
    let by_reason = table("reasons", "Reason", routes, |it| it.reason.clone());
    let estimates = estimates(&worth);
    let learning = learning(&worth);
    let body = html! {
        (tiles(ask, &all, deep, &worth))
        section { h2 { "Quality, had it been routed otherwise" }
            @if worth.routed.calls == 0 {
                p.empty { "No verdict on a scored call in this period. Callers send them to POST /v1/feedback." }
            } @else {
                (chart::intervals("Mean quality with its 95 % interval", &told(&worth)))
                (estimates.html(ask))
            }
            p.note { "Doubly robust: what people say of answers, divided by the odds with which each went where it went, with a model of the rest. "
                "The odds come from a control group of scored calls, whose tier is drawn by lot." } }
        @if !worth.learning.is_empty() { section { h2 { "What verdicts have taught" } (learning.html(ask)) } }
        section { h2 { "By tenant and class" } (by_class.html(ask)) }
        section { h2 { "By step" } (by_step.html(ask)) }
        section { h2 { "By reason" } (by_reason.html(ask)) }
        p.note { "These tables are kept by days in UTC, and filtered by tenant alone." }
    };
    Ok(Page {
        title: "Routing".to_owned(),
        lead: "Does the right model answer?".to_owned(),
        body,
        tables: vec![by_class, by_step, by_reason, estimates, learning],
        ..Page::default()
    })
}

/// The policies of whose quality enough is known.
fn told(worth: &Worth) -> Vec<(&'static str, Interval)> {
    let all = [
        ("All fast", worth.fast),
        ("By lot", worth.lot),
        ("As routed", worth.routed),
        ("All deep", worth.deep),
    ];
    all.into_iter().filter(|(_, it)| it.is_telling).collect()
}

/// A name, or what calls from before decisions were kept are called.
fn shown(name: &str) -> &str {
    if name.is_empty() { "not kept" } else { name }
}

fn tiles(ask: &Ask, all: &Sums, deep: i64, worth: &Worth) -> Markup {
    let of = |word: &str| ask::key(word, &ask.filter);
    let saved = all.routed().0;
    let each = &worth.saved_per_call;
    let sum = |nano: i64| nano.saturating_mul(worth.scored);
    let usd = |nano: i64| html! { (number::usd(nano, number::digits(nano))) };
    html! {
        dl.tiles {
            (tile("Saved by routing", &money(saved, number::digits(saved), Some(&of("saved"))), &html! {
                "the same tokens at the deep tier\u{2019}s prices" }))
            (tile("Saved, as the control group tells", &html! {
                @if !each.is_telling { "\u{2013}" } @else { (usd(sum(each.value))) } }, &html! {
                @if !each.is_telling { "the control group is too small" }
                @else { (usd(sum(each.low))) " to " (usd(sum(each.high))) } }))
            (tile("Attempts on the deep tier", &html! { @match number::permille(deep, all.calls) {
                Some(share) => (number::percent(share)), None => "\u{2013}" } },
                &html! { (count(all.calls, Some(&of("calls")))) " attempts" }))
            (tile("Drawn by lot", &html! { (number::count(i64::from(worth.drawn))) }, &html! {
                "of " (number::count(worth.scored)) " scored calls" }))
            (tile("Verdicts", &html! { (number::count(i64::from(worth.verdicts))) }, &html! { "on answers of this period" }))
        }
    }
}

fn table(
    id: &'static str,
    title: &str,
    routes: &[Routed],
    key: impl Fn(&Routed) -> String,
) -> Table {
    let (mut groups, mut all): (BTreeMap<String, RoutedSum>, RoutedSum) =
        (BTreeMap::new(), RoutedSum::default());
    for row in routes {
        groups.entry(key(row)).or_default().add(row);
        all.add(row);
    }
    let names = [
        title,
        "Calls",
        "Deep",
        "Cost",
        "All deep",
        "Saved",
        "Lost by caches",
    ];
    let mut table = Table::new(id, format!("Decisions by {}", title.to_lowercase()), &names);
    let row = |first: Cell, sum: &RoutedSum| {
        vec![
            first,
            Cell::Count(sum.calls, None),
            Cell::Share(number::permille(sum.deep, sum.calls)),
            Cell::Money(sum.cost.0, None),
            Cell::Money(sum.baseline.0, None),
            Cell::Money(sum.saved().0, None),
            Cell::Money(sum.lost.0, None),
        ]
    };
    for (name, sum) in &groups {
        table.rows.push(row(Cell::text(name), sum));
    }
    table.total = Some(row(Cell::text("Total"), &all));
    table
}

fn estimates(worth: &Worth) -> Table {
    let mut table = Table::new(
        "quality",
        "Mean quality under each policy",
        &["Policy", "Quality", "From", "To", "Calls"],
    );
    for (name, it) in [
        ("As routed", worth.routed),
        ("All fast", worth.fast),
        ("All deep", worth.deep),
        ("By lot, the same share deep", worth.lot),
        ("Routed above the lot", worth.over_lot),
        ("All deep above routed", worth.under_deep),
    ] {
        table.rows.push(row(name, &it));
    }
    table
}

fn row(name: &str, it: &Interval) -> Vec<Cell> {
    let share = |ppm: i64| {
        let told = it.is_telling.then(|| number::permille(ppm, 1_000_000));
        Cell::Share(told.flatten())
    };
    vec![
        Cell::text(name),
        share(it.value),
        share(it.low),
        share(it.high),
        Cell::Count(i64::from(it.calls), None),
    ]
}

fn learning(worth: &Worth) -> Table {
    let names = [
        "Tenant",
        "Scores with",
        "Verdicts",
        "Turns",
        "Gain of its own head",
        "Deviation",
    ];
    let mut table = Table::new("learning", "Last layers by tenant", &names);
    let share = |ppm: i64| Cell::Share(number::permille(ppm, 1_000_000));
    for it in &worth.learning {
        let head = if it.serves {
            "its own head"
        } else {
            "everybody\u{2019}s head"
        };
        table.rows.push(vec![
            Cell::name(&it.tenant),
            Cell::text(head),
            Cell::Count(i64::try_from(it.judged).unwrap_or(i64::MAX), None),
            Cell::Count(i64::from(it.turns), None),
            share(it.gain_ppm),
            share(it.deviation_ppm),
        ]);
    }
    table
}
