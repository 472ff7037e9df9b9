//! Applying records of the journal: any number of times, in any order, by any node, the same result.

use std::collections::{BTreeMap, HashMap, HashSet};

use meter::{Entry, Held, NanoUsd, Outcome, Record};
use wire::{RequestId, UsageSource};

use super::{DAY_MS, HOUR_MS};
use crate::sql::{Insert, Kind, Sql, SqlError, Value, count};

use Kind::{Blob, Int, Text};

/// Columns of an entry, in the order of [`event`].
pub(crate) const EVENT: &[(&str, Kind)] = &[
    ("request_id", Blob),
    ("attempt", Int),
    ("kind", Text),
    ("rev", Int),
    ("at_ms", Int),
    ("node", Text),
    ("tenant", Text),
    ("team", Text),
    ("project", Text),
    ("key", Text),
    ("user_id", Text),
    ("task", Text),
    ("workflow", Text),
    ("dialect", Text),
    ("requested", Text),
    ("model", Text),
    ("endpoint", Text),
    ("tier", Text),
    ("lane", Text),
    ("reason", Text),
    ("score_milli", Int),
    ("stream", Int),
    ("held_at_ms", Int),
    ("settled_at_ms", Int),
    ("first_byte_ms", Int),
    ("outcome", Text),
    ("status", Int),
    ("source", Text),
    ("input", Int),
    ("cache_read", Int),
    ("cache_write_5m", Int),
    ("cache_write_1h", Int),
    ("output", Int),
    ("reasoning", Int),
    ("audio_input", Int),
    ("audio_output", Int),
    ("web_searches", Int),
    ("price", Text),
    ("book", Text),
    ("context_tier", Int),
    ("bound_nano", Int),
    ("cost_nano", Int),
    ("list_nano", Int),
    ("sell_nano", Int),
    ("baseline_nano", Int),
    ("cache_saved_nano", Int),
    ("entry", Text),
];

/// Columns of a rollup's key: of the hours' table; the days' leaves `user_id` out.
const HOUR_KEY: &[(&str, Kind)] = &[
    ("start_ms", Int),
    ("tenant", Text),
    ("team", Text),
    ("project", Text),
    ("key", Text),
    ("user_id", Text),
    ("workflow", Text),
    ("model", Text),
    ("endpoint", Text),
    ("tier", Text),
    ("lane", Text),
    ("price", Text),
    ("context_tier", Int),
];
/// The place of `user_id` in it.
const USER: usize = 5;

/// What rollups sum, in the order of [`sums`].
pub(crate) const SUMS: &[&str] = &[
    "calls",
    "failed",
    "counted",
    "estimated",
    "unpriced",
    "retries",
    "input",
    "cache_read",
    "cache_write_5m",
    "cache_write_1h",
    "output",
    "reasoning",
    "audio_input",
    "audio_output",
    "web_searches",
    "cost_nano",
    "list_nano",
    "sell_nano",
    "baseline_nano",
    "cache_saved_nano",
    "estimated_nano",
    "retry_nano",
    "wasted_nano",
    "corrected_nano",
];

/// Applies `records` in their order, as `node`.
pub(super) fn records(sql: &mut dyn Sql, records: &[Record], node: &str) -> Result<(), SqlError> {
    // A hold that the same group settles never touches the table of open holds.
    let mut settled: HashMap<(RequestId, u16), &Entry> = HashMap::new();
    for record in records {
        if let Record::Settle(entry) = record {
            let at = (entry.held.request, entry.held.attempt);
            settled.entry(at).or_insert(entry);
        }
    }
    let mut open = Vec::new();
    for record in records {
        if let Record::Hold(held) = record
            && !settled.contains_key(&(held.request, held.attempt))
        {
            open.push(&**held);
        }
    }
    // One writer at a time: sequence numbers are committed in order, and no two writers meet in the
    // rollups' rows in different orders.
    sql.lock("ledger")?;
    holds(sql, &open, node)?;
    let entries: Vec<&Entry> = settled.values().copied().collect();
    settle(sql, entries, node)
}

