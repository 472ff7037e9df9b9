//! The desk at which the books are kept: re-rating, late usage, bills, with prices at hand. Commands and
//! the admin API both work through it.

pub(crate) mod export;
mod focus;
pub(crate) mod import;
mod parquet;
pub(crate) mod prices;
pub(crate) mod render;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use meter::books::bill::{self, BillRow, Imported, Verdict};
use meter::books::change::Change;
use meter::books::statement::{Month, hex};
use meter::books::{Balance, Books, Correction, Kind, Span};
use meter::{Held, NanoUsd, Outcome};
use sha2::{Digest, Sha256};
use wire::{RequestId, Usage, UsageSource};

use prices::Prices;

/// Attempts read, and corrected, at a time.
const PAGE: u32 = 500;

/// The books, and what things cost.
#[derive(Debug, Clone)]
pub(crate) struct Desk {
    pub(crate) books: Arc<dyn Books>,
    pub(crate) prices: Arc<Prices>,
}

/// What re-rating would do, or did, for one model and month.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Effect {
    pub(crate) calls: u64,
    /// Of them, those whose month is closed for their tenant, which stay as they are.
    pub(crate) closed: u64,
    pub(crate) before: NanoUsd,
    pub(crate) after: NanoUsd,
}

/// The counts of a usage, as refusals name them.
const COUNTS: &str = "write what the attempt used in all, of input, cache_read, cache_write_5m, cache_write_1h, output, \
                      reasoning, audio_input, audio_output and web_searches";

/// Usage that became known late, as a person or a program tells it.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Late {
    pub(crate) attempt: u16,
    /// What the attempt used in all, not the difference.
    pub(crate) usage: Stated,
    pub(crate) reason: String,
    #[serde(default)]
    pub(crate) reference: String,
    #[serde(default)]
    pub(crate) author: String,
    /// The same for the same fact; made from the rest if absent.
    #[serde(default)]
    pub(crate) id: Option<String>,
}

/// A usage as somebody states it: a slip of the pen must not make a call free.
#[derive(Debug, Clone, Copy, serde::Deserialize)]
#[serde(try_from = "BTreeMap<String, u64>")]
pub(crate) struct Stated(pub(crate) Usage);

impl TryFrom<BTreeMap<String, u64>> for Stated {
    type Error = String;

    fn try_from(counts: BTreeMap<String, u64>) -> Result<Self, String> {
        let mut usage = Usage::default();
        for (name, count) in &counts {
            let place = match name.as_str() {
                "input" => &mut usage.input,
                "cache_read" => &mut usage.cache_read,
                "cache_write_5m" => &mut usage.cache_write_5m,
                "cache_write_1h" => &mut usage.cache_write_1h,
                "output" => &mut usage.output,
                "reasoning" => &mut usage.reasoning,
                "audio_input" => &mut usage.audio_input,
                "audio_output" => &mut usage.audio_output,
                "web_searches" => &mut usage.web_searches,
                _ => return Err(format!("`{name}` is no count of a usage; {COUNTS}")),
            };
            if *count > wire::usage::MOST {
                let most = wire::usage::MOST;
                return Err(format!(
                    "`{name}` is {count}, and no call uses more than {most}"
                ));
            }
            *place = *count;
        }
        if counts.is_empty() {
            return Err(format!("the usage is empty; {COUNTS}"));
        }
        Ok(Self(usage))
    }
}

impl Desk {
    /// Looks at every attempt of `span` as it stands, in the order of the ledger.
    pub(crate) fn each_balance(
        &self,
        span: &Span,
        mut look: impl FnMut(&Balance),
    ) -> anyhow::Result<()> {
        let mut after = 0;
        loop {
            let page = self.books.balances(span, after, PAGE)?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = last.seq;
            page.iter().for_each(&mut look);
        }
    }

