//! The committed dashboards are those that the list of panels gives, and Grafana can lay them out.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;

use super::boards;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("grafana")
}

#[test]
fn the_committed_files_are_those_that_are_generated() {
    let bless = std::env::var_os("PARETO_BLESS").is_some();
    let mut wanted = BTreeSet::new();
    for board in boards() {
        let name = format!("{}.json", board.uid);
        let path = folder().join(&name);
        if bless {
            std::fs::write(&path, board.json()).unwrap();
        }
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(
            there,
            board.json(),
            "{name} is stale; run with PARETO_BLESS=1"
        );
        wanted.insert(name);
    }
    let there: BTreeSet<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(there, wanted, "files that no dashboard is in");
    let embedded: BTreeSet<String> = crate::GRAFANA
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    assert_eq!(embedded, wanted);
}

#[test]
fn panels_have_an_id_a_place_a_unit_and_a_description_of_their_own() {
    let mut uids = BTreeSet::new();
    for board in boards() {
        assert!(uids.insert(board.uid), "{} is there twice", board.uid);
        assert!(!board.description.is_empty());
        let value: Value = serde_json::from_str(&board.json()).unwrap();
        let (mut ids, mut titles, mut cells) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for panel in value["panels"].as_array().unwrap() {
            let title = panel["title"].as_str().unwrap();
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}");
            let kind = panel["type"].as_str().unwrap();
            assert!(titles.insert((title, kind)), "{title} is there twice");
            for text in [
                &panel["description"],
                &panel["fieldConfig"]["defaults"]["unit"],
            ] {
                assert!(!text.as_str().unwrap().is_empty(), "{title}");
            }
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
            let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            assert!(place("x") + place("w") <= 24, "{title}");
            for x in place("x")..place("x") + place("w") {
                for y in place("y")..place("y") + place("h") {
                    assert!(cells.insert((x, y)), "{title} lies on another");
                }
            }
            queries(panel, title);
        }
    }
}

fn queries(panel: &Value, title: &str) {
    let mut letters = BTreeSet::new();
    let targets = panel["targets"].as_array().unwrap();
    assert!(!targets.is_empty(), "{title}");
    for target in targets {
        assert!(letters.insert(target["refId"].as_str().unwrap()), "{title}");
        assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
        let (expr, legend) = (&target["expr"], &target["legendFormat"]);
        let (expr, legend) = (expr.as_str().unwrap(), legend.as_str().unwrap());
        assert!(!legend.is_empty(), "{title}");
        assert!(!expr.contains('%'), "{title}: {expr}");
        for window in expr.split('[').skip(1) {
            let known = window.starts_with("$__rate_interval]") || window.starts_with("$__range]");
            assert!(
                known,
                "{title}: a fixed window does not follow the zoom: {expr}"
            );
        }
        // What a legend shows must be left by the expression.
        for label in legend.split("{{").skip(1) {
            let label = label.split("}}").next().unwrap();
            let recorded = expr.contains(':');
            assert!(
                recorded || expr.contains(label),
                "{title}: {legend} of {expr}"
            );
        }
    }
}

#[test]
fn variables_and_links_are_on_every_dashboard() {
    for board in boards() {
        let value: Value = serde_json::from_str(&board.json()).unwrap();
        let names: Vec<&str> = value["templating"]["list"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["datasource", "tenant", "model", "tier", "pareto"]);
        assert!(board.json().contains("${pareto}/"));
    }
}