fn holds(sql: &mut dyn Sql, open: &[&Held], node: &str) -> Result<(), SqlError> {
    if open.is_empty() {
        return Ok(());
    }
    let done = settled_before(sql, open)?;
    let mut rows = Vec::with_capacity(open.len());
    for held in open {
        let request = held.request.bytes().to_vec();
        let attempt = i64::from(held.attempt);
        if !done.contains(&(request.clone(), attempt)) {
            rows.push(vec![
                Value::Blob(request),
                attempt.into(),
                json(held)?.into(),
                node.into(),
            ]);
        }
    }
    let columns = [
        ("request_id", Blob),
        ("attempt", Int),
        ("held", Text),
        ("node", Text),
    ];
    let insert = Insert {
        table: "hold",
        columns: &columns,
        rest: "ON CONFLICT DO NOTHING",
    };
    sql.insert(&insert, &rows).map(|_| ())
}

/// Which of these are settled already: a settlement may come before its hold.
fn settled_before(sql: &mut dyn Sql, open: &[&Held]) -> Result<HashSet<(Vec<u8>, i64)>, SqlError> {
    let at = || open.iter().map(|held| held.request.unix_ms());
    let mut values: Vec<Value> = vec![
        at().min().unwrap_or(0).into(),
        at().max().unwrap_or(0).into(),
    ];
    values.extend(
        open.iter()
            .map(|held| Value::from(held.request.bytes().as_slice())),
    );
    // A few lengths only, so that statements stay prepared.
    let last = values.last().cloned().unwrap_or(Value::Null);
    values.resize(2 + open.len().next_power_of_two(), last);
    let places: Vec<String> = (3..=values.len()).map(|n| format!("${n}")).collect();
    let asked = format!(
        "SELECT request_id, attempt FROM usage_event
         WHERE kind = 'settle' AND rev = 0 AND at_ms BETWEEN $1 AND $2 AND request_id IN ({})",
        places.join(", ")
    );
    let rows = sql.query(&asked, &values)?;
    Ok(rows
        .iter()
        .map(|row| (row.bytes(0).to_vec(), row.int(1)))
        .collect())
}

/// Writes entries; those that were there before change nothing.
fn settle(sql: &mut dyn Sql, mut entries: Vec<&Entry>, node: &str) -> Result<(), SqlError> {
    if entries.is_empty() {
        return Ok(());
    }
    entries.sort_by_key(|entry| (entry.held.request, entry.held.attempt));
    sql.partitions(&mut entries.iter().map(|entry| entry.held.request.unix_ms()))?;
    let mut rows = Vec::with_capacity(entries.len());
    for entry in &entries {
        rows.push(event(entry, node)?);
    }
    let insert = Insert {
        table: "usage_event",
        columns: EVENT,
        rest: "ON CONFLICT DO NOTHING RETURNING request_id, attempt",
    };
    let new: HashSet<(Vec<u8>, i64)> = sql
        .insert(&insert, &rows)?
        .iter()
        .map(|row| (row.bytes(0).to_vec(), row.int(1)))
        .collect();
    entries.retain(|entry| {
        let key = (
            entry.held.request.bytes().to_vec(),
            i64::from(entry.held.attempt),
        );
        new.contains(&key)
    });
    let mut sums = Sums::default();
    for entry in &entries {
        sums.add(entry, node);
    }
    sums.write(sql)?;
    close(sql, &rows)
}

/// Removes the open holds of entries. Few are open at any time, so they are all looked at.
fn close(sql: &mut dyn Sql, rows: &[Vec<Value>]) -> Result<(), SqlError> {
    let settled: HashSet<(&Value, &Value)> = rows
        .iter()
        .filter_map(|row| Some((row.first()?, row.get(1)?)))
        .collect();
    for row in sql.query("SELECT request_id, attempt FROM hold", &[])? {
        if let [request, attempt] = row.0.as_slice()
            && settled.contains(&(request, attempt))
        {
            sql.execute(
                "DELETE FROM hold WHERE request_id = $1 AND attempt = $2",
                &row.0,
            )?;
        }
    }
    Ok(())
}

