//! Questions to the entries with their corrections: balances, rows, sums by hour.

use std::collections::HashMap;
use std::fmt::Write;

use meter::books::change::Change;
use meter::books::{Balance, Cell, Correction, EVENT_COLUMNS, Group, Span};
use wire::RequestId;

use super::correct::{self, read_change, sum_columns};
use crate::ledger::ask::entry;
use crate::sql::{Row, Sql, SqlError, Value};

/// Rows that begin a balance: entries, and first late rows of calls without one.
const BEGINS: &str = "(kind = 'settle' OR (kind = 'late' AND rev = 1 AND NOT EXISTS (
    SELECT 1 FROM usage_event s WHERE s.request_id = usage_event.request_id
    AND s.attempt = usage_event.attempt AND s.kind = 'settle' AND s.rev = 0)))";

pub(super) fn balances(
    sql: &mut dyn Sql,
    span: &Span,
    after: i64,
    limit: u32,
) -> Result<Vec<Balance>, SqlError> {
    let mut asked = Asked::new(span);
    asked.and("seq > ", after.into());
    let place = asked.place(correct::limit(limit));
    let rows = sql.query(
        &format!(
            "SELECT kind, seq, entry, packed FROM usage_event WHERE {BEGINS} AND {} ORDER BY seq LIMIT {place}",
            asked.text
        ),
        &asked.values,
    )?;
    let mut found = rows.iter().map(balance).collect::<Result<Vec<_>, _>>()?;
    add_corrections(sql, &mut found)?;
    Ok(found)
}

/// Every attempt of these calls, as it stands.
pub(super) fn of_requests(
    sql: &mut dyn Sql,
    requests: &[RequestId],
) -> Result<Vec<Balance>, SqlError> {
    let mut found = Vec::new();
    for some in requests.chunks(500) {
        let (places, values) = these(some);
        let rows = sql.query(
            &format!(
                "SELECT kind, seq, entry, packed FROM usage_event
                 WHERE (at_ms BETWEEN $1 AND $2 OR at_ms = 0) AND request_id IN ({places})
                 AND {BEGINS} ORDER BY seq"
            ),
            &values,
        )?;
        for row in &rows {
            found.push(balance(row)?);
        }
    }
    add_corrections(sql, &mut found)?;
    Ok(found)
}

/// Places and values for calls by id, with the span of their arrivals first.
fn these(requests: &[RequestId]) -> (String, Vec<Value>) {
    let at = || requests.iter().map(RequestId::unix_ms);
    let mut values: Vec<Value> = vec![
        at().min().unwrap_or(0).into(),
        at().max().unwrap_or(0).into(),
    ];
    values.extend(requests.iter().map(|it| Value::from(it.bytes().as_slice())));
    let last = values.last().cloned().unwrap_or(Value::Null);
    values.resize(2 + requests.len().next_power_of_two(), last);
    let places: Vec<String> = (3..=values.len()).map(|n| format!("${n}")).collect();
    (places.join(", "), values)
}

fn balance(row: &Row) -> Result<Balance, SqlError> {
    let settled = row.text(0) == "settle";
    let entry = if settled {
        entry(row, 2)?
    } else {
        let late: Correction = row.json(2)?;
        let held = late
            .held
            .as_ref()
            .ok_or_else(|| SqlError(format!("correction {} has no call", late.id)))?;
        correct::stranger(held, &late)
    };
    Ok(Balance {
        settled,
        seq: row.int(1),
        now: Change::of(&entry),
        price: entry.held.price.to_string(),
        source: entry.source,
        kinds: Vec::new(),
        entry,
    })
}

fn add_corrections(sql: &mut dyn Sql, found: &mut [Balance]) -> Result<(), SqlError> {
    let mut by_call: HashMap<(RequestId, u16), usize> = HashMap::new();
    for (place, balance) in found.iter().enumerate() {
        let held = &balance.entry.held;
        by_call.insert((held.request, held.attempt), place);
    }
    let mut requests: Vec<RequestId> = by_call.keys().map(|(request, _)| *request).collect();
    requests.sort();
    requests.dedup();
    for some in requests.chunks(500) {
        let (places, values) = these(some);
        let rows = sql.query(
            &format!(
                "SELECT entry FROM usage_event
                 WHERE (at_ms BETWEEN $1 AND $2 OR at_ms = 0) AND request_id IN ({places})
                 AND kind <> 'settle' ORDER BY seq"
            ),
            &values,
        )?;
        for row in &rows {
            let correction: Correction = row.json(0)?;
            let key = (correction.request, correction.attempt);
            if let Some(balance) = by_call.get(&key).and_then(|place| found.get_mut(*place)) {
                correct::add(balance, &correction);
            }
        }
    }
    Ok(())
}

