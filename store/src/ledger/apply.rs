//! Applying records of the journal: any number of times, in any order, by any node, the same result.

use std::collections::{HashMap, HashSet};

use meter::{Entry, Held, Record};
use wire::RequestId;

use super::sums::{Sums, lane};
use crate::sql::{Insert, Kind, Sql, SqlError, Value, count};

use Kind::{Blob, Int, Text};

/// Columns of an entry, in the order of [`event`].
pub(crate) const EVENT: &[(&str, Kind)] = &[
    ("request_id", Blob),
    ("attempt", Int),
    ("kind", Text),
    ("rev", Int),
    ("at_ms", Int),
    ("node", Text),
    ("tenant", Text),
    ("team", Text),
    ("project", Text),
    ("key", Text),
    ("user_id", Text),
    ("task", Text),
    ("workflow", Text),
    ("dialect", Text),
    ("requested", Text),
    ("model", Text),
    ("endpoint", Text),
    ("tier", Text),
    ("lane", Text),
    ("reason", Text),
    ("score_milli", Int),
    ("stream", Int),
    ("held_at_ms", Int),
    ("settled_at_ms", Int),
    ("first_byte_ms", Int),
    ("outcome", Text),
    ("status", Int),
    ("source", Text),
    ("input", Int),
    ("cache_read", Int),
    ("cache_write_5m", Int),
    ("cache_write_1h", Int),
    ("output", Int),
    ("reasoning", Int),
    ("audio_input", Int),
    ("audio_output", Int),
    ("web_searches", Int),
    ("price", Text),
    ("book", Text),
    ("context_tier", Int),
    ("bound_nano", Int),
    ("cost_nano", Int),
    ("list_nano", Int),
    ("sell_nano", Int),
    ("baseline_nano", Int),
    ("cache_saved_nano", Int),
    ("suspense_nano", Int),
    ("class", Text),
    ("step", Text),
    ("session", Int),
    ("entry", Text),
];

/// Applies `records` in their order, as `node`.
pub(super) fn records(sql: &mut dyn Sql, records: &[Record], node: &str) -> Result<(), SqlError> {
    // A hold that the same group settles never touches the table of open holds.
    let mut settled: HashMap<(RequestId, u16), &Entry> = HashMap::new();
    for record in records {
        if let Record::Settle(entry) = record {
            let at = (entry.held.request, entry.held.attempt);
            settled.entry(at).or_insert(entry);
        }
    }
    let mut open = Vec::new();
    for record in records {
        if let Record::Hold(held) = record
            && !settled.contains_key(&(held.request, held.attempt))
        {
            open.push(&**held);
        }
    }
    // One writer at a time: sequence numbers are committed in order, and no two writers meet in the
    // rollups' rows in different orders.
    sql.lock("ledger")?;
    holds(sql, &open, node)?;
    let entries: Vec<&Entry> = settled.values().copied().collect();
    settle(sql, entries, node)
}

fn holds(sql: &mut dyn Sql, open: &[&Held], node: &str) -> Result<(), SqlError> {
    if open.is_empty() {
        return Ok(());
    }
    let done = settled_before(sql, open)?;
    let mut rows = Vec::with_capacity(open.len());
    for held in open {
        let request = held.request.bytes().to_vec();
        let attempt = i64::from(held.attempt);
        if !done.contains(&(request.clone(), attempt)) {
            rows.push(vec![
                Value::Blob(request),
                attempt.into(),
                json(held)?.into(),
                node.into(),
            ]);
        }
    }
    let columns = [
        ("request_id", Blob),
        ("attempt", Int),
        ("held", Text),
        ("node", Text),
    ];
    let insert = Insert {
        table: "hold",
        columns: &columns,
        rest: "ON CONFLICT DO NOTHING",
    };
    sql.insert(&insert, &rows).map(|_| ())
}

/// Which of these are settled already: a settlement may come before its hold.
fn settled_before(sql: &mut dyn Sql, open: &[&Held]) -> Result<HashSet<(Vec<u8>, i64)>, SqlError> {
    let at = || open.iter().map(|held| held.request.unix_ms());
    let mut values: Vec<Value> = vec![
        at().min().unwrap_or(0).into(),
        at().max().unwrap_or(0).into(),
    ];
    values.extend(
        open.iter()
            .map(|held| Value::from(held.request.bytes().as_slice())),
    );
    // A few lengths only, so that statements stay prepared.
    let last = values.last().cloned().unwrap_or(Value::Null);
    values.resize(2 + open.len().next_power_of_two(), last);
    let places: Vec<String> = (3..=values.len()).map(|n| format!("${n}")).collect();
    let asked = format!(
        "SELECT request_id, attempt FROM usage_event
         WHERE kind = 'settle' AND rev = 0 AND at_ms BETWEEN $1 AND $2 AND request_id IN ({})",
        places.join(", ")
    );
    let rows = sql.query(&asked, &values)?;
    Ok(rows
        .iter()
        .map(|row| (row.bytes(0).to_vec(), row.int(1)))
        .collect())
}

