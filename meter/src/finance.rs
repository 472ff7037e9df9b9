//! The questions that finance asks of the ledger, and the small types the answers come in. All sums come
//! from rollups; `store` implements the port.

use serde::{Deserialize, Serialize};
use wire::Usage;

use crate::books::Capture;
use crate::ledger::Dimension;
use crate::{LedgerError, NanoUsd, Override, Standing};

/// Which part of the use is meant. Times are milliseconds since 1970; `until_ms` is exclusive. A name
/// that is `Some("")` means calls that name none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Filter {
    pub from_ms: i64,
    pub until_ms: i64,
    pub tenant: Option<String>,
    pub team: Option<String>,
    pub project: Option<String>,
    pub key: Option<String>,
    pub workflow: Option<String>,
    pub model: Option<String>,
    /// The configured endpoint: the provider.
    pub endpoint: Option<String>,
    pub tier: Option<String>,
    pub lane: Option<String>,
}

/// What can be filtered by, in the order in which pages show it.
pub const FILTERED: [Dimension; 9] = [
    Dimension::Tenant,
    Dimension::Team,
    Dimension::Project,
    Dimension::Key,
    Dimension::Workflow,
    Dimension::Endpoint,
    Dimension::Model,
    Dimension::Tier,
    Dimension::Lane,
];

impl Filter {
    /// What `dimension` must be, where anything must.
    pub fn named(&self, dimension: Dimension) -> Option<&str> {
        match dimension {
            Dimension::Tenant => self.tenant.as_deref(),
            Dimension::Team => self.team.as_deref(),
            Dimension::Project => self.project.as_deref(),
            Dimension::Key => self.key.as_deref(),
            Dimension::Workflow => self.workflow.as_deref(),
            Dimension::Model => self.model.as_deref(),
            Dimension::Endpoint => self.endpoint.as_deref(),
            Dimension::Tier => self.tier.as_deref(),
            Dimension::Lane => self.lane.as_deref(),
            Dimension::User | Dimension::Price | Dimension::Day | Dimension::Hour => None,
        }
    }

    /// The same with `dimension` as named; dimensions that can not be filtered by change nothing.
    #[must_use]
    pub fn with(mut self, dimension: Dimension, name: Option<String>) -> Self {
        match dimension {
            Dimension::Tenant => self.tenant = name,
            Dimension::Team => self.team = name,
            Dimension::Project => self.project = name,
            Dimension::Key => self.key = name,
            Dimension::Workflow => self.workflow = name,
            Dimension::Model => self.model = name,
            Dimension::Endpoint => self.endpoint = name,
            Dimension::Tier => self.tier = name,
            Dimension::Lane => self.lane = name,
            Dimension::User | Dimension::Price | Dimension::Day | Dimension::Hour => {}
        }
        self
    }

    /// The same over another time.
    #[must_use]
    pub fn over(mut self, from_ms: i64, until_ms: i64) -> Self {
        self.from_ms = from_ms;
        self.until_ms = until_ms;
        self
    }
}

/// Which amount is looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum View {
    /// What providers get.
    #[default]
    Cost,
    /// What tenants pay.
    Sell,
    /// What is left between the two.
    Margin,
}

/// How finely time is cut where rows come by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Grain {
    /// Days in UTC.
    Day,
    /// Hours, from which days of any time zone can be put together.
    Hour,
}

