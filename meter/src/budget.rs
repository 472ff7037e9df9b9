//! One budget or rate limit: what it covers, what is spent and held in its window, what it does to
//! calls. The invariant: for a hard one, settled + held <= limit at every instant, over all nodes.

mod check;
mod dated;
mod scope;

use std::collections::VecDeque;
use std::sync::Arc;

use wire::Usage;

use crate::config::{BudgetConfig, Degrade, LimitConfig, Pacing};
use crate::money::{NanoUsd, ParseMoneyError};
use crate::standing::{Standing, Unit};
use crate::window::{Period, Span, Window, WindowError};
use crate::{Held, Subject};

pub use check::{Wrong, check};
pub use dated::BadOverride;
use scope::EACH;
pub(crate) use scope::{Scope, names};

/// What one call adds to a budget: in its hold at most, in its settlement in fact.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Amounts {
    pub(crate) cost: NanoUsd,
    pub(crate) requests: i64,
    pub(crate) tokens: i64,
    pub(crate) under_way: i64,
}

impl Amounts {
    /// What `held` may come to.
    pub(crate) fn held(held: &Held) -> Self {
        Self {
            cost: held.bound,
            requests: i64::from(held.attempt == 0),
            tokens: tokens(&held.bound_usage),
            under_way: 1,
        }
    }

    /// What an attempt of the call came to.
    pub(crate) fn settled(held: &Held, cost: NanoUsd, usage: &Usage) -> Self {
        Self {
            cost,
            requests: i64::from(held.attempt == 0),
            tokens: tokens(usage),
            under_way: 0,
        }
    }

    pub(crate) fn of(&self, unit: Unit) -> i64 {
        match unit {
            Unit::Usd => self.cost.0,
            Unit::Requests => self.requests,
            Unit::Tokens => self.tokens,
            Unit::Concurrency => self.under_way,
        }
    }
}

fn tokens(usage: &Usage) -> i64 {
    i64::try_from(usage.prompt().saturating_add(usage.answer())).unwrap_or(i64::MAX)
}

/// What was spent in one bucket of a window; calendar windows have one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Bucket {
    pub(crate) start_ms: i64,
    /// What was there before this process, and corrections.
    pub(crate) base: i64,
    pub(crate) settled: i64,
    pub(crate) held: i64,
    /// What this node may spend in it, where budgets are leased.
    pub(crate) granted: i64,
    /// What other nodes were granted or have spent, as last seen.
    pub(crate) others: i64,
}

impl Bucket {
    /// What this node has taken of it.
    pub(crate) fn taken(&self) -> i64 {
        self.settled.saturating_add(self.held)
    }
}

/// A dated change of a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// Its own stable name.
    pub id: String,
    /// The budget's id.
    pub budget: String,
    /// What it adds to the limit, in nano-USD; less than nothing to lower it.
    pub amount: i64,
    pub from_ms: i64,
    pub until_ms: i64,
    pub author: String,
    pub reason: String,
    pub created_at_ms: i64,
}

/// A configured limit with its present state.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    pub(crate) id: Arc<str>,
    pub(crate) tenant: Arc<str>,
    pub(crate) name: String,
    pub(crate) scope: Scope,
    pub(crate) unit: Unit,
    pub(crate) window: Window,
    pub(crate) hard: bool,
    pub(crate) limit: i64,
    grace: i64,
    grace_until_ms: Option<i64>,
    pub(crate) borrow: i64,
    pub(crate) thresholds: Vec<u8>,
    pub(crate) degrade: Degrade,
    pub(crate) pacing: Pacing,
    pub(crate) overrides: Vec<Override>,
    /// Oldest first; the last is the one that is spent from.
    pub(crate) buckets: VecDeque<Bucket>,
    /// Buckets still to come in which something was spent: by a clock that ran ahead.
    pub(crate) ahead: Vec<Bucket>,
    pub(crate) span: Span,
    /// No longer configured: kept while holds point at it, checks nothing.
    pub(crate) retired: bool,
    pub(crate) lease: Lease,
    /// The window's start, and the thresholds that were told in it.
    pub(crate) told: (i64, Vec<u8>),
}

