//! Statements: the facts they are made of, their closing in one transaction, and the chain they form.

use std::collections::BTreeMap;

use meter::NanoUsd;
use meter::books::change::Change;
use meter::books::statement::{Day, Facts, Grant, Month, Note, Posting, Statement, draft, seal};
use meter::books::{Group, Units};

use super::correct::{read_change, sum_columns};
use crate::sql::{Row, Sql, SqlError, Value};

/// A closed statement as it is kept.
pub(super) struct Kept {
    pub(super) statement: Statement,
    document: String,
    start_ms: i64,
    end_ms: i64,
    up_to_seq: i64,
}

/// Rows are grouped by day and by what a line tells apart. An estimate that no bill and no person has
/// confirmed is in suspense.
fn sums(sql: &mut dyn Sql, condition: &str, values: &[Value]) -> Result<Vec<Group>, SqlError> {
    let rows = sql.query(
        &format!(
            "SELECT day, project, model, lane, price, context_tier, kind, waits,
                    CAST(COUNT(*) AS BIGINT), {}
             FROM (SELECT e.*, e.held_at_ms - e.held_at_ms % 86400000 AS day,
                   CASE WHEN e.kind = 'settle' AND e.source = 'estimated' AND NOT EXISTS (
                       SELECT 1 FROM usage_event c WHERE c.request_id = e.request_id
                       AND c.attempt = e.attempt AND c.kind IN ('reconcile', 'correct', 'late'))
                   THEN 'suspense' ELSE '' END AS waits
                   FROM usage_event e WHERE e.tenant = $1 AND {condition}) AS x
             GROUP BY 1, 2, 3, 4, 5, 6, 7, 8 ORDER BY 1, 2, 3, 4, 5, 6, 7, 8",
            sum_columns()
        ),
        values,
    )?;
    let text = |row: &Row, place: usize| row.text(place).to_owned();
    let none = String::new;
    Ok(rows
        .iter()
        .map(|row| Group {
            start_ms: row.int(0),
            tenant: none(),
            team: none(),
            project: text(row, 1),
            key: none(),
            model: text(row, 2),
            endpoint: none(),
            lane: text(row, 3),
            price: text(row, 4),
            context_tier: row.count(5),
            kind: text(row, 6),
            source: text(row, 7),
            rows: row.count(8),
            change: read_change(row, 9),
        })
        .collect())
}

/// Everything that a tenant's statement of a month is made of.
pub(super) fn facts(sql: &mut dyn Sql, tenant: &str, month: Month) -> Result<Facts, SqlError> {
    let before = closed(sql, Some(tenant))?;
    let last = before.last();
    let (until, seq) = last.map_or((i64::MIN, 0), |kept| (kept.end_ms, kept.up_to_seq));
    if month.start_ms() < until {
        return Err(SqlError(format!("{tenant}/{month} is closed")));
    }
    let skipped = sql.query(
        "SELECT MIN(held_at_ms) FROM usage_event
         WHERE tenant = $1 AND held_at_ms < $2 AND held_at_ms >= $3",
        &[tenant.into(), month.start_ms().into(), until.into()],
    )?;
    if let Some(at) = skipped.first().and_then(|row| row.maybe_int(0)) {
        return Err(SqlError(format!(
            "{tenant} has entries in {}, which is not closed; close it first",
            Month::of(at)
        )));
    }
    let ends = [
        tenant.into(),
        month.start_ms().into(),
        month.end_ms().into(),
    ];
    let groups = sums(sql, "e.held_at_ms >= $2 AND e.held_at_ms < $3", &ends)?;
    let covered = [tenant.into(), until.into(), seq.into()];
    let late = sums(sql, "e.held_at_ms < $2 AND e.seq > $3", &covered)?;
    // Estimates that were in suspense when their month was closed, and have been confirmed since.
    let confirmed = sums(
        sql,
        "e.held_at_ms < $2 AND e.seq <= $3 AND e.kind = 'settle' AND e.source = 'estimated'
         AND NOT EXISTS (SELECT 1 FROM usage_event b WHERE b.request_id = e.request_id
             AND b.attempt = e.attempt AND b.seq <= $3 AND b.kind IN ('reconcile', 'correct', 'late'))",
        &covered,
    )?;
    let late: Vec<Group> = late.into_iter().filter(|it| it.source.is_empty()).collect();
    let released = confirmed
        .into_iter()
        .filter(|it| it.source.is_empty())
        .map(|it| Group {
            kind: "confirmed".to_owned(),
            ..it
        })
        .collect::<Vec<_>>();
    let top = sql.query("SELECT MAX(seq) FROM usage_event", &[])?;
    Ok(Facts {
        number: last.map_or(1, |kept| kept.statement.number + 1),
        previous: last.map_or_else(String::new, |kept| kept.statement.hash.clone()),
        up_to_seq: top.first().map_or(0, |row| row.int(0)),
        days: days(&groups, &late, &released),
        notes: notes(late.iter().chain(&released), &before),
        groups: merged(groups),
        grants: grants(sql, Some(tenant))?,
    })
}

