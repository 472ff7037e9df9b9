//! Handles of the counters and histograms that every call tells. Looking a metric up by its labels costs
//! more than counting does, so each set of labels is looked up once.

use std::hash::Hash;
use std::sync::{Arc, LazyLock, OnceLock};

use dashmap::DashMap;
use meter::{Entry, NanoUsd, Outcome};
use metrics::{Counter, Histogram, Label, counter, histogram};
use wire::{Tier, UsageSource};

use crate::trace::{Phase, Trace};

/// Handles by what their labels are made of. There are as many as there are series.
type Known<K, V> = LazyLock<DashMap<K, Arc<V>, foldhash::fast::RandomState>>;

static DECIDED: Known<(Arc<str>, Tier, &'static str), Counter> = LazyLock::new(DashMap::default);
static ANSWERED: Known<Answered, Counter> = LazyLock::new(DashMap::default);
static SETTLED: Known<Account, Settled> = LazyLock::new(DashMap::default);
static PHASES: [OnceLock<Histogram>; Phase::ALL.len()] =
    [const { OnceLock::new() }; Phase::ALL.len()];
static REQUEST: OnceLock<Histogram> = OnceLock::new();
static OVERHEAD: OnceLock<Histogram> = OnceLock::new();
static FIRST_BYTE: OnceLock<Histogram> = OnceLock::new();

/// The handle that `key` stands for, made at its first use.
fn of<K: Eq + Hash + Clone, V>(known: &Known<K, V>, key: &K, make: impl FnOnce() -> V) -> Arc<V> {
    if let Some(found) = known.get(key) {
        return Arc::clone(&found);
    }
    Arc::clone(&known.entry(key.clone()).or_insert_with(|| Arc::new(make())))
}

pub(super) fn decided(tenant: &Arc<str>, tier: Tier, reason: &'static str) -> Arc<Counter> {
    of(&DECIDED, &(Arc::clone(tenant), tier, reason), || {
        counter!(
            "pareto_route_decisions_total",
            "tenant" => Arc::clone(tenant), "tier" => tier.as_str(), "reason" => reason
        )
    })
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Answered {
    tenant: Arc<str>,
    model: Arc<str>,
    tier: &'static str,
    dialect: &'static str,
    outcome: &'static str,
}

/// Calls that ended as this one did.
pub(super) fn answered(trace: &Trace, outcome: &'static str) -> Arc<Counter> {
    let by = trace.answered_by.as_ref();
    let key = Answered {
        tenant: trace
            .subject
            .as_ref()
            .map_or_else(Arc::default, |it| Arc::clone(&it.tenant)),
        model: by.map_or_else(Arc::default, |(model, ..)| Arc::clone(model)),
        tier: by.map_or("", |(_, tier, _)| tier.as_str()),
        dialect: trace.dialect.name(),
        outcome,
    };
    of(&ANSWERED, &key, || {
        counter!(
            "pareto_requests_total",
            "tenant" => Arc::clone(&key.tenant), "model" => Arc::clone(&key.model), "tier" => key.tier,
            "dialect" => key.dialect, "outcome" => outcome
        )
    })
}

pub(super) fn phase(phase: Phase) -> Option<&'static Histogram> {
    let at = Phase::ALL.iter().position(|it| *it == phase)?;
    let made = || histogram!("pareto_phase_seconds", "phase" => phase.as_str());
    Some(PHASES.get(at)?.get_or_init(made))
}

pub(super) fn request() -> &'static Histogram {
    REQUEST.get_or_init(|| histogram!("pareto_request_seconds"))
}

pub(super) fn overhead() -> &'static Histogram {
    OVERHEAD.get_or_init(|| histogram!("pareto_overhead_seconds"))
}

pub(super) fn first_byte() -> &'static Histogram {
    FIRST_BYTE.get_or_init(|| histogram!("pareto_first_byte_seconds"))
}

/// What the series of a settled attempt are told apart by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Account {
    tenant: Arc<str>,
    team: Arc<str>,
    model: Arc<str>,
    endpoint: Arc<str>,
    lane: Arc<str>,
    tier: Tier,
}

/// The series of settled attempts of one account; each is made when it first has something to say.
pub(super) struct Settled {
    account: Account,
    tokens: [OnceLock<Counter>; 6],
    sources: [OnceLock<Counter>; 3],
    outcomes: [OnceLock<Counter>; 5],
    savings: [OnceLock<Counter>; 2],
    baseline: OnceLock<Counter>,
    sell: OnceLock<Counter>,
    cost: OnceLock<Counter>,
    unpriced: OnceLock<Counter>,
    accuracy: OnceLock<Histogram>,
}

