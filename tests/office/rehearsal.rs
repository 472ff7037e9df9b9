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
