//! Overview: are we on plan?

use jiff::civil::Date;
use maud::{Markup, html};
use meter::LedgerError;
use meter::finance::{Allowance, FILTERED, Open, Sums, Tasks, View};
use meter::ledger::Dimension;

use crate::ask::{self, Ask, view_word, word};
use crate::chart::{Chart, Series, Unit};
use crate::desk::Sources;
use crate::figures::{Days, Measure, amount, per_thousand, timeless, total};
use crate::forecast::{self, Forecast};
use crate::frame::{Page, Select, tile, title};
use crate::number;
use crate::period::{self, Span, months, shift};
use crate::table::{Cell, Table, count, money, named};
use crate::{budgets, table};

/// Days of the trend that can be zoomed; the back-test needs them too.
const TREND_DAYS: i32 = 70;
const MOST_MOVERS: usize = 8;
const MOST_ODD: usize = 5;

/// What the page is made of.
struct Seen<'a> {
    ask: &'a Ask,
    by: Dimension,
    days: Days,
    now: std::ops::Range<usize>,
    before: std::ops::Range<usize>,
    /// The dates compared with.
    prior: (Date, Date),
    /// Sums of each day.
    daily: Vec<Sums>,
    current: Sums,
    earlier: Sums,
}

pub(crate) fn page(ask: &Ask, sources: Sources<'_>) -> Result<Page, LedgerError> {
    let view = read(ask, sources)?;
    let tasks = sources.finance.tasks(&ask.filter)?;
    let open = sources.finance.open()?;
    let movers = movers(&view);
    let odd = odd(&view);
    let nearest = budgets::nearest(ask, sources.budgets, 10);
    let body = html! {
        (tiles(&view, &tasks, open, sources.budgets))
        section aria-labelledby="daily-title" {
            h2 #daily-title { (Measure::of(ask.view).title) " by day and " (title(view.by).to_lowercase()) }
            (daily(&view).stacked())
        }
        div.pair {
            section aria-labelledby="movers-title" {
                h2 #movers-title { "What moved" }
                (movers.html(ask))
                p.note { a href=(ask.link("/units", &[])) { "Price, volume and mix" } " split the change by cause." }
            }
            section aria-labelledby="nearest-title" {
                h2 #nearest-title { "Budgets nearest their limit" }
                (nearest.html(ask))
            }
        }
        section aria-labelledby="trend-title" {
            h2 #trend-title { "Trend" }
            (trend(&view).lines())
            (tested(&view))
        }
        section aria-labelledby="odd-title" {
            h2 #odd-title { "Open anomalies" }
            (odd.html(ask))
        }
    };
    Ok(Page {
        title: "Overview".to_owned(),
        lead: "Are we on plan?".to_owned(),
        body,
        tables: vec![movers, nearest, odd],
        selects: vec![split(view.by)],
        zoom: true,
        unfiltered: false,
    })
}

/// The choice of what bars are split by.
pub(crate) fn split(by: Dimension) -> Select {
    let options = FILTERED.into_iter().filter(|one| *one != Dimension::Key);
    Select {
        name: "by",
        label: "Split by",
        options: options
            .map(|one| (word(one).to_owned(), title(one).to_owned()))
            .collect(),
        chosen: word(by).to_owned(),
    }
}

fn read<'a>(ask: &'a Ask, sources: Sources<'_>) -> Result<Seen<'a>, LedgerError> {
    let period = &ask.period;
    let usual = if ask.filter.tenant.is_some() {
        Dimension::Model
    } else {
        Dimension::Tenant
    };
    let by = ask
        .dimension("by")
        .filter(|one| FILTERED.contains(one))
        .unwrap_or(usual);
    let prior = period.before();
    let first = prior.0.min(shift(period.today, -TREND_DAYS));
    let end = period.end.max(shift(period.today, 1));
    let span = period.between(first, end);
    let lines = sources
        .finance
        .amounts(&ask.during(span), &[Dimension::Day, by], ask.grain())?;
    let days = Days::new(period.days(first, end), &lines);
    let daily = days.totals();
    let (now, before) = (
        days.range(period.first, period.end),
        days.range(prior.0, prior.1),
    );
    let sum = |range: &std::ops::Range<usize>| total(daily.get(range.clone()).unwrap_or_default());
    Ok(Seen {
        ask,
        by,
        current: sum(&now),
        earlier: sum(&before),
        now,
        before,
        prior,
        daily,
        days,
    })
}

impl Seen<'_> {
    fn amount(&self, sums: &Sums) -> i64 {
        sums.amount(self.ask.view).0
    }

    /// The amount of each day that the ledger knows, in order.
    fn amounts(&self) -> Vec<(Date, i64)> {
        let all = self.days.days.iter().zip(&self.daily);
        all.map(|(day, sums)| (day.date, self.amount(sums)))
            .skip_while(|(_, nano)| *nano == 0)
            .collect()
    }

    fn prior_span(&self) -> Span {
        self.ask.period.between(self.prior.0, self.prior.1)
    }
}

