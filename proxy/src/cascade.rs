//! The cascade: a call near the threshold is tried fast first, its answer is checked before anything of
//! it is released, and where it fails, the deep tier is asked, as far as the split allows.

mod check;
mod glimpse;
mod phrase;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response};
use router::{Band, Reason, Route, Split};
use tokio::time::Instant;
use wire::{Refusal, Tier};

pub(crate) use check::{Cause, Checks, Extent};
pub(crate) use glimpse::Glimpse;

use crate::attempt::{Dispatch, Ended};
use crate::clock::{now_ms, uptime_ms};
use crate::gateway::Body;
use crate::intake::Inbound;
use crate::refusal;
use crate::relay::Doubted;
use crate::runtime::Target;
use crate::telemetry;
use crate::thrift::Thrift;
use crate::trace::Trace;

/// What is held of a stream at most, whatever it consists of.
const MOST_HELD: usize = 64 << 10;

/// What an attempt is to the cascade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leg {
    /// Its answer is given, whatever it is.
    Only,
    /// It is fast, and its answer is checked.
    First,
    /// It is made beside another that takes long.
    Beside,
    /// It is deep, because a fast answer failed this check.
    Second(Cause),
}

impl Leg {
    /// Why the attempt is made.
    pub(crate) fn reason(self, route: &Route) -> Reason {
        match self {
            Self::Only | Self::First | Self::Beside => route.reason,
            Self::Second(_) => Reason::Escalated,
        }
    }

    /// The check that the answer before it failed.
    pub(crate) fn cause(self) -> Option<Cause> {
        match self {
            Self::Only | Self::First | Self::Beside => None,
            Self::Second(cause) => Some(cause),
        }
    }
}

/// What becomes of an answer that was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is given; with the check that it failed, where nobody better may be asked.
    Given(Option<Cause>),
    /// The deep tier is asked.
    Escalated(Cause),
}

/// How near to the threshold a call is tried fast first; `None` for one that may not be: budgets or its
/// caller bound its cost, a tool loop is under way, or what it does can not be done twice.
pub(crate) fn band(inbound: &Inbound, thrift: &Thrift, routing: &router::Config) -> Option<Band> {
    let scan = &inbound.scan;
    let is_plain = scan.answers == 1 && !scan.shape.after_tool && scan.shape.server_tools == 0;
    if !is_plain || !thrift.is_free() {
        return None;
    }
    routing.cascade.band()
}