/// The row of an entry.
pub(crate) fn event(entry: &Entry, node: &str) -> Result<Vec<Value>, SqlError> {
    let Entry { held, usage, .. } = entry;
    let subject = &held.subject;
    let text = |text: &str| Value::from(text);
    Ok(vec![
        held.request.bytes().as_slice().into(),
        i64::from(held.attempt).into(),
        text("settle"),
        Value::Int(0),
        held.request.unix_ms().into(),
        text(node),
        text(&subject.tenant),
        text(&subject.team),
        text(&subject.project),
        text(&subject.key),
        text(&subject.user),
        text(&subject.task),
        text(&subject.workflow),
        text(&held.dialect),
        text(&held.requested),
        text(&held.model),
        text(&held.endpoint),
        text(held.tier.as_str()),
        text(lane(held)),
        text(&held.reason),
        held.score_milli.map(i64::from).into(),
        i64::from(held.stream).into(),
        held.held_at_ms.into(),
        entry.settled_at_ms.into(),
        entry.first_byte_ms.map(i64::from).into(),
        text(entry.outcome.as_str()),
        i64::from(entry.status).into(),
        text(entry.source.as_str()),
        count(usage.input),
        count(usage.cache_read),
        count(usage.cache_write_5m),
        count(usage.cache_write_1h),
        count(usage.output),
        count(usage.reasoning),
        count(usage.audio_input),
        count(usage.audio_output),
        count(usage.web_searches),
        text(&held.price),
        text(&held.book),
        count(entry.context_tier),
        held.bound.0.into(),
        entry.cost.0.into(),
        entry.list.0.into(),
        entry.sell.0.into(),
        entry.baseline.0.into(),
        entry.cache_saved.0.into(),
        json(entry)?.into(),
    ])
}

/// The lane that an entry is summed under.
fn lane(held: &Held) -> &str {
    if held.lane.is_empty() {
        "standard"
    } else {
        &held.lane
    }
}

/// What a group of rows adds to the projections: each row of them is touched once.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    hours: BTreeMap<Vec<Value>, Vec<i64>>,
    days: BTreeMap<Vec<Value>, Vec<i64>>,
    costs: BTreeMap<(i64, String, String, i64), i64>,
    windows: BTreeMap<(String, i64, String), (String, i64)>,
    tasks: BTreeMap<(String, String), Task>,
}

#[derive(Debug, Default)]
struct Task {
    workflow: String,
    team: String,
    project: String,
    first_ms: i64,
    last_ms: i64,
    calls: i64,
    cost: i64,
    sell: i64,
    baseline: i64,
}

impl Sums {
    /// Adds a settled attempt. It belongs to the hour, day and windows in which its hold was made.
    fn add(&mut self, entry: &Entry, node: &str) {
        let Entry { held, .. } = entry;
        let key = |start_ms: i64| key(held, entry.context_tier, start_ms);
        self.roll(&key, held.held_at_ms, &sums(entry));
        let subject = &held.subject;
        if entry.outcome != Outcome::Failed {
            let day = held.held_at_ms.div_euclid(DAY_MS) * DAY_MS;
            let at = (
                day,
                subject.tenant.to_string(),
                held.model.to_string(),
                meter::money::step(entry.cost),
            );
            *self.costs.entry(at).or_default() += 1;
        }
        for charge in &held.charges {
            let at = (charge.budget.to_string(), charge.start_ms, node.to_owned());
            let window = self
                .windows
                .entry(at)
                .or_insert_with(|| (subject.tenant.to_string(), 0));
            window.1 += entry.cost.0;
        }
        if !subject.task.is_empty() {
            let at = (subject.tenant.to_string(), subject.task.to_string());
            let task = self.tasks.entry(at).or_default();
            if task.calls == 0 {
                task.workflow = subject.workflow.to_string();
                task.team = subject.team.to_string();
                task.project = subject.project.to_string();
                task.first_ms = held.held_at_ms;
            }
            task.first_ms = task.first_ms.min(held.held_at_ms);
            task.last_ms = task.last_ms.max(entry.settled_at_ms);
            task.calls += 1;
            task.cost += entry.cost.0;
            task.sell += entry.sell.0;
            task.baseline += entry.baseline.0;
        }
    }

