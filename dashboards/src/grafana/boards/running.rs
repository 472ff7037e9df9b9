//! How it runs: the dashboards of routing, metering and traffic.

use super::{BYTES, COUNT, PER_SECOND, SECONDS, SHARE, Sheet, USD};
use crate::grafana::Kind::{Bars, Figure, Lines};

pub(super) const ROUTING: Sheet = Sheet {
    uid: "pareto-routing",
    title: "Pareto: routing and savings",
    description: "Where calls are sent, why, and what that saves.",
    panels: &[
        (
            Figure,
            ("Saved in the range", USD),
            "What the same use would have cost at the deep tier, less what it cost.",
            &[(
                "(sum(increase(pareto_baseline_nanousd_total{%F}[$__range])) - sum(increase(pareto_cost_nanousd_total{%F}[$__range]))) / 1e9",
                "saved",
            )],
        ),
        (
            Figure,
            ("Saved share", SHARE),
            "The same as a share of what all deep would have cost.",
            &[(
                "1 - sum(increase(pareto_cost_nanousd_total{%F}[$__range])) / sum(increase(pareto_baseline_nanousd_total{%F}[$__range]))",
                "saved",
            )],
        ),
        (
            Figure,
            ("Deep share of scored calls", SHARE),
            "Of the calls that the router had a free hand with, those that went deep at once or after a fast answer failed a check; routing.deep_per_thousand is the target.",
            &[(
                "(sum(increase(pareto_route_decisions_total{tier=\"deep\",reason=~\"score|split\",%T}[$__range])) + (sum(increase(pareto_cascades_total{result=\"escalated\",%T}[$__range])) or vector(0))) / sum(increase(pareto_route_decisions_total{reason=~\"score|split|cascade\",%T}[$__range]))",
                "deep",
            )],
        ),
        (
            Figure,
            ("Saved by providers' caches", USD),
            "What cache reads cost less than plain input, less the premium of cache writes.",
            &[(
                "sum(increase(pareto_savings_nanousd_total{kind=\"provider_cache\",%T}[$__range])) / 1e9",
                "cache",
            )],
        ),
        (
            Lines,
            ("Savings by kind, USD an hour", USD),
            "By routing to the fast tier, and by providers' caches. Calls that cost more count as nothing.",
            &[(
                "sum by (kind) (rate(pareto_savings_nanousd_total{%T}[$__rate_interval])) * 3600 / 1e9",
                "{{kind}}",
            )],
        ),
        (
            Lines,
            ("Cost and all deep, USD an hour", USD),
            "What calls cost, and what the same use would have cost at the deep tier.",
            &[
                (
                    "sum(rate(pareto_cost_nanousd_total{%F}[$__rate_interval])) * 3600 / 1e9",
                    "cost",
                ),
                (
                    "sum(rate(pareto_baseline_nanousd_total{%F}[$__rate_interval])) * 3600 / 1e9",
                    "all deep",
                ),
            ],
        ),
        (
            Lines,
            ("Decisions by tier and reason, calls a second", PER_SECOND),
            "Why calls go where they go.",
            &[(
                "sum by (tier, reason) (rate(pareto_route_decisions_total{tier=~\"$tier\",%T}[$__rate_interval]))",
                "{{tier}} {{reason}}",
            )],
        ),
        (
            Lines,
            ("Deep share of scored calls", SHARE),
            "As above, over time.",
            &[(
                "(sum(rate(pareto_route_decisions_total{tier=\"deep\",reason=~\"score|split\",%T}[$__rate_interval])) + (sum(rate(pareto_cascades_total{result=\"escalated\",%T}[$__rate_interval])) or vector(0))) / sum(rate(pareto_route_decisions_total{reason=~\"score|split|cascade\",%T}[$__rate_interval]))",
                "deep",
            )],
        ),
        (
            Lines,
            ("Calls tried fast first, a second", PER_SECOND),
            "By what became of them, and the check that the fast answer failed; denied: the split allowed no deep one.",
            &[(
                "sum by (result, cause) (rate(pareto_cascades_total{%T}[$__rate_interval]))",
                "{{result}} {{cause}}",
            )],
        ),
        (
            Lines,
            ("Share of the prompt that was cached", SHARE),
            "Tokens read from providers' caches, of all tokens of prompts.",
            &[(
                "sum by (model) (rate(pareto_tokens_total{class=\"cache_read\",%F}[$__rate_interval])) / sum by (model) (rate(pareto_tokens_total{class=~\"input|cache_read|cache_write\",%F}[$__rate_interval]))",
                "{{model}}",
            )],
        ),
        (
            Lines,
            ("Attempts by endpoint and outcome, a second", PER_SECOND),
            "More than one attempt for a call is failover.",
            &[(
                "sum by (endpoint, outcome) (rate(pareto_upstream_attempts_total[$__rate_interval]))",
                "{{endpoint}} {{outcome}}",
            )],
        ),
        (
            Lines,
            ("Retries by model and result, a second", PER_SECOND),
            "Calls that went on to a model after a failure: free where nobody had seen them, taken or denied by upstream.retries.",
            &[(
                "sum by (model, endpoint, result) (rate(pareto_upstream_retries_total[$__rate_interval]))",
                "{{model}} at {{endpoint}}: {{result}}",
            )],
        ),
        (
            Lines,
            ("Calls that took long, a second", PER_SECOND),
            "Calls of models with hedge that took longer than 95 in 100: which of the two models answered first, and those for which no second one could be asked.",
            &[(
                "sum by (model, result) (rate(pareto_upstream_hedges_total[$__rate_interval]))",
                "{{model}} {{result}}",
            )],
        ),
        (
            Lines,
            ("Models that get calls", COUNT),
            "1 while a model gets calls at an endpoint, 0 while it rests after failures or pauses because it was asked to.",
            &[(
                "min by (model, endpoint) (pareto_upstream_usable)",
                "{{model}} at {{endpoint}}",
            )],
        ),
        (
            Lines,
            ("Rests, pauses and refused keys a second", PER_SECOND),
            "Models left alone after failures, pauses that endpoints asked for, and calls whose key an endpoint refused.",
            &[
                (
                    "sum by (model, endpoint) (rate(pareto_upstream_rests_total[$__rate_interval]))",
                    "{{model}} at {{endpoint}} rests",
                ),
                (
                    "sum by (model, endpoint) (rate(pareto_upstream_pauses_total[$__rate_interval]))",
                    "{{model}} at {{endpoint}} pauses",
                ),
                (
                    "sum by (endpoint) (rate(pareto_upstream_keys_refused_total[$__rate_interval]))",
                    "{{endpoint}} refuses a key",
                ),
            ],
        ),
        (
            Lines,
            ("Calls under way by model", COUNT),
            "Calls that are at an endpoint, from their sending to the end of their answer, and how many an endpoint gets at once where that is bounded.",
            &[
                (
                    "sum by (model, endpoint) (pareto_upstream_calls)",
                    "{{model}} at {{endpoint}}",
                ),
                (
                    "min by (endpoint) (pareto_upstream_concurrency_limit)",
                    "{{endpoint}} at most",
                ),
            ],
        ),
        (
            Lines,
            ("Translation losses a second", PER_SECOND),
            "What could not be carried into another dialect, by how it was lost.",
            &[(
                "sum by (kind) (rate(pareto_translation_losses_total[$__rate_interval]))",
                "{{kind}}",
            )],
        ),
    ],
};

