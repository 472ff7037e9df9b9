//! Questions to the ledger. Sums come from rollups, single calls from the entries.

use std::fmt::Write;
use std::sync::Arc;

use jiff::Timestamp;
use meter::books::change::CLASSES;
use meter::ledger::{Dimension, KeyRow, Spent, UsageQuery, UsageRow};
use meter::{Entry, Held, NanoUsd};
use wire::{RequestId, Usage};

use super::{DAY_MS, HOUR_MS};
use crate::record::{self, EntryView};
use crate::sql::{Row, Sql, SqlError, Value};

/// Whole hours come from the rollups; what lies before the first of them, from the entries.
pub(super) fn spent(sql: &mut dyn Sql, from_ms: i64) -> Result<Vec<Spent>, SqlError> {
    let hour = from_ms.div_euclid(HOUR_MS) * HOUR_MS;
    let first = if hour == from_ms {
        hour
    } else {
        hour + HOUR_MS
    };
    let columns = "tenant, team, project, key, user_id, model";
    let mut rows = sql.query(
        &format!(
            "SELECT {columns}, CAST(SUM(cost_nano) AS BIGINT), start_ms FROM rollup_hour
             WHERE start_ms >= $1 GROUP BY {columns}, start_ms"
        ),
        &[first.into()],
    )?;
    if first > from_ms {
        rows.extend(sql.query(
            &format!(
                "SELECT {columns}, CAST(SUM(cost_nano) AS BIGINT), CAST($1 AS BIGINT) FROM usage_event
                 WHERE held_at_ms >= $1 AND held_at_ms < $2 GROUP BY {columns}"
            ),
            &[from_ms.into(), first.into()],
        )?);
    }
    Ok(rows
        .iter()
        .map(|row| Spent {
            tenant: Arc::from(row.text(0)),
            team: Arc::from(row.text(1)),
            project: Arc::from(row.text(2)),
            key: Arc::from(row.text(3)),
            user: Arc::from(row.text(4)),
            model: Arc::from(row.text(5)),
            cost: NanoUsd(row.int(6)),
            start_ms: row.int(7),
        })
        .collect())
}

pub(super) fn open_holds(sql: &mut dyn Sql, node: &str) -> Result<Vec<Held>, SqlError> {
    let rows = sql.query("SELECT held FROM hold WHERE node = $1", &[node.into()])?;
    rows.iter().map(held).collect()
}

/// The hold in the first column.
fn held(row: &Row) -> Result<Held, SqlError> {
    Ok(record::held(row.bytes(0))?)
}

pub(super) fn call(
    sql: &mut dyn Sql,
    request: RequestId,
) -> Result<(Vec<Entry>, Vec<Held>), SqlError> {
    let id = Value::from(request.bytes().as_slice());
    // Ledgers from before ids were looked at have 0 as the moment of arrival.
    let entries = sql.query(
        "SELECT entry, packed FROM usage_event
         WHERE request_id = $1 AND at_ms IN ($2, 0) AND kind = 'settle' ORDER BY attempt",
        &[id.clone(), request.unix_ms().into()],
    )?;
    let open = sql.query("SELECT held FROM hold WHERE request_id = $1", &[id])?;
    Ok((
        entries
            .iter()
            .map(|row| entry(row, 0))
            .collect::<Result<_, _>>()?,
        open.iter().map(held).collect::<Result<_, _>>()?,
    ))
}

pub(super) fn latest(sql: &mut dyn Sql, limit: u32) -> Result<Vec<Entry>, SqlError> {
    let rows = sql.query(
        "SELECT entry, packed FROM usage_event WHERE kind = 'settle' ORDER BY seq DESC LIMIT $1",
        &[i64::from(limit).into()],
    )?;
    rows.iter().map(|row| entry(row, 0)).collect()
}

/// The entry whose JSON is at `place` of a row, or whose bytes are at the next.
pub(crate) fn entry(row: &Row, place: usize) -> Result<Entry, SqlError> {
    match row.bytes(place + 1) {
        [] => row.json(place),
        packed => Ok(EntryView::of(packed)?.to_entry()?),
    }
}

pub(super) fn latest_ms(sql: &mut dyn Sql) -> Result<i64, SqlError> {
    let rows = sql.query("SELECT MAX(held_at_ms) FROM usage_event", &[])?;
    Ok(rows.first().map_or(0, |row| row.int(0)))
}

pub(super) fn keys(sql: &mut dyn Sql) -> Result<Vec<KeyRow>, SqlError> {
    let rows = sql.query(
        "SELECT id, hmac, tenant, team, project, label, created_at_ms, revoked_at_ms FROM api_key
         ORDER BY created_at_ms, id",
        &[],
    )?;
    let key = |row: &Row| {
        Ok(KeyRow {
            id: row.text(0).to_owned(),
            hmac: row
                .bytes(1)
                .try_into()
                .map_err(|_| SqlError(format!("the hash of key {} is damaged", row.text(0))))?,
            tenant: row.text(2).to_owned(),
            team: row.text(3).to_owned(),
            project: row.text(4).to_owned(),
            label: row.text(5).to_owned(),
            created_at_ms: row.int(6),
            revoked_at_ms: row.maybe_int(7),
        })
    };
    rows.iter().map(key).collect()
}

