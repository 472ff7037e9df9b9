//! The projections of the ledger: rollups, cost steps, budgets' windows, tasks. A group of entries is
//! summed in memory first, and each row of a projection is touched once.

use std::collections::BTreeMap;

use meter::{Entry, Held, NanoUsd, Outcome};
use wire::{Tier, UsageSource};

use super::{DAY_MS, HOUR_MS};
use crate::sql::{Insert, Kind, Sql, SqlError, Value, count};

use Kind::{Int, Text};

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

/// And in the key of the brief ones, which pages ask first.
const BRIEF: [&str; 5] = ["start_ms", "tenant", "model", "endpoint", "tier"];

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
    "suspense_nano",
];

/// The lane that an entry is summed under.
pub(super) fn lane(held: &Held) -> &str {
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
    brief_hours: BTreeMap<Vec<Value>, Vec<i64>>,
    brief_days: BTreeMap<Vec<Value>, Vec<i64>>,
    costs: BTreeMap<(i64, String, String, i64), i64>,
    windows: BTreeMap<(String, i64, String), (String, i64)>,
    tasks: BTreeMap<(String, String), Task>,
    routes: BTreeMap<Vec<Value>, [i64; 5]>,
}

/// The key of what the router decided, by day.
const ROUTE_KEY: [(&str, Kind); 6] = [
    ("start_ms", Int),
    ("tenant", Text),
    ("class", Text),
    ("step", Text),
    ("tier", Text),
    ("reason", Text),
];
/// And what is summed of it, in the order in which [`Sums`] keeps it.
const ROUTE_SUMS: [&str; 5] = [
    "calls",
    "attempts",
    "cost_nano",
    "baseline_nano",
    "lost_nano",
];

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
    fast: Tiered,
    deep: Tiered,
}

/// The part of a task that one tier answered.
#[derive(Debug, Default)]
struct Tiered {
    calls: i64,
    cost: i64,
}

impl Task {
    /// Adds calls and their cost, under their tier as well.
    fn add(&mut self, tier: Tier, calls: i64, cost: i64) {
        self.calls += calls;
        self.cost += cost;
        let of = match tier {
            Tier::Fast => &mut self.fast,
            Tier::Deep => &mut self.deep,
        };
        of.calls += calls;
        of.cost += cost;
    }
}

