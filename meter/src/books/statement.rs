//! Statements: what a tenant owes for a month, line by line, closed once and chained by their digests.

mod month;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::NanoUsd;
use crate::books::change::{CLASSES, Change};
use crate::books::split::{Split, split};
use crate::books::{Group, Units};
use crate::sell::{MonthUse, SellLine};

pub use month::{Month, ParseMonthError};

/// A statement, draft or closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    pub tenant: String,
    pub month: Month,
    /// Counts the tenant's closed statements; 0 for a draft.
    pub number: u32,
    pub currency: String,
    /// The last entry that it knows.
    pub up_to_seq: i64,
    pub closed_at_ms: Option<i64>,
    /// Lines of the month. Their cost and sell amounts are those of the month's entries, exactly.
    pub lines: Vec<Line>,
    /// Changes of months that were closed before.
    pub notes: Vec<Note>,
    /// What the tenant's plan adds: fees, included credits, rules that go by the month.
    #[serde(default)]
    pub plan: Vec<SellLine>,
    pub credits: Vec<Used>,
    pub totals: Totals,
    /// The digest of the tenant's statement before it.
    pub previous: String,
    /// The digest of this document and of the one before it; not part of the document.
    #[serde(skip)]
    pub hash: String,
}

/// What a line stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineKind {
    Usage,
    /// Amounts that no unit price explains.
    Flat,
    Correction,
    /// Estimates that wait for a bill; they are not due yet.
    Suspense,
    Rounding,
}

impl LineKind {
    /// For tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Flat => "flat",
            Self::Correction => "correction",
            Self::Suspense => "suspense",
            Self::Rounding => "rounding",
        }
    }
}

/// One line: project x model x lane x price x class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    pub kind: LineKind,
    pub project: String,
    pub model: String,
    pub lane: String,
    pub price: String,
    pub context_tier: u64,
    /// A class of usage, or what else is meant.
    pub class: String,
    pub quantity: i64,
    /// Pico-USD for one.
    pub unit_pico: i64,
    pub cost: NanoUsd,
    pub sell: NanoUsd,
    pub margin: NanoUsd,
}

/// A credit or debit note: what became known of a closed month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    pub month: Month,
    /// The number of the statement that it changes.
    pub statement: u32,
    pub kind: String,
    pub rows: u64,
    pub cost: NanoUsd,
    /// Less than nothing for a credit note.
    pub sell: NanoUsd,
}

/// A credit that was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    pub grant: String,
    pub reason: String,
    pub amount: NanoUsd,
}

/// The sums of a statement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    pub cost: NanoUsd,
    pub sell: NanoUsd,
    pub margin: NanoUsd,
    /// Of `sell`, what waits for a bill.
    pub suspense: NanoUsd,
    pub notes: NanoUsd,
    /// What the plan adds; less than nothing where its credits pay for use.
    #[serde(default)]
    pub plan: NanoUsd,
    pub credits: NanoUsd,
    /// Sell less suspense, plus notes and plan, less credits.
    pub due: NanoUsd,
}

/// A credit of a tenant, with what is left of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub id: String,
    pub tenant: String,
    pub amount: NanoUsd,
    pub left: NanoUsd,
    pub from_ms: i64,
    pub until_ms: i64,
    /// Lower is used first.
    pub priority: i64,
    pub reason: String,
    pub author: String,
    pub created_at_ms: i64,
}

/// Where money is, by day.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Posting {
    pub day_ms: i64,
    pub tenant: String,
    pub account: String,
    /// What posted it: a statement or a bill.
    pub source: String,
    pub amount: NanoUsd,
}

/// What a statement is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    pub number: u32,
    pub previous: String,
    pub up_to_seq: i64,
    /// The month's entries; `source` is `suspense` for those that wait for a bill.
    pub groups: Vec<Group>,
    pub notes: Vec<Note>,
    pub grants: Vec<Grant>,
    pub days: Vec<Day>,
}

