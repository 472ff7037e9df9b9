//! The books: corrections of entries, providers' bills, statements, credits, and what is told of them.
//! The port to their storage is [`Books`]; entries are never changed, every correction is a row of its own.

pub mod bill;
pub mod change;
pub mod split;
pub mod statement;

use wire::{RequestId, UsageSource};

use crate::books::bill::{BillDay, BillRow, Drift, Imported, Verdict};
use crate::books::change::Change;
use crate::books::statement::{Grant, Month, Posting, Statement};
use crate::sell::{MonthUse, SellLine};
use crate::{Entry, Held, LedgerError, NanoUsd};
use serde::{Deserialize, Serialize};

/// Why a correction was made; each kind has revisions of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The price changed, or there was none.
    Rerate,
    /// Usage that became known after the call was settled, or of a call that is not here.
    Late,
    /// The provider's bill says otherwise.
    Reconcile,
    /// A person says otherwise.
    Correct,
}

impl Kind {
    /// The word in the ledger.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rerate => "rerate",
            Self::Late => "late",
            Self::Reconcile => "reconcile",
            Self::Correct => "correct",
        }
    }
}

/// What a correction adds to an entry. It never changes the entry itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Correction {
    /// The same for the same correction, however often it is delivered.
    pub id: String,
    pub kind: Kind,
    /// Its number among those of its kind for the same attempt; given when it is written.
    #[serde(default)]
    pub rev: u32,
    pub request: RequestId,
    pub attempt: u16,
    /// Who made it.
    pub author: String,
    pub reason: String,
    /// A bill, a ticket, a price book.
    pub reference: String,
    pub at_ms: i64,
    pub change: Change,
    /// What rates it from now on; empty where that stays.
    #[serde(default)]
    pub price: String,
    #[serde(default)]
    pub book: String,
    /// Where its usage figures come from now, where that changes.
    #[serde(default)]
    pub source: Option<UsageSource>,
    /// What is known of a call that has no entry.
    #[serde(default)]
    pub held: Option<Box<Held>>,
}

/// One attempt as it stands: its entry, and every correction of it added up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balance {
    /// The entry as it was settled; made of the first `late` correction where there is none.
    pub entry: Entry,
    pub settled: bool,
    pub seq: i64,
    /// Usage and money as they stand.
    pub now: Change,
    pub price: String,
    pub source: UsageSource,
    /// The kinds of its corrections, oldest first.
    pub kinds: Vec<Kind>,
}

impl Balance {
    /// What it costs as it stands.
    pub fn cost(&self) -> NanoUsd {
        self.now.cost
    }
}

/// Which entries are asked for; times are of their holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Span {
    pub from_ms: i64,
    pub until_ms: i64,
    pub tenant: Option<String>,
    pub model: Option<String>,
    pub endpoints: Vec<String>,
}

/// A value of an exported row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Cell {
    Null,
    Int(i64),
    Text(String),
}

/// Entries and corrections of one hour and one of everything else, added up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub start_ms: i64,
    pub tenant: String,
    pub team: String,
    pub project: String,
    pub key: String,
    pub model: String,
    pub endpoint: String,
    pub lane: String,
    pub price: String,
    pub context_tier: u64,
    /// `settle`, or the kind of correction.
    pub kind: String,
    pub source: String,
    pub rows: u64,
    pub change: Change,
}

/// Something of the outbox that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    pub id: String,
    pub topic: String,
    pub payload: String,
    pub created_at_ms: i64,
    /// How often it was tried before.
    pub attempts: u32,
}

/// How much of a provider's bill the ledger has, by endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Capture {
    pub endpoint: String,
    /// Ledger against bill, in millionths: 1,000,000 is all of it.
    pub ratio_ppm: i64,
    pub reconciled_at_ms: i64,
}

/// What to do with the balances that a change was asked for; open holds come along.
pub type Plan<'a> = &'a dyn Fn(&[Balance], &[Held]) -> Vec<Correction>;

/// Unit prices by price id and context tier, in pico-USD for each class of [`change::CLASSES`].
pub type Units<'a> = &'a dyn Terms;

/// What a statement asks of the prices and plans in force.
pub trait Terms {
    /// Pico-USD for one of each class, at a price id and context tier; `None` where nobody knows.
    fn units(&self, price: &str, context_tier: u64) -> Option<[i64; 9]>;

    /// What a tenant's plan adds to what its calls sum up to: fees, credits, rules that go by the month.
    fn plan(&self, _tenant: &str, _used: &MonthUse) -> Vec<SellLine> {
        Vec::new()
    }
}

impl<F: Fn(&str, u64) -> Option<[i64; 9]>> Terms for F {
    fn units(&self, price: &str, context_tier: u64) -> Option<[i64; 9]> {
        self(price, context_tier)
    }
}

