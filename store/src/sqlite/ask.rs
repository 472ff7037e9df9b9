//! Questions to the ledger. Sums come from rollups, single calls from the entries.

use std::fmt::Write;
use std::sync::Arc;

use meter::ledger::{Dimension, KeyRow, Spent, UsageQuery, UsageRow};
use meter::{Entry, Held, NanoUsd};
use rusqlite::types::Value;
use rusqlite::{Connection, Row, params, params_from_iter};
use serde::de::DeserializeOwned;
use wire::{RequestId, Usage};

use super::{DAY_MS, unsigned};

pub(super) fn spent(connection: &Connection, from_ms: i64) -> rusqlite::Result<Vec<Spent>> {
    let mut statement = connection.prepare_cached(
        "SELECT tenant, team, project, key, SUM(cost_nano) FROM rollup_hour
         WHERE start_ms >= ?1 GROUP BY tenant, team, project, key",
    )?;
    let text = |row: &Row<'_>, column: usize| row.get::<_, String>(column).map(Arc::from);
    statement
        .query_map([from_ms], |row| {
            Ok(Spent {
                tenant: text(row, 0)?,
                team: text(row, 1)?,
                project: text(row, 2)?,
                key: text(row, 3)?,
                cost: NanoUsd(row.get(4)?),
            })
        })?
        .collect()
}

pub(super) fn open_holds(connection: &Connection) -> rusqlite::Result<Vec<Held>> {
    let mut statement = connection.prepare_cached("SELECT held FROM hold")?;
    statement.query_map([], |row| json(row, 0))?.collect()
}

pub(super) fn call(
    connection: &Connection,
    request: RequestId,
) -> rusqlite::Result<(Vec<Entry>, Vec<Held>)> {
    let sql = "SELECT entry FROM usage_event WHERE request_id = ?1 ORDER BY attempt, rev";
    let mut statement = connection.prepare_cached(sql)?;
    let entries = statement.query_map([request.bytes()], |row| json(row, 0))?;
    let entries = entries.collect::<rusqlite::Result<_>>()?;
    let mut statement = connection.prepare_cached("SELECT held FROM hold WHERE request_id = ?1")?;
    let open = statement.query_map([request.bytes()], |row| json(row, 0))?;
    Ok((entries, open.collect::<rusqlite::Result<_>>()?))
}

pub(super) fn latest(connection: &Connection, limit: u32) -> rusqlite::Result<Vec<Entry>> {
    let sql = "SELECT entry FROM usage_event ORDER BY seq DESC LIMIT ?1";
    let mut statement = connection.prepare_cached(sql)?;
    statement.query_map([limit], |row| json(row, 0))?.collect()
}

pub(super) fn keys(connection: &Connection) -> rusqlite::Result<Vec<KeyRow>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, hmac, tenant, team, project, label, created_at_ms, revoked_at_ms FROM api_key
         ORDER BY created_at_ms, id",
    )?;
    statement
        .query_map(params![], |row| {
            Ok(KeyRow {
                id: row.get(0)?,
                hmac: row.get(1)?,
                tenant: row.get(2)?,
                team: row.get(3)?,
                project: row.get(4)?,
                label: row.get(5)?,
                created_at_ms: row.get(6)?,
                revoked_at_ms: row.get(7)?,
            })
        })?
        .collect()
}

/// Days are summed from the smaller table; hours are needed only where the question says so.
pub(super) fn usage(
    connection: &Connection,
    query: &UsageQuery,
) -> rusqlite::Result<Vec<UsageRow>> {
    let ends = [query.from_ms, query.until_ms];
    let by_day = ends.iter().flatten().all(|ms| ms.rem_euclid(DAY_MS) == 0)
        && !query.by.contains(&Dimension::Hour);
    let columns: Vec<&str> = query
        .by
        .iter()
        .map(|dimension| column(*dimension))
        .collect();
    let mut sql = String::from("SELECT ");
    for column in &columns {
        sql.push_str(column);
        sql.push_str(", ");
    }
    // Table and column names come from the constants here, values are bound.
    sql.push_str(
        "SUM(calls), SUM(failed), SUM(input), SUM(cache_read), SUM(cache_write_5m),
         SUM(cache_write_1h), SUM(output), SUM(reasoning), SUM(audio_input), SUM(audio_output),
         SUM(web_searches), SUM(cost_nano), SUM(baseline_nano) FROM ",
    );
    sql.push_str(if by_day { "rollup_day" } else { "rollup_hour" });
    sql.push_str(" WHERE 1");
    let mut values: Vec<Value> = Vec::new();
    for (condition, value) in [
        ("start_ms >= ", query.from_ms.map(Value::from)),
        ("start_ms < ", query.until_ms.map(Value::from)),
        ("tenant = ", query.tenant.clone().map(Value::from)),
    ] {
        if let Some(value) = value {
            values.push(value);
            // Writing to a String can not fail.
            let _written = write!(sql, " AND {condition}?{}", values.len());
        }
    }
    if !columns.is_empty() {
        let places: Vec<String> = (1..=columns.len()).map(|place| place.to_string()).collect();
        let places = places.join(", ");
        let _written = write!(sql, " GROUP BY {places} ORDER BY {places}");
    }
    let mut statement = connection.prepare(&sql)?;
    let rows = statement.query_map(params_from_iter(values), |row| {
        usage_row(row, columns.len())
    })?;
    // Without a group and without rows, SQL answers one row of nulls.
    rows.filter(|row| !matches!(row, Ok(row) if row.calls == 0))
        .collect()
}

fn column(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::Tenant => "tenant",
        Dimension::Team => "team",
        Dimension::Project => "project",
        Dimension::Key => "key",
        Dimension::Model => "model",
        Dimension::Tier => "tier",
        Dimension::Day => "strftime('%Y-%m-%d', start_ms / 1000, 'unixepoch')",
        Dimension::Hour => "strftime('%Y-%m-%dT%H', start_ms / 1000, 'unixepoch')",
    }
}

fn usage_row(row: &Row<'_>, dimensions: usize) -> rusqlite::Result<UsageRow> {
    let group = (0..dimensions)
        .map(|place| row.get(place))
        .collect::<rusqlite::Result<_>>()?;
    let sum = |place: usize| {
        row.get::<_, Option<i64>>(dimensions + place)
            .map(|s| s.unwrap_or(0))
    };
    let count = |place: usize| sum(place).map(unsigned);
    Ok(UsageRow {
        group,
        calls: count(0)?,
        failed: count(1)?,
        usage: Usage {
            input: count(2)?,
            cache_read: count(3)?,
            cache_write_5m: count(4)?,
            cache_write_1h: count(5)?,
            output: count(6)?,
            reasoning: count(7)?,
            audio_input: count(8)?,
            audio_output: count(9)?,
            web_searches: count(10)?,
        },
        cost: NanoUsd(sum(11)?),
        baseline: NanoUsd(sum(12)?),
    })
}

fn json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|error| {
        let kind = rusqlite::types::Type::Text;
        rusqlite::Error::FromSqlConversionFailure(column, kind, Box::new(error))
    })
}
