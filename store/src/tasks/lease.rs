//! Leases on tasks: claimed, prolonged, given back. A lease that has run out may still be prolonged as
//! long as nobody has claimed the task since; the epoch, not the time, says who may append.

use orchestrator::id::TaskId;
use orchestrator::log::{Claim, Head, Renewed};

use super::{digest_at, id_at, id_value};
use crate::sql::{Sql, SqlError, count};

/// Takes up to `limit` tasks, those first that have waited longest.
pub(super) fn claim(
    sql: &mut dyn Sql,
    node: &str,
    now_ms: i64,
    until_ms: i64,
    limit: u32,
) -> Result<Vec<Claim>, SqlError> {
    let text = format!(
        "WITH picked AS (
             SELECT id AS picked_id FROM task_row
             WHERE ended = 0 AND wake_at_ms IS NOT NULL AND wake_at_ms <= $3 AND leased_until_ms <= $3
             ORDER BY wake_at_ms, id LIMIT $4 {}
         )
         UPDATE task_row SET epoch = epoch + 1, leased_by = $1, leased_until_ms = $2
         FROM picked WHERE id = picked_id RETURNING wake_at_ms, id, epoch",
        sql.skipping_picked()
    );
    let rows = sql.query(
        &text,
        &[
            node.into(),
            until_ms.into(),
            now_ms.into(),
            i64::from(limit).into(),
        ],
    )?;
    let mut claims = Vec::with_capacity(rows.len());
    for row in &rows {
        let claim = Claim {
            task: id_at(row, 1)?,
            epoch: row.count(2),
            until_ms,
        };
        claims.push((row.int(0), claim));
    }
    claims.sort_by_key(|(wake, claim)| (*wake, claim.task));
    Ok(claims.into_iter().map(|(_, claim)| claim).collect())
}

/// Prolongs what of `held` is held still, and answers in its order.
pub(super) fn renew(
    sql: &mut dyn Sql,
    node: &str,
    held: &[(TaskId, u64)],
    until_ms: i64,
) -> Result<Vec<Renewed>, SqlError> {
    // Two that renew the same tasks would else wait for each other.
    let mut in_order: Vec<(usize, (TaskId, u64))> = held.iter().copied().enumerate().collect();
    in_order.sort_by_key(|(_, (task, _))| *task);
    let mut renewed = Vec::with_capacity(held.len());
    for (place, (task, epoch)) in in_order {
        renewed.push((place, renew_one(sql, node, task, epoch, until_ms)?));
    }
    renewed.sort_by_key(|(place, _)| *place);
    Ok(renewed.into_iter().map(|(_, renewed)| renewed).collect())
}

fn renew_one(
    sql: &mut dyn Sql,
    node: &str,
    task: TaskId,
    epoch: u64,
    until_ms: i64,
) -> Result<Renewed, SqlError> {
    let kept = sql.query(
        "UPDATE task_row SET leased_until_ms = $1 WHERE id = $2 AND epoch = $3 AND leased_by = $4
         RETURNING head_seq, head_hash",
        &[until_ms.into(), id_value(task), count(epoch), node.into()],
    )?;
    let is_kept = !kept.is_empty();
    let rows = if is_kept {
        kept
    } else {
        sql.query(
            "SELECT head_seq, head_hash FROM task_row WHERE id = $1",
            &[id_value(task)],
        )?
    };
    let head = match rows.first() {
        Some(row) => Head {
            seq: row.count(0),
            hash: digest_at(row, 1)?,
        },
        None => Head::default(),
    };
    Ok(Renewed {
        task,
        until_ms: is_kept.then_some(until_ms),
        head,
    })
}

/// Gives a lease back, unless the task was claimed since.
pub(super) fn release(sql: &mut dyn Sql, task: TaskId, epoch: u64) -> Result<(), SqlError> {
    sql.execute(
        "UPDATE task_row SET leased_by = '', leased_until_ms = 0 WHERE id = $1 AND epoch = $2",
        &[id_value(task), count(epoch)],
    )
    .map(|_| ())
}

/// Gives back whatever `node` holds; tells how many tasks that were.
pub(super) fn release_all(sql: &mut dyn Sql, node: &str) -> Result<u64, SqlError> {
    sql.execute(
        "UPDATE task_row SET leased_by = '', leased_until_ms = 0
         WHERE ended = 0 AND wake_at_ms IS NOT NULL AND leased_by = $1",
        &[node.into()],
    )
}
