//! Proves that imports are exact and that they add facts without changing any.

use serde_json::json;

use super::*;
use crate::PriceBook;
use crate::price::diff::{ReplayRow, diff, replay};

const BOOK: &str = r#"{"format":"pricebook/1","as_of":"2026-11-21","models":[
 {"id":"openai/gpt-x","provider":"openai","check":"agree","rates":[
  {"from":"2026-01-01T00:00:00Z","lanes":{"standard":{"input":"1.250","output":"10","cache_read":"0.125"},
   "flex":{"input":"0.625","output":"5"}}}]},
 {"id":"google/gem","provider":"google","check":"agree","rates":[
  {"from":null,"lanes":{"standard":{"input":"0.3","output":"2.5"}}}]}]}"#;

/// Written after the shape of LiteLLM's map.
const LITELLM: &str = r#"{
 "sample_spec":{"input_cost_per_token":0.0,"output_cost_per_token":0.0,"litellm_provider":"openai","mode":"chat"},
 "gpt-x":{"litellm_provider":"openai","mode":"chat","max_input_tokens":272000,"max_output_tokens":128000,
  "input_cost_per_token":1.25e-06,"output_cost_per_token":1e-05,"cache_read_input_token_cost":1.25e-07,
  "input_cost_per_token_flex":6.25e-07,"output_cost_per_token_flex":5e-06,"supports_vision":true},
 "gemini/gem":{"litellm_provider":"gemini","mode":"chat","input_cost_per_token":2.5e-07,"output_cost_per_token":0.0000025,
  "input_cost_per_token_above_200k_tokens":5e-07,"output_cost_per_token_above_200k_tokens":3.75e-06},
 "gemini/new":{"litellm_provider":"gemini","mode":"chat","input_cost_per_token":1e-09,"output_cost_per_token":2},
 "gemini/embed":{"litellm_provider":"gemini","mode":"embedding","input_cost_per_token":1e-07,"output_cost_per_token":0}}"#;

const FROM: &str = "2026-12-01T00:00:00Z";

fn document() -> Document {
    Document::read(BOOK).expect("a sound book")
}

#[test]
fn decimals_are_moved_and_never_computed() {
    for (figure, shift, expected) in [
        (json!(1.25e-06), 6, Some("1.25")),
        (json!(1e-05), 6, Some("10")),
        (json!(0.000_000_3), 6, Some("0.3")),
        (json!(2.5e-09), 6, Some("0.0025")),
        (json!(0.1), 0, Some("0.1")),
        (json!(3), 0, Some("3")),
        (json!(0), 6, Some("0")),
        (json!("1e-7"), 6, Some("0.1")),
        (json!(1.5e-13), 6, None),
        (json!(-1), 0, None),
        (json!(null), 0, None),
        (json!("x"), 0, None),
    ] {
        assert_eq!(decimal(&figure, shift).as_deref(), expected, "{figure}");
    }
}

