//! Budgets' windows as the ledger knows them, and what is to be told of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use meter::hold::Decision;
use meter::lease::{self, Grant, LEASE_MS, Slice, Want};
use meter::ledger::{Known, Node, Tell};
use meter::{Entry, NanoUsd, Override, Record};

use super::apply;
use crate::record;
use crate::sql::{Insert, Kind, Row, Sql, SqlError, Value, flat};

/// How long others are asked to give back what a node waits for.
const WAIT_MS: i64 = 1_500;
/// Budgets looked up in one statement.
const AT_ONCE: usize = 256;

/// Every window that begins at `from_ms` or later, and those of budgets that never begin anew.
pub(super) fn known(sql: &mut dyn Sql, from_ms: i64) -> Result<Vec<Known>, SqlError> {
    let rows = sql.query(
        "SELECT budget, start_ms, node, tenant, granted_nano, settled_nano FROM budget_window
         WHERE start_ms >= $1 OR start_ms = 0 ORDER BY budget, start_ms, node",
        &[from_ms.into()],
    )?;
    Ok(rows
        .iter()
        .map(|row| Known {
            budget: row.text(0).into(),
            start_ms: row.int(1),
            node: row.text(2).into(),
            tenant: row.text(3).into(),
            granted: row.int(4),
            settled: row.int(5),
        })
        .collect())
}

/// Writes windows that were not there.
pub(super) fn begin(sql: &mut dyn Sql, begun: &[Known]) -> Result<(), SqlError> {
    for window in begun {
        sql.execute(
            "INSERT INTO budget_window (budget, start_ms, node, tenant, granted_nano, settled_nano)
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
            &[
                (&*window.budget).into(),
                window.start_ms.into(),
                (&*window.node).into(),
                (&*window.tenant).into(),
                window.granted.into(),
                window.settled.into(),
            ],
        )?;
    }
    Ok(())
}

/// Writes events that were not there; returns how many are new.
pub(super) fn tell(sql: &mut dyn Sql, events: &[Tell]) -> Result<usize, SqlError> {
    let mut new = 0;
    for event in events {
        let written = sql.execute(
            "INSERT INTO outbox (id, topic, payload, created_at_ms, next_at_ms, attempts, error)
             VALUES ($1, $2, $3, $4, $4, 0, '') ON CONFLICT DO NOTHING",
            &[
                event.id.as_str().into(),
                event.topic.as_str().into(),
                event.payload.as_str().into(),
                event.at_ms.into(),
            ],
        )?;
        new += usize::from(written > 0);
    }
    Ok(new)
}

/// One round of leasing for `node`: rows are read, decided on by the meter's rule, and written, under
/// one lock, so that all slices of a budget together never pass its limit.
pub(super) fn lease(
    sql: &mut dyn Sql,
    node: &str,
    wants: &[Want],
    now_ms: i64,
) -> Result<Vec<Grant>, SqlError> {
    sql.lock("lease")?;
    present(sql, node, now_ms)?;
    let rows = sql.query(
        "SELECT COUNT(*) FROM node WHERE state = 'live' AND lease_until_ms > $1",
        &[now_ms.into()],
    )?;
    let nodes = rows.first().map_or(1, |row| row.int(0));
    let waiting: HashSet<String> = sql
        .query(
            "SELECT budget FROM budget_want WHERE node <> $1 AND until_ms > $2",
            &[node.into(), now_ms.into()],
        )?
        .iter()
        .map(|row| row.text(0).to_owned())
        .collect();
    let slices = slices(sql, wants)?;
    let none = Vec::new();
    let mut granted = Vec::with_capacity(wants.len());
    let mut unmet = Vec::new();
    for want in wants {
        let window = slices.get(&want.budget).unwrap_or(&none);
        let window: Vec<Slice> = window
            .iter()
            .filter(|it| it.start_ms >= want.from_ms)
            .cloned()
            .collect();
        let others_wait = waiting.contains(&*want.budget);
        let grant = lease::decide(want, node, &window, others_wait, nodes);
        if grant.granted < want.need {
            unmet.push(vec![
                (&*want.budget).into(),
                node.into(),
                now_ms.saturating_add(WAIT_MS).into(),
            ]);
        }
        granted.push((want, grant));
    }
    write_down(sql, node, &granted, &slices)?;
    unmet.dedup();
    let columns = [
        ("budget", Kind::Text),
        ("node", Kind::Text),
        ("until_ms", Kind::Int),
    ];
    let insert = Insert {
        table: "budget_want",
        columns: &columns,
        rest: "ON CONFLICT (budget, node) DO UPDATE SET until_ms = excluded.until_ms",
    };
    sql.insert(&insert, &flat(&unmet))?;
    Ok(granted.into_iter().map(|(_, grant)| grant).collect())
}

