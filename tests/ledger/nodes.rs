//! Proves what nodes that share a ledger rely on: any delivery of settlements gives the same sums, slices
//! together never pass a limit, a node that died gives back what it did not spend, and nothing is told
//! twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use meter::lease::Want;
use meter::ledger::{Dimension, Known, Tell, UsageQuery};
use meter::{Charge, Ledger, NanoUsd, Override, Past, Position, Record};

use crate::{NOW, Subjected, held, on_both, settle};

on_both!(
    settlements_in_any_number_order_and_node_give_the_same_sums,
    slices_of_two_nodes_never_pass_the_limit_and_come_back,
    a_dead_node_is_retired_and_its_holds_are_charged,
    windows_alarms_changes_and_decisions_are_kept_once,
    calls_of_two_months_are_in_one_ledger,
);

fn charged(n: u8, bound: i64, cost: i64) -> [Record; 2] {
    let mut held = held(n, bound);
    held.charges = vec![Charge {
        budget: Arc::from("odd/total"),
        start_ms: 0,
    }];
    held.subject.task = Arc::from(format!("task-{}", n % 4));
    held.subject.workflow = Arc::from("review");
    [Record::Hold(Box::new(held.clone())), settle(held, cost)]
}

/// Every projection of the ledger, as text.
fn projections(ledger: &dyn Ledger) -> Vec<String> {
    let by = |by: Vec<Dimension>| {
        let query = UsageQuery {
            by,
            ..UsageQuery::default()
        };
        format!("{:?}", ledger.usage(&query).unwrap())
    };
    let windows: BTreeMap<_, i64> =
        ledger
            .windows(0)
            .unwrap()
            .into_iter()
            .fold(BTreeMap::new(), |mut sums, it| {
                *sums.entry((it.budget, it.start_ms)).or_default() += it.settled;
                sums
            });
    vec![
        by(vec![Dimension::Tenant, Dimension::Day]),
        by(vec![Dimension::Hour, Dimension::Workflow, Dimension::Lane]),
        by(vec![Dimension::User, Dimension::Price]),
        format!("{windows:?}"),
        format!(
            "{:?}",
            ledger
                .spent(0)
                .unwrap()
                .iter()
                .map(|it| it.cost.0)
                .sum::<i64>()
        ),
    ]
}

fn settlements_in_any_number_order_and_node_give_the_same_sums(at: &Subjected) {
    let (one, two) = (&at.ledger, at.other());
    let records: Vec<Record> = (1..=40)
        .flat_map(|n| charged(n, 100, i64::from(n)))
        .collect();
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    // Each is delivered one to five times, in groups of any size, by either node, in any order.
    let mut deliveries: Vec<&Record> = records
        .iter()
        .flat_map(|record| std::iter::repeat_n(record, 1 + random(5)))
        .collect();
    for place in (1..deliveries.len()).rev() {
        deliveries.swap(place, random(place + 1));
    }
    let mut position = 0;
    while !deliveries.is_empty() {
        let group: Vec<Record> = deliveries
            .split_off(deliveries.len().saturating_sub(1 + random(9)))
            .into_iter()
            .cloned()
            .collect();
        position += 1;
        let by: &store::SqlLedger = if random(2) == 0 { one } else { &two };
        by.apply(&group, Position(position)).unwrap();
    }
    let plain = Subjected::sqlite();
    plain.ledger.apply(&records, Position(1)).unwrap();
    assert_eq!(projections(one), projections(&plain.ledger));
    assert_eq!(one.latest(1_000).unwrap().len(), 40);
    assert!(one.open_holds().unwrap().is_empty());
    assert!(two.open_holds().unwrap().is_empty());
}

fn want(limit: i64, taken: i64, wish: i64, need: i64) -> Want {
    Want {
        budget: Arc::from("odd/total"),
        tenant: Arc::from("odd"),
        start_ms: 0,
        from_ms: 0,
        limit,
        floor: taken,
        wish: taken + wish,
        need: taken + need,
    }
}

fn slices_of_two_nodes_never_pass_the_limit_and_come_back(at: &Subjected) {
    let two = at.other();
    let shared = two.node() != at.ledger.node();
    let ask = |ledger: &store::SqlLedger, want: Want| {
        let leased = ledger.lease(&[want], NOW).unwrap();
        assert_eq!(
            leased.now_ms.is_some(),
            shared,
            "the server's clock is everybody's"
        );
        leased.grants[0].clone()
    };
    let first = ask(&at.ledger, want(1_000, 0, 10_000, 0));
    assert!(
        (1..=500).contains(&first.granted),
        "a share, not all: {first:?}"
    );
    if !shared {
        return;
    }
    let second = ask(&two, want(1_000, 0, 10_000, 0));
    assert!(
        first.granted + second.granted <= 1_000,
        "{first:?} {second:?}"
    );
    assert_eq!(second.others, first.granted);
    // The second needs more than is left: it is not given half of it, and the first hears of it.
    let needed = ask(&two, want(1_000, second.granted, 0, 900));
    assert_eq!(needed.granted, second.granted);
    let told = ask(&at.ledger, want(1_000, 10, 500, 0));
    assert!(told.others_wait);
    assert_eq!(told.granted, 10, "what it has not taken goes back at once");
    let at_last = ask(&two, want(1_000, second.granted, 0, 700));
    assert_eq!(at_last.granted, second.granted + 700);
    // A limit that was lowered takes nothing away that was taken.
    let lowered = ask(&two, want(100, 300, 0, 0));
    assert_eq!(lowered.granted, 300);
    let none = ask(&at.ledger, want(100, 10, 0, 5));
    assert_eq!(none.granted, 10, "and gives nothing more");
}

