//! Every metric's name and labels, one function for each fact. Business code calls these and never
//! names a metric. No secrets, prompts or answers pass here.
#![expect(
    clippy::disallowed_macros,
    reason = "this is the file that may name metrics"
)]

mod handles;
mod names;
mod series;
mod upstreams;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use meter::hold::Decision;
use meter::{Entry, NanoUsd, Outcome, Standing, Unit};
use metrics::{Label, counter, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;
use wire::{Losses, Refusal, Tier};

pub use names::NAMES;
pub(crate) use upstreams::{
    Hedge, Retry, hedged, key_refused, models, pauses, rests, retried, upstreams,
};

use crate::admission::{self, Priority, Short};
use crate::clock::now_ms;
use crate::trace::{Phase, Trace};
use series::Name;

/// Seconds from 10 microseconds to 10 minutes: the gateway's own time and a model's.
const BUCKETS: &[f64] = &[
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025,
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
];

/// A phase takes microseconds: steps of a quarter up to a millisecond, so that a median read from them is
/// right to a tenth, and from there on as others.
const PHASES: &[f64] = &[
    0.000_001,
    0.000_001_25,
    0.000_001_56,
    0.000_001_95,
    0.000_002_44,
    0.000_003_05,
    0.000_003_81,
    0.000_004_77,
    0.000_005_96,
    0.000_007_45,
    0.000_009_31,
    0.000_011_6,
    0.000_014_6,
    0.000_018_2,
    0.000_022_7,
    0.000_028_4,
    0.000_035_5,
    0.000_044_4,
    0.000_055_5,
    0.000_069_4,
    0.000_086_7,
    0.000_108,
    0.000_136,
    0.000_169,
    0.000_212,
    0.000_265,
    0.000_331,
    0.000_414,
    0.000_517,
    0.000_646,
    0.000_808,
    0.001,
    0.002_5,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    120.0,
    300.0,
    600.0,
];

/// Shares of a bound: most calls use a small part of it.
const SHARES: &[f64] = &[
    0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0,
];
const ROWS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 512.0];

/// A gauge that a scrape did not renew is dropped at the next one after so long: its budget is gone.
const GONE_AFTER: Duration = Duration::from_secs(1);

/// Figures that are told when they change, for the scrapes in between.
static CONTEXT_BYTES: AtomicU64 = AtomicU64::new(0);
/// When the configuration in force was taken.
static TAKEN_S: AtomicU64 = AtomicU64::new(0);
static RELOAD_REFUSED: AtomicBool = AtomicBool::new(false);
/// Holds found open at the start, which are counted after the first scrape: of a counter that begins
/// above zero Prometheus sees no increase.
static ORPHANS: AtomicU64 = AtomicU64::new(0);
/// Budgets with series of decisions. First come, first served: a counter must keep its name.
static DECIDED: Mutex<BTreeSet<Name>> = Mutex::new(BTreeSet::new());

/// Installs the recorder for this process and returns what renders `/metrics`. In a process that
/// has one already (a test that boots twice) the new one stays unused and renders nothing.
pub(crate) fn install() -> PrometheusHandle {
    let recorder = builder()
        .unwrap_or_else(|_| PrometheusBuilder::new())
        .idle_timeout(MetricKindMask::GAUGE, Some(GONE_AFTER))
        .build_recorder();
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_ok() {
        for (name, help) in NAMES {
            metrics::with_recorder(|recorder| match name.rsplit('_').next() {
                Some("total") => recorder.describe_counter((*name).into(), None, (*help).into()),
                _ => recorder.describe_gauge((*name).into(), None, (*help).into()),
            });
        }
        begin_at_zero();
    }
    handle
}

