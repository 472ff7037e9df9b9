//! Trying upstreams: a hold for each attempt, failover as long as no content has reached the
//! caller, and every hold settled by what the attempt showed.

use std::sync::Arc;
use std::time::Duration;

use http::Response;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use hyper::body::Incoming;
use meter::{Denied, Estimate, Held, Hold, NanoUsd, Subject};
use tokio::time::{Instant, timeout, timeout_at};
use wire::dialect::Change;
use wire::{Refusal, Usage};

use crate::clock::now_ms;
use crate::gateway::{Body, Shared};
use crate::intake::Inbound;
use crate::refusal;
use crate::relay::{self, Billing};
use crate::runtime::{Runtime, Target};
use crate::telemetry;
use crate::trace::{Phase, Trace};
use crate::upstream::{self, Pieces};

/// Attempts at most for one call: two retries, so that an outage is not multiplied.
const ATTEMPTS: usize = 3;
/// Tokens that an image or file may cost; published formulas stay below.
const IMAGE_TOKENS: u64 = 8_192;
/// Tokens that a chat template and a tool preamble may add to a prompt.
const TEMPLATE_TOKENS: u64 = 1_024;
/// Tokens of a prompt with files, for a model whose context nobody knows.
const LONGEST_CONTEXT: u64 = 1 << 20;
/// The least output cap that is worth sending a call for.
const LEAST_CAP: u64 = 16;
/// The longest error body taken from an endpoint.
const ERROR_BYTES: usize = 64 << 10;

/// A call with everything decided but its upstream.
pub(crate) struct Dispatch<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) runtime: &'a Runtime,
    pub(crate) subject: &'a Subject,
    pub(crate) inbound: &'a Inbound,
    pub(crate) route: &'a router::Route,
}

/// How an attempt ended when it brought no answer.
pub(crate) enum Failed {
    /// Nothing reached the caller, and another upstream may do better.
    Next(Refusal),
    /// Another upstream would say the same.
    Last(Refusal),
}