/// Writes entries; those that were there before change nothing.
fn settle(sql: &mut dyn Sql, mut entries: Vec<&Entry>, node: &str) -> Result<(), SqlError> {
    if entries.is_empty() {
        return Ok(());
    }
    entries.sort_by_key(|entry| (entry.held.request, entry.held.attempt));
    sql.partitions(&mut entries.iter().map(|entry| entry.held.request.unix_ms()))?;
    let mut rows = Vec::with_capacity(entries.len());
    for entry in &entries {
        rows.push(event(entry, node)?);
    }
    let insert = Insert {
        table: "usage_event",
        columns: EVENT,
        rest: "ON CONFLICT DO NOTHING RETURNING request_id, attempt",
    };
    let new: HashSet<(Vec<u8>, i64)> = sql
        .insert(&insert, &rows)?
        .iter()
        .map(|row| (row.bytes(0).to_vec(), row.int(1)))
        .collect();
    entries.retain(|entry| {
        let key = (
            entry.held.request.bytes().to_vec(),
            i64::from(entry.held.attempt),
        );
        new.contains(&key)
    });
    let mut sums = Sums::default();
    for entry in &entries {
        sums.add(entry, node);
    }
    sums.write(sql)?;
    close(sql, &rows)
}

/// Removes the open holds of entries. Few are open at any time, so they are all looked at.
fn close(sql: &mut dyn Sql, rows: &[Vec<Value>]) -> Result<(), SqlError> {
    let settled: HashSet<(&Value, &Value)> = rows
        .iter()
        .filter_map(|row| Some((row.first()?, row.get(1)?)))
        .collect();
    for row in sql.query("SELECT request_id, attempt FROM hold", &[])? {
        if let [request, attempt] = row.0.as_slice()
            && settled.contains(&(request, attempt))
        {
            sql.execute(
                "DELETE FROM hold WHERE request_id = $1 AND attempt = $2",
                &row.0,
            )?;
        }
    }
    Ok(())
}

/// The row of an entry.
pub(crate) fn event(entry: &Entry, node: &str) -> Result<Vec<Value>, SqlError> {
    let Entry { held, usage, .. } = entry;
    let subject = &held.subject;
    let text = |text: &str| Value::from(text);
    Ok(vec![
        held.request.bytes().as_slice().into(),
        i64::from(held.attempt).into(),
        text("settle"),
        Value::Int(0),
        held.request.unix_ms().into(),
        text(node),
        text(&subject.tenant),
        text(&subject.team),
        text(&subject.project),
        text(&subject.key),
        text(&subject.user),
        text(&subject.task),
        text(&subject.workflow),
        text(&held.dialect),
        text(&held.requested),
        text(&held.model),
        text(&held.endpoint),
        text(held.tier.as_str()),
        text(lane(held)),
        text(&held.reason),
        held.score_milli.map(i64::from).into(),
        i64::from(held.stream).into(),
        held.held_at_ms.into(),
        entry.settled_at_ms.into(),
        entry.first_byte_ms.map(i64::from).into(),
        text(entry.outcome.as_str()),
        i64::from(entry.status).into(),
        text(entry.source.as_str()),
        count(usage.input),
        count(usage.cache_read),
        count(usage.cache_write_5m),
        count(usage.cache_write_1h),
        count(usage.output),
        count(usage.reasoning),
        count(usage.audio_input),
        count(usage.audio_output),
        count(usage.web_searches),
        text(&held.price),
        text(&held.book),
        count(entry.context_tier),
        held.bound.0.into(),
        entry.cost.0.into(),
        entry.list.0.into(),
        entry.sell.0.into(),
        entry.baseline.0.into(),
        entry.cache_saved.0.into(),
        entry.suspense.0.into(),
        text(held.routing.as_ref().map_or("", |it| &it.class)),
        text(held.routing.as_ref().map_or("", |it| &it.step)),
        held.session.cast_signed().into(),
        json(entry)?.into(),
    ])
}

pub(crate) fn json(value: &impl serde::Serialize) -> Result<String, SqlError> {
    serde_json::to_string(value).map_err(|error| SqlError(error.to_string()))
}