/// The same groups without their days.
fn merged(groups: Vec<Group>) -> Vec<Group> {
    let mut sums: BTreeMap<[String; 6], Group> = BTreeMap::new();
    for group in groups {
        let key = [
            &group.project,
            &group.model,
            &group.lane,
            &group.price,
            &group.kind,
            &group.source,
        ]
        .map(Clone::clone);
        let tier = format!("{}/{}", key[3], group.context_tier);
        let [project, model, lane, _, kind, source] = key;
        let sum = sums
            .entry([project, model, lane, tier, kind, source])
            .or_insert_with(|| Group {
                start_ms: 0,
                rows: 0,
                change: Change::default(),
                ..group.clone()
            });
        sum.rows += group.rows;
        sum.change = sum.change.plus(&group.change);
    }
    sums.into_values().collect()
}

fn days(month: &[Group], late: &[Group], released: &[Group]) -> Vec<Day> {
    let mut days: BTreeMap<i64, Day> = BTreeMap::new();
    for (group, is_released) in
        (month.iter().chain(late).map(|it| (it, false))).chain(released.iter().map(|it| (it, true)))
    {
        let day = days.entry(group.start_ms).or_insert_with(|| Day {
            day_ms: group.start_ms,
            ..Day::default()
        });
        if group.source == "suspense" {
            day.suspense += group.change.cost;
            continue;
        }
        day.cost += group.change.cost;
        day.sell += group.change.sell;
        if is_released {
            day.suspense += -group.change.cost;
        }
    }
    days.into_values().collect()
}

fn notes<'a>(groups: impl Iterator<Item = &'a Group>, before: &[Kept]) -> Vec<Note> {
    let mut notes: BTreeMap<(Month, String), Note> = BTreeMap::new();
    for group in groups {
        let month = Month::of(group.start_ms);
        let of = before
            .iter()
            .find(|kept| kept.start_ms <= group.start_ms && group.start_ms < kept.end_ms)
            .or(before.last());
        let note = notes
            .entry((month, group.kind.clone()))
            .or_insert_with(|| Note {
                month,
                statement: of.map_or(0, |kept| kept.statement.number),
                kind: group.kind.clone(),
                rows: 0,
                cost: NanoUsd::ZERO,
                sell: NanoUsd::ZERO,
            });
        note.rows += group.rows;
        note.cost += group.change.cost;
        note.sell += group.change.sell;
    }
    notes.into_values().collect()
}

/// A month of a name that was never charged is a slip of the hand, and a number that was given is given for good.
fn is_charged(sql: &mut dyn Sql, tenant: &str) -> Result<(), SqlError> {
    let found = sql.query(
        "SELECT 1 FROM usage_event WHERE tenant = $1 LIMIT 1",
        &[tenant.into()],
    )?;
    if found.is_empty() {
        return Err(SqlError(format!(
            "tenant `{tenant}` has no entry in the ledger; see how it is written with `pareto usage --by tenant`"
        )));
    }
    Ok(())
}