pub(super) const METERING: Sheet = Sheet {
    uid: "pareto-metering",
    title: "Pareto: metering health",
    description: "Whether what is counted is right, complete and written down.",
    panels: &[
        (
            Figure,
            ("Ledger's last commit", SECONDS),
            "Time since the ledger took entries; grows while there is no traffic.",
            &[(
                "time() - max by (store) (pareto_ledger_last_commit_timestamp_seconds)",
                "{{store}}",
            )],
        ),
        (
            Figure,
            ("Capture ratio", SHARE),
            "Cost in the ledger against the endpoint's bill, at the last reconciliation.",
            &[(
                "min by (endpoint) (pareto_reconcile_capture_ratio)",
                "{{endpoint}}",
            )],
        ),
        (
            Figure,
            ("Age of the price book", SECONDS),
            "Time since its prices were looked up.",
            &[("max(pareto_pricebook_age_seconds)", "age")],
        ),
        (
            Figure,
            ("Expired holds in the range", COUNT),
            "Calls whose end nobody saw, charged at their bound.",
            &[(
                "sum(increase(pareto_hold_expired_total[$__range]))",
                "expired",
            )],
        ),
        (
            Lines,
            ("Where usage figures come from, calls a second", PER_SECOND),
            "provider: reported; counted: by us; estimated: the bound.",
            &[(
                "sum by (source) (rate(pareto_usage_source_total{model=~\"$model\"}[$__rate_interval]))",
                "{{source}}",
            )],
        ),
        (
            Lines,
            ("Calls without a price a second", PER_SECOND),
            "Their tokens are metered, their cost is not.",
            &[(
                "sum by (model) (rate(pareto_unpriced_calls_total{model=~\"$model\"}[$__rate_interval]))",
                "{{model}}",
            )],
        ),
        (
            Lines,
            ("Ledger commits", SECONDS),
            "Time of a transaction.",
            &[
                (
                    "histogram_quantile(0.5, sum by (le, store) (rate(pareto_ledger_commit_seconds_bucket[$__rate_interval])))",
                    "{{store}} p50",
                ),
                (
                    "histogram_quantile(0.99, sum by (le, store) (rate(pareto_ledger_commit_seconds_bucket[$__rate_interval])))",
                    "{{store}} p99",
                ),
            ],
        ),
        (
            Lines,
            ("Records in a commit", COUNT),
            "How many journal records share a transaction.",
            &[
                (
                    "histogram_quantile(0.5, sum by (le, store) (rate(pareto_ledger_batch_rows_bucket[$__rate_interval])))",
                    "{{store}} p50",
                ),
                (
                    "histogram_quantile(0.99, sum by (le, store) (rate(pareto_ledger_batch_rows_bucket[$__rate_interval])))",
                    "{{store}} p99",
                ),
            ],
        ),
        (
            Lines,
            ("Journal that is behind", BYTES),
            "Bytes that the ledger does not have yet, and bytes that are not on the disk yet.",
            &[
                (
                    "sum by (instance) (pareto_ledger_lag_bytes)",
                    "{{instance}} not in the ledger",
                ),
                (
                    "sum by (instance) (pareto_journal_unsynced_bytes)",
                    "{{instance}} not on the disk",
                ),
            ],
        ),
        (
            Lines,
            ("Lease rounds a second", PER_SECOND),
            "Rounds that share budgets between nodes; only with a shared ledger.",
            &[(
                "sum by (result) (rate(pareto_lease_rounds_total[$__rate_interval]))",
                "{{result}}",
            )],
        ),
        (
            Lines,
            ("Time of a lease round", SECONDS),
            "One round trip to the shared ledger.",
            &[
                (
                    "histogram_quantile(0.5, sum by (le) (rate(pareto_lease_round_seconds_bucket[$__rate_interval])))",
                    "p50",
                ),
                (
                    "histogram_quantile(0.99, sum by (le) (rate(pareto_lease_round_seconds_bucket[$__rate_interval])))",
                    "p99",
                ),
            ],
        ),
        (
            Lines,
            ("Clock of the shared ledger ahead of the node's", "ms"),
            "Windows and leases follow the ledger's clock.",
            &[(
                "max by (instance) (pareto_node_clock_ahead_ms)",
                "{{instance}}",
            )],
        ),
        (
            Lines,
            ("Time since reconciliation", SECONDS),
            "Since the endpoint's bill was last compared with the ledger.",
            &[(
                "time() - max by (endpoint) (pareto_reconcile_last_success_timestamp_seconds)",
                "{{endpoint}}",
            )],
        ),
        (
            Bars,
            ("Price books in force", COUNT),
            "Nodes by the version of their price book: one version is how it should be.",
            &[("count by (version) (pareto_pricebook_info)", "{{version}}")],
        ),
    ],
};

