//! What is spent: the dashboards of spend, of one tenant, and of budgets.

use super::{COUNT, PER_SECOND, SECONDS, SHARE, Sheet, USD};
use crate::grafana::Kind::{Bars, Figure, Lines, Table};

pub(super) const SPEND: Sheet = Sheet {
    uid: "pareto-spend",
    title: "Pareto: spend",
    description: "What is spent, by whom and on what. For rates and trends; the ledger is exact.",
    panels: &[
        (
            Figure,
            ("Cost in the range", USD),
            "What providers charge for calls settled in the chosen range, about.",
            &[(
                "sum(increase(pareto_cost_nanousd_total{%F}[$__range])) / 1e9",
                "cost",
            )],
        ),
        (
            Figure,
            ("Sold in the range", USD),
            "What tenants pay for them, by the rules that can be told call by call.",
            &[(
                "sum(increase(pareto_sell_nanousd_total{%F}[$__range])) / 1e9",
                "sold",
            )],
        ),
        (
            Figure,
            ("Cost a day at this rate", USD),
            "The present rate of spending, for 24 hours.",
            &[(
                "sum(rate(pareto_cost_nanousd_total{%F}[$__rate_interval])) * 86400 / 1e9",
                "a day",
            )],
        ),
        (
            Figure,
            ("Cost of a call", USD),
            "Average cost of the calls that endpoints answered in the range.",
            &[(
                "sum(increase(pareto_cost_nanousd_total{%F}[$__range])) / 1e9 / sum(increase(pareto_requests_total{%F}[$__range]))",
                "a call",
            )],
        ),
        (
            Lines,
            ("Cost by tenant, USD an hour", USD),
            "The rate of spending of each tenant.",
            &[(
                "sum by (tenant) (rate(pareto_cost_nanousd_total{%F}[$__rate_interval])) * 3600 / 1e9",
                "{{tenant}}",
            )],
        ),
        (
            Lines,
            ("Cost by model, USD an hour", USD),
            "The rate of spending on each model.",
            &[(
                "sum by (model) (rate(pareto_cost_nanousd_total{%F}[$__rate_interval])) * 3600 / 1e9",
                "{{model}}",
            )],
        ),
        (
            Lines,
            ("Cost by lane, USD an hour", USD),
            "The rate of spending by service lane: standard, flex, priority, batch.",
            &[(
                "sum by (lane) (rate(pareto_cost_nanousd_total{%F}[$__rate_interval])) * 3600 / 1e9",
                "{{lane}}",
            )],
        ),
        (
            Lines,
            ("Margin, USD an hour", USD),
            "What tenants pay beyond what calls cost.",
            &[(
                "(sum by (tenant) (rate(pareto_sell_nanousd_total{%F}[$__rate_interval])) - sum by (tenant) (rate(pareto_cost_nanousd_total{%F}[$__rate_interval]))) * 3600 / 1e9",
                "{{tenant}}",
            )],
        ),
        (
            Bars,
            ("Cost by tenant and team in the range", USD),
            "The ten that spend most.",
            &[(
                "topk(10, sum by (tenant, team) (increase(pareto_cost_nanousd_total{%F}[$__range])) / 1e9)",
                "{{tenant}} {{team}}",
            )],
        ),
        (
            Lines,
            ("Tokens a second by class", COUNT),
            "Classes are disjoint.",
            &[(
                "sum by (class) (rate(pareto_tokens_total{%F}[$__rate_interval]))",
                "{{class}}",
            )],
        ),
    ],
};

pub(super) const TENANT: Sheet = Sheet {
    uid: "pareto-tenant",
    title: "Pareto: tenant",
    description: "One tenant's calls, money and limits: choose it above.",
    panels: &[
        (
            Figure,
            ("Cost in the range", USD),
            "What its calls cost, about.",
            &[(
                "sum by (tenant) (increase(pareto_cost_nanousd_total{%F}[$__range])) / 1e9",
                "{{tenant}}",
            )],
        ),
        (
            Figure,
            ("Pays in the range", USD),
            "What it pays for them, by the rules that can be told call by call.",
            &[(
                "sum by (tenant) (increase(pareto_sell_nanousd_total{%F}[$__range])) / 1e9",
                "{{tenant}}",
            )],
        ),
        (
            Figure,
            ("Calls in the range", COUNT),
            "Calls that an endpoint answered.",
            &[(
                "sum by (tenant) (increase(pareto_requests_total{%F}[$__range]))",
                "{{tenant}}",
            )],
        ),
        (
            Figure,
            ("Left in budgets", USD),
            "What may still be held in each of its budgets.",
            &[(
                "min by (tenant, budget) (pareto_budget_remaining_usd{%T})",
                "{{budget}}",
            )],
        ),
        (
            Lines,
            ("Cost by team, USD an hour", USD),
            "The rate of spending of each of its teams.",
            &[(
                "sum by (tenant, team) (rate(pareto_cost_nanousd_total{%F}[$__rate_interval])) * 3600 / 1e9",
                "{{tenant}} {{team}}",
            )],
        ),
        (
            Lines,
            ("Cost by model and tier, USD an hour", USD),
            "The rate of spending on each model.",
            &[(
                "sum by (model, tier) (rate(pareto_cost_nanousd_total{%F}[$__rate_interval])) * 3600 / 1e9",
                "{{model}} {{tier}}",
            )],
        ),
        (
            Lines,
            ("Calls a second by outcome", PER_SECOND),
            "How its calls ended.",
            &[(
                "sum by (tenant, outcome) (rate(pareto_requests_total{%F}[$__rate_interval]))",
                "{{tenant}} {{outcome}}",
            )],
        ),
        (
            Lines,
            ("Tokens a second by class", COUNT),
            "Its tokens; classes are disjoint.",
            &[(
                "sum by (tenant, class) (rate(pareto_tokens_total{%F}[$__rate_interval]))",
                "{{tenant}} {{class}}",
            )],
        ),
        (
            Lines,
            ("What its budgets decided, calls a second", PER_SECOND),
            "Calls that waited, went to the fast tier or were refused for a budget's sake.",
            &[(
                "sum by (tenant, budget, decision) (rate(pareto_budget_decisions_total{%T}[$__rate_interval]))",
                "{{budget}} {{decision}}",
            )],
        ),
        (
            Lines,
            ("Refused by rate limits, calls a second", PER_SECOND),
            "By what the limit counts.",
            &[(
                "sum by (tenant, unit) (rate(pareto_rate_limit_denials_total{%T}[$__rate_interval]))",
                "{{tenant}} {{unit}}",
            )],
        ),
    ],
};

