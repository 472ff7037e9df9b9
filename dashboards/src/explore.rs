//! Explore: where does it go? A pivot by up to two dimensions.

use std::collections::BTreeMap;

use maud::html;
use meter::LedgerError;
use meter::finance::{FILTERED, Filter, Step, Sums};
use meter::ledger::Dimension;
use meter::money;

use crate::ask::{self, Ask, word};
use crate::chart::Chart;
use crate::desk::Sources;
use crate::figures::{Days, MEASURES, Measure, hits, timeless, total};
use crate::frame::{Page, Select, title};
use crate::number;
use crate::table::{Cell, Table, named};

/// Columns of a pivot; the rest is summed.
const MOST_COLUMNS: usize = 8;
/// Rows of a pivot on the page and in its CSV.
const MOST_ROWS: usize = 2_000;
const DAY_MS: i64 = 86_400_000;

pub(crate) fn page(ask: &Ask, sources: Sources<'_>) -> Result<Page, LedgerError> {
    let rows = ask
        .dimension("by")
        .filter(|one| FILTERED.contains(one))
        .unwrap_or(Dimension::Tenant);
    let columns = ask
        .dimension("then")
        .filter(|one| FILTERED.contains(one) && *one != rows);
    let wanted = ask.param("measure").unwrap_or_default();
    let measure = Measure::named(wanted).unwrap_or(Measure::of(ask.view));
    let lines = sources
        .finance
        .sums(&ask.filter, &[Dimension::Day, rows], ask.grain())?;
    let days = Days::new(ask.period.days(ask.period.first, ask.period.end), &lines);
    let range = 0..days.days.len();
    let table = match columns {
        None => whole(ask, rows, &days),
        Some(columns) => {
            let lines = sources
                .finance
                .sums(&ask.filter, &[rows, columns], ask.grain())?;
            let cells = lines.iter().filter_map(|line| {
                let [row, column] = line.group.as_slice() else {
                    return None;
                };
                Some(((row.as_str(), column.as_str()), line.sums))
            });
            pivot(ask, (rows, columns), measure, &cells.collect())
        }
    };
    let mut tables = vec![table];
    if wanted == "percentiles" {
        let by = matches!(rows, Dimension::Tenant | Dimension::Model).then_some(rows);
        tables.insert(
            0,
            percentiles(ask, by, &sources.finance.steps(&ask.filter, by)?),
        );
    }
    let chart = Chart {
        id: "explore",
        caption: format!(
            "{} per day, {}, by {}",
            measure.title,
            ask.period.title(),
            word(rows)
        ),
        unit: measure.unit,
        measure: measure.adds().then(|| measure.word.to_owned()),
        of: timeless(&ask.filter),
        places: days.places(&range),
        series: days.series(&range, measure, rows),
    };
    let body = html! {
        section aria-labelledby="chart-title" {
            h2 #chart-title { (measure.title) " by day" }
            @if measure.adds() && ask.param("chart") != Some("lines") { (chart.stacked()) } @else { (chart.lines()) }
        }
        @for table in &tables { section { (table.html(ask)) } }
    };
    Ok(Page {
        title: "Explore".to_owned(),
        lead: "Where does it go?".to_owned(),
        body,
        tables,
        selects: selects(ask, rows, columns, wanted),
        zoom: true,
        unfiltered: false,
    })
}

