//! Records beside the logs: each change is one statement whose count says whether the record was as
//! expected.

use orchestrator::log::{AppendError, Change, Expected, Kind, Record, To};

use super::{Refused, id_at, id_value};
use crate::sql::{Row, Sql, SqlError, Value, count};

const COLUMNS: &str = "kind, tenant, id, version, task_id, due_at_ms, body";

/// Makes all changes; the first that is refused undoes them with its transaction. In the order of their
/// places, so that two who change the same records do not wait for each other in a circle.
pub(super) fn change(sql: &mut dyn Sql, changes: &[Change]) -> Result<(), Refused> {
    let mut in_order: Vec<&Change> = changes.iter().collect();
    in_order.sort_by(|one, other| {
        let place = |it: &Change| (it.kind, it.tenant.clone(), it.id.clone());
        place(one).cmp(&place(other))
    });
    for change in in_order {
        let is_made = match (&change.to, change.expected) {
            (Some(to), Expected::Absent) => add(sql, change, to)?,
            (Some(to), Expected::Version(version)) => replace(sql, change, to, version)?,
            (Some(to), Expected::Any) => put(sql, change, to)?,
            (None, Expected::Absent) => is_absent(sql, change)?,
            (None, Expected::Version(version)) => remove(sql, change, Some(version))?,
            (None, Expected::Any) => {
                remove(sql, change, None)?;
                true
            }
        };
        if !is_made {
            return Err(AppendError::Changed(change.kind, change.id.clone()).into());
        }
    }
    Ok(())
}

/// Kind, tenant and id; what it becomes; and a version where a statement asks for one.
fn values(change: &Change, to: &To) -> Vec<Value> {
    let mut values = place(change);
    values.push(to.task.map_or(Value::Null, id_value));
    values.push(to.due_at_ms.into());
    values.push(to.body.as_str().into());
    values
}

fn place(change: &Change) -> Vec<Value> {
    vec![
        change.kind.as_str().into(),
        change.tenant.as_str().into(),
        change.id.as_str().into(),
    ]
}

fn add(sql: &mut dyn Sql, change: &Change, to: &To) -> Result<bool, SqlError> {
    let added = sql.execute(
        "INSERT INTO task_record (kind, tenant, id, version, task_id, due_at_ms, body)
         VALUES ($1, $2, $3, 1, $4, $5, $6) ON CONFLICT (kind, tenant, id) DO NOTHING",
        &values(change, to),
    )?;
    Ok(added > 0)
}

fn put(sql: &mut dyn Sql, change: &Change, to: &To) -> Result<bool, SqlError> {
    let put = sql.execute(
        "INSERT INTO task_record (kind, tenant, id, version, task_id, due_at_ms, body)
         VALUES ($1, $2, $3, 1, $4, $5, $6)
         ON CONFLICT (kind, tenant, id) DO UPDATE SET version = task_record.version + 1,
             task_id = excluded.task_id, due_at_ms = excluded.due_at_ms, body = excluded.body",
        &values(change, to),
    )?;
    Ok(put > 0)
}

fn replace(sql: &mut dyn Sql, change: &Change, to: &To, version: u64) -> Result<bool, SqlError> {
    let mut values = values(change, to);
    values.push(count(version));
    let replaced = sql.execute(
        "UPDATE task_record SET version = version + 1, task_id = $4, due_at_ms = $5, body = $6
         WHERE kind = $1 AND tenant = $2 AND id = $3 AND version = $7",
        &values,
    )?;
    Ok(replaced > 0)
}

fn remove(sql: &mut dyn Sql, change: &Change, version: Option<u64>) -> Result<bool, SqlError> {
    let mut values = place(change);
    values.push(i64::from(version.is_some()).into());
    values.push(count(version.unwrap_or(0)));
    let removed = sql.execute(
        "DELETE FROM task_record
         WHERE kind = $1 AND tenant = $2 AND id = $3 AND ($4 = 0 OR version = $5)",
        &values,
    )?;
    Ok(removed > 0)
}

/// Whether there is no such record. Adding one and taking it back waits for whoever adds it just now,
/// which a look would not.
fn is_absent(sql: &mut dyn Sql, change: &Change) -> Result<bool, SqlError> {
    let nothing = To {
        task: None,
        due_at_ms: None,
        body: String::new(),
    };
    let is_absent = add(sql, change, &nothing)?;
    if is_absent {
        remove(sql, change, None)?;
    }
    Ok(is_absent)
}

/// One record.
pub(super) fn one(
    sql: &mut dyn Sql,
    kind: Kind,
    tenant: &str,
    id: &str,
) -> Result<Option<Record>, SqlError> {
    let rows = sql.query(
        &format!("SELECT {COLUMNS} FROM task_record WHERE kind = $1 AND tenant = $2 AND id = $3"),
        &[kind.as_str().into(), tenant.into(), id.into()],
    )?;
    rows.first().map(|row| read(row, kind)).transpose()
}

/// Records in the order of their ids, those of one tenant or of all.
pub(super) fn behind(
    sql: &mut dyn Sql,
    kind: Kind,
    tenant: Option<&str>,
    after: &str,
    limit: u32,
) -> Result<Vec<Record>, SqlError> {
    let mut values = vec![kind.as_str().into(), after.into(), i64::from(limit).into()];
    let of_one = tenant.map_or("", |tenant| {
        values.push(tenant.into());
        "AND tenant = $4"
    });
    let rows = sql.query(
        &format!(
            "SELECT {COLUMNS} FROM task_record WHERE kind = $1 AND id > $2 {of_one}
             ORDER BY id, tenant LIMIT $3"
        ),
        &values,
    )?;
    rows.iter().map(|row| read(row, kind)).collect()
}

/// Records that somebody must look at, the longest due first.
pub(super) fn due(
    sql: &mut dyn Sql,
    kind: Kind,
    now_ms: i64,
    limit: u32,
) -> Result<Vec<Record>, SqlError> {
    let rows = sql.query(
        &format!(
            "SELECT {COLUMNS} FROM task_record
             WHERE kind = $1 AND due_at_ms IS NOT NULL AND due_at_ms <= $2
             ORDER BY due_at_ms, tenant, id LIMIT $3"
        ),
        &[kind.as_str().into(), now_ms.into(), i64::from(limit).into()],
    )?;
    rows.iter().map(|row| read(row, kind)).collect()
}

fn read(row: &Row, kind: Kind) -> Result<Record, SqlError> {
    let task = match row.bytes(4) {
        [] => None,
        _ => Some(id_at(row, 4)?),
    };
    Ok(Record {
        kind,
        tenant: row.text(1).to_owned(),
        id: row.text(2).to_owned(),
        version: row.count(3),
        task,
        due_at_ms: row.maybe_int(5),
        body: row.text(6).to_owned(),
    })
}