fn builder() -> Result<PrometheusBuilder, metrics_exporter_prometheus::BuildError> {
    let full = |name: &str| Matcher::Full(name.to_owned());
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), BUCKETS)?
        .set_buckets_for_metric(full("pareto_phase_seconds"), PHASES)?
        .set_buckets_for_metric(full("pareto_hold_accuracy_ratio"), SHARES)?
        .set_buckets_for_metric(full("pareto_ledger_batch_rows"), ROWS)
}

/// Of a counter that is not there before its first event, alerts would miss that event.
fn begin_at_zero() {
    counter!("pareto_budget_overspend_nanousd_total").increment(0);
    counter!("pareto_hold_expired_total").increment(0);
    counter!("pareto_context_forgotten_total").increment(0);
    counter!("pareto_panics_total").increment(0);
    counter!("pareto_request_log_dropped_total").increment(0);
    otlp_dropped("records", "full", 0);
    for signal in ["traces", "logs"] {
        for reason in ["full", "refused", "rejected", "end"] {
            otlp_dropped(signal, reason, 0);
        }
    }
    for priority in Priority::ALL {
        let priority = priority.as_str();
        counter!("pareto_admission_wait_ms_total", "priority" => priority).increment(0);
        for short in Short::ALL {
            let reason = short.as_str();
            counter!("pareto_shed_total", "priority" => priority, "reason" => reason).increment(0);
        }
    }
    for (door, result) in [
        ("callers", "refused"),
        ("callers", "slowed"),
        ("operators", "refused"),
        ("operators", "slowed"),
    ] {
        counter!("pareto_wrong_keys_total", "door" => door, "result" => result).increment(0);
    }
    for result in ["taken", "refused"] {
        counter!("pareto_config_reloads_total", "result" => result).increment(0);
    }
}

/// An open hold that an earlier process left was charged, `count` times.
pub(crate) fn orphaned(count: usize) {
    ORPHANS.fetch_add(u64::try_from(count).unwrap_or(0), Ordering::Relaxed);
}

/// A scrape was rendered.
pub(crate) fn scraped() {
    let orphans = ORPHANS.swap(0, Ordering::Relaxed);
    counter!("pareto_hold_expired_total").increment(orphans);
}

pub(crate) fn refused(refusal: &Refusal, dialect: &'static str) {
    let fault = refusal.fault.as_str();
    counter!("pareto_refusals_total", "code" => refusal.code, "fault" => fault, "dialect" => dialect)
        .increment(1);
}

pub(crate) fn decided(tenant: &Arc<str>, tier: Tier, reason: &'static str) {
    handles::decided(tenant, tier, reason).increment(1);
}

/// What became of a call that was tried fast first: its answer passed (`kept`), a better one was given
/// (`escalated`), the split allowed none (`denied`), or none came (`failed`).
pub(crate) fn cascaded(tenant: &str, result: &'static str, cause: &'static str) {
    let tenant = tenant.to_owned();
    counter!("pareto_cascades_total", "tenant" => tenant, "result" => result, "cause" => cause)
        .increment(1);
}

/// What a budget of `budgets` decided of some calls. Limits on rates have their own metric.
pub(crate) fn budget_decided(decision: &Decision, budgets: &[Standing]) {
    let budget = budgets
        .iter()
        .find(|it| it.id == *decision.budget && it.tenant == *decision.tenant);
    let name = match budget {
        Some(budget) if budget.unit == Unit::Usd => Name::of(budget),
        Some(_) => return,
        None if &*decision.budget == "pacing" => Name {
            tenant: decision.tenant.to_string(),
            level: "tenant",
            budget: "pacing".to_owned(),
        },
        None => Name::other(),
    };
    let decided = [("decision", decision.decision)];
    let labels = labels_of(&admitted(name), &decided);
    counter!("pareto_budget_decisions_total", labels).increment(decision.calls);
}

/// The name itself, as long as there is room for its series.
fn admitted(name: Name) -> Name {
    let mut known = DECIDED.lock().unwrap_or_else(PoisonError::into_inner);
    if known.contains(&name) {
        return name;
    }
    if known.len() >= series::MOST {
        return Name::other();
    }
    known.insert(name.clone());
    name
}

