//! What changes tasks: beginning one, appending to its log, forgetting its payloads. Every append leaves
//! a link in the tenant's audit chain, and takes the tenant's turn for it last, so that appends of one
//! tenant wait for each other only as long as a commit takes.

use orchestrator::digest::Digest;
use orchestrator::id::TaskId;
use orchestrator::log::{
    Append, AppendError, Change, Created, Head, Link, NewTask, Note, Recorded, TaskLogError,
};

use super::{Refused, digest_at, digest_value, id_at, id_value, record};
use crate::sql::{Insert, Kind, Sql, SqlError, Value, count, flat};

const EVENTS: Insert<'static> = Insert {
    table: "task_event",
    columns: &[
        ("task_id", Kind::Blob),
        ("seq", Kind::Int),
        ("at_ms", Kind::Int),
        ("epoch", Kind::Int),
        ("actor", Kind::Text),
        ("kind", Kind::Text),
        ("v", Kind::Int),
        ("payload", Kind::Text),
        ("payload_hash", Kind::Blob),
        ("hash", Kind::Blob),
    ],
    rest: "",
};

/// Begins a task. Of two that come with the same key the second waits for the first to be committed.
pub(super) fn create(
    sql: &mut dyn Sql,
    new: &NewTask,
    changes: &[Change],
) -> Result<Created, Refused> {
    if let Some(before) = before(sql, new)? {
        return Ok(before);
    }
    let head = followed(Head::default(), &new.events)?;
    let at = last_ms(&new.events, new.created_at_ms);
    let (key, digest) = match &new.idempotency {
        Some((key, digest)) => (Value::from(key.as_str()), digest_value(*digest)),
        None => (Value::Null, Value::Null),
    };
    let added = sql.execute(
        "INSERT INTO task_row (id, tenant, status, ended, head_seq, head_hash, wake_at_ms, epoch,
             leased_by, leased_until_ms, created_at_ms, updated_at_ms, summary, asked_key, asked_digest)
         VALUES ($1, $2, $3, $4, $5, $6, $7, 0, '', 0, $8, $9, $10, $11, $12)
         ON CONFLICT (tenant, asked_key) DO NOTHING",
        &[
            id_value(new.id),
            new.tenant.as_str().into(),
            new.row.status.as_str().into(),
            i64::from(new.row.ended).into(),
            count(head.seq),
            digest_value(head.hash),
            new.row.wake_at_ms.into(),
            new.created_at_ms.into(),
            at.into(),
            new.row.summary.as_str().into(),
            key,
            digest,
        ],
    )?;
    if added == 0 {
        let other = before(sql, new)?;
        return Ok(other.ok_or_else(|| SqlError("a task is there and is not".to_owned()))?);
    }
    insert(sql, new.id, &new.events)?;
    record::change(sql, changes)?;
    link(sql, &new.tenant, new.id, head, at)?;
    Ok(Created::New)
}

/// What was begun before under the key of `new`.
fn before(sql: &mut dyn Sql, new: &NewTask) -> Result<Option<Created>, SqlError> {
    let Some((key, digest)) = &new.idempotency else {
        return Ok(None);
    };
    let rows = sql.query(
        "SELECT id, asked_digest FROM task_row WHERE tenant = $1 AND asked_key = $2",
        &[new.tenant.as_str().into(), key.as_str().into()],
    )?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let id = id_at(row, 0)?;
    let is_same = digest_at(row, 1)? == *digest;
    Ok(Some(if is_same {
        Created::Before(id)
    } else {
        Created::Conflict(id)
    }))
}

/// Appends. The row goes first: its update is the comparison of head and epoch, and who updates it has
/// it until the commit.
pub(super) fn append(sql: &mut dyn Sql, append: &Append<'_>) -> Result<(), Refused> {
    let head = followed(append.after, append.events)?;
    let rows = sql.query(
        "UPDATE task_row SET status = $1, ended = $2, wake_at_ms = $3, summary = $4, head_seq = $5,
             head_hash = $6, updated_at_ms = CASE WHEN $7 = 1 THEN $8 ELSE updated_at_ms END,
             leased_by = CASE WHEN $9 = 1 THEN '' ELSE leased_by END,
             leased_until_ms = CASE WHEN $9 = 1 THEN 0 ELSE leased_until_ms END
         WHERE id = $10 AND head_seq = $11 AND head_hash = $12 AND ($13 = 0 OR epoch = $14)
         RETURNING tenant, updated_at_ms",
        &[
            append.row.status.as_str().into(),
            i64::from(append.row.ended).into(),
            append.row.wake_at_ms.into(),
            append.row.summary.as_str().into(),
            count(head.seq),
            digest_value(head.hash),
            i64::from(!append.events.is_empty()).into(),
            last_ms(append.events, 0).into(),
            i64::from(append.release).into(),
            id_value(append.task),
            count(append.after.seq),
            digest_value(append.after.hash),
            i64::from(append.epoch.is_some()).into(),
            count(append.epoch.unwrap_or(0)),
        ],
    )?;
    let Some(row) = rows.first() else {
        return Err(why_not(sql, append)?.into());
    };
    insert(sql, append.task, append.events)?;
    record::change(sql, append.changes)?;
    link(sql, row.text(0), append.task, head, row.int(1))?;
    Ok(())
}

