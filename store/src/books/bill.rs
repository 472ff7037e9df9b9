//! Providers' bills as they are kept, the ledger's own days beside them, and what was found.

use meter::NanoUsd;
use meter::books::Capture;
use meter::books::bill::{BillDay, BillRow, Cause, Drift, Imported, Verdict};
use meter::books::statement::Posting;
use wire::RequestId;

use super::{correct, statement};
use crate::ledger::apply::json;
use crate::sql::Kind::{Blob, Int, Text};
use crate::sql::{Insert, Row, Sql, SqlError, Value, flat};

pub(super) fn import(sql: &mut dyn Sql, bill: &Imported) -> Result<(), SqlError> {
    sql.execute(
        "INSERT INTO provider_bill (id, endpoint, imported_at_ms, head) VALUES ($1, $2, $3, $4)
         ON CONFLICT (id) DO UPDATE SET imported_at_ms = excluded.imported_at_ms, head = excluded.head",
        &[
            bill.id.as_str().into(),
            bill.endpoint().into(),
            bill.imported_at_ms.into(),
            json(&Imported {
                days: Vec::new(),
                rows: Vec::new(),
                ..bill.clone()
            })?
            .into(),
        ],
    )?;
    for day in &bill.days {
        let token = |place: usize| day.tokens.and_then(|tokens| tokens.get(place).copied());
        // A file of usage and a file of costs fill in each other's gaps.
        sql.execute(
            "INSERT INTO provider_bill_day
                 (day_ms, endpoint, model, bill, prompt, cached, answer, requests, cost_nano)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             ON CONFLICT (day_ms, endpoint, model) DO UPDATE SET bill = excluded.bill,
                 prompt = COALESCE(excluded.prompt, provider_bill_day.prompt),
                 cached = COALESCE(excluded.cached, provider_bill_day.cached),
                 answer = COALESCE(excluded.answer, provider_bill_day.answer),
                 requests = CASE WHEN excluded.requests > 0 THEN excluded.requests
                                 ELSE provider_bill_day.requests END,
                 cost_nano = COALESCE(excluded.cost_nano, provider_bill_day.cost_nano)",
            &[
                day.day_ms.into(),
                day.endpoint.as_str().into(),
                day.model.as_str().into(),
                bill.id.as_str().into(),
                token(0).into(),
                token(1).into(),
                token(2).into(),
                day.requests.into(),
                day.cost.map(|cost| cost.0).into(),
            ],
        )?;
    }
    import_rows(sql, bill)
}

fn import_rows(sql: &mut dyn Sql, bill: &Imported) -> Result<(), SqlError> {
    let columns = [
        ("bill", Text),
        ("request_id", Blob),
        ("attempt", Int),
        ("model", Text),
        ("prompt", Int),
        ("cached", Int),
        ("answer", Int),
        ("cost_nano", Int),
    ];
    let insert = Insert {
        table: "provider_bill_call",
        columns: &columns,
        rest: "ON CONFLICT DO NOTHING",
    };
    for rows in bill.rows.chunks(1_000) {
        let rows: Vec<Vec<Value>> = rows
            .iter()
            .map(|row| {
                let token = |place: usize| row.tokens.and_then(|tokens| tokens.get(place).copied());
                vec![
                    bill.id.as_str().into(),
                    row.request.bytes().as_slice().into(),
                    i64::from(row.attempt).into(),
                    row.model.as_str().into(),
                    token(0).into(),
                    token(1).into(),
                    token(2).into(),
                    row.cost.0.into(),
                ]
            })
            .collect();
        sql.insert(&insert, &flat(&rows))?;
    }
    Ok(())
}

pub(super) fn all(sql: &mut dyn Sql) -> Result<Vec<Imported>, SqlError> {
    let rows = sql.query(
        "SELECT head FROM provider_bill ORDER BY imported_at_ms DESC, id",
        &[],
    )?;
    rows.iter().map(|row| row.json(0)).collect()
}

pub(super) fn rows(
    sql: &mut dyn Sql,
    bill: &str,
    after: Option<(RequestId, u16)>,
    limit: u32,
) -> Result<Vec<BillRow>, SqlError> {
    let (request, attempt) = after.map_or((Vec::new(), -1), |(request, attempt)| {
        (request.bytes().to_vec(), i64::from(attempt))
    });
    let rows = sql.query(
        "SELECT request_id, attempt, model, prompt, cached, answer, cost_nano FROM provider_bill_call
         WHERE bill = $1 AND (request_id > $2 OR (request_id = $2 AND attempt > $3))
         ORDER BY request_id, attempt LIMIT $4",
        &[
            bill.into(),
            Value::Blob(request),
            attempt.into(),
            correct::limit(limit),
        ],
    )?;
    rows.iter()
        .map(|row| {
            let id = row.bytes(0).try_into();
            let id: [u8; 16] = id.map_err(|_| SqlError("a request id is damaged".to_owned()))?;
            Ok(BillRow {
                request: RequestId::from_bytes(id),
                attempt: u16::try_from(row.int(1)).unwrap_or(0),
                model: row.text(2).to_owned(),
                tokens: tokens(row, 3),
                cost: NanoUsd(row.int(6)),
            })
        })
        .collect()
}

