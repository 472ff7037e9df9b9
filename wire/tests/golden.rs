//! Proves the translators on whole cases: a folder in `tests/golden/<dialect>` has a caller's
//! `request.json`, an upstream's `reply.json` or an upstream's `stream.sse` in that dialect, and beside
//! them stands what each other dialect makes of it. `PARETO_BLESS=1` writes what is missing; what is
//! there is only ever compared, so delete a snapshot to make it anew.
//!
//! `asked.<dialect>.json` is the call of the caller who gets the answer, where it matters.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops where traffic must not"
)]

mod support;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::{Value, json};
use support::{Essence, asked, carried, change, conversing, forget, grammar};
use wire::dialect::{self, Asked};
use wire::{Call, Dialect, Losses, splice, translate};

/// A folder.
struct Case {
    name: String,
    dialect: &'static dyn Dialect,
    folder: PathBuf,
}

fn cases() -> Vec<Case> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
    let mut cases = Vec::new();
    for dialect in conversing() {
        let folder = root.join(dialect.name());
        let entries = std::fs::read_dir(&folder).unwrap();
        let mut folders: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        folders.sort();
        cases.extend(folders.into_iter().map(|folder| Case {
            name: format!("{}/{}", dialect.name(), last(&folder)),
            dialect,
            folder,
        }));
    }
    assert!(cases.len() > 70);
    cases
}

fn last(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

impl Case {
    fn read(&self, file: &str) -> Option<String> {
        std::fs::read_to_string(self.folder.join(file)).ok()
    }

    fn others(&self) -> impl Iterator<Item = &'static dyn Dialect> {
        let home = self.dialect.name();
        conversing().into_iter().filter(move |it| it.name() != home)
    }

    /// The caller who speaks `to`.
    fn asked(&self, to: &dyn Dialect) -> Asked {
        let body = self.read(&format!("asked.{}.json", to.name()));
        let body = body.unwrap_or_else(|| "{\"model\":\"fast\"}".to_owned());
        asked(to.decode(body.as_bytes()).unwrap())
    }

    /// Compares `text` with the snapshot `file`, or makes it.
    fn snapshot(&self, file: &str, text: &str, wrong: &mut Vec<String>) {
        let bless = std::env::var("PARETO_BLESS").is_ok_and(|word| word == "1");
        match self.read(file) {
            Some(kept) if kept == text => {}
            Some(kept) => {
                let differ = |(ours, theirs): &(&str, &str)| ours != theirs;
                let (ours, theirs) = text
                    .lines()
                    .zip(kept.lines())
                    .find(differ)
                    .unwrap_or_default();
                wrong.push(format!(
                    "{}/{file}\n  now  {ours}\n  kept {theirs}",
                    self.name
                ));
            }
            None if bless => std::fs::write(self.folder.join(file), text).unwrap(),
            None => wrong.push(format!("{}/{file} is missing", self.name)),
        }
    }
}