fn a_dead_node_is_retired_and_its_holds_are_charged(at: &Subjected) {
    let (one, two) = (&at.ledger, at.other());
    if two.node() == one.node() {
        return;
    }
    let [hold, _] = charged(7, 60, 5);
    two.apply(&[hold], Position(1)).unwrap();
    let granted = two
        .lease(&[want(1_000, 60, 10_000, 0)], NOW)
        .unwrap()
        .grants[0]
        .granted;
    assert!(granted > 60);
    assert!(!one.retire("two", NOW).unwrap(), "its lease has not ended");
    at.end_lease("two");
    assert!(one.retire("two", NOW).unwrap());
    assert!(two.open_holds().unwrap().is_empty());
    let spent: i64 = one.spent(0).unwrap().iter().map(|it| it.cost.0).sum();
    assert_eq!(spent, 60, "its open hold is charged at its bound");
    let all = one.lease(&[want(1_000, 0, 0, 940)], NOW).unwrap().grants[0].granted;
    assert_eq!(all, 940, "all but that is free");
    let refused = two.lease(&[want(1_000, 0, 0, 1)], NOW).unwrap_err();
    assert!(refused.to_string().contains("retired"), "{refused}");
    let back = at.other();
    assert!(
        back.lease(&[want(1_000, 60, 0, 0)], NOW).is_ok(),
        "a restart makes it live again"
    );
    let nodes = one.nodes().unwrap();
    let states: Vec<_> = nodes
        .iter()
        .map(|it| (it.name.as_str(), it.state.as_str()))
        .collect();
    assert_eq!(states, [("one", "live"), ("two", "live")]);
}

fn windows_alarms_changes_and_decisions_are_kept_once(at: &Subjected) {
    let ledger = &at.ledger;
    let begun = Known {
        budget: Arc::from("even/month"),
        start_ms: NOW,
        node: Arc::from(""),
        tenant: Arc::from("even"),
        granted: 0,
        settled: 12,
    };
    let later = Known {
        settled: 99,
        ..begun.clone()
    };
    ledger.begin_windows(std::slice::from_ref(&begun)).unwrap();
    ledger.begin_windows(&[later]).unwrap();
    assert_eq!(
        ledger.windows(NOW).unwrap(),
        std::slice::from_ref(&begun),
        "the first stays"
    );
    let minute = Known {
        budget: Arc::from("even/requests/minute"),
        ..begun.clone()
    };
    ledger.begin_windows(&[minute]).unwrap();
    assert_eq!(ledger.forget_minutes(NOW + 1).unwrap(), 1);
    assert_eq!(
        ledger.windows(NOW).unwrap(),
        [begun],
        "minutes are forgotten, months are not"
    );
    let tell = Tell {
        id: "budget.threshold/even/month/1/50".into(),
        topic: "budget.threshold".into(),
        payload: "{}".into(),
        at_ms: NOW,
    };
    assert_eq!(ledger.tell(std::slice::from_ref(&tell)).unwrap(), 1);
    assert_eq!(
        at.other().tell(&[tell]).unwrap(),
        0,
        "told once, by whichever node"
    );
    let before = ledger.version().unwrap();
    let change = Override {
        id: "a".into(),
        budget: "even/month".into(),
        amount: NanoUsd::from_usd("200").unwrap().0,
        from_ms: NOW,
        until_ms: NOW + 1,
        author: "kim".into(),
        reason: "launch".into(),
        created_at_ms: NOW,
    };
    ledger.add_override(&change).unwrap();
    assert_eq!(at.other().overrides().unwrap(), [change]);
    assert_ne!(ledger.version().unwrap(), before, "others are told to look");
    assert_eq!(ledger.latest_ms().unwrap(), 0);
}

fn calls_of_two_months_are_in_one_ledger(at: &Subjected) {
    let (mut late, mut early) = (held(1, 10), held(2, 10));
    let month = 31 * 86_400_000;
    for (held, at_ms) in [(&mut late, NOW + month), (&mut early, NOW)] {
        held.held_at_ms = at_ms;
        held.request = wire::RequestId::new(u64::try_from(at_ms).unwrap(), [9; 10]);
    }
    let records = [settle(late.clone(), 4), settle(early.clone(), 3)];
    at.ledger.apply(&records, Position(1)).unwrap();
    at.other().apply(&records, Position(1)).unwrap();
    let spent: i64 = at
        .ledger
        .spent(NOW)
        .unwrap()
        .iter()
        .map(|it| it.cost.0)
        .sum();
    assert_eq!(spent, 7);
    for held in [late, early] {
        assert_eq!(at.ledger.call(held.request).unwrap().0.len(), 1);
    }
    // What was spent from within an hour on comes from the entries, to the millisecond.
    let after: i64 = at
        .ledger
        .spent(NOW + 1)
        .unwrap()
        .iter()
        .map(|it| it.cost.0)
        .sum();
    assert_eq!(after, 4);
}
