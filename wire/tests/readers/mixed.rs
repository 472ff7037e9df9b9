//! Proves that blocks and items may be mixed in any way: each is said once, and calls keep their
//! arguments.

use proptest::prelude::*;
use serde_json::Value;
use wire::Dialect;
use wire::dialect::{ANTHROPIC_MESSAGES, OPENAI_RESPONSES};

use crate::messages::{input, messages, says, stop, text, tool};
use crate::responses::{added, done, piece, responses, uncounted};
use crate::{parts, streamed};

/// The pieces of an item: of a call's arguments, or of a text that tells where each belongs.
fn pieces_of(place: usize, is_call: bool, count: usize) -> Vec<String> {
    let last = count - 1;
    let piece = |number| match number {
        _ if !is_call => format!("<{place}.{number}>"),
        0 if last == 0 => format!("{{\"a\":{place}}}"),
        0 => "{\"a\":[0".to_owned(),
        number if number == last => format!(",{number}],\"b\":{place}}}"),
        number => format!(",{number}"),
    };
    (0..count).map(piece).collect()
}

/// The events of such an item.
fn events_of(from: &dyn Dialect, place: usize, is_call: bool, pieces: &[String]) -> Vec<Value> {
    let index = u64::try_from(place).unwrap();
    let id = format!("{}{place}", if is_call { "f" } else { "m" });
    let more = |said: &String| match (from.name(), is_call) {
        ("openai_responses", _) => piece(index, &id, said),
        (_, true) => input(index, said),
        (_, false) => says(index, said),
    };
    let (first, last) = match (from.name(), is_call) {
        ("openai_responses", _) => (added(index, &id), done(index, &id, &pieces.concat())),
        (_, true) => (tool(index, &id), stop(index)),
        (_, false) => (text(index), stop(index)),
    };
    let mut events = vec![first];
    events.extend(pieces.iter().map(more));
    events.push(last);
    events
}

/// The events of all rows, each row in its order.
fn mixed(mut rows: Vec<Vec<Value>>, order: &[prop::sample::Index]) -> Vec<Value> {
    let mut events = Vec::new();
    for pick in order {
        rows.retain(|row| !row.is_empty());
        if !rows.is_empty() {
            let row = pick.index(rows.len());
            events.push(rows[row].remove(0));
        }
    }
    events
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn however_items_are_mixed_each_is_said_once(
        items in prop::collection::vec((any::<bool>(), 1..4_usize), 1..6),
        order in prop::collection::vec(any::<prop::sample::Index>(), 30),
        counts in any::<bool>(),
    ) {
        let items = items.into_iter().enumerate();
        let items = items.map(|(place, (is_call, count))| (is_call, pieces_of(place, is_call, count)));
        let items: Vec<(bool, Vec<String>)> = items.collect();
        for from in [ANTHROPIC_MESSAGES, OPENAI_RESPONSES] {
            let row = |(place, (is_call, pieces)): (usize, &(bool, Vec<String>))| {
                events_of(from, place, *is_call, pieces)
            };
            let events = mixed(items.iter().enumerate().map(row).collect(), &order);
            let events = match from.name() {
                "openai_responses" if counts => responses(&events),
                "openai_responses" => responses(&uncounted(&events)),
                _ if items.iter().any(|(is_call, _)| *is_call) => messages(&events, "tool_use"),
                _ => messages(&events, "end_turn"),
            };
            let told = parts(&streamed(from, &events));
            let (calls, texts): (Vec<_>, Vec<_>) = told.iter().partition(|part| part.starts_with('f'));
            let said: String = texts.into_iter().map(String::as_str).collect();
            let mut wanted = 0;
            for (place, (is_call, pieces)) in items.iter().enumerate() {
                if *is_call {
                    wanted += 1;
                    prop_assert!(calls.contains(&&format!("f{place}({})", pieces.concat())), "{:?}", told);
                } else {
                    let begin = format!("<{place}.");
                    let own = said.split_inclusive('>').filter(|it| it.starts_with(&begin));
                    prop_assert_eq!(own.collect::<String>(), pieces.concat(), "{:?}", told);
                }
            }
            prop_assert_eq!(calls.len(), wanted, "{:?}", told);
        }
    }
}