/// Changes records, and notes it in the tenant's register. The turn for the chain is taken last here, too.
pub(super) fn note(sql: &mut dyn Sql, note: &Note, changes: &[Change]) -> Result<(), Refused> {
    record::change(sql, changes)?;
    sql.lock(&turn(&note.tenant))?;
    let register = TaskId::of_register(&note.tenant);
    let rows = sql.query(
        "SELECT seq, hash, at_ms FROM task_event WHERE task_id = $1 ORDER BY seq DESC LIMIT 1",
        &[id_value(register)],
    )?;
    let (head, at_ms) = match rows.first() {
        Some(row) => {
            let (seq, hash) = (row.count(0), digest_at(row, 1)?);
            (Head { seq, hash }, row.int(2))
        }
        None => (Head::default(), i64::MIN),
    };
    let event = note.event(head, at_ms);
    let head = Head {
        seq: event.seq,
        hash: event.hash,
    };
    insert(sql, register, std::slice::from_ref(&event))?;
    link(sql, &note.tenant, register, head, event.at_ms)?;
    Ok(())
}

/// The turn for a tenant's chain.
fn turn(tenant: &str) -> String {
    format!("task audit {tenant}")
}

/// Why no row was there to append to: fenced before behind, because who is fenced must stop.
fn why_not(sql: &mut dyn Sql, append: &Append<'_>) -> Result<AppendError, SqlError> {
    let rows = sql.query(
        "SELECT epoch FROM task_row WHERE id = $1",
        &[id_value(append.task)],
    )?;
    Ok(match (rows.first(), append.epoch) {
        (None, _) => AppendError::Failed(TaskLogError {
            what: "append events",
            cause: "there is no such task".to_owned(),
        }),
        (Some(row), Some(epoch)) if row.count(0) != epoch => AppendError::Fenced,
        (Some(_), _) => AppendError::Behind,
    })
}

fn insert(sql: &mut dyn Sql, task: TaskId, events: &[Recorded]) -> Result<(), SqlError> {
    let rows: Vec<Vec<Value>> = events
        .iter()
        .map(|event| {
            vec![
                id_value(task),
                count(event.seq),
                event.at_ms.into(),
                count(event.epoch),
                event.actor.as_str().into(),
                event.kind.as_str().into(),
                i64::from(event.v).into(),
                event.payload.as_deref().map_or(Value::Null, Value::from),
                digest_value(event.payload_hash),
                digest_value(event.hash),
            ]
        })
        .collect();
    sql.insert(&EVENTS, &flat(&rows))
}

/// Adds a link to the tenant's chain. Who has the tenant's turn keeps it until the commit, so numbers
/// are without gaps and in the order of commits.
fn link(
    sql: &mut dyn Sql,
    tenant: &str,
    task: TaskId,
    head: Head,
    at_ms: i64,
) -> Result<(), SqlError> {
    sql.lock(&turn(tenant))?;
    let rows = sql.query(
        "SELECT n, hash FROM task_link WHERE tenant = $1 ORDER BY n DESC LIMIT 1",
        &[tenant.into()],
    )?;
    let (n, before) = match rows.first() {
        Some(row) => (row.count(0), digest_at(row, 1)?),
        None => (0, Digest::default()),
    };
    let link = Link {
        tenant: tenant.to_owned(),
        n: n + 1,
        task,
        head,
        at_ms,
        hash: Digest::default(),
    };
    let hash = link.chained(before);
    sql.execute(
        "INSERT INTO task_link (tenant, n, task_id, head_seq, head_hash, at_ms, hash)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        &[
            tenant.into(),
            count(link.n),
            id_value(task),
            count(head.seq),
            digest_value(head.hash),
            at_ms.into(),
            digest_value(hash),
        ],
    )
    .map(|_| ())
}

/// Forgets the payloads and blobs of a task that has ended.
pub(super) fn erase(sql: &mut dyn Sql, task: TaskId) -> Result<bool, SqlError> {
    let ended = sql.query(
        "SELECT 1 FROM task_row WHERE id = $1 AND ended = 1",
        &[id_value(task)],
    )?;
    if ended.is_empty() {
        return Ok(false);
    }
    sql.execute(
        "UPDATE task_event SET payload = NULL WHERE task_id = $1",
        &[id_value(task)],
    )?;
    sql.execute(
        "DELETE FROM task_blob WHERE task_id = $1",
        &[id_value(task)],
    )?;
    // Answers and notices hold words of it; how it ended is still on its way to the ledger.
    sql.execute(
        "DELETE FROM task_record WHERE task_id = $1 AND kind IN ('request', 'notice', 'response')",
        &[id_value(task)],
    )?;
    Ok(true)
}

/// Keeps a blob; one that is kept already has these very bytes.
pub(super) fn put_blob(
    sql: &mut dyn Sql,
    task: TaskId,
    digest: Digest,
    bytes: &[u8],
) -> Result<(), SqlError> {
    sql.execute(
        "INSERT INTO task_blob (task_id, digest, bytes) VALUES ($1, $2, $3)
         ON CONFLICT (task_id, digest) DO NOTHING",
        &[id_value(task), digest_value(digest), bytes.into()],
    )
    .map(|_| ())
}

fn followed(after: Head, events: &[Recorded]) -> Result<Head, AppendError> {
    after.behind(events).map_err(|error| {
        AppendError::Failed(TaskLogError {
            what: "append events",
            cause: error.to_string(),
        })
    })
}

/// When the last of `events` happened; `otherwise` where there is none.
fn last_ms(events: &[Recorded], otherwise: i64) -> i64 {
    events.last().map_or(otherwise, |event| event.at_ms)
}
