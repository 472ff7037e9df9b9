//! Names of the headers that answers carry. Each is checked when compiled and not with every call.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The first value of the header `name`, which is written in small letters. A call has few headers, and most names
/// that are looked for are not among them: to look at each is a fifth of what the map's hash costs.
pub(crate) fn find<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a HeaderValue> {
    let mut all = headers.iter();
    all.find(|(it, _)| it.as_str() == name)
        .map(|(_, value)| value)
}

/// The header in which callers say what a step is, and answers what it was taken for.
pub(crate) const STEP_TEXT: &str = "x-pareto-step";

const fn named(name: &'static str) -> HeaderName {
    HeaderName::from_static(name)
}

pub(crate) const X_REQUEST_ID: HeaderName = named("x-request-id");
pub(crate) const REQUEST_ID: HeaderName = named("request-id");
pub(crate) const UPSTREAM_ID: HeaderName = named("x-upstream-request-id");
pub(crate) const SERVER_TIMING: HeaderName = named("server-timing");
/// The model that answered, its tier, why that one, the step that was seen, the score in thousandths.
pub(crate) const MODEL: HeaderName = named("x-pareto-model");
pub(crate) const TIER: HeaderName = named("x-pareto-tier");
pub(crate) const ROUTE: HeaderName = named("x-pareto-route");
pub(crate) const STEP: HeaderName = named(STEP_TEXT);
pub(crate) const SCORE: HeaderName = named("x-pareto-score");
/// What a translation could not carry.
pub(crate) const LOSS: HeaderName = named("x-pareto-loss");
pub(crate) const SESSION: HeaderName = named("x-pareto-session");
/// What a call has cost, in decimal USD, and what is left of a budget that wants it told.
pub(crate) const COST: HeaderName = named("x-pareto-cost-usd");
pub(crate) const REMAINING: HeaderName = named("x-pareto-budget-remaining");
/// The output cap that was written into the call, and why.
pub(crate) const CAP: HeaderName = named("x-pareto-output-cap");
pub(crate) const CAP_REASON: HeaderName = named("x-pareto-cap-reason");
/// Whose answer is given again, for the sake of an `Idempotency-Key`.
pub(crate) const REPLAY_OF: HeaderName = named("x-pareto-replay-of");