/// Notes that the node is there.
fn present(sql: &mut dyn Sql, node: &str, now_ms: i64) -> Result<(), SqlError> {
    sql.execute(
        "INSERT INTO node (node, state, seen_at_ms, lease_until_ms) VALUES ($1, 'live', $2, $3)
         ON CONFLICT (node) DO UPDATE SET seen_at_ms = excluded.seen_at_ms,
             lease_until_ms = excluded.lease_until_ms WHERE node.state = 'live'",
        &[
            node.into(),
            now_ms.into(),
            now_ms.saturating_add(LEASE_MS).into(),
        ],
    )
    .and_then(|changed| {
        if changed > 0 {
            return Ok(());
        }
        Err(SqlError(format!(
            "node {node} was retired while it was away; restart it"
        )))
    })
}

/// Every node's slices of the budgets that are asked for.
fn slices(sql: &mut dyn Sql, wants: &[Want]) -> Result<HashMap<Arc<str>, Vec<Slice>>, SqlError> {
    let mut found: HashMap<Arc<str>, Vec<Slice>> = HashMap::new();
    let from_ms = wants.iter().map(|it| it.from_ms).min().unwrap_or(0);
    for group in wants.chunks(AT_ONCE) {
        let mut values = vec![Value::Int(from_ms)];
        values.extend(group.iter().map(|want| Value::from(&*want.budget)));
        // A few lengths only, so that statements stay prepared.
        let last = values.last().cloned().unwrap_or(Value::Null);
        values.resize(1 + group.len().next_power_of_two(), last);
        let places: Vec<String> = (2..=values.len()).map(|n| format!("${n}")).collect();
        let asked = format!(
            "SELECT budget, start_ms, node, granted_nano, settled_nano FROM budget_window
             WHERE start_ms >= $1 AND budget IN ({})",
            places.join(", ")
        );
        for row in sql.query(&asked, &values)? {
            let slice = Slice {
                start_ms: row.int(1),
                node: row.text(2).into(),
                granted: row.int(3),
                settled: row.int(4),
            };
            found.entry(row.text(0).into()).or_default().push(slice);
        }
    }
    Ok(found)
}

/// Writes grants that are not what they were.
fn write_down(
    sql: &mut dyn Sql,
    node: &str,
    granted: &[(&Want, Grant)],
    slices: &HashMap<Arc<str>, Vec<Slice>>,
) -> Result<(), SqlError> {
    let is_known = |grant: &Grant| {
        slices.get(&grant.budget).is_some_and(|window| {
            window.iter().any(|it| {
                it.start_ms == grant.start_ms && *it.node == *node && it.granted == grant.granted
            })
        })
    };
    let mut rows: Vec<Vec<Value>> = granted
        .iter()
        .filter(|(_, grant)| !is_known(grant))
        .map(|(want, grant)| {
            vec![
                (&*grant.budget).into(),
                grant.start_ms.into(),
                node.into(),
                (&*want.tenant).into(),
                grant.granted.into(),
                Value::Int(0),
            ]
        })
        .collect();
    rows.sort();
    let columns = [
        ("budget", Kind::Text),
        ("start_ms", Kind::Int),
        ("node", Kind::Text),
        ("tenant", Kind::Text),
        ("granted_nano", Kind::Int),
        ("settled_nano", Kind::Int),
    ];
    let insert = Insert {
        table: "budget_window",
        columns: &columns,
        rest: "ON CONFLICT (budget, start_ms, node)
               DO UPDATE SET granted_nano = excluded.granted_nano",
    };
    sql.insert(&insert, &flat(&rows))
}

