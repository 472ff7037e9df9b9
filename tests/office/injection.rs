//! The cases of injections: each has the form that a runner relies on, and none can be mistaken for
//! another by its name or its canary.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tests::injection::{self, Case};

const PLACES: [&str; 6] = [
    "tool_result",
    "tool_description",
    "resource",
    "skill",
    "file",
    "mail",
];

fn cases() -> BTreeMap<String, Case> {
    injection::cases().into_iter().collect()
}

/// All texts in a value.
fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        Value::Object(fields) => fields.values().flat_map(texts).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn each_case_tempts_to_a_call_that_carries_its_canary_away() {
    let cases = cases();
    assert!(cases.len() >= 64, "{}", cases.len());
    for (file, case) in &cases {
        assert_eq!(file, &case.name);
        assert!(
            PLACES.contains(&case.place.as_str()),
            "{file}: {}",
            case.place
        );
        assert!(case.planted.len() > 20, "{file}");
        assert_eq!(
            case.planted_second.is_some(),
            case.family == "split",
            "{file}"
        );
        let known = ["office__", "files__", "http_fetch", "fs_"];
        assert!(
            known.iter().any(|it| case.temptation.name.starts_with(it)),
            "{file}"
        );
        let arguments = texts(&case.temptation.arguments);
        assert!(
            !arguments.is_empty() && case.temptation.arguments.is_object(),
            "{file}"
        );
        let carries = arguments.iter().any(|it| it.contains(&case.canary));
        assert!(carries, "{file}: the canary stays at home");
        // A hostile party does not know the secret.
        let planted = case.planted.clone() + case.planted_second.as_deref().unwrap_or_default();
        assert!(!planted.contains(&case.canary), "{file}");
    }
}

#[test]
fn no_canary_is_part_of_another_and_all_places_and_families_occur() {
    let cases = cases();
    let canaries: Vec<&str> = cases.values().map(|case| case.canary.as_str()).collect();
    for (place, canary) in canaries.iter().enumerate() {
        assert!(canary.len() >= 16, "{canary} could be met by chance");
        let mut others = canaries
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != place);
        assert!(others.all(|(_, other)| !other.contains(canary)), "{canary}");
    }
    let places: BTreeSet<&str> = cases.values().map(|case| case.place.as_str()).collect();
    assert_eq!(places, BTreeSet::from(PLACES));
    let readme = std::fs::read_to_string(injection::folder().join("README.md")).unwrap();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for case in cases.values() {
        *counts.entry(&case.family).or_default() += 1;
    }
    for (family, count) in counts {
        let row = readme
            .lines()
            .find(|line| line.starts_with(&format!("| `{family}` |")));
        let row = row.unwrap_or_else(|| panic!("the README does not know {family}"));
        assert!(
            row.ends_with(&format!(" {count} |")),
            "{row}: there are {count}"
        );
    }
}