/// A day's sums: of what is due, and of what is in suspense.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Day {
    pub day_ms: i64,
    pub cost: NanoUsd,
    pub sell: NanoUsd,
    pub suspense: NanoUsd,
}

/// The statement of a tenant's month, as `facts` tell it.
pub fn draft(tenant: &str, month: Month, facts: &Facts, units: Units<'_>) -> Statement {
    let (lines, rounding) = lines(facts, units);
    let mut statement = Statement {
        tenant: tenant.to_owned(),
        month,
        number: facts.number,
        currency: "USD".to_owned(),
        up_to_seq: facts.up_to_seq,
        closed_at_ms: None,
        lines,
        notes: facts.notes.clone(),
        plan: units.plan(tenant, &month_use(facts)),
        credits: Vec::new(),
        totals: Totals::default(),
        previous: facts.previous.clone(),
        hash: String::new(),
    };
    if !rounding.is_nothing() {
        let of = Group::of_rounding();
        statement
            .lines
            .push(line(LineKind::Rounding, &of, "rounding", 1, 0, &rounding));
    }
    let before = statement.sums(NanoUsd::ZERO);
    let mut left = before.due.max(NanoUsd::ZERO);
    for grant in &facts.grants {
        let amount = grant.left.min(left);
        let in_force = grant.from_ms < month.end_ms() && grant.until_ms > month.start_ms();
        if in_force && amount > NanoUsd::ZERO {
            left = left - amount;
            statement.credits.push(Used {
                grant: grant.id.clone(),
                reason: grant.reason.clone(),
                amount,
            });
        }
    }
    let credits = statement.credits.iter().map(|used| used.amount).sum();
    statement.totals = statement.sums(credits);
    statement
}

/// What the month came to, less what waits for a bill.
fn month_use(facts: &Facts) -> MonthUse {
    let mut whole = Change::default();
    let mut calls = 0_u64;
    for group in facts.groups.iter().filter(|it| it.source != "suspense") {
        whole = whole.plus(&group.change);
        if group.kind == "settle" {
            calls = calls.saturating_add(group.rows);
        }
    }
    MonthUse {
        usage: whole.usage(),
        calls,
        cost: whole.cost,
        sold: whole.sell,
    }
}

fn lines(facts: &Facts, units: Units<'_>) -> (Vec<Line>, Change) {
    let mut lines = Vec::new();
    let mut rounding = Change::default();
    for group in &facts.groups {
        if group.source == "suspense" {
            lines.push(line(
                LineKind::Suspense,
                group,
                "estimates",
                rows(group),
                0,
                &group.change,
            ));
        } else if group.kind != "settle" {
            let quantity = rows(group);
            let kind = group.kind.clone();
            lines.push(line(
                LineKind::Correction,
                group,
                &kind,
                quantity,
                0,
                &group.change,
            ));
        } else {
            let prices = units.units(&group.price, group.context_tier);
            let cut = split(&group.change, group.rows, prices);
            usage(group, &cut, &mut lines);
            if cut.is_rounding {
                rounding = rounding.plus(&cut.rest);
            } else {
                lines.push(line(
                    LineKind::Flat,
                    group,
                    "calls",
                    rows(group),
                    0,
                    &cut.rest,
                ));
            }
        }
    }
    (lines, rounding)
}

fn usage(group: &Group, cut: &Split, lines: &mut Vec<Line>) {
    for part in &cut.parts {
        let class = CLASSES.get(part.class).copied().unwrap_or_default();
        let amounts = Change {
            cost: part.cost,
            sell: part.sell,
            ..Change::default()
        };
        let (quantity, unit) = (part.quantity, part.unit_pico);
        lines.push(line(
            LineKind::Usage,
            group,
            class,
            quantity,
            unit,
            &amounts,
        ));
    }
}

fn rows(group: &Group) -> i64 {
    i64::try_from(group.rows).unwrap_or(i64::MAX)
}