/// Closes a month, after the proof that its lines are its entries.
pub(super) fn close(
    sql: &mut dyn Sql,
    tenant: &str,
    month: Month,
    at_ms: i64,
    units: Units<'_>,
) -> Result<Statement, SqlError> {
    sql.lock("ledger")?;
    is_charged(sql, tenant)?;
    let facts = facts(sql, tenant, month)?;
    let mut statement = draft(tenant, month, &facts, units);
    statement.closed_at_ms = Some(at_ms);
    prove(sql, &statement)?;
    let document = statement
        .document()
        .map_err(|error| SqlError(error.to_string()))?;
    statement.hash = seal(&statement.previous, &document);
    sql.execute(
        "INSERT INTO statement (tenant, month, number, start_ms, end_ms, up_to_seq, closed_at_ms,
             cost_nano, sell_nano, due_nano, document, previous, hash)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        &[
            tenant.into(),
            month.to_string().into(),
            i64::from(statement.number).into(),
            month.start_ms().into(),
            month.end_ms().into(),
            statement.up_to_seq.into(),
            at_ms.into(),
            statement.totals.cost.0.into(),
            statement.totals.sell.0.into(),
            statement.totals.due.0.into(),
            document.into(),
            statement.previous.as_str().into(),
            statement.hash.as_str().into(),
        ],
    )?;
    for used in &statement.credits {
        sql.execute(
            "INSERT INTO credit_use (grant_id, tenant, month, amount_nano) VALUES ($1, $2, $3, $4)",
            &[
                used.grant.as_str().into(),
                tenant.into(),
                month.to_string().into(),
                used.amount.0.into(),
            ],
        )?;
    }
    for posting in statement.postings(&facts.days) {
        post(sql, &posting)?;
    }
    Ok(statement)
}

/// The month's rollups, which were summed entry by entry as they came, are what the lines add up to.
fn prove(sql: &mut dyn Sql, statement: &Statement) -> Result<(), SqlError> {
    let rows = sql.query(
        "SELECT CAST(SUM(cost_nano) AS BIGINT), CAST(SUM(sell_nano) AS BIGINT) FROM rollup_day
         WHERE tenant = $1 AND start_ms >= $2 AND start_ms < $3",
        &[
            statement.tenant.as_str().into(),
            statement.month.start_ms().into(),
            statement.month.end_ms().into(),
        ],
    )?;
    let entries = rows.first().map_or((0, 0), |row| (row.int(0), row.int(1)));
    let lines = (statement.totals.cost.0, statement.totals.sell.0);
    if entries != lines || !statement.adds_up() {
        return Err(SqlError(format!(
            "the lines of {} are {} USD at cost and {} USD to pay, and its entries {} and {}; nothing was closed",
            statement.name(),
            NanoUsd(lines.0),
            NanoUsd(lines.1),
            NanoUsd(entries.0),
            NanoUsd(entries.1)
        )));
    }
    Ok(())
}

/// Writes a posting; one of the same source, day and account is replaced.
pub(super) fn post(sql: &mut dyn Sql, posting: &Posting) -> Result<(), SqlError> {
    sql.execute(
        "INSERT INTO posting (day_ms, tenant, account, source, amount_nano) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (day_ms, tenant, account, source) DO UPDATE SET amount_nano = excluded.amount_nano",
        &[
            posting.day_ms.into(),
            posting.tenant.as_str().into(),
            posting.account.as_str().into(),
            posting.source.as_str().into(),
            posting.amount.0.into(),
        ],
    )
    .map(|_| ())
}

pub(super) fn postings(
    sql: &mut dyn Sql,
    from_ms: i64,
    until_ms: i64,
) -> Result<Vec<Posting>, SqlError> {
    let rows = sql.query(
        "SELECT day_ms, tenant, account, source, amount_nano FROM posting
         WHERE day_ms >= $1 AND day_ms < $2 ORDER BY day_ms, tenant, source, account",
        &[from_ms.into(), until_ms.into()],
    )?;
    Ok(rows
        .iter()
        .map(|row| Posting {
            day_ms: row.int(0),
            tenant: row.text(1).to_owned(),
            account: row.text(2).to_owned(),
            source: row.text(3).to_owned(),
            amount: NanoUsd(row.int(4)),
        })
        .collect())
}

