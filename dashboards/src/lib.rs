//! What people look at: ten pages of finance, rendered on the server from the ledger's rollups, and the
//! pages of tasks from the answers of their API; all of them work without scripts and load from no other
//! host. And the Grafana dashboard and Prometheus rules.

#![deny(clippy::float_arithmetic, reason = "money is whole numbers")]

mod ask;
pub mod assets;
mod chart;
pub mod desk;
mod figures;
mod forecast;
mod frame;
mod number;
mod period;
mod table;

mod budget;
mod budgets;
mod chargeback;
mod explore;
mod live;
mod overview;
mod prices;
mod quality;
mod routing;
mod savings;
mod units;

pub mod tasks;

pub use ask::Asked;
pub use assets::{Asset, asset_at};
pub use desk::{Answer, Desk, Sources};

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
