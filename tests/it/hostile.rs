//! Proves what a caller hears of an upstream that misbehaves, whatever dialect either speaks: an error
//! of the caller's own dialect or a stream that was made good, never a clean end over lost content; and
//! that such a call is in the ledger with what it was counted at.

use bench::upstream::Script;
use meter::Outcome;
use serde_json::json;
use tests::talk::{Talk, Tongue};
use tests::world::{DIALECTS, FAST, script};
use tests::{Reply, World};
use wire::UsageSource;

const SAID: &str = "The river 🙂 bends twice before the mill and then runs straight.";

/// The answer to a streamed call of `model` under `fault`.
async fn streamed(world: &World, tongue: Tongue, model: &str, fault: &str) -> Reply {
    let mut talk = Talk::plain(tongue, "");
    let told = json!({ "say": SAID, "fault": fault });
    talk.say("user", &format!("Tell. <<script {told}>>"));
    let mut body = talk.body(model);
    body["stream"] = true.into();
    world.client.post(tongue.path(), body.to_string()).await
}

/// The text that a client would show of a stream.
fn text_of(tongue: Tongue, stream: &str) -> String {
    let mut text = String::new();
    for data in stream
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
    {
        let Ok(event) = serde_json::from_str::<serde_json::Value>(data) else {
            assert_eq!(data, "[DONE]", "every event that reaches a caller is JSON");
            continue;
        };
        let delta = match tongue {
            Tongue::Chat => &event["choices"][0]["delta"]["content"],
            Tongue::Responses if event["type"] == "response.output_text.delta" => &event["delta"],
            Tongue::Responses => &serde_json::Value::Null,
            Tongue::Messages => &event["delta"]["text"],
        };
        text.push_str(delta.as_str().unwrap_or_default());
    }
    text
}

/// Whether a stream ends as one of a whole answer does.
fn ends_cleanly(tongue: Tongue, stream: &str) -> bool {
    let last = match tongue {
        Tongue::Chat => "data: [DONE]",
        Tongue::Responses => "event: response.completed",
        Tongue::Messages => "event: message_stop",
    };
    stream.contains(last)
}

/// Whether a stream has an error event of its dialect.
fn has_error(tongue: Tongue, stream: &str) -> bool {
    match tongue {
        Tongue::Chat => stream.contains("data: {\"error\":"),
        Tongue::Responses | Tongue::Messages => stream.contains("event: error\n"),
    }
}

/// Runs `check` for each pair of a caller's dialect and an upstream's.
async fn each_pair(fault: &str, check: impl Fn(Tongue, &str, &Reply)) -> World {
    let world = World::start("", "").await;
    world.fast.set_script(script(FAST));
    for tongue in Tongue::ALL {
        for (_, short) in DIALECTS {
            let model = format!("fast-{short}");
            let reply = streamed(&world, tongue, &model, fault).await;
            check(tongue, short, &reply);
            // A model that failed a few times in a row would be left alone.
            streamed(&world, tongue, &model, "no_usage").await;
        }
    }
    world
}