/// What a node knows of a budget that it shares with others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lease {
    /// The most that a waiting call needs, 0 where none waits, and when it last said so.
    pub(crate) need: i64,
    pub(crate) need_at_ms: i64,
    /// What was taken since the last round, and per second of late.
    pub(crate) since: i64,
    pub(crate) burn: i64,
    /// What all nodes have settled of it, as last seen.
    pub(crate) settled: i64,
    /// Another node waits for some of it.
    pub(crate) others_wait: bool,
}

/// The budget can not be made of its configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BudgetError {
    #[error(transparent)]
    Amount(#[from] ParseMoneyError),
    #[error(transparent)]
    Window(#[from] WindowError),
    #[error("`{0}` is not a moment; write one such as 2026-12-01T00:00:00Z")]
    Moment(String),
    #[error("a limit says neither requests_per_minute, tokens_per_minute nor concurrency")]
    NoLimit,
}

impl Budget {
    /// The budget of a configuration entry, with nothing spent.
    pub(crate) fn new(config: &BudgetConfig, now_ms: i64) -> Result<Self, BudgetError> {
        let amount = |text: &str| {
            let amount = NanoUsd::from_usd(text)?;
            if amount < NanoUsd::ZERO {
                return Err(ParseMoneyError::of_usd(text));
            }
            Ok(amount.0)
        };
        let maybe = |text: &Option<String>| text.as_deref().map_or(Ok(0), amount);
        let until = |text: &String| {
            text.parse()
                .map(jiff::Timestamp::as_millisecond)
                .map_err(|_| BudgetError::Moment(text.clone()))
        };
        let scope = Scope::new(
            [
                &config.team,
                &config.project,
                &config.key,
                &config.user,
                &config.task,
            ],
            &config.models,
        );
        let window = Window::new(config.window, &config.zone, config.fiscal_start)?;
        let mut budget = Self::empty(&config.tenant, scope, Unit::Usd, window, now_ms);
        budget.limit = amount(&config.limit_usd)?;
        budget.hard = config.hard;
        budget.grace = maybe(&config.grace_usd)?;
        budget.grace_until_ms = config.grace_until.as_ref().map(until).transpose()?;
        budget.borrow = maybe(&config.borrow_usd)?;
        budget.thresholds.clone_from(&config.thresholds);
        budget.degrade = config.degrade;
        budget.pacing = config.pacing;
        if let Some(name) = &config.name {
            budget.id = Arc::from(format!("{}/{name}", config.tenant));
        }
        Ok(budget)
    }

    /// The limits of a configuration entry, one for each thing it counts.
    pub(crate) fn limits(config: &LimitConfig, now_ms: i64) -> Result<Vec<Self>, BudgetError> {
        let scope = || {
            Scope::new(
                [
                    &config.team,
                    &config.project,
                    &config.key,
                    &config.user,
                    &config.task,
                ],
                &config.models,
            )
        };
        let int = |limit: u64| i64::try_from(limit).unwrap_or(i64::MAX);
        let made: Vec<Self> = [
            (
                Unit::Requests,
                config.requests_per_minute.map(u64::from),
                Period::Minute,
            ),
            (Unit::Tokens, config.tokens_per_minute, Period::Minute),
            (
                Unit::Concurrency,
                config.concurrency.map(u64::from),
                Period::Total,
            ),
        ]
        .into_iter()
        .filter_map(|(unit, limit, period)| {
            let mut budget =
                Self::empty(&config.tenant, scope(), unit, Window::utc(period), now_ms);
            budget.limit = int(limit?);
            Some(budget)
        })
        .collect();
        if made.is_empty() {
            return Err(BudgetError::NoLimit);
        }
        Ok(made)
    }

    fn empty(tenant: &str, scope: Scope, unit: Unit, window: Window, now_ms: i64) -> Self {
        let span = window.at(now_ms);
        let first = Bucket {
            start_ms: span.start_ms,
            ..Bucket::default()
        };
        let mut budget = Self {
            id: Arc::from(""),
            tenant: Arc::from(tenant),
            name: String::new(),
            scope,
            unit,
            window,
            hard: true,
            limit: 0,
            grace: 0,
            grace_until_ms: None,
            borrow: 0,
            thresholds: Vec::new(),
            degrade: Degrade {
                tell: 0,
                fast: 0,
                free: 0,
            },
            pacing: Pacing::None,
            overrides: Vec::new(),
            buckets: VecDeque::from([first]),
            ahead: Vec::new(),
            span,
            retired: false,
            lease: Lease::default(),
            told: (0, Vec::new()),
        };
        budget.named();
        budget
    }

    /// Makes its names of what it limits.
    fn named(&mut self) {
        let path = self.scope.path();
        let mut name = format!("tenant {}", self.tenant);
        for part in path.split('/').filter(|part| !part.is_empty()) {
            name = format!("{name}, {}", part.replacen(':', " ", 1));
        }
        let what = match self.unit {
            Unit::Usd => String::new(),
            Unit::Requests => "/requests".to_owned(),
            Unit::Tokens => "/tokens".to_owned(),
            Unit::Concurrency => "/concurrency".to_owned(),
        };
        self.id = Arc::from(format!("{}{path}{what}/{}", self.tenant, self.window));
        self.name = match (self.unit, self.window.period) {
            (Unit::Requests, _) => format!("{name}, requests a minute"),
            (Unit::Tokens, _) => format!("{name}, tokens a minute"),
            (Unit::Concurrency, _) => format!("{name}, calls at once"),
            (_, Period::Total) => format!("{name}, in total"),
            (_, Period::Rolling(_)) => format!("{name}, {}", self.window),
            _ => format!("{name}, per {}", self.window),
        };
    }

    /// The budget of `subject` alone, made of a pattern that covers it.
    pub(crate) fn for_one(&self, subject: &Subject) -> Self {
        let mut own = self.clone();
        own.scope = self.scope.of(subject);
        own.named();
        own.id = Arc::clone(&self.id);
        for (each, name) in self.scope.names.iter().zip(&own.scope.names) {
            if let (Some(EACH), Some(name)) = (each.as_deref(), name) {
                own.id = Arc::from(format!("{}/{name}", own.id));
            }
        }
        own
    }

    /// The budget of `tenant` alone, made of one that every tenant has.
    pub(crate) fn for_tenant(&self, tenant: &Arc<str>) -> Self {
        let mut own = self.clone();
        own.tenant = Arc::clone(tenant);
        own.named();
        own.id = Arc::from(format!("{}/{tenant}", self.id));
        own
    }

    /// Whether every tenant has its own of it.
    pub(crate) fn is_for_each_tenant(&self) -> bool {
        &*self.tenant == EACH
    }

    /// Whether the budget of this id is one that this pattern has made.
    pub(crate) fn has_made(&self, id: &str) -> bool {
        let rest = id.strip_prefix(&*self.id);
        let makes = self.scope.is_pattern() || self.is_for_each_tenant();
        makes && rest.is_some_and(|rest| rest.starts_with('/'))
    }

    /// The same limits under the name and scope of `other`, which was made of this pattern.
    pub(crate) fn renamed(&self, other: &Self) -> Self {
        Self {
            id: Arc::clone(&other.id),
            name: other.name.clone(),
            scope: other.scope.clone(),
            ..self.clone()
        }
    }

    /// Takes the limits of a new configuration; what is settled and held stays.
    pub(crate) fn adopt(&mut self, config: Option<Self>) {
        let Some(config) = config else {
            self.retired = true;
            return;
        };
        if self.retired {
            // While it was retired it saw no call; the ledger did.
            self.buckets.clone_from(&config.buckets);
            self.ahead.clone_from(&config.ahead);
        }
        let ahead = std::mem::take(&mut self.ahead);
        let buckets = std::mem::take(&mut self.buckets);
        let (span, lease) = (self.span, self.lease);
        let overrides = std::mem::take(&mut self.overrides);
        *self = Self {
            overrides,
            buckets,
            ahead,
            span,
            lease,
            ..config
        };
    }

    /// Moves on to the window of `now_ms`. A clock that runs backwards changes nothing.
    pub(crate) fn roll(&mut self, now_ms: i64) {
        if self.span.end_ms.is_none_or(|end| now_ms < end) {
            return;
        }
        self.span = self.window.at(now_ms);
        let from_ms = self.span.from_ms;
        // Calls held in a window that has passed settle in the ledger alone.
        self.buckets.retain(|bucket| bucket.start_ms >= from_ms);
        let start_ms = self.span.start_ms;
        let (come, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.ahead)
            .into_iter()
            .partition(|it| it.start_ms <= start_ms);
        self.ahead = later;
        for bucket in come.into_iter().filter(|it| it.start_ms >= from_ms) {
            self.buckets.push_back(bucket);
        }
        if !self.buckets.iter().any(|it| it.start_ms == start_ms) {
            self.buckets.push_back(Bucket {
                start_ms,
                ..Bucket::default()
            });
        }
        self.buckets.make_contiguous().sort_by_key(|it| it.start_ms);
    }

    /// The limit with grace and the overrides in force.
    pub(crate) fn extra(&self, now_ms: i64) -> i64 {
        let grace = if self.grace_until_ms.is_none_or(|until| now_ms < until) {
            self.grace
        } else {
            0
        };
        self.overrides
            .iter()
            .filter(|it| it.from_ms <= now_ms && now_ms < it.until_ms)
            .fold(grace, |sum, it| sum.saturating_add(it.amount))
    }

    /// All that may be spent in the window, with what may be borrowed.
    pub(crate) fn ceiling(&self, now_ms: i64) -> i64 {
        self.limit
            .saturating_add(self.extra(now_ms))
            .saturating_add(self.borrow)
            .max(0)
    }

    fn sum(&self, of: impl Fn(&Bucket) -> i64) -> i64 {
        self.buckets
            .iter()
            .fold(0, |sum: i64, bucket| sum.saturating_add(of(bucket)))
    }

    /// Settled by this node, or before it, in the present window.
    pub(crate) fn settled(&self) -> i64 {
        self.sum(|bucket| bucket.base.saturating_add(bucket.settled))
    }

    pub(crate) fn held(&self) -> i64 {
        self.sum(|bucket| bucket.held)
    }

    /// What others may spend or have spent.
    pub(crate) fn others(&self) -> i64 {
        self.sum(|bucket| bucket.others)
    }

    /// Everything that counts against the limit, as far as this node knows.
    pub(crate) fn used(&self) -> i64 {
        self.settled()
            .saturating_add(self.held())
            .saturating_add(self.others())
    }

    /// What is left of it, as far as this node knows.
    pub(crate) fn left(&self, now_ms: i64) -> i64 {
        self.ceiling(now_ms).saturating_sub(self.used()).max(0)
    }

    pub(crate) fn hold(&mut self, amount: i64) -> i64 {
        let start_ms = self.span.start_ms;
        if let Some(last) = self.buckets.back_mut() {
            last.held = last.held.saturating_add(amount);
        }
        self.lease.since = self.lease.since.saturating_add(amount);
        start_ms
    }

    /// Counts a hold that was made in the bucket of `start_ms` by another process.
    pub(crate) fn carry(&mut self, start_ms: i64, amount: i64) {
        let mut buckets = self.buckets.iter_mut();
        if let Some(bucket) = buckets.find(|bucket| bucket.start_ms == start_ms) {
            bucket.held = bucket.held.saturating_add(amount);
        }
    }

    /// Ends a hold that was made in the bucket of `start_ms`.
    pub(crate) fn release(&mut self, start_ms: i64, bound: i64, settled: i64) {
        let found = self
            .buckets
            .iter_mut()
            .find(|bucket| bucket.start_ms == start_ms);
        if let Some(bucket) = found {
            bucket.held = bucket.held.saturating_sub(bound);
            bucket.settled = bucket.settled.saturating_add(settled);
        }
    }

    /// Nothing in it is worth remembering: a budget of one name can be made again when it is needed.
    pub(crate) fn is_idle(&self) -> bool {
        let empty =
            |it: &Bucket| it.base == 0 && it.settled == 0 && it.held == 0 && it.granted == 0;
        self.buckets.iter().all(empty)
    }

    /// What it does to calls at present.
    pub(crate) fn state(&self, now_ms: i64) -> &'static str {
        let limit = self.limit.saturating_add(self.extra(now_ms));
        // What is held or leased is not spent: most of it comes back.
        let spent = self.settled().max(self.lease.settled);
        let reached = |per_cent: u8| {
            let share = i128::from(limit.max(0)).saturating_mul(i128::from(per_cent));
            per_cent > 0 && i128::from(spent).saturating_mul(100) >= share
        };
        let Degrade { tell, fast, free } = self.degrade;
        if self.hard && reached(100) && self.borrow == 0 {
            "deny"
        } else if reached(free) {
            "free"
        } else if reached(fast) {
            "fast"
        } else if reached(tell) {
            "tell"
        } else {
            "allow"
        }
    }

    /// The share of its deep calls, in thousandths, that the money left for the time left pays for;
    /// 1,000 while the burn is on plan.
    pub(crate) fn pace(&self, now_ms: i64) -> u16 {
        let (Pacing::Linear, Some(end)) = (self.pacing, self.span.end_ms) else {
            return 1_000;
        };
        let length = end.saturating_sub(self.span.start_ms);
        let time_left = i128::from(end.saturating_sub(now_ms).max(0));
        let limit = i128::from(self.limit.max(0));
        let money_left = i128::from(self.limit.saturating_sub(self.settled()).max(0));
        // money left / limit, over time left / length.
        let above = money_left
            .saturating_mul(i128::from(length))
            .saturating_mul(1_000);
        let below = limit.saturating_mul(time_left);
        let pace = above.checked_div(below).unwrap_or(1_000);
        u16::try_from(pace.clamp(0, 1_000)).unwrap_or(1_000)
    }

    /// Whether everything that `other` covers counts against it too.
    pub(crate) fn is_above(&self, other: &Self) -> bool {
        self.id != other.id
            && self.unit == other.unit
            && self.window == other.window
            && self.scope.contains(&other.scope)
    }

    /// How it stands, for people.
    pub(crate) fn standing(&self, now_ms: i64, parent: Option<&Self>) -> Standing {
        Standing {
            id: self.id.to_string(),
            tenant: self.tenant.to_string(),
            level: self.scope.level(),
            covers: self.scope.named(),
            name: self.name.clone(),
            parent: parent.map(|parent| parent.id.to_string()),
            unit: self.unit,
            window: self.window.to_string(),
            hard: self.hard,
            limit: self.limit,
            extra: self.extra(now_ms),
            settled: self.settled().max(self.lease.settled),
            held: self.held(),
            leased: self
                .used()
                .saturating_sub(self.held())
                .saturating_sub(self.settled().max(self.lease.settled))
                .max(0),
            start_ms: self.span.start_ms,
            window_ms: match self.window.period {
                Period::Rolling(length) => Some(length),
                _ => self
                    .span
                    .end_ms
                    .map(|end| end.saturating_sub(self.span.start_ms)),
            },
            resets_at_ms: self
                .span
                .end_ms
                .filter(|_| !matches!(self.window.period, Period::Rolling(_))),
            thresholds: self.thresholds.clone(),
            state: self.state(now_ms),
            paced: self.pacing != Pacing::None,
        }
    }
}
