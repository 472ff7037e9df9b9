//! What people look at: nine pages of finance, rendered on the server from the ledger's rollups, which
//! work without scripts and load from no other host; and the Grafana dashboard and Prometheus rules.

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
mod savings;
mod units;

pub use ask::Asked;
pub use assets::{Asset, asset_at};
pub use desk::{Answer, Desk, Sources};

/// The Grafana dashboard.
pub const GRAFANA: &str = include_str!("../grafana/pareto.json");
/// Prometheus alert rules.
pub const RULES: &str = include_str!("../prometheus/rules.yml");
