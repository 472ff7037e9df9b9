//! Providers' bills against the ledger: what differs, why, and which corrections make it equal.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wire::{RequestId, Tier, Usage, UsageSource};

use crate::books::change::{Change, share};
use crate::books::{Balance, Capture, Correction, Kind};
use crate::{Held, NanoUsd, Subject};

const DAY_MS: i64 = 86_400_000;
/// The tenant of calls that nobody here knows.
pub const UNKNOWN: &str = "unknown";

/// One model's day, on a bill or in the ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BillDay {
    pub day_ms: i64,
    pub endpoint: String,
    pub model: String,
    /// Tokens of prompts, of them from caches, and of answers, where the bill tells them.
    pub tokens: Option<[i64; 3]>,
    pub requests: i64,
    /// What it costs, where the bill tells.
    pub cost: Option<NanoUsd>,
    /// Calls without a price; of the ledger's own sums alone.
    #[serde(default)]
    pub unpriced: i64,
}

/// One attempt on a bill that tells them apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BillRow {
    pub request: RequestId,
    pub attempt: u16,
    pub model: String,
    pub tokens: Option<[i64; 3]>,
    pub cost: NanoUsd,
}

/// A bill as it was imported.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// A digest of the file: the same file is the same bill.
    pub id: String,
    /// The endpoints it is for, by the first of which it is called.
    pub endpoints: Vec<String>,
    pub format: String,
    pub imported_at_ms: i64,
    pub from_ms: i64,
    pub until_ms: i64,
    /// It has every call of its period: what it does not have was not billed.
    pub complete: bool,
    /// How many lines it has by request.
    pub rows_count: u64,
    pub days: Vec<BillDay>,
    #[serde(skip)]
    pub rows: Vec<BillRow>,
}

impl Imported {
    /// The name it goes by.
    pub fn endpoint(&self) -> &str {
        self.endpoints.first().map_or("", String::as_str)
    }
}

/// Why bill and ledger differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// It is on the other side of midnight, or not billed yet.
    Timing,
    /// The model had no price here.
    Unpriced,
    /// The bill has calls that the ledger has not.
    MissingHere,
    /// The ledger has calls that the bill has not.
    UnknownThere,
    PriceDiffers,
    TokensDiffer,
    /// They agree.
    Nothing,
}

impl Cause {
    /// For people and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timing => "timing",
            Self::Unpriced => "unpriced",
            Self::MissingHere => "missing here",
            Self::UnknownThere => "unknown there",
            Self::PriceDiffers => "price differs",
            Self::TokensDiffer => "tokens differ",
            Self::Nothing => "none",
        }
    }
}

/// One model's day on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    pub day_ms: i64,
    pub endpoint: String,
    pub model: String,
    pub cause: Cause,
    pub bill_tokens: [i64; 3],
    pub own_tokens: [i64; 3],
    pub bill_cost: Option<NanoUsd>,
    pub own_cost: NanoUsd,
}

impl Drift {
    /// What the bill asks for beyond the ledger.
    pub fn difference(&self) -> NanoUsd {
        self.bill_cost
            .map_or(NanoUsd::ZERO, |cost| cost - self.own_cost)
    }
}

/// What a reconciliation found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    pub at_ms: i64,
    pub drifts: Vec<Drift>,
    pub captures: Vec<Capture>,
}

type Key = (i64, String, String);

/// Holds bills against the ledger's own sums, day by day, where there is a bill. `home` tells the name
/// that an endpoint's bills go by.
pub fn compare(
    bills: &[BillDay],
    own: &[BillDay],
    home: &dyn Fn(&str) -> Option<String>,
    now_ms: i64,
) -> Verdict {
    let there = by_key(bills, &|endpoint| Some(endpoint.to_owned()));
    let here = by_key(own, home);
    let billed = |day: i64, endpoint: &str| {
        bills
            .iter()
            .any(|line| line.day_ms == day && line.endpoint == endpoint)
    };
    let mut drifts = Vec::new();
    let mut all: Vec<&Key> = there.keys().chain(here.keys()).collect();
    all.sort();
    all.dedup();
    for key in all {
        let (day, endpoint, model) = key;
        if !billed(*day, endpoint) {
            continue;
        }
        let cause = cause(key, &there, &here, now_ms);
        let (bill, mine) = (there.get(key), here.get(key));
        drifts.push(Drift {
            day_ms: *day,
            endpoint: endpoint.clone(),
            model: model.clone(),
            cause,
            bill_tokens: bill.and_then(|line| line.tokens).unwrap_or_default(),
            own_tokens: mine.and_then(|line| line.tokens).unwrap_or_default(),
            bill_cost: bill.map_or(Some(NanoUsd::ZERO), |line| line.cost),
            own_cost: mine.and_then(|line| line.cost).unwrap_or_default(),
        });
    }
    let captures = captures(&drifts, now_ms);
    Verdict {
        at_ms: now_ms,
        drifts,
        captures,
    }
}

