//! What is to be told to others, and how far each listener has been told of the entries.

use meter::books::Due;

use super::correct;
use crate::sql::{Sql, SqlError};

/// Takes what is due, and sets it aside for as long as its delivery may take: of several nodes only
/// one tries at a time, and what a dead one took comes back.
pub(super) fn claim(
    sql: &mut dyn Sql,
    now_ms: i64,
    lease_ms: i64,
    limit: u32,
) -> Result<Vec<Due>, SqlError> {
    sql.lock("outbox")?;
    let rows = sql.query(
        "SELECT id, topic, payload, created_at_ms, attempts FROM outbox
         WHERE delivered_at_ms IS NULL AND next_at_ms <= $1 ORDER BY next_at_ms, id LIMIT $2",
        &[now_ms.into(), correct::limit(limit)],
    )?;
    let due: Vec<Due> = rows
        .iter()
        .map(|row| Due {
            id: row.text(0).to_owned(),
            topic: row.text(1).to_owned(),
            payload: row.text(2).to_owned(),
            created_at_ms: row.int(3),
            attempts: u32::try_from(row.int(4)).unwrap_or(0),
        })
        .collect();
    for event in &due {
        sql.execute(
            "UPDATE outbox SET next_at_ms = $2, attempts = attempts + 1 WHERE id = $1",
            &[event.id.as_str().into(), (now_ms + lease_ms).into()],
        )?;
    }
    Ok(due)
}

pub(super) fn delivered(sql: &mut dyn Sql, id: &str, at_ms: i64) -> Result<(), SqlError> {
    sql.execute(
        "UPDATE outbox SET delivered_at_ms = $2, error = '' WHERE id = $1",
        &[id.into(), at_ms.into()],
    )
    .map(|_| ())
}

pub(super) fn failed(
    sql: &mut dyn Sql,
    id: &str,
    next_at_ms: i64,
    error: &str,
) -> Result<(), SqlError> {
    sql.execute(
        "UPDATE outbox SET next_at_ms = $2, error = $3 WHERE id = $1 AND delivered_at_ms IS NULL",
        &[id.into(), next_at_ms.into(), error.into()],
    )
    .map(|_| ())
}

pub(super) fn told(sql: &mut dyn Sql, listener: &str) -> Result<i64, SqlError> {
    let rows = sql.query(
        "SELECT seq FROM webhook_cursor WHERE listener = $1",
        &[listener.into()],
    )?;
    Ok(rows.first().map_or(0, |row| row.int(0)))
}

pub(super) fn tell_up_to(sql: &mut dyn Sql, listener: &str, seq: i64) -> Result<(), SqlError> {
    sql.execute(
        "INSERT INTO webhook_cursor (listener, seq) VALUES ($1, $2)
         ON CONFLICT (listener) DO UPDATE SET seq = excluded.seq",
        &[listener.into(), seq.into()],
    )
    .map(|_| ())
}
