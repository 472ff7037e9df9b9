//! The books' port: corrections follow into every projection once, bills make entries equal, statements
//! close once and add up, and what became known later comes as a note.

use meter::books::bill::{self, BillDay, BillRow, Imported};
use meter::books::change::Change;
use meter::books::statement::{Grant, LineKind, Month};
use meter::books::{Balance, Books, Correction, Kind, Span};
use meter::ledger::{Dimension, UsageQuery};
use meter::{Entry, Held, Ledger, NanoUsd, Past, Position, Record};
use wire::UsageSource;

use crate::{NOW, Subjected, held, on_both, settle};

on_both!(
    a_correction_counts_once_wherever_it_is_delivered,
    corrections_follow_into_rollups_windows_and_tasks,
    late_usage_of_an_unknown_call_is_an_entry,
    a_bill_by_request_makes_every_row_equal,
    differences_by_day_have_a_cause_and_go_to_suspense,
    statements_close_once_and_add_up,
    corrections_after_the_close_come_as_notes,
    estimates_wait_in_suspense_until_confirmed,
    credits_are_used_in_their_order,
    the_outbox_is_claimed_once_and_tried_again,
    rows_are_exported_in_pages,
    tasks_are_summed_by_tier_and_told_how_they_ended,
);

const DAY_MS: i64 = 86_400_000;

fn november() -> Month {
    "2026-11".parse().unwrap()
}

fn everything() -> Span {
    Span {
        until_ms: i64::MAX,
        ..Span::default()
    }
}

fn correction(held: &Held, id: &str, kind: Kind, cost: i64) -> Correction {
    Correction {
        id: id.to_owned(),
        kind,
        rev: 0,
        request: held.request,
        attempt: held.attempt,
        author: "ann".into(),
        reason: "because".into(),
        reference: "ticket 1".into(),
        at_ms: NOW + 10 * DAY_MS,
        change: Change {
            counts: [1, 0, 0, 0, 2, 0, 0, 0, 0],
            cost: NanoUsd(cost),
            list: NanoUsd(cost),
            sell: NanoUsd(cost),
            ..Change::default()
        },
        price: String::new(),
        book: String::new(),
        source: None,
        held: None,
    }
}

fn put(books: &dyn Books, corrections: &[Correction]) -> usize {
    let keys: Vec<_> = corrections.iter().map(|c| (c.request, c.attempt)).collect();
    books
        .adjust(&keys, &|_: &[Balance], _: &[Held]| corrections.to_vec())
        .unwrap()
}

fn total(ledger: &dyn Ledger) -> i64 {
    let rows = ledger.usage(&UsageQuery {
        by: vec![Dimension::Tenant],
        ..UsageQuery::default()
    });
    rows.unwrap().iter().map(|row| row.cost.0).sum()
}

fn apply(subjected: &Subjected, records: &[Record]) {
    subjected.ledger.apply(records, Position(1)).unwrap();
}

fn none(_: &str, _: u64) -> Option<[i64; 9]> {
    None
}

fn close(subjected: &Subjected, tenant: &str, month: &str) -> meter::books::statement::Statement {
    let month: Month = month.parse().unwrap();
    let at = NOW + 40 * DAY_MS;
    subjected.ledger.close(tenant, month, at, &none).unwrap()
}