fn labels_of(name: &Name, more: &[(&'static str, &'static str)]) -> Vec<Label> {
    let mut labels = vec![
        Label::new("tenant", name.tenant.clone()),
        Label::new("level", name.level),
        Label::new("budget", name.budget.clone()),
    ];
    labels.extend(more.iter().map(|(key, value)| Label::new(*key, *value)));
    labels
}

/// A call of `tenant` was refused by a limit on `unit`.
pub(crate) fn rate_limited(tenant: &Arc<str>, unit: Unit) {
    let unit = match unit {
        Unit::Usd => "usd",
        Unit::Requests => "requests",
        Unit::Tokens => "tokens",
        Unit::Concurrency => "concurrency",
    };
    counter!("pareto_rate_limit_denials_total", "tenant" => Arc::clone(tenant), "unit" => unit)
        .increment(1);
}

/// One round that shares budgets between nodes.
pub(crate) fn leased(taken: bool, took: Duration) {
    let result = if taken { "ok" } else { "failed" };
    for each in ["ok", "failed"] {
        counter!("pareto_lease_rounds_total", "result" => each)
            .increment(u64::from(each == result));
    }
    histogram!("pareto_lease_round_seconds").record(took);
}

/// One transaction that the ledger took.
pub(crate) fn committed(store: &'static str, rows: usize, took: Duration) {
    histogram!("pareto_ledger_commit_seconds", "store" => store).record(took);
    histogram!("pareto_ledger_batch_rows", "store" => store).record(number(rows));
}

/// One settled attempt.
pub(crate) fn settled(entry: &Entry) {
    let (held, series) = (&entry.held, handles::settled(entry));
    series.tokens(entry);
    series.money(entry);
    series.ending(entry);
    if held.price.is_empty() {
        series.unpriced();
        return;
    }
    if entry.cost > held.bound {
        let over = entry.cost - held.bound;
        tracing::error!(request = %held.request, %over, "a call cost more than its hold");
        counter!("pareto_budget_overspend_nanousd_total").increment(handles::nano(over));
    }
    if entry.outcome == Outcome::Completed && held.bound > NanoUsd::ZERO {
        series.accuracy(usd(entry.cost) / usd(held.bound));
    }
}

/// One call that an endpoint answered, at its end.
pub(crate) fn answered(trace: &Trace, outcome: &'static str) {
    handles::answered(trace, outcome).increment(1);
    if let (Some(relayed), Some(relay)) = (trace.relayed(), handles::phase(Phase::Relay)) {
        relay.record(relayed);
    }
    handles::request().record(trace.arrived.elapsed());
}

/// The answer's first byte is about to go out.
pub(crate) fn first_byte(trace: &Trace) {
    for (phase, spent) in trace.phases().filter(|(phase, _)| *phase != Phase::Relay) {
        if let Some(histogram) = handles::phase(phase) {
            histogram.record(spent);
        }
    }
    handles::overhead().record(trace.overhead());
    handles::first_byte().record(trace.arrived.elapsed());
}

/// What one translation could not carry. Names stay out of the labels: callers choose them.
pub(crate) fn lost(losses: &Losses) {
    for loss in losses.iter() {
        counter!("pareto_translation_losses_total", "kind" => loss.kind.as_str()).increment(1);
    }
}

pub(crate) fn forgotten() {
    counter!("pareto_context_forgotten_total").increment(1);
}

pub(crate) fn context_bytes(bytes: u64) {
    CONTEXT_BYTES.store(bytes, Ordering::Relaxed);
}

/// A wrong key was sent to a door, by who is told to wait or is not yet.
pub(crate) fn wrong_key(door: &'static str, waits: bool) {
    let result = if waits { "slowed" } else { "refused" };
    counter!("pareto_wrong_keys_total", "door" => door, "result" => result).increment(1);
}