fn selects(ask: &Ask, rows: Dimension, columns: Option<Dimension>, wanted: &str) -> Vec<Select> {
    let names = || {
        FILTERED
            .iter()
            .map(|one| (word(*one).to_owned(), title(*one).to_owned()))
    };
    let measures = MEASURES
        .iter()
        .map(|one| (one.word.to_owned(), one.title.to_owned()));
    let pair = |word: &str, name: &str| (word.to_owned(), name.to_owned());
    let known = Measure::named(wanted).is_some() || wanted == "percentiles";
    vec![
        Select {
            name: "by",
            label: "Rows",
            options: names().collect(),
            chosen: word(rows).to_owned(),
        },
        Select {
            name: "then",
            label: "Columns",
            options: std::iter::once(pair("", "All measures"))
                .chain(names())
                .collect(),
            chosen: columns.map_or("", word).to_owned(),
        },
        Select {
            name: "measure",
            label: "Measure",
            options: std::iter::once(pair("", "As amounts"))
                .chain(measures)
                .chain([pair("percentiles", "Cost per call, p50 and p95")])
                .collect(),
            chosen: if known { wanted } else { "" }.to_owned(),
        },
        Select {
            name: "chart",
            label: "Chart",
            options: vec![pair("", "Stacked bars"), pair("lines", "Lines")],
            chosen: ask.param("chart").unwrap_or_default().to_owned(),
        },
    ]
}

/// One dimension with all measures that fit.
fn whole(ask: &Ask, by: Dimension, days: &Days) -> Table {
    let names = [
        title(by),
        "Requests",
        "Prompt tokens",
        "Answer tokens",
        "Cache hits",
        "Cost",
        "Sell",
        "Margin",
        "Share",
    ];
    let mut table = Table::new(
        "pivot",
        format!("By {}, {}", title(by).to_lowercase(), ask.period.title()),
        &names,
    );
    let groups = days.over(&(0..days.days.len()));
    let all = total(groups.values());
    let mut order: Vec<(&&str, &Sums)> = groups.iter().collect();
    order.sort_by_key(|(name, sums)| (std::cmp::Reverse(sums.amount(ask.view)), **name));
    for (name, sums) in order.into_iter().take(MOST_ROWS) {
        let filter = ask.filter.clone().with(by, Some((*name).to_owned()));
        let shown = if name.is_empty() { ask::NONE } else { name };
        let link = ask.link("/explore", &[(word(by), shown)]);
        let first = Cell::Link(named(name).to_owned(), link);
        table.rows.push(measures(ask, first, sums, &filter, &all));
    }
    table.total = Some(measures(ask, Cell::text("Total"), &all, &ask.filter, &all));
    table
}

fn measures(ask: &Ask, first: Cell, sums: &Sums, filter: &Filter, all: &Sums) -> Vec<Cell> {
    let mut row = vec![first];
    for word in ["calls", "prompt", "answer"] {
        row.extend(Measure::named(word).map(|one| one.cell(sums, filter)));
    }
    row.push(Cell::Share(hits(sums)));
    for word in ["cost", "sell", "margin"] {
        row.extend(Measure::named(word).map(|one| one.cell(sums, filter)));
    }
    row.push(Cell::Share(number::permille(
        sums.amount(ask.view).0,
        all.amount(ask.view).0,
    )));
    row
}

/// Two dimensions with one measure.
fn pivot(
    ask: &Ask,
    (rows, columns): (Dimension, Dimension),
    measure: Measure,
    cells: &BTreeMap<(&str, &str), Sums>,
) -> Table {
    let (mut by_row, mut by_column) = (BTreeMap::new(), BTreeMap::new());
    for ((row, column), sums) in cells {
        by_row.entry(*row).or_insert_with(Sums::default).add(sums);
        by_column
            .entry(*column)
            .or_insert_with(Sums::default)
            .add(sums);
    }
    let (row_names, column_names) = (ordered(&by_row, measure), ordered(&by_column, measure));
    let shown = column_names
        .get(..column_names.len().min(MOST_COLUMNS))
        .unwrap_or_default();
    let (by, then) = (word(rows), word(columns));
    let caption = format!(
        "{} by {by} and {then}, {}",
        measure.title,
        ask.period.title()
    );
    let mut table = Table::new("pivot", caption, &[title(rows)]);
    table
        .columns
        .extend(shown.iter().map(|name| named(name).to_owned()));
    let more = column_names.get(shown.len()..).unwrap_or_default();
    if !more.is_empty() {
        table.columns.push(format!("Other ({})", more.len()));
    }
    table.columns.push("Total".to_owned());
    let line = |first: Cell, filter: &Filter, at: &dyn Fn(&str) -> Sums, all: &Sums| {
        let mut row = vec![first];
        for name in shown {
            row.push(measure.cell(&at(name), &filter.clone().with(columns, Some(name.clone()))));
        }
        if !more.is_empty() {
            let rest: Vec<Sums> = more.iter().map(|name| at(name)).collect();
            row.push(unnamed(measure.cell(&total(&rest), filter)));
        }
        row.push(measure.cell(all, filter));
        row
    };
    for name in row_names.iter().take(MOST_ROWS) {
        let filter = ask.filter.clone().with(rows, Some(name.clone()));
        let at = |column: &str| {
            cells
                .get(&(name.as_str(), column))
                .copied()
                .unwrap_or_default()
        };
        let all = by_row.get(name.as_str()).copied().unwrap_or_default();
        table.rows.push(line(Cell::name(name), &filter, &at, &all));
    }
    let at = |column: &str| by_column.get(column).copied().unwrap_or_default();
    table.total = Some(line(
        Cell::text("Total"),
        &ask.filter,
        &at,
        &total(by_row.values()),
    ));
    table
}

