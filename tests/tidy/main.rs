//! The rules of the house, as tests: arrows between the parts, first lines, sizes, documented keys,
//! metrics on dashboards, words that must not be written.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Who may name whom. Anything absent is forbidden.
const ARROWS: &[(&str, &[&str])] = &[
    ("wire", &[]),
    ("router", &["wire"]),
    ("meter", &["wire"]),
    ("orchestrator", &["wire"]),
    ("store", &["wire", "meter", "orchestrator"]),
    ("dashboards", &["wire", "meter"]),
    ("bench", &["wire"]),
    (
        "proxy",
        &[
            "wire",
            "router",
            "meter",
            "orchestrator",
            "store",
            "dashboards",
            "bench",
        ],
    ),
    (
        "tests",
        &[
            "wire",
            "router",
            "meter",
            "orchestrator",
            "store",
            "dashboards",
            "bench",
            "proxy",
        ],
    ),
];

/// Lines of a function, and of a file without its tests.
const LONGEST_FUNCTION: usize = 70;
const LONGEST_FILE: usize = 600;
/// Functions and files that are longer today. They may shrink; the numbers may only go down.
const LONG_FUNCTIONS: &[(&str, usize)] = &[];
const LONG_FILES: &[(&str, usize)] = &[];

/// Files of `proxy` that may name these parts.
const MEETING_PLACES: &[(&str, &[&str])] = &[
    ("store", &["assemble.rs", "config.rs"]),
    ("orchestrator", &["assemble.rs", "config.rs"]),
    ("dashboards", &["assemble.rs"]),
    (
        "bench",
        &["demo.rs", "result.rs", "load.rs", "scripted.rs", "local.rs"],
    ),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir()
                && name != "target"
                && !name.starts_with("target-")
                && !name.starts_with('.')
            {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root(), &mut found);
    found.sort();
    assert!(found.len() > 60);
    let shown = |path: &Path| path.strip_prefix(root()).unwrap().display().to_string();
    found
        .iter()
        .map(|path| (shown(path), std::fs::read_to_string(path).unwrap()))
        .collect()
}

