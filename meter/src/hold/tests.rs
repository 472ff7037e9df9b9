//! Proves that a hard budget is never overspent and that each hold is settled exactly once,
//! whatever the order of holds, posts, voids and drops.

use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use wire::{RequestId, Tier};

use super::*;
use crate::config::{BudgetConfig, PriceConfig};
use crate::ledger::{Known, LedgerError, Past, Spent, Synced};
use crate::price::{PriceBook, STANDARD};
use crate::window::Period;

/// Keeps what is appended; the file-backed journal has its own tests.
#[derive(Debug, Default)]
struct Written(Mutex<Vec<Record>>, AtomicU64);

impl Journal for Written {
    fn append(&self, record: &Record) -> Result<Position, JournalError> {
        self.0.lock().expect("no panic").push(record.clone());
        Ok(Position(self.1.fetch_add(1, Ordering::Relaxed) + 1))
    }

    fn synced(&self, _: Position) -> Synced<'_> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// A ledger that knows what it is given.
struct Before(Vec<Spent>);

impl Past for Before {
    fn windows(&self, _: i64) -> Result<Vec<Known>, LedgerError> {
        Ok(Vec::new())
    }

    fn spent(&self, _: i64) -> Result<Vec<Spent>, LedgerError> {
        Ok(self.0.clone())
    }