pub(super) const TRAFFIC: Sheet = Sheet {
    uid: "pareto-traffic",
    title: "Pareto: traffic and latency",
    description: "Calls, refusals, the gateway's own time, and what it holds.",
    panels: &[
        (
            Figure,
            ("Calls a second", PER_SECOND),
            "Calls that an endpoint answered.",
            &[(
                "sum(rate(pareto_requests_total{%F}[$__rate_interval]))",
                "calls",
            )],
        ),
        (
            Figure,
            ("Under way", COUNT),
            "Calls under way.",
            &[("sum(pareto_in_flight)", "calls")],
        ),
        (
            Figure,
            ("Connections", COUNT),
            "Callers' connections open.",
            &[("sum(pareto_connections)", "connections")],
        ),
        (
            Lines,
            ("Calls that wait for a place", COUNT),
            "Calls that found all places taken, by priority; they wait as long as overload.queue_ms says.",
            &[(
                "sum by (priority) (pareto_admission_waiting)",
                "{{priority}}",
            )],
        ),
        (
            Lines,
            ("Wait for a place", SECONDS),
            "What calls waited for a place in each second, all together, by priority.",
            &[(
                "sum by (priority) (rate(pareto_admission_wait_ms_total[$__rate_interval])) / 1e3",
                "{{priority}}",
            )],
        ),
        (
            Lines,
            ("Turned away", PER_SECOND),
            "Calls turned away before they were read, by priority and what was short: places, time of the workers, \
             memory, or memory for bodies.",
            &[(
                "sum by (priority, reason) (rate(pareto_shed_total[$__rate_interval]))",
                "{{priority}} {{reason}}",
            )],
        ),
        (
            Lines,
            ("Workers late", SECONDS),
            "How late the latest of the threads is that serve callers; beyond overload.lag_ms calls are turned away.",
            &[(
                "max by (instance) (pareto_worker_lag_seconds)",
                "{{instance}}",
            )],
        ),
        (
            Lines,
            ("Memory", BYTES),
            "What the process has, what it may have, and what bodies of calls have of it.",
            &[
                ("sum(pareto_memory_resident_bytes)", "has"),
                ("sum(pareto_memory_limit_bytes)", "may have"),
                ("sum(pareto_body_bytes)", "bodies"),
            ],
        ),
        (
            Figure,
            ("Panics in the range", COUNT),
            "Calls that ended in a panic: each is a bug.",
            &[("sum(increase(pareto_panics_total[$__range]))", "panics")],
        ),
        (
            Lines,
            ("Wrong keys, a second", PER_SECOND),
            "Wrong keys of callers and tokens of operators; slowed are those beyond limits.wrong_keys, who guess or have an old key at work.",
            &[(
                "sum by (door, result) (rate(pareto_wrong_keys_total[$__rate_interval]))",
                "{{door}} {{result}}",
            )],
        ),
        (
            Lines,
            ("Calls by outcome, a second", PER_SECOND),
            "How calls ended that an endpoint answered.",
            &[(
                "sum by (outcome) (rate(pareto_requests_total{%F}[$__rate_interval]))",
                "{{outcome}}",
            )],
        ),
        (
            Lines,
            ("Refusals by code, a second", PER_SECOND),
            "Calls that the gateway refused, and whose fault it was.",
            &[(
                "sum by (code, fault) (rate(pareto_refusals_total[$__rate_interval]))",
                "{{code}} ({{fault}})",
            )],
        ),
        (
            Lines,
            ("What the gateway adds up to the first byte", SECONDS),
            "Its own time, without the endpoint's.",
            &[
                (
                    "histogram_quantile(0.5, sum by (le) (rate(pareto_overhead_seconds_bucket[$__rate_interval])))",
                    "p50",
                ),
                (
                    "histogram_quantile(0.99, sum by (le) (rate(pareto_overhead_seconds_bucket[$__rate_interval])))",
                    "p99",
                ),
            ],
        ),
        (
            Lines,
            ("Time by phase, p99", SECONDS),
            "Where the time of a call goes.",
            &[(
                "histogram_quantile(0.99, sum by (le, phase) (rate(pareto_phase_seconds_bucket[$__rate_interval])))",
                "{{phase}}",
            )],
        ),
        (
            Lines,
            ("First content", SECONDS),
            "From the call's arrival to the first content of its answer.",
            &[
                (
                    "histogram_quantile(0.5, sum by (le) (rate(pareto_first_byte_seconds_bucket[$__rate_interval])))",
                    "p50",
                ),
                (
                    "histogram_quantile(0.99, sum by (le) (rate(pareto_first_byte_seconds_bucket[$__rate_interval])))",
                    "p99",
                ),
            ],
        ),
        (
            Lines,
            ("Whole call", SECONDS),
            "From the call's arrival to the end of its answer.",
            &[
                (
                    "histogram_quantile(0.5, sum by (le) (rate(pareto_request_seconds_bucket[$__rate_interval])))",
                    "p50",
                ),
                (
                    "histogram_quantile(0.99, sum by (le) (rate(pareto_request_seconds_bucket[$__rate_interval])))",
                    "p99",
                ),
            ],
        ),
        (
            Lines,
            ("Kept of conversations", BYTES),
            "context.max_mb bounds it.",
            &[("sum by (instance) (pareto_context_bytes)", "{{instance}}")],
        ),
        (
            Figure,
            ("Forgotten in the range", COUNT),
            "Documents lost because the archive did not keep up. Must stay zero.",
            &[(
                "sum(increase(pareto_context_forgotten_total[$__range]))",
                "forgotten",
            )],
        ),
        (
            Figure,
            ("Reloads in the range", COUNT),
            "Configuration reloads by result.",
            &[(
                "sum by (result) (increase(pareto_config_reloads_total[$__range]))",
                "{{result}}",
            )],
        ),
        (
            Figure,
            ("Configuration in force", COUNT),
            "1 while the file is in force, 0 after a reload that was refused.",
            &[(
                "min by (instance) (pareto_config_last_reload_ok)",
                "{{instance}}",
            )],
        ),
        (
            Figure,
            ("Request log lines dropped", COUNT),
            "Lost to a full disk or a slow one: no call waits for the log.",
            &[(
                "sum(increase(pareto_request_log_dropped_total[$__range]))",
                "dropped",
            )],
        ),
        (
            Figure,
            ("Telemetry dropped", COUNT),
            "Spans, log records and records of calls that no collector got (otlp): no call waits for it.",
            &[(
                "sum by (signal, reason) (increase(pareto_otlp_dropped_total[$__range])) > 0",
                "{{signal}} {{reason}}",
            )],
        ),
        (
            Figure,
            ("Posts to the collector", COUNT),
            "By signal: taken, to be tried again, or refused. Nothing where no collector is configured.",
            &[(
                "sum by (signal, result) (increase(pareto_otlp_posts_total[$__range]))",
                "{{signal}} {{result}}",
            )],
        ),
        (
            Figure,
            ("Age of the configuration", SECONDS),
            "Since the configuration in force was taken, at the start or by a reload.",
            &[(
                "max by (instance) (time() - pareto_config_taken_timestamp_seconds)",
                "{{instance}}",
            )],
        ),
        (
            Figure,
            ("Versions", COUNT),
            "Nodes by version of the gateway.",
            &[("count by (version) (pareto_build_info)", "{{version}}")],
        ),
    ],
};
