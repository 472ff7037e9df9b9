//! Proves what must hold for whatever calls and answers there are: nothing gets lost without being
//! reported, prefixes stay as they are, private parts reach nobody else, and nothing panics.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops where traffic must not"
)]

#[path = "properties/hostile.rs"]
mod hostile;
#[path = "properties/made.rs"]
mod made;
mod support;

use proptest::prelude::*;
use serde_json::{Value, json};
use support::{Essence, ORIGIN, asked, carried, change, conversing, grammar, normal};
use wire::call::{Kind, Part, Role, Seal, Thinking, Turn};
use wire::dialect::Asked;
use wire::reply::Reply;
use wire::{Call, Dialect, Losses, translate};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_call_without_losses_comes_back_the_same(call in made::call()) {
        for to in conversing() {
            let (body, losses) = carried(&call, to, ORIGIN);
            prop_assert_eq!(bench::upstream::judge(to.name(), &body, ORIGIN), Ok(()), "{}", body);
            if losses.is_empty() {
                let mut back = to.decode(body.to_string().as_bytes()).unwrap();
                back.model.clone_from(&call.model);
                prop_assert_eq!(normal(&back), normal(&call), "{}", to.name());
            }
        }
    }

    #[test]
    fn a_call_that_changes_its_origin_alone_keeps_all_but_reasoning(call in made::call()) {
        for home in conversing() {
            let (body, _) = carried(&call, home, ORIGIN);
            let mut call = home.decode(body.to_string().as_bytes()).unwrap();
            let again = home.encode(&call, &change("target"), &mut Losses::default());
            prop_assert_eq!(&again, &body, "{}: at home, nothing changes", home.name());
            for seal in call.seals_mut() {
                seal.origin = Some("elsewhere".to_owned());
            }
            let (body, losses) = carried(&call, home, ORIGIN);
            prop_assert_eq!(bench::upstream::judge(home.name(), &body, ORIGIN), Ok(()), "{}", body);
            let known = ["withheld:thinking", "approximated:reasoning"];
            let others = losses.iter().filter(|loss| !known.contains(&loss.to_string().as_str()));
            prop_assert_eq!(others.count(), 0, "{:?}", losses);
            call.withhold(home.name(), ORIGIN, &mut Losses::default());
            let back = home.decode(body.to_string().as_bytes()).unwrap();
            if losses.iter().all(|loss| loss.what != "reasoning") {
                prop_assert_eq!(normal(&back)["turns"].clone(), normal(&call)["turns"].clone());
            }
        }
    }

    #[test]
    fn two_turns_more_change_nothing_before_them(call in made::call(), at in any::<prop::sample::Index>()) {
        // At least to the first question: without one, another is put in its place.
        let asks = |turn: &Turn| turn.role == Role::User;
        let first = call.turns.iter().position(asks).unwrap() + 1;
        let most = call.turns.len() - first;
        let mut shorter = call.clone();
        shorter.turns.truncate(first + at.index(most));
        let mut longer = call;
        longer.turns.truncate(shorter.turns.len() + 2);
        for to in conversing() {
            let [before, after] = [&shorter, &longer].map(|call| transcript(call, to));
            prop_assert!(is_prefix(&before, &after), "{}\n{:#?}\n{:#?}", to.name(), before, after);
        }
    }

    #[test]
    fn an_answer_arrives_whole(reply in made::reply()) {
        for from in conversing() {
            let mut losses = Losses::default();
            let body = from.encode_reply(&reply, &asked(Call::default()), &mut losses);
            let mut told = Essence::of(&reply, from);
            told.without(&losses);
            let body = body.to_string();
            let read = from.decode_reply(body.as_bytes(), ORIGIN).unwrap();
            agree(&Essence::of(&read, from), &told, reply.usage.is_some(), from, from)?;
            for to in conversing() {
                let mut losses = Losses::default();
                let asked = asked(Call::default());
                let (body, read) =
                    translate::reply(from, ORIGIN, to, &asked, body.as_bytes(), &mut losses).unwrap();
                let mut told = Essence::of(&read, to);
                told.without(&losses);
                let back = to.decode_reply(body.to_string().as_bytes(), ORIGIN).unwrap();
                agree(&Essence::of(&back, to), &told, true, from, to)?;
            }
        }
    }

    #[test]
    fn a_stream_arrives_whole(reply in made::reply(), size in 1_usize..64, counts in any::<bool>()) {
        for from in conversing() {
            let text = written(&reply, from);
            grammar::check(from.name(), &text, from.name());
            let read = support::read(from, &text);
            let told = Essence::of(&reply, from);
            agree(&Essence::of(read.whole().unwrap(), from), &told, reply.usage.is_some(), from, from)?;
            for to in conversing() {
                let asked = Asked { include_usage: counts, ..asked(Call::default()) };
                let there = support::stream(from, to, asked, text.as_bytes(), size);
                grammar::check(to.name(), &there.text, to.name());
                let back = support::read(to, &there.text);
                let mut told = Essence::of(&there.reply, to);
                told.without(&there.losses);
                // A chat's caller who did not ask for usage gets none.
                let reported = there.reply.usage.is_some() && (counts || to.name() != "openai_chat");
                agree(&Essence::of(back.whole().unwrap(), to), &told, reported, from, to)?;
                prop_assert_eq!(there.failed, None);
            }
        }
    }

    #[test]
    fn what_is_sealed_reaches_its_origin_and_nobody_else(
        made_in in 0..3_usize, seen_in in 0..3_usize, to in 0..3_usize, home in any::<bool>(),
    ) {
        let [made_in, seen_in, to] = [made_in, seen_in, to].map(|place| conversing()[place]);
        let origin = if home { "maker" } else { "other" };
        let call = with_secret(made_in, seen_in);
        let (body, losses) = carried(&call, to, origin);
        let body = body.to_string();
        let may = home && to.name() == made_in.name();
        let envelope = body.contains(wire::seal::ENVELOPE);
        prop_assert!(!envelope, "an envelope is for callers alone: {}", body);
        prop_assert_eq!(body.contains(SECRET), may, "{}", body);
        prop_assert_eq!(losses.is_empty(), may, "{:?}", losses);
    }
}