/// Sums over some attempts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    pub calls: i64,
    /// Attempts that the upstream refused, which cost nothing.
    pub failed: i64,
    /// Attempts whose tokens the gateway counted itself.
    pub counted: i64,
    /// Attempts that are charged at their bound.
    pub estimated: i64,
    /// Attempts without a price.
    pub unpriced: i64,
    /// Attempts after the first of their call.
    pub retries: i64,
    pub usage: Usage,
    pub cost: NanoUsd,
    /// At list prices, before discounts of one's own.
    pub list: NanoUsd,
    pub sell: NanoUsd,
    /// The same usage at the deep tier.
    pub baseline: NanoUsd,
    /// What the providers' caches saved, less the premium of their writes.
    pub cache_saved: NanoUsd,
    /// The part of `cost` that is charged at bounds.
    pub estimated_cost: NanoUsd,
    /// The part of `cost` that retries caused.
    pub retry_cost: NanoUsd,
    /// The part of `cost` whose answers did not arrive whole.
    pub wasted_cost: NanoUsd,
    /// What corrections changed, inside `cost`.
    pub corrected: NanoUsd,
    /// What attempts may cost beyond what was counted, until a bill tells; not inside `cost`.
    pub suspense: NanoUsd,
}

impl Sums {
    /// The amount that `view` looks at.
    pub fn amount(&self, view: View) -> NanoUsd {
        match view {
            View::Cost => self.cost,
            View::Sell => self.sell,
            View::Margin => self.sell - self.cost,
        }
    }

    /// What routing saved against the deep tier.
    pub fn routed(&self) -> NanoUsd {
        self.baseline - self.cost
    }

    /// Takes `more` in.
    pub fn add(&mut self, more: &Self) {
        for (sum, more) in [
            (&mut self.calls, more.calls),
            (&mut self.failed, more.failed),
            (&mut self.counted, more.counted),
            (&mut self.estimated, more.estimated),
            (&mut self.unpriced, more.unpriced),
            (&mut self.retries, more.retries),
        ] {
            *sum = sum.saturating_add(more);
        }
        for (sum, more) in [
            (&mut self.usage.input, more.usage.input),
            (&mut self.usage.cache_read, more.usage.cache_read),
            (&mut self.usage.cache_write_5m, more.usage.cache_write_5m),
            (&mut self.usage.cache_write_1h, more.usage.cache_write_1h),
            (&mut self.usage.output, more.usage.output),
            (&mut self.usage.reasoning, more.usage.reasoning),
            (&mut self.usage.audio_input, more.usage.audio_input),
            (&mut self.usage.audio_output, more.usage.audio_output),
            (&mut self.usage.web_searches, more.usage.web_searches),
        ] {
            *sum = sum.saturating_add(more);
        }
        for (sum, more) in [
            (&mut self.cost, more.cost),
            (&mut self.list, more.list),
            (&mut self.sell, more.sell),
            (&mut self.baseline, more.baseline),
            (&mut self.cache_saved, more.cache_saved),
            (&mut self.estimated_cost, more.estimated_cost),
            (&mut self.retry_cost, more.retry_cost),
            (&mut self.wasted_cost, more.wasted_cost),
            (&mut self.corrected, more.corrected),
            (&mut self.suspense, more.suspense),
        ] {
            *sum += more;
        }
    }
}

/// One group of a table of sums.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    /// The start of its day or hour where it is grouped by time; 0 otherwise.
    pub at_ms: i64,
    /// The value of each other dimension asked for, in order.
    pub group: Vec<String>,
    pub sums: Sums,
}

/// How many calls of one group cost how much, for percentiles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The value of the dimension asked for; empty where there was none.
    pub group: String,
    /// See [`crate::money::step`].
    pub step: i64,
    pub calls: i64,
}

/// Tasks of one workflow that ended in one way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tasks {
    pub workflow: String,
    /// `open` until somebody tells how it ended; [`Tasks::succeeded`] knows the words for a success.
    pub outcome: String,
    pub tasks: i64,
    pub calls: i64,
    pub cost: NanoUsd,
    pub sell: NanoUsd,
    pub baseline: NanoUsd,
    /// The part that each tier answered.
    pub fast_calls: i64,
    pub fast_cost: NanoUsd,
    pub deep_calls: i64,
    pub deep_cost: NanoUsd,
}

impl Tasks {
    /// Whether these ended well: `completed` is the word of tasks that run here.
    pub fn succeeded(&self) -> bool {
        matches!(
            self.outcome.as_str(),
            "success" | "succeeded" | "ok" | "completed"
        )
    }

