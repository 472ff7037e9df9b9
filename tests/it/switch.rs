//! Proves that a conversation moves between models, providers and dialects without losing anything:
//! forty turns with tools and thinking, another model and another dialect at every single call, under
//! validators as strict as the vendors'. Each origin gets its own private parts back, and no other's.

use std::collections::BTreeSet;

use bench::upstream::{Billed, Script};
use serde_json::json;
use tests::World;
use tests::talk::{Talk, Tongue};
use tests::world::{DEEP, FAST, script};

const TURNS: usize = 40;
/// Another tier and another dialect at every step.
const MODELS: [&str; 6] = [
    "fast-messages",
    "deep-responses",
    "fast-chat",
    "deep-messages",
    "fast-responses",
    "deep-chat",
];

async fn strict_world() -> World {
    let world = World::start("", "").await;
    for (upstream, tier, origin) in [(&world.fast, FAST, "fast"), (&world.deep, DEEP, "deep")] {
        upstream.set_script(Script {
            strict: true,
            takes_reasoning: true,
            origin: origin.to_owned(),
            ..script(tier)
        });
    }
    world
}

/// The private parts in some bytes: signatures, encrypted reasoning, and reasoning text that is sent
/// as such.
fn private_parts(bytes: &[u8]) -> BTreeSet<String> {
    let text = String::from_utf8_lossy(bytes);
    let mut found = BTreeSet::new();
    for mark in ["\"sig:", "\"enc:", "\"reasoning_content\":\""] {
        for (at, _) in text.match_indices(mark) {
            let part: String = text[at + 1..].chars().take(60).collect();
            found.insert(
                part.split("\",")
                    .next()
                    .unwrap()
                    .trim_end_matches(['"', '}'])
                    .to_owned(),
            );
        }
    }
    found
}

/// Who can read a part: an endpoint in one of its dialects.
fn reader(billed: &Billed) -> (String, &'static str) {
    (billed.model.clone(), billed.dialect)
}

async fn forty_turns(mut talk: Talk) {
    let world = strict_world().await;
    // Plain reasoning is known by its text alone, which is the same for both calls of a turn here.
    let (echoes, mut step) = (talk.echoes, 0);
    let mut next = |within_turn: bool| {
        step += usize::from(!(within_turn && echoes));
        MODELS[step % MODELS.len()]
    };
    for turn in 0..TURNS {
        let told = json!({
            "thinking": format!("Thought {turn} of this conversation, and why."),
            "call": { "name": "note", "arguments": { "text": format!("n{turn}") } },
        });
        talk.say(
            "user",
            &format!("Fact {turn} is {}. <<script {told}>>", turn * 17),
        );
        let (_, _, calls) = talk.ask(&world.client, next(false)).await;
        assert_eq!(calls.len(), 1, "turn {turn}");
        talk.results(&[(calls[0].0.clone(), format!("noted {turn}"))]);
        let (_, said, _) = talk.ask(&world.client, next(true)).await;
        assert!(
            said.contains(&format!("noted {turn}")),
            "turn {turn}: {said}"
        );
    }
    assert_eq!(
        world.bill().len(),
        TURNS * 2,
        "nothing had to be tried twice"
    );
    check_transcripts(&world);
    check_private_parts(&world, &talk);
}

fn working(tongue: Tongue) -> Talk {
    Talk::working(tongue, "Keep every fact.")
}

/// Every endpoint, in every dialect, has last seen every fact up to then, and the system text.
fn check_transcripts(world: &World) {
    for model in MODELS {
        let (tier, short) = model.split_once('-').unwrap();
        let upstream = if tier == "fast" {
            &world.fast
        } else {
            &world.deep
        };
        let last = upstream
            .bill()
            .into_iter()
            .rfind(|billed| billed.dialect.ends_with(short))
            .unwrap();
        let text = String::from_utf8(last.body.to_vec()).unwrap();
        let facts =
            (0..TURNS - 7).filter(|turn| text.contains(&format!("Fact {turn} is {}.", turn * 17)));
        assert_eq!(facts.count(), TURNS - 7, "{model}");
        assert!(text.contains("Keep every fact."), "{model}");
        let noted = (0..TURNS - 7).filter(|turn| text.contains(&format!("noted {turn}\"")));
        assert_eq!(noted.count(), TURNS - 7, "{model}");
    }
}

