//! What is told of upstreams: who rests, who asked for a pause, whose keys are refused, what was retried.

use std::sync::Arc;

use metrics::{counter, gauge};

use crate::clock::uptime_ms;
use crate::runtime::Target;

/// What became of the wish to ask again after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// Nobody had seen the call before.
    Free,
    /// It is one of those that there may be.
    Taken,
    /// There may be no more.
    Denied,
}

impl Retry {
    const ALL: [Self; 3] = [Self::Free, Self::Taken, Self::Denied];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Taken => "taken",
            Self::Denied => "denied",
        }
    }
}

/// What became of a call that takes long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hedge {
    /// The first was quicker all the same.
    First,
    /// The one that was asked beside it was.
    Second,
    /// Both failed.
    Lost,
    /// There may be no more of them.
    Denied,
}

impl Hedge {
    const ALL: [Self; 4] = [Self::First, Self::Second, Self::Lost, Self::Denied];

    /// Of a call that got an answer or not, in the end from the first or from the second.
    pub(crate) fn of(is_answered: bool, is_second: bool) -> Self {
        match (is_answered, is_second) {
            (false, _) => Self::Lost,
            (true, true) => Self::Second,
            (true, false) => Self::First,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Second => "second",
            Self::Lost => "lost",
            Self::Denied => "denied",
        }
    }
}

/// A call to `target` took long.
pub(crate) fn hedged(target: &Target, won: Hedge) {
    let (model, endpoint) = (Arc::clone(&target.name), Arc::clone(&target.endpoint.name));
    counter!("pareto_upstream_hedges_total", "model" => model, "endpoint" => endpoint, "result" => won.as_str())
        .increment(1);
}

/// The models that may be called from now on. Of a counter that is not there before its first event, alerts
/// would miss that event.
pub(crate) fn models<'a>(targets: impl Iterator<Item = &'a Arc<Target>>) {
    for target in targets {
        let model = || Arc::clone(&target.name);
        let endpoint = || Arc::clone(&target.endpoint.name);
        counter!("pareto_unpriced_calls_total", "model" => model()).increment(0);
        counter!("pareto_upstream_rests_total", "model" => model(), "endpoint" => endpoint())
            .increment(0);
        counter!("pareto_upstream_pauses_total", "model" => model(), "endpoint" => endpoint())
            .increment(0);
        counter!("pareto_upstream_keys_refused_total", "endpoint" => endpoint()).increment(0);
        if target.hedge {
            for won in Hedge::ALL {
                counter!("pareto_upstream_hedges_total", "model" => model(), "endpoint" => endpoint(), "result" => won.as_str())
                    .increment(0);
            }
        }
        for retry in Retry::ALL {
            counter!("pareto_upstream_retries_total", "model" => model(), "endpoint" => endpoint(), "result" => retry.as_str())
                .increment(0);
        }
    }
}

/// A model failed too often at an endpoint, and is left alone.
pub(crate) fn rests(target: &Target) {
    let (model, endpoint) = (Arc::clone(&target.name), Arc::clone(&target.endpoint.name));
    counter!("pareto_upstream_rests_total", "model" => model, "endpoint" => endpoint).increment(1);
}

/// An endpoint asked for a pause.
pub(crate) fn pauses(target: &Target) {
    let (model, endpoint) = (Arc::clone(&target.name), Arc::clone(&target.endpoint.name));
    counter!("pareto_upstream_pauses_total", "model" => model, "endpoint" => endpoint).increment(1);
}

/// An endpoint refused a key.
pub(crate) fn key_refused(endpoint: &Arc<str>) {
    counter!("pareto_upstream_keys_refused_total", "endpoint" => Arc::clone(endpoint)).increment(1);
}

/// After a failure a call was to go on to `target`.
pub(crate) fn retried(target: &Target, retry: Retry) {
    let (model, endpoint) = (Arc::clone(&target.name), Arc::clone(&target.endpoint.name));
    counter!("pareto_upstream_retries_total", "model" => model, "endpoint" => endpoint, "result" => retry.as_str())
        .increment(1);
}

/// How models stand at their endpoints, whenever metrics are asked for.
pub(crate) fn upstreams<'a>(targets: impl Iterator<Item = &'a Arc<Target>>) {
    let now = uptime_ms();
    for target in targets {
        let (model, endpoint) = (Arc::clone(&target.name), Arc::clone(&target.endpoint.name));
        if let Some(limit) = &target.endpoint.limit {
            gauge!("pareto_upstream_concurrency_limit", "endpoint" => Arc::clone(&endpoint))
                .set(f64::from(limit.most()));
        }
        gauge!("pareto_upstream_usable", "model" => Arc::clone(&model), "endpoint" => Arc::clone(&endpoint))
            .set(u8::from(target.is_usable(now)));
        gauge!("pareto_upstream_calls", "model" => model, "endpoint" => endpoint)
            .set(f64::from(target.health.under_way()));
    }
}
