//! Sums over rollups, grouped as asked.

use meter::NanoUsd;
use meter::finance::{FILTERED, Filter, Grain, Line, Priced, Step, Sums};
use meter::ledger::Dimension;

use super::Where;
use crate::ledger::ask::used;
use crate::sql::{Row, Sql, SqlError};

/// What is summed, in the order of [`read`]: what the ledger's rollups sum.
pub(super) use crate::ledger::sums::SUMS;

/// Those that show how much was spent. Each sum costs every row of a long time its part.
pub(super) const AMOUNTS: [&str; 4] = ["calls", "cost_nano", "sell_nano", "baseline_nano"];

/// The column of a dimension; that of time is the same in all rollups.
pub(super) fn column(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::Tenant => "tenant",
        Dimension::Team => "team",
        Dimension::Project => "project",
        Dimension::Key => "key",
        Dimension::User => "user_id",
        Dimension::Workflow => "workflow",
        Dimension::Model => "model",
        Dimension::Endpoint => "endpoint",
        Dimension::Tier => "tier",
        Dimension::Lane => "lane",
        Dimension::Price => "price",
        Dimension::Day | Dimension::Hour => "start_ms",
    }
}

/// Sums by `by`; those that are not `wanted` are 0.
pub(super) fn lines(
    sql: &mut dyn Sql,
    filter: &Filter,
    (by, grain): (&[Dimension], Grain),
    wanted: &[&str],
) -> Result<Vec<Line>, SqlError> {
    let table = table(filter, by, grain);
    let all = Where::of(filter, "start_ms", &FILTERED);
    let mut columns: Vec<String> = by.iter().map(|one| column(*one).to_owned()).collect();
    columns.extend(sums(wanted));
    let text = format!(
        "SELECT {} FROM {table} {} {}",
        columns.join(", "),
        all.text,
        grouped(by.len())
    );
    let rows = sql.query(&text, &all.values)?;
    Ok(rows
        .iter()
        .map(|row| line(row, by))
        .filter(|line| line.sums != Sums::default())
        .collect())
}

/// The smallest table that tells what is asked for.
fn table(filter: &Filter, by: &[Dimension], grain: Grain) -> &'static str {
    let brief = |one: &Dimension| {
        matches!(
            one,
            Dimension::Tenant
                | Dimension::Model
                | Dimension::Endpoint
                | Dimension::Tier
                | Dimension::Day
                | Dimension::Hour
        )
    };
    let mut named = FILTERED.iter().filter(|one| filter.named(**one).is_some());
    let is_brief = by.iter().all(brief) && named.all(brief);
    // End users are kept by the hour only.
    let hours = grain == Grain::Hour || by.contains(&Dimension::User);
    match (is_brief, hours) {
        (true, true) => "brief_hour",
        (true, false) => "brief_day",
        (false, true) => "rollup_hour",
        (false, false) => "rollup_day",
    }
}

fn line(row: &Row, by: &[Dimension]) -> Line {
    let mut line = Line {
        sums: read(row, by.len()),
        ..Line::default()
    };
    for (place, dimension) in by.iter().enumerate() {
        match dimension {
            Dimension::Day | Dimension::Hour => line.at_ms = row.int(place),
            _ => line.group.push(row.text(place).to_owned()),
        }
    }
    line
}

/// All sums in their order; those that are not `wanted` as nothing.
fn sums(wanted: &[&str]) -> impl Iterator<Item = String> {
    SUMS.iter().map(|name| {
        if wanted.contains(name) {
            format!("CAST(SUM({name}) AS BIGINT)")
        } else {
            "CAST(0 AS BIGINT)".to_owned()
        }
    })
}

fn grouped(columns: usize) -> String {
    if columns == 0 {
        return String::new();
    }
    let places: Vec<String> = (1..=columns).map(|place| place.to_string()).collect();
    format!("GROUP BY {}", places.join(", "))
}

fn read(row: &Row, from: usize) -> Sums {
    let int = |place: usize| row.int(from + place);
    let nano = |place: usize| NanoUsd(row.int(from + place));
    Sums {
        calls: int(0),
        failed: int(1),
        counted: int(2),
        estimated: int(3),
        unpriced: int(4),
        retries: int(5),
        usage: used(row, from + 6),
        cost: nano(15),
        list: nano(16),
        sell: nano(17),
        baseline: nano(18),
        cache_saved: nano(19),
        estimated_cost: nano(20),
        retry_cost: nano(21),
        wasted_cost: nano(22),
        corrected: nano(23),
        suspense: nano(24),
    }
}

/// Use by price, with the first and the last day of each.
pub(super) fn priced(sql: &mut dyn Sql, filter: &Filter) -> Result<Vec<Priced>, SqlError> {
    let all = Where::of(filter, "start_ms", &FILTERED);
    let sums: Vec<String> = sums(SUMS).collect();
    let rows = sql.query(
        &format!(
            "SELECT price, model, lane, context_tier, MIN(start_ms), MAX(start_ms), {}
             FROM rollup_day {} GROUP BY 1, 2, 3, 4 ORDER BY 2, 5, 1",
            sums.join(", "),
            all.text
        ),
        &all.values,
    )?;
    Ok(rows
        .iter()
        .map(|row| Priced {
            price: row.text(0).to_owned(),
            model: row.text(1).to_owned(),
            lane: row.text(2).to_owned(),
            context_tier: row.int(3),
            first_ms: row.int(4),
            last_ms: row.int(5),
            sums: read(row, 6),
        })
        .collect())
}

/// Calls by what they cost.
pub(super) fn steps(
    sql: &mut dyn Sql,
    filter: &Filter,
    by: Option<Dimension>,
) -> Result<Vec<Step>, SqlError> {
    let all = Where::of(filter, "start_ms", &[Dimension::Tenant, Dimension::Model]);
    let group = match by {
        Some(Dimension::Tenant) => "tenant",
        Some(Dimension::Model) => "model",
        _ => "CAST('' AS TEXT)",
    };
    let rows = sql.query(
        &format!(
            "SELECT {group}, step, CAST(SUM(calls) AS BIGINT) FROM rollup_cost {}
             GROUP BY 1, 2 ORDER BY 1, 2",
            all.text
        ),
        &all.values,
    )?;
    Ok(rows
        .iter()
        .map(|row| Step {
            group: row.text(0).to_owned(),
            step: row.int(1),
            calls: row.int(2),
        })
        .collect())
}
