//! What happens to a ledger beside calls: corrections, bills, statements, credits, changed limits, decisions.

use meter::books::bill::{self, BillDay, Imported};
use meter::books::change::Change;
use meter::books::statement::{Grant, Month};
use meter::books::{Balance, Books, Correction, Kind, Span};
use meter::hold::Decision;
use meter::{Held, Ledger, NanoUsd, Override};
use store::SqlLedger;
use wire::UsageSource;

const DAY_MS: i64 = 86_400_000;
const HOUR_MS: i64 = 3_600_000;
/// A budget whose id has every sign that a path must be careful with.
const BOBS: &str = "acme/user:*/month/bob";

/// Lets all of it happen, until `now_ms`.
pub fn happen(ledger: &SqlLedger, now_ms: i64) {
    let first = Month::of(now_ms - 95 * DAY_MS);
    correct(ledger, first.start_ms(), now_ms);
    credit(ledger, now_ms);
    let mut month = first;
    while month.end_ms() <= now_ms {
        for tenant in ["acme", "ember"] {
            ledger
                .close(tenant, month, now_ms - DAY_MS, &units)
                .unwrap();
        }
        // Of the month that was just closed: a note on the next one.
        let late = month.end_ms() - 2 * DAY_MS;
        correct(ledger, late, late + DAY_MS);
        month = Month::of(month.end_ms());
    }
    bills(ledger, now_ms);
    limits(ledger, now_ms);
}

/// Pico-USD for one of each class of the cheapest model, so that its lines have unit prices.
fn units(price: &str, _: u64) -> Option<[i64; 9]> {
    let input = 250_000;
    (price == "openai/gpt-5-mini@1").then_some([
        input,
        input / 10,
        input,
        input,
        2_000_000,
        2_000_000,
        input,
        2_000_000,
        0,
    ])
}

/// Corrects some calls in a span of time, each kind in its turn.
fn correct(ledger: &SqlLedger, from_ms: i64, until_ms: i64) {
    let span = Span {
        from_ms,
        until_ms,
        ..Span::default()
    };
    let all = ledger.balances(&span, 0, 20_000).unwrap();
    let step = (all.len() / 60).max(1);
    let some = all.iter().step_by(step);
    let estimated = all.iter().filter(|one| one.source != UsageSource::Provider);
    let made: Vec<Correction> = some
        .chain(estimated.step_by(7))
        .enumerate()
        .map(|(n, balance)| correction(n, balance))
        .collect();
    let keys: Vec<_> = made.iter().map(|one| (one.request, one.attempt)).collect();
    ledger
        .adjust(&keys, &|_: &[Balance], _: &[Held]| made.clone())
        .unwrap();
}

fn correction(n: usize, balance: &Balance) -> Correction {
    let kinds = [Kind::Correct, Kind::Late, Kind::Reconcile];
    let kind = kinds[n % 3];
    let held = &balance.entry.held;
    let cost = balance.now.cost.0 / if n.is_multiple_of(2) { -10 } else { 20 };
    Correction {
        id: format!("{kind:?}/{}/{}", held.request, held.attempt),
        kind,
        rev: 0,
        request: held.request,
        attempt: held.attempt,
        author: "ann".to_owned(),
        reason: "the provider says otherwise".to_owned(),
        reference: "ticket 17".to_owned(),
        at_ms: balance.entry.settled_at_ms + DAY_MS,
        change: Change {
            counts: [0, 0, 0, 0, i64::from(!n.is_multiple_of(2)) * 9, 0, 0, 0, 0],
            cost: NanoUsd(cost),
            list: NanoUsd(cost),
            sell: NanoUsd(cost * 13 / 10),
            ..Change::default()
        },
        price: String::new(),
        book: String::new(),
        source: (kind == Kind::Reconcile).then_some(UsageSource::Provider),
        held: None,
    }
}

fn credit(ledger: &SqlLedger, now_ms: i64) {
    let grant = Grant {
        id: "welcome".to_owned(),
        tenant: "acme".to_owned(),
        amount: NanoUsd(2_500_000_000),
        left: NanoUsd::ZERO,
        from_ms: now_ms - 200 * DAY_MS,
        until_ms: now_ms + 200 * DAY_MS,
        priority: 1,
        reason: "to begin with".to_owned(),
        author: "ann".to_owned(),
        created_at_ms: now_ms - 200 * DAY_MS,
    };
    assert!(ledger.grant(&grant).unwrap());
}

/// Bills of one provider for three weeks: most days agree, some do not.
fn bills(ledger: &SqlLedger, now_ms: i64) {
    let until = now_ms.div_euclid(DAY_MS) * DAY_MS;
    let from = until - 21 * DAY_MS;
    let mut own = ledger.own_days(from, until).unwrap();
    own.retain(|day| day.endpoint == "openai");
    let billed = |(n, day): (usize, &BillDay)| BillDay {
        cost: day.cost.map(|cost| match n % 5 {
            3 => NanoUsd(cost.0 * 103 / 100),
            _ => cost,
        }),
        ..day.clone()
    };
    let imported = Imported {
        id: "bill-1".to_owned(),
        endpoints: vec!["openai".to_owned()],
        format: "focus".to_owned(),
        imported_at_ms: now_ms - HOUR_MS,
        from_ms: from,
        until_ms: until,
        days: own.iter().enumerate().map(billed).collect(),
        ..Imported::default()
    };
    ledger.import(&imported).unwrap();
    let days = ledger.bill_days(from, until).unwrap();
    let home = |endpoint: &str| (endpoint == "openai").then(|| endpoint.to_owned());
    let verdict = bill::compare(&days, &own, &home, now_ms);
    ledger.keep_verdict(&verdict).unwrap();
}

/// Changed limits and decisions.
fn limits(ledger: &SqlLedger, now_ms: i64) {
    for (id, amount, from, days, reason) in [
        ("o1", 6, now_ms - 2 * DAY_MS, 9, "launch of the new search"),
        ("o2", -5, now_ms - 60 * DAY_MS, 20, "project on hold"),
    ] {
        let change = Override {
            id: id.to_owned(),
            budget: "acme/month".to_owned(),
            amount: amount * 1_000_000_000,
            from_ms: from,
            until_ms: from + days * DAY_MS,
            author: "cfo@acme".to_owned(),
            reason: reason.to_owned(),
            created_at_ms: from - HOUR_MS,
        };
        ledger.add_override(&change).unwrap();
    }
    let hour = now_ms.div_euclid(HOUR_MS) * HOUR_MS;
    let decided: Vec<Decision> = (1..30)
        .map(|n| Decision {
            start_ms: hour - n * HOUR_MS,
            tenant: "acme".into(),
            budget: if n % 4 == 0 { BOBS } else { "acme/month" }.into(),
            decision: ["wait", "degrade", "deny"][(n % 3) as usize],
            calls: n.unsigned_abs() * 3,
        })
        .collect();
    ledger.decided(&decided).unwrap();
}