    /// Prices entries of `span` anew and writes the differences, unless it is a rehearsal.
    pub(crate) fn rerate(
        &self,
        span: &Span,
        rehearsal: bool,
        now_ms: i64,
    ) -> anyhow::Result<BTreeMap<(String, Month), Effect>> {
        let closed: HashSet<(String, Month)> = self
            .books
            .statements(None)?
            .into_iter()
            .map(|statement| (statement.tenant, statement.month))
            .collect();
        let mut effects: BTreeMap<(String, Month), Effect> = BTreeMap::new();
        let mut after = 0;
        loop {
            let page = self.books.balances(span, after, PAGE)?;
            let Some(last) = page.last() else { break };
            after = last.seq;
            let mut wanted = Vec::new();
            for balance in &page {
                let Some(correction) = self.rerated(balance, now_ms) else {
                    continue;
                };
                let held = &balance.entry.held;
                let month = Month::of(held.held_at_ms);
                let effect = effects.entry((held.model.to_string(), month)).or_default();
                if closed.contains(&(held.subject.tenant.to_string(), month)) {
                    effect.closed += 1;
                    continue;
                }
                effect.calls += 1;
                effect.before += balance.now.cost;
                effect.after += balance.now.cost + correction.change.cost;
                wanted.push((held.request, held.attempt));
            }
            if !rehearsal && !wanted.is_empty() {
                let keys: HashSet<(RequestId, u16)> = wanted.iter().copied().collect();
                self.books.adjust(&wanted, &|found, _| {
                    found
                        .iter()
                        .filter(|it| keys.contains(&key(it)))
                        .filter_map(|it| self.rerated(it, now_ms))
                        .collect()
                })?;
            }
        }
        Ok(effects)
    }

    /// The correction that brings an attempt to the price in force at its time; `None` where it has it,
    /// where there is none, and where a bill or a bound stands for it.
    fn rerated(&self, balance: &Balance, now_ms: i64) -> Option<Correction> {
        let entry = &balance.entry;
        let is_measured = balance.settled
            && entry.outcome != Outcome::Failed
            && balance.source != UsageSource::Estimated
            && !balance.kinds.contains(&Kind::Reconcile);
        if !is_measured {
            return None;
        }
        let rated = self.prices.rate(entry, &balance.now.usage())?;
        if rated.cost == balance.now.cost {
            return None;
        }
        let mut change = balance.now.costing(rated.cost).minus(&balance.now);
        // A fast call's alternative did not become dearer with it.
        if balance.now.baseline != balance.now.cost {
            change.baseline = NanoUsd::ZERO;
        }
        Some(Correction {
            kind: Kind::Rerate,
            change,
            price: rated.price.clone(),
            book: self.prices.version().to_owned(),
            reason: format!("priced by {} before", shown(&balance.price)),
            reference: format!("book {}", self.prices.version()),
            author: "rerate".to_owned(),
            ..empty(
                format!(
                    "rerate:{}:{}:{}:{}",
                    entry.held.request,
                    entry.held.attempt,
                    rated.price,
                    balance.kinds.len()
                ),
                entry.held.request,
                entry.held.attempt,
                now_ms,
            )
        })
    }

    /// Writes down what an attempt used in all, at the prices it has. Returns whether it was new.
    pub(crate) fn late(
        &self,
        request: RequestId,
        late: &Late,
        now_ms: i64,
    ) -> anyhow::Result<bool> {
        ensure!(!late.reason.is_empty(), "`reason` is empty; say why");
        let text = serde_json::to_string(&late.usage.0)?;
        let id = late.id.clone().unwrap_or_else(|| {
            let all = format!(
                "{request}/{}/{text}/{}/{}",
                late.attempt, late.reason, late.reference
            );
            format!("late:{}", digest(all.as_bytes()))
        });
        // Why nothing was planned, where nothing was.
        let refusal = std::cell::Cell::new(None);
        let plan = |found: &[Balance], _: &[Held]| {
            let it = found
                .iter()
                .find(|it| it.entry.held.attempt == late.attempt);
            let Some(it) = it else {
                refusal.set(Some("there is no such attempt in the ledger"));
                return Vec::new();
            };
            let mut usage = it.now;
            usage.counts = meter::books::change::counts(&late.usage.0);
            let cost = match it.price.as_str() {
                "" => Some(NanoUsd::ZERO),
                price => self.prices.cost(price, &late.usage.0),
            };
            let Some(cost) = cost else {
                refusal.set(Some("its price is in no book; give it a [[price]]"));
                return Vec::new();
            };
            vec![Correction {
                kind: Kind::Late,
                change: usage.costing(cost).minus(&it.now),
                author: late.author.clone(),
                reason: late.reason.clone(),
                reference: late.reference.clone(),
                source: Some(UsageSource::Provider),
                ..empty(id.clone(), request, late.attempt, now_ms)
            }]
        };
        let wanted = [(request, late.attempt)];
        let written = self.books.adjust(&wanted, &plan)?;
        if let Some(refusal) = refusal.get() {
            bail!("attempt {} of call {request}: {refusal}", late.attempt);
        }
        Ok(written > 0)
    }

