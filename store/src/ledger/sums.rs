//! The projections of the ledger: rollups, cost steps, budgets' windows, tasks. A group of entries is
//! summed in memory first, and each row of a projection is touched once.
//!
//! Keys borrow their names from the records, and only the hours are summed entry by entry: days and the
//! brief tables are sums of them.

use std::collections::{BTreeMap, HashMap as Map};
use std::hash::Hash;

use meter::{NanoUsd, Outcome};
use wire::{Tier, UsageSource};

use super::{DAY_MS, HOUR_MS};
use crate::record::{EntryView, HeldView};
use crate::sql::{Field, Insert, Kind, Sql, SqlError, signed};

use Kind::{Int, Text};

/// Columns of a rollup's key: of the hours' table; the days' leaves `user_id` out.
const HOUR_KEY: [(&str, Kind); 13] = [
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
/// And in the key of the brief ones, which pages ask first.
const BRIEF: [&str; 5] = ["start_ms", "tenant", "model", "endpoint", "tier"];

/// What rollups sum, in the order of [`sums`].
pub(crate) const SUMS: &[&str; 25] = &[
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

/// The usual map, with a hash that takes a third of the time of the usual one.
type HashMap<K, V> = Map<K, V, foldhash::fast::RandomState>;

/// What a row of the hours' table is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Hour<'a> {
    start_ms: i64,
    tenant: &'a str,
    team: &'a str,
    project: &'a str,
    key: &'a str,
    user: &'a str,
    workflow: &'a str,
    model: &'a str,
    endpoint: &'a str,
    tier: &'static str,
    lane: &'a str,
    price: &'a str,
    context_tier: i64,
}

/// What a row of the router's decisions is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Route<'a> {
    start_ms: i64,
    tenant: &'a str,
    class: &'a str,
    step: &'a str,
    tier: &'static str,
    reason: &'a str,
}

/// Amounts in the order of [`SUMS`].
pub(crate) type Amounts = [i64; SUMS.len()];

