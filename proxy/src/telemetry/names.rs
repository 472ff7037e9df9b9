//! The list of metrics with what each of them means, as `# HELP` lines show it.

/// Every metric that `telemetry.rs` writes, with what it means; the tidy test holds it against the
/// dashboards and against that file.
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
        "pareto_cascades_total",
        "calls tried fast first, by what became of them and the check that their fast answer failed",
    ),
    (
        "pareto_upstream_attempts_total",
        "attempts by endpoint and how they ended",
    ),
    (
        "pareto_upstream_rests_total",
        "times that a model failed too often at an endpoint and was left alone",
    ),
    (
        "pareto_upstream_pauses_total",
        "times that an endpoint asked for a pause, or told that an allowance is used up",
    ),
    (
        "pareto_upstream_keys_refused_total",
        "calls whose key the endpoint refused; the log says which",
    ),
    (
        "pareto_upstream_retries_total",
        "calls that went on to a model after a failure: free where nobody had seen them, taken or denied by upstream.retries",
    ),
    (
        "pareto_upstream_hedges_total",
        "calls that took long, by who answered them first: the model asked first or the second, or neither; denied where there may be no more",
    ),
    (
        "pareto_upstream_usable",
        "1 while a model gets calls at an endpoint, 0 while it rests or pauses",
    ),
    (
        "pareto_upstream_concurrency_limit",
        "calls that an endpoint gets at once, where that is bounded",
    ),
    (
        "pareto_upstream_calls",
        "calls under way at a model and endpoint",
    ),
    (
        "pareto_tokens_total",
        "tokens by class; classes are disjoint",
    ),
    ("pareto_cost_nanousd_total", "settled cost in nano-USD"),
    (
        "pareto_sell_nanousd_total",
        "what tenants pay, by the rules that can be told call by call, in nano-USD",
    ),
    (
        "pareto_savings_nanousd_total",
        "saved by routing and by providers' caches, in nano-USD; calls that cost more count as nothing",
    ),
    (
        "pareto_baseline_nanousd_total",
        "the same usage rated at the deep tier, in nano-USD",
    ),
    (
        "pareto_usage_source_total",
        "settled attempts by model and where their usage figures come from",
    ),
    (
        "pareto_unpriced_calls_total",
        "attempts at models without a price",
    ),
    (
        "pareto_budget_decisions_total",
        "calls that a budget made wait, sent to the fast tier, denied, or could not be asked about",
    ),
    (
        "pareto_rate_limit_denials_total",
        "calls that a limit on requests, tokens or calls at once refused",
    ),
    (
        "pareto_budget_overspend_nanousd_total",
        "cost above a hold's bound; must stay zero",
    ),
    ("pareto_budget_limit_usd", "limit of each budget"),
    ("pareto_budget_settled_usd", "settled in the present window"),
    ("pareto_budget_held_usd", "held by calls under way"),
    (
        "pareto_budget_remaining_usd",
        "what may still be held, less what other nodes may spend",
    ),
    (
        "pareto_budget_window_seconds",
        "length of each budget's window, where it ends",
    ),
    (
        "pareto_budget_reset_timestamp_seconds",
        "when each budget's next window begins",
    ),
    ("pareto_holds_inflight", "holds that are not settled yet"),
    (
        "pareto_hold_expired_total",
        "holds whose end nobody saw, charged at their bound at the next start",
    ),
    (
        "pareto_hold_accuracy_ratio",
        "cost of a completed call against what was held for it",
    ),
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
        "pareto_admission_waiting",
        "calls that wait for a place, by priority",
    ),
    (
        "pareto_admission_wait_ms_total",
        "milliseconds that calls waited for a place",
    ),
    (
        "pareto_shed_total",
        "calls turned away before they were read, by priority and what was short",
    ),
    (
        "pareto_worker_lag_seconds",
        "how late the latest of the threads is that serve callers",
    ),
    (
        "pareto_memory_resident_bytes",
        "memory of the process's own",
    ),
    (
        "pareto_memory_limit_bytes",
        "memory that the process may have",
    ),
    (
        "pareto_body_bytes",
        "memory that bodies of calls have, of that set aside for them",
    ),
    (
        "pareto_ledger_lag_bytes",
        "journal bytes that the ledger does not have yet",
    ),
    (
        "pareto_ledger_commit_seconds",
        "time of each transaction that the ledger took",
    ),
    (
        "pareto_ledger_batch_rows",
        "journal records in each transaction of the ledger",
    ),
    (
        "pareto_ledger_last_commit_timestamp_seconds",
        "when the ledger last took entries, or was opened",
    ),
    (
        "pareto_lease_rounds_total",
        "rounds that share budgets between nodes, by result",
    ),
    ("pareto_lease_round_seconds", "time of each such round"),
    (
        "pareto_node_clock_ahead_ms",
        "what the shared ledger's clock is ahead of this machine's",
    ),
    (
        "pareto_pricebook_info",
        "always 1, with the price book's version as label",
    ),
    (
        "pareto_pricebook_age_seconds",
        "time since the price book's prices were looked up",
    ),
    (
        "pareto_reconcile_capture_ratio",
        "cost in the ledger against the endpoint's bill, at the last reconciliation",
    ),
    (
        "pareto_reconcile_last_success_timestamp_seconds",
        "when the endpoint's bill was last reconciled",
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
    (
        "pareto_request_log_dropped_total",
        "lines of the request log that were lost to a full disk or a slow one",
    ),
    (
        "pareto_otlp_dropped_total",
        "telemetry for a collector that was lost: records of calls, spans and log records there was no room for (full), or that were refused, rejected or left at the end",
    ),
    (
        "pareto_otlp_posts_total",
        "posts to a collector by signal: taken, to be tried again, or refused",
    ),
    (
        "pareto_wrong_keys_total",
        "wrong keys and tokens by door: refused, or slowed where too many came from one address or for one key",
    ),
    ("pareto_panics_total", "calls that ended in a panic"),
    (
        "pareto_config_reloads_total",
        "configuration reloads by result",
    ),
    (
        "pareto_config_taken_timestamp_seconds",
        "when the configuration in force was taken",
    ),
    (
        "pareto_config_last_reload_ok",
        "1 while the last reload was taken",
    ),
];
