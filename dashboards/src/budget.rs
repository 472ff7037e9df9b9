//! One budget: how it burns down, what it decided, who changed it, and what another limit would have done.

use jiff::Timestamp;
use jiff::civil::Date;
use maud::{Markup, html};
use meter::finance::{Allowance, Sums};
use meter::ledger::Dimension;
use meter::{LedgerError, NanoUsd, Standing, Unit};

use crate::ask::Ask;
use crate::budgets::{self, figure, used};
use crate::chart::{self, Chart, Series};
use crate::desk::Sources;
use crate::figures::{Days, int};
use crate::forecast;
use crate::frame::{Page, tile};
use crate::number;
use crate::period::{self, months, shift};
use crate::table::{Cell, Table, count, money};

const DECISIONS: u32 = 50;
const WINDOWS: u32 = 12;

/// One budget; `None` where there is none of this id.
pub(crate) fn page(ask: &Ask, sources: Sources<'_>, id: &str) -> Result<Option<Page>, LedgerError> {
    let mut all = sources.budgets.iter();
    let Some(one) = all.find(|one| one.standing.id == id) else {
        return Ok(None);
    };
    let standing = &one.standing;
    let is_kept = standing.unit == Unit::Usd && one.scope.is_some();
    let (burn, preview) = if is_kept {
        (burn(ask, sources, one)?, preview(ask, sources, one)?)
    } else {
        let why = "Use by day is kept for money of tenants, teams, projects, keys and models.";
        (html! { p.empty { (why) } }, html! { p.empty { (why) } })
    };
    let until = standing.resets_at_ms.unwrap_or(ask.now_ms).max(ask.now_ms);
    let span = meter::finance::Filter::default().over(
        standing.start_ms.min(ask.now_ms - 30 * 86_400_000),
        until + 1,
    );
    let decided = sources
        .finance
        .decisions(&span, Some(&standing.id), DECISIONS)?;
    let windows = windows(ask, sources, standing)?;
    let changes = changes(ask, sources, standing)?;
    let ladder = ladder(standing);
    let log = budgets::log("decisions", "What it decided, by hour", &decided, ask);
    let body = html! {
        (tiles(standing, ask))
        section { h2 { "Burn-down" } (burn) }
        section #preview { h2 { "Another limit" } (preview) }
        div.pair {
            section { h2 { "Thresholds" } (ladder.html(ask)) }
            section { h2 { "Windows" } (windows.html(ask)) }
        }
        section { h2 { "Changes of its limit" } (changes.html(ask)) }
        section { h2 { "Decisions" } (log.html(ask)) }
        p.note { a href=(ask.link("/budgets", &[])) { "All budgets" } }
    };
    let kind = if standing.hard { "Hard" } else { "Soft" };
    Ok(Some(Page {
        title: standing.name.clone(),
        lead: format!("{kind} budget, {}", standing.window),
        body,
        tables: vec![log, windows, changes, ladder],
        unfiltered: true,
        ..Page::default()
    }))
}

fn shown(standing: &Standing, amount: i64, sum: Option<&str>) -> Markup {
    match standing.unit {
        Unit::Usd => money(amount, number::digits(amount), sum),
        Unit::Requests | Unit::Tokens | Unit::Concurrency => count(amount, None),
    }
}

fn tiles(standing: &Standing, ask: &Ask) -> Markup {
    let shown = |amount: i64| shown(standing, amount, None);
    let settled = budgets::settled(standing);
    html! {
        dl.tiles {
            (tile("Limit", &shown(standing.limit), &html! { @if standing.extra != 0 { "and " (shown(standing.extra)) " by grace and overrides" } }))
            (tile("Settled", &self::shown(standing, standing.settled, settled.as_deref()), &html! { (number::percent(used(standing))) " used or held" }))
            (tile("Held", &shown(standing.held), &html! { "by calls under way" }))
            @if standing.leased != 0 {
                (tile("With other nodes", &shown(standing.leased), &html! { "granted to them, not spent yet" }))
            }
            (tile("Left", &shown(standing.left()), &html! { @if let Some(at) = standing.resets_at_ms { "resets " (period::moment(at, &ask.period.zone)) } @else { "never resets" } }))
            (tile("State", &html! { (standing.state) }, &html! { (meaning(standing.state)) @if standing.paced { "; paced over its window" } }))
        }
    }
}