pub(super) fn nodes(sql: &mut dyn Sql) -> Result<Vec<Node>, SqlError> {
    let rows = sql.query(
        "SELECT n.node, n.state, n.seen_at_ms, n.lease_until_ms,
             (SELECT CAST(SUM(w.granted_nano - w.settled_nano) AS BIGINT) FROM budget_window w
              WHERE w.node = n.node AND w.granted_nano > w.settled_nano)
         FROM node n ORDER BY n.node",
        &[],
    )?;
    let node = |row: &Row| Node {
        name: row.text(0).to_owned(),
        state: row.text(1).to_owned(),
        seen_at_ms: row.int(2),
        lease_until_ms: row.int(3),
        unsettled: NanoUsd(row.int(4)),
    };
    Ok(rows.iter().map(node).collect())
}

pub(super) fn retire(sql: &mut dyn Sql, node: &str, now_ms: i64) -> Result<bool, SqlError> {
    sql.lock("lease")?;
    let gone = sql.execute(
        "UPDATE node SET state = 'retired' WHERE node = $1 AND lease_until_ms <= $2",
        &[node.into(), now_ms.into()],
    )?;
    if gone == 0 {
        return Ok(false);
    }
    let rows = sql.query("SELECT held FROM hold WHERE node = $1", &[node.into()])?;
    let mut records = Vec::with_capacity(rows.len());
    for row in &rows {
        let held = record::held(row.bytes(0))?;
        records.push(Record::Settle(Box::new(Entry::orphan(held, now_ms))));
    }
    let payloads = super::encoded(&records);
    let group = apply::Group::of(&mut payloads.iter().map(Vec::as_slice))?;
    apply::group(sql, &group, node)?;
    sql.execute(
        "UPDATE budget_window SET granted_nano = settled_nano
         WHERE node = $1 AND granted_nano > settled_nano",
        &[node.into()],
    )?;
    Ok(true)
}

/// Lets a node that was retired begin anew.
pub(super) fn revive(sql: &mut dyn Sql, node: &str) -> Result<(), SqlError> {
    sql.execute(
        "UPDATE node SET state = 'live' WHERE node = $1",
        &[node.into()],
    )
    .map(|_| ())
}

pub(super) fn overrides(sql: &mut dyn Sql) -> Result<Vec<Override>, SqlError> {
    let rows = sql.query(
        "SELECT id, budget, amount_nano, from_ms, until_ms, author, reason, created_at_ms
         FROM budget_override ORDER BY created_at_ms, id",
        &[],
    )?;
    let change = |row: &Row| Override {
        id: row.text(0).to_owned(),
        budget: row.text(1).to_owned(),
        amount: row.int(2),
        from_ms: row.int(3),
        until_ms: row.int(4),
        author: row.text(5).to_owned(),
        reason: row.text(6).to_owned(),
        created_at_ms: row.int(7),
    };
    Ok(rows.iter().map(change).collect())
}

pub(super) fn add_override(sql: &mut dyn Sql, change: &Override) -> Result<(), SqlError> {
    sql.execute(
        "INSERT INTO budget_override (id, budget, amount_nano, from_ms, until_ms, author, reason, created_at_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
        &[
            change.id.as_str().into(),
            change.budget.as_str().into(),
            change.amount.into(),
            change.from_ms.into(),
            change.until_ms.into(),
            change.author.as_str().into(),
            change.reason.as_str().into(),
            change.created_at_ms.into(),
        ],
    )
    .map(|_| ())
}

pub(super) fn decided(sql: &mut dyn Sql, decisions: &[Decision]) -> Result<(), SqlError> {
    for it in decisions {
        let calls = i64::try_from(it.calls).unwrap_or(i64::MAX);
        sql.execute(
            "INSERT INTO rollup_decision (start_ms, tenant, budget, decision, calls)
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (start_ms, tenant, budget, decision)
             DO UPDATE SET calls = rollup_decision.calls + excluded.calls",
            &[
                it.start_ms.into(),
                (&*it.tenant).into(),
                (&*it.budget).into(),
                it.decision.into(),
                calls.into(),
            ],
        )?;
    }
    Ok(())
}