    fn begin_windows(&self, _: &[Known]) -> Result<(), LedgerError> {
        Ok(())
    }
}

const NOTHING: Before = Before(Vec::new());

const NOW: i64 = 1_795_000_000_000;

fn rates() -> Arc<Rates> {
    let own = PriceConfig::flat("x", "1", "1");
    let book = PriceBook::default()
        .with_overrides(&[own])
        .expect("good amounts");
    book.rates("x", STANDARD, NOW).expect("priced")
}

fn meter(budgets: &[(&str, &str)]) -> (Arc<Meter>, Arc<Written>) {
    let journal = Arc::new(Written::default());
    let meter = Arc::new(Meter::new(Arc::clone(&journal) as Arc<dyn Journal>));
    let budgets: Vec<_> = budgets
        .iter()
        .map(|(project, limit)| BudgetConfig {
            project: (!project.is_empty()).then(|| (*project).to_owned()),
            ..BudgetConfig::of_tenant("acme", limit, Period::Day)
        })
        .collect();
    meter
        .configure(&budgets, &[], "here", NOW, &NOTHING)
        .expect("good budgets");
    (meter, journal)
}

/// A call that may cost `tokens` micro-USD.
fn estimate(tokens: u64, project: &str) -> Estimate {
    Estimate {
        held: Held {
            request: RequestId::new(0, [0; 10]),
            attempt: 0,
            subject: Subject::of_key("acme", "", project, "k"),
            dialect: Arc::from("openai_chat"),
            requested: Arc::from("auto"),
            model: Arc::from("x"),
            endpoint: Arc::from("e"),
            tier: Tier::Fast,
            reason: Arc::from("auto"),
            score_milli: None,
            stream: false,
            held_at_ms: 0,
            bound: NanoUsd::ZERO,
            bound_usage: Usage {
                output: tokens,
                ..Usage::default()
            },
            price: Arc::from(""),
            losses: Arc::from(""),
            session: 0,
            lane: Arc::from(STANDARD),
            book: Arc::from(""),
            escalated: std::sync::Arc::default(),
            charges: Vec::new(),
            routing: None,
        },
        rates: Some(rates()),
        baseline: None,
        sell: Arc::default(),
        admits_unpriced: false,
    }
}

fn used(output: u64) -> Settlement {
    Settlement {
        outcome: Outcome::Completed,
        status: 200,
        usage: Usage {
            output,
            ..Usage::default()
        },
        source: UsageSource::Provider,
        upper: None,
        first_byte_ms: None,
        now_ms: NOW,
    }
}

#[test]
fn a_call_must_fit_every_level() {
    let (meter, _) = meter(&[("", "0.000010"), ("small", "0.000004")]);
    assert!(
        meter.hold(estimate(5, "big"), NOW).is_ok(),
        "dropped at once, so released"
    );
    let denied = meter
        .hold(estimate(5, "small"), NOW)
        .expect_err("over the project's limit");
    assert!(denied.to_string().contains("project small"), "{denied}");
    let _first = meter.hold(estimate(6, "big"), NOW).expect("fits");
    let Err(Denied::Budget { waits, .. }) = meter.hold(estimate(5, "big"), NOW) else {
        panic!("6 + 5 > 10")
    };
    assert!(waits, "only a hold stands in the way");
    assert!(meter.hold(estimate(4, "small"), NOW).is_ok());
}

#[test]
fn a_dropped_hold_is_charged_only_once_sent() {
    let (meter, journal) = meter(&[("", "0.000010")]);
    drop(meter.hold(estimate(6, ""), NOW).expect("fits"));
    let state = || meter.standings(NOW)[0].clone();
    assert_eq!((state().settled, state().held), (0, 0));
    let mut hold = meter.hold(estimate(6, ""), NOW).expect("fits");
    hold.sent(NOW);
    drop(hold);
    assert_eq!((state().settled, state().held), (6_000, 0));
    let costs: Vec<_> = journal
        .0
        .lock()
        .expect("no panic")
        .iter()
        .filter_map(|record| match record {
            Record::Settle(entry) => Some((entry.cost.0, entry.source)),
            Record::Hold(_) => None,
        })
        .collect();
    assert_eq!(
        costs,
        [(0, UsageSource::Provider), (6_000, UsageSource::Estimated)]
    );
}

#[test]
fn an_unpriced_model_is_refused_under_a_hard_budget_and_metered_elsewhere() {
    let (meter, _) = meter(&[("", "1")]);
    let unpriced = Estimate {
        rates: None,
        ..estimate(5, "")
    };
    assert!(matches!(
        meter.hold(unpriced.clone(), NOW),
        Err(Denied::Unpriced { .. })
    ));
    let mut other = unpriced;
    other.held.subject.tenant = Arc::from("free");
    assert!(meter.hold(other, NOW).is_ok());
}

#[test]
fn a_new_window_starts_empty_and_late_posts_stay_in_the_old_one() {
    let (meter, _) = meter(&[("", "0.000010")]);
    let late = meter.hold(estimate(8, ""), NOW).expect("fits");
    let tomorrow = NOW + 86_400_000;
    let hold = meter.hold(estimate(9, ""), tomorrow).expect("a new window");
    late.post(&used(8)).expect("settles once");
    assert_eq!(meter.standings(tomorrow)[0].settled, 0);
    hold.post(&used(1)).expect("settles once");
    assert_eq!(meter.standings(tomorrow)[0].settled, 1_000);
    let back = meter
        .hold(estimate(9, ""), NOW)
        .expect_err("a clock that runs back");
    assert!(
        matches!(
            back,
            Denied::Clock {
                behind_ms: 86_400_000,
                ..
            }
        ),
        "{back}"
    );
    assert_eq!(meter.standings(NOW)[0].settled, 1_000);
}

#[test]
fn a_new_configuration_keeps_what_is_known() {
    let (meter, _) = meter(&[("", "0.000010")]);
    let hold = meter.hold(estimate(6, ""), NOW).expect("fits");
    let config = |limit: &str| BudgetConfig::of_tenant("acme", limit, Period::Day);
    meter
        .configure(&[config("0.000007")], &[], "here", NOW, &NOTHING)
        .expect("good");
    assert!(
        meter.hold(estimate(2, ""), NOW).is_err(),
        "6 are still held"
    );
    assert!(
        meter
            .configure(&[config("much")], &[], "here", NOW, &NOTHING)
            .is_err()
    );
    hold.post(&used(1)).expect("settles once");
    assert!(meter.hold(estimate(6, ""), NOW).is_ok());
    meter
        .configure(&[], &[], "here", NOW, &NOTHING)
        .expect("good");
    assert!(
        meter.hold(estimate(60, ""), NOW).is_ok(),
        "no budget, no limit"
    );
    let spent = {
        let [tenant, team, project, key] = ["acme", "", "", "k"].map(Arc::from);
        Before(vec![Spent {
            tenant,
            team,
            project,
            key,
            user: Arc::from(""),
            model: Arc::from("x"),
            cost: NanoUsd(6_000),
            start_ms: NOW,
        }])
    };
    meter
        .configure(&[config("0.000007")], &[], "here", NOW, &spent)
        .expect("good");
    assert!(
        meter.hold(estimate(2, ""), NOW).is_err(),
        "what was spent meanwhile counts again"
    );
}

#[test]
fn each_tenant_has_its_own_of_what_every_tenant_has() {
    let (meter, _) = meter(&[]);
    let each = |limit: &str| BudgetConfig::of_tenant("*", limit, Period::Day);
    let of = |tenant: &str, tokens: u64| {
        let mut estimate = estimate(tokens, "");
        estimate.held.subject = Subject::of_key(tenant, "", "", "k");
        estimate
    };
    let spent = Spent {
        tenant: Arc::from("old"),
        team: Arc::from(""),
        project: Arc::from(""),
        key: Arc::from("k"),
        user: Arc::from(""),
        model: Arc::from("x"),
        cost: NanoUsd(6_000),
        start_ms: NOW,
    };
    let own = BudgetConfig::of_tenant("large", "0.000100", Period::Day);
    let budgets = [each("0.000010"), own];
    let past = Before(vec![spent]);
    meter
        .configure(&budgets, &[], "here", NOW, &past)
        .expect("good budgets");
    for (tenant, tokens, fits) in [
        ("acme", 11, false),
        ("acme", 9, true),
        ("acme", 2, false),
        ("globex", 9, true),
        ("old", 5, false),
        ("old", 4, true),
        ("large", 90, true),
    ] {
        let held = meter.hold(of(tenant, tokens), NOW);
        assert_eq!(held.is_ok(), fits, "{tenant} {tokens}: {held:?}");
        if let Ok(held) = held {
            held.post(&used(tokens)).expect("settles once");
        }
    }
    let ids: Vec<String> = meter.standings(NOW).into_iter().map(|it| it.id).collect();
    assert_eq!(
        ids,
        ["*/day/acme", "*/day/globex", "large/day", "*/day/old"]
    );
    // A new limit is everybody's, with what each has spent; without one there is none.
    meter
        .configure(&[each("0.000012")], &[], "here", NOW, &NOTHING)
        .expect("good budgets");
    assert!(meter.hold(of("acme", 4), NOW).is_err(), "9 are spent");
    assert!(meter.hold(of("acme", 3), NOW).is_ok());
    assert!(meter.hold(of("new", 13), NOW).is_err());
    meter
        .configure(&[], &[], "here", NOW, &NOTHING)
        .expect("good budgets");
    assert!(meter.hold(of("acme", 99), NOW).is_ok());
}

proptest! {
    /// Against a naive reference: a list of open holds and a sum.
    #[test]
    fn settled_and_held_never_pass_the_limit(
        steps in prop::collection::vec((0_u8..4, 0_u64..40, 0_usize..8), 1..200),
    ) {
        let (meter, journal) = meter(&[("", "0.000100")]);
        let mut open: Vec<(Hold, u64)> = Vec::new();
        let mut settled = 0_u64;
        for (act, tokens, pick) in steps {
            match act {
                0 | 1 => {
                    let held: u64 = open.iter().map(|(_, bound)| bound).sum();
                    let hold = meter.hold(estimate(tokens, ""), NOW);
                    prop_assert_eq!(hold.is_ok(), settled + held + tokens <= 100);
                    if let Ok(mut hold) = hold {
                        hold.sent(NOW);
                        open.push((hold, tokens));
                    }
                }
                2 if !open.is_empty() => {
                    let (hold, bound) = open.swap_remove(pick % open.len());
                    let actual = tokens.min(bound);
                    settled += actual;
                    prop_assert_eq!(hold.post(&used(actual)).map(|s| s.entry.cost.0), Some(i64::try_from(actual * 1_000).expect("small")));
                }
                3 if !open.is_empty() => {
                    let (hold, bound) = open.swap_remove(pick % open.len());
                    if pick % 2 == 0 {
                        let failed = Settlement { outcome: Outcome::Failed, status: 500, ..used(0) };
                        prop_assert!(hold.post(&failed).is_some());
                    } else {
                        drop(hold);
                        settled += bound;
                    }
                }
                _ => {}
            }
            let state = meter.standings(NOW)[0].clone();
            let held: u64 = open.iter().map(|(_, bound)| bound).sum();
            prop_assert_eq!((state.settled, state.held), (i64::try_from(settled * 1_000).expect("small"), i64::try_from(held * 1_000).expect("small")));
            prop_assert!(state.settled + state.held <= state.limit);
        }
        drop(open);
        let records = journal.0.lock().expect("no panic");
        let holds = records.iter().filter(|r| matches!(r, Record::Hold(_))).count();
        prop_assert_eq!(holds * 2, records.len(), "each hold has one settlement");
    }
}

#[test]
fn the_pace_falls_when_the_money_would_not_last() {
    let journal = Arc::new(Written::default());
    let meter = Arc::new(Meter::new(Arc::clone(&journal) as Arc<dyn Journal>));
    let paced = BudgetConfig {
        pacing: crate::config::Pacing::Linear,
        ..BudgetConfig::of_tenant("acme", "0.000100", Period::Day)
    };
    meter
        .configure(&[paced], &[], "here", NOW, &NOTHING)
        .expect("good");
    let day = 86_400_000;
    let noon = NOW - NOW.rem_euclid(day) + 43_200_000;
    let subject = estimate(0, "").held.subject;
    let pace = |at: i64| meter.posture(&subject, at).pace;
    assert_eq!(pace(noon), 1_000, "nothing is spent");
    let hold = meter.hold(estimate(75, ""), noon).expect("fits");
    hold.post(&used(75)).expect("settles once");
    assert_eq!(
        pace(noon),
        500,
        "a quarter of the money for half of the day"
    );
    assert_eq!(pace(noon + 21_600_000), 1_000, "and for a quarter of it");
}
