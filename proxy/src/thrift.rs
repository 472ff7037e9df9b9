//! What budgets ask of a call before it is sent: another tier, only models that cost nothing, a cost
//! that the caller set as its own limit.

use std::sync::Arc;

use http::HeaderMap;
use meter::{NanoUsd, Subject};
use router::{Reason, Route, Wanted};
use wire::{Refusal, RequestId, Tier};

use crate::gateway::Shared;
use crate::names;
use crate::refusal;
use crate::runtime::{Runtime, Target};

/// The longest name of a user, task or workflow.
const LONGEST: usize = 128;

/// What holds for one call.
#[derive(Debug, Clone, Default)]
pub(crate) struct Thrift {
    /// The most that the caller wants to pay for it, from `x-pareto-max-cost`.
    pub(crate) most: Option<NanoUsd>,
    /// What is left of the tightest budget, where it wants that told.
    pub(crate) remaining: Option<NanoUsd>,
    /// The budget that sends it to the fast tier.
    pub(crate) fast: Option<Arc<str>>,
    /// The budget that leaves only models that cost nothing.
    pub(crate) free: Option<Arc<str>>,
    /// The share of deep calls that are still sent deep, in thousandths.
    pace: u16,
}

/// Reads who a call is for besides its key: `x-pareto-user`, `x-pareto-task`, `x-pareto-workflow`.
///
/// # Errors
/// When a name is too long or no plain text.
pub(crate) fn name(subject: &mut Subject, headers: &HeaderMap) -> Result<(), Refusal> {
    for (header, place) in [
        ("x-pareto-user", &mut subject.user),
        ("x-pareto-task", &mut subject.task),
        ("x-pareto-workflow", &mut subject.workflow),
    ] {
        let Some(value) = names::find(headers, header) else {
            continue;
        };
        let text = value.to_str().unwrap_or_default().trim();
        let plain = (1..=LONGEST).contains(&text.len()) && text != "*" && !text.contains('\t');
        if !plain {
            return Err(refusal::invalid(format!(
                "header `{header}` must be 1 to {LONGEST} plain characters"
            )));
        }
        *place = Arc::from(text);
    }
    Ok(())
}

/// Reads the caller's own limit on the cost of a call, in decimal USD.
///
/// # Errors
/// When it is no amount.
pub(crate) fn most(headers: &HeaderMap) -> Result<Option<NanoUsd>, Refusal> {
    let Some(value) = names::find(headers, "x-pareto-max-cost") else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default().trim();
    match NanoUsd::from_usd(text) {
        Ok(most) if most >= NanoUsd::ZERO => Ok(Some(most)),
        _ => Err(refusal::invalid(format!(
            "header `x-pareto-max-cost` is `{text}`; write decimal USD such as 0.05"
        ))),
    }
}

impl Thrift {
    /// What budgets ask of a call of `subject` now.
    pub(crate) fn of(
        shared: &Shared,
        subject: &Subject,
        most: Option<NanoUsd>,
        now_ms: i64,
    ) -> Self {
        let posture = shared.meter.posture(subject, now_ms);
        Self {
            most,
            remaining: posture.remaining,
            fast: posture.fast,
            free: posture.free,
            pace: posture.pace,
        }
    }

    /// What the call is routed as: who leaves the choice to the router gets the fast tier where a
    /// budget asks for it. A model that is named stays named.
    pub(crate) fn wanted<'a>(&self, wanted: Wanted<'a>, runtime: &Runtime) -> Wanted<'a> {
        let has_fast = || runtime.targets.iter().any(|it| it.tier == Tier::Fast);
        match wanted {
            Wanted::Auto | Wanted::Tier(Tier::Deep) if self.fast.is_some() && has_fast() => {
                Wanted::Tier(Tier::Fast)
            }
            other => other,
        }
    }

    /// Whether a call that the router would send deep is not, so that the money lasts: its id, whose
    /// end is random, decides.
    pub(crate) fn slows(&self, route: &Route, request: RequestId) -> bool {
        let chosen = matches!(route.reason, Reason::Score | Reason::Split);
        let luck = u128::from_be_bytes(request.bytes()) % 1_000;
        chosen && route.tier == Tier::Deep && luck >= u128::from(self.pace.min(1_000))
    }

    /// Whether nothing bounds the call but its own need: no budget asks for less, and its caller set no
    /// limit on the cost.
    pub(crate) fn is_free(&self) -> bool {
        self.most.is_none() && self.fast.is_none() && self.free.is_none() && self.pace >= 1_000
    }

    /// Whether `target` may be called at all.
    pub(crate) fn allows(&self, target: &Target, runtime: &Runtime, now_ms: i64) -> bool {
        self.free.is_none() || is_free(target, runtime, now_ms)
    }
}

/// Whether a model is known to cost nothing.
fn is_free(target: &Target, runtime: &Runtime, now_ms: i64) -> bool {
    runtime
        .rates(target, "", now_ms)
        .is_some_and(|rates| rates.bound(1 << 20, 1 << 20) == NanoUsd::ZERO)
}