/// What a group of rows adds to the projections: each row of them is touched once.
#[derive(Debug, Default)]
pub(crate) struct Sums<'a> {
    node: &'a str,
    hours: HashMap<Hour<'a>, Amounts>,
    /// By day, tenant, model and step.
    costs: HashMap<(i64, &'a str, &'a str, i64), i64>,
    /// By budget, start and node, with the tenant.
    windows: HashMap<(&'a str, i64, &'a str), (&'a str, i64)>,
    tasks: HashMap<(&'a str, &'a str), Task<'a>>,
    routes: HashMap<Route<'a>, [i64; 5]>,
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

/// The key of calls by what they cost.
const COST_KEY: [(&str, Kind); 4] = [
    ("start_ms", Int),
    ("tenant", Text),
    ("model", Text),
    ("step", Int),
];

#[derive(Debug, Default)]
struct Task<'a> {
    workflow: &'a str,
    team: &'a str,
    project: &'a str,
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

impl Task<'_> {
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

impl<'a> Sums<'a> {
    /// Nothing yet, for entries of `node`.
    pub(crate) fn of(node: &'a str) -> Self {
        Self {
            node,
            ..Self::default()
        }
    }

    /// Who made the entries.
    pub(crate) fn node(&self) -> &'a str {
        self.node
    }

    /// Adds a settled attempt. It belongs to the hour, day and windows in which its hold was made.
    pub(super) fn add(&mut self, entry: &EntryView<'a>) {
        let EntryView { held, .. } = entry;
        self.roll(held, entry.context_tier, &sums(entry));
        let lost = held.routing.map_or(0, |routing| routing.lost.0);
        let first = i64::from(held.attempt == 0);
        // Reports count a call that escalated by this row: one whose deep attempt failed did not.
        let in_vain = held.reason == "escalated" && entry.outcome == Outcome::Failed;
        let tried = i64::from(!in_vain);
        self.route(held, [first, tried, entry.cost.0, entry.baseline.0, lost]);
        if entry.outcome != Outcome::Failed {
            let step = meter::money::step(entry.cost);
            let at = (
                start(held.held_at_ms, DAY_MS),
                held.tenant,
                held.model,
                step,
            );
            *self.costs.entry(at).or_default() += 1;
        }
        for (budget, start_ms) in held.charges() {
            let at = (budget, start_ms, self.node);
            let window = self.windows.entry(at).or_insert((held.tenant, 0));
            window.1 += entry.cost.0 + entry.suspense.0;
        }
        if !held.task.is_empty() {
            let task = self.task(entry);
            task.add(held.tier, 1, entry.cost.0);
            task.sell += entry.sell.0;
            task.baseline += entry.baseline.0;
        }
    }

    /// Adds a correction of an earlier entry: `change` in the order of [`SUMS`], and `cost` to the
    /// windows and the task that carried the entry; `released` is what is no longer in suspense.
    pub(crate) fn correct(
        &mut self,
        entry: &EntryView<'a>,
        change: &Amounts,
        (cost, sell): (NanoUsd, NanoUsd),
        released: NanoUsd,
    ) {
        let EntryView { held, .. } = entry;
        self.roll(held, entry.context_tier, change);
        let changed = |name| {
            let place = SUMS.iter().position(|sum| *sum == name);
            place.and_then(|at| change.get(at)).copied().unwrap_or(0)
        };
        let [begun, cost_change, baseline] = ["calls", "cost_nano", "baseline_nano"].map(changed);
        self.route(held, [0, 0, cost_change, baseline, 0]);
        for (budget, start_ms) in held.charges() {
            let at = (budget, start_ms, "");
            let window = self.windows.entry(at).or_insert((held.tenant, 0));
            window.1 += (cost - released).0;
        }
        if !held.task.is_empty() {
            let task = self.task(entry);
            task.add(held.tier, begun, cost.0);
            task.sell += sell.0;
        }
    }

    /// The task of an entry, which lasts from its first hold to its last settlement.
    fn task(&mut self, entry: &EntryView<'a>) -> &mut Task<'a> {
        let EntryView { held, .. } = entry;
        let at = (held.tenant, held.task);
        let task = self.tasks.entry(at).or_insert_with(|| Task {
            workflow: held.workflow,
            team: held.team,
            project: held.project,
            first_ms: held.held_at_ms,
            last_ms: entry.settled_at_ms,
            ..Task::default()
        });
        task.first_ms = task.first_ms.min(held.held_at_ms);
        task.last_ms = task.last_ms.max(entry.settled_at_ms);
        task
    }

    fn route(&mut self, held: &HeldView<'a>, change: [i64; 5]) {
        let (class, step) = held.class_and_step();
        let key = Route {
            start_ms: start(held.held_at_ms, DAY_MS),
            tenant: held.tenant,
            class,
            step,
            tier: held.tier.as_str(),
            reason: held.reason,
        };
        add(self.routes.entry(key).or_default(), &change);
    }

    fn roll(&mut self, held: &HeldView<'a>, context_tier: u64, change: &Amounts) {
        let key = Hour {
            start_ms: start(held.held_at_ms, HOUR_MS),
            tenant: held.tenant,
            team: held.team,
            project: held.project,
            key: held.key,
            user: held.user,
            workflow: held.workflow,
            model: held.model,
            endpoint: held.endpoint,
            tier: held.tier.as_str(),
            lane: held.summed_lane(),
            price: held.price,
            context_tier: signed(context_tier),
        };
        add(self.hours.entry(key).or_insert([0; SUMS.len()]), change);
    }

    /// Writes all of it.
    pub(crate) fn write(self, sql: &mut dyn Sql) -> Result<(), SqlError> {
        for (table, is_kept, span) in [
            ("rollup_hour", (|_| true) as fn(&str) -> bool, HOUR_MS),
            ("rollup_day", |name| name != "user_id", DAY_MS),
            ("brief_hour", |name| BRIEF.contains(&name), HOUR_MS),
            ("brief_day", |name| BRIEF.contains(&name), DAY_MS),
        ] {
            let mut rows: BTreeMap<Vec<Field<'_>>, Amounts> = BTreeMap::new();
            for (hour, amounts) in &self.hours {
                let named = HOUR_KEY.iter().zip(hour.fields(span));
                let key = named.filter(|((name, _), _)| is_kept(name));
                let row = rows.entry(key.map(|(_, field)| field).collect());
                add(row.or_insert([0; SUMS.len()]), amounts);
            }
            let key: Vec<_> = HOUR_KEY.iter().filter(|(name, _)| is_kept(name)).collect();
            let key: Vec<_> = key.into_iter().copied().collect();
            rollup(sql, table, (&key, SUMS), &rows)?;
        }
        let routes = self.routes.iter().map(|(key, sums)| (key.fields(), *sums));
        let routes: BTreeMap<Vec<Field<'_>>, _> = routes.collect();
        rollup(sql, "rollup_route", (&ROUTE_KEY, &ROUTE_SUMS), &routes)?;
        let costs = self
            .costs
            .iter()
            .map(|((start_ms, tenant, model, step), calls)| {
                let key = vec![
                    Field::Int(*start_ms),
                    Field::Text(tenant),
                    Field::Text(model),
                    Field::Int(*step),
                ];
                (key, [*calls])
            });
        let costs: BTreeMap<Vec<Field<'_>>, _> = costs.collect();
        rollup(sql, "rollup_cost", (&COST_KEY, &["calls"]), &costs)?;
        windows(sql, &self.windows)?;
        tasks(sql, &self.tasks)
    }
}

/// The start of the span of time around a moment.
fn start(at_ms: i64, span: i64) -> i64 {
    at_ms.div_euclid(span) * span
}

fn add(sums: &mut [i64], change: &[i64]) {
    for (sum, more) in sums.iter_mut().zip(change) {
        *sum = sum.saturating_add(*more);
    }
}

impl<'a> Hour<'a> {
    /// Its key in the order of [`HOUR_KEY`], in a table of spans of `span`.
    fn fields(&self, span: i64) -> [Field<'a>; HOUR_KEY.len()] {
        [
            Field::Int(start(self.start_ms, span)),
            Field::Text(self.tenant),
            Field::Text(self.team),
            Field::Text(self.project),
            Field::Text(self.key),
            Field::Text(self.user),
            Field::Text(self.workflow),
            Field::Text(self.model),
            Field::Text(self.endpoint),
            Field::Text(self.tier),
            Field::Text(self.lane),
            Field::Text(self.price),
            Field::Int(self.context_tier),
        ]
    }
}

impl<'a> Route<'a> {
    /// Its key in the order of [`ROUTE_KEY`].
    fn fields(&self) -> Vec<Field<'a>> {
        vec![
            Field::Int(self.start_ms),
            Field::Text(self.tenant),
            Field::Text(self.class),
            Field::Text(self.step),
            Field::Text(self.tier),
            Field::Text(self.reason),
        ]
    }
}