    /// Adds a correction of an earlier entry: `change` in the order of [`SUMS`], and `cost` to the
    /// windows and the task that carried the entry.
    pub(crate) fn correct(&mut self, entry: &Entry, change: &[i64], cost: NanoUsd, sell: NanoUsd) {
        let Entry { held, .. } = entry;
        let key = |start_ms: i64| key(held, entry.context_tier, start_ms);
        self.roll(&key, held.held_at_ms, change);
        let subject = &held.subject;
        for charge in &held.charges {
            let at = (charge.budget.to_string(), charge.start_ms, String::new());
            let window = self
                .windows
                .entry(at)
                .or_insert_with(|| (subject.tenant.to_string(), 0));
            window.1 += cost.0;
        }
        if !subject.task.is_empty() {
            let at = (subject.tenant.to_string(), subject.task.to_string());
            let task = self.tasks.entry(at).or_insert_with(|| Task {
                workflow: subject.workflow.to_string(),
                team: subject.team.to_string(),
                project: subject.project.to_string(),
                first_ms: held.held_at_ms,
                last_ms: entry.settled_at_ms,
                ..Task::default()
            });
            task.cost += cost.0;
            task.sell += sell.0;
        }
    }

    fn roll(&mut self, key: &dyn Fn(i64) -> Vec<Value>, at_ms: i64, change: &[i64]) {
        let hour = key(at_ms.div_euclid(HOUR_MS) * HOUR_MS);
        let mut day = key(at_ms.div_euclid(DAY_MS) * DAY_MS);
        day.remove(USER);
        for (table, key) in [(&mut self.hours, hour), (&mut self.days, day)] {
            let row = table.entry(key).or_insert_with(|| vec![0; SUMS.len()]);
            for (sum, more) in row.iter_mut().zip(change) {
                *sum = sum.saturating_add(*more);
            }
        }
    }

    /// Writes all of it.
    pub(crate) fn write(self, sql: &mut dyn Sql) -> Result<(), SqlError> {
        let day_key: Vec<_> = HOUR_KEY
            .iter()
            .copied()
            .filter(|(name, _)| *name != "user_id")
            .collect();
        rollup(sql, "rollup_hour", HOUR_KEY, self.hours)?;
        rollup(sql, "rollup_day", &day_key, self.days)?;
        let rows: Vec<_> = self
            .costs
            .into_iter()
            .map(|((start_ms, tenant, model, step), calls)| {
                vec![
                    start_ms.into(),
                    tenant.into(),
                    model.into(),
                    step.into(),
                    calls.into(),
                ]
            })
            .collect();
        let columns = [
            ("start_ms", Int),
            ("tenant", Text),
            ("model", Text),
            ("step", Int),
            ("calls", Int),
        ];
        let insert = Insert {
            table: "rollup_cost",
            columns: &columns,
            rest: "ON CONFLICT (start_ms, tenant, model, step)
                   DO UPDATE SET calls = rollup_cost.calls + excluded.calls",
        };
        sql.insert(&insert, &rows)?;
        windows(sql, self.windows)?;
        tasks(sql, self.tasks)
    }
}

fn key(held: &Held, context_tier: u64, start_ms: i64) -> Vec<Value> {
    let subject = &held.subject;
    vec![
        start_ms.into(),
        (&*subject.tenant).into(),
        (&*subject.team).into(),
        (&*subject.project).into(),
        (&*subject.key).into(),
        (&*subject.user).into(),
        (&*subject.workflow).into(),
        (&*held.model).into(),
        (&*held.endpoint).into(),
        held.tier.as_str().into(),
        lane(held).into(),
        (&*held.price).into(),
        count(context_tier),
    ]
}

/// What one settled attempt adds, in the order of [`SUMS`].
fn sums(entry: &Entry) -> Vec<i64> {
    let Entry { held, usage, .. } = entry;
    let int = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let when = |holds: bool, amount: i64| if holds { amount } else { 0 };
    let failed = entry.outcome == Outcome::Failed;
    let cost = entry.cost.0;
    let estimated = entry.source == UsageSource::Estimated;
    vec![
        1,
        i64::from(failed),
        i64::from(entry.source == UsageSource::Counted),
        i64::from(estimated),
        i64::from(held.price.is_empty() && !failed),
        i64::from(held.attempt > 0),
        int(usage.input),
        int(usage.cache_read),
        int(usage.cache_write_5m),
        int(usage.cache_write_1h),
        int(usage.output),
        int(usage.reasoning),
        int(usage.audio_input),
        int(usage.audio_output),
        int(usage.web_searches),
        cost,
        entry.list.0,
        entry.sell.0,
        entry.baseline.0,
        entry.cache_saved.0,
        when(estimated, cost),
        when(held.attempt > 0, cost),
        when(entry.outcome != Outcome::Completed, cost),
        0,
    ]
}

