//! What is on each dashboard. In expressions `%F` stands for the filter by tenant, model and tier that
//! people choose above the panels, and `%T` for that by tenant alone.

mod money;
mod running;

use super::{Board, Kind, Panel};

const FILTER: &str = "tenant=~\"$tenant\",model=~\"$model\",tier=~\"$tier\"";
const TENANT: &str = "tenant=~\"$tenant\"";
/// Units as Grafana names them.
const USD: &str = "currencyUSD";
const PER_SECOND: &str = "ops";
const SHARE: &str = "percentunit";
const COUNT: &str = "short";
const SECONDS: &str = "s";
const BYTES: &str = "bytes";

/// A dashboard as it is written down here.
struct Sheet {
    uid: &'static str,
    title: &'static str,
    description: &'static str,
    panels: &'static [Written],
}

/// A panel: kind, title and unit, description, queries with their legends.
type Written = (
    Kind,
    (&'static str, &'static str),
    &'static str,
    &'static [(&'static str, &'static str)],
);

/// All dashboards.
pub fn boards() -> Vec<Board> {
    let sheets = [
        money::SPEND,
        money::TENANT,
        money::BUDGETS,
        running::ROUTING,
        running::METERING,
        running::TRAFFIC,
    ];
    sheets.map(|sheet| board(&sheet)).into()
}

fn board(sheet: &Sheet) -> Board {
    Board {
        uid: sheet.uid,
        title: sheet.title,
        description: sheet.description,
        panels: sheet.panels.iter().map(panel).collect(),
    }
}

/// A panel half as wide as the dashboard, or, as a figure, a quarter.
fn panel(written: &Written) -> Panel {
    let (kind, (title, unit), description, queries) = *written;
    let filled = |expr: &str| expr.replace("%F", FILTER).replace("%T", TENANT);
    Panel {
        kind,
        title,
        description,
        unit,
        width: match kind {
            Kind::Figure => 6,
            Kind::Lines | Kind::Bars => 12,
            Kind::Table => 24,
        },
        queries: queries
            .iter()
            .map(|(expr, legend)| (filled(expr), *legend))
            .collect(),
    }
}