/// What a budget does to calls in a state.
fn meaning(state: &str) -> &'static str {
    match state {
        "allow" => "calls go as routed",
        "tell" => "calls go as routed, and people are told",
        "fast" => "calls go to the fast tier",
        "free" => "calls go to free models only",
        "deny" => "calls are denied",
        _ => "",
    }
}

/// The steps at which something happens, and which are reached.
fn ladder(standing: &Standing) -> Table {
    let mut table = Table::new(
        "thresholds",
        "Shares of the limit at which it tells or acts",
        &["At", "Amount", "Reached"],
    );
    table.empty = "It has no thresholds.";
    let limit = standing.limit.saturating_add(standing.extra);
    for at in &standing.thresholds {
        let amount = number::ratio(limit, i64::from(*at), 100).unwrap_or(0);
        let reached = standing.settled >= amount;
        let (mark, word) = if reached {
            ("fair", "reached")
        } else {
            ("good", "not yet")
        };
        table.rows.push(vec![
            Cell::text(format!("{at}\u{a0}%")),
            figure(standing.unit, amount),
            Cell::Mark(mark, word.to_owned()),
        ]);
    }
    table
}

/// Dated changes of the limit, by whom and why.
fn changes(ask: &Ask, sources: Sources<'_>, standing: &Standing) -> Result<Table, LedgerError> {
    let mut table = Table::new(
        "overrides",
        "Dated changes of its limit",
        &["From", "Until", "Change", "By", "Reason", "Made", "State"],
    );
    table.empty =
        "Nobody has changed its limit. pareto budgets override does, for a time and with a reason.";
    let moment = |ms: i64| Cell::text(period::moment(ms, &ask.period.zone));
    for one in sources.finance.changes(&standing.id)? {
        let (mark, state) = if ask.now_ms < one.from_ms {
            ("fair", "to come")
        } else if ask.now_ms < one.until_ms {
            ("good", "in force")
        } else {
            ("", "over")
        };
        table.rows.push(vec![
            moment(one.from_ms),
            moment(one.until_ms),
            figure(standing.unit, one.amount),
            Cell::name(&one.author),
            Cell::text(one.reason),
            moment(one.created_at_ms),
            Cell::Mark(mark, state.to_owned()),
        ]);
    }
    Ok(table)
}

/// The costs of each day of the budget's scope.
fn costs(
    ask: &Ask,
    sources: Sources<'_>,
    one: &Allowance,
    (first, end): (Date, Date),
) -> Result<Days, LedgerError> {
    let span = ask.period.between(first, end);
    let filter = one.scope.clone().unwrap_or_default();
    let filter = filter.over(span.from_ms, span.until_ms);
    let lines = sources
        .finance
        .amounts(&filter, &[Dimension::Day], ask.grain())?;
    Ok(Days::new(ask.period.days(first, end), &lines))
}