/// The series that `entry` counts in.
pub(super) fn settled(entry: &Entry) -> Arc<Settled> {
    let held = &entry.held;
    let account = Account {
        tenant: Arc::clone(&held.subject.tenant),
        team: Arc::clone(&held.subject.team),
        model: Arc::clone(&held.model),
        endpoint: Arc::clone(&held.endpoint),
        lane: Arc::clone(&held.lane),
        tier: held.tier,
    };
    of(&SETTLED, &account, || Settled {
        account: account.clone(),
        tokens: Default::default(),
        sources: Default::default(),
        outcomes: Default::default(),
        savings: Default::default(),
        baseline: OnceLock::new(),
        sell: OnceLock::new(),
        cost: OnceLock::new(),
        unpriced: OnceLock::new(),
        accuracy: OnceLock::new(),
    })
}

impl Settled {
    fn labels(&self) -> Vec<Label> {
        vec![
            Label::new("tenant", Arc::clone(&self.account.tenant)),
            Label::new("model", Arc::clone(&self.account.model)),
            Label::new("tier", self.account.tier.as_str()),
        ]
    }

    fn labels_of_teams(&self) -> Vec<Label> {
        let mut labels = self.labels();
        labels.push(Label::new("team", Arc::clone(&self.account.team)));
        labels.push(Label::new("lane", Arc::clone(&self.account.lane)));
        labels
    }

    /// Tokens of each class.
    pub(super) fn tokens(&self, entry: &Entry) {
        let usage = &entry.usage;
        let classes = [
            ("input", usage.input),
            ("cache_read", usage.cache_read),
            ("cache_write", usage.cache_write()),
            ("output", usage.output),
            ("reasoning", usage.reasoning),
            ("audio", usage.audio()),
        ];
        for (slot, (class, tokens)) in self.tokens.iter().zip(classes) {
            if tokens > 0 && entry.source != UsageSource::Estimated {
                let made = || {
                    let mut labels = self.labels();
                    labels.push(Label::new("class", class));
                    counter!("pareto_tokens_total", labels)
                };
                slot.get_or_init(made).increment(tokens);
            }
        }
    }

    /// The money.
    pub(super) fn money(&self, entry: &Entry) {
        let saved = [
            ("routing", entry.baseline - entry.cost),
            ("provider_cache", entry.cache_saved),
        ];
        for (slot, (kind, saved)) in self.savings.iter().zip(saved) {
            let made = || {
                let tenant = Label::new("tenant", Arc::clone(&self.account.tenant));
                let labels = vec![tenant, Label::new("kind", kind)];
                counter!("pareto_savings_nanousd_total", labels)
            };
            slot.get_or_init(made).increment(nano(saved));
        }
        let baseline = || counter!("pareto_baseline_nanousd_total", self.labels());
        let baseline = self.baseline.get_or_init(baseline);
        baseline.increment(nano(entry.baseline));
        let sell = || counter!("pareto_sell_nanousd_total", self.labels_of_teams());
        self.sell.get_or_init(sell).increment(nano(entry.sell));
        let cost = || counter!("pareto_cost_nanousd_total", self.labels_of_teams());
        self.cost.get_or_init(cost).increment(nano(entry.cost));
    }

    /// Where the usage is known from, and how the attempt ended.
    pub(super) fn ending(&self, entry: &Entry) {
        let source = match entry.source {
            UsageSource::Provider => 0,
            UsageSource::Counted => 1,
            UsageSource::Estimated => 2,
        };
        let outcome = match entry.outcome {
            Outcome::Completed => 0,
            Outcome::Interrupted => 1,
            Outcome::Disconnected => 2,
            Outcome::Failed => 3,
            Outcome::Orphaned => 4,
        };
        let by_source = || {
            let model = Arc::clone(&self.account.model);
            counter!("pareto_usage_source_total", "source" => entry.source.as_str(), "model" => model)
        };
        let by_outcome = || {
            let endpoint = Arc::clone(&self.account.endpoint);
            counter!("pareto_upstream_attempts_total", "endpoint" => endpoint, "outcome" => entry.outcome.as_str())
        };
        if let (Some(source), Some(outcome)) =
            (self.sources.get(source), self.outcomes.get(outcome))
        {
            source.get_or_init(by_source).increment(1);
            outcome.get_or_init(by_outcome).increment(1);
        }
    }

    /// The model had no price.
    pub(super) fn unpriced(&self) {
        let model = || Arc::clone(&self.account.model);
        let made = || counter!("pareto_unpriced_calls_total", "model" => model());
        self.unpriced.get_or_init(made).increment(1);
    }

    /// The share of its hold that a call used.
    pub(super) fn accuracy(&self, share: f64) {
        let tier = self.account.tier.as_str();
        let made = || histogram!("pareto_hold_accuracy_ratio", "tier" => tier);
        self.accuracy.get_or_init(made).record(share);
    }
}

/// An amount as counters take it: they can not fall.
pub(super) fn nano(amount: NanoUsd) -> u64 {
    u64::try_from(amount.0).unwrap_or(0)
}