/// Days are summed from the smaller table; hours are needed only where the question says so.
pub(super) fn usage(sql: &mut dyn Sql, query: &UsageQuery) -> Result<Vec<UsageRow>, SqlError> {
    let ends = [query.from_ms, query.until_ms];
    let by_day = ends.iter().flatten().all(|ms| ms.rem_euclid(DAY_MS) == 0)
        && !query.by.contains(&Dimension::Hour)
        && !query.by.contains(&Dimension::User);
    let columns: Vec<&str> = query.by.iter().map(|it| column(*it, by_day)).collect();
    let mut text = String::from("SELECT ");
    for column in &columns {
        text.push_str(column);
        text.push_str(", ");
    }
    // Table and column names come from the constants here, values are bound.
    let sums: Vec<String> = COUNTS
        .iter()
        .chain(&CLASSES)
        .chain(&AMOUNTS)
        .map(|name| format!("CAST(SUM({name}) AS BIGINT)"))
        .collect();
    text.push_str(&sums.join(", "));
    text.push_str(if by_day {
        " FROM rollup_day WHERE 1 = 1"
    } else {
        " FROM rollup_hour WHERE 1 = 1"
    });
    let mut values: Vec<Value> = Vec::new();
    for (condition, value) in [
        ("start_ms >= ", query.from_ms.map(Value::from)),
        ("start_ms < ", query.until_ms.map(Value::from)),
        ("tenant = ", query.tenant.clone().map(Value::from)),
    ] {
        if let Some(value) = value {
            values.push(value);
            // Writing to a String can not fail.
            let _written = write!(text, " AND {condition}${}", values.len());
        }
    }
    if !columns.is_empty() {
        let places: Vec<String> = (1..=columns.len()).map(|place| place.to_string()).collect();
        let _written = write!(text, " GROUP BY {}", places.join(", "));
    }
    let rows = sql.query(&text, &values)?;
    let mut rows: Vec<UsageRow> = rows
        .iter()
        .map(|row| usage_row(row, &query.by))
        // Without a group and without rows, SQL answers one row of nulls.
        .filter(|row| row.calls > 0 || row.cost != NanoUsd::ZERO)
        .collect();
    // In the order of their words, whatever the server's language is.
    rows.sort_by(|a, b| a.group.cmp(&b.group));
    Ok(rows)
}

/// What a usage table sums before and behind the classes of usage.
const COUNTS: [&str; 2] = ["calls", "failed"];
const AMOUNTS: [&str; 4] = ["cost_nano", "baseline_nano", "list_nano", "sell_nano"];

fn column(dimension: Dimension, by_day: bool) -> &'static str {
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
        Dimension::Day if !by_day => "start_ms - start_ms % 86400000",
        Dimension::Day | Dimension::Hour => "start_ms",
    }
}

fn usage_row(row: &Row, by: &[Dimension]) -> UsageRow {
    let group = by
        .iter()
        .enumerate()
        .map(|(place, dimension)| match dimension {
            Dimension::Day => moment(row.int(place), 10),
            Dimension::Hour => moment(row.int(place), 13),
            _ => row.text(place).to_owned(),
        })
        .collect();
    let sum = |place: usize| row.int(by.len() + place);
    let count = |place: usize| u64::try_from(sum(place)).unwrap_or(0);
    UsageRow {
        group,
        calls: count(0),
        failed: count(1),
        usage: used(row, by.len() + 2),
        cost: NanoUsd(sum(11)),
        baseline: NanoUsd(sum(12)),
        list: NanoUsd(sum(13)),
        sell: NanoUsd(sum(14)),
    }
}

/// The classes of usage from column `first` on, in the order of [`CLASSES`].
pub(crate) fn used(row: &Row, first: usize) -> Usage {
    let count = |place: usize| row.count(first + place);
    Usage {
        input: count(0),
        cache_read: count(1),
        cache_write_5m: count(2),
        cache_write_1h: count(3),
        output: count(4),
        reasoning: count(5),
        audio_input: count(6),
        audio_output: count(7),
        web_searches: count(8),
    }
}

/// The first `letters` of a moment in UTC: 10 for its day, 13 for its hour.
pub(crate) fn moment(at_ms: i64, letters: usize) -> String {
    let text =
        Timestamp::from_millisecond(at_ms).map_or_else(|_| String::new(), |at| at.to_string());
    text.get(..letters).unwrap_or_default().to_owned()
}
