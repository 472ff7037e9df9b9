//! Proves that usage is read and rated to the nano-dollar: a folder in `golden/usage` has an upstream's
//! answer as the vendor writes it, whole or streamed, and what it must come to, reckoned apart from the
//! product. Adding a case is adding a folder.

use std::path::Path;

use bytes::Bytes;
use meter::PriceBook;
use meter::price::STANDARD;
use serde_json::{Value, json};
use wire::dialect;
use wire::sse::Splitter;

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key]
        .as_str()
        .unwrap_or_else(|| panic!("`{key}` is missing"))
}

fn ms(at: &str) -> i64 {
    at.parse::<jiff::Timestamp>().unwrap().as_millisecond()
}

/// The usage that the answer in `folder` reports, as its dialect's readers see it.
fn reported(folder: &Path, dialect: &dyn wire::Dialect) -> wire::Usage {
    if let Ok(reply) = std::fs::read(folder.join("reply.json")) {
        return dialect.usage(&reply).expect("usage in the reply");
    }
    let stream = std::fs::read(folder.join("stream.sse")).unwrap();
    let (mut splitter, mut watch) = (Splitter::default(), dialect.watch());
    // In small pieces, as a network would.
    for piece in stream.chunks(97) {
        splitter.push(Bytes::copy_from_slice(piece)).unwrap();
        while let Some(event) = splitter.next_event() {
            watch.event(&event);
        }
    }
    let facts = watch.facts();
    assert!(facts.finished, "the stream has its end");
    facts.usage.expect("usage in the stream")
}

/// The classes that are not zero.
fn classes(usage: wire::Usage) -> Value {
    let Value::Object(mut classes) = json!(usage) else {
        panic!("an object")
    };
    classes.retain(|_, count| *count != json!(0));
    Value::Object(classes)
}

/// The differences between what the case expects and what comes out.
fn check(folder: &Path, book: &PriceBook) -> Vec<String> {
    let expected = std::fs::read_to_string(folder.join("expected.json")).unwrap();
    let expected: Value = serde_json::from_str(&expected).unwrap();
    let usage = reported(folder, dialect::named(text(&expected, "dialect")).unwrap());
    let (lane, region) = (expected["lane"].as_str(), expected["region"].as_str());
    let rates = book
        .rates_in(
            text(&expected, "price"),
            lane.unwrap_or(STANDARD),
            region,
            ms(text(&expected, "held")),
        )
        .unwrap();
    let completed_ms = ms(text(&expected, "completed"));
    let rated = rates.rate(&usage, completed_ms);
    let bound =
        rates.bound(usage.prompt(), usage.answer()) + rates.bound_searches(usage.web_searches);
    assert!(rated.cost <= bound, "the bound holds");
    assert_eq!(book.by_id(&rates.id).as_ref(), Some(&rates));
    let pairs = [
        ("usage", classes(usage)),
        ("price_id", json!(*rates.id)),
        ("cost_nano_usd", json!(rated.cost)),
    ];
    let name = folder.file_name().unwrap().display();
    let wrong = pairs
        .into_iter()
        .filter(|(key, found)| expected[key] != *found);
    wrong
        .map(|(key, found)| format!("{name}: {key} is {found}, not {}", expected[key]))
        .collect()
}

#[test]
fn every_vendors_usage_is_rated_to_the_nano_dollar() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let prices = std::fs::read_to_string(root.join("../config/prices.json")).unwrap();
    let book = PriceBook::read(&prices).unwrap();
    let entries = std::fs::read_dir(root.join("golden/usage")).unwrap();
    let mut folders: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert!(folders.len() >= 60, "{} cases", folders.len());
    let wrong: Vec<String> = folders
        .iter()
        .flat_map(|folder| check(folder, &book))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