async fn ends_in_a_visible_error(fault: &str) {
    let world = each_pair(fault, |tongue, upstream, reply| {
        let stream = reply.text();
        let at = format!("{tongue:?} from {upstream}, {fault}: {stream}");
        assert_eq!(reply.status, 200, "{at}");
        assert!(
            has_error(tongue, &stream) && !ends_cleanly(tongue, &stream),
            "{at}"
        );
        let shown = text_of(tongue, &stream);
        assert!(SAID.starts_with(&shown) && !shown.is_empty(), "{at}");
        assert!(reply.broken, "{at}");
    })
    .await;
    let entries = world.entries().await;
    let broken = entries
        .iter()
        .filter(|entry| entry.outcome == Outcome::Interrupted);
    let mut count = 0;
    for entry in broken {
        count += 1;
        assert_eq!(entry.source, UsageSource::Counted, "{fault}");
        assert!(
            entry.usage.prompt() > 0 && entry.usage.answer() > 0 && entry.cost.0 > 0,
            "{fault}"
        );
    }
    assert_eq!(count, 9, "{fault}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_cut_inside_a_character_ends_in_an_error() {
    ends_in_a_visible_error("cut_in_utf8:3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_in_a_stream_ends_it_in_an_error() {
    ends_in_a_visible_error("garbage:3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_event_is_told_in_the_callers_dialect() {
    ends_in_a_visible_error("error_after:3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_connection_ends_in_an_error() {
    ends_in_a_visible_error("cut_after:3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_end_is_made_good_or_told() {
    let world = each_pair("no_end", |tongue, upstream, reply| {
        let stream = reply.text();
        let at = format!("{tongue:?} from {upstream}: {stream}");
        assert!(
            has_error(tongue, &stream) && !ends_cleanly(tongue, &stream),
            "{at}"
        );
    })
    .await;
    let interrupted = world.entries().await;
    assert!(
        interrupted
            .iter()
            .any(|entry| entry.outcome == Outcome::Interrupted)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_doubled_end_and_missing_usage_give_a_whole_stream() {
    for fault in ["duplicate_end", "no_usage", "extra_after_end", "split:2"] {
        let world = each_pair(fault, |tongue, upstream, reply| {
            let stream = reply.text();
            let at = format!("{tongue:?} from {upstream}, {fault}: {stream}");
            assert_eq!((reply.status, reply.broken), (200, false), "{at}");
            assert_eq!(text_of(tongue, &stream), SAID, "{at}");
            assert!(
                ends_cleanly(tongue, &stream) && !has_error(tongue, &stream),
                "{at}"
            );
            let ends = [
                "data: [DONE]",
                "event: response.completed",
                "event: message_stop",
            ];
            let ends: usize = ends.iter().map(|end| stream.matches(end).count()).sum();
            assert_eq!(ends, 1, "{at}");
        })
        .await;
        let entries = world.entries().await;
        let counted = entries
            .iter()
            .filter(|entry| entry.source == UsageSource::Counted)
            .count();
        let unreported = if fault == "no_usage" { 18 } else { 9 };
        assert_eq!(
            counted, unreported,
            "{fault}: the gateway counts what nobody reports"
        );
        assert!(
            entries
                .iter()
                .all(|entry| entry.usage.answer() > 8 && entry.cost.0 > 0)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_answer_is_an_error_before_anything_is_released() {
    for fault in ["wrong_type", "gzip", "empty", "garbage:0"] {
        let world = each_pair(fault, |tongue, upstream, reply| {
            let at = format!("{tongue:?} from {upstream}, {fault}: {}", reply.text());
            assert_eq!(reply.status, 502, "{at}");
            let told = reply.json();
            assert!(
                told["error"]["message"].as_str().unwrap().contains("fast-"),
                "{at}"
            );
            assert_eq!(told["type"] == "error", tongue == Tongue::Messages, "{at}");
        })
        .await;
        let entries = world.entries().await;
        let failed: Vec<_> = entries
            .iter()
            .filter(|entry| entry.outcome == Outcome::Interrupted)
            .collect();
        assert_eq!(failed.len(), 9, "{fault}");
        for entry in failed {
            assert_eq!(entry.source, UsageSource::Counted, "{fault}");
            assert!(entry.usage.prompt() > 0, "{fault}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_answer_that_is_none_is_an_error_too() {
    let world = World::start("", "").await;
    world.fast.set_script(Script { ..script(FAST) });
    for tongue in Tongue::ALL {
        for (_, short) in DIALECTS {
            for fault in ["wrong_type", "gzip", "empty"] {
                let mut talk = Talk::plain(tongue, "");
                talk.say(
                    "user",
                    &format!("Tell. <<script {{\"fault\":\"{fault}\"}}>>"),
                );
                let body = talk.body(&format!("fast-{short}")).to_string();
                let reply = world.client.post(tongue.path(), body).await;
                assert_eq!(
                    reply.status,
                    502,
                    "{tongue:?} from {short}, {fault}: {}",
                    reply.text()
                );
                let fine = Talk {
                    items: vec![json!({ "role": "user", "content": "Hi" })],
                    ..talk
                };
                let body = fine.body(&format!("fast-{short}")).to_string();
                assert_eq!(world.client.post(tongue.path(), body).await.status, 200);
            }
        }
    }
    let entries = world.entries().await;
    let counted = entries
        .iter()
        .filter(|entry| entry.source == UsageSource::Counted)
        .count();
    assert_eq!(counted, 27);
}
