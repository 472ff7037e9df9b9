//! Proves that what Grafana and Prometheus are given works: a real Prometheus scrapes a gateway under every
//! kind of traffic, over a real PostgreSQL ledger. Every panel of every dashboard has something to show,
//! every rule evaluates, every metric is there, and none of them names users, keys, tasks or requests.

mod prometheus;
mod scene;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dashboards::grafana::{Kind, boards};
use meter::Outcome;
use prometheus::Prometheus;
use scene::Scene;
use serde_json::Value;
use tests::World;

/// Alerts that this traffic is to cause, and those that it must not.
const LOUD: &[&str] = &["ParetoUnpriced", "ParetoUsageNotReported"];
const SILENT: &[&str] = &[
    "ParetoOverspend",
    "ParetoLedgerStale",
    "ParetoLedgerLag",
    "ParetoCaptureLow",
    "ParetoReconcileOld",
    "ParetoPanics",
    "ParetoContextForgotten",
    "ParetoReloadRefused",
    "ParetoAbsent",
    "ParetoKeyRefused",
    "ParetoRetriesDenied",
];

#[tokio::test(flavor = "multi_thread")]
async fn every_panel_and_every_rule_has_something_to_show() {
    let scene = Arc::new(Scene::start().await);
    let prometheus = Prometheus::start(scene.world.running.admin_address).await;
    // Counters that begin above zero show no increase: what is there from the start is seen first.
    prometheus.has("pareto_build_info").await;
    let traffic = scene.traffic();
    prometheus.has("sum(pareto_hold_expired_total) > 0").await;
    prometheus
        .has("sum(rate(pareto_cost_nanousd_total[10s])) > 0")
        .await;
    for decision in ["wait", "degrade", "deny"] {
        let known = format!("pareto_budget_decisions_total{{decision=\"{decision}\"}} > 0");
        prometheus.has(&known).await;
    }
    scene.outage(&prometheus).await;
    let mut wrong = panels(&prometheus).await;
    wrong.extend(rules(&prometheus).await);
    wrong.extend(labels(&prometheus).await);
    traffic.stop().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    counted_is_what_was_settled(&scene.world).await;
    a_budget_that_is_gone_has_no_series(&scene.world).await;
    scene.end().await;
}

/// A panel's expression with its variables filled in, as Grafana would.
fn filled(expr: &str) -> String {
    expr.replace("$__rate_interval", "10s")
        .replace("$__range", "1m")
        .replace("$tenant", ".*")
        .replace("$model", ".*")
        .replace("$tier", ".*")
}

/// Every query of every panel, over time where it is drawn over time.
async fn panels(prometheus: &Prometheus) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for board in boards() {
        for panel in &board.panels {
            for (expr, _) in &panel.queries {
                seen += 1;
                let place = format!("{}, {}", board.uid, panel.title);
                let answer = if panel.kind == Kind::Lines {
                    prometheus.range(&filled(expr)).await
                } else {
                    prometheus.query(&filled(expr)).await
                };
                match answer {
                    Ok(figures) if figures.iter().any(|it| it.is_finite()) => {}
                    Ok(figures) => wrong.push(format!("{place}: nothing ({figures:?}): {expr}")),
                    Err(error) => wrong.push(format!("{place}: {error}: {expr}")),
                }
            }
        }
    }
    assert!(seen > 60, "{seen}");
    wrong
}

/// Every rule: recording rules have series, alerts evaluate and fire when they should.
async fn rules(prometheus: &Prometheus) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for rule in prometheus.rules().await {
        seen += 1;
        let name = rule["name"].as_str().unwrap();
        let expr = rule["query"].as_str().unwrap();
        if rule["health"] != "ok" {
            wrong.push(format!("{name}: {}", rule["lastError"]));
        }
        match prometheus.query(expr).await {
            Err(error) => wrong.push(format!("{name}: {error}")),
            Ok(series) if rule["type"] == "recording" => {
                let recorded = prometheus.query(name).await.unwrap_or_default();
                if series.is_empty() || recorded.is_empty() {
                    wrong.push(format!("{name} has no series"));
                }
            }
            Ok(series) => {
                if LOUD.contains(&name) == series.is_empty()
                    && (LOUD.contains(&name) || SILENT.contains(&name))
                {
                    wrong.push(format!("{name}: {series:?}"));
                }
            }
        }
    }
    let written = [dashboards::RECORDS, dashboards::ALERTS]
        .map(|text| text.matches("- record: ").count() + text.matches("- alert: ").count());
    assert_eq!(seen, written.iter().sum::<usize>());
    wrong
}