/// What one settled attempt adds, in the order of [`SUMS`].
fn sums(entry: &EntryView<'_>) -> Amounts {
    let EntryView { held, usage, .. } = entry;
    let int = signed;
    let when = |holds: bool, amount: i64| if holds { amount } else { 0 };
    let failed = entry.outcome == Outcome::Failed;
    let cost = entry.cost.0;
    let estimated = entry.source == UsageSource::Estimated;
    [
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

/// Adds rows to those of `table`.
fn rollup<const N: usize>(
    sql: &mut dyn Sql,
    table: &str,
    (key, summed): (&[(&str, Kind)], &[&str]),
    rows: &BTreeMap<Vec<Field<'_>>, [i64; N]>,
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
    let fields: Vec<Field<'_>> = rows
        .iter()
        .flat_map(|(key, sums)| {
            let sums = sums.iter().copied().map(Field::Int);
            key.iter().copied().chain(sums)
        })
        .collect();
    sql.insert(&insert, &fields)
}

/// Rows in the order of their keys, so that no two writers meet in different orders.
fn ordered<K: Ord + Hash, V>(rows: &HashMap<K, V>) -> Vec<(&K, &V)> {
    let mut rows: Vec<_> = rows.iter().collect();
    rows.sort_by_key(|(key, _)| *key);
    rows
}

fn windows(
    sql: &mut dyn Sql,
    windows: &HashMap<(&str, i64, &str), (&str, i64)>,
) -> Result<(), SqlError> {
    let mut rows = Vec::with_capacity(6 * windows.len());
    for ((budget, start_ms, node), (tenant, cost)) in ordered(windows) {
        rows.extend([
            Field::Text(budget),
            Field::Int(*start_ms),
            Field::Text(node),
            Field::Text(tenant),
            Field::Int(0),
            Field::Int(*cost),
        ]);
    }
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
    sql.insert(&insert, &rows)
}

fn tasks(sql: &mut dyn Sql, tasks: &HashMap<(&str, &str), Task<'_>>) -> Result<(), SqlError> {
    let mut rows = Vec::with_capacity(16 * tasks.len());
    for ((tenant, name), task) in ordered(tasks) {
        rows.extend([
            Field::Text(tenant),
            Field::Text(name),
            Field::Text(task.workflow),
            Field::Text(task.team),
            Field::Text(task.project),
            Field::Int(task.first_ms),
            Field::Int(task.last_ms),
            Field::Int(task.calls),
            Field::Int(task.cost),
            Field::Int(task.sell),
            Field::Int(task.baseline),
            Field::Int(task.fast.calls),
            Field::Int(task.fast.cost),
            Field::Int(task.deep.calls),
            Field::Int(task.deep.cost),
            Field::Text("open"),
        ]);
    }
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
    sql.insert(&insert, &rows)
}