fn a_correction_counts_once_wherever_it_is_delivered(subjected: &Subjected) {
    apply(subjected, &[settle(held(2, 500), 100)]);
    let one = correction(&held(2, 500), "c1", Kind::Correct, 40);
    assert_eq!(put(&subjected.ledger, std::slice::from_ref(&one)), 1);
    let other = subjected.other();
    for _ in 0..3 {
        assert_eq!(put(&other, &[one.clone(), one.clone()]), 0);
    }
    let two = correction(&held(2, 500), "c2", Kind::Correct, -15);
    assert_eq!(put(&other, &[two]), 1);
    assert_eq!(total(&subjected.ledger), 125);
    let kept = subjected.ledger.corrections(held(2, 500).request).unwrap();
    assert_eq!(kept.iter().map(|c| c.rev).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(
        (kept[0].author.as_str(), kept[0].reference.as_str()),
        ("ann", "ticket 1")
    );
    let balances = subjected.ledger.balances(&everything(), 0, 10).unwrap();
    assert_eq!(balances.len(), 1);
    assert_eq!(balances[0].now.cost, NanoUsd(125));
    assert_eq!(balances[0].now.counts, [12, 3, 0, 0, 9, 0, 0, 0, 0]);
    let (entries, _) = subjected.ledger.call(held(2, 500).request).unwrap();
    assert_eq!(entries[0].cost, NanoUsd(100), "the entry itself stays");
}

fn corrections_follow_into_rollups_windows_and_tasks(subjected: &Subjected) {
    let mut mine = held(4, 500);
    mine.subject.task = "t1".into();
    mine.charges = vec![meter::entry::Charge {
        budget: "b".into(),
        start_ms: 7,
    }];
    apply(subjected, &[settle(mine.clone(), 100)]);
    put(
        &subjected.ledger,
        &[correction(&mine, "x", Kind::Reconcile, -30)],
    );
    for by in [Dimension::Day, Dimension::Hour] {
        let rows = subjected.ledger.usage(&UsageQuery {
            by: vec![by],
            ..UsageQuery::default()
        });
        let row = rows.unwrap().remove(0);
        assert_eq!((row.cost.0, row.sell.0, row.usage.output), (70, 70, 7));
    }
    let windows = subjected.ledger.windows(0).unwrap();
    let of = |node: &str| windows.iter().find(|w| *w.node == *node).unwrap().settled;
    assert_eq!((of(""), of(subjected.ledger.node())), (-30, 100));
}

fn late_usage_of_an_unknown_call_is_an_entry(subjected: &Subjected) {
    let mut late = correction(&held(6, 0), "late", Kind::Late, 77);
    let refused = subjected
        .ledger
        .adjust(&[(late.request, 0)], &|_, _| vec![late.clone()]);
    assert!(refused.unwrap_err().to_string().contains("no attempt"));
    late.held = Some(Box::new(held(6, 0)));
    assert_eq!(put(&subjected.ledger, &[late.clone()]), 1);
    assert_eq!(put(&subjected.ledger, &[late]), 0);
    assert_eq!(total(&subjected.ledger), 77);
    let balance = subjected
        .ledger
        .balances(&everything(), 0, 9)
        .unwrap()
        .remove(0);
    assert!(!balance.settled && balance.now.cost == NanoUsd(77));
    put(
        &subjected.ledger,
        &[correction(&held(6, 0), "more", Kind::Late, 3)],
    );
    let balance = subjected
        .ledger
        .balances(&everything(), 0, 9)
        .unwrap()
        .remove(0);
    assert_eq!((balance.now.cost, balance.kinds.len()), (NanoUsd(80), 2));
}

fn by_request(rows: Vec<BillRow>) -> Imported {
    Imported {
        id: "bill1".into(),
        endpoints: vec!["e".into()],
        format: "csv".into(),
        from_ms: NOW,
        until_ms: NOW + 10 * DAY_MS,
        complete: true,
        rows_count: 3,
        rows,
        ..Imported::default()
    }
}

fn a_bill_by_request_makes_every_row_equal(subjected: &Subjected) {
    let ledger = &subjected.ledger;
    apply(
        subjected,
        &[
            settle(held(1, 0), 100),
            settle(held(2, 0), 100),
            settle(held(3, 0), 100),
        ],
    );
    let line = |n: u8, cost: i64| BillRow {
        request: held(n, 0).request,
        attempt: 0,
        model: "m".into(),
        tokens: Some([20, 4, 5]),
        cost: NanoUsd(cost),
    };
    let bill = by_request(vec![line(1, 100), line(2, 131), line(9, 55)]);
    ledger.import(&bill).unwrap();
    ledger.import(&bill).unwrap();
    let rows = ledger.bill_rows("bill1", None, 2).unwrap();
    let last = rows.last().map(|row| (row.request, row.attempt));
    assert_eq!(ledger.bill_rows("bill1", last, 9).unwrap(), [line(9, 55)]);
    for _ in 0..2 {
        for row in &bill.rows {
            let plan = |found: &[Balance], open: &[Held]| {
                Vec::from_iter(bill::equal(&bill, row, found.first(), open.first(), NOW))
            };
            ledger.adjust(&[(row.request, 0)], &plan).unwrap();
        }
        let stray = held(3, 0).request;
        ledger
            .adjust(&[(stray, 0)], &|found, _| {
                found
                    .iter()
                    .filter_map(|it| bill::unbilled(&bill, it, NOW))
                    .collect()
            })
            .unwrap();
        let now = ledger.balances(&everything(), 0, 10).unwrap();
        let costs: Vec<i64> = now.iter().map(|it| it.now.cost.0).collect();
        assert_eq!(costs, [100, 131, 0, 55]);
        assert_eq!(now[1].now.billed(), [20, 4, 5]);
        assert_eq!(&*now[3].entry.held.subject.tenant, bill::UNKNOWN);
    }
    assert_eq!(total(ledger), 286);
    let written = ledger.events(&everything(), 0, 100).unwrap();
    assert_eq!(
        written.len(),
        7,
        "three entries, and a correction for each, and one late"
    );
}

fn differences_by_day_have_a_cause_and_go_to_suspense(subjected: &Subjected) {
    apply(subjected, &[settle(held(0, 0), 100)]);
    let day = NOW.div_euclid(DAY_MS) * DAY_MS;
    let own = subjected.ledger.own_days(day, day + DAY_MS).unwrap();
    assert_eq!(
        (own[0].tokens, own[0].cost),
        (Some([13, 3, 5]), Some(NanoUsd(100)))
    );
    let mut there = own[0].clone();
    there.tokens = None;
    let mut bill = Imported {
        id: "b".into(),
        endpoints: vec!["e".into()],
        days: vec![there.clone()],
        ..Imported::default()
    };
    bill.days[0].cost = Some(NanoUsd(125));
    subjected.ledger.import(&bill).unwrap();
    bill.days[0] = BillDay {
        tokens: own[0].tokens,
        cost: None,
        ..there
    };
    subjected.ledger.import(&bill).unwrap();
    let kept = subjected.ledger.bill_days(day, day + 1).unwrap();
    let home = |name: &str| Some(name.to_owned());
    let found = bill::compare(&kept, &own, &home, NOW + 9 * DAY_MS);
    subjected.ledger.keep_verdict(&found).unwrap();
    subjected.ledger.keep_verdict(&found).unwrap();
    let drifts = subjected.ledger.drifts(day, day + 1).unwrap();
    assert_eq!(drifts[0].cause, bill::Cause::PriceDiffers);
    let postings = subjected.ledger.postings(day, day + 1).unwrap();
    let shown: Vec<_> = postings
        .iter()
        .map(|p| (p.account.as_str(), p.amount.0))
        .collect();
    assert_eq!(shown, [("provider_payable", -25), ("suspense", 25)]);
    assert_eq!(subjected.ledger.captures().unwrap()[0].ratio_ppm, 800_000);
}

fn statements_close_once_and_add_up(subjected: &Subjected) {
    let entries: Vec<Record> = (0..9).map(|n| settle(held(n * 2, 0), 61)).collect();
    apply(subjected, &entries);
    put(
        &subjected.ledger,
        &[correction(&held(2, 0), "a", Kind::Rerate, -1)],
    );
    // 10 input at 1,000, 3 read at 100, 5 output at 10,150 pico: 61.05 nano-USD, rounded to 61.
    let units = |price: &str, _| (price == "p@1").then_some([1_000, 100, 0, 0, 10_150, 0, 0, 0, 0]);
    let ledger = &subjected.ledger;
    let draft = ledger.draft("even", november(), &units).unwrap();
    assert_eq!(draft.totals.cost, NanoUsd(548));
    let closed = ledger.close("even", november(), NOW, &units).unwrap();
    let kinds: Vec<LineKind> = closed.lines.iter().map(|line| line.kind).collect();
    assert!(
        kinds.contains(&LineKind::Usage) && kinds.contains(&LineKind::Rounding),
        "{kinds:?}"
    );
    assert!(kinds.contains(&LineKind::Correction));
    let sum: i64 = closed.lines.iter().map(|line| line.sell.0).sum();
    assert_eq!(sum, 548);
    assert_eq!(closed.totals.due, NanoUsd(548));
    assert_eq!(
        ledger.statement("even", november()).unwrap().unwrap(),
        closed
    );
    let again = ledger.close("even", november(), NOW, &units).unwrap_err();
    assert!(again.to_string().contains("is closed"), "{again}");
    assert_eq!(ledger.verify(None).unwrap(), Vec::<String>::new());
    let mut by_day = std::collections::BTreeMap::new();
    for posting in ledger.postings(0, i64::MAX).unwrap() {
        *by_day.entry(posting.day_ms).or_insert(0) += posting.amount.0;
    }
    assert!(
        !by_day.is_empty() && by_day.values().all(|sum| *sum == 0),
        "{by_day:?}"
    );
}

fn corrections_after_the_close_come_as_notes(subjected: &Subjected) {
    let mut next = held(40, 0);
    next.held_at_ms = NOW + 14 * DAY_MS;
    apply(subjected, &[settle(held(2, 0), 100), settle(next, 30)]);
    let ledger = &subjected.ledger;
    let early = ledger.close("even", "2026-12".parse().unwrap(), NOW, &none);
    assert!(
        early.unwrap_err().to_string().contains("2026-11"),
        "in their order"
    );
    let first = close(subjected, "even", "2026-11");
    assert_eq!((first.number, first.totals.due), (1, NanoUsd(100)));
    put(
        ledger,
        &[correction(&held(2, 0), "after", Kind::Reconcile, -25)],
    );
    apply(subjected, &[settle(held(6, 0), 9)]);
    let second = close(subjected, "even", "2026-12");
    let notes: Vec<_> = second
        .notes
        .iter()
        .map(|note| (note.statement, note.kind.as_str(), note.sell.0))
        .collect();
    assert_eq!(notes, [(1, "reconcile", -25), (1, "settle", 9)]);
    assert_eq!(second.totals.due, NanoUsd(30 - 25 + 9));
    assert_eq!(second.previous, first.hash);
    assert_eq!(ledger.verify(Some("even")).unwrap(), Vec::<String>::new());
    let third = close(subjected, "even", "2027-01");
    assert!(third.notes.is_empty() && third.totals.due == NanoUsd::ZERO);
}

fn estimates_wait_in_suspense_until_confirmed(subjected: &Subjected) {
    let Record::Settle(mut entry) = settle(held(2, 0), 100) else {
        panic!()
    };
    entry.source = UsageSource::Estimated;
    let entry: Box<Entry> = entry;
    apply(subjected, &[Record::Settle(entry), settle(held(4, 0), 7)]);
    let first = close(subjected, "even", "2026-11");
    assert_eq!(first.totals.sell, NanoUsd(107));
    assert_eq!(
        (first.totals.suspense, first.totals.due),
        (NanoUsd(100), NanoUsd(7))
    );
    let mut bill = correction(&held(2, 0), "real", Kind::Reconcile, -60);
    bill.source = Some(UsageSource::Provider);
    put(&subjected.ledger, &[bill]);
    let second = close(subjected, "even", "2026-12");
    assert_eq!(second.totals.due, NanoUsd(40));
    assert_eq!(subjected.ledger.verify(None).unwrap(), Vec::<String>::new());
    let suspense: i64 = subjected
        .ledger
        .postings(0, i64::MAX)
        .unwrap()
        .iter()
        .filter(|posting| posting.account == "suspense")
        .map(|posting| posting.amount.0)
        .sum();
    assert_eq!(suspense, 0);
}

fn credits_are_used_in_their_order(subjected: &Subjected) {
    apply(subjected, &[settle(held(2, 0), 100)]);
    let grant = |id: &str, amount: i64, priority: i64, until: i64| Grant {
        id: id.to_owned(),
        tenant: "even".into(),
        amount: NanoUsd(amount),
        left: NanoUsd(amount),
        from_ms: 0,
        until_ms: until,
        priority,
        reason: "plan".into(),
        author: "ann".into(),
        created_at_ms: NOW,
    };
    let ledger = &subjected.ledger;
    for it in [
        grant("b", 70, 2, i64::MAX),
        grant("a", 60, 1, i64::MAX),
        grant("old", 50, 0, 5),
    ] {
        assert!(ledger.grant(&it).unwrap());
        assert!(!ledger.grant(&it).unwrap());
    }
    let closed = close(subjected, "even", "2026-11");
    let used: Vec<_> = closed
        .credits
        .iter()
        .map(|u| (u.grant.as_str(), u.amount.0))
        .collect();
    assert_eq!(used, [("a", 60), ("b", 40)]);
    assert_eq!(closed.totals.due, NanoUsd::ZERO);
    let left: Vec<i64> = ledger
        .grants(Some("even"))
        .unwrap()
        .iter()
        .map(|g| g.left.0)
        .collect();
    assert_eq!(left, [50, 0, 30]);
    assert!(ledger.grants(Some("odd")).unwrap().is_empty());
}

fn the_outbox_is_claimed_once_and_tried_again(subjected: &Subjected) {
    let event = meter::ledger::Tell {
        id: "e1".into(),
        topic: "budget.threshold".into(),
        payload: "{}".into(),
        at_ms: NOW,
    };
    subjected.ledger.tell(&[event]).unwrap();
    let (one, two) = (&subjected.ledger, &subjected.other());
    assert_eq!(one.claim(NOW, 1_000, 9).unwrap()[0].attempts, 0);
    assert!(
        two.claim(NOW, 1_000, 9).unwrap().is_empty(),
        "it is being delivered"
    );
    one.failed("e1", NOW + 500, "no answer").unwrap();
    assert!(two.claim(NOW + 499, 1_000, 9).unwrap().is_empty());
    assert_eq!(two.claim(NOW + 500, 1_000, 9).unwrap()[0].attempts, 1);
    assert_eq!(
        one.claim(NOW + 1_500, 1_000, 9).unwrap()[0].attempts,
        2,
        "its node died"
    );
    one.delivered("e1", NOW + 1_600).unwrap();
    assert!(two.claim(i64::MAX - 9_000, 1_000, 9).unwrap().is_empty());
    assert_eq!(one.told("w").unwrap(), 0);
    one.tell_up_to("w", 17).unwrap();
    assert_eq!(two.told("w").unwrap(), 17);
}

fn rows_are_exported_in_pages(subjected: &Subjected) {
    let entries: Vec<Record> = (0..7).map(|n| settle(held(n, 0), 10)).collect();
    apply(subjected, &entries);
    let span = Span {
        tenant: Some("even".into()),
        ..everything()
    };
    let mut seen = 0;
    let mut after = 0;
    while let Some(last) = {
        let page = subjected.ledger.events(&span, after, 3).unwrap();
        seen += page.len();
        page.last().map(|row| row[0].clone())
    } {
        let meter::books::Cell::Int(seq) = last else {
            panic!()
        };
        after = seq;
    }
    assert_eq!(seen, 4);
    let groups = subjected.ledger.groups(&everything()).unwrap();
    let sum: i64 = groups.iter().map(|group| group.change.cost.0).sum();
    assert_eq!((groups.len(), sum), (7, 70));
}

fn tasks_are_summed_by_tier_and_told_how_they_ended(subjected: &Subjected) {
    use meter::finance::{Filter, Finance};
    let ledger = &subjected.ledger;
    let of = |n: u8, tier, cost| {
        let mut held = held(n, 500);
        held.subject.tenant = "acme".into();
        held.subject.task = "task_1".into();
        held.subject.workflow = "triage".into();
        held.tier = tier;
        settle(held, cost)
    };
    apply(
        subjected,
        &[of(1, wire::Tier::Fast, 100), of(2, wire::Tier::Deep, 900)],
    );
    apply(subjected, &[of(3, wire::Tier::Fast, 0)]);
    let all = Filter::default().over(0, i64::MAX);
    let read = || ledger.tasks(&all).unwrap().remove(0);
    let task = read();
    assert_eq!((task.fast_calls, task.fast_cost.0), (2, 100));
    assert_eq!((task.deep_calls, task.deep_cost.0), (1, 900));
    assert_eq!((task.calls, task.cost.0), (3, 1_000));
    assert!(task.open());
    let mut deep = held(2, 500);
    deep.subject.tenant = "acme".into();
    deep.subject.task = "task_1".into();
    deep.tier = wire::Tier::Deep;
    put(ledger, &[correction(&deep, "late", Kind::Reconcile, -300)]);
    assert_eq!((read().deep_cost.0, read().fast_cost.0), (600, 100));

    assert!(!ledger.end_task("acme", "task_2", "completed").unwrap());
    assert!(!ledger.end_task("other", "task_1", "completed").unwrap());
    for _ in 0..2 {
        assert!(ledger.end_task("acme", "task_1", "completed").unwrap());
    }
    // A call that settles late changes nothing of how it ended.
    apply(subjected, &[of(4, wire::Tier::Deep, 50)]);
    let task = read();
    assert_eq!(
        (task.outcome.as_str(), task.deep_calls, task.deep_cost.0),
        ("completed", 2, 650)
    );
    assert!(task.succeeded());
}
