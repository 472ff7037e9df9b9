//! Proves the rules of the port itself: settlement any number of times in any order and on any node,
//! rollups, keys, state.

use meter::ledger::{Dimension, KeyRow, UsageQuery};
use meter::{Ledger, Past, Position, Record};

use crate::{NOW, Subjected, held, on_both, settle};

on_both!(
    a_settlement_delivered_many_times_in_any_order_is_one_row,
    usage_is_grouped_and_bounded_as_asked,
    keys_and_state_are_kept_and_seen_by_others,
);

fn a_settlement_delivered_many_times_in_any_order_is_one_row(at: &Subjected) {
    let ledger = &at.ledger;
    let hold = |n| Record::Hold(Box::new(held(n, 10)));
    let done = |n| settle(held(n, 10), 4);
    let groups = [
        vec![done(1), hold(1), hold(2)],
        vec![hold(2), done(1), done(1)],
        vec![done(2), hold(3), hold(2), done(1)],
    ];
    for (n, group) in (1..).zip(&groups) {
        let by = if n == 2 { &at.other() } else { ledger };
        by.apply(group, Position(n)).expect("applies");
    }
    assert_eq!(ledger.cursor().expect("answers"), Position(3));
    let open: Vec<_> = ledger
        .open_holds()
        .expect("answers")
        .iter()
        .map(|h| h.request)
        .collect();
    assert_eq!(open, [held(3, 10).request]);
    let (entries, _) = ledger.call(held(1, 10).request).expect("answers");
    assert_eq!(entries.len(), 1);
    assert_eq!(
        Record::Settle(Box::new(entries[0].clone())),
        done(1),
        "nothing was lost on the way"
    );
    assert_eq!(ledger.latest(9).expect("answers").len(), 2);
    let spent = ledger.spent(0).expect("answers");
    assert_eq!(spent.iter().map(|s| s.cost.0).sum::<i64>(), 8);
    let later = ledger
        .spent(NOW + 2 * 3_600_000 - NOW.rem_euclid(3_600_000))
        .expect("answers");
    assert_eq!(
        later.len(),
        1,
        "the call belongs to the hour in which it was held"
    );
}

fn usage_is_grouped_and_bounded_as_asked(at: &Subjected) {
    let ledger = &at.ledger;
    let all: Vec<_> = (0..50).map(|n| settle(held(n, 10), 4)).collect();
    ledger.apply(&all, Position(1)).expect("applies");
    let query = UsageQuery {
        by: vec![Dimension::Tenant, Dimension::Tier],
        ..UsageQuery::default()
    };
    let rows = ledger.usage(&query).expect("answers");
    let groups: Vec<_> = rows
        .iter()
        .map(|row| (row.group.join("/"), row.calls))
        .collect();
    assert_eq!(
        groups,
        [("even/fast".to_owned(), 25), ("odd/fast".to_owned(), 25)]
    );
    let one = UsageQuery {
        tenant: Some("odd".into()),
        from_ms: Some(NOW + 36_000_000),
        ..UsageQuery::default()
    };
    assert_eq!(ledger.usage(&one).expect("answers")[0].calls, 20);
    let none = UsageQuery {
        tenant: Some("nobody".into()),
        ..UsageQuery::default()
    };
    assert!(ledger.usage(&none).expect("answers").is_empty());
}

fn keys_and_state_are_kept_and_seen_by_others(at: &Subjected) {
    let (ledger, other) = (&at.ledger, at.other());
    let version = ledger.version().expect("answers");
    let key = KeyRow {
        id: "id".into(),
        hmac: [9; 32],
        tenant: "acme".into(),
        team: String::new(),
        project: String::new(),
        label: "laptop".into(),
        created_at_ms: NOW,
        revoked_at_ms: None,
    };
    other.add_key(&key).expect("adds");
    assert_ne!(
        ledger.version().expect("answers"),
        version,
        "the change is seen"
    );
    assert_eq!(ledger.keys().expect("answers"), std::slice::from_ref(&key));
    assert!(other.revoke_key("id", 5).expect("answers"));
    assert!(!other.revoke_key("id", 6).expect("answers"), "once");
    assert_eq!(ledger.keys().expect("answers")[0].revoked_at_ms, Some(5));
    ledger
        .save_state(&[("a".into(), "1".into())])
        .expect("saves");
    ledger
        .save_state(&[("a".into(), "2".into()), ("b".into(), "3".into())])
        .expect("saves");
    let mut state = ledger.state().expect("answers");
    state.sort();
    assert_eq!(state, [("a".into(), "2".into()), ("b".into(), "3".into())]);
}