/// What is left after each day of the window, beside an even plan and what is to be expected.
fn burn(ask: &Ask, sources: Sources<'_>, one: &Allowance) -> Result<Markup, LedgerError> {
    let standing = &one.standing;
    let today = ask.period.today;
    let (first, end) = bounds(ask, standing);
    let begin = shift(today, -forecast::BACK_DAYS).min(first);
    let days = costs(ask, sources, one, (begin, end))?;
    let totals = days.totals();
    let daily: Vec<(Date, i64)> = days
        .days
        .iter()
        .zip(&totals)
        .map(|(day, sums)| (day.date, sums.cost.0))
        .collect();
    let range = days.range(first, end);
    let limit = standing.limit.saturating_add(standing.extra);
    let now = days.range(first, shift(today, 1)).len();
    let window: Vec<i64> = daily
        .get(range.clone())
        .unwrap_or_default()
        .iter()
        .map(|(_, nano)| *nano)
        .collect();
    let (left, plan) = course(&window, now, limit);
    let past = left.get(..now.saturating_sub(1)).unwrap_or_default();
    let made = forecast::course(&daily, first, today, end);
    let line = |name: &str, read: fn(&forecast::Forecast) -> i64| {
        let rest = made
            .iter()
            .map(|one| limit.saturating_sub(read(one)).max(0));
        series(name, past.iter().copied().chain(rest).collect())
    };
    let mut lines = vec![series("Left", left.clone()), series("Even plan", plan)];
    if made.len() > 1 {
        lines.push(line("Expected", |one| one.expected));
        lines.push(line("If use is low", |one| one.low));
        lines.push(line("If use is high", |one| one.high));
    }
    let chart = Chart {
        id: "burn",
        caption: format!(
            "Left of {} after each day; the band holds four courses of five",
            standing.name
        ),
        unit: chart::Unit::Usd,
        measure: None,
        of: String::new(),
        places: days.places(&range),
        series: lines,
    };
    let ahead = days.days.iter().skip(range.start + now.saturating_sub(1));
    let ahead: Vec<(Date, forecast::Forecast)> = ahead
        .map(|day| day.date)
        .zip(made.iter().copied())
        .collect();
    Ok(html! { (chart.lines()) (outlook(&ahead, limit)) })
}

/// What a window will come to, and when it is used up.
fn outlook(ahead: &[(Date, forecast::Forecast)], limit: i64) -> Markup {
    let amount = |nano: i64| money(nano, number::digits(nano), None);
    let out = ahead.iter().find(|(_, one)| one.expected >= limit);
    html! {
        @if let Some((_, last)) = ahead.last() {
            p.note {
                "By the end of its window " (amount(last.expected)) " are expected to be spent, 80\u{a0}% between "
                (amount(last.low)) " and " (amount(last.high)) ". "
                @match out {
                    Some((date, _)) => { "At this pace it is used up on " strong { (date.strftime("%-d %B")) } "." },
                    None => "At this pace it lasts.",
                }
            }
        }
    }
}

fn series(name: &str, values: Vec<i64>) -> Series {
    Series {
        name: name.to_owned(),
        of: None,
        values,
    }
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
            match standing.unit {
                Unit::Usd => Cell::Money(settled, Some(budgets::window(&standing.id, start_ms))),
                unit => figure(unit, settled),
            },
            Cell::Share(number::permille(settled, standing.limit)),
        ]);
    }
    Ok(table)
}

/// Whole windows of the past that another limit is tried on: the days, and how many of them are one window.
fn tried(ask: &Ask, window: &str) -> Option<(Date, Date, Cut)> {
    let month = ask.period.today.first_of_month();
    let back = |many: i32, cut: Cut| Some((months(month, -many), month, cut));
    let word = window.trim_start_matches("fiscal ");
    match word.split(' ').next().unwrap_or_default() {
        "day" => back(1, Cut::Days(1)),
        "week" => {
            let monday = i32::from(ask.period.today.weekday().to_monday_zero_offset());
            let end = shift(ask.period.today, -monday);
            Some((shift(end, -28), end, Cut::Days(7)))
        }
        "month" => back(1, Cut::Whole),
        "quarter" => back(3, Cut::Whole),
        "year" => back(12, Cut::Whole),
        "rolling" => {
            let days = word.strip_prefix("rolling ")?.strip_suffix('d')?;
            back(1, Cut::Days(days.parse().ok().filter(|days| *days > 0)?))
        }
        _ => None,
    }
}

/// How days are put together to windows.
#[derive(Debug, Clone, Copy)]
enum Cut {
    Days(usize),
    Whole,
}

/// What would not have fitted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Over {
    calls: i64,
    nano: i64,
}

