//! Budgets: who will run out, and when?

use jiff::Timestamp;
use jiff::civil::Date;
use maud::{Markup, html};
use meter::finance::{Allowance, Decided, Sums};
use meter::ledger::Dimension;
use meter::{LedgerError, Standing, Unit};

use crate::ask::{Ask, encode};
use crate::chart::{self, Chart, Series};
use crate::desk::Sources;
use crate::figures::{Days, int};
use crate::forecast;
use crate::frame::{Page, tile};
use crate::number;
use crate::period::{self, shift};
use crate::table::{Cell, Table, money};

const DECISIONS: u32 = 50;
const WINDOWS: u32 = 12;

pub(crate) fn page(ask: &Ask, sources: Sources<'_>) -> Page {
    let kept = |one: &&Allowance| {
        ask.filter
            .tenant
            .as_ref()
            .is_none_or(|tenant| *tenant == one.standing.tenant)
    };
    let all: Vec<&Allowance> = sources.budgets.iter().filter(kept).collect();
    let mut table = Table::new(
        "budgets",
        "Each below the one it is part of",
        &[
            "Budget", "Window", "Kind", "Limit", "Settled", "Held", "Left", "Used", "Resets",
            "State",
        ],
    );
    table.empty = "No budget is configured. A [[budget]] in the configuration makes one.";
    let here = |id: &str| all.iter().any(|one| one.standing.id == id);
    let roots = all
        .iter()
        .filter(|one| one.standing.parent.as_deref().is_none_or(|id| !here(id)));
    for root in roots {
        branch(ask, &all, root, 0, &mut table);
    }
    Page {
        title: "Budgets".to_owned(),
        lead: "Who will run out, and when?".to_owned(),
        body: html! {
            section { h2 { "Budgets now" } (table.html(ask)) }
            p.note { "A hard budget is never overspent: a call first holds the most it can cost. "
                "Settled and held belong to each budget\u{2019}s own window; of the filters, only the tenant is heard." }
        },
        tables: vec![table],
        ..Page::default()
    }
}

fn branch(ask: &Ask, all: &[&Allowance], one: &Allowance, depth: usize, table: &mut Table) {
    let standing = &one.standing;
    let indent = "\u{2003}".repeat(depth);
    let mut row = vec![Cell::Link(
        format!("{indent}{}", standing.name),
        href(ask, standing),
    )];
    row.push(Cell::text(&standing.window));
    row.push(Cell::text(if standing.hard { "hard" } else { "soft" }));
    row.push(figure(
        standing.unit,
        standing.limit.saturating_add(standing.extra),
    ));
    row.push(figure(standing.unit, standing.settled));
    row.push(figure(standing.unit, standing.held));
    row.push(figure(standing.unit, standing.left()));
    row.push(Cell::Bar(used(standing)));
    row.push(standing.resets_at_ms.map_or(Cell::text("never"), |at| {
        Cell::text(period::moment(at, &ask.period.zone))
    }));
    row.push(Cell::Mark(mark(standing), standing.state.to_owned()));
    table.rows.push(row);
    // A tree that a mistake has tied into a ring ends all the same.
    if depth < 6 {
        let below = all
            .iter()
            .filter(|other| other.standing.parent.as_ref() == Some(&standing.id));
        for other in below {
            branch(ask, all, other, depth + 1, table);
        }
    }
}

fn href(ask: &Ask, standing: &Standing) -> String {
    ask.link(&format!("/budgets/{}", encode(&standing.id)), &[])
}

fn figure(unit: Unit, amount: i64) -> Cell {
    match unit {
        Unit::Usd => Cell::Money(amount, None),
        Unit::Requests | Unit::Tokens | Unit::Concurrency => Cell::Count(amount, None),
    }
}

fn mark(standing: &Standing) -> &'static str {
    match standing.state {
        "allow" => "good",
        "deny" => "bad",
        _ => "fair",
    }
}

/// What is used or held of a limit, in thousandths.
fn used(standing: &Standing) -> i64 {
    let limit = standing.limit.saturating_add(standing.extra);
    let taken = standing.settled.saturating_add(standing.held);
    number::permille(taken, limit).unwrap_or(if taken > 0 { 1_000 } else { 0 })
}

