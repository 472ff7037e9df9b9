//! Proves what the ledger keeps of decisions: sums by day that corrections change, the control group,
//! verdicts of which the last counts.

use std::sync::Arc;

use meter::finance::{Filter, Routed};
use meter::{
    Entry, Feedback, Finance, Held, NanoUsd, Outcome, Position, Record, Routing, VerdictKind,
    Verdicts,
};
use store::SqlLedger;

use crate::{NOW, Subjected, held, on_both, settle};

on_both!(
    decisions_are_summed_by_class_step_and_reason,
    of_several_verdicts_of_one_kind_the_last_counts,
);

fn routed(n: u8, attempt: u16, reason: &str, lost: i64) -> Held {
    Held {
        attempt,
        reason: Arc::from(reason),
        routing: Some(Box::new(Routing {
            class: Arc::from("batch"),
            step: Arc::from("plan"),
            score_ppm: Some(300_000),
            threshold_ppm: Some(400_000),
            propensity_ppm: 992_000,
            lost: NanoUsd(lost),
            ..Routing::default()
        })),
        ..held(n, 10)
    }
}

fn all() -> Filter {
    Filter {
        until_ms: i64::MAX,
        ..Filter::default()
    }
}

fn decisions_are_summed_by_class_step_and_reason(at: &Subjected) {
    let ledger = &at.ledger;
    let group = [
        settle(routed(2, 0, "score", 7), 4),
        settle(routed(2, 1, "escalated", 0), 6),
        settle(routed(4, 0, "control", 0), 5),
        failed(routed(4, 1, "escalated", 0)),
        settle(held(6, 10), 1),
    ];
    for n in 1..4 {
        ledger.apply(&group, Position(n)).expect("applies");
    }
    let rows = ledger.routes(&all()).expect("sums");
    let row = |reason: &str| -> Routed {
        let found = rows.iter().find(|it| it.reason == reason);
        found
            .cloned()
            .unwrap_or_else(|| panic!("{reason}: {rows:?}"))
    };
    let scored = row("score");
    assert_eq!((&*scored.class, &*scored.step), ("batch", "plan"));
    assert_eq!((scored.calls, scored.attempts), (1, 1));
    assert_eq!((scored.cost, scored.lost), (NanoUsd(4), NanoUsd(7)));
    assert_eq!(scored.baseline, NanoUsd(20));
    let escalated = row("escalated");
    assert_eq!((escalated.calls, escalated.attempts), (0, 1));
    let before = row("auto");
    assert_eq!(
        (&*before.class, &*before.step),
        ("", ""),
        "from before decisions were kept"
    );
    let drawn = ledger.drawn(&all(), 10).expect("entries");
    assert_eq!(drawn.len(), 1);
    let Record::Settle(control) = &group[2] else {
        panic!("a settlement");
    };
    assert_eq!(&drawn[0], &**control, "nothing was lost on the way");
    let none = Filter {
        tenant: Some("odd".to_owned()),
        ..all()
    };
    assert_eq!(ledger.routes(&none).expect("sums"), []);
    assert_eq!(
        ledger.drawn(&none, 10).expect("entries"),
        Vec::<Entry>::new()
    );
}

fn failed(held: Held) -> Record {
    let Record::Settle(mut entry) = settle(held, 0) else {
        panic!("a settlement");
    };
    entry.outcome = Outcome::Failed;
    Record::Settle(entry)
}

/// The sums of a ledger from before decisions were kept are those of its entries, so that corrections of
/// them have something to correct.
#[test]
fn an_old_ledger_brings_its_sums_along() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("l.sqlite3");
    let ledger = SqlLedger::open_file(&file).unwrap();
    let group = [
        settle(held(2, 10), 4),
        settle(held(3, 10), 5),
        settle(
            Held {
                attempt: 1,
                ..held(2, 10)
            },
            6,
        ),
    ];
    ledger.apply(&group, Position(1)).expect("applies");
    let before = ledger.routes(&all()).expect("sums");
    assert!(!before.is_empty());
    drop(ledger);
    let old = rusqlite::Connection::open(&file).unwrap();
    old.execute_batch(
        "DROP TABLE rollup_route; DROP TABLE feedback; DROP INDEX usage_event_by_control;
         ALTER TABLE usage_event DROP COLUMN class; ALTER TABLE usage_event DROP COLUMN step;
         ALTER TABLE usage_event DROP COLUMN session; ALTER TABLE usage_event DROP COLUMN packed; ALTER TABLE task DROP COLUMN fast_calls;
         ALTER TABLE task DROP COLUMN fast_nano; ALTER TABLE task DROP COLUMN deep_calls;
         ALTER TABLE task DROP COLUMN deep_nano; UPDATE schema_version SET version = 4;",
    )
    .unwrap();
    drop(old);
    let ledger = SqlLedger::open_file(&file).unwrap();
    assert_eq!(ledger.routes(&all()).expect("sums"), before);
}

fn verdict(n: u8, kind: VerdictKind, good_ppm: u32) -> Feedback {
    let held = routed(n, 0, "score", 0);
    Feedback {
        request: held.request,
        tenant: Arc::clone(&held.subject.tenant),
        kind,
        good_ppm,
        note: "well \u{2014} \"so\"".to_owned(),
        by: Arc::from("k"),
        at_ms: NOW,
        held_at_ms: held.held_at_ms,
        model: Arc::from("m"),
        tier: held.tier,
        first_tier: held.tier,
        reason: Arc::from("score"),
        routing: *held.routing.expect("a decision"),
        cost: NanoUsd(4),
        baseline: NanoUsd(20),
    }
}

fn of_several_verdicts_of_one_kind_the_last_counts(at: &Subjected) {
    let (ledger, other) = (&at.ledger, at.other());
    let first = verdict(2, VerdictKind::Score, 100_000);
    assert!(ledger.add(&first).expect("adds"));
    assert!(!other.add(&first).expect("adds"), "it is there already");
    let second = verdict(2, VerdictKind::Score, 900_000);
    let outcome = verdict(2, VerdictKind::Outcome, 0);
    let odd = verdict(3, VerdictKind::Score, 500_000);
    for feedback in [&second, &outcome, &odd] {
        assert!(other.add(feedback).expect("adds"));
    }
    let between = |tenant| ledger.between(0, i64::MAX, tenant).expect("reads");
    assert_eq!(
        between(None),
        [second.clone(), outcome.clone(), odd.clone()]
    );
    assert_eq!(between(Some("even")), [second.clone(), outcome.clone()]);
    let early = ledger.between(0, odd.held_at_ms, None).expect("reads");
    assert_eq!(early, [second.clone(), outcome.clone()]);
    let all = ledger.after(0, 100).expect("reads");
    let told: Vec<Option<Feedback>> = all.iter().map(|(_, it)| it.clone()).collect();
    // The second of a kind on a call has its number, and is not learned from.
    let learned = [Some(first.clone()), None, Some(outcome), Some(odd)];
    assert_eq!(told, learned);
    let rest = ledger.after(all[1].0, 1).expect("reads");
    assert_eq!(rest, [all[2].clone()]);
    assert!(
        ledger.add(&first).expect("adds"),
        "who said so thinks again"
    );
    let scored = |it: &Feedback| it.kind == VerdictKind::Score;
    let last = between(Some("even")).into_iter().find(scored);
    assert_eq!(last.map(|it| it.good_ppm), Some(first.good_ppm));
    for n in 0..100 {
        let again = verdict(2, VerdictKind::Score, n);
        assert_eq!(ledger.add(&again).expect("adds or not"), n < 13, "{n}");
    }
}
