//! Trying upstreams: a hold for each attempt, failover as long as no content has reached the
//! caller, and every hold settled by what the attempt showed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Response;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use hyper::body::Incoming;
use meter::config::OnUnpriced;
use meter::{Denied, Estimate, Held, Hold, NanoUsd, Subject};
use tokio::time::{Instant, timeout, timeout_at};
use wire::dialect::{Change, Facts};
use wire::{Fault, Refusal, RequestId, Usage};

use crate::clock::now_ms;
use crate::context::Context;
use crate::gateway::{Body, Shared};
use crate::intake::Inbound;
use crate::prepare::{Canonical, Prepared};
use crate::refusal;
use crate::relay::{self, Billing};
use crate::routing::Decided;
use crate::runtime::{self, Runtime, Target};
use crate::telemetry;
use crate::thrift::Thrift;
use crate::trace::{Phase, Trace};
use crate::upstream::{self, Pieces};

/// Attempts at most for one call: two retries, so that an outage is not multiplied.
const ATTEMPTS: u16 = 3;
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
    pub(crate) decided: &'a Decided,
    pub(crate) context: &'a Context,
    pub(crate) thrift: &'a Thrift,
    pub(crate) request: RequestId,
    pub(crate) canonical: Canonical,
    /// An upstream did not know what the call names by id.
    pub(crate) writes_out: AtomicBool,
}

/// What of a hold can change while it is sought.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    prompt: u64,
    cap: u64,
}

/// Why a hold can not be had.
enum TooMuch {
    /// A budget or limit has no room.
    Meter(Denied),
    /// The caller does not want to pay as much; `None` where nobody knows what it may cost.
    Caller {
        most: NanoUsd,
        needed: Option<NanoUsd>,
    },
}

impl TooMuch {
    fn waits(&self) -> bool {
        matches!(self, Self::Meter(denied) if denied.waits())
    }
}

