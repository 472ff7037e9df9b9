//! What people look at: pages rendered on the server, without scripts and without any other host;
//! and, embedded beside them, the Grafana dashboards and Prometheus rules.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use meter::Standing;
use meter::ledger::UsageRow;
use meter::{Entry, NanoUsd};

pub mod grafana;

/// The Grafana dashboards, by the names of their files.
pub const GRAFANA: &[(&str, &str)] = &[
    (
        "pareto-spend.json",
        include_str!("../grafana/pareto-spend.json"),
    ),
    (
        "pareto-tenant.json",
        include_str!("../grafana/pareto-tenant.json"),
    ),
    (
        "pareto-budgets.json",
        include_str!("../grafana/pareto-budgets.json"),
    ),
    (
        "pareto-routing.json",
        include_str!("../grafana/pareto-routing.json"),
    ),
    (
        "pareto-metering.json",
        include_str!("../grafana/pareto-metering.json"),
    ),
    (
        "pareto-traffic.json",
        include_str!("../grafana/pareto-traffic.json"),
    ),
];
/// Prometheus recording rules.
pub const RECORDS: &str = include_str!("../prometheus/records.yml");
/// Prometheus alert rules.
pub const ALERTS: &str = include_str!("../prometheus/alerts.yml");
const STYLE: &str = include_str!("../web/style.css");

/// What the overview shows. All sums come from rollups.
#[derive(Debug, Clone, Copy)]
pub struct Overview<'a> {
    /// Use by tenant and tier.
    pub tenants: &'a [UsageRow],
    /// Use by model.
    pub models: &'a [UsageRow],
    /// Use by day.
    pub days: &'a [UsageRow],
    /// The latest entries, newest first.
    pub latest: &'a [Entry],
    /// Budgets by tenant.
    pub budgets: &'a [Standing],
}

/// The overview page.
pub fn overview(view: &Overview<'_>) -> String {
    let cost: NanoUsd = view.days.iter().map(|row| row.cost).sum();
    let baseline: NanoUsd = view.days.iter().map(|row| row.baseline).sum();
    let calls: u64 = view.days.iter().map(|row| row.calls).sum();
    let page: Markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Pareto: overview" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "Overview" }
                dl {
                    (tile("Calls", &calls.to_string()))
                    (tile("Cost, USD", &cost.to_usd()))
                    (tile("Had all gone deep, USD", &baseline.to_usd()))
                    (tile("Saved by routing, USD", &(baseline - cost).to_usd()))
                }
                h2 { "Budgets" }
                (budgets(view.budgets))
                h2 { "By tenant and tier" }
                (usage(&["Tenant", "Tier"], view.tenants))
                h2 { "By model" }
                (usage(&["Model"], view.models))
                h2 { "By day (UTC)" }
                (usage(&["Day"], view.days))
                h2 { "Latest calls" }
                (latest(view.latest))
            }
        }
    };
    page.into_string()
}

fn tile(name: &str, value: &str) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

fn budgets(budgets: &[Standing]) -> Markup {
    if budgets.is_empty() {
        return html! { p { "No budget is configured." } };
    }
    html! {
        table {
            thead { tr {
                th { "Budget" } th { "Kind" } th.n { "Limit, USD" } th.n { "Settled" } th.n { "Held" }
                th.n { "Left" } th { "Use" }
            } }
            tbody {
                @for budget in budgets.iter().filter(|it| it.unit == meter::Unit::Usd) {
                    tr {
                        td { (budget.name) }
                        td { (if budget.hard { "hard" } else { "soft" }) }
                        td.n { (NanoUsd(budget.limit)) } td.n { (NanoUsd(budget.settled)) }
                        td.n { (NanoUsd(budget.held)) } td.n { (NanoUsd(budget.left())) }
                        td { meter min="0" max=(budget.limit) value=(budget.settled + budget.held) {} }
                    }
                }
            }
        }
    }
}

fn usage(names: &[&str], rows: &[UsageRow]) -> Markup {
    if rows.is_empty() {
        return html! { p { "Nothing was used yet." } };
    }
    html! {
        table {
            thead { tr {
                @for name in names { th { (name) } }
                th.n { "Calls" } th.n { "Failed" } th.n { "Prompt tokens" } th.n { "Answer tokens" }
                th.n { "Cost, USD" } th.n { "All deep, USD" }
            } }
            tbody {
                @for row in rows {
                    tr {
                        @for value in &row.group { td { (value) } }
                        td.n { (row.calls) } td.n { (row.failed) }
                        td.n { (row.usage.prompt()) } td.n { (row.usage.answer()) }
                        td.n { (row.cost) } td.n { (row.baseline) }
                    }
                }
            }
        }
    }
}

fn latest(entries: &[Entry]) -> Markup {
    if entries.is_empty() {
        return html! { p { "No call was settled yet." } };
    }
    html! {
        table {
            thead { tr {
                th { "Request" } th { "Tenant" } th { "Model" } th { "Route" } th { "Outcome" }
                th { "Usage from" } th.n { "Cost, USD" }
            } }
            tbody {
                @for entry in entries {
                    tr {
                        td { code { (entry.held.request) } }
                        td { (entry.held.subject.tenant) } td { (entry.held.model) }
                        td { (entry.held.reason) } td { (entry.outcome.as_str()) }
                        td { (entry.source) } td.n { (entry.cost) }
                    }
                }
            }
        }
    }
}
