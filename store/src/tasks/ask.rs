//! What is asked of tasks without changing them: rows, events, blobs and audit links.

use orchestrator::digest::Digest;
use orchestrator::id::TaskId;
use orchestrator::log::{Filter, Head, Link, Recorded, TaskRow};

use super::{digest_at, digest_value, id_at, id_value};
use crate::sql::{Row, Sql, SqlError, Value, count};

const ROW: &str = "id, tenant, status, ended, head_seq, head_hash, wake_at_ms, epoch, leased_by, \
                   leased_until_ms, created_at_ms, updated_at_ms, summary";

/// Events of a task behind `after`, in order.
pub(super) fn events(
    sql: &mut dyn Sql,
    task: TaskId,
    after: u64,
    limit: u32,
) -> Result<Vec<Recorded>, SqlError> {
    let rows = sql.query(
        "SELECT seq, at_ms, epoch, actor, kind, v, payload, payload_hash, hash FROM task_event
         WHERE task_id = $1 AND seq > $2 ORDER BY seq LIMIT $3",
        &[id_value(task), count(after), i64::from(limit).into()],
    )?;
    let event = |row: &Row| {
        let payload = match row.0.get(6) {
            Some(Value::Text(text)) => Some(text.clone()),
            _ => None,
        };
        Ok(Recorded {
            seq: row.count(0),
            at_ms: row.int(1),
            epoch: row.count(2),
            actor: row.text(3).to_owned(),
            kind: row.text(4).to_owned(),
            v: u16::try_from(row.int(5)).unwrap_or(u16::MAX),
            payload,
            payload_hash: digest_at(row, 7)?,
            hash: digest_at(row, 8)?,
        })
    };
    rows.iter().map(event).collect()
}

/// The row of a task.
pub(super) fn task(sql: &mut dyn Sql, task: TaskId) -> Result<Option<TaskRow>, SqlError> {
    let rows = sql.query(
        &format!("SELECT {ROW} FROM task_row WHERE id = $1"),
        &[id_value(task)],
    )?;
    rows.first().map(read).transpose()
}

/// Rows, newest first: ids begin with when they were made.
pub(super) fn list(sql: &mut dyn Sql, filter: &Filter) -> Result<Vec<TaskRow>, SqlError> {
    let mut values = vec![Value::from(i64::from(filter.limit))];
    let mut wheres = vec!["1 = 1".to_owned()];
    if let Some(tenant) = &filter.tenant {
        values.push(tenant.as_str().into());
        wheres.push(format!("tenant = ${}", values.len()));
    }
    if let Some(before) = filter.before {
        values.push(id_value(before));
        wheres.push(format!("id < ${}", values.len()));
    }
    if !filter.statuses.is_empty() {
        let first = values.len() + 1;
        values.extend(filter.statuses.iter().map(|status| status.as_str().into()));
        let places: Vec<String> = (first..=values.len()).map(|n| format!("${n}")).collect();
        wheres.push(format!("status IN ({})", places.join(", ")));
    }
    let text = format!(
        "SELECT {ROW} FROM task_row WHERE {} ORDER BY id DESC LIMIT $1",
        wheres.join(" AND ")
    );
    sql.query(&text, &values)?.iter().map(read).collect()
}

/// Tasks by status.
pub(super) fn counts(
    sql: &mut dyn Sql,
    tenant: Option<&str>,
) -> Result<Vec<(String, u64)>, SqlError> {
    let (named, values) = match tenant {
        Some(tenant) => ("WHERE tenant = $1", vec![Value::from(tenant)]),
        None => ("", Vec::new()),
    };
    let rows = sql.query(
        &format!(
            "SELECT status, CAST(COUNT(*) AS BIGINT) FROM task_row {named} GROUP BY 1 ORDER BY 1"
        ),
        &values,
    )?;
    let one = |row: &Row| (row.text(0).to_owned(), row.count(1));
    Ok(rows.iter().map(one).collect())
}

fn read(row: &Row) -> Result<TaskRow, SqlError> {
    Ok(TaskRow {
        id: id_at(row, 0)?,
        tenant: row.text(1).to_owned(),
        status: row.text(2).to_owned(),
        ended: row.int(3) != 0,
        head: Head {
            seq: row.count(4),
            hash: digest_at(row, 5)?,
        },
        wake_at_ms: row.maybe_int(6),
        epoch: row.count(7),
        leased_by: row.text(8).to_owned(),
        leased_until_ms: row.int(9),
        created_at_ms: row.int(10),
        updated_at_ms: row.int(11),
        summary: row.text(12).to_owned(),
    })
}

/// The bytes of a digest.
pub(super) fn blob(
    sql: &mut dyn Sql,
    task: TaskId,
    digest: Digest,
) -> Result<Option<Vec<u8>>, SqlError> {
    let rows = sql.query(
        "SELECT bytes FROM task_blob WHERE task_id = $1 AND digest = $2",
        &[id_value(task), digest_value(digest)],
    )?;
    Ok(rows.first().map(|row| row.bytes(0).to_vec()))
}

/// Links of a tenant's audit chain behind `after`, in order.
pub(super) fn links(
    sql: &mut dyn Sql,
    tenant: &str,
    after: u64,
    limit: u32,
) -> Result<Vec<Link>, SqlError> {
    let rows = sql.query(
        "SELECT n, task_id, head_seq, head_hash, at_ms, hash FROM task_link
         WHERE tenant = $1 AND n > $2 ORDER BY n LIMIT $3",
        &[tenant.into(), count(after), i64::from(limit).into()],
    )?;
    let link = |row: &Row| {
        Ok(Link {
            tenant: tenant.to_owned(),
            n: row.count(0),
            task: id_at(row, 1)?,
            head: Head {
                seq: row.count(2),
                hash: digest_at(row, 3)?,
            },
            at_ms: row.int(4),
            hash: digest_at(row, 5)?,
        })
    };
    rows.iter().map(link).collect()
}

/// Tenants that have a chain, by one step of the index each: a chain may have millions of links.
pub(super) fn tenants(sql: &mut dyn Sql) -> Result<Vec<String>, SqlError> {
    let rows = sql.query(
        "WITH RECURSIVE chain (tenant) AS (
             SELECT MIN(tenant) FROM task_link
             UNION ALL
             SELECT (SELECT MIN(task_link.tenant) FROM task_link WHERE task_link.tenant > chain.tenant)
             FROM chain WHERE chain.tenant IS NOT NULL
         ) SELECT tenant FROM chain WHERE tenant IS NOT NULL",
        &[],
    )?;
    Ok(rows.iter().map(|row| row.text(0).to_owned()).collect())
}
