//! The Grafana dashboards, written from one list of panels. The files in `grafana/` are what people
//! import; a test holds them against this, and `PARETO_BLESS=1 cargo test -p dashboards` writes them.

mod boards;

use serde_json::{Value, json};

pub use boards::boards;

/// Columns of Grafana's grid, and the height of a panel in its rows.
const COLUMNS: u32 = 24;
const HEIGHT: u32 = 8;
/// Figures alone need less.
const LOW: u32 = 4;

/// A dashboard.
#[derive(Debug, Clone)]
pub struct Board {
    /// Its file's name and the stable part of its address.
    pub uid: &'static str,
    pub title: &'static str,
    pub description: &'static str,
    pub panels: Vec<Panel>,
}

/// What a panel draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A line for each series.
    Lines,
    /// The figure of now, or of the chosen range.
    Figure,
    /// A column for each query, a line for each set of labels.
    Table,
    /// A bar for each series, at its figure of the chosen range.
    Bars,
}

/// One panel: expressions with the legends of their series.
#[derive(Debug, Clone)]
pub struct Panel {
    pub kind: Kind,
    pub title: &'static str,
    pub description: &'static str,
    pub unit: &'static str,
    pub width: u32,
    pub queries: Vec<(String, &'static str)>,
}

impl Panel {
    fn height(&self) -> u32 {
        match self.kind {
            Kind::Figure => LOW,
            Kind::Lines | Kind::Table | Kind::Bars => HEIGHT,
        }
    }

    fn is_instant(&self) -> bool {
        self.kind != Kind::Lines
    }
}

impl Board {
    /// The text of its file.
    pub fn json(&self) -> String {
        let mut text = serde_json::to_string_pretty(&self.value()).unwrap_or_default();
        text.push('\n');
        text
    }

    fn value(&self) -> Value {
        json!({
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["pareto"],
            "schemaVersion": 39,
            "editable": true,
            "timezone": "utc",
            "refresh": "30s",
            "time": { "from": "now-6h", "to": "now" },
            "templating": { "list": variables() },
            "links": links(),
            "panels": self.placed(),
        })
    }

    /// Panels from left to right; one that does not fit, or is of another height, begins a row.
    fn placed(&self) -> Vec<Value> {
        let (mut x, mut y, mut row) = (0, 0, 0);
        let mut placed = Vec::with_capacity(self.panels.len());
        for (id, panel) in (1_u32..).zip(&self.panels) {
            let height = panel.height();
            if x + panel.width > COLUMNS || (x > 0 && height != row) {
                (x, y) = (0, y + row);
            }
            row = height;
            let place = json!({ "x": x, "y": y, "w": panel.width, "h": height });
            x += panel.width;
            placed.push(self::panel(panel, id, &place));
        }
        placed
    }
}

fn panel(panel: &Panel, id: u32, place: &Value) -> Value {
    let kind = match panel.kind {
        Kind::Lines => "timeseries",
        Kind::Figure => "stat",
        Kind::Table => "table",
        Kind::Bars => "bargauge",
    };
    let source = json!({ "type": "prometheus", "uid": "${datasource}" });
    let targets: Vec<Value> = ('A'..='Z')
        .zip(&panel.queries)
        .map(|(letter, (expr, legend))| {
            json!({
                "refId": letter.to_string(), "datasource": source,
                "expr": expr, "legendFormat": legend,
                "instant": panel.is_instant(), "range": !panel.is_instant(),
                "format": if panel.kind == Kind::Table { "table" } else { "time_series" },
            })
        })
        .collect();
    json!({
        "id": id, "type": kind, "title": panel.title, "description": panel.description,
        "datasource": source, "gridPos": place,
        "fieldConfig": { "defaults": { "unit": panel.unit }, "overrides": [] },
        "options": options(panel.kind),
        "transformations": columns(panel),
        "targets": targets,
    })
}

fn options(kind: Kind) -> Value {
    match kind {
        Kind::Lines => json!({ "legend": { "showLegend": true } }),
        Kind::Figure | Kind::Bars => json!({ "reduceOptions": { "calcs": ["lastNotNull"] } }),
        Kind::Table => json!({}),
    }
}

/// Of a table: queries side by side, each under its own name.
fn columns(panel: &Panel) -> Value {
    if panel.kind != Kind::Table {
        return json!([]);
    }
    let names: serde_json::Map<String, Value> = ('A'..='Z')
        .zip(&panel.queries)
        .map(|(letter, (_, legend))| (format!("Value #{letter}"), Value::from(*legend)))
        .collect();
    json!([
        { "id": "merge", "options": {} },
        { "id": "organize", "options": { "excludeByName": { "Time": true }, "renameByName": names } },
    ])
}

/// What can be chosen above the panels.
fn variables() -> Vec<Value> {
    let mut all = vec![
        json!({ "name": "datasource", "label": "Data source", "type": "datasource",
        "query": "prometheus" }),
    ];
    for (name, label) in [("tenant", "Tenant"), ("model", "Model"), ("tier", "Tier")] {
        let query = format!("label_values(pareto_cost_nanousd_total, {name})");
        all.push(json!({
            "name": name, "label": label, "type": "query",
            "datasource": { "type": "prometheus", "uid": "${datasource}" },
            "query": { "query": query, "refId": name }, "definition": query,
            "multi": true, "includeAll": true, "allValue": ".*", "refresh": 2, "sort": 1,
            "current": { "text": "All", "value": "$__all" },
        }));
    }
    all.push(
        json!({ "name": "pareto", "label": "Pareto's own pages", "type": "textbox",
        "query": "http://127.0.0.1:9090" }),
    );
    all
}

/// The ledger is the only source of money that is paid; counters of Prometheus are for rates.
fn links() -> Value {
    let link = |title: &str, url: &str, tooltip: &str| {
        json!({ "type": "link", "title": title, "url": url, "tooltip": tooltip,
            "targetBlank": true, "icon": "external link" })
    };
    json!([
        link("Exact money", "${pareto}/", "Pareto's own pages, from the ledger"),
        link(
            "Exact budgets",
            "${pareto}/api/budgets",
            "Each budget as it stands, to the nano-dollar",
        ),
        { "type": "dashboards", "title": "Pareto", "tags": ["pareto"], "asDropdown": true,
            "keepTime": true, "includeVars": true },
    ])
}

#[cfg(test)]
mod tests;