pub(super) const BUDGETS: Sheet = Sheet {
    uid: "pareto-budgets",
    title: "Pareto: budgets and burn",
    description: "How budgets stand, how fast they are spent, and what they did to calls. Needs the recording rules.",
    panels: &[
        (
            Figure,
            ("Holds under way", COUNT),
            "Attempts whose bound is reserved and that are not settled yet.",
            &[("sum(pareto_holds_inflight)", "holds")],
        ),
        (
            Figure,
            ("Overspent in the range", USD),
            "Cost above what was held for it. Must stay zero.",
            &[(
                "sum(increase(pareto_budget_overspend_nanousd_total[$__range])) / 1e9",
                "overspent",
            )],
        ),
        (
            Figure,
            ("Refused in the range", COUNT),
            "Calls that a budget turned away.",
            &[(
                "sum(increase(pareto_budget_decisions_total{decision=\"deny\",%T}[$__range]))",
                "refused",
            )],
        ),
        (
            Figure,
            ("Refused by rate limits in the range", COUNT),
            "Calls that a limit on requests, tokens or calls at once turned away.",
            &[(
                "sum(increase(pareto_rate_limit_denials_total{%T}[$__range]))",
                "refused",
            )],
        ),
        (
            Table,
            ("Budgets", USD),
            "The most used budgets. Those of keys, users and tasks are summed up; `other` is all the rest.",
            &[
                (
                    "max by (tenant, level, budget) (pareto_budget_limit_usd{%T})",
                    "Limit",
                ),
                (
                    "max by (tenant, level, budget) (pareto_budget_settled_usd{%T})",
                    "Settled",
                ),
                (
                    "sum by (tenant, level, budget) (pareto_budget_held_usd{%T})",
                    "Held",
                ),
                (
                    "min by (tenant, level, budget) (pareto_budget_remaining_usd{%T})",
                    "Left",
                ),
            ],
        ),
        (
            Lines,
            ("Used share of each budget", SHARE),
            "Settled and held, against the limit with grace and overrides.",
            &[(
                "(max by (tenant, budget) (pareto_budget_settled_usd{%T}) + sum by (tenant, budget) (pareto_budget_held_usd{%T})) / (max by (tenant, budget) (pareto_budget_limit_usd{%T}) > 0)",
                "{{budget}}",
            )],
        ),
        (
            Lines,
            ("Burn multiple of tenants' budgets", COUNT),
            "How many times the limit would be spent in a window at the rate of the last hour; 1 is on plan.",
            &[
                ("budget:pareto_budget_burn:ratio1h{%T}", "{{budget}} 1 h"),
                ("budget:pareto_budget_burn:ratio6h{%T}", "{{budget}} 6 h"),
            ],
        ),
        (
            Lines,
            ("Time until the money is gone", SECONDS),
            "What is left of each tenant's budget, at the rate of the last six hours.",
            &[(
                "budget:pareto_budget_exhaustion:seconds6h{%T}",
                "{{budget}}",
            )],
        ),
        (
            Lines,
            ("Time until the window ends", SECONDS),
            "Budgets that roll or never begin anew have none.",
            &[(
                "max by (tenant, budget) (pareto_budget_reset_timestamp_seconds{%T}) - time()",
                "{{budget}}",
            )],
        ),
        (
            Bars,
            ("Length of each window", SECONDS),
            "The window of each budget that ends.",
            &[(
                "max by (tenant, budget) (pareto_budget_window_seconds{%T})",
                "{{budget}}",
            )],
        ),
        (
            Lines,
            ("What budgets decided, calls a second", PER_SECOND),
            "wait: for other calls' holds; degrade: to the fast tier; deny: refused; unavailable: the shared ledger could not be asked.",
            &[(
                "sum by (tenant, level, decision) (rate(pareto_budget_decisions_total{%T}[$__rate_interval]))",
                "{{tenant}} {{level}} {{decision}}",
            )],
        ),
        (
            Lines,
            ("Cost against the hold", SHARE),
            "How much of what was reserved completed calls cost: the lower, the more calls wait in vain near a limit.",
            &[
                (
                    "histogram_quantile(0.5, sum by (le, tier) (rate(pareto_hold_accuracy_ratio_bucket{tier=~\"$tier\"}[$__rate_interval])))",
                    "{{tier}} p50",
                ),
                (
                    "histogram_quantile(0.99, sum by (le, tier) (rate(pareto_hold_accuracy_ratio_bucket{tier=~\"$tier\"}[$__rate_interval])))",
                    "{{tier}} p99",
                ),
            ],
        ),
        (
            Lines,
            ("Refused by rate limits, calls a second", PER_SECOND),
            "By tenant and what the limit counts.",
            &[(
                "sum by (tenant, unit) (rate(pareto_rate_limit_denials_total{%T}[$__rate_interval]))",
                "{{tenant}} {{unit}}",
            )],
        ),
    ],
};