/// Closed statements, by tenant and number.
pub(super) fn closed(sql: &mut dyn Sql, tenant: Option<&str>) -> Result<Vec<Kept>, SqlError> {
    let columns = "SELECT document, hash, start_ms, end_ms, up_to_seq FROM statement";
    let rows = match tenant {
        Some(tenant) => sql.query(
            &format!("{columns} WHERE tenant = $1 ORDER BY tenant, number"),
            &[tenant.into()],
        )?,
        None => sql.query(&format!("{columns} ORDER BY tenant, number"), &[])?,
    };
    rows.iter()
        .map(|row| {
            let mut statement: Statement = row.json(0)?;
            row.text(1).clone_into(&mut statement.hash);
            Ok(Kept {
                statement,
                document: row.text(0).to_owned(),
                start_ms: row.int(2),
                end_ms: row.int(3),
                up_to_seq: row.int(4),
            })
        })
        .collect()
}

/// Recomputes each digest, each sum and each day's postings.
pub(super) fn verify(sql: &mut dyn Sql, tenant: Option<&str>) -> Result<Vec<String>, SqlError> {
    let mut wrong = Vec::new();
    let mut last: Option<Statement> = None;
    for kept in closed(sql, tenant)? {
        let it = kept.statement;
        let name = it.name();
        let before = last.filter(|last| last.tenant == it.tenant);
        let (number, previous) = before.map_or((1, String::new()), |b| (b.number + 1, b.hash));
        if it.number != number {
            wrong.push(format!(
                "{name} is number {}, and {number} was next",
                it.number
            ));
        }
        if it.previous != previous {
            wrong.push(format!("{name} does not follow the statement before it"));
        }
        if seal(&it.previous, &kept.document) != it.hash {
            wrong.push(format!("{name} was changed after it was closed"));
        }
        if !it.adds_up() {
            wrong.push(format!("the lines of {name} are not its totals"));
        }
        last = Some(it);
    }
    let uneven = sql.query(
        "SELECT source, day_ms FROM posting GROUP BY source, day_ms HAVING SUM(amount_nano) <> 0",
        &[],
    )?;
    for row in &uneven {
        wrong.push(format!(
            "the postings of {} at {} do not sum to nothing",
            row.text(0),
            crate::ledger::ask::moment(row.int(1), 10)
        ));
    }
    Ok(wrong)
}

pub(super) fn tenants(sql: &mut dyn Sql, month: Month) -> Result<Vec<String>, SqlError> {
    let rows = sql.query(
        "SELECT DISTINCT tenant FROM rollup_day WHERE start_ms >= $1 AND start_ms < $2 ORDER BY tenant",
        &[month.start_ms().into(), month.end_ms().into()],
    )?;
    Ok(rows.iter().map(|row| row.text(0).to_owned()).collect())
}

pub(super) fn grant(sql: &mut dyn Sql, grant: &Grant) -> Result<bool, SqlError> {
    let written = sql.execute(
        "INSERT INTO credit_grant
             (id, tenant, amount_nano, from_ms, until_ms, priority, reason, author, created_at_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING",
        &[
            grant.id.as_str().into(),
            grant.tenant.as_str().into(),
            grant.amount.0.into(),
            grant.from_ms.into(),
            grant.until_ms.into(),
            grant.priority.into(),
            grant.reason.as_str().into(),
            grant.author.as_str().into(),
            grant.created_at_ms.into(),
        ],
    )?;
    Ok(written > 0)
}

/// Credits, in the order in which they are used: by priority, then the one that ends first.
pub(super) fn grants(sql: &mut dyn Sql, tenant: Option<&str>) -> Result<Vec<Grant>, SqlError> {
    let rows = sql.query(
        "SELECT id, tenant, amount_nano, from_ms, until_ms, priority, reason, author, created_at_ms,
                amount_nano - COALESCE((SELECT CAST(SUM(u.amount_nano) AS BIGINT) FROM credit_use u
                                        WHERE u.grant_id = credit_grant.id), 0)
         FROM credit_grant WHERE tenant = $1 OR $1 = '' ORDER BY priority, until_ms, created_at_ms, id",
        &[tenant.unwrap_or_default().into()],
    )?;
    Ok(rows
        .iter()
        .map(|row| Grant {
            id: row.text(0).to_owned(),
            tenant: row.text(1).to_owned(),
            amount: NanoUsd(row.int(2)),
            left: NanoUsd(row.int(9)),
            from_ms: row.int(3),
            until_ms: row.int(4),
            priority: row.int(5),
            reason: row.text(6).to_owned(),
            author: row.text(7).to_owned(),
            created_at_ms: row.int(8),
        })
        .collect())
}