/// Every metric has series, with labels that name nobody; expressions use labels that are there.
async fn labels(prometheus: &Prometheus) -> Vec<String> {
    let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for series in prometheus.series().await {
        let labels = series.as_object().unwrap();
        let name = labels["__name__"].as_str().unwrap().to_owned();
        let names = labels.keys().map(ToString::to_string);
        known.entry(name).or_default().extend(names);
    }
    let mut wrong = Vec::new();
    for (name, _) in proxy::telemetry::NAMES {
        if !known.contains_key(*name) && !known.contains_key(&format!("{name}_bucket")) {
            wrong.push(format!("{name} has no series"));
        }
    }
    for (name, labels) in &known {
        for label in ["user", "key", "task", "request", "session"] {
            if labels.contains(label) {
                wrong.push(format!("{name} has label {label}"));
            }
        }
    }
    for board in boards() {
        for (expr, _) in board.panels.iter().flat_map(|panel| &panel.queries) {
            let metrics = known
                .iter()
                .filter(|(name, _)| words(expr).any(|word| word == **name));
            let there: BTreeSet<&String> = metrics.flat_map(|(_, labels)| labels).collect();
            for label in used_labels(expr) {
                if !there.contains(&label) {
                    wrong.push(format!("{}: no label {label} in {expr}", board.uid));
                }
            }
        }
    }
    wrong
}

fn words(expr: &str) -> impl Iterator<Item = &str> {
    expr.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':')
}

/// What an expression groups by or chooses by.
fn used_labels(expr: &str) -> Vec<String> {
    let mut used = Vec::new();
    for grouped in expr.split(" by (").skip(1) {
        let inside = grouped.split(')').next().unwrap();
        used.extend(inside.split(',').map(|label| label.trim().to_owned()));
    }
    for chosen in expr.split('{').skip(1) {
        let inside = chosen.split('}').next().unwrap();
        for matcher in inside.split("\",").filter(|it| !it.is_empty()) {
            let label = matcher.split(['=', '!']).next().unwrap();
            used.push(label.to_owned());
        }
    }
    used
}

/// The counters of money hold exactly what this process wrote into the ledger.
async fn counted_is_what_was_settled(world: &World) {
    let mut sums: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
    for _ in 0..100 {
        let metrics = world.admin().get("/metrics").await.text();
        let entries = world.entries().await;
        let own = || entries.iter().filter(|it| it.outcome != Outcome::Orphaned);
        for (name, settled) in [
            ("pareto_cost_nanousd_total", own().map(|it| it.cost.0).sum()),
            ("pareto_sell_nanousd_total", own().map(|it| it.sell.0).sum()),
            (
                "pareto_baseline_nanousd_total",
                own().map(|it| it.baseline.0).sum::<i64>(),
            ),
        ] {
            let lines = metrics.lines().filter(|line| {
                let rest = line.strip_prefix(name);
                rest.is_some_and(|rest| rest.starts_with('{'))
            });
            let counted = lines.map(|line| line.rsplit(' ').next().unwrap());
            let counted = counted.map(|figure| figure.parse::<i64>().unwrap()).sum();
            sums.insert(name, (counted, settled));
        }
        if sums.values().all(|(counted, settled)| counted == settled) {
            break;
        }
        // A caller that left is settled a moment later.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for (name, (counted, settled)) in &sums {
        assert_eq!(counted, settled, "{name}");
        assert!(*settled > 0, "{name}");
    }
}

async fn a_budget_that_is_gone_has_no_series(world: &World) {
    let series = "pareto_budget_limit_usd{tenant=\"tiny\"";
    let metrics = world.admin().get("/metrics").await.text();
    assert!(metrics.contains(series), "{metrics}");
    let text = std::fs::read_to_string(&world.file).unwrap();
    let reload = async |text: String| {
        std::fs::write(&world.file, text).unwrap();
        world.admin().post("/api/reload", "").await.status
    };
    assert_eq!(reload(format!("{text}\nwrong = 1\n")).await, 422);
    let renamed = text.replace("tenant = \"tiny\"", "tenant = \"renamed\"");
    assert_eq!(reload(renamed).await, 204);
    for _ in 0..100 {
        let metrics = world.admin().get("/metrics").await.text();
        if !metrics.contains(series) {
            for line in [
                "pareto_budget_limit_usd{tenant=\"renamed\"",
                "pareto_config_last_reload_ok 1",
                "pareto_config_reloads_total{result=\"refused\"} 1",
                "pareto_config_reloads_total{result=\"taken\"} 1",
            ] {
                assert!(metrics.contains(line), "{line}");
            }
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("its series stay");
}

/// Figures of an answer to a query: the values of an instant, or the last of each series over time.
fn figures(data: &Value) -> Vec<f64> {
    let number = |pair: &Value| pair[1].as_str().unwrap().parse().unwrap();
    match data["resultType"].as_str().unwrap() {
        "vector" => {
            let series = data["result"].as_array().unwrap().iter();
            series.map(|it| number(&it["value"])).collect()
        }
        "matrix" => {
            let series = data["result"].as_array().unwrap().iter();
            let values = series.flat_map(|it| it["values"].as_array().unwrap());
            values.map(number).collect()
        }
        _ => vec![number(&data["result"])],
    }
}