/// Each call brought its reader exactly the private parts that the reader had made before.
fn check_private_parts(world: &World, talk: &Talk) {
    let tongue = talk.tongue;
    let mut returned = 0;
    for upstream in [&world.fast, &world.deep] {
        let bill = upstream.bill();
        for (at, billed) in bill.iter().enumerate() {
            let own = bill[..at]
                .iter()
                .filter(|earlier| reader(earlier) == reader(billed));
            let mut made: BTreeSet<String> =
                own.flat_map(|own| private_parts(&own.answer)).collect();
            if tongue == Tongue::Chat && billed.dialect == "openai_chat" && !talk.echoes {
                // At home the bytes pass, and this client sends no reasoning back.
                made.clear();
            }
            let sent = private_parts(&billed.body);
            assert_eq!(sent, made, "{tongue:?}: call {at} of {:?}", reader(billed));
            returned += sent.len();
        }
    }
    assert!(
        returned > 300,
        "{tongue:?}: {returned} private parts came back in all"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn forty_turns_in_chat_lose_nothing() {
    forty_turns(working(Tongue::Chat)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forty_turns_in_chat_lose_nothing_where_the_client_sends_reasoning_back() {
    let mut talk = working(Tongue::Chat);
    talk.echoes = true;
    forty_turns(talk).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forty_turns_in_responses_lose_nothing() {
    forty_turns(working(Tongue::Responses)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forty_turns_in_messages_lose_nothing() {
    forty_turns(working(Tongue::Messages)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_model_never_sees_a_changed_prefix() {
    for tongue in Tongue::ALL {
        let world = strict_world().await;
        let mut talk = Talk::working(tongue, "Be steady.");
        for turn in 0..8 {
            let told =
                json!({ "thinking": format!("Why {turn}."), "say": format!("Answer {turn}.") });
            talk.say("user", &format!("Question {turn}? <<script {told}>>"));
            // Every other turn goes elsewhere, and its answer comes back with the rest.
            talk.ask(&world.client, MODELS[turn % 3]).await;
        }
        for upstream in [&world.fast, &world.deep] {
            for dialect in ["openai_chat", "openai_responses", "anthropic_messages"] {
                let bodies = upstream
                    .bill()
                    .into_iter()
                    .filter(|billed| billed.dialect == dialect);
                let transcripts: Vec<Vec<serde_json::Value>> = bodies
                    .map(|billed| {
                        let body: serde_json::Value = serde_json::from_slice(&billed.body).unwrap();
                        let list = if body["input"].is_array() {
                            &body["input"]
                        } else {
                            &body["messages"]
                        };
                        list.as_array().unwrap().clone()
                    })
                    .collect();
                for pair in transcripts.windows(2) {
                    let same = pair[0]
                        .iter()
                        .zip(&pair[1])
                        .take_while(|(a, b)| a.to_string() == b.to_string());
                    assert_eq!(same.count(), pair[0].len(), "{tongue:?} to {dialect}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_loop_stays_with_the_model_that_began_it() {
    let world = strict_world().await;
    let mut talk = Talk::working(Tongue::Messages, "Work.");
    let told = json!({ "thinking": "First a note.", "call": { "name": "note", "arguments": { "text": "x" } } });
    talk.say("user", &format!("Note it. <<script {told}>>"));
    let (first, _, calls) = talk.ask(&world.client, "deep").await;
    talk.results(&[(calls[0].0.clone(), "noted".to_owned())]);
    let (second, said, _) = talk.ask(&world.client, "auto").await;
    assert_eq!(second.header("x-pareto-route"), "session");
    assert_eq!(
        second.header("x-pareto-model"),
        first.header("x-pareto-model")
    );
    assert_eq!(
        second.header("x-pareto-session"),
        first.header("x-pareto-session")
    );
    assert!(said.contains("noted"));
}