fn rollup(
    sql: &mut dyn Sql,
    table: &str,
    key: &[(&str, Kind)],
    rows: BTreeMap<Vec<Value>, Vec<i64>>,
) -> Result<(), SqlError> {
    let columns: Vec<(&str, Kind)> = key
        .iter()
        .copied()
        .chain(SUMS.iter().map(|name| (*name, Int)))
        .collect();
    let names: Vec<&str> = key.iter().map(|(name, _)| *name).collect();
    let sets: Vec<String> = SUMS
        .iter()
        .map(|name| format!("{name} = {table}.{name} + excluded.{name}"))
        .collect();
    let rest = format!(
        "ON CONFLICT ({}) DO UPDATE SET {}",
        names.join(", "),
        sets.join(", ")
    );
    let insert = Insert {
        table,
        columns: &columns,
        rest: &rest,
    };
    let rows: Vec<Vec<Value>> = rows
        .into_iter()
        .map(|(mut row, sums)| {
            row.extend(sums.into_iter().map(Value::Int));
            row
        })
        .collect();
    sql.insert(&insert, &rows).map(|_| ())
}

fn windows(
    sql: &mut dyn Sql,
    windows: BTreeMap<(String, i64, String), (String, i64)>,
) -> Result<(), SqlError> {
    let rows: Vec<Vec<Value>> = windows
        .into_iter()
        .map(|((budget, start_ms, node), (tenant, cost))| {
            vec![
                budget.into(),
                start_ms.into(),
                node.into(),
                tenant.into(),
                Value::Int(0),
                cost.into(),
            ]
        })
        .collect();
    let columns = [
        ("budget", Text),
        ("start_ms", Int),
        ("node", Text),
        ("tenant", Text),
        ("granted_nano", Int),
        ("settled_nano", Int),
    ];
    let insert = Insert {
        table: "budget_window",
        columns: &columns,
        rest: "ON CONFLICT (budget, start_ms, node)
               DO UPDATE SET settled_nano = budget_window.settled_nano + excluded.settled_nano",
    };
    sql.insert(&insert, &rows).map(|_| ())
}

fn tasks(sql: &mut dyn Sql, tasks: BTreeMap<(String, String), Task>) -> Result<(), SqlError> {
    let rows: Vec<Vec<Value>> = tasks
        .into_iter()
        .map(|((tenant, name), task)| {
            vec![
                tenant.into(),
                name.into(),
                task.workflow.into(),
                task.team.into(),
                task.project.into(),
                task.first_ms.into(),
                task.last_ms.into(),
                task.calls.into(),
                task.cost.into(),
                task.sell.into(),
                task.baseline.into(),
                "open".into(),
            ]
        })
        .collect();
    let columns = [
        ("tenant", Text),
        ("task", Text),
        ("workflow", Text),
        ("team", Text),
        ("project", Text),
        ("first_ms", Int),
        ("last_ms", Int),
        ("calls", Int),
        ("cost_nano", Int),
        ("sell_nano", Int),
        ("baseline_nano", Int),
        ("outcome", Text),
    ];
    let insert = Insert {
        table: "task",
        columns: &columns,
        rest: "ON CONFLICT (tenant, task) DO UPDATE SET
                   workflow = CASE WHEN task.workflow = '' THEN excluded.workflow ELSE task.workflow END,
                   first_ms = CASE WHEN excluded.first_ms < task.first_ms THEN excluded.first_ms ELSE task.first_ms END,
                   last_ms = CASE WHEN excluded.last_ms > task.last_ms THEN excluded.last_ms ELSE task.last_ms END,
                   calls = task.calls + excluded.calls,
                   cost_nano = task.cost_nano + excluded.cost_nano,
                   sell_nano = task.sell_nano + excluded.sell_nano,
                   baseline_nano = task.baseline_nano + excluded.baseline_nano",
    };
    sql.insert(&insert, &rows).map(|_| ())
}

pub(crate) fn json(value: &impl serde::Serialize) -> Result<String, SqlError> {
    serde_json::to_string(value).map_err(|error| SqlError(error.to_string()))
}