fn by_key(lines: &[BillDay], home: &dyn Fn(&str) -> Option<String>) -> BTreeMap<Key, BillDay> {
    let mut sums: BTreeMap<Key, BillDay> = BTreeMap::new();
    for line in lines {
        let Some(endpoint) = home(&line.endpoint) else {
            continue;
        };
        let sum = sums
            .entry((line.day_ms, endpoint, line.model.clone()))
            .or_default();
        if let Some(more) = line.tokens {
            let tokens = sum.tokens.get_or_insert_default();
            for (sum, more) in tokens.iter_mut().zip(more) {
                *sum = sum.saturating_add(more);
            }
        }
        if let Some(cost) = line.cost {
            *sum.cost.get_or_insert_default() += cost;
        }
        sum.requests = sum.requests.saturating_add(line.requests);
        sum.unpriced = sum.unpriced.saturating_add(line.unpriced);
    }
    sums
}

fn cause(
    key: &Key,
    there: &BTreeMap<Key, BillDay>,
    here: &BTreeMap<Key, BillDay>,
    now_ms: i64,
) -> Cause {
    let (bill, own) = (there.get(key), here.get(key));
    let (Some(bill), Some(own)) = (bill, own) else {
        // Providers take up to two days to bill.
        let fresh = key.0 > now_ms.saturating_sub(DAY_MS.saturating_mul(2));
        return match (bill, own) {
            (None, Some(_)) if fresh => Cause::Timing,
            (None, _) => Cause::UnknownThere,
            (Some(_), _) => Cause::MissingHere,
        };
    };
    let apart = |key: &Key| {
        let tokens = |side: &BTreeMap<Key, BillDay>| {
            let line = side.get(key).and_then(|line| line.tokens);
            line.unwrap_or_default()
                .iter()
                .fold(0, |sum: i64, more| sum.saturating_add(*more))
        };
        tokens(there).saturating_sub(tokens(here))
    };
    if bill.tokens.is_some() && bill.tokens != own.tokens {
        let beside = |days: i64| {
            let day = key.0.saturating_add(days.saturating_mul(DAY_MS));
            apart(&(day, key.1.clone(), key.2.clone()))
        };
        let off = apart(key);
        let is_shifted = off != 0
            && [-1, 1]
                .iter()
                .any(|days| beside(*days) == off.saturating_neg());
        return if is_shifted {
            Cause::Timing
        } else {
            Cause::TokensDiffer
        };
    }
    match bill.cost {
        Some(cost) if Some(cost) != own.cost && own.unpriced > 0 => Cause::Unpriced,
        Some(cost) if Some(cost) != own.cost => Cause::PriceDiffers,
        _ => Cause::Nothing,
    }
}

/// The share of each bill that the ledger has: money where the bill tells it, else tokens.
fn captures(drifts: &[Drift], now_ms: i64) -> Vec<Capture> {
    let mut sums: BTreeMap<&str, [i64; 4]> = BTreeMap::new();
    for drift in drifts {
        let [bill, own, bill_tokens, own_tokens] = sums.entry(drift.endpoint.as_str()).or_default();
        if let Some(cost) = drift.bill_cost {
            *bill = bill.saturating_add(cost.0);
            *own = own.saturating_add(drift.own_cost.0);
        }
        let all = |tokens: &[i64; 3]| tokens[0].saturating_add(tokens[2]);
        *bill_tokens = bill_tokens.saturating_add(all(&drift.bill_tokens));
        *own_tokens = own_tokens.saturating_add(all(&drift.own_tokens));
    }
    sums.into_iter()
        .map(|(endpoint, [bill, own, bill_tokens, own_tokens])| Capture {
            endpoint: endpoint.to_owned(),
            ratio_ppm: if bill == 0 {
                share(1_000_000, own_tokens, bill_tokens, 1_000_000)
            } else {
                share(1_000_000, own, bill, 1_000_000)
            },
            reconciled_at_ms: now_ms,
        })
        .collect()
}

/// The correction that makes an attempt equal to its line on a bill; `None` where it is.
pub fn equal(
    bill: &Imported,
    row: &BillRow,
    balance: Option<&Balance>,
    open: Option<&Held>,
    at_ms: i64,
) -> Option<Correction> {
    let Some(balance) = balance else {
        let held = open.map_or_else(|| stranger(bill, row), Held::clone);
        let nothing = Change::default();
        let target = row
            .tokens
            .map_or(nothing, |tokens| nothing.with_billed(tokens));
        return Some(Correction {
            kind: Kind::Late,
            change: target.costing(row.cost),
            held: Some(Box::new(held)),
            reason: "the bill has a call that is not here".to_owned(),
            ..correction(bill, row.request, row.attempt, 0, at_ms)
        });
    };
    let target = row
        .tokens
        .map_or(balance.now, |tokens| balance.now.with_billed(tokens))
        .costing(row.cost);
    let change = if row.cost == balance.now.cost {
        // What depends on the cost stays to the digit.
        Change {
            counts: target.minus(&balance.now).counts,
            ..Change::default()
        }
    } else {
        target.minus(&balance.now)
    };
    if change.is_nothing() && balance.source != UsageSource::Estimated && !is_open(balance) {
        return None;
    }
    Some(Correction {
        change,
        reason: "the provider's bill".to_owned(),
        ..correction(bill, row.request, row.attempt, balance.kinds.len(), at_ms)
    })
}