/// The budgets that are used up most.
pub(crate) fn nearest(ask: &Ask, budgets: &[Allowance], most: usize) -> Table {
    let mut all: Vec<&Standing> = budgets.iter().map(|one| &one.standing).collect();
    all.retain(|one| {
        ask.filter
            .tenant
            .as_ref()
            .is_none_or(|tenant| *tenant == one.tenant)
    });
    all.sort_by_key(|one| (std::cmp::Reverse(used(one)), one.name.clone()));
    let mut table = Table::new(
        "nearest",
        "Budgets by use of their limit",
        &["Budget", "Left", "Used"],
    );
    table.empty = "No budget is configured.";
    for one in all.into_iter().take(most) {
        table.rows.push(vec![
            Cell::Link(one.name.clone(), href(ask, one)),
            figure(one.unit, one.left()),
            Cell::Bar(used(one)),
        ]);
    }
    table
}

/// One budget; `None` where there is none of this name.
pub(crate) fn detail(
    ask: &Ask,
    sources: Sources<'_>,
    id: &str,
) -> Result<Option<Page>, LedgerError> {
    let Some(one) = sources
        .budgets
        .iter()
        .find(|one| encode(&one.standing.id) == id || one.standing.id == id)
    else {
        return Ok(None);
    };
    let standing = &one.standing;
    let burn = match (standing.unit, &one.scope) {
        (Unit::Usd, Some(_)) => burn(ask, sources, one)?,
        _ => {
            html! { p.empty { "Use by day is kept for money of tenants, teams, projects, keys and models." } }
        }
    };
    let until = standing.resets_at_ms.unwrap_or(ask.now_ms).max(ask.now_ms);
    let span = meter::finance::Filter::default()
        .over(standing.start_ms.min(ask.now_ms - 30 * 86_400_000), until);
    let decided = sources
        .finance
        .decisions(&span, Some(&standing.id), DECISIONS)?;
    let windows = windows(ask, sources, standing)?;
    let log = log("decisions", "What it decided, by hour", &decided, ask);
    let body = html! {
        (tiles(standing, ask))
        section { h2 { "Burn-down" } (burn) }
        div.pair {
            section { h2 { "Decisions" } (log.html(ask)) }
            section { h2 { "Windows" } (windows.html(ask)) }
        }
        p.note { a href=(ask.link("/budgets", &[])) { "All budgets" } }
    };
    Ok(Some(Page {
        title: standing.name.clone(),
        lead: format!(
            "{} budget, {}",
            if standing.hard { "Hard" } else { "Soft" },
            standing.window
        ),
        body,
        tables: vec![log, windows],
        unfiltered: true,
        ..Page::default()
    }))
}

fn tiles(standing: &Standing, ask: &Ask) -> Markup {
    let shown = |amount: i64| match standing.unit {
        Unit::Usd => money(amount, number::digits(amount), None),
        Unit::Requests | Unit::Tokens | Unit::Concurrency => crate::table::count(amount, None),
    };
    let marks: Vec<String> = standing
        .thresholds
        .iter()
        .map(|at| format!("{at}\u{a0}%"))
        .collect();
    html! {
        dl.tiles {
            (tile("Limit", &shown(standing.limit), &html! { @if standing.extra != 0 { "and " (shown(standing.extra)) " by grace and overrides" } }))
            (tile("Settled", &shown(standing.settled), &html! { (number::percent(used(standing))) " used or held" }))
            (tile("Held", &shown(standing.held), &html! { "by calls under way" }))
            (tile("Left", &shown(standing.left()), &html! { @if let Some(at) = standing.resets_at_ms { "resets " (period::moment(at, &ask.period.zone)) } @else { "never resets" } }))
            (tile("State", &html! { (standing.state) }, &html! { @if marks.is_empty() { "no thresholds" } @else { "thresholds at " (marks.join(", ")) } }))
        }
    }
}