fn finish(wrong: &[String]) {
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn pretty(losses: &Losses, body: &Value) -> String {
    let losses: Vec<String> = losses.iter().map(ToString::to_string).collect();
    let whole = json!({ "losses": losses, "body": body });
    serde_json::to_string_pretty(&whole).unwrap() + "\n"
}

#[test]
fn calls_become_what_the_snapshots_say() {
    let mut wrong = Vec::new();
    for case in cases() {
        let Some(text) = case.read("request.json") else {
            continue;
        };
        let call = case.dialect.decode(text.as_bytes()).unwrap();
        for to in case.others() {
            let (body, losses) = carried(&call, to, support::ORIGIN);
            let file = format!("request.to_{}.json", to.name());
            case.snapshot(&file, &pretty(&losses, &body), &mut wrong);
            if let Err(why) = bench::upstream::judge(to.name(), &body, support::ORIGIN) {
                wrong.push(format!("{}/{file} would be refused: {why}", case.name));
            }
        }
    }
    finish(&wrong);
}

/// The gateway's own tests send these bodies through it, too.
#[test]
fn calls_are_such_as_the_gateway_takes() {
    for case in cases() {
        let Some(text) = case.read("request.json") else {
            continue;
        };
        let scan = case.dialect.scan(text.as_bytes()).expect(&case.name);
        assert!(["fast", "deep"].contains(&scan.model.as_str()));
        let first = text.find(&format!("\"{}\"", scan.model));
        assert_eq!(first, Some(scan.model_at.start), "{}", case.name);
        assert!(scan.previous.is_empty() && scan.conversation.is_empty());
        let edits = case.dialect.edits(&scan, &change("other"));
        let sent = splice::apply(&Bytes::from(text.clone()), edits).concat();
        let wanted = edited(case.dialect, &text, &scan.model);
        assert_eq!(String::from_utf8(sent).unwrap(), wanted, "{}", case.name);
    }
}

/// The body for another model of the same dialect, by plain replacement.
fn edited(dialect: &dyn Dialect, text: &str, model: &str) -> String {
    let other = text.replacen(&format!("\"{model}\""), "\"other\"", 1);
    let streams = text.contains("\"stream\":true") || text.contains("\"stream\": true");
    if dialect.name() == "openai_chat" && streams && !text.contains("include_usage") {
        return other.replacen('{', "{\"stream_options\":{\"include_usage\":true},", 1);
    }
    other
}

#[test]
fn a_call_that_stays_at_home_is_the_same() {
    for case in cases() {
        let Some(text) = case.read("request.json") else {
            continue;
        };
        if text.contains(wire::seal::ENVELOPE) {
            // What is in an envelope goes to its origin, wherever that is.
            continue;
        }
        let call = case.dialect.decode(text.as_bytes()).unwrap();
        let mut losses = Losses::default();
        let body = case
            .dialect
            .encode(&call, &change(&call.model), &mut losses);
        assert!(losses.is_empty(), "{}: {losses:?}", case.name);
        assert_eq!(body, expected_at_home(case.dialect, &text), "{}", case.name);
    }
}

/// The body, but that a chat's stream reports its usage, that a text alone is a list of items, and that
/// the half of a character in one case, which no value can hold, is a replacement character.
fn expected_at_home(dialect: &dyn Dialect, text: &str) -> Value {
    let whole = text.replace("\\ud83d here", "\\ufffd here");
    let mut body: Value = serde_json::from_str(&whole).unwrap();
    if dialect.name() == "openai_chat" && body["stream"] == true {
        body["stream_options"]["include_usage"] = true.into();
    }
    if dialect.name() == "openai_responses" {
        body["input"] = dialect::openai_responses::input_items(&body["input"]).into();
    }
    body
}

#[test]
fn a_call_survives_without_the_shapes_it_came_in() {
    for case in cases() {
        let Some(text) = case.read("request.json") else {
            continue;
        };
        let call = case.dialect.decode(text.as_bytes()).unwrap();
        let mut bare = call.clone();
        forget(&mut bare.turns);
        unchanged(case.dialect, &bare, &format!("{} at home", case.name));
        // As if another dialect had brought it.
        bare.dialect = "";
        bare.own.clear();
        bare.only_own.clear();
        unchanged(case.dialect, &bare, &format!("{} from afar", case.name));
    }
}

fn unchanged(dialect: &dyn Dialect, call: &Call, place: &str) {
    let mut losses = Losses::default();
    let body = dialect.encode(call, &change(&call.model), &mut losses);
    if losses.is_empty() {
        let back = dialect.decode(body.to_string().as_bytes()).unwrap();
        assert_eq!(support::normal(&back), support::normal(call), "{place}");
    }
}

#[test]
fn answers_become_what_the_snapshots_say() {
    let mut wrong = Vec::new();
    for case in cases() {
        let Some(text) = case.read("reply.json") else {
            continue;
        };
        for to in conversing() {
            let asked = case.asked(to);
            let mut losses = Losses::default();
            let translated = translate::reply(
                case.dialect,
                support::ORIGIN,
                to,
                &asked,
                text.as_bytes(),
                &mut losses,
            );
            let file = format!("reply.to_{}.json", to.name());
            let (body, reply) = match translated {
                Ok(translated) => translated,
                Err(why) => (json!({ "error": why.to_string() }), wire::Reply::default()),
            };
            if to.name() != case.dialect.name() {
                case.snapshot(&file, &pretty(&losses, &body), &mut wrong);
            }
            if body.get("error").is_some_and(Value::is_string) {
                continue;
            }
            let back = to.decode_reply(body.to_string().as_bytes(), support::ORIGIN);
            let mut told = Essence::of(&reply, to);
            told.without(&losses);
            let mut read = Essence::of(&back.unwrap(), to);
            read.fit(&told);
            assert_eq!(read, told, "{}/{file}", case.name);
        }
    }
    finish(&wrong);
}

#[test]
fn streams_become_what_the_snapshots_say() {
    let mut wrong = Vec::new();
    for case in cases() {
        let Some(text) = case.read("stream.sse") else {
            continue;
        };
        for to in conversing() {
            let whole = support::stream(
                case.dialect,
                to,
                case.asked(to),
                text.as_bytes(),
                text.len(),
            );
            let place = format!("{}/stream.to_{}.sse", case.name, to.name());
            if to.name() != case.dialect.name() {
                let losses = whole.losses.iter().map(|loss| format!(": {loss}\n"));
                let failed = whole.failed.iter().map(|why| format!(": failed: {why}\n"));
                let notes: String = losses.chain(failed).collect();
                let shown = whole.text.clone() + &notes;
                case.snapshot(&format!("stream.to_{}.sse", to.name()), &shown, &mut wrong);
            }
            let mut watch = to.watch();
            for event in whole.text.split_inclusive("\n\n") {
                watch.event(event.as_bytes());
            }
            assert_eq!(
                watch.facts().finished,
                whole.ended,
                "{place}: its end is known"
            );
            if !whole.ended {
                continue;
            }
            grammar::check(to.name(), &whole.text, &place);
            let back = support::read(to, &whole.text);
            let back = back.whole().expect(&place);
            let mut told = Essence::of(&whole.reply, to);
            let mut read = Essence::of(back, to);
            told.without(&whole.losses);
            read.fit(&told);
            assert_eq!(read, told, "{place}");
        }
    }
    finish(&wrong);
}

#[test]
fn streams_may_be_cut_anywhere() {
    for case in cases() {
        let Some(text) = case.read("stream.sse") else {
            continue;
        };
        for to in conversing() {
            let carry =
                |size| support::stream(case.dialect, to, case.asked(to), text.as_bytes(), size);
            let whole = carry(text.len()).text;
            for size in [1, 2, 3, 7, 64] {
                assert_eq!(carry(size).text, whole, "{} by {size}", case.name);
            }
        }
    }
}

/// A case that has both says the same in both.
#[test]
fn an_answer_and_its_stream_say_the_same() {
    for case in cases() {
        let (Some(whole), Some(stream)) = (case.read("reply.json"), case.read("stream.sse")) else {
            continue;
        };
        let whole = case
            .dialect
            .decode_reply(whole.as_bytes(), support::ORIGIN)
            .unwrap();
        let stream = support::read(case.dialect, &stream);
        let stream = stream.whole().expect(&case.name);
        assert_eq!(
            Essence::of(stream, case.dialect),
            Essence::of(&whole, case.dialect),
            "{}",
            case.name
        );
    }
}
