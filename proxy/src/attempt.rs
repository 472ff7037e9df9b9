//! Trying upstreams: a hold for each attempt, failover as long as no content has reached the
//! caller, and every hold settled by what the attempt showed.

mod holding;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Response;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use meter::Subject;
use tokio::time::{Instant, timeout, timeout_at};
use wire::dialect::{Change, Facts};
use wire::{Fault, Refusal, RequestId, Tier};

use crate::cascade::Leg;
use crate::clock::now_ms;
use crate::context::Context;
use crate::gateway::{Body, Shared};
use crate::intake::Inbound;
use crate::prepare::{Canonical, Prepared};
use crate::refusal;
use crate::relay::{self, Billing, Doubted};
use crate::routing::Decided;
use crate::runtime::{Runtime, Target};
use crate::telemetry;
use crate::thrift::Thrift;
use crate::trace::{Phase, Trace};
use crate::upstream::{self, Answer, Pieces};

/// Attempts at most for one call: two retries, so that an outage is not multiplied.
const ATTEMPTS: u16 = 3;
/// The longest error body taken from an endpoint.
const ERROR_BYTES: usize = 64 << 10;

/// A call with everything decided but its upstream.
pub(crate) struct Dispatch<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) runtime: &'a Runtime,
    pub(crate) subject: &'a Subject,
    pub(crate) inbound: &'a Inbound,
    pub(crate) decided: &'a Decided,
    pub(crate) context: &'a Context,
    pub(crate) thrift: &'a Thrift,
    pub(crate) request: RequestId,
    pub(crate) canonical: Canonical,
    /// An upstream did not know what the call names by id.
    pub(crate) writes_out: AtomicBool,
}

/// How an attempt ended when it brought no answer that is given.
pub(crate) enum Failed {
    /// Nothing reached the caller, and another upstream may do better.
    Next(Refusal),
    /// Another upstream would say the same.
    Last(Refusal),
    /// The same upstream may take the call with what it names by id written out.
    Again,
    /// The answer is there, but failed a check; another tier may do better.
    Doubted(Box<Doubted>),
}

/// Of two failures the one to tell: an outage stays one, even if a fallback could not take the call.
fn worse(before: Option<Refusal>, after: Refusal) -> Refusal {
    match before {
        Some(before) if before.fault == Fault::Upstream && after.fault == Fault::Caller => before,
        _ => after,
    }
}

