//! `pareto bench` as a person runs it, against scripted endpoints: what its JSON says is what they did, every
//! kind of failure is counted as that kind, and its page is whole. Nothing here depends on how fast it runs.

use std::path::Path;
use std::process::{Command, Output};

use bench::upstream::{Script, Upstream};
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_gateway-under-test");

/// Runs `pareto bench` while this runtime's other threads serve its endpoints.
async fn run(words: Vec<String>) -> Output {
    let running = move || {
        Command::new(PROGRAM)
            .arg("bench")
            .args(words)
            .env_remove("PARETO_KEY")
            .output()
    };
    tokio::task::spawn_blocking(running).await.unwrap().unwrap()
}

/// Runs it with `words` and gives back its report, and what it said.
async fn reported(folder: &Path, words: &[&str]) -> (Value, Output) {
    let file = folder.join("report.json");
    let mut all: Vec<String> = words.iter().map(|word| word.to_string()).collect();
    all.extend(["--json".to_owned(), file.display().to_string()]);
    let output = run(all).await;
    let text = std::fs::read_to_string(file).unwrap();
    let report = serde_json::from_str(&text);
    (
        report.unwrap_or_else(|error| panic!("{error}: {output:?}")),
        output,
    )
}

/// The report of a run in which calls were good.
async fn report(folder: &Path, words: &[&str]) -> Value {
    let (report, output) = reported(folder, words).await;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    report
}

fn target<'a>(report: &'a Value, name: &str) -> &'a Value {
    let targets = report["targets"].as_array().unwrap();
    targets.iter().find(|it| it["name"] == name).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_endpoints_are_compared_in_turns() {
    let folder = tempfile::tempdir().unwrap();
    let script = |first_token_ms| Script {
        first_token_ms,
        ..Script::default()
    };
    let quick = Upstream::start(script(5)).await.unwrap();
    let slow = Upstream::start(script(10)).await.unwrap();
    let page = folder.path().join("report.html");
    let compare = format!("quick={},slow={}", quick.url(), slow.url());
    let words = [
        "rate",
        "--compare",
        &compare,
        "--rate",
        "60",
        "--seconds",
        "0.5",
        "--warmup",
        "0",
        "--rounds",
        "3",
        "--seed",
        "7",
        "--html",
        page.to_str().unwrap(),
    ];
    let report = report(folder.path(), &words).await;

    assert_eq!(report["workload"], "rate");
    assert_eq!(report["reference"], "quick");
    assert_eq!(report["conditions"]["seed"], 7);
    for (name, upstream, least_us) in [("quick", &quick, 5_000.0), ("slow", &slow, 10_000.0)] {
        let it = target(&report, name);
        assert_eq!(it["runs"].as_array().unwrap().len(), 3, "{name}");
        assert_eq!(it["good"], it["planned"], "{it}");
        assert_eq!(it["good"], upstream.calls(), "{name}");
        assert!(it["good"].as_u64().unwrap() > 0);
        assert!(
            it["errors"]
                .as_object()
                .unwrap()
                .values()
                .all(|count| *count == 0)
        );
        // A timer never fires early, so no run can be below this.
        for run in it["runs"].as_array().unwrap() {
            assert!(
                run["figures"]["latency_p50_us"].as_f64().unwrap() >= least_us,
                "{run}"
            );
        }
        let curve = it["curve"].as_array().unwrap();
        assert!(
            curve
                .windows(2)
                .all(|two| two[0][1].as_f64() <= two[1][1].as_f64())
        );
    }
    // Arrivals are those of the seed, the same for both.
    assert_eq!(
        target(&report, "quick")["planned"],
        target(&report, "slow")["planned"]
    );
    let ratios = report["ratios"].as_array().unwrap();
    let of = |name: &str| {
        let found = |it: &&Value| it["target"] == name && it["figure"] == "latency_p50_us";
        ratios.iter().find(found).unwrap()["over"].clone()
    };
    assert_eq!(of("quick")["rounds"], json!([1.0, 1.0, 1.0]));
    let slow = of("slow");
    assert_eq!(slow["rounds"].as_array().unwrap().len(), 3);
    let bound = |name: &str| slow[name].as_f64().unwrap();
    assert!(bound("min") <= bound("low") && bound("low") <= bound("median"));
    assert!(bound("median") <= bound("high") && bound("high") <= bound("max"));

    let page = std::fs::read_to_string(page).unwrap();
    check_page(&page);
    for plot in [
        "curve-latency",
        "series-rate",
        "series-p99",
        "ratio-latency_p50_us",
    ] {
        assert!(page.contains(&format!("<svg id=\"{plot}\"")), "{plot}");
    }
    assert_eq!(
        page.matches("<polyline").count(),
        6,
        "two targets in three plots"
    );
}