/// What of the days of one window lies above `limit`; of the day on which it is reached, as many calls as
/// the same share of its cost, rounded up.
fn over(days: &[Sums], limit: i64) -> Over {
    let (mut spent, mut over) = (0_i64, Over::default());
    for day in days {
        let fits = limit.saturating_sub(spent).clamp(0, day.cost.0.max(0));
        let rest = day.cost.0 - fits;
        spent = spent.saturating_add(day.cost.0);
        if rest > 0 {
            let calls = i128::from(day.calls) * i128::from(rest);
            let share = (calls + i128::from(day.cost.0) - 1) / i128::from(day.cost.0);
            over.calls += i64::try_from(share).unwrap_or(day.calls);
            over.nano = over.nano.saturating_add(rest);
        }
    }
    over
}

/// A form for another limit, and what it would have done.
fn preview(ask: &Ask, sources: Sources<'_>, one: &Allowance) -> Result<Markup, LedgerError> {
    let standing = &one.standing;
    let Some((first, end, cut)) = tried(ask, &standing.window) else {
        return Ok(
            html! { p.empty { "Another limit can be tried on windows of days, weeks, months, quarters and years." } },
        );
    };
    let asked = ask.param("limit").map(|text| {
        let text = text.trim().trim_start_matches('$').replace(',', "");
        NanoUsd::from_usd(&text)
            .ok()
            .filter(|limit| *limit >= NanoUsd::ZERO)
    });
    let limit = asked.flatten().unwrap_or(NanoUsd(standing.limit));
    let days = costs(ask, sources, one, (first, end))?.totals();
    let length = match cut {
        Cut::Days(days) => days,
        Cut::Whole => days.len().max(1),
    };
    let mut found = Over::default();
    for window in days.chunks(length) {
        let more = over(window, limit.0);
        found.calls += more.calls;
        found.nano += more.nano;
    }
    let all = crate::figures::total(&days);
    let span = ask.period.between(first, end);
    let filter = one
        .scope
        .clone()
        .unwrap_or_default()
        .over(span.from_ms, span.until_ms);
    let of = |measure: &str| crate::ask::key(measure, &filter);
    let title = period::title(first, shift(end, -1));
    Ok(html! {
        form.filters method="get" action={ (ask.path) "#preview" } aria-label="Another limit" {
            div.row {
                label { "Limit in USD" input type="text" name="limit" inputmode="decimal" value=(limit.to_usd().trim_end_matches('0').trim_end_matches('.')); }
                @if ask.period.zone_name != "UTC" { input type="hidden" name="zone" value=(ask.period.zone_name); }
                button type="submit" { "Try" }
            }
        }
        @if asked == Some(None) { p.alert { "This is no amount of USD; the limit in force was taken." } }
        p { "At a limit of " (money(limit.0, number::digits(limit.0), None)) ", "
            strong { (count(found.calls, None)) " of " (count(all.calls, Some(&of("calls")))) " calls" } " and "
            strong { (money(found.nano, number::digits(found.nano), None)) " of " (money(all.cost.0, number::digits(all.cost.0), Some(&of("cost")))) }
            " of " (title) " would not have fitted." }
        p.note { "Worked out from whole days: in each window, use fits until the limit is reached; of the day on which it is, calls are counted by the share of its cost. "
            "Holds, cheaper tiers that a budget leads to, and calls tried again are not in it. Limits are changed in the configuration, or for a time by an override." }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_begins_within_the_day_on_which_the_limit_is_reached() {
        let day = |calls, cost| Sums {
            calls,
            cost: NanoUsd(cost),
            ..Sums::default()
        };
        let days = [day(10, 100), day(10, 100), day(3, 30), day(2, 0)];
        let tried = |limit| {
            let Over { calls, nano } = over(&days, limit);
            (calls, nano)
        };
        assert_eq!(tried(230), (0, 0));
        assert_eq!(tried(150), (8, 80));
        assert_eq!(tried(199), (4, 31));
        assert_eq!(tried(0), (23, 230));
    }
}