/// How an attempt ended when it brought no answer.
pub(crate) enum Failed {
    /// Nothing reached the caller, and another upstream may do better.
    Next(Refusal),
    /// Another upstream would say the same.
    Last(Refusal),
    /// The same upstream may take the call with what it names by id written out.
    Again,
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
        for attempt in 0..ATTEMPTS {
            let Some(target) = left.first().copied() else {
                break;
            };
            left.remove(0);
            match self.once(target, attempt, trace).await {
                Ok(response) => return Ok(response),
                Err(Failed::Last(refusal)) => return Err(refusal),
                Err(Failed::Again) => {
                    self.writes_out.store(true, Ordering::Relaxed);
                    left.insert(0, target);
                }
                Err(Failed::Next(refusal)) => {
                    let (request, endpoint) = (trace.request, &target.endpoint.name);
                    tracing::warn!(%request, %endpoint, why = refusal.message, "an attempt failed");
                    last = Some(worse(last, refusal));
                    // Whoever failed is likely to fail in another dialect too: others come first.
                    left.sort_by_key(|other| other.endpoint.origin == target.endpoint.origin);
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
        let capped = self.is_bounded(target);
        let wanted = self.cap(target, capped);
        let mut prepared = self.prepare(target, capped.then_some(wanted)).await?;
        let (mut hold, cap) = self
            .hold(target, attempt, trace, &prepared, (wanted, capped))
            .await?;
        trace.cap = (capped && self.inbound.scan.max_output.is_none()).then_some(cap);
        if capped && cap != wanted {
            prepared = self.recapped(target, prepared, cap)?;
        }
        trace.lap(Phase::Hold);
        trace.losses.clone_from(&prepared.losses);
        let inbound = self.inbound;
        let body = self.body(target, &prepared, capped.then_some(cap));
        hold.sent(now_ms());
        trace.answered_by = Some((
            Arc::clone(&target.name),
            target.tier,
            self.decided.route.reason.as_str(),
        ));
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
            .send(inbound, body, trace.request, attempt, at_home);
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

    /// Holds the bound; waits while only other calls' holds stand in the way. Also returns the
    /// output cap that must be written into the call to make the bound true.
    async fn hold(
        &self,
        target: &Target,
        attempt: u16,
        trace: &Trace,
        prepared: &Prepared,
        (cap, capped): (u64, bool),
    ) -> Result<(Hold, u64), Failed> {
        let meter = &self.shared.meter;
        let deadline = Instant::now() + Duration::from_millis(self.runtime.meter.hold_wait_ms);
        if capped && prepared.scan(self.inbound).shape.server_tools > 0 {
            return Err(Failed::Last(refusal::unbounded()));
        }
        let prompt = self.prompt_bound(target, prepared);
        // A dialect may have a least cap, above the one that was asked for.
        let written = prepared
            .made
            .as_ref()
            .and(prepared.scan(self.inbound).max_output);
        let cap = written.map_or(cap, |written| written.max(cap));
        let mut bounds = Bounds { prompt, cap };
        let (mut is_counted, mut has_waited) = (false, false);
        loop {
            let releases = meter.releases(&self.subject.tenant);
            let now = now_ms();
            let estimate = self.estimate(target, attempt, trace, prepared, bounds, now);
            let denied = match self.held(estimate, now) {
                Ok(hold) => return Ok((hold, bounds.cap)),
                Err(denied) => denied,
            };
            // Bytes are a bound that costs nothing; where it is too wide, tokens are counted.
            let may_fit = matches!(
                denied,
                TooMuch::Meter(Denied::Budget { .. } | Denied::Rate { .. })
                    | TooMuch::Caller { .. }
            );
            if may_fit && !is_counted {
                is_counted = true;
                let counted = self.counted_bound(target, prepared);
                if let Some(counted) = counted.filter(|counted| *counted < bounds.prompt) {
                    bounds.prompt = counted;
                    continue;
                }
            }
            if let (true, Some(mut releases)) = (denied.waits(), releases) {
                if !std::mem::replace(&mut has_waited, true) {
                    self.note_wait(&denied, now);
                }
                if timeout_at(deadline, releases.changed()).await.is_ok() {
                    continue;
                }
            }
            // A caller who named no cap is served as far as the money goes.
            if let Some(smaller) = self.affordable(target, prepared, bounds, now) {
                bounds.cap = smaller;
                continue;
            }
            return Err(self.too_much(target, &denied));
        }
    }

    /// Notes, once for each call, that it waits.
    fn note_wait(&self, denied: &TooMuch, now: i64) {
        if let TooMuch::Meter(denied) = denied {
            let meter = &self.shared.meter;
            meter.note_wait(&self.subject.tenant, denied, now);
        }
    }

    /// Notes that there is no hold for the call, and tells why.
    fn too_much(&self, target: &Target, denied: &TooMuch) -> Failed {
        match denied {
            TooMuch::Meter(denied) => {
                let (tenant, now) = (&self.subject.tenant, now_ms());
                self.shared.meter.note_denied(tenant, denied, now);
                if let Denied::Rate { unit, .. } = denied {
                    telemetry::rate_limited(tenant, *unit);
                }
                Failed::Last(refusal::denied(denied, now))
            }
            TooMuch::Caller { most, needed } => {
                Failed::Next(refusal::too_dear(&target.name, *most, *needed))
            }
        }
    }

    /// Holds, unless the caller's own limit is below the bound.
    fn held(&self, estimate: Estimate, now: i64) -> Result<Hold, TooMuch> {
        if let Some(most) = self.thrift.most {
            let needed = estimate.bound();
            if needed.is_none_or(|needed| needed > most) {
                return Err(TooMuch::Caller { most, needed });
            }
        }
        self.shared
            .meter
            .hold(estimate, now)
            .map_err(TooMuch::Meter)
    }

    /// The output cap to hold for: the caller's, or the default under a hard budget.
    fn cap(&self, target: &Target, capped: bool) -> u64 {
        if !self.inbound.dialect.converses() {
            return 0;
        }
        let longest = target.max_output.unwrap_or(u64::from(u32::MAX));
        let default = if capped {
            self.runtime.meter.default_max_output
        } else {
            longest
        };
        self.inbound.scan.max_output.unwrap_or(default).min(longest)
    }

    /// A smaller cap that what is left pays for, where the caller set none.
    fn affordable(
        &self,
        target: &Target,
        prepared: &Prepared,
        bounds: Bounds,
        now: i64,
    ) -> Option<u64> {
        let scan = &self.inbound.scan;
        if scan.max_output.is_some() {
            return None;
        }
        let room = self.shared.meter.room(self.subject, &target.name, now);
        let room = match (room, self.thrift.most) {
            (Some(room), Some(most)) => room.min(most),
            (room, most) => room.or(most)?,
        };
        let sent = prepared.scan(self.inbound);
        let rates = self.runtime.rates(target, &sent.lane, now)?;
        let fits = rates.affordable_answer(bounds.prompt, room);
        let each = fits.checked_div(sent.answers)?;
        (each >= LEAST_CAP && each < bounds.cap).then_some(each)
    }

    /// No byte-level tokenizer makes more tokens than bytes, so this can not be exceeded. Pages of a
    /// file can: a call with files is held for all that the model takes.
    fn prompt_bound(&self, target: &Target, prepared: &Prepared) -> u64 {
        let sent = prepared.made.as_ref().unwrap_or(&self.inbound.body).len();
        let elsewhere = if prepared.made.is_none() {
            self.context.bytes_elsewhere() + self.context.tokens_elsewhere()
        } else {
            0
        };
        let bytes = u64::try_from(sent + elsewhere).unwrap_or(u64::MAX);
        let bound = bytes.saturating_add(self.beside_text(prepared));
        if prepared.scan(self.inbound).shape.files > 0 {
            bound.max(target.context.unwrap_or(LONGEST_CONTEXT))
        } else {
            bound
        }
    }

    /// Tokens of images, templates and tool preambles.
    fn beside_text(&self, prepared: &Prepared) -> u64 {
        let shape = &prepared.scan(self.inbound).shape;
        let images = u64::from(shape.images).saturating_mul(IMAGE_TOKENS);
        let template = if shape.tools > 0 { TEMPLATE_TOKENS } else { 0 };
        images.saturating_add(template)
    }

    /// The bound by counted tokens, where the model's own tokenizer is known. The whole body is
    /// counted as text: its JSON marks outnumber what a chat template puts in their place.
    fn counted_bound(&self, target: &Target, prepared: &Prepared) -> Option<u64> {
        let shape = &prepared.scan(self.inbound).shape;
        let whole = prepared.made.is_some() || self.context.bytes_elsewhere() == 0;
        if !target.tokenizer_is_its_own || shape.files > 0 || !whole {
            return None;
        }
        let sent = prepared.made.as_ref().unwrap_or(&self.inbound.body);
        let text = std::str::from_utf8(sent).ok()?;
        let counted = target.factor.apply(target.tokenizer.count(text));
        Some(
            counted
                .saturating_add(self.beside_text(prepared))
                .saturating_add(TEMPLATE_TOKENS),
        )
    }

    fn estimate(
        &self,
        target: &Target,
        attempt: u16,
        trace: &Trace,
        prepared: &Prepared,
        bounds: Bounds,
        now: i64,
    ) -> Estimate {
        // The lane and the number of answers are those that are sent: a translation may drop them.
        let sent = prepared.scan(self.inbound);
        let scan = &self.inbound.scan;
        let bound = Usage {
            input: bounds.prompt,
            output: bounds.cap.saturating_mul(sent.answers),
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
                reason: Arc::from(self.decided.route.reason.as_str()),
                score_milli: self.decided.route.score.map(router::Score::milli),
                stream: scan.stream,
                held_at_ms: now,
                bound: NanoUsd::ZERO,
                bound_usage: bound,
                price: Arc::from(""),
                losses: Arc::from(prepared.losses.header()),
                session: self.context.session.key,
                lane: Arc::from(runtime::lane(&sent.lane)),
                book: Arc::clone(&self.runtime.book_version),
                charges: Vec::new(),
                routing: Some(self.decided.routing_of(attempt)),
            },
            rates: self.runtime.rates(target, &sent.lane, now),
            baseline: self.runtime.deep_rates(target, &sent.lane, now),
            sell: Arc::clone(&self.runtime.sell),
            admits_unpriced: self.runtime.meter.on_unpriced == OnUnpriced::Meter,
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