/// The names of groups, the largest first.
fn ordered(groups: &BTreeMap<&str, Sums>, measure: Measure) -> Vec<String> {
    let mut order: Vec<(&&str, &Sums)> = groups.iter().collect();
    order.sort_by_key(|(name, sums)| (std::cmp::Reverse((measure.read)(sums)), **name));
    order
        .into_iter()
        .map(|(name, _)| (*name).to_owned())
        .collect()
}

/// A figure that is the sum of several groups has no name.
fn unnamed(cell: Cell) -> Cell {
    match cell {
        Cell::Money(nano, _) => Cell::Money(nano, None),
        Cell::Count(count, _) => Cell::Count(count, None),
        other => other,
    }
}

/// What the middle call and the dearest twentieth cost.
fn percentiles(ask: &Ask, by: Option<Dimension>, steps: &[Step]) -> Table {
    let first = by.map_or("All", title);
    let mut table = Table::new(
        "percentiles",
        "Cost per call as it was settled, to an eighth; of the filters, only tenant, model and days in UTC are heard",
        &[first, "Calls", "p50", "p95", "p99"],
    );
    // Steps are kept by days in UTC; those that begin in the period are meant.
    let days = |ms: i64| ms.div_euclid(DAY_MS) * DAY_MS + if ms % DAY_MS == 0 { 0 } else { DAY_MS };
    let over = Filter {
        tenant: ask.filter.tenant.clone(),
        model: ask.filter.model.clone(),
        ..Filter::default()
    };
    let over = over.over(days(ask.filter.from_ms), days(ask.filter.until_ms));
    let mut groups: BTreeMap<&str, Vec<&Step>> = BTreeMap::new();
    for step in steps {
        groups.entry(&step.group).or_default().push(step);
    }
    for (name, steps) in groups {
        let calls: i64 = steps.iter().map(|step| step.calls).sum();
        let own = match by {
            Some(by) => over.clone().with(by, Some(name.to_owned())),
            None => over.clone(),
        };
        let at = |per_cent: i64| {
            let sum = ask::key(&format!("p{per_cent}"), &own);
            Cell::Money(percentile(&steps, calls, per_cent), Some(sum))
        };
        let name = if by.is_some() {
            Cell::name(name)
        } else {
            Cell::text("All calls")
        };
        table.rows.push(vec![
            name,
            Cell::Count(calls, Some(ask::key("answered", &own))),
            at(50),
            at(95),
            at(99),
        ]);
    }
    table
}

/// The upper end of the step in which the call lies that `per_cent` of them do not exceed.
fn percentile(steps: &[&Step], calls: i64, per_cent: i64) -> i64 {
    let wanted = (calls.saturating_mul(per_cent) + 99) / 100;
    let mut seen = 0;
    for step in steps {
        seen += step.calls;
        if seen >= wanted {
            return money::step_end(step.step).0;
        }
    }
    0
}