impl Dispatch<'_> {
    /// What the answers of `target` are held against.
    pub(crate) fn checks(&self, target: &Target) -> Checks {
        let scan = &self.inbound.scan;
        let has_form = scan.shape.schema || scan.shape.tools > 0;
        Checks {
            on: self.runtime.routing.cascade,
            call: has_form.then(|| self.canonical().ok()).flatten(),
            is_uncapped: scan.max_output.is_none() || self.most_output(target).is_some(),
        }
    }

    /// What becomes of an answer that failed the check `cause`, or none.
    pub(crate) fn verdict(&self, cause: Option<Cause>) -> Verdict {
        let tenant = &self.subject.tenant;
        let Some(cause) = cause else {
            telemetry::cascaded(tenant, "kept", "none");
            return Verdict::Given(None);
        };
        let has_deep = || self.deeper().next().is_some();
        if has_deep() && self.split(Split::escalate) {
            return Verdict::Escalated(cause);
        }
        telemetry::cascaded(tenant, "denied", cause.as_str());
        tracing::info!(
            target: "pareto::cascade",
            request = %self.request,
            cause = cause.as_str(),
            "an answer failed a check and is given as it is"
        );
        Verdict::Given(Some(cause))
    }

    /// Reads what an answer that is not streamed says, and checks it.
    pub(crate) fn whole_cause(&self, target: &Target, reply: &Bytes) -> Option<Cause> {
        let origin = &target.endpoint.origin;
        // What can not be read is not judged.
        let reply = target.dialect.decode_reply(reply, origin).ok()?;
        self.checks(target).cause(&reply, Extent::Whole)
    }

    /// Asks the deep tier in place of `doubted`, which is given to the caller if nobody answers.
    pub(crate) async fn escalate(
        &self,
        mut doubted: Doubted,
        trace: &mut Trace,
    ) -> Result<Response<Body>, Refusal> {
        let (cause, tenant) = (doubted.cause, &self.subject.tenant);
        let answer = {
            let mut better = pin!(self.ask_deep(cause, trace));
            loop {
                tokio::select! {
                    biased;
                    answer = &mut better => break answer,
                    () = doubted.read_on() => {}
                }
            }
        };
        match answer {
            Ok(mut response) => {
                telemetry::cascaded(tenant, "escalated", cause.as_str());
                doubted.cut();
                let word = HeaderValue::from_static(cause.as_str());
                response.headers_mut().insert("x-pareto-escalated", word);
                Ok(response)
            }
            Err(refusal) => {
                telemetry::cascaded(tenant, "failed", cause.as_str());
                self.split(Split::stay_fast);
                let Some((response, before)) = doubted.give() else {
                    return Err(refusal);
                };
                *trace = before;
                Ok(response)
            }
        }
    }

    /// An answer of the deep tier, or why there is none.
    async fn ask_deep(&self, cause: Cause, trace: &mut Trace) -> Result<Response<Body>, Refusal> {
        let left: Vec<_> = self.deeper().flat_map(Target::equals).collect();
        match self.instead(left, cause, trace).await {
            Ok(response) if response.status().is_success() => Ok(response),
            Err(Ended::Refused(refusal)) => Err(refusal),
            // What it does not take is no reason to withhold what the fast tier said.
            Ok(_) | Err(Ended::Doubted(_)) => {
                let none = "no deep model takes the call".to_owned();
                Err(refusal::upstream(503, "no_upstream", none))
            }
        }
    }

    /// The deep models that can take the call now.
    fn deeper(&self) -> impl Iterator<Item = &Arc<Target>> {
        let (runtime, now, uptime) = (self.runtime, now_ms(), uptime_ms());
        let targets = self.decided.route.deeper.iter();
        targets
            .filter_map(|place| runtime.targets.get(place))
            .filter(move |it| it.tier == Tier::Deep && it.equals().any(|it| it.is_usable(uptime)))
            .filter(move |it| self.thrift.allows(it, runtime, now))
    }

    /// Asks the split of the call's class.
    fn split<T>(&self, ask: impl FnOnce(&mut Split) -> T) -> T {
        let class = &self.decided.class;
        let target = self.runtime.routing.target(class);
        let splits = &self.shared.splits;
        splits.with(&self.subject.tenant, class, target, ask)
    }
}

/// When what is held of a stream must be let go, at the latest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    soon: Instant,
    whole: Instant,
}

impl Checks {
    /// How long a stream whose first content is there is held.
    pub(crate) fn patience(&self) -> Patience {
        let now = Instant::now();
        Patience {
            soon: now + Duration::from_millis(self.on.hold_ms),
            whole: now + Duration::from_millis(self.on.hold_whole_ms),
        }
    }

    /// Until when more of a stream is waited for; `None` once enough of it is there.
    pub(crate) fn held_until(
        &self,
        glimpse: &Glimpse,
        (queued, patience): (usize, Patience),
    ) -> Option<Instant> {
        if queued >= MOST_HELD {
            return None;
        }
        let on = &self.on;
        if self.wants_whole(&glimpse.reply()) {
            (glimpse.bytes < on.hold_whole_bytes).then_some(patience.whole)
        } else {
            let enough = glimpse.pieces >= on.hold_tokens || glimpse.bytes >= on.hold_bytes;
            (!enough).then_some(patience.soon)
        }
    }
}