fn tiles(view: &Seen<'_>, tasks: &[Tasks], open: Open, budgets: &[Allowance]) -> Markup {
    let ask = view.ask;
    let (now, before) = (view.amount(&view.current), view.amount(&view.earlier));
    let measure = view_word(ask.view);
    let of = |measure: &str| ask::key(measure, &ask.filter);
    let whole = |nano: i64| {
        if nano.abs() >= 10_000_000_000_000 {
            0
        } else {
            number::digits(nano)
        }
    };
    let earlier = ask::key(measure, &ask.during(view.prior_span()));
    let growth = number::permille(now.saturating_sub(before), before);
    let saved = view.current.routed().0;
    let done: i64 = tasks
        .iter()
        .filter(|some| some.succeeded())
        .map(|some| some.tasks)
        .sum();
    let spent: i64 = tasks
        .iter()
        .filter(|some| !some.open())
        .map(|some| some.cost.0)
        .sum();
    let each = number::ratio(spent, 1, done);
    html! {
        dl.tiles {
            (tile(Measure::of(ask.view).title, &money(now, whole(now), Some(&of(measure))), &html! {
                (count(view.current.calls, Some(&of("calls")))) " requests" }))
            (forecast_tile(view, budgets))
            (tile("Change", &html! { @match growth { Some(growth) => (number::change(growth)), None => "\u{2013}" } },
                &html! { "from " (money(before, whole(before), Some(&earlier))) ", " (period::title(view.prior.0, shift(view.prior.1, -1))) }))
            (tile("Per 1,000 requests", &html! { @match per_thousand(&view.current) {
                Some(nano) => (money(nano, number::digits(nano), Some(&of("per1k")))), None => "\u{2013}" } }, &html! { "at cost" }))
            (tile("Per successful task", &html! { @match each {
                Some(nano) => (money(nano, number::digits(nano), None)), None => "\u{2013}" } },
                &html! { (count(done, None)) @if done == 1 { " success" } @else { " successes" } " told" }))
            (tile("Saved by routing", &money(saved, whole(saved), Some(&of("saved"))), &html! {
                @if let Some(share) = number::permille(saved, view.current.baseline.0) { (number::percent(share)) " of all deep" } }))
            (tile("Ledger up to", &html! { @if open.latest_ms > 0 { (period::moment(open.latest_ms, &ask.period.zone)) } @else { "empty" } },
                &html! { (age(ask.now_ms - open.latest_ms, open.latest_ms)) }))
        }
    }
}

fn age(age_ms: i64, latest_ms: i64) -> String {
    if latest_ms == 0 {
        return "no call yet".to_owned();
    }
    match age_ms / 1_000 {
        ..120 => "up to date".to_owned(),
        seconds @ ..7_200 => format!("{} minutes ago", seconds / 60),
        seconds @ ..172_800 => format!("{} hours ago", seconds / 3_600),
        seconds => format!("{} days ago", seconds / 86_400),
    }
}

fn forecast_tile(view: &Seen<'_>, budgets: &[Allowance]) -> Markup {
    let ask = view.ask;
    let name = format!("{} forecast", ask.period.today.strftime("%B"));
    let Some(Forecast {
        expected,
        low,
        high,
    }) = forecast::month(&view.amounts(), ask.period.today)
    else {
        return tile(
            &name,
            &html! { "\u{2013}" },
            &html! { "needs a week of use" },
        );
    };
    let digits = if expected >= 10_000_000_000_000 { 0 } else { 2 };
    let plan = (ask.view == View::Cost)
        .then(|| plan(ask, budgets))
        .flatten();
    tile(
        &name,
        &money(expected, digits, None),
        &html! {
            "80\u{a0}% between " (money(low, digits, None)) " and " (money(high, digits, None))
            @if let Some(share) = plan.and_then(|plan| number::permille(expected, plan)) {
                br; (number::percent(share)) " of tenants\u{2019} monthly budgets"
            }
        },
    )
}

/// What the monthly budgets of whole tenants come to, under the filter.
fn plan(ask: &Ask, budgets: &[Allowance]) -> Option<i64> {
    let narrow = FILTERED
        .iter()
        .skip(1)
        .any(|one| ask.filter.named(*one).is_some());
    let all = budgets.iter().map(|one| &one.standing).filter(|one| {
        one.level == "tenant"
            && one.unit == meter::Unit::Usd
            && one.window.contains("month")
            && ask
                .filter
                .tenant
                .as_ref()
                .is_none_or(|tenant| *tenant == one.tenant)
    });
    let limit: i64 = all.map(|one| one.limit).sum();
    (!narrow && limit > 0).then_some(limit)
}

fn daily(view: &Seen<'_>) -> Chart {
    let measure = Measure::of(view.ask.view);
    Chart {
        id: "daily",
        caption: format!(
            "{} per day, {}, by {}",
            measure.title,
            view.ask.period.title(),
            word(view.by)
        ),
        unit: Unit::Usd,
        measure: Some(measure.word.to_owned()),
        of: timeless(&view.ask.filter),
        places: view.days.places(&view.now),
        series: view.days.series(&view.now, measure, view.by),
    }
}

