//! Every metric's name and labels, one function for each fact. Business code calls these and never
//! names a metric. No secrets, prompts or answers pass here.
#![expect(
    clippy::disallowed_macros,
    reason = "this is the file that may name metrics"
)]

use std::time::Duration;

use meter::Entry;
use meter::{Standing, Unit};
use metrics::{counter, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use wire::{Losses, Refusal, Tier, UsageSource};

use crate::trace::{Phase, Trace};

/// Every metric that this file writes, with what it means; the tidy test holds it against the
/// dashboards and against this file.
pub const NAMES: &[(&str, &str)] = &[
    ("pareto_build_info", "always 1, with the version as label"),
    (
        "pareto_requests_total",
        "calls answered by an endpoint, by how they ended",
    ),
    (
        "pareto_refusals_total",
        "calls refused by the gateway, by code and whose fault",
    ),
    (
        "pareto_route_decisions_total",
        "routing decisions by tier and reason",
    ),
    (
        "pareto_upstream_attempts_total",
        "attempts by endpoint and how they ended",
    ),
    (
        "pareto_tokens_total",
        "tokens by class; classes are disjoint",
    ),
    ("pareto_cost_nanousd_total", "settled cost in nano-USD"),
    (
        "pareto_baseline_nanousd_total",
        "the same usage rated at the deep tier, in nano-USD",
    ),
    (
        "pareto_usage_source_total",
        "settled attempts by where their usage figures come from",
    ),
    (
        "pareto_unpriced_calls_total",
        "attempts at models without a price",
    ),
    ("pareto_budget_denials_total", "calls that a budget refused"),
    (
        "pareto_budget_waits_total",
        "calls that waited for other calls' holds",
    ),
    (
        "pareto_budget_overspend_nanousd_total",
        "cost above a hold's bound; must stay zero",
    ),
    ("pareto_budget_limit_usd", "limit of each budget"),
    ("pareto_budget_settled_usd", "settled in the present window"),
    ("pareto_budget_held_usd", "held by calls under way"),
    ("pareto_phase_seconds", "time by phase of a call"),
    (
        "pareto_overhead_seconds",
        "what the gateway itself adds up to the first byte",
    ),
    ("pareto_first_byte_seconds", "arrival to first content"),
    ("pareto_request_seconds", "arrival to the end of the answer"),
    ("pareto_in_flight", "calls under way"),
    ("pareto_connections", "callers' connections open"),
    (
        "pareto_ledger_lag_bytes",
        "journal bytes that the ledger does not have yet",
    ),
    (
        "pareto_journal_unsynced_bytes",
        "journal bytes that are not on the disk yet",
    ),
    (
        "pareto_translation_losses_total",
        "things that a translation could not carry, by how they were lost",
    ),
    (
        "pareto_context_bytes",
        "what is kept of conversations; context.max_mb bounds it",
    ),
    (
        "pareto_context_forgotten_total",
        "documents lost because the archive did not keep up; must stay zero",
    ),
    ("pareto_panics_total", "calls that ended in a panic"),
    (
        "pareto_config_reloads_total",
        "configuration reloads by result",
    ),
    (
        "pareto_config_last_reload_ok",
        "1 while the last reload was taken",
    ),
];

/// Seconds from 10 microseconds to 10 minutes: the gateway's own time and a model's.
const BUCKETS: &[f64] = &[
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025,
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
];

/// Installs the recorder for this process and returns what renders `/metrics`. In a process that
/// has one already (a test that boots twice) the new one stays unused and renders nothing.
pub(crate) fn install() -> PrometheusHandle {
    let suffix = Matcher::Suffix("_seconds".to_owned());
    let builder = PrometheusBuilder::new();
    let builder = builder
        .set_buckets_for_metric(suffix, BUCKETS)
        .unwrap_or_else(|_| PrometheusBuilder::new());
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_ok() {
        for (name, help) in NAMES {
            metrics::with_recorder(|recorder| match name.rsplit('_').next() {
                Some("total") => recorder.describe_counter((*name).into(), None, (*help).into()),
                Some("seconds") => {
                    recorder.describe_histogram((*name).into(), None, (*help).into());
                }
                _ => recorder.describe_gauge((*name).into(), None, (*help).into()),
            });
        }
        gauge!("pareto_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1);
    }
    handle
}

pub(crate) fn refused(refusal: &Refusal, dialect: &'static str) {
    let fault = refusal.fault.as_str();
    counter!("pareto_refusals_total", "code" => refusal.code, "fault" => fault, "dialect" => dialect)
        .increment(1);
    if refusal.code == "budget_exceeded" {
        counter!("pareto_budget_denials_total").increment(1);
    }
}

pub(crate) fn decided(tenant: &str, tier: Tier, reason: &'static str) {
    let tenant = tenant.to_owned();
    counter!("pareto_route_decisions_total", "tenant" => tenant, "tier" => tier.as_str(), "reason" => reason)
        .increment(1);
}

pub(crate) fn waited_for_holds() {
    counter!("pareto_budget_waits_total").increment(1);
}

/// One settled attempt.
pub(crate) fn settled(entry: &Entry) {
    let held = &entry.held;
    let labels = [
        ("tenant", held.subject.tenant.to_string()),
        ("model", held.model.to_string()),
        ("tier", held.tier.as_str().to_owned()),
    ];
    let usage = &entry.usage;
    for (class, tokens) in [
        ("input", usage.input),
        ("cache_read", usage.cache_read),
        ("cache_write", usage.cache_write()),
        ("output", usage.output),
        ("reasoning", usage.reasoning),
        ("audio", usage.audio()),
    ] {
        if tokens > 0 && entry.source != UsageSource::Estimated {
            let class = [("class", class.to_owned())];
            let labels: Vec<_> = labels.iter().chain(&class).cloned().collect();
            counter!("pareto_tokens_total", &labels).increment(tokens);
        }
    }
    let nano = |amount: meter::NanoUsd| u64::try_from(amount.0).unwrap_or(0);
    counter!("pareto_cost_nanousd_total", &labels).increment(nano(entry.cost));
    counter!("pareto_baseline_nanousd_total", &labels).increment(nano(entry.baseline));
    counter!("pareto_usage_source_total", "source" => entry.source.as_str()).increment(1);
    let endpoint = held.endpoint.to_string();
    counter!("pareto_upstream_attempts_total", "endpoint" => endpoint, "outcome" => entry.outcome.as_str())
        .increment(1);
    if held.price.is_empty() {
        counter!("pareto_unpriced_calls_total", "model" => held.model.to_string()).increment(1);
    }
    if entry.cost > held.bound && !held.price.is_empty() {
        let over = entry.cost - held.bound;
        tracing::error!(request = %held.request, %over, "a call cost more than its hold");
        counter!("pareto_budget_overspend_nanousd_total").increment(nano(over));
    }
}

/// One call that an endpoint answered, at its end.
pub(crate) fn answered(trace: &Trace, outcome: &'static str) {
    let (model, tier) = trace
        .answered_by
        .as_ref()
        .map_or((String::new(), ""), |(model, tier, _)| {
            (model.to_string(), tier.as_str())
        });
    let tenant = trace
        .subject
        .as_ref()
        .map_or_else(String::new, |s| s.tenant.to_string());
    counter!(
        "pareto_requests_total",
        "tenant" => tenant, "model" => model, "tier" => tier, "dialect" => trace.dialect.name(), "outcome" => outcome
    )
    .increment(1);
    if let Some(relayed) = trace.relayed() {
        histogram!("pareto_phase_seconds", "phase" => Phase::Relay.as_str()).record(relayed);
    }
    histogram!("pareto_request_seconds").record(trace.arrived.elapsed());
}

/// The answer's first byte is about to go out.
pub(crate) fn first_byte(trace: &Trace) {
    for (phase, spent) in trace.phases().filter(|(phase, _)| *phase != Phase::Relay) {
        histogram!("pareto_phase_seconds", "phase" => phase.as_str()).record(spent);
    }
    histogram!("pareto_overhead_seconds").record(trace.overhead());
    histogram!("pareto_first_byte_seconds").record(trace.arrived.elapsed());
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
    gauge!("pareto_context_bytes").set(number(usize::try_from(bytes).unwrap_or(usize::MAX)));
}

pub(crate) fn in_flight(calls: usize) {
    gauge!("pareto_in_flight").set(number(calls));
}

pub(crate) fn connections(open: usize) {
    gauge!("pareto_connections").set(number(open));
}

pub(crate) fn panicked() {
    counter!("pareto_panics_total").increment(1);
}

pub(crate) fn reloaded(taken: bool) {
    let result = if taken { "taken" } else { "refused" };
    counter!("pareto_config_reloads_total", "result" => result).increment(1);
    gauge!("pareto_config_last_reload_ok").set(if taken { 1.0 } else { 0.0 });
}

/// Budgets and storage as they stand, written whenever metrics are asked for.
pub(crate) fn state(budgets: &[Standing], unapplied: u64, unsynced: u64) {
    for budget in budgets.iter().filter(|it| it.unit == Unit::Usd) {
        let labels = [
            ("tenant", budget.tenant.clone()),
            ("budget", budget.name.clone()),
        ];
        let usd = |nano: i64| usd(meter::NanoUsd(nano));
        gauge!("pareto_budget_limit_usd", &labels).set(usd(budget.limit + budget.extra));
        gauge!("pareto_budget_settled_usd", &labels).set(usd(budget.settled));
        gauge!("pareto_budget_held_usd", &labels).set(usd(budget.held));
    }
    gauge!("pareto_ledger_lag_bytes").set(number(usize::try_from(unapplied).unwrap_or(usize::MAX)));
    gauge!("pareto_journal_unsynced_bytes")
        .set(number(usize::try_from(unsynced).unwrap_or(usize::MAX)));
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
fn usd(amount: meter::NanoUsd) -> f64 {
    amount.0 as f64 / 1e9
}

/// Milliseconds since `start`, as the ledger keeps them.
pub(crate) fn elapsed_ms(elapsed: Duration) -> u32 {
    u32::try_from(elapsed.as_millis()).unwrap_or(u32::MAX)
}