/// The port to the books' storage. All methods block; call them off the reactor.
pub trait Books: Send + Sync + std::fmt::Debug {
    /// Reads attempts and writes what `plan` makes of them, in one transaction. Returns how many
    /// corrections are new; those whose id is there change nothing.
    fn adjust(&self, wanted: &[(RequestId, u16)], plan: Plan<'_>) -> Result<usize, LedgerError>;

    /// Corrections of one call, oldest first.
    fn corrections(&self, request: RequestId) -> Result<Vec<Correction>, LedgerError>;

    /// Attempts as they stand, in order of their entries, behind sequence number `after`.
    fn balances(&self, span: &Span, after: i64, limit: u32) -> Result<Vec<Balance>, LedgerError>;

    /// Entries and corrections as rows of [`EVENT_COLUMNS`], behind sequence number `after`.
    fn events(&self, span: &Span, after: i64, limit: u32) -> Result<Vec<Vec<Cell>>, LedgerError>;

    /// Entries and corrections added up by hour and everything else.
    fn groups(&self, span: &Span) -> Result<Vec<Group>, LedgerError>;

    /// Writes down a bill; lines of an earlier one for the same day, endpoint and model are replaced.
    fn import(&self, bill: &Imported) -> Result<(), LedgerError>;

    /// Bills that were imported, newest first.
    fn bills(&self) -> Result<Vec<Imported>, LedgerError>;

    /// The lines of a bill by request, behind `(request, attempt)`, in their order.
    fn bill_rows(
        &self,
        bill: &str,
        after: Option<(RequestId, u16)>,
        limit: u32,
    ) -> Result<Vec<BillRow>, LedgerError>;

    /// Daily lines of all bills in a span of time.
    fn bill_days(&self, from_ms: i64, until_ms: i64) -> Result<Vec<BillDay>, LedgerError>;

    /// The ledger's own sums in the shape of a bill, with what of them has no price.
    fn own_days(&self, from_ms: i64, until_ms: i64) -> Result<Vec<BillDay>, LedgerError>;

    /// Keeps what a reconciliation found: its drifts, and differences that nobody can be charged with.
    fn keep_verdict(&self, verdict: &Verdict) -> Result<(), LedgerError>;

    /// Drifts that were found, by day.
    fn drifts(&self, from_ms: i64, until_ms: i64) -> Result<Vec<Drift>, LedgerError>;

    /// How much of the bills the ledger has, for the metrics.
    fn captures(&self) -> Result<Vec<Capture>, LedgerError>;

    /// Grants a credit; one whose id is there changes nothing.
    fn grant(&self, grant: &Grant) -> Result<bool, LedgerError>;

    /// Credits with what is left of them, in the order in which they are used.
    fn grants(&self, tenant: Option<&str>) -> Result<Vec<Grant>, LedgerError>;

    /// A statement as it would be closed now.
    fn draft(&self, tenant: &str, month: Month, units: Units<'_>)
    -> Result<Statement, LedgerError>;

    /// Closes a month. Refuses when its lines do not add up to its entries, when an earlier month is
    /// open, or when it is closed already.
    fn close(
        &self,
        tenant: &str,
        month: Month,
        at_ms: i64,
        units: Units<'_>,
    ) -> Result<Statement, LedgerError>;

    /// A closed statement.
    fn statement(&self, tenant: &str, month: Month) -> Result<Option<Statement>, LedgerError>;

    /// Closed statements, by tenant and number.
    fn statements(&self, tenant: Option<&str>) -> Result<Vec<Statement>, LedgerError>;

    /// Tenants with entries in a month.
    fn tenants(&self, month: Month) -> Result<Vec<String>, LedgerError>;

    /// What is wrong with the chain of closed statements; nothing where it holds.
    fn verify(&self, tenant: Option<&str>) -> Result<Vec<String>, LedgerError>;

    /// Postings in a span of days.
    fn postings(&self, from_ms: i64, until_ms: i64) -> Result<Vec<Posting>, LedgerError>;

    /// Takes what of the outbox is due, and sets it aside until `lease_ms` from now.
    fn claim(&self, now_ms: i64, lease_ms: i64, limit: u32) -> Result<Vec<Due>, LedgerError>;

    /// Notes that an event has reached its listeners.
    fn delivered(&self, id: &str, at_ms: i64) -> Result<(), LedgerError>;

    /// Notes that an event has not, and when to try again.
    fn failed(&self, id: &str, next_at_ms: i64, error: &str) -> Result<(), LedgerError>;

    /// How far a listener has been told of the entries.
    fn told(&self, listener: &str) -> Result<i64, LedgerError>;

    /// Moves on how far a listener has been told.
    fn tell_up_to(&self, listener: &str, seq: i64) -> Result<(), LedgerError>;
}

/// Columns of an exported entry, and whether they are numbers.
pub const EVENT_COLUMNS: [(&str, bool); 43] = [
    ("seq", true),
    ("request_id", false),
    ("attempt", true),
    ("kind", false),
    ("rev", true),
    ("node", false),
    ("tenant", false),
    ("team", false),
    ("project", false),
    ("key", false),
    ("user_id", false),
    ("task", false),
    ("workflow", false),
    ("dialect", false),
    ("requested", false),
    ("model", false),
    ("endpoint", false),
    ("tier", false),
    ("lane", false),
    ("reason", false),
    ("stream", true),
    ("held_at_ms", true),
    ("settled_at_ms", true),
    ("outcome", false),
    ("status", true),
    ("source", false),
    ("input", true),
    ("cache_read", true),
    ("cache_write_5m", true),
    ("cache_write_1h", true),
    ("output", true),
    ("reasoning", true),
    ("audio_input", true),
    ("audio_output", true),
    ("web_searches", true),
    ("price", false),
    ("book", false),
    ("context_tier", true),
    ("cost_nano", true),
    ("list_nano", true),
    ("sell_nano", true),
    ("baseline_nano", true),
    ("cache_saved_nano", true),
];