fn trend(view: &Seen<'_>) -> Chart {
    let today = view.ask.period.today;
    let range = view.days.range(shift(today, -TREND_DAYS), shift(today, 1));
    let values: Vec<i64> = view.daily.iter().map(|sums| view.amount(sums)).collect();
    let mean = |place: usize| {
        let week = values
            .get(place.saturating_sub(6)..=place)
            .unwrap_or_default();
        let days = i64::try_from(week.len()).unwrap_or(1).max(1);
        number::ratio(week.iter().sum(), 1, days).unwrap_or(0)
    };
    let measure = Measure::of(view.ask.view);
    Chart {
        id: "trend",
        caption: format!(
            "{} per day over the last ten weeks, with the mean of seven days",
            measure.title
        ),
        unit: Unit::Usd,
        measure: Some(measure.word.to_owned()),
        of: timeless(&view.ask.filter),
        places: view.days.places(&range),
        series: vec![
            Series {
                name: measure.title.to_owned(),
                of: Some(String::new()),
                values: values.get(range.clone()).unwrap_or_default().to_vec(),
            },
            Series {
                name: "Mean of seven days".to_owned(),
                of: None,
                values: range.map(mean).collect(),
            },
        ],
    }
}

fn tested(view: &Seen<'_>) -> Markup {
    let today = view.ask.period.today;
    let off = forecast::back_test(&view.amounts(), today);
    html! {
        @if let Some(off) = off {
            p.note { "Back-test: the forecast made on 10 " (months(today.first_of_month(), -1).strftime("%B"))
                " for that month was " strong { (number::percent(off.abs())) }
                @if off < 0 { " too low." } @else { " too high." } }
        }
    }
}

/// Groups whose amount changed most.
fn movers(view: &Seen<'_>) -> Table {
    let ask = view.ask;
    let (now, before) = (view.days.over(&view.now), view.days.over(&view.before));
    let none = Sums::default();
    let mut rows: Vec<(&str, &Sums, &Sums)> = now
        .iter()
        .map(|(name, sums)| (*name, sums, before.get(name).unwrap_or(&none)))
        .collect();
    let change = |row: &(&str, &Sums, &Sums)| view.amount(row.1).saturating_sub(view.amount(row.2));
    rows.retain(|row| view.amount(row.1) != 0 || view.amount(row.2) != 0);
    rows.sort_by_key(|row| (std::cmp::Reverse(change(row).saturating_abs()), row.0));
    let mut table = Table::new(
        "movers",
        "Largest changes from the period before",
        &[title(view.by), "Before", "Now", "Change", "%"],
    );
    for row in rows.iter().take(MOST_MOVERS) {
        let filter = ask.filter.clone().with(view.by, Some(row.0.to_owned()));
        let prior = view.prior_span();
        let shown = if row.0.is_empty() { ask::NONE } else { row.0 };
        table.rows.push(vec![
            Cell::Link(
                named(row.0).to_owned(),
                ask.link("/explore", &[(word(view.by), shown)]),
            ),
            amount(
                ask.view,
                row.2,
                &filter.clone().over(prior.from_ms, prior.until_ms),
            ),
            amount(ask.view, row.1, &filter),
            Cell::Money(change(row), None),
            Cell::Change(number::permille(change(row), view.amount(row.2))),
        ]);
    }
    table
}

/// Days of groups that their weekdays do not explain.
fn odd(view: &Seen<'_>) -> Table {
    let until = view
        .days
        .range(view.ask.period.today, view.ask.period.today)
        .start;
    let mut found = Vec::new();
    for (name, days) in &view.days.groups {
        let values: Vec<i64> = days.iter().map(|sums| view.amount(sums)).collect();
        for odd in forecast::odd(&values, until) {
            found.push((odd.nano.saturating_sub(odd.band), name, odd));
        }
    }
    found.sort_by_key(|(above, name, _)| (std::cmp::Reverse(*above), name.as_str()));
    let mut table = Table::new(
        "anomalies",
        "Days of the last week above what their weekday explains",
        &["Day", title(view.by), "Came to", "Band ends at", "Above"],
    );
    table.empty = "No day of the last week stands out from its weekday.";
    for (above, name, odd) in found.iter().take(MOST_ODD) {
        let Some(day) = view.days.days.get(odd.place) else {
            continue;
        };
        let filter = view
            .ask
            .during(day.span)
            .with(view.by, Some((*name).clone()));
        table.rows.push(vec![
            Cell::text(day.date.strftime("%a %-d %b").to_string()),
            Cell::text(table::named(name)),
            Cell::Money(odd.nano, Some(ask::key(view_word(view.ask.view), &filter))),
            Cell::Money(odd.band, None),
            Cell::Money(*above, None),
        ]);
    }
    table
}