    /// Whether nobody has told yet how these ended.
    pub fn open(&self) -> bool {
        matches!(self.outcome.as_str(), "" | "open")
    }
}

/// How many tasks cost at most so much, but more than the bound before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bin {
    pub workflow: String,
    /// The place of the bound in [`BINS`]; one more than the last for what is above.
    pub bin: usize,
    pub tasks: i64,
    /// The dearest of them.
    pub most: NanoUsd,
}

/// Upper bounds of a histogram of tasks by cost, in nano-USD: 1, 2, 5 of each power of ten.
pub const BINS: [i64; 16] = [
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
    1_000_000_000,
    2_000_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// What a budget decided in one hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    pub at_ms: i64,
    pub tenant: String,
    pub budget: String,
    /// `wait`, `degrade`, `deny` or `unavailable`.
    pub decision: String,
    pub calls: i64,
}

/// Use under one price.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Priced {
    /// Offer, period, lane; empty where there was none.
    pub price: String,
    pub model: String,
    pub lane: String,
    /// The number of prompt tokens above which it holds; 0 for the base prices.
    pub context_tier: i64,
    pub first_ms: i64,
    pub last_ms: i64,
    pub sums: Sums,
}

/// Holds that nothing has settled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Open {
    pub holds: i64,
    /// When the ledger last took a call in, in milliseconds since 1970; 0 in an empty one.
    pub latest_ms: i64,
}

/// A month of a tenant that was closed. A month without one is a draft.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    pub tenant: String,
    /// Written `2026-11`; months of statements are those of UTC.
    pub month: String,
    /// Counts the tenant's statements.
    pub number: u32,
    pub closed_at_ms: i64,
    /// Everything that was used, the rounding line among it.
    pub sell: NanoUsd,
    /// Of it, what waits for a provider's bill.
    pub suspense: NanoUsd,
    /// What became known of earlier months.
    pub notes: NanoUsd,
    pub credits: NanoUsd,
    pub rounding: NanoUsd,
    pub due: NanoUsd,
    /// The digest of the document.
    pub hash: String,
}

/// What a provider's bill and the ledger say of one model's day, in UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconciled {
    pub day_ms: i64,
    pub provider: String,
    pub model: String,
    pub billed: NanoUsd,
    pub booked: NanoUsd,
    /// Why they differ, where a reconciliation has looked; else empty.
    pub cause: String,
}

/// What the router decided for some calls, and what that cost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Routed {
    pub tenant: String,
    pub class: String,
    pub step: String,
    pub tier: String,
    pub reason: String,
    pub calls: i64,
    /// Their upstream attempts: later ones stand in a row of their own tier and reason. Escalations that
    /// failed are left out, because the fast answer before them was given.
    pub attempts: i64,
    pub cost: NanoUsd,
    /// The same usage at the deep tier.
    pub baseline: NanoUsd,
    /// What changes of the model lost by prompt caches.
    pub lost: NanoUsd,
}

/// Sums of some decisions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RoutedSum {
    pub calls: i64,
    /// Calls that the deep tier answered, or was asked to.
    pub deep: i64,
    pub cost: NanoUsd,
    pub baseline: NanoUsd,
    pub lost: NanoUsd,
}

impl RoutedSum {
    /// Takes a row in.
    pub fn add(&mut self, row: &Routed) {
        // A call that escalated is a deep one, though its first attempt was not.
        let deep = match (row.tier.as_str(), row.reason.as_str()) {
            ("deep", "escalated") => row.attempts,
            ("deep", _) => row.calls,
            _ => 0,
        };
        self.calls = self.calls.saturating_add(row.calls);
        self.deep = self.deep.saturating_add(deep);
        self.cost += row.cost;
        self.baseline += row.baseline;
        self.lost += row.lost;
    }

    /// What routing saved against the deep tier.
    pub fn saved(&self) -> NanoUsd {
        self.baseline - self.cost
    }
}