#[test]
fn parts_depend_only_along_the_arrows() {
    let parts: BTreeSet<&str> = ARROWS.iter().map(|(part, _)| *part).collect();
    for (part, allowed) in ARROWS {
        let text = std::fs::read_to_string(root().join(part).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = text.parse().unwrap();
        for section in ["dependencies", "build-dependencies"] {
            let Some(named) = manifest.get(section).and_then(|s| s.as_table()) else {
                continue;
            };
            for name in named.keys().filter(|name| parts.contains(name.as_str())) {
                assert!(
                    allowed.contains(&name.as_str()),
                    "{part} must not depend on {name}"
                );
            }
        }
    }
}

#[test]
fn inside_the_gateway_parts_meet_in_one_place() {
    for (path, text) in sources()
        .iter()
        .filter(|(path, _)| path.starts_with("proxy/src/"))
    {
        for (part, places) in MEETING_PLACES {
            let names = text.lines().any(|line| {
                let code = line.split("//").next().unwrap_or_default();
                code.contains(&format!("{part}::")) && !code.contains(&format!("_{part}::"))
            });
            let allowed = places
                .iter()
                .any(|place| path.ends_with(&format!("/{place}")));
            assert!(
                !names || allowed,
                "{path} names {part}; only {places:?} may"
            );
        }
    }
}

#[test]
fn pure_parts_read_no_clock_and_do_no_input_or_output() {
    for (path, text) in sources() {
        let pure = ["wire/src/", "router/src/", "meter/src/"]
            .iter()
            .any(|part| path.starts_with(part));
        if !pure
            || path.starts_with("router/src/train")
            || path == "router/src/main.rs"
            || path.contains("tests")
        {
            continue;
        }
        for word in [
            "SystemTime",
            "Instant::now",
            "std::fs",
            "std::net",
            "std::env",
            "spawn(",
        ] {
            assert!(
                !text.contains(word),
                "{path} is pure and must not use {word}"
            );
        }
    }
}

#[test]
fn sql_stays_in_the_store() {
    for (path, text) in sources()
        .iter()
        .filter(|(path, _)| !path.starts_with("store/") && !path.starts_with("tests/"))
    {
        for word in ["SELECT ", "INSERT INTO", "rusqlite"] {
            assert!(!text.contains(word), "{path} speaks SQL: {word}");
        }
    }
}

#[test]
fn every_file_says_first_what_it_is_for() {
    for (path, text) in sources() {
        assert!(text.starts_with("//! "), "{path} begins without `//!`");
        assert!(text.lines().next().unwrap().len() > 12, "{path}: say more");
    }
}

#[test]
fn functions_and_files_stay_short() {
    let mut long = Vec::new();
    for (path, text) in sources()
        .iter()
        .filter(|(path, _)| !path.starts_with("tests/"))
    {
        let lines = text.split("#[cfg(test)]").next().unwrap().lines().count();
        let limit = LONG_FILES
            .iter()
            .find(|(file, _)| file == path)
            .map_or(LONGEST_FILE, |found| found.1);
        if lines > limit && !path.ends_with("tests.rs") {
            long.push(format!("{path}: {lines} lines, {limit} allowed"));
        }
        let mut open: Option<(String, String, usize)> = None;
        for (number, line) in text.lines().enumerate() {
            let code = line.trim_start();
            let indent = line[..line.len() - code.len()].to_owned();
            let begins = [
                "fn ",
                "pub fn ",
                "async fn ",
                "pub async fn ",
                "pub(crate) fn ",
                "pub(super) fn ",
                "pub(crate) async fn ",
                "pub(super) async fn ",
            ]
            .iter()
            .any(|head| code.starts_with(head));
            match &open {
                None if begins && !code.ends_with(';') => {
                    open = Some((code.to_owned(), indent, number))
                }
                Some((head, outer, start)) if line == format!("{outer}}}") => {
                    let name = format!("{path}: {}", head.split('(').next().unwrap());
                    let limit = LONG_FUNCTIONS
                        .iter()
                        .find(|(f, _)| *f == name)
                        .map_or(LONGEST_FUNCTION, |f| f.1);
                    if number - start + 1 > limit {
                        long.push(format!(
                            "{name}: {} lines, {limit} allowed",
                            number - start + 1
                        ));
                    }
                    open = None;
                }
                _ => {}
            }
        }
    }
    assert!(
        long.is_empty(),
        "cut these, or say here why not:\n{}",
        long.join("\n")
    );
}

#[test]
fn every_configuration_key_is_in_the_commented_file() {
    let shown = std::fs::read_to_string(root().join("config/pareto.toml")).unwrap();
    for file in [
        "proxy/src/config.rs",
        "proxy/src/config/otlp.rs",
        "router/src/config.rs",
        "router/src/cascade.rs",
        "meter/src/config.rs",
        "store/src/config.rs",
        "orchestrator/src/config.rs",
        "orchestrator/src/tool/config.rs",
    ] {
        let text = std::fs::read_to_string(root().join(file)).unwrap();
        let fields = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("pub "))
            .filter_map(|line| {
                let (name, kind) = line.split_once(": ")?;
                (kind.ends_with(',') && !name.contains(' ')).then_some(name)
            });
        let mut seen = 0;
        for field in fields {
            seen += 1;
            // The lists are tables, written in the singular; parts of a section follow a dot.
            let table = [format!("[[{}]]", field.trim_end_matches('s'))];
            let parts = ["es", "s", ""].map(|end| format!(".{}]", field.trim_end_matches(end)));
            let section = format!("[{field}]");
            let key = shown.lines().any(|line| {
                // A key of an inline table stands behind a brace or a comma.
                let line = line.trim_start_matches("# ");
                line.match_indices(&format!("{field} = "))
                    .any(|(at, _)| at == 0 || line[..at].ends_with(['{', ' ', '.']))
            });
            assert!(
                key || shown.contains(&section)
                    || table
                        .iter()
                        .chain(&parts)
                        .any(|table| shown.contains(table)),
                "{file}: `{field}` is not shown"
            );
        }
        assert!(seen > 0, "{file}");
    }
}

#[test]
fn every_metric_is_named_once_and_shown_on_a_dashboard() {
    let writers = [
        "proxy/src/telemetry.rs",
        "proxy/src/telemetry/handles.rs",
        "proxy/src/telemetry/upstreams.rs",
    ];
    let telemetry = writers.map(|path| std::fs::read_to_string(root().join(path)).unwrap());
    let telemetry = telemetry.concat();
    for (name, help) in proxy::telemetry::NAMES {
        assert!(
            dashboards::GRAFANA
                .iter()
                .any(|(_, text)| text.contains(name)),
            "{name} is on no dashboard"
        );
        assert!(
            telemetry.contains(&format!("\"{name}\"")),
            "{name} is never written"
        );
        assert!(help.len() > 10);
    }
    for (path, text) in sources()
        .iter()
        .filter(|(path, _)| path.starts_with("proxy/src/"))
    {
        let macros = ["counter!(", "gauge!(", "histogram!("]
            .iter()
            .any(|name| text.contains(name));
        assert!(
            !macros || writers.contains(&path.as_str()),
            "{path} writes metrics"
        );
    }
}

