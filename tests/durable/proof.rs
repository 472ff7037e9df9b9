//! Proves, through the real binary and on the demo's own ledger, that the saving that is reported is what
//! the entries say, that a replay of the same policy changes little and one of another share what it must,
//! and that rules can be tried on a file of calls.

use serde_json::Value;

use crate::{PROGRAM, command};

/// What the demo's entries cost, and what their tokens cost at the deep tier of their dialect, worked out
/// in whole pico-USD from the prices of November 2026 alone.
fn counterfactual(ledger: &rusqlite::Connection) -> (i64, i64) {
    let mut rows = ledger
        .prepare(
            "SELECT dialect, input, output + reasoning, cache_read, cost_nano FROM usage_event",
        )
        .unwrap();
    let rows = rows.query_map([], |row| {
        let dialect: String = row.get(0)?;
        let (input, output, cached): (i64, i64, i64) = (row.get(1)?, row.get(2)?, row.get(3)?);
        assert_eq!(cached, 0, "the demo's endpoints have no cache");
        let (of_input, of_output) = match &*dialect {
            "openai_chat" => (2_500_000, 15_000_000),
            "anthropic_messages" => (5_000_000, 25_000_000),
            other => panic!("{other}"),
        };
        let pico = input * of_input + output * of_output;
        assert_eq!(pico % 1_000, 0, "whole nano-USD");
        Ok((row.get::<_, i64>(4)?, pico / 1_000))
    });
    rows.unwrap().fold((0, 0), |sum, row| {
        let row = row.unwrap();
        (sum.0 + row.0, sum.1 + row.1)
    })
}

fn sum(worth: &Value, field: &str) -> i64 {
    let routes = worth["routes"].as_array().unwrap();
    routes.iter().map(|row| row[field].as_i64().unwrap()).sum()
}

#[test]
fn the_demos_saving_is_the_ledgers_counterfactual_to_the_nano_dollar() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("demo");
    let file = dir.join("pareto.toml");
    let shown = dir.display().to_string();
    let demo = std::process::Command::new(PROGRAM)
        .args(["demo", "--exit", "--calls", "400", "--dir", &shown])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&demo.stderr);
    assert!(demo.status.success(), "{told}");
    let ledger = rusqlite::Connection::open(dir.join("data/ledger.sqlite3")).unwrap();
    let (cost, deep) = counterfactual(&ledger);
    assert!(0 < cost && cost < deep);

    let (ok, text, error) = command(&["report", "routing", "--json"], &file);
    assert!(ok, "{error}");
    let worth: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((sum(&worth, "cost"), sum(&worth, "baseline")), (cost, deep));
    assert!(worth["verdicts"].as_i64().unwrap() > 300, "{worth}");
    let (_, text, _) = command(&["report", "routing"], &file);
    let saved = meter::NanoUsd(deep - cost).to_usd();
    assert!(
        text.contains(&format!("saved by routing: {saved} USD")),
        "{text}"
    );

    let (ok, text, error) = command(&["report", "sessions", "--json"], &file);
    assert!(ok, "{error}");
    let sessions: Value = serde_json::from_str(&text).unwrap();
    let told = sessions.as_array().unwrap().iter();
    assert_eq!(
        told.map(|it| it["cost"].as_i64().unwrap()).sum::<i64>(),
        cost
    );

    let replayed = |args: &[&str]| -> Value {
        let args = [&["replay", "--json"], args].concat();
        let (ok, text, error) = command(&args, &file);
        assert!(ok, "{error}");
        serde_json::from_str(&text).unwrap()
    };
    let half = replayed(&["--deep-per-thousand", "500"]);
    assert_eq!(half["before"].as_i64(), Some(cost));
    let share = |it: &Value| it["deep_after"].as_f64().unwrap() / it["calls"].as_f64().unwrap();
    assert!((share(&half) - 0.5).abs() < 0.05, "{half}");
    let all = replayed(&["--deep-per-thousand", "1000"]);
    let calls = all["calls"].as_i64().unwrap();
    assert_eq!(all["deep_after"].as_i64(), Some(calls - 1));
    // All but the first call, which named its tier, goes deep: the counterfactual again.
    let after = all["after"].as_i64().unwrap();
    assert!(
        deep - after < deep / 100 && after <= deep,
        "{after} of {deep}"
    );

    let mut other = std::fs::read_to_string(&file).unwrap();
    other.push_str("[[policy.rule]]\nname = \"all fast\"\ntier = \"fast\"\n");
    let tried = dir.join("tried.toml");
    std::fs::write(&tried, other).unwrap();
    let fast = replayed(&["--policy", &tried.display().to_string()]);
    assert_eq!(fast["deep_after"], 0);
    assert!(fast["after"].as_i64().unwrap() < cost);

    let id: String = ledger
        .query_row(
            "SELECT lower(hex(request_id)) FROM usage_event WHERE reason = 'score' LIMIT 1",
            [],
            |row| row.get(0),
        )
        .unwrap();
    let (ok, text, error) = command(&["explain", &format!("req_{id}")], &file);
    assert!(ok, "{error}");
    for word in [
        "threshold",
        "what stood out",
        "odds of this tier",
        "the same usage, USD",
        "claude-opus-4-5",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
}
