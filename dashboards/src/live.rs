//! Live: what happens now? Looks at the latest entries only, never at all of them.

use maud::html;
use meter::finance::{Allowance, Filter};
use meter::{Entry, LedgerError, Unit};

use crate::ask::Ask;
use crate::desk::Sources;
use crate::frame::{Page, tile};
use crate::number;
use crate::period;
use crate::table::{Cell, Table, count, money};
use crate::{budgets, chart};

/// Entries that are looked at.
const LATEST: u32 = 500;
/// Rows that are shown.
const SHOWN: usize = 40;
/// Seconds of the small chart.
const SECONDS: usize = 60;
const HOUR_MS: i64 = 3_600_000;

pub(crate) fn page(ask: &Ask, sources: Sources<'_>) -> Result<Page, LedgerError> {
    let latest = sources.finance.recent(LATEST)?;
    let open = sources.finance.open()?;
    let day = Filter::default().over(ask.now_ms - 24 * HOUR_MS, ask.now_ms + HOUR_MS);
    let decided = sources.finance.decisions(&day, None, 20)?;
    let denials = budgets::log(
        "denials",
        "Calls that budgets held up or denied in the last day",
        &decided,
        ask,
    );
    let calls = table(ask, &latest);
    let minute = minute(&latest, ask.now_ms);
    let ended: i64 = minute.iter().sum();
    let commit = latest.first().map(|entry| ask.now_ms - entry.settled_at_ms);
    let held: i64 = sources
        .budgets
        .iter()
        .filter(|one| top(one))
        .map(|one| one.standing.held)
        .sum();
    let body = html! {
        div #now hx-get=(ask.link("/live", &[])) hx-select="#now" hx-target="#now" hx-swap="outerHTML" hx-trigger="every 5s" {
            dl.tiles {
                (tile("Calls ended a second", &html! { (tenths(ended)) }, &html! { (chart::spark(&minute)) " last minute" }))
                (tile("Calls under way", &html! { (count(i64::try_from(sources.in_flight).unwrap_or(0), None)) }, &html! { "in this process" }))
                (tile("Holds in the ledger", &html! { (count(open.holds, None)) }, &html! { "not settled yet" }))
                (tile("Held by budgets", &money(held, number::digits(held), None), &html! { "of tenants" }))
                (tile("Last entry", &html! { @match commit { Some(ms) => (ago(ms)), None => "\u{2013}" } }, &html! { "settled" }))
            }
            section { h2 { "Denials" } (denials.html(ask)) }
            section { h2 { "Latest calls" } (calls.html(ask)) }
        }
        p.note { "Renewed every five seconds where scripts run; " a href=(ask.link("/live", &[])) { "renew now" } "." }
    };
    Ok(Page {
        title: "Live".to_owned(),
        lead: "What happens now?".to_owned(),
        body,
        tables: vec![calls, denials],
        unfiltered: true,
        ..Page::default()
    })
}

/// Budgets of whole tenants: the others are parts of them.
fn top(one: &Allowance) -> bool {
    one.standing.parent.is_none() && one.standing.unit == Unit::Usd
}

/// Calls that ended in each of the last seconds, oldest first.
fn minute(latest: &[Entry], now_ms: i64) -> Vec<i64> {
    let mut seconds = vec![0; SECONDS];
    for entry in latest {
        let ago = usize::try_from((now_ms - entry.settled_at_ms) / 1_000).unwrap_or(usize::MAX);
        let place = SECONDS.checked_sub(ago.saturating_add(1));
        if let Some(second) = place.and_then(|place| seconds.get_mut(place)) {
            *second += 1;
        }
    }
    seconds
}

/// So many in a minute as so many a second.
fn tenths(minute: i64) -> String {
    let tenths = number::ratio(minute, 10, 60).unwrap_or(0);
    format!("{}.{}", tenths / 10, tenths % 10)
}

fn ago(ms: i64) -> String {
    match ms.max(0) / 1_000 {
        seconds @ ..120 => format!("{seconds}\u{a0}s ago"),
        seconds @ ..7_200 => format!("{}\u{a0}min ago", seconds / 60),
        seconds => format!("{}\u{a0}h ago", seconds / 3_600),
    }
}

fn table(ask: &Ask, latest: &[Entry]) -> Table {
    let names = [
        "Settled",
        "Request",
        "Tenant",
        "Model",
        "Route",
        "Outcome",
        "Usage from",
        "Prompt",
        "Answer",
        "Cost",
    ];
    let mut table = Table::new("latest", "The latest calls", &names);
    table.empty = "No call was settled yet.";
    for entry in latest.iter().take(SHOWN) {
        let held = &entry.held;
        let good = entry.outcome == meter::Outcome::Completed;
        table.rows.push(vec![
            Cell::text(period::moment(entry.settled_at_ms, &ask.period.zone)),
            Cell::Link(
                held.request.to_string(),
                format!("/api/calls/{}", held.request),
            ),
            Cell::name(&held.subject.tenant),
            Cell::name(&held.model),
            Cell::name(&held.reason),
            Cell::Mark(
                if good { "good" } else { "bad" },
                entry.outcome.as_str().to_owned(),
            ),
            Cell::text(entry.source.as_str()),
            Cell::Count(crate::figures::int(entry.usage.prompt()), None),
            Cell::Count(crate::figures::int(entry.usage.answer()), None),
            Cell::Money(
                entry.cost.0,
                Some(format!(
                    "entry?request={}&attempt={}",
                    held.request, held.attempt
                )),
            ),
        ]);
    }
    table
}