impl Dispatch<'_> {
    /// Tries the route's models in order until one answers.
    pub(crate) async fn run(&self, trace: &mut Trace) -> Result<Response<Body>, Refusal> {
        let mut last = None;
        let places = self.route.order.iter().take(ATTEMPTS);
        for (attempt, place) in (0_u16..).zip(places) {
            let Some(target) = self.runtime.targets.get(place) else {
                continue;
            };
            match self.once(target, attempt, trace).await {
                Ok(response) => return Ok(response),
                Err(Failed::Last(refusal)) => return Err(refusal),
                Err(Failed::Next(refusal)) => {
                    let (request, endpoint) = (trace.request, &target.endpoint.name);
                    tracing::warn!(%request, %endpoint, why = refusal.message, "an attempt failed");
                    last = Some(refusal);
                }
            }
        }
        let none = || refusal::upstream(503, "no_upstream", "no upstream is configured".to_owned());
        Err(last.unwrap_or_else(none))
    }

    async fn once(
        &self,
        target: &Target,
        attempt: u16,
        trace: &mut Trace,
    ) -> Result<Response<Body>, Failed> {
        let (mut hold, cap) = self
            .hold(target, attempt, trace)
            .await
            .map_err(Failed::Last)?;
        trace.lap(Phase::Hold);
        let inbound = self.inbound;
        let change = Change {
            model: &target.upstream_model,
            cap,
            cap_field: &target.endpoint.cap_field,
        };
        let edits = inbound.dialect.edits(&inbound.scan, &change);
        let body = Pieces::from(wire::splice::apply(&inbound.body, edits));
        hold.sent(now_ms());
        trace.answered_by = Some((
            Arc::clone(&target.name),
            target.tier,
            self.route.reason.as_str(),
        ));
        let mut billing = Billing::new(hold, trace.clone(), inbound.body.len());
        let patience = &self.runtime.upstream;
        let wait = Duration::from_millis(if inbound.scan.stream {
            patience.first_byte_timeout_ms
        } else {
            patience.reply_timeout_ms
        });
        let deadline = Instant::now() + wait;
        let sending = target
            .endpoint
            .send(&inbound.headers, body, trace.request, attempt);
        let answer = match timeout_at(deadline, sending).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(self.unsent(target, &mut billing, &error)),
            Err(_) => return Err(timed_out(target, &mut billing)),
        };
        billing.status = answer.status().as_u16();
        if !answer.status().is_success() {
            return self.turned_away(target, &mut billing, answer, trace).await;
        }
        if answer.headers().contains_key(CONTENT_ENCODING) {
            billing.charge_bound();
            return Err(failed(
                target,
                "endpoint sent a compressed answer nobody asked for",
            ));
        }
        let is_stream = answer
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        if is_stream {
            relay::stream(self, target, answer, billing, trace, deadline).await
        } else {
            relay::whole(self, target, answer, billing, trace, deadline).await
        }
    }

    /// Holds the bound; waits while only other calls' holds stand in the way. Also returns the
    /// output cap that must be written into the call to make the bound true.
    async fn hold(
        &self,
        target: &Target,
        attempt: u16,
        trace: &Trace,
    ) -> Result<(Hold, Option<u64>), Refusal> {
        let meter = &self.shared.meter;
        let deadline = Instant::now() + Duration::from_millis(self.runtime.meter.hold_wait_ms);
        let capped = meter.room(self.subject, now_ms()).is_some();
        if capped && self.inbound.scan.shape.server_tools > 0 {
            return Err(refusal::unbounded());
        }
        let mut cap = self.cap(target, capped);
        loop {
            let releases = meter.releases(&self.subject.tenant);
            let now = now_ms();
            let estimate = self.estimate(target, attempt, trace, cap, now);
            let denied = match meter.hold(estimate, now) {
                Ok(hold) => return Ok((hold, capped.then_some(cap))),
                Err(denied) => denied,
            };
            match (&denied, releases) {
                (Denied::Budget { waits: true, .. }, Some(mut releases)) => {
                    telemetry::waited_for_holds();
                    if timeout_at(deadline, releases.changed()).await.is_ok() {
                        continue;
                    }
                }
                // A caller who named no cap is served as far as the money goes.
                (Denied::Budget { waits: false, .. }, _) => {
                    if let Some(smaller) = self.affordable(target, cap, now) {
                        cap = smaller;
                        continue;
                    }
                }
                _ => {}
            }
            return Err(refusal::denied(&denied, now_ms()));
        }
    }

    /// The output cap to hold for: the caller's, or the default under a hard budget.
    fn cap(&self, target: &Target, capped: bool) -> u64 {
        let longest = target.max_output.unwrap_or(u64::from(u32::MAX));
        let default = if capped {
            self.runtime.meter.default_max_output
        } else {
            longest
        };
        self.inbound.scan.max_output.unwrap_or(default).min(longest)
    }

    /// A smaller cap that what is left pays for, where the caller set none.
    fn affordable(&self, target: &Target, cap: u64, now: i64) -> Option<u64> {
        let scan = &self.inbound.scan;
        if scan.max_output.is_some() {
            return None;
        }
        let room = self.shared.meter.room(self.subject, now)?;
        let rates = self.runtime.rates(target, &scan.lane, now)?;
        let fits = rates.affordable_answer(self.prompt_bound(target), room);
        let each = fits.checked_div(scan.answers)?;
        (each >= LEAST_CAP && each < cap).then_some(each)
    }

    /// No byte-level tokenizer makes more tokens than bytes, so this can not be exceeded. Pages of a
    /// file can: a call with files is held for all that the model takes.
    fn prompt_bound(&self, target: &Target) -> u64 {
        let shape = &self.inbound.scan.shape;
        let images = u64::from(shape.images).saturating_mul(IMAGE_TOKENS);
        let template = if shape.tools > 0 { TEMPLATE_TOKENS } else { 0 };
        let bytes = u64::try_from(self.inbound.body.len()).unwrap_or(u64::MAX);
        let bound = bytes.saturating_add(images).saturating_add(template);
        if shape.files > 0 {
            bound.max(target.context.unwrap_or(LONGEST_CONTEXT))
        } else {
            bound
        }
    }

    fn estimate(
        &self,
        target: &Target,
        attempt: u16,
        trace: &Trace,
        cap: u64,
        now: i64,
    ) -> Estimate {
        let scan = &self.inbound.scan;
        let bound = Usage {
            input: self.prompt_bound(target),
            output: cap.saturating_mul(scan.answers),
            ..Usage::default()
        };
        Estimate {
            held: Held {
                request: trace.request,
                attempt,
                subject: self.subject.clone(),
                dialect: Arc::from(self.inbound.dialect.name()),
                requested: Arc::from(scan.model.as_str()),
                model: Arc::clone(&target.name),
                endpoint: Arc::clone(&target.endpoint.name),
                tier: target.tier,
                reason: Arc::from(self.route.reason.as_str()),
                score_milli: self.route.score.map(router::Score::milli),
                stream: scan.stream,
                held_at_ms: now,
                bound: NanoUsd::ZERO,
                bound_usage: bound,
                price: Arc::from(""),
            },
            rates: self.runtime.rates(target, &scan.lane, now),
            baseline: self
                .runtime
                .deep_rates(target.dialect.name(), &scan.lane, now),
        }
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
        answer: Response<Incoming>,
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
                return Err(failed(
                    target,
                    &format!("the endpoint answered with status {status}"),
                ));
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
        trace.lap(Phase::Upstream);
        // The caller's own mistake, told in the endpoint's words: their dialect is the same.
        let read = upstream::read_all(body, ERROR_BYTES);
        let text = timeout(Duration::from_secs(10), read)
            .await
            .ok()
            .flatten()
            .unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let mut response = refusal::json(status, text);
        upstream::returned(&head.headers, response.headers_mut());
        telemetry::answered(trace, "rejected");
        Ok(response)
    }
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