#[test]
fn dashboards_and_rules_ask_only_for_what_there_is() {
    let recorded: BTreeSet<&str> = dashboards::RECORDS
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- record: "))
        .collect();
    let rules = [
        ("records.yml", dashboards::RECORDS),
        ("alerts.yml", dashboards::ALERTS),
    ];
    for (file, text) in dashboards::GRAFANA.iter().chain(&rules) {
        for word in text.split(|c: char| !c.is_ascii_alphanumeric() && !"_:".contains(c)) {
            if word.contains(":pareto_") {
                assert!(recorded.contains(word), "{file}: nobody records {word}");
            } else if word.starts_with("pareto_") {
                let is_known = |name: &str| {
                    proxy::telemetry::NAMES
                        .iter()
                        .any(|(known, _)| *known == name)
                };
                let histogram = ["_bucket", "_sum", "_count"]
                    .iter()
                    .filter_map(|part| word.strip_suffix(part));
                let mut names = std::iter::once(word).chain(histogram);
                assert!(names.any(is_known), "{file}: unknown metric {word}");
            }
        }
    }
}

#[test]
fn every_alert_is_shown_to_fire_and_to_stay_silent() {
    let folder = root().join("dashboards/prometheus/tests");
    let files = std::fs::read_dir(folder).unwrap();
    let tests: String = files
        .map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap())
        .collect();
    let alerts = dashboards::ALERTS
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    for alert in alerts {
        let case = format!("alertname: {alert}\n        exp_alerts:");
        let silent = tests.matches(&format!("{case} []\n")).count();
        let fires = tests.matches(&format!("{case}\n")).count();
        assert!(fires > 0 && silent > 0, "{alert}: {fires} and {silent}");
    }
}

#[test]
fn the_tree_speaks_of_the_product_alone() {
    let forbidden = [
        ["/wo", "rk/"].concat(),
        ["/ro", "ot/"].concat(),
        ["FIX", "ME"].concat(),
        ["todo", "!("].concat(),
    ];
    for (path, text) in sources() {
        for word in &forbidden {
            assert!(!text.contains(word.as_str()), "{path} contains {word}");
        }
    }
}

#[test]
fn dependencies_are_stable_releases_of_the_public_registry() {
    let lock: toml::Table = std::fs::read_to_string(root().join("Cargo.lock"))
        .unwrap()
        .parse()
        .unwrap();
    for package in lock["package"].as_array().unwrap() {
        let (name, version) = (
            package["name"].as_str().unwrap(),
            package["version"].as_str().unwrap(),
        );
        // Behind a plus sign stands build metadata, not a pre-release.
        let release = version.split('+').next().unwrap();
        assert!(!release.contains('-'), "{name} {version} is a pre-release");
        assert!(
            !["openssl", "native-tls", "async-std"].contains(&name),
            "{name} is banned"
        );
        if let Some(source) = package.get("source").and_then(|source| source.as_str()) {
            assert!(
                source.starts_with("registry+"),
                "{name} comes from {source}"
            );
        }
    }
}

#[test]
fn every_fuzz_target_is_run() {
    let manifest = std::fs::read_to_string(root().join("tests/fuzz/Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let named = manifest["bin"].as_array().unwrap().iter();
    let named: BTreeSet<&str> = named.map(|bin| bin["name"].as_str().unwrap()).collect();
    let files = std::fs::read_dir(root().join("tests/fuzz/targets")).unwrap();
    let files: Vec<String> = files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    let files: BTreeSet<&str> = files
        .iter()
        .map(|file| file.strip_suffix(".rs").unwrap())
        .collect();
    let run = std::fs::read_to_string(root().join("tests/run")).unwrap();
    let run: BTreeSet<&str> = run
        .lines()
        .filter_map(|line| line.trim().strip_prefix("for target in "))
        .flat_map(|line| line.trim_end_matches("; do").split(' '))
        .collect();
    assert_eq!(named, files, "targets in the manifest, and in the folder");
    assert_eq!(named, run, "targets in the manifest, and in tests/run");
}

#[test]
fn every_promise_names_tests_that_exist_and_is_written_down() {
    let text = std::fs::read_to_string(root().join("tests/promises.toml")).unwrap();
    let book: toml::Table = text.parse().unwrap();
    let written = std::fs::read_to_string(root().join("PROMISES.md")).unwrap();
    for promise in book["promise"].as_array().unwrap() {
        let id = promise["id"].as_str().unwrap();
        let row = written
            .lines()
            .find(|line| line.starts_with(&format!("| {id} |")));
        let row = row.unwrap_or_else(|| {
            panic!("{id} is not in PROMISES.md: run `cargo run -p tests --bin promises`")
        });
        let tests = promise.get("tests").and_then(|it| it.as_array());
        for test in tests.into_iter().flatten() {
            let (file, name) = test.as_str().unwrap().split_once('#').unwrap();
            let text = std::fs::read_to_string(root().join(file)).unwrap_or_default();
            assert!(
                text.contains(&format!("fn {name}(")),
                "{id}: {file} has no test {name}"
            );
            assert!(
                row.contains(&name.replace('_', " ")),
                "{id} is out of date: run `cargo run -p tests --bin promises`"
            );
        }
    }
}
