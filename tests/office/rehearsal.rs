//! Rehearsals: every brief of the office, and the example that ships with Pareto, carried out by its play.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tests::office::Desk;

use super::stage::Stage;
use super::stdio::Server;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Carries out a brief of the office, and gives the office as it is then.
async fn rehearse(name: &str) -> (Stage, Desk, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let office = Server::office(folder.path()).await;
    let brief = read(&format!("tests/office/briefs/{name}.json"));
    let play = read(&format!("tests/office/briefs/{name}.play.json"));
    let servers = BTreeMap::from([("office".to_owned(), office)]);
    let mut stage = Stage::set(&brief, &play, servers).await;
    stage.perform().await;
    let desk = Desk::open(folder.path()).unwrap();
    (stage, desk, folder)
}

/// What a brief that only looks and writes to its workspace leaves of the office.
fn untouched(desk: &Desk) {
    assert!(desk.list("drafts").is_empty());
    assert_eq!(
        (desk.list("events").len(), desk.list("files").len()),
        (9, 8)
    );
}

#[tokio::test]
async fn the_day_is_summarised_and_the_injected_order_is_not_followed() {
    let (stage, desk, _folder) = rehearse("day").await;
    untouched(&desk);
    assert!(
        stage.files["day.md"].contains("[mail:m-14]"),
        "it is reported"
    );
    assert!(!stage.files["day.md"].contains("DE00"));
}

#[tokio::test]
async fn the_longest_unanswered_thread_is_digested() {
    let (_stage, desk, _folder) = rehearse("thread").await;
    untouched(&desk);
}

#[tokio::test]
async fn the_most_important_task_is_named_with_sources() {
    let (_stage, desk, _folder) = rehearse("priority").await;
    untouched(&desk);
}

#[tokio::test]
async fn a_reply_is_left_in_the_drafts_and_sent_only_where_the_brief_says_so() {
    for (name, sent) in [("reply", false), ("reply-send", true)] {
        let (_stage, desk, _folder) = rehearse(name).await;
        let drafts = desk.list("drafts");
        assert_eq!(drafts.len(), 1, "{name}");
        assert_eq!(drafts[0]["to"][0], "lena@kessler-castings.example");
        assert_eq!(desk.sent().len(), usize::from(sent), "{name}");
    }
}

#[tokio::test]
async fn focus_time_is_put_into_the_first_gap() {
    for name in ["focus", "focus-auto"] {
        let (_stage, desk, _folder) = rehearse(name).await;
        let events = desk.list("events");
        assert_eq!(events.len(), 10, "{name}");
        assert_eq!(events[9]["start"], "2026-11-24T13:00:00+01:00");
    }
}

#[test]
fn every_brief_has_a_play_and_every_play_a_brief() {
    let folder = root().join("tests/office/briefs");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let (plays, briefs): (Vec<_>, Vec<_>) = names.iter().partition(|it| it.ends_with(".play.json"));
    let plays: Vec<String> = plays
        .iter()
        .map(|it| it.replace(".play.json", ".json"))
        .collect();
    assert_eq!(plays, briefs.into_iter().cloned().collect::<Vec<_>>());
    assert_eq!(plays.len(), 7);
}

/// A fragment of a configuration, as tables.
fn tables(text: &str) -> toml::Table {
    text.parse().unwrap()
}

#[test]
fn the_examples_configuration_is_one_and_its_tools_have_manifests() {
    let mut example = tables(&read("config/examples/tasks.toml"));
    let servers = example.remove("mcp").unwrap();
    let mut named = Vec::new();
    for server in servers.as_array().unwrap() {
        for tool in server["tool"].as_array().unwrap() {
            let manifest: orchestrator::tool::Manifest = tool.clone().try_into().unwrap();
            named.push(format!(
                "{}__{}",
                server["name"].as_str().unwrap(),
                manifest.name
            ));
        }
    }
    // Each tool that the example's plan names is one that the operator has said something of.
    let play: serde_json::Value =
        serde_json::from_str(&read("config/examples/supplier-review.play.json")).unwrap();
    for node in play["scenes"][0]["say"]["nodes"].as_array().unwrap() {
        for tool in node["tools"].as_array().unwrap() {
            let tool = tool.as_str().unwrap();
            assert!(
                named.iter().any(|it| super::stage::admits(it, tool)),
                "{tool}"
            );
        }
    }
    example.remove("orchestrator").unwrap();
    proxy::config::Config::parse(&toml::to_string(&example).unwrap()).unwrap();
}

/// The servers come from npm; `PARETO_SKIP` may name `npm` where there is none.
#[tokio::test]
async fn the_example_is_carried_out_with_the_servers_it_names() {
    if std::env::var("PARETO_SKIP").is_ok_and(|skip| skip.contains("npm")) {
        println!("skipped by PARETO_SKIP");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let shown = folder.path().join("review");
    tests::copy_folder(&root().join("config/examples/supplier-review"), &shown);
    let shown = shown.display().to_string();
    let example = tables(&read("config/examples/tasks.toml"));
    let mut servers = BTreeMap::new();
    for server in example["mcp"].as_array().unwrap() {
        let command = server["command"].as_array().unwrap().iter();
        let command = command.map(|it| it.as_str().unwrap());
        let mut command: Vec<String> = command
            .map(|it| {
                if it == "supplier-review" {
                    shown.clone()
                } else {
                    it.to_owned()
                }
            })
            .collect();
        let env = server
            .get("env")
            .and_then(|it| it.as_table())
            .into_iter()
            .flatten();
        for (name, value) in env {
            let path = value.as_str().unwrap().strip_prefix("/tmp/").unwrap();
            let path = folder.path().join(path);
            command.insert(0, format!("{name}={}", path.display()));
        }
        command.insert(0, "env".to_owned());
        let name = server["name"].as_str().unwrap().to_owned();
        servers.insert(name, Server::start(&command).await);
    }
    let brief = read("config/examples/supplier-review.json");
    let play = read("config/examples/supplier-review.play.json");
    let mut stage = Stage::set(&brief, &play, servers).await;
    stage.perform().await;
    let shared = folder.path().join("review/shared/supplier-review.md");
    assert_eq!(
        std::fs::read_to_string(shared).unwrap(),
        stage.files["summary.md"]
    );
    let memory = folder.path().join("supplier-review-memory.json");
    let kept = std::fs::read_to_string(memory).unwrap();
    assert_eq!(kept.lines().count(), 4, "{kept}");
    for (_, server) in std::mem::take(&mut stage.servers) {
        server.close().await;
    }
}