impl Sums {
    /// Adds a settled attempt. It belongs to the hour, day and windows in which its hold was made.
    pub(super) fn add(&mut self, entry: &Entry, node: &str) {
        let Entry { held, .. } = entry;
        let key = |start_ms: i64| key(held, entry.context_tier, start_ms);
        self.roll(&key, held.held_at_ms, &sums(entry));
        let lost = held.routing.as_ref().map_or(0, |routing| routing.lost.0);
        let first = i64::from(held.attempt == 0);
        // Reports count a call that escalated by this row: one whose deep attempt failed did not.
        let in_vain = &*held.reason == "escalated" && entry.outcome == Outcome::Failed;
        let tried = i64::from(!in_vain);
        self.route(held, [first, tried, entry.cost.0, entry.baseline.0, lost]);
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
            window.1 += entry.cost.0 + entry.suspense.0;
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
            task.add(held.tier, 1, entry.cost.0);
            task.sell += entry.sell.0;
            task.baseline += entry.baseline.0;
        }
    }

    /// Adds a correction of an earlier entry: `change` in the order of [`SUMS`], and `cost` to the
    /// windows and the task that carried the entry; `released` is what is no longer in suspense.
    pub(crate) fn correct(
        &mut self,
        entry: &Entry,
        change: &[i64],
        (cost, sell): (NanoUsd, NanoUsd),
        released: NanoUsd,
    ) {
        let Entry { held, .. } = entry;
        let key = |start_ms: i64| key(held, entry.context_tier, start_ms);
        self.roll(&key, held.held_at_ms, change);
        let changed = |name| {
            let place = SUMS.iter().position(|sum| *sum == name);
            place.and_then(|at| change.get(at)).copied().unwrap_or(0)
        };
        let [begun, cost_change, baseline] = ["calls", "cost_nano", "baseline_nano"].map(changed);
        self.route(held, [0, 0, cost_change, baseline, 0]);
        let subject = &held.subject;
        for charge in &held.charges {
            let at = (charge.budget.to_string(), charge.start_ms, String::new());
            let window = self
                .windows
                .entry(at)
                .or_insert_with(|| (subject.tenant.to_string(), 0));
            window.1 += (cost - released).0;
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
            task.add(held.tier, begun, cost.0);
            task.sell += sell.0;
        }
    }

    fn route(&mut self, held: &Held, change: [i64; 5]) {
        let routing = held.routing.as_deref();
        let day = held.held_at_ms.div_euclid(DAY_MS) * DAY_MS;
        let key = vec![
            day.into(),
            (&*held.subject.tenant).into(),
            routing.map_or("", |it| &it.class).into(),
            routing.map_or("", |it| &it.step).into(),
            held.tier.as_str().into(),
            (&*held.reason).into(),
        ];
        let row = self.routes.entry(key).or_default();
        for (sum, more) in row.iter_mut().zip(change) {
            *sum = sum.saturating_add(more);
        }
    }

    fn roll(&mut self, key: &dyn Fn(i64) -> Vec<Value>, at_ms: i64, change: &[i64]) {
        let hour = key(at_ms.div_euclid(HOUR_MS) * HOUR_MS);
        let mut day = key(at_ms.div_euclid(DAY_MS) * DAY_MS);
        day.remove(USER);
        let brief = |start_ms: i64| {
            let named = HOUR_KEY.iter().zip(key(start_ms));
            let kept = named.filter(|((name, _), _)| BRIEF.contains(name));
            kept.map(|(_, value)| value).collect()
        };
        for (table, key) in [
            (
                &mut self.brief_hours,
                brief(at_ms.div_euclid(HOUR_MS) * HOUR_MS),
            ),
            (
                &mut self.brief_days,
                brief(at_ms.div_euclid(DAY_MS) * DAY_MS),
            ),
            (&mut self.hours, hour),
            (&mut self.days, day),
        ] {
            let row = table.entry(key).or_insert_with(|| vec![0; SUMS.len()]);
            for (sum, more) in row.iter_mut().zip(change) {
                *sum = sum.saturating_add(*more);
            }
        }
    }

    /// Writes all of it.
    pub(crate) fn write(self, sql: &mut dyn Sql) -> Result<(), SqlError> {
        let some = |kept: fn(&str) -> bool| -> Vec<_> {
            let all = HOUR_KEY.iter().copied();
            all.filter(|(name, _)| kept(name)).collect()
        };
        let brief = some(|name| BRIEF.contains(&name));
        let days = some(|name| name != "user_id");
        for (table, key, rows) in [
            ("rollup_hour", HOUR_KEY, self.hours),
            ("rollup_day", &days, self.days),
            ("brief_hour", &brief, self.brief_hours),
            ("brief_day", &brief, self.brief_days),
        ] {
            rollup(sql, table, (key, SUMS), rows)?;
        }
        let summed = (&ROUTE_KEY[..], &ROUTE_SUMS[..]);
        rollup(sql, "rollup_route", summed, self.routes)?;
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
        entry.suspense.0,
    ]
}

fn rollup(
    sql: &mut dyn Sql,
    table: &str,
    (key, summed): (&[(&str, Kind)], &[&str]),
    rows: impl IntoIterator<Item = (Vec<Value>, impl IntoIterator<Item = i64>)>,
) -> Result<(), SqlError> {
    let columns: Vec<(&str, Kind)> = key
        .iter()
        .copied()
        .chain(summed.iter().map(|name| (*name, Int)))
        .collect();
    let names: Vec<&str> = key.iter().map(|(name, _)| *name).collect();
    let sets: Vec<String> = summed
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
                task.fast.calls.into(),
                task.fast.cost.into(),
                task.deep.calls.into(),
                task.deep.cost.into(),
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
        ("fast_calls", Int),
        ("fast_nano", Int),
        ("deep_calls", Int),
        ("deep_nano", Int),
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
                   baseline_nano = task.baseline_nano + excluded.baseline_nano,
                   fast_calls = task.fast_calls + excluded.fast_calls,
                   fast_nano = task.fast_nano + excluded.fast_nano,
                   deep_calls = task.deep_calls + excluded.deep_calls,
                   deep_nano = task.deep_nano + excluded.deep_nano",
    };
    sql.insert(&insert, &rows).map(|_| ())
}