fn tokens(row: &Row, first: usize) -> Option<[i64; 3]> {
    let prompt = row.maybe_int(first)?;
    Some([prompt, row.int(first + 1), row.int(first + 2)])
}

fn day(row: &Row) -> BillDay {
    BillDay {
        day_ms: row.int(0),
        endpoint: row.text(1).to_owned(),
        model: row.text(2).to_owned(),
        tokens: tokens(row, 3),
        requests: row.int(6),
        cost: row.maybe_int(7).map(NanoUsd),
        unpriced: row.int(8),
    }
}

pub(super) fn days(
    sql: &mut dyn Sql,
    from_ms: i64,
    until_ms: i64,
) -> Result<Vec<BillDay>, SqlError> {
    let rows = sql.query(
        "SELECT day_ms, endpoint, model, prompt, cached, answer, requests, cost_nano, 0
         FROM provider_bill_day WHERE day_ms >= $1 AND day_ms < $2 ORDER BY day_ms, endpoint, model",
        &[from_ms.into(), until_ms.into()],
    )?;
    Ok(rows.iter().map(day).collect())
}

/// The ledger's own days, from the rollups, in the tokens that bills count.
pub(super) fn own(
    sql: &mut dyn Sql,
    from_ms: i64,
    until_ms: i64,
) -> Result<Vec<BillDay>, SqlError> {
    let rows = sql.query(
        "SELECT start_ms, endpoint, model,
             CAST(SUM(input + cache_read + cache_write_5m + cache_write_1h + audio_input) AS BIGINT),
             CAST(SUM(cache_read) AS BIGINT),
             CAST(SUM(output + reasoning + audio_output) AS BIGINT),
             CAST(SUM(calls) AS BIGINT), CAST(SUM(cost_nano) AS BIGINT), CAST(SUM(unpriced) AS BIGINT)
         FROM rollup_day WHERE start_ms >= $1 AND start_ms < $2
         GROUP BY start_ms, endpoint, model ORDER BY start_ms, endpoint, model",
        &[from_ms.into(), until_ms.into()],
    )?;
    Ok(rows.iter().map(day).collect())
}

/// Keeps drifts and captures. What is missing here and can not be charged to a tenant is posted to
/// suspense, once for each bill line, and taken back when it is gone.
pub(super) fn keep(sql: &mut dyn Sql, verdict: &Verdict) -> Result<(), SqlError> {
    for drift in &verdict.drifts {
        let difference = drift.difference();
        sql.execute(
            "INSERT INTO reconcile_day (day_ms, endpoint, model, cause, difference_nano, drift)
             VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (day_ms, endpoint, model) DO UPDATE SET cause = excluded.cause,
                 difference_nano = excluded.difference_nano, drift = excluded.drift",
            &[
                drift.day_ms.into(),
                drift.endpoint.as_str().into(),
                drift.model.as_str().into(),
                drift.cause.as_str().into(),
                difference.0.into(),
                json(drift)?.into(),
            ],
        )?;
        let waits = if matches!(drift.cause, Cause::Timing) {
            NanoUsd::ZERO
        } else {
            difference
        };
        for (account, amount) in [("suspense", waits), ("provider_payable", -waits)] {
            statement::post(
                sql,
                &Posting {
                    day_ms: drift.day_ms,
                    tenant: String::new(),
                    account: account.to_owned(),
                    source: format!("bill {}/{}", drift.endpoint, drift.model),
                    amount,
                },
            )?;
        }
    }
    for capture in &verdict.captures {
        sql.execute(
            "INSERT INTO reconcile_capture (endpoint, ratio_ppm, reconciled_at_ms) VALUES ($1, $2, $3)
             ON CONFLICT (endpoint) DO UPDATE SET ratio_ppm = excluded.ratio_ppm,
                 reconciled_at_ms = excluded.reconciled_at_ms",
            &[
                capture.endpoint.as_str().into(),
                capture.ratio_ppm.into(),
                capture.reconciled_at_ms.into(),
            ],
        )?;
    }
    Ok(())
}

pub(super) fn drifts(
    sql: &mut dyn Sql,
    from_ms: i64,
    until_ms: i64,
) -> Result<Vec<Drift>, SqlError> {
    let rows = sql.query(
        "SELECT drift FROM reconcile_day WHERE day_ms >= $1 AND day_ms < $2
         ORDER BY day_ms, endpoint, model",
        &[from_ms.into(), until_ms.into()],
    )?;
    rows.iter().map(|row| row.json(0)).collect()
}

pub(super) fn captures(sql: &mut dyn Sql) -> Result<Vec<Capture>, SqlError> {
    let rows = sql.query(
        "SELECT endpoint, ratio_ppm, reconciled_at_ms FROM reconcile_capture ORDER BY endpoint",
        &[],
    )?;
    Ok(rows
        .iter()
        .map(|row| Capture {
            endpoint: row.text(0).to_owned(),
            ratio_ppm: row.int(1),
            reconciled_at_ms: row.int(2),
        })
        .collect())
}