/// What is left after each day of the window, beside an even plan.
fn burn(ask: &Ask, sources: Sources<'_>, one: &Allowance) -> Result<Markup, LedgerError> {
    let standing = &one.standing;
    let today = ask.period.today;
    let (first, end) = bounds(ask, standing);
    let begin = shift(today, -forecast::BACK_DAYS).min(first);
    let span = ask.period.between(begin, end);
    let filter = one.scope.clone().unwrap_or_default();
    let filter = filter.over(span.from_ms, span.until_ms);
    let by = [Dimension::Day];
    let lines = sources.finance.sums(&filter, &by, ask.grain())?;
    let days = Days::new(ask.period.days(begin, end), &lines);
    let costs = days.totals();
    let daily: Vec<i64> = costs.iter().map(|sums: &Sums| sums.cost.0).collect();
    let range = days.range(first, end);
    let now = days.range(first, shift(today, 1)).len();
    let limit = standing.limit.saturating_add(standing.extra);
    let window = daily.get(range.clone()).unwrap_or_default();
    let (left, plan) = course(window, now, limit);
    let rate: i64 = recent(&daily, days.range(today, today).start);
    let ends = (rate > 0).then(|| standing.left() / rate);
    let chart = Chart {
        id: "burn",
        caption: format!("Left of {} after each day", standing.name),
        unit: chart::Unit::Usd,
        measure: None,
        of: String::new(),
        places: days.places(&range),
        series: vec![
            Series {
                name: "Left".to_owned(),
                of: None,
                values: left,
            },
            Series {
                name: "Even plan".to_owned(),
                of: None,
                values: plan,
            },
        ],
    };
    Ok(html! {
        (chart.lines())
        @if let Some(days) = ends {
            p.note { "At the pace of the last seven days, " (money(rate, number::digits(rate), None)) " a day, what is left lasts "
                strong { (number::count(days)) @if days == 1 { " day" } @else { " days" } } "." }
        }
    })
}

/// The days of a budget's window, as far as a chart shows them; those of one without end are the last 90.
fn bounds(ask: &Ask, standing: &Standing) -> (Date, Date) {
    let date = |ms: i64| -> Date {
        let at = Timestamp::from_millisecond(ms).unwrap_or_default();
        at.to_zoned(ask.period.zone.clone()).date()
    };
    let today = ask.period.today;
    let first = if standing.start_ms > 0 {
        date(standing.start_ms)
    } else {
        shift(today, -90)
    };
    let last = standing.resets_at_ms.map_or(today, |at| date(at - 1));
    (first, shift(last.max(today), 1).min(shift(first, 400)))
}

/// What is left after each of the first `now` days, and after each day of an even plan.
fn course(costs: &[i64], now: usize, limit: i64) -> (Vec<i64>, Vec<i64>) {
    let length = int(u64::try_from(costs.len()).unwrap_or(1)).max(1);
    let (mut spent, mut left, mut plan) = (0, Vec::new(), Vec::new());
    for (n, cost) in costs.iter().enumerate() {
        spent += cost;
        let done = int(u64::try_from(n).unwrap_or(0)) + 1;
        plan.push(limit - number::ratio(limit, done, length).unwrap_or(0));
        if n < now {
            left.push((limit - spent).max(0));
        }
    }
    (left, plan)
}

/// The mean of the last seven whole days.
fn recent(daily: &[i64], today: usize) -> i64 {
    let week = daily
        .get(today.saturating_sub(7)..today)
        .unwrap_or_default();
    number::ratio(
        week.iter().sum(),
        1,
        int(u64::try_from(week.len()).unwrap_or(1)),
    )
    .unwrap_or(0)
}

fn windows(ask: &Ask, sources: Sources<'_>, standing: &Standing) -> Result<Table, LedgerError> {
    let mut table = Table::new(
        "windows",
        "Settled in its latest windows",
        &["Window from", "Settled", "Of the limit"],
    );
    table.empty = "No window of it is written down yet.";
    for (start_ms, settled) in sources.finance.history(&standing.id, WINDOWS)? {
        table.rows.push(vec![
            Cell::text(if start_ms > 0 {
                period::moment(start_ms, &ask.period.zone)
            } else {
                "the beginning".to_owned()
            }),
            figure(standing.unit, settled),
            Cell::Share(number::permille(settled, standing.limit)),
        ]);
    }
    Ok(table)
}

/// What budgets decided.
pub(crate) fn log(id: &'static str, caption: &str, decided: &[Decided], ask: &Ask) -> Table {
    let mut table = Table::new(
        id,
        caption,
        &["Hour", "Tenant", "Budget", "Decision", "Calls"],
    );
    table.empty = "No call was made to wait, degraded or denied.";
    for one in decided {
        table.rows.push(vec![
            Cell::text(period::moment(one.at_ms, &ask.period.zone)),
            Cell::text(&one.tenant),
            Cell::text(&one.budget),
            Cell::Mark(
                if one.decision == "deny" {
                    "bad"
                } else {
                    "fair"
                },
                one.decision.clone(),
            ),
            Cell::Count(one.calls, None),
        ]);
    }
    table
}