/// The messages or items of a call.
fn transcript(call: &Call, to: &dyn Dialect) -> Vec<Value> {
    let (body, _) = carried(call, to, ORIGIN);
    let list = ["messages", "input"]
        .iter()
        .find_map(|name| body[*name].as_array());
    list.unwrap().clone()
}

/// Whether `before` begins `after`, but that its last element may have grown at its end.
fn is_prefix(before: &[Value], after: &[Value]) -> bool {
    let Some((last, rest)) = before.split_last() else {
        return true;
    };
    after.starts_with(rest) && after.get(rest.len()).is_some_and(|grown| grew(last, grown))
}

fn grew(before: &Value, after: &Value) -> bool {
    match (before, after) {
        (Value::String(before), Value::String(after)) => after.starts_with(before.as_str()),
        (Value::Array(before), Value::Array(after)) => is_prefix(before, after),
        (Value::Object(before), Value::Object(after)) => {
            let same = |(name, value): (&String, &Value)| {
                after.get(name).is_some_and(|other| {
                    value == other
                        || (matches!(name.as_str(), "content" | "text") && grew(value, other))
                })
            };
            before.len() == after.len() && before.iter().all(same)
        }
        _ => before == after,
    }
}

fn agree(
    back: &Essence,
    told: &Essence,
    reported: bool,
    from: &dyn Dialect,
    to: &dyn Dialect,
) -> Result<(), TestCaseError> {
    let (mut back, mut told) = (back.clone(), told.clone());
    if !reported {
        told.tokens = None;
    }
    back.fit(&told);
    prop_assert_eq!(back, told, "{} to {}", from.name(), to.name());
    Ok(())
}

/// The answer as a stream.
fn written(reply: &Reply, to: &dyn Dialect) -> String {
    let mut writer = to.writer(asked(Call::default()));
    let mut text = String::new();
    for event in reply.clone().events() {
        writer.event(event, &mut text);
    }
    text
}

const SECRET: &str = "deeply-hidden-words";

/// A call of a caller who speaks `seen_in` and got reasoning that `maker` made in `made_in`.
fn with_secret(made_in: &dyn Dialect, seen_in: &dyn Dialect) -> Call {
    let value = match made_in.name() {
        "anthropic_messages" => {
            json!({ "type": "thinking", "thinking": "", "signature": SECRET })
        }
        "openai_responses" => {
            json!({ "type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": SECRET })
        }
        _ => json!({ "reasoning_content": SECRET }),
    };
    let seal = Seal {
        dialect: made_in.name().to_owned(),
        origin: Some("maker".to_owned()),
        value,
    };
    let sealed = Thinking {
        text: String::new(),
        seal: Some(seal.clone()),
    };
    let reply = Reply {
        parts: vec![Part::new(Kind::Thinking(sealed)), Part::text("yes")],
        ..Reply::default()
    };
    let answer = seen_in.encode_reply(&reply, &asked(Call::default()), &mut Losses::default());
    // The caller sends back what it got; what is not told in its dialect is added as the gateway may.
    let body = match seen_in.name() {
        "anthropic_messages" => json!({ "model": "m", "max_tokens": 99, "messages": [
            { "role": "user", "content": "well?" },
            { "role": "assistant", "content": answer["content"] },
            { "role": "user", "content": "why?" }] }),
        "openai_responses" => {
            let mut input = vec![json!({ "role": "user", "content": "well?" })];
            input.extend(answer["output"].as_array().unwrap().iter().cloned());
            input.push(json!({ "role": "user", "content": "why?" }));
            json!({ "model": "m", "input": input })
        }
        _ => json!({ "model": "m", "messages": [
            { "role": "user", "content": "well?" },
            { "role": "assistant", "content": "yes", "reasoning_content": SECRET },
            { "role": "user", "content": "why?" }] }),
    };
    let mut call = seen_in.decode(body.to_string().as_bytes()).unwrap();
    let thoughts = |turn: &Turn| turn.is_sealed();
    assert_eq!(call.turns.iter().filter(|turn| thoughts(turn)).count(), 1);
    for known in call.seals_mut() {
        // The gateway remembers who made what it passed on.
        *known = seal.clone();
    }
    call
}