impl Dispatch<'_> {
    /// Tries the route's models in order until one answers.
    pub(crate) async fn run(&self, trace: &mut Trace) -> Result<Response<Body>, Refusal> {
        let mut last = None;
        let targets = self
            .decided
            .route
            .order
            .iter()
            .filter_map(|it| self.runtime.targets.get(it));
        let mut left: Vec<&Target> = targets.collect();
        let now = now_ms();
        left.retain(|target| self.thrift.allows(target, self.runtime, now));
        if let (Some(budget), true) = (&self.thrift.free, left.is_empty()) {
            let meter = &self.shared.meter;
            meter.note(&self.subject.tenant, budget, "deny", now);
            let denied = meter.only_free(budget, now);
            return Err(refusal::denied(&denied, now));
        }
        for _ in 0..ATTEMPTS {
            let Some(target) = left.first().copied() else {
                break;
            };
            left.remove(0);
            let leg = if self.decided.route.cascade && target.tier == Tier::Fast {
                Leg::First
            } else {
                Leg::Only
            };
            match self.once(target, leg, trace).await {
                Ok(response) => return Ok(response),
                Err(Failed::Doubted(doubted)) => {
                    return Box::pin(self.escalate(*doubted, trace)).await;
                }
                Err(Failed::Last(refusal)) => return Err(refusal),
                Err(Failed::Again) => {
                    self.writes_out.store(true, Ordering::Relaxed);
                    left.insert(0, target);
                }
                Err(Failed::Next(refusal)) => {
                    told(trace.request, target, &refusal);
                    last = Some(worse(last, refusal));
                    // Whoever failed is likely to fail in another dialect too: others come first.
                    left.sort_by_key(|other| other.endpoint.origin == target.endpoint.origin);
                }
            }
        }
        let none = || refusal::upstream(503, "no_upstream", "no upstream is configured".to_owned());
        Err(last.unwrap_or_else(none))
    }

    /// Tries one model. An attempt that no money was held for leaves no trace in the ledger and is not
    /// numbered: the first that does carries the decision.
    pub(crate) async fn once(
        &self,
        target: &Target,
        leg: Leg,
        trace: &mut Trace,
    ) -> Result<Response<Body>, Failed> {
        let number = trace.attempts;
        let capped = self.is_bounded(target);
        let wanted = self.cap(target, capped);
        let mut prepared = self.prepare(target, capped.then_some(wanted)).await?;
        let (mut hold, cap) = self
            .hold(target, leg, trace, &prepared, (wanted, capped))
            .await?;
        trace.attempts += 1;
        trace.cap = (capped && self.inbound.scan.max_output.is_none()).then_some(cap);
        if capped && cap != wanted {
            prepared = self.recapped(target, prepared, cap)?;
        }
        trace.lap(Phase::Hold);
        trace.losses.clone_from(&prepared.losses);
        let inbound = self.inbound;
        let body = self.body(target, &prepared, capped.then_some(cap));
        hold.sent(now_ms());
        let reason = leg.reason(&self.decided.route).as_str();
        trace.answered_by = Some((Arc::clone(&target.name), target.tier, reason));
        let sent = prepared.made.as_ref().unwrap_or(&inbound.body).clone();
        let shape = &prepared.scan(inbound).shape;
        let is_text = shape.images + shape.files + shape.server_tools == 0;
        let teaches = is_text && (prepared.made.is_some() || self.context.bytes_elsewhere() == 0);
        let mut billing = Billing::new(hold, trace.clone(), sent, target, teaches)
            .seated(&self.shared.sessions, self.context.session);
        let deadline = Instant::now() + self.patience();
        let at_home = prepared.asked.is_none();
        let sending = target
            .endpoint
            .send(inbound, body, trace.request, number, at_home);
        let answer = match timeout_at(deadline, sending).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(self.unsent(target, &mut billing, &error)),
            Err(_) => return Err(timed_out(target, &mut billing)),
        };
        billing.status = answer.status().as_u16();
        if !answer.status().is_success() {
            return self
                .turned_away(target, &mut billing, answer, &prepared, trace)
                .await;
        }
        if answer.headers().contains_key(CONTENT_ENCODING) {
            billing.interrupt(&Facts::default());
            return Err(failed(
                target,
                "endpoint sent a compressed answer nobody asked for",
            ));
        }
        let is_stream = answer
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        let answered = Answered {
            target,
            prepared,
            deadline,
            leg,
        };
        if is_stream {
            relay::stream(self, answered, answer, billing, trace).await
        } else {
            relay::whole(self, answered, answer, billing, trace).await
        }
    }

    /// Whether a hard budget, or the caller's own limit, needs the call to have an output cap.
    fn is_bounded(&self, target: &Target) -> bool {
        let room = || self.shared.meter.room(self.subject, &target.name, now_ms());
        self.thrift.most.is_some() || room().is_some()
    }

    /// How long the endpoint may take: to its first content, or to the end of a whole answer.
    fn patience(&self) -> Duration {
        let patience = &self.runtime.upstream;
        Duration::from_millis(if self.inbound.scan.stream {
            patience.first_byte_timeout_ms
        } else {
            patience.reply_timeout_ms
        })
    }

    /// What is sent: what was written anew, or the caller's bytes with the edits this upstream needs.
    fn body(&self, target: &Target, prepared: &Prepared, cap: Option<u64>) -> Pieces {
        if let Some(made) = &prepared.made {
            return Pieces::from(vec![made.clone()]);
        }
        let change = Change {
            model: &target.upstream_model,
            cap,
            cap_field: &target.endpoint.cap_field,
            most_output: self.most_output(target),
            thinking: target.thinking,
        };
        let edits = self.inbound.dialect.edits(&self.inbound.scan, &change);
        Pieces::from(wire::splice::apply(&self.inbound.body, edits))
    }

    /// No answer came. Without a connection nothing is billed. With one, an endpoint that streams
    /// would have begun to answer before it worked; one that does not may have done all the work.
    fn unsent(
        &self,
        target: &Target,
        billing: &mut Billing,
        error: &upstream::SendError,
    ) -> Failed {
        if error.connected && !self.inbound.scan.stream {
            billing.charge_bound();
        } else {
            billing.void();
        }
        failed(target, &error.to_string())
    }

    /// The endpoint answered with an error: nothing is billed for that.
    async fn turned_away(
        &self,
        target: &Target,
        billing: &mut Billing,
        answer: Response<Answer>,
        prepared: &Prepared,
        trace: &mut Trace,
    ) -> Result<Response<Body>, Failed> {
        let (head, body) = answer.into_parts();
        let status = head.status.as_u16();
        billing.void();
        let retry_after = head
            .headers
            .get(RETRY_AFTER)
            .and_then(|v| v.to_str().ok()?.parse().ok());
        match status {
            401 | 403 => {
                tracing::error!(endpoint = %target.endpoint.name, status, "the endpoint refuses our key");
                return Err(failed(target, "the endpoint refuses the gateway's key"));
            }
            408 | 500.. => {
                if let (503 | 529, Some(seconds)) = (status, retry_after) {
                    target.health.cool_down(seconds, now_ms());
                }
                return Err(overwhelmed(target, status, retry_after));
            }
            429 => {
                target.health.cool_down(retry_after.unwrap_or(1), now_ms());
                let message = format!("endpoint of model `{}` is at its rate limit", target.name);
                let limited = refusal::upstream(429, "upstream_rate_limited", message);
                let retry_after_s = Some(retry_after.unwrap_or(1).min(60));
                return Err(Failed::Next(Refusal {
                    retry_after_s,
                    ..limited
                }));
            }
            _ => {}
        }
        target.health.succeeded();
        let names = prepared.made.is_none() && self.context.bytes_elsewhere() > 0;
        if matches!(status, 400 | 404) && names {
            return Err(Failed::Again);
        }
        trace.lap(Phase::Upstream);
        // The caller's own mistake, told in the endpoint's words.
        let read = upstream::read_all(body, ERROR_BYTES);
        let text = timeout(Duration::from_secs(10), read)
            .await
            .ok()
            .flatten()
            .unwrap_or_default();
        if prepared.asked.is_some() {
            // Or ours: what this dialect does not take, another may.
            let told = refusal::rejected(status, wire::dialect::told(&text));
            return Err(Failed::Next(told));
        }
        let text = String::from_utf8_lossy(&text).into_owned();
        let mut response = refusal::json(status, text);
        upstream::returned(&head.headers, response.headers_mut());
        telemetry::answered(trace, "rejected");
        Ok(response)
    }
}