pub(crate) fn panicked() {
    counter!("pareto_panics_total").increment(1);
}

pub(crate) fn reloaded(taken: bool) {
    let result = if taken { "taken" } else { "refused" };
    counter!("pareto_config_reloads_total", "result" => result).increment(1);
    RELOAD_REFUSED.store(!taken, Ordering::Relaxed);
    if taken {
        took_configuration();
    }
}

/// A line of the request log was lost.
pub(crate) fn line_dropped() {
    counter!("pareto_request_log_dropped_total").increment(1);
}

/// Telemetry for a collector was lost.
pub(crate) fn otlp_dropped(signal: &'static str, reason: &'static str, count: u64) {
    counter!("pareto_otlp_dropped_total", "signal" => signal, "reason" => reason).increment(count);
}

/// A post to a collector has ended.
pub(crate) fn otlp_posted(signal: &'static str, result: &'static str) {
    counter!("pareto_otlp_posts_total", "signal" => signal, "result" => result).increment(1);
}

/// Notes that the configuration in force was taken now.
pub(crate) fn took_configuration() {
    let now_s = u64::try_from(now_ms().div_euclid(1_000)).unwrap_or(0);
    TAKEN_S.store(now_s, Ordering::Relaxed);
}

/// A call waited for a place, whether it got one or not.
pub(crate) fn queued(priority: Priority, waited: Duration) {
    let (priority, ms) = (priority.as_str(), u64::from(elapsed_ms(waited)));
    counter!("pareto_admission_wait_ms_total", "priority" => priority).increment(ms);
}

/// A call was turned away.
pub(crate) fn shed(priority: Priority, short: Short) {
    let (priority, reason) = (priority.as_str(), short.as_str());
    counter!("pareto_shed_total", "priority" => priority, "reason" => reason).increment(1);
}

/// How it stands at the door.
fn door(door: &admission::Standing) {
    for (priority, waiting) in door.waiting {
        gauge!("pareto_admission_waiting", "priority" => priority.as_str()).set(number(waiting));
    }
    gauge!("pareto_worker_lag_seconds").set(f64::from(door.late_ms) / 1e3);
    gauge!("pareto_memory_resident_bytes").set(count(door.resident));
    gauge!("pareto_memory_limit_bytes").set(count(door.memory));
    gauge!("pareto_body_bytes").set(number(door.bodies));
}

/// How an endpoint's bill compares with the ledger.
#[derive(Debug, Clone, PartialEq)]
pub struct Reconciled {
    pub endpoint: String,
    /// Cost in the ledger against that on the bill.
    pub capture_ratio: f64,
    /// When it was looked at, in seconds since 1970.
    pub at_s: i64,
}

impl From<meter::books::Capture> for Reconciled {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a gauge is for looking at, not for accounts"
    )]
    fn from(capture: meter::books::Capture) -> Self {
        Self {
            endpoint: capture.endpoint,
            capture_ratio: capture.ratio_ppm as f64 / 1e6,
            at_s: capture.reconciled_at_ms.div_euclid(1_000),
        }
    }
}

/// How everything stands that is not told when it happens.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) budgets: Vec<Standing>,
    /// Journal bytes that are not in the ledger, or not on the disk.
    pub(crate) unapplied: u64,
    pub(crate) unsynced: u64,
    pub(crate) store: &'static str,
    pub(crate) committed_ms: i64,
    pub(crate) holds: u64,
    pub(crate) calls: usize,
    pub(crate) door: admission::Standing,
    /// What the shared ledger's clock is ahead; `None` where the ledger is this node's alone.
    pub(crate) ahead_ms: Option<i64>,
    pub(crate) book: String,
    pub(crate) book_age_ms: Option<i64>,
    pub(crate) reconciled: Arc<Vec<Reconciled>>,
}