#[test]
fn what_differs_becomes_a_new_period() {
    let (merged, changed) =
        merge(&document(), LITELLM, Source::LiteLlm, FROM, false).expect("sound");
    assert_eq!(
        changed,
        ["google/gem"],
        "equal prices change nothing, unknown offers are left"
    );
    let (old, new) = (document(), merged.clone());
    assert_eq!(old.models[0], new.models[0]);
    let [before, after] = &new.models[1].rates[..] else {
        panic!("two periods")
    };
    assert_eq!(
        (before.to.as_deref(), after.from.as_deref()),
        (Some(FROM), Some(FROM))
    );
    assert_eq!(before.lanes, old.models[1].rates[0].lanes, "facts stay");
    assert_eq!(after.lanes[STANDARD]["input"], "0.25");
    assert_eq!(after.tiers[0].above_input_tokens, 200_000);
    let books = [old, new].map(|document| PriceBook::of(&document).expect("sound"));
    let changes = diff(&books[0], &books[1]);
    let told: Vec<_> = changes
        .iter()
        .map(|it| {
            (
                it.place.as_str(),
                it.what.as_str(),
                it.old.as_str(),
                it.new.as_str(),
            )
        })
        .filter(|it| !it.0.contains("above"))
        .collect();
    let place = "standard, from 2026-12-01T00:00:00Z";
    let input = |what| (place, what, "0.3", "0.25");
    assert_eq!(
        told,
        [
            "audio_input",
            "cache_read",
            "cache_write_1h",
            "cache_write_5m",
            "input"
        ]
        .map(input)
    );
    assert!(diff(&books[1], &books[1]).is_empty());
    // The same again says nothing new; an earlier moment would change facts.
    let again = merge(
        &merged,
        LITELLM,
        Source::LiteLlm,
        "2026-12-02T00:00:00Z",
        false,
    );
    assert_eq!(again.expect("sound").1, [""; 0]);
    let dearer = LITELLM.replace("2.5e-07", "4e-07");
    let earlier = merge(
        &merged,
        &dearer,
        Source::LiteLlm,
        "2026-11-01T00:00:00Z",
        false,
    );
    assert!(matches!(earlier, Err(ImportError::Newer(..))));
}

#[test]
fn new_offers_come_in_where_they_are_wanted() {
    let (merged, changed) =
        merge(&document(), LITELLM, Source::LiteLlm, FROM, true).expect("sound");
    assert_eq!(changed, ["google/gem", "google/new"]);
    let added = merged
        .models
        .iter()
        .find(|model| model.id == "google/new")
        .expect("added");
    assert_eq!(added.rates[0].lanes[STANDARD]["input"], "0.001");
    assert_eq!(
        (added.check.as_str(), added.provider.as_str()),
        ("one_source", "google")
    );
    assert!(PriceBook::of(&merged).is_ok());
}

#[test]
fn other_lists_are_read_in_their_own_units() {
    let list = r#"{"google":{"name":"Google","models":{"gem":{"cost":{"input":0.3,"output":2.75,"cache_read":0.03},
        "limit":{"context":1048576,"output":65536}}}}}"#;
    let (merged, changed) =
        merge(&document(), list, Source::ModelsDev, FROM, false).expect("sound");
    assert_eq!(changed, ["google/gem"]);
    assert_eq!(merged.models[1].rates[1].lanes[STANDARD]["output"], "2.75");
    let other = BOOK.replace("\"2.5\"", "\"3\"");
    let (merged, changed) =
        merge(&document(), &other, Source::PriceBook, FROM, false).expect("sound");
    assert_eq!(changed, ["google/gem"]);
    assert_eq!(merged.models[1].rates[1].lanes[STANDARD]["output"], "3");
    for wrong in ["[]", "{", "3"] {
        assert!(merge(&document(), wrong, Source::LiteLlm, FROM, false).is_err());
    }
}

#[test]
fn replays_tell_what_a_change_would_have_cost() {
    let dearer = BOOK.replace("\"2.5\"", "\"5\"");
    let [old, new] = [BOOK, &dearer].map(|text| PriceBook::read(text).expect("sound"));
    let row = |model: &str, price: &str, output| ReplayRow {
        model: model.into(),
        price: price.into(),
        lane: String::new(),
        day_ms: 1_795_000_000_000,
        usage: wire::Usage {
            output,
            ..wire::Usage::default()
        },
        cost: crate::NanoUsd(7),
    };
    let rows = [
        row("gem", "google/gem@always", 1_000),
        row("gem", "google/gem", 1_000),
        row("x", "openai/gpt-x", 10),
        row("odd", "nobody/knows", 10),
    ];
    let replayed = replay(&rows, &old, &new);
    let told: Vec<_> = replayed
        .iter()
        .map(|it| {
            (
                it.model.as_str(),
                it.recorded.0,
                it.old.0,
                it.delta().0,
                it.unpriced.as_str(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("gem", 14, 5_000_000, 5_000_000, ""),
            ("odd", 7, 0, 0, "unknown"),
            ("x", 7, 100_000, 0, "")
        ]
    );
}