/// Entries and corrections as they are exported.
pub(super) fn events(
    sql: &mut dyn Sql,
    span: &Span,
    after: i64,
    limit: u32,
) -> Result<Vec<Vec<Cell>>, SqlError> {
    let mut asked = Asked::new(span);
    asked.and("seq > ", after.into());
    let place = asked.place(correct::limit(limit));
    let columns: Vec<&str> = EVENT_COLUMNS.iter().map(|(name, _)| *name).collect();
    let rows = sql.query(
        &format!(
            "SELECT {} FROM usage_event WHERE {} ORDER BY seq LIMIT {place}",
            columns.join(", "),
            asked.text
        ),
        &asked.values,
    )?;
    let cell = |value: &Value| match value {
        Value::Null => Cell::Null,
        Value::Int(int) => Cell::Int(*int),
        Value::Text(text) => Cell::Text(text.clone()),
        Value::Blob(bytes) => Cell::Text(
            <[u8; 16]>::try_from(bytes.as_slice())
                .map(|id| RequestId::from_bytes(id).to_string())
                .unwrap_or_default(),
        ),
    };
    Ok(rows
        .iter()
        .map(|row| row.0.iter().map(cell).collect())
        .collect())
}

/// Sums by hour and everything else that tells rows apart.
pub(super) fn groups(sql: &mut dyn Sql, span: &Span) -> Result<Vec<Group>, SqlError> {
    let asked = Asked::new(span);
    let key =
        "held_at_ms - held_at_ms % 3600000, tenant, team, project, key, model, endpoint, lane,
               price, context_tier, kind, source";
    let rows = sql.query(
        &format!(
            "SELECT {key}, CAST(COUNT(*) AS BIGINT), {} FROM usage_event WHERE {}
             GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12
             ORDER BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12",
            sum_columns(),
            asked.text
        ),
        &asked.values,
    )?;
    let text = |row: &Row, place: usize| row.text(place).to_owned();
    Ok(rows
        .iter()
        .map(|row| Group {
            start_ms: row.int(0),
            tenant: text(row, 1),
            team: text(row, 2),
            project: text(row, 3),
            key: text(row, 4),
            model: text(row, 5),
            endpoint: text(row, 6),
            lane: text(row, 7),
            price: text(row, 8),
            context_tier: row.count(9),
            kind: text(row, 10),
            source: text(row, 11),
            rows: row.count(12),
            change: read_change(row, 13),
        })
        .collect())
}

/// The conditions of a span, with their values.
struct Asked {
    text: String,
    values: Vec<Value>,
}

impl Asked {
    fn new(span: &Span) -> Self {
        let mut asked = Self {
            text: "held_at_ms >= $1 AND held_at_ms < $2".to_owned(),
            values: vec![span.from_ms.into(), span.until_ms.into()],
        };
        if let Some(tenant) = &span.tenant {
            asked.and("tenant = ", tenant.as_str().into());
        }
        if let Some(model) = &span.model {
            asked.and("model = ", model.as_str().into());
        }
        if !span.endpoints.is_empty() {
            let endpoints = span.endpoints.iter().map(|name| Value::from(name.as_str()));
            let places: Vec<String> = endpoints.map(|name| asked.place(name)).collect();
            // Writing to a String can not fail.
            let _written = write!(asked.text, " AND endpoint IN ({})", places.join(", "));
        }
        asked
    }

    fn and(&mut self, condition: &str, value: Value) {
        let place = self.place(value);
        let _written = write!(self.text, " AND {condition}{place}");
    }

    fn place(&mut self, value: Value) -> String {
        self.values.push(value);
        format!("${}", self.values.len())
    }
}