    /// Makes every attempt on a bill by request equal to its line, and takes back what a complete bill
    /// does not have. Returns how many corrections were written.
    pub(crate) fn apply(&self, bill: &Imported, now_ms: i64) -> anyhow::Result<usize> {
        ensure!(
            bill.rows_count > 0,
            "bill {} has no lines by request; it can be reported only",
            bill.id
        );
        let mut billed: HashSet<(RequestId, u16)> = HashSet::new();
        let mut written = 0;
        let mut after = None;
        loop {
            let rows = self.books.bill_rows(&bill.id, after, PAGE)?;
            let Some(last) = rows.last() else { break };
            after = Some((last.request, last.attempt));
            let wanted: Vec<_> = rows.iter().map(|row| (row.request, row.attempt)).collect();
            billed.extend(&wanted);
            written += self.books.adjust(&wanted, &|found, open| {
                equal(bill, &rows, found, open, now_ms)
            })?;
        }
        if bill.complete {
            written += self.take_back(bill, &billed, now_ms)?;
        }
        Ok(written)
    }

    fn take_back(
        &self,
        bill: &Imported,
        billed: &HashSet<(RequestId, u16)>,
        now_ms: i64,
    ) -> anyhow::Result<usize> {
        let span = Span {
            from_ms: bill.from_ms,
            until_ms: bill.until_ms,
            endpoints: bill.endpoints.clone(),
            ..Span::default()
        };
        let (mut written, mut after) = (0, 0);
        loop {
            let page = self.books.balances(&span, after, PAGE)?;
            let Some(last) = page.last() else { break };
            after = last.seq;
            let stray: Vec<(RequestId, u16)> = page
                .iter()
                .map(key)
                .filter(|key| !billed.contains(key))
                .collect();
            if stray.is_empty() {
                continue;
            }
            written += self.books.adjust(&stray, &|found, _| {
                let mine = found.iter().filter(|it| stray.contains(&key(it)));
                mine.filter_map(|it| bill::unbilled(bill, it, now_ms))
                    .collect()
            })?;
        }
        Ok(written)
    }

    /// Holds all bills of a span against the ledger, and keeps what was found.
    pub(crate) fn report(
        &self,
        from_ms: i64,
        until_ms: i64,
        now_ms: i64,
    ) -> anyhow::Result<Verdict> {
        let bills = self.books.bill_days(from_ms, until_ms)?;
        let own = self.books.own_days(from_ms, until_ms)?;
        let known = self.books.bills()?;
        let home = |endpoint: &str| {
            let bill = known
                .iter()
                .find(|bill| bill.endpoints.iter().any(|it| it == endpoint));
            bill.map(|bill| bill.endpoint().to_owned())
        };
        let verdict = bill::compare(&bills, &own, &home, now_ms);
        self.books
            .keep_verdict(&verdict)
            .context("keeping the report")?;
        Ok(verdict)
    }
}

fn equal(
    bill: &Imported,
    rows: &[BillRow],
    found: &[Balance],
    open: &[Held],
    now_ms: i64,
) -> Vec<Correction> {
    let known: BTreeMap<(RequestId, u16), &Balance> =
        found.iter().map(|it| (key(it), it)).collect();
    rows.iter()
        .filter_map(|row| {
            let at = (row.request, row.attempt);
            let open = open.iter().find(|held| (held.request, held.attempt) == at);
            bill::equal(bill, row, known.get(&at).copied(), open, now_ms)
        })
        .collect()
}

fn key(balance: &Balance) -> (RequestId, u16) {
    (balance.entry.held.request, balance.entry.held.attempt)
}

fn shown(price: &str) -> &str {
    if price.is_empty() { "nothing" } else { price }
}

/// The first digits of a SHA-256, for ids.
pub(crate) fn digest(bytes: &[u8]) -> String {
    hex(Sha256::digest(bytes).get(..12).unwrap_or_default())
}

/// A correction that changes nothing yet.
fn empty(id: String, request: RequestId, attempt: u16, at_ms: i64) -> Correction {
    Correction {
        id,
        kind: Kind::Correct,
        rev: 0,
        request,
        attempt,
        author: String::new(),
        reason: String::new(),
        reference: String::new(),
        at_ms,
        change: Change::default(),
        price: String::new(),
        book: String::new(),
        source: None,
        held: None,
    }
}