/// Writes every gauge, whenever metrics are asked for; see [`GONE_AFTER`].
pub(crate) fn state(state: &State, connections: usize) {
    budgets(&state.budgets);
    gauge!("pareto_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1);
    gauge!("pareto_in_flight").set(number(state.calls));
    door(&state.door);
    gauge!("pareto_connections").set(number(connections));
    gauge!("pareto_context_bytes").set(count(CONTEXT_BYTES.load(Ordering::Relaxed)));
    let reload_ok = !RELOAD_REFUSED.load(Ordering::Relaxed);
    gauge!("pareto_config_last_reload_ok").set(u8::from(reload_ok));
    gauge!("pareto_config_taken_timestamp_seconds").set(count(TAKEN_S.load(Ordering::Relaxed)));
    gauge!("pareto_holds_inflight").set(count(state.holds));
    gauge!("pareto_ledger_lag_bytes").set(count(state.unapplied));
    gauge!("pareto_journal_unsynced_bytes").set(count(state.unsynced));
    gauge!("pareto_ledger_last_commit_timestamp_seconds", "store" => state.store)
        .set(seconds(state.committed_ms));
    if let Some(ahead_ms) = state.ahead_ms {
        gauge!("pareto_node_clock_ahead_ms").set(seconds(ahead_ms) * 1e3);
    }
    gauge!("pareto_pricebook_info", "version" => state.book.clone()).set(1);
    if let Some(age_ms) = state.book_age_ms {
        gauge!("pareto_pricebook_age_seconds").set(seconds(age_ms));
    }
    for it in state.reconciled.iter() {
        reconciled(&it.endpoint, it.capture_ratio, it.at_s);
    }
}

/// How the bill of `endpoint` compared with the ledger at `at_s`.
fn reconciled(endpoint: &str, ratio: f64, at_s: i64) {
    let endpoint = endpoint.to_owned();
    gauge!("pareto_reconcile_capture_ratio", "endpoint" => endpoint.clone()).set(ratio);
    gauge!("pareto_reconcile_last_success_timestamp_seconds", "endpoint" => endpoint)
        .set(seconds(at_s.saturating_mul(1_000)));
}

fn budgets(budgets: &[Standing]) {
    for row in series::rows(budgets) {
        let labels = labels_of(&row.name, &[]);
        let usd = |nano: i64| usd(NanoUsd(nano));
        gauge!("pareto_budget_limit_usd", labels.clone()).set(usd(row.limit));
        gauge!("pareto_budget_settled_usd", labels.clone()).set(usd(row.settled));
        gauge!("pareto_budget_held_usd", labels.clone()).set(usd(row.held));
        gauge!("pareto_budget_remaining_usd", labels.clone()).set(usd(row.left));
        if let Some(length_ms) = row.window_ms {
            gauge!("pareto_budget_window_seconds", labels.clone()).set(seconds(length_ms));
        }
        if let Some(at_ms) = row.resets_at_ms {
            gauge!("pareto_budget_reset_timestamp_seconds", labels).set(seconds(at_ms));
        }
        if row.hard {
            let decided = [("decision", "unavailable")];
            let labels = labels_of(&admitted(row.name), &decided);
            counter!("pareto_budget_decisions_total", labels).increment(0);
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "gauges are for looking at, not for accounts"
)]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1e3
}

fn count(value: u64) -> f64 {
    number(usize::try_from(value).unwrap_or(usize::MAX))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "gauges are for looking at, not for accounts"
)]
fn number(count: usize) -> f64 {
    count as f64
}

/// For gauges only: money is never computed with floating point.
#[expect(
    clippy::cast_precision_loss,
    reason = "gauges are for looking at, not for accounts"
)]
fn usd(amount: NanoUsd) -> f64 {
    amount.0 as f64 / 1e9
}

/// Milliseconds since `start`, as the ledger keeps them.
pub(crate) fn elapsed_ms(elapsed: Duration) -> u32 {
    u32::try_from(elapsed.as_millis()).unwrap_or(u32::MAX)
}