/// Rows of the ledger beside settled entries, of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// `rerate`, `late`, `reconcile`, `correct`; `orphaned` for holds that nobody settled.
    pub kind: String,
    pub rows: i64,
    pub cost: NanoUsd,
    pub sell: NanoUsd,
}

/// A budget with what it covers, for the pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowance {
    pub standing: Standing,
    /// What it sums; the times are not set. `None` where rollups do not tell (users, tasks).
    pub scope: Option<Filter>,
}

/// The values that each of [`FILTERED`] has had, for people to choose from.
pub type Choices = Vec<Vec<String>>;

/// What pages ask. All methods block; call them off the reactor.
pub trait Finance: Send + Sync + std::fmt::Debug {
    /// Sums by `by`, in which `Day` and `Hour` both mean `grain`.
    fn sums(
        &self,
        filter: &Filter,
        by: &[Dimension],
        grain: Grain,
    ) -> Result<Vec<Line>, LedgerError>;

    /// The same, but of calls, cost, sell and baseline alone: faster over long times. The other sums are 0.
    fn amounts(
        &self,
        filter: &Filter,
        by: &[Dimension],
        grain: Grain,
    ) -> Result<Vec<Line>, LedgerError>;

    /// Calls by what they cost; of the filter, only days, tenant and model are heard, because no
    /// more is kept. `by` is tenant or model.
    fn steps(&self, filter: &Filter, by: Option<Dimension>) -> Result<Vec<Step>, LedgerError>;

    /// Tasks that began in the filter's time, by workflow and outcome; of the filter, tenant, team,
    /// project and workflow are heard.
    fn tasks(&self, filter: &Filter) -> Result<Vec<Tasks>, LedgerError>;

    /// The same tasks by what they cost.
    fn bins(&self, filter: &Filter) -> Result<Vec<Bin>, LedgerError>;

    /// What budgets decided, newest hour first, at most `limit` rows.
    fn decisions(
        &self,
        filter: &Filter,
        budget: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Decided>, LedgerError>;

    /// Use by price.
    fn priced(&self, filter: &Filter) -> Result<Vec<Priced>, LedgerError>;

    /// Settled amounts of the latest windows of a budget, newest first: start and amount.
    fn history(&self, budget: &str, limit: u32) -> Result<Vec<(i64, i64)>, LedgerError>;

    /// Open holds and how fresh the ledger is.
    fn open(&self) -> Result<Open, LedgerError>;

    /// The latest entries, newest first.
    fn recent(&self, limit: u32) -> Result<Vec<crate::Entry>, LedgerError>;

    /// What there is to filter by since `from_ms`.
    fn choices(&self, from_ms: i64) -> Result<Choices, LedgerError>;

    /// Statements that were closed, of months that begin in the filter's time; of the filter, the tenant
    /// is heard, too.
    fn statements(&self, filter: &Filter) -> Result<Vec<Statement>, LedgerError>;

    /// What providers' bills say of each day; of the filter, provider and model are heard.
    fn reconciled(&self, filter: &Filter) -> Result<Vec<Reconciled>, LedgerError>;

    /// How much of each provider's bills the ledger had, when they were last held against it.
    fn captured(&self) -> Result<Vec<Capture>, LedgerError>;

    /// Corrections by kind, and holds that nobody settled, of calls in the filter's time.
    fn changed(&self, filter: &Filter) -> Result<Vec<Changed>, LedgerError>;

    /// What the router decided in the days that the filter's time touches; of the filter, the tenant is
    /// heard, too.
    fn routes(&self, filter: &Filter) -> Result<Vec<Routed>, LedgerError>;

    /// Calls whose tier was drawn by lot, newest first, at most `limit`; of the filter, time and tenant
    /// are heard.
    fn drawn(&self, filter: &Filter, limit: u32) -> Result<Vec<crate::Entry>, LedgerError>;

    /// Dated changes of a budget's limit, newest first.
    fn changes(&self, budget: &str) -> Result<Vec<Override>, LedgerError>;
}