/// Every element that begins ends, and nothing is taken from another place.
fn check_page(page: &str) {
    assert!(page.starts_with("<!DOCTYPE html>"));
    let mut open: Vec<&str> = Vec::new();
    for (at, _) in page.match_indices('<') {
        let tag = &page[at + 1..at + page[at..].find('>').unwrap()];
        let name = tag.split([' ', '/']).next().unwrap();
        match tag.strip_prefix('/') {
            _ if tag.starts_with('!') || name == "meta" => {}
            Some(ended) => assert_eq!(open.pop(), Some(ended), "at {at}"),
            None => open.push(name),
        }
    }
    assert!(open.is_empty(), "{open:?}");
    for word in ["src=", "href=", "url(", "@import", "<script", "NaN", "inf,"] {
        assert!(!page.contains(word), "{word}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_failure_is_counted_as_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        ("status:429:1", "status_429"),
        ("status:401", "status_4xx"),
        ("status:500", "status_5xx"),
        ("status:529", "status_5xx"),
        ("refuse", "reset"),
        ("hang_before_headers", "timeout"),
        ("cut_after:3", "broken_stream"),
        ("no_end", "broken_stream"),
        ("error_after:2", "in_band_error"),
    ];
    let mut upstreams = Vec::new();
    let mut compare = Vec::new();
    for (number, (fault, _)) in cases.iter().enumerate() {
        let script: Script = serde_json::from_value(json!({ "fault": fault })).unwrap();
        let upstream = Upstream::start(script).await.unwrap();
        compare.push(format!("t{number}={}", upstream.url()));
        upstreams.push(upstream);
    }
    // A port on which nobody listens.
    let (gone, _nobody) = tests::bytes::nobody();
    compare.push(format!("t{}=http://{gone}/v1", cases.len()));
    let compare = compare.join(",");
    for (dialect, stream) in [("chat", true), ("messages", true), ("chat", false)] {
        let mut words = vec![
            "rate",
            "--compare",
            &compare,
            "--rate",
            "40",
            "--seconds",
            "0.3",
            "--warmup",
            "0",
            "--rounds",
            "1",
            "--timeout",
            "2",
            "--dialect",
            dialect,
        ];
        if stream {
            words.push("--stream");
        }
        let (report, output) = reported(folder.path(), &words).await;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "not a call was good");
        assert!(errors.contains("no call to t0 was good"), "{errors}");
        let all = cases.iter().map(|(_, kind)| *kind).chain(["connect"]);
        for (number, kind) in all.enumerate() {
            // Only a stream can break off or fail after it has begun.
            if !stream && ["broken_stream", "in_band_error"].contains(&kind) {
                continue;
            }
            let it = target(&report, &format!("t{number}"));
            let planned = it["planned"].as_u64().unwrap();
            assert!(planned > 0);
            assert_eq!(it["good"], 0, "{kind}");
            for (name, count) in it["errors"].as_object().unwrap() {
                let expected = if name == kind { planned } else { 0 };
                assert_eq!(
                    count.as_u64(),
                    Some(expected),
                    "{dialect} {kind}: {}",
                    it["errors"]
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_workload_runs_to_its_end_and_every_call_is_good() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(Script::default()).await.unwrap();
    let trace = folder.path().join("trace.csv");
    let rows = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n\
                2023-11-16 18:15:50.9951690,396,109\n2023-11-16 18:15:51.2225670,879,55\n";
    std::fs::write(&trace, rows).unwrap();
    let url = upstream.url();
    let cases: [(&str, &[&str]); 5] = [
        (
            "saturation",
            &[
                "--connections",
                "3",
                "--body-bytes",
                "20000",
                "--model-last",
            ],
        ),
        ("streams", &["--streams", "5", "--ramp", "0.1"]),
        ("agent", &["--rate", "20", "--turns", "3"]),
        (
            "trace",
            &["--trace", trace.to_str().unwrap(), "--speed", "50"],
        ),
        (
            "steps",
            &["--from", "20", "--most", "40", "--objective", "p50=20000ms"],
        ),
    ];
    for (workload, words) in cases {
        let mut all = vec![workload, "--url", &url, "--seconds", "0.4", "--warmup", "0"];
        all.extend(words);
        let report = report(folder.path(), &all).await;
        let it = target(&report, "target");
        assert!(
            it["errors"]
                .as_object()
                .unwrap()
                .values()
                .all(|count| *count == 0),
            "{it}"
        );
        assert!(it["good"].as_u64().unwrap() > 0, "{workload}");
        match workload {
            "trace" => assert_eq!((&it["planned"], &it["good"]), (&json!(3), &json!(3))),
            "streams" => assert!(it["figures"]["chunks_per_s"].as_f64().unwrap() > 0.0),
            "steps" => {
                let steps = report["steps"].as_array().unwrap();
                let rates: Vec<_> = steps.iter().map(|it| it["per_second"].as_f64()).collect();
                assert_eq!(rates, [Some(20.0), Some(40.0)]);
                assert_eq!(steps[1]["knee"], true);
            }
            _ => {}
        }
    }
}

/// An endpoint that takes one call at a time, 50 ms each, gets more than it can do: the wait for one's turn counts,
/// although no single answer took longer than that from its sending.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn latency_counts_from_the_planned_start() {
    let folder = tempfile::tempdir().unwrap();
    let script = Script {
        first_token_ms: 50,
        ..Script::default()
    };
    let upstream = Upstream::start(script).await.unwrap();
    let url = upstream.url();
    let words = [
        "rate",
        "--url",
        &url,
        "--rate",
        "100",
        "--seconds",
        "0.3",
        "--warmup",
        "0",
        "--threads",
        "1",
        "--at-once",
        "1",
        "--drain",
        "60",
        "--timeout",
        "60",
    ];
    let report = report(folder.path(), &words).await;
    let it = target(&report, "target");
    assert_eq!(it["good"], it["planned"], "{it}");
    // Planned within 300 ms, the last ends no earlier than 50 ms for each after the start.
    let least_ms = it["planned"].as_f64().unwrap() * 50.0 - 300.0;
    let longest_ms = it["figures"]["latency_max_us"].as_f64().unwrap() / 1_000.0;
    assert!(
        least_ms > 50.0 && longest_ms >= least_ms * 0.99,
        "{longest_ms} of {least_ms}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_of_its_own_is_measured_against_the_endpoint_behind_it() {
    let folder = tempfile::tempdir().unwrap();
    let words = [
        "rate",
        "--self",
        "--rate",
        "50",
        "--seconds",
        "0.5",
        "--warmup",
        "0",
        "--rounds",
        "2",
    ];
    let report = report(folder.path(), &words).await;
    assert_eq!(report["direct"], "direct");
    for name in ["pareto", "direct"] {
        let it = target(&report, name);
        assert_eq!(it["good"], it["planned"], "{it}");
    }
    let added = report["added"].as_array().unwrap();
    assert!(
        added
            .iter()
            .any(|it| it["target"] == "pareto" && it["figure"] == "latency_p50_us")
    );
    // The gateway is another process, whose memory is known; the endpoint is this very program.
    assert!(
        target(&report, "pareto")["figures"]["rss_peak_kib"]
            .as_f64()
            .unwrap()
            > 1_000.0
    );
    assert!(
        target(&report, "direct")["figures"]
            .get("rss_peak_kib")
            .is_none()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_machine_is_not_aimed_at_without_a_word() {
    let words = ["rate", "--url", "http://192.0.2.1/v1"].map(str::to_owned);
    let output = run(words.to_vec()).await;
    assert!(!output.status.success());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        told.contains("--yes-remote") && told.contains("costs money"),
        "{told}"
    );
}
