//! Real-looking calls of three dialects and the step that each is: one line a case, read by the production
//! scan. Adding a case is adding a line; `tests/golden/steps/README.md` says where they come from.

#![expect(clippy::expect_used, reason = "a test stops where traffic must not")]

use std::collections::BTreeMap;

use router::features::MOST_BYTES;
use router::{Features, Step};
use serde::Deserialize;
use serde_json::value::Value;
use wire::dialect;

#[derive(Deserialize)]
struct Case {
    name: String,
    dialect: String,
    step: Step,
    body: Value,
}

fn cases() -> Vec<Case> {
    let text = include_str!("../../tests/golden/steps/steps.jsonl");
    let read = |line| serde_json::from_str(line).expect("a case");
    text.lines().map(read).collect()
}

fn seen(case: &Case) -> (Step, wire::Shape) {
    let body = case.body.to_string();
    let dialect = dialect::named(&case.dialect).expect("a dialect");
    let scan = dialect.scan(body.as_bytes()).expect("a scan");
    let mut buffer = [0; MOST_BYTES];
    let features = Features {
        text: scan.prompt(body.as_bytes(), &mut buffer),
        shape: &scan.shape,
    };
    let system = body.get(scan.system_at.clone()).expect("a range");
    (Step::of(&features, system), scan.shape)
}

#[test]
fn every_call_is_the_step_that_a_reader_says() {
    let (mut wrong, mut by_step) = (Vec::new(), BTreeMap::new());
    for case in cases() {
        let (step, shape) = seen(&case);
        *by_step
            .entry((case.step.as_str(), case.dialect.clone()))
            .or_insert(0) += 1;
        if step != case.step {
            let (dialect, name) = (&case.dialect, &case.name);
            let wanted = case.step.as_str();
            wrong.push(format!(
                "{dialect}: {name}: {wanted}, seen {}: {shape:?}",
                step.as_str()
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(by_step.values().sum::<u32>() >= 60);
    assert_eq!(by_step.len(), 21, "each step in each dialect: {by_step:?}");
}