fn line(
    kind: LineKind,
    of: &Group,
    class: &str,
    quantity: i64,
    unit_pico: i64,
    amounts: &Change,
) -> Line {
    Line {
        kind,
        project: of.project.clone(),
        model: of.model.clone(),
        lane: of.lane.clone(),
        price: of.price.clone(),
        context_tier: of.context_tier,
        class: class.to_owned(),
        quantity,
        unit_pico,
        cost: amounts.cost,
        sell: amounts.sell,
        margin: amounts.sell - amounts.cost,
    }
}

impl Group {
    /// A sum of nothing.
    fn of_rounding() -> Self {
        Self {
            start_ms: 0,
            tenant: String::new(),
            team: String::new(),
            project: String::new(),
            key: String::new(),
            model: String::new(),
            endpoint: String::new(),
            lane: String::new(),
            price: String::new(),
            context_tier: 0,
            kind: String::new(),
            source: String::new(),
            rows: 0,
            change: Change::default(),
        }
    }
}

impl Statement {
    /// Its sums, from its lines.
    fn sums(&self, credits: NanoUsd) -> Totals {
        let all = |pick: fn(&Line) -> NanoUsd| self.lines.iter().map(pick).sum::<NanoUsd>();
        let (cost, sell) = (all(|line| line.cost), all(|line| line.sell));
        let waits = self
            .lines
            .iter()
            .filter(|line| line.kind == LineKind::Suspense);
        let suspense: NanoUsd = waits.map(|line| line.sell).sum();
        let notes: NanoUsd = self.notes.iter().map(|note| note.sell).sum();
        let plan: NanoUsd = self.plan.iter().map(|line| line.amount).sum();
        Totals {
            cost,
            sell,
            margin: sell - cost,
            suspense,
            notes,
            plan,
            credits,
            due: sell - suspense + notes + plan - credits,
        }
    }

    /// The document as it is kept and hashed.
    ///
    /// # Errors
    /// Never, in practice: every part of it can be written.
    pub fn document(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// Whether its sums are those of its lines.
    pub fn adds_up(&self) -> bool {
        let credits: NanoUsd = self.credits.iter().map(|used| used.amount).sum();
        self.totals == self.sums(credits)
    }

    /// `acme/2026-11`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.tenant, self.month)
    }

    /// The postings of its closing: each day sums to nothing.
    pub fn postings(&self, days: &[Day]) -> Vec<Posting> {
        let mut sums: BTreeMap<(i64, &str), NanoUsd> = BTreeMap::new();
        let mut post = |day: i64, from: &'static str, to: &'static str, amount: NanoUsd| {
            if amount != NanoUsd::ZERO {
                *sums.entry((day, to)).or_default() += amount;
                *sums.entry((day, from)).or_default() += -amount;
            }
        };
        for day in days {
            post(day.day_ms, "provider_payable", "model_cost", day.cost);
            post(day.day_ms, "provider_payable", "suspense", day.suspense);
            post(day.day_ms, "revenue", "receivable", day.sell);
        }
        let last = self.month.end_ms().saturating_sub(86_400_000);
        let rounded = self
            .lines
            .iter()
            .filter(|line| line.kind == LineKind::Rounding);
        let rounding: NanoUsd = rounded.map(|line| line.sell).sum();
        post(last, "rounding", "revenue", rounding);
        post(last, "revenue", "receivable", self.totals.plan);
        post(last, "receivable", "customer_credit", self.totals.credits);
        sums.into_iter()
            .filter(|(_, amount)| *amount != NanoUsd::ZERO)
            .map(|((day_ms, account), amount)| Posting {
                day_ms,
                tenant: self.tenant.clone(),
                account: account.to_owned(),
                source: self.name(),
                amount,
            })
            .collect()
    }
}

/// The digest of a document behind the one before it: SHA-256, in hex.
pub fn seal(previous: &str, document: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(previous.as_bytes());
    hash.update(b"\n");
    hash.update(document.as_bytes());
    hex(&hash.finalize())
}

/// Bytes as lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap_or('0');
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}
