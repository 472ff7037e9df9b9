//! Applying records of the journal: any number of times, the same result.

use std::collections::HashSet;

use meter::{Entry, Held, Outcome, Record};
use rusqlite::{Transaction, params};
use wire::RequestId;

use super::{DAY_MS, HOUR_MS, signed};

/// Applies `records` in their order.
pub(super) fn records(transaction: &Transaction<'_>, records: &[Record]) -> rusqlite::Result<()> {
    // A hold that the same group settles never touches the table of open holds.
    let settled: HashSet<(RequestId, u16)> = records
        .iter()
        .filter_map(|record| match record {
            Record::Settle(entry) => Some((entry.held.request, entry.held.attempt)),
            Record::Hold(_) => None,
        })
        .collect();
    for record in records {
        match record {
            Record::Hold(held) if settled.contains(&(held.request, held.attempt)) => {}
            Record::Hold(held) => open(transaction, held)?,
            Record::Settle(entry) => settle(transaction, entry)?,
        }
    }
    Ok(())
}

fn open(transaction: &Transaction<'_>, held: &Held) -> rusqlite::Result<()> {
    let mut statement = transaction.prepare_cached(
        "INSERT INTO hold (request_id, attempt, held) SELECT ?1, ?2, ?3
         WHERE NOT EXISTS (SELECT 1 FROM usage_event
                           WHERE request_id = ?1 AND attempt = ?2 AND kind = 'settle' AND rev = 0)
         ON CONFLICT DO NOTHING",
    )?;
    statement.execute(params![held.request.bytes(), held.attempt, json(held)?])?;
    Ok(())
}

fn settle(transaction: &Transaction<'_>, entry: &Entry) -> rusqlite::Result<()> {
    let held = &entry.held;
    if insert(transaction, entry)? {
        rollup(transaction, UPSERT_HOUR, HOUR_MS, entry)?;
        rollup(transaction, UPSERT_DAY, DAY_MS, entry)?;
    }
    transaction
        .prepare_cached("DELETE FROM hold WHERE request_id = ?1 AND attempt = ?2")?
        .execute(params![held.request.bytes(), held.attempt])?;
    Ok(())
}

/// Whether the entry is new.
fn insert(transaction: &Transaction<'_>, entry: &Entry) -> rusqlite::Result<bool> {
    let mut statement = transaction.prepare_cached(
        "INSERT INTO usage_event (request_id, attempt, kind, rev, tenant, team, project, key, dialect,
             requested, model, endpoint, tier, reason, score_milli, stream, held_at_ms, settled_at_ms,
             first_byte_ms, outcome, status, source, input, cache_read, cache_write_5m,
             cache_write_1h, output, reasoning, audio_input, audio_output, web_searches, price,
             bound_nano, cost_nano, baseline_nano, entry)
         VALUES (?1, ?2, 'settle', 0, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16,
             ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31, ?32, ?33, ?34)
         ON CONFLICT DO NOTHING",
    )?;
    let Entry { held, usage, .. } = entry;
    let subject = &held.subject;
    let changed = statement.execute(params![
        held.request.bytes(),
        held.attempt,
        &*subject.tenant,
        &*subject.team,
        &*subject.project,
        &*subject.key,
        &*held.dialect,
        &*held.requested,
        &*held.model,
        &*held.endpoint,
        held.tier.as_str(),
        &*held.reason,
        held.score_milli,
        held.stream,
        held.held_at_ms,
        entry.settled_at_ms,
        entry.first_byte_ms,
        entry.outcome.as_str(),
        entry.status,
        entry.source.as_str(),
        signed(usage.input),
        signed(usage.cache_read),
        signed(usage.cache_write_5m),
        signed(usage.cache_write_1h),
        signed(usage.output),
        signed(usage.reasoning),
        signed(usage.audio_input),
        signed(usage.audio_output),
        signed(usage.web_searches),
        &*held.price,
        held.bound.0,
        entry.cost.0,
        entry.baseline.0,
        json(entry)?,
    ])?;
    Ok(changed > 0)
}

/// Adds the entry to its hour or day: the one in which its hold was made.
fn rollup(
    transaction: &Transaction<'_>,
    upsert: &str,
    every_ms: i64,
    entry: &Entry,
) -> rusqlite::Result<()> {
    let Entry { held, usage, .. } = entry;
    let subject = &held.subject;
    transaction.prepare_cached(upsert)?.execute(params![
        held.held_at_ms.div_euclid(every_ms) * every_ms,
        &*subject.tenant,
        &*subject.team,
        &*subject.project,
        &*subject.key,
        &*held.model,
        held.tier.as_str(),
        i64::from(entry.outcome == Outcome::Failed),
        signed(usage.input),
        signed(usage.cache_read),
        signed(usage.cache_write_5m),
        signed(usage.cache_write_1h),
        signed(usage.output),
        signed(usage.reasoning),
        signed(usage.audio_input),
        signed(usage.audio_output),
        signed(usage.web_searches),
        entry.cost.0,
        entry.baseline.0,
    ])?;
    Ok(())
}

macro_rules! upsert {
    ($table:literal) => {
        concat!(
            "INSERT INTO ",
            $table,
            " (start_ms, tenant, team, project, key, model, tier, calls, failed, input, cache_read,
                 cache_write_5m, cache_write_1h, output, reasoning, audio_input, audio_output,
                 web_searches, cost_nano, baseline_nano)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 1, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)
             ON CONFLICT DO UPDATE SET
                 calls = calls + 1,
                 failed = failed + excluded.failed,
                 input = input + excluded.input,
                 cache_read = cache_read + excluded.cache_read,
                 cache_write_5m = cache_write_5m + excluded.cache_write_5m,
                 cache_write_1h = cache_write_1h + excluded.cache_write_1h,
                 output = output + excluded.output,
                 reasoning = reasoning + excluded.reasoning,
                 audio_input = audio_input + excluded.audio_input,
                 audio_output = audio_output + excluded.audio_output,
                 web_searches = web_searches + excluded.web_searches,
                 cost_nano = cost_nano + excluded.cost_nano,
                 baseline_nano = baseline_nano + excluded.baseline_nano"
        )
    };
}
const UPSERT_HOUR: &str = upsert!("rollup_hour");
const UPSERT_DAY: &str = upsert!("rollup_day");

fn json(value: &impl serde::Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))
}