/// The correction that takes back what a complete bill does not have; `None` where nothing is charged.
pub fn unbilled(bill: &Imported, balance: &Balance, at_ms: i64) -> Option<Correction> {
    let change = Change::default().minus(&balance.now);
    (!change.is_nothing() || is_open(balance)).then(|| Correction {
        change,
        reason: "a bill that is complete does not have it".to_owned(),
        ..correction(
            bill,
            balance.entry.held.request,
            balance.entry.held.attempt,
            balance.kinds.len(),
            at_ms,
        )
    })
}

/// Whether budgets still carry more than the entry costs: a bill that equals it ends that, too.
fn is_open(balance: &Balance) -> bool {
    balance.entry.suspense != NanoUsd::ZERO && !balance.kinds.contains(&Kind::Reconcile)
}

/// A correction by a bill. A second delivery finds as many corrections before it and has the same id.
fn correction(
    bill: &Imported,
    request: RequestId,
    attempt: u16,
    before: usize,
    at_ms: i64,
) -> Correction {
    Correction {
        id: format!("bill:{}:{request}:{attempt}:{before}", bill.id),
        kind: Kind::Reconcile,
        rev: 0,
        request,
        attempt,
        author: "reconcile".to_owned(),
        reason: String::new(),
        reference: format!("{} {}", bill.endpoint(), bill.id),
        at_ms,
        change: Change::default(),
        price: String::new(),
        book: String::new(),
        source: Some(UsageSource::Provider),
        held: None,
    }
}

/// What can be said of a call that nobody here knows.
fn stranger(bill: &Imported, row: &BillRow) -> Held {
    let none: Arc<str> = Arc::default();
    Held {
        request: row.request,
        attempt: row.attempt,
        subject: Subject::of_key(UNKNOWN, "", "", ""),
        dialect: Arc::clone(&none),
        requested: Arc::clone(&none),
        model: Arc::from(row.model.as_str()),
        endpoint: Arc::from(bill.endpoint()),
        tier: Tier::Fast,
        reason: Arc::from("bill"),
        score_milli: None,
        stream: false,
        held_at_ms: row.request.unix_ms(),
        bound: NanoUsd::ZERO,
        bound_usage: Usage::default(),
        price: Arc::from("bill"),
        losses: Arc::clone(&none),
        session: 0,
        lane: none,
        book: Arc::default(),
        escalated: std::sync::Arc::default(),
        charges: Vec::new(),
        routing: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(day: i64, model: &str, tokens: i64, cost: i64, unpriced: i64) -> BillDay {
        BillDay {
            day_ms: day * DAY_MS,
            endpoint: "e".into(),
            model: model.into(),
            tokens: Some([tokens, 0, tokens]),
            requests: 1,
            cost: Some(NanoUsd(cost)),
            unpriced,
        }
    }

    #[test]
    fn each_difference_has_its_cause() {
        let bill = [
            line(1, "same", 5, 50, 0),
            line(1, "shift", 7, 70, 0),
            line(2, "shift", 3, 30, 0),
            line(1, "dear", 5, 60, 0),
            line(1, "free", 5, 60, 0),
            line(1, "more", 9, 90, 0),
            line(1, "lost", 1, 10, 0),
        ];
        let own = [
            line(1, "same", 5, 50, 0),
            line(1, "shift", 5, 50, 0),
            line(2, "shift", 5, 50, 0),
            line(1, "dear", 5, 50, 0),
            line(1, "free", 5, 0, 1),
            line(1, "more", 5, 50, 0),
            line(1, "ghost", 5, 50, 0),
            line(9, "unbilled", 5, 50, 0),
        ];
        let found = compare(&bill, &own, &|e| Some(e.to_owned()), 100 * DAY_MS);
        let causes: Vec<(&str, Cause)> = found
            .drifts
            .iter()
            .map(|d| (d.model.as_str(), d.cause))
            .collect();
        let expected = [
            ("dear", Cause::PriceDiffers),
            ("free", Cause::Unpriced),
            ("ghost", Cause::UnknownThere),
            ("lost", Cause::MissingHere),
            ("more", Cause::TokensDiffer),
            ("same", Cause::Nothing),
            ("shift", Cause::Timing),
            ("shift", Cause::Timing),
        ];
        assert_eq!(causes, expected);
        assert_eq!(found.captures[0].ratio_ppm, 810_811);
    }
}