/// An answer that has begun, with what it answers.
pub(crate) struct Answered<'a> {
    pub(crate) target: &'a Target,
    pub(crate) prepared: Prepared,
    pub(crate) deadline: Instant,
    pub(crate) leg: Leg,
}

/// Logs an attempt that failed.
pub(crate) fn told(request: RequestId, target: &Target, refusal: &Refusal) {
    let endpoint = &target.endpoint.name;
    tracing::warn!(%request, %endpoint, why = refusal.message, "an attempt failed");
}

/// The endpoint's own failure. What callers' clients tell apart keeps its status: overload is not a
/// fault, and asks for another pause.
fn overwhelmed(target: &Target, status: u16, retry_after: Option<u64>) -> Failed {
    let failure = failed(
        target,
        &format!("the endpoint answered with status {status}"),
    );
    let Failed::Next(refusal) = failure else {
        return failure;
    };
    let shown = status.max(500);
    Failed::Next(Refusal {
        status: shown,
        retry_after_s: retry_after.map(|seconds| seconds.min(60)),
        ..refusal
    })
}

/// An upstream's failure: counted against its health, and the next one may be tried.
pub(crate) fn failed(target: &Target, what: &str) -> Failed {
    target.health.failed(now_ms());
    let message = format!("model `{}` failed: {what}", target.name);
    Failed::Next(refusal::upstream(502, "upstream_failed", message))
}

/// The endpoint went silent. It may still bill for the work, so the bound is charged.
pub(crate) fn timed_out(target: &Target, billing: &mut Billing) -> Failed {
    billing.charge_bound();
    target.health.failed(now_ms());
    let message = format!("model `{}` did not answer in time", target.name);
    Failed::Next(refusal::upstream(504, "upstream_timeout", message))
}
