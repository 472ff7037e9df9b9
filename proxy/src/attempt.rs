//! Trying upstreams: a hold for each attempt, failover as long as no content has reached the
//! caller, and every hold settled by what the attempt showed.

mod course;
pub(crate) mod deadline;
mod hedge;
mod holding;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::response::Parts;
use http::{Response, StatusCode};
use memchr::memmem;
use meter::{Subject, point};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use wire::dialect::allowance::RETRY_COUNT;
use wire::dialect::{Change, Facts};
use wire::{Refusal, RequestId, Tier};

use crate::admission::Short;
use crate::care::{self, Lean, Passage};
use crate::cascade::{Cause, Leg};
use crate::clock::{now_ms, uptime_ms};
use crate::context::Context;
use crate::gateway::{Body, Shared};
use crate::intake::Inbound;
use crate::names;
use crate::otlp;
use crate::prepare::{Canonical, Prepared};
use crate::refusal;
use crate::relay::{self, Billing, Doubted};
use crate::routing::Decided;
use crate::runtime::{Runtime, Target};
use crate::telemetry;
use crate::thrift::Thrift;
use crate::trace::{Phase, Trace};
use crate::upstream::{self, About, Answer, Pieces};

use course::{Back, Course, Manner, Setback, Turn};

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
    /// Until when the caller waits for the first content.
    pub(crate) deadline: Option<Instant>,
    /// An upstream did not know what the call names by id.
    pub(crate) writes_out: AtomicBool,
}

/// How an attempt ended when it brought no answer that is given.
pub(crate) enum Failed {
    /// It was not made, and another upstream may do better.
    Next(Refusal),
    /// The upstream failed before anything reached the caller.
    Setback(Setback),
    /// Another upstream would say the same.
    Last(Refusal),
    /// The same upstream may take the call with what it names by id written out.
    Again,
    /// The answer is there, but failed a check; another tier may do better.
    Doubted(Box<Doubted>),
}

/// How a course ended without an answer.
pub(crate) enum Ended {
    Refused(Refusal),
    Doubted(Box<Doubted>),
}

impl Dispatch<'_> {
    /// Tries the route's models in order until one answers.
    pub(crate) async fn run(&self, trace: &mut Trace) -> Result<Response<Body>, Refusal> {
        let (runtime, now) = (self.runtime, now_ms());
        let order = self.decided.route.order.iter();
        let targets = order.filter_map(|it| runtime.targets.get(it));
        let allowed = targets.filter(|target| self.thrift.allows(target, runtime, now));
        let manner = self.manner();
        let mut left = Vec::with_capacity(8);
        for target in allowed {
            target.arranged(manner.lean, &mut left);
        }
        if let (Some(budget), true) = (&self.thrift.free, left.is_empty()) {
            let meter = &self.shared.meter;
            meter.note(&self.subject.tenant, budget, "deny", now);
            let denied = meter.only_free(budget, now);
            return Err(refusal::denied(&denied, now));
        }
        if let (Some(first), false) = (left.first(), self.is_repeated()) {
            first.group.called(uptime_ms());
        }
        // Kept apart, because whatever a call waits with is copied where it is handed on.
        let mut course = Box::new(Course::along(left, manner));
        match self.along(&mut course, Leg::Only, trace).await {
            Ok(response) => Ok(response),
            Err(Ended::Refused(refusal)) => Err(refusal),
            Err(Ended::Doubted(doubted)) => Box::pin(self.escalate(*doubted, trace)).await,
        }
    }

    /// An answer of one of `left` in place of a fast one that failed a check, or why there is none.
    pub(crate) async fn instead<'a>(
        &'a self,
        left: Vec<&'a Arc<Target>>,
        cause: Cause,
        trace: &mut Trace,
    ) -> Result<Response<Body>, Ended> {
        let mut course = Course::hurried(left, self.manner());
        self.along(&mut course, Leg::Second(cause), trace).await
    }

    /// Tries the models of a course, each as `leg` says, until one answers.
    async fn along<'a>(
        &'a self,
        course: &mut Course<'a>,
        leg: Leg,
        trace: &mut Trace,
    ) -> Result<Response<Body>, Ended> {
        loop {
            let (target, passage) = match course.turn() {
                Turn::Ask(target, passage) => (target, passage),
                Turn::Wait(until) => {
                    sleep_until(until).await;
                    continue;
                }
                Turn::Over(refusal) => return Err(Ended::Refused(refusal)),
            };
            let is_first = self.decided.route.cascade && target.tier == Tier::Fast;
            let leg = match leg {
                Leg::Only if is_first => Leg::First,
                leg => leg,
            };
            let (target, result) = match self.hedges_after(target, leg) {
                Some(patience) => {
                    let both = (target, passage);
                    Box::pin(self.race(course, both, patience, trace)).await
                }
                None => (target, self.once(target, passage, leg, trace).await),
            };
            match result {
                Ok(response) => return Ok(response),
                Err(Failed::Doubted(doubted)) => return Err(Ended::Doubted(doubted)),
                Err(Failed::Last(refusal)) => return Err(Ended::Refused(refusal)),
                Err(Failed::Again) => {
                    self.writes_out.store(true, Ordering::Relaxed);
                    course.again(target);
                }
                Err(Failed::Next(refusal)) => {
                    told(trace.request, target, &refusal);
                    course.passes_by(target, refusal);
                }
                Err(Failed::Setback(setback)) => {
                    told(trace.request, target, &setback.refusal);
                    course.failed(target, setback);
                }
            }
        }
    }

    fn manner(&self) -> Manner {
        let bytes = self.inbound.body.len() + self.context.bytes_elsewhere();
        Manner {
            is_stream: self.inbound.scan.stream,
            deadline: self.deadline,
            lean: Lean::of(self.context.session.key, bytes, care::luck()),
        }
    }

    /// Whether the caller's own client tries again: retries on retries multiply.
    fn is_repeated(&self) -> bool {
        let count = names::find(&self.inbound.headers, RETRY_COUNT);
        count.is_some_and(|count| count != "0")
    }

    /// Whether a target that has failed may be asked again.
    fn soon(&self) -> Back {
        if self.is_repeated() {
            Back::No
        } else {
            Back::Soon
        }
    }

    /// Tries one model. An attempt that no money was held for leaves no trace in the ledger and is not
    /// numbered: the first that does carries the decision.
    async fn once(
        &self,
        target: &Target,
        passage: Box<Passage>,
        leg: Leg,
        trace: &mut Trace,
    ) -> Result<Response<Body>, Failed> {
        let number = trace.attempts;
        let capped = self.is_bounded(target);
        let wanted = self.cap(target, capped);
        let asked_cap = capped.then_some(wanted);
        let mut prepared = match self.as_it_is(target, asked_cap) {
            Some(prepared) => prepared,
            None => Box::pin(self.rewritten(target, asked_cap)).await?,
        };
        let (mut hold, cap) = self
            .hold(target, leg, trace, &prepared, (wanted, capped))
            .await?;
        trace.attempts += 1;
        trace.cap = (capped && self.inbound.scan.max_output.is_none()).then_some(cap);
        if capped && cap != wanted {
            prepared = self.recapped(target, prepared, cap)?;
        }
        trace.losses.clone_from(&prepared.losses);
        let inbound = self.inbound;
        let body = self.body(target, &prepared, capped.then_some(cap));
        hold.sent(now_ms());
        point::at("call.held");
        let reason = leg.reason(&self.decided.route).as_str();
        trace.answered_by = Some((Arc::clone(&target.name), target.tier, reason));
        let sent = prepared.made.as_ref().unwrap_or(&inbound.body).clone();
        let teaches = self.teaches(&prepared);
        let mut billing = Billing::new(hold, trace.clone(), sent, passage, teaches)
            .seated(&self.shared.sessions, self.context.session);
        let deadline = self.until();
        let about = self.about(number, prepared.asked.is_none(), (target, trace));
        let (endpoint, key) = (&target.endpoint, billing.passage.shared_key());
        let sending = endpoint.send(inbound, &key, body, about);
        let answer = match timeout_at(deadline, sending).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(self.unsent(target, &mut billing, &error)),
            Err(_) => return Err(self.timed_out(target, &mut billing)),
        };
        point::at("call.answered");
        billing.status = answer.status().as_u16();
        billing.passage.heed(answer.headers());
        if let Some(what) = no_answer(&answer) {
            billing.interrupt(&Facts::default());
            return Err(failed(target, &what));
        }
        if !answer.status().is_success() {
            let told = self.turned_away(target, &mut billing, answer, &prepared, trace);
            return Box::pin(told).await;
        }
        let answered = Answered {
            target,
            prepared,
            deadline,
            leg,
        };
        if is_stream(&answer) {
            Box::pin(relay::stream(self, answered, answer, billing, trace)).await
        } else {
            relay::whole(self, answered, answer, billing, trace).await
        }
    }

    /// Whether a hard budget, or the caller's own limit, needs the call to have an output cap.
    fn is_bounded(&self, target: &Target) -> bool {
        let room = || self.shared.meter.room(self.subject, &target.name, now_ms());
        self.thrift.most.is_some() || room().is_some()
    }

    /// Whether what is sent is text alone, and all of it: its reported tokens say how the model counts.
    fn teaches(&self, prepared: &Prepared) -> bool {
        let shape = &prepared.scan(self.inbound).shape;
        let is_text = shape.images + shape.files + shape.server_tools == 0;
        is_text && (prepared.made.is_some() || self.context.bytes_elsewhere() == 0)
    }

    /// Until when the endpoint, and the caller, wait: for its first content, or for the end of a whole answer.
    fn until(&self) -> Instant {
        let patience = &self.runtime.upstream;
        let patience = Duration::from_millis(if self.inbound.scan.stream {
            patience.first_byte_timeout_ms
        } else {
            patience.reply_timeout_ms
        });
        let until = Instant::now() + patience;
        self.deadline.map_or(until, |it| it.min(until))
    }

    fn about(&self, attempt: u16, at_home: bool, (target, trace): (&Target, &Trace)) -> About {
        let headers = &self.inbound.headers;
        let spot = || otlp::onward(trace.call.as_ref(), headers, attempt);
        About {
            request: self.request,
            attempt,
            at_home,
            left: self.deadline.map(|it| it - Instant::now()),
            spot: target.endpoint.traceparent.then(spot).flatten(),
        }
    }

    /// The endpoint went silent, or the caller waits no longer. It may still bill for the work, so the bound
    /// is charged.
    pub(crate) fn timed_out(&self, target: &Target, billing: &mut Billing) -> Failed {
        if self.deadline.is_some_and(|it| it <= Instant::now()) {
            // Which shows nothing of the endpoint.
            billing.passage.excuse();
            billing.charge_bound();
            return Failed::Last(refusal::deadline_passed(&target.name));
        }
        billing.charge_bound();
        let message = format!("model `{}` did not answer in time", target.name);
        Failed::Setback(Setback {
            refusal: refusal::upstream(504, "upstream_timeout", message),
            seen: true,
            back: Back::No,
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
        if error.is_ours {
            // Nor would there be a connection to another one.
            billing.passage.excuse();
            billing.void();
            return Failed::Last(refusal::overloaded(Short::Descriptors, 1));
        }
        if error.connected && !self.inbound.scan.stream {
            billing.charge_bound();
        } else {
            billing.void();
        }
        let back = if error.is_stale {
            // The endpoint was about to close the connection anyway, which shows nothing of it.
            Back::AtOnce
        } else {
            billing.passage.failed();
            if error.connected {
                Back::No
            } else {
                self.soon()
            }
        };
        Failed::Setback(Setback {
            seen: error.connected && !error.is_stale,
            back,
            refusal: broken(target, &error.to_string()),
        })
    }

    /// What an endpoint's error means for it and for the call; `None` where it is the caller's own.
    fn setback(&self, target: &Target, billing: &mut Billing, head: &Parts) -> Option<Setback> {
        let status = head.status.as_u16();
        if matches!(status, 429 | 503 | 529) {
            billing.passage.turned_away();
        }
        let asked_ms = care::asked_ms(&head.headers, now_ms());
        let at_once = |has_other, back| if has_other { Back::AtOnce } else { back };
        match status {
            401..=403 => {
                let has_other = billing.passage.refused(status == 403);
                let what = match status {
                    402 => "the endpoint wants its account to be paid for",
                    _ => "the endpoint refuses the gateway's key",
                };
                Some(Setback {
                    refusal: broken(target, what),
                    seen: false,
                    back: at_once(has_other, Back::No),
                })
            }
            300..=399 => {
                billing.passage.failed();
                // Whoever is named there was never configured.
                Some(Setback {
                    refusal: broken(target, "the endpoint answered with a redirect"),
                    seen: true,
                    back: Back::No,
                })
            }
            405 | 407 | 409 | 411 | 412 | 416 | 417 | 421 | 426 | 431 => {
                billing.passage.answered();
                // A word to its client, which is the gateway.
                let what = format!("the endpoint answered with status {status}");
                Some(Setback {
                    refusal: broken(target, &what),
                    seen: true,
                    back: Back::No,
                })
            }
            408 | 500.. => {
                if let (503 | 529, Some(ms)) = (status, asked_ms) {
                    billing.passage.pause_all(ms);
                }
                billing.passage.failed();
                Some(Setback {
                    refusal: overwhelmed(target, status, asked_ms),
                    seen: true,
                    back: asked_ms.map_or_else(|| self.soon(), Back::After),
                })
            }
            429 => {
                let used_up = care::used_up_ms(&head.headers, now_ms());
                let ms = asked_ms.or(used_up).unwrap_or(1_000);
                let has_other = billing.passage.pause(ms);
                Some(Setback {
                    refusal: limited(target, ms),
                    seen: true,
                    back: at_once(has_other, Back::After(ms)),
                })
            }
            _ => None,
        }
    }

    /// Whether what an endpoint did not find is what the operator called it by, and nothing that the caller named
    /// among what the vendor keeps: files, prompts, stores of tools.
    fn is_unknown(&self, target: &Target, prepared: &Prepared, told: &[u8]) -> bool {
        let shape = &prepared.scan(self.inbound).shape;
        let names = shape.images + shape.files + shape.server_tools > 0;
        !names || memmem::find(told, target.upstream_model.as_bytes()).is_some()
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
        if let Some(setback) = self.setback(target, billing, &head) {
            return Err(Failed::Setback(setback));
        }
        billing.passage.answered();
        let names = prepared.made.is_none() && self.context.bytes_elsewhere() > 0;
        if matches!(status, 400 | 404) && names {
            return Err(Failed::Again);
        }
        trace.lap(Phase::Upstream);
        // The caller's own mistake, told in the endpoint's words.
        let read = upstream::read_all(body, ERROR_BYTES);
        let read = timeout(Duration::from_secs(10), read).await.ok();
        let is_plain = !head.headers.contains_key(CONTENT_ENCODING);
        let text = read.flatten().filter(|_| is_plain).unwrap_or_default();
        if status == 404 && self.is_unknown(target, prepared, &text) {
            return Err(failed(target, "the endpoint does not know its model"));
        }
        let text = target.endpoint.without_keys(text);
        if !wire::dialect::is_object(&text) && prepared.asked.is_none() {
            let told = wire::dialect::told(&text);
            let told = if told.trim().is_empty() || !is_plain {
                format!("the endpoint refuses the call with status {status}, and does not say why")
            } else {
                told
            };
            telemetry::answered(trace, "rejected");
            return Err(Failed::Last(refusal::rejected(status, told)));
        }
        if prepared.asked.is_some() {
            // Or ours: what this dialect does not take, another may.
            let told = refusal::rejected(status, wire::dialect::told(&text));
            return Err(Failed::Setback(Setback {
                refusal: told,
                seen: true,
                back: Back::No,
            }));
        }
        let text = String::from_utf8_lossy(&text).into_owned();
        let mut response = refusal::json(status, text);
        upstream::returned(&head.headers, response.headers_mut());
        telemetry::answered(trace, "rejected");
        Ok(response)
    }
}

/// Whether the answer comes piece by piece.
fn is_stream(answer: &Response<Answer>) -> bool {
    let kind = answer.headers().get(CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
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
fn overwhelmed(target: &Target, status: u16, asked_ms: Option<u64>) -> Refusal {
    let what = format!("the endpoint answered with status {status}");
    Refusal {
        status: match status {
            500 | 502 | 503 | 504 | 529 => status,
            408 => 504,
            // What it says of versions and networks would be taken for ours.
            _ => 502,
        },
        retry_after_s: asked_ms.map(shown_s),
        ..broken(target, &what)
    }
}

/// The endpoint takes no more calls for a while.
fn limited(target: &Target, ms: u64) -> Refusal {
    let message = format!("endpoint of model `{}` is at its rate limit", target.name);
    Refusal {
        retry_after_s: Some(shown_s(ms)),
        ..refusal::upstream(429, "upstream_rate_limited", message)
    }
}

/// A pause as callers are told it, in whole seconds and no more than it is obeyed here.
fn shown_s(ms: u64) -> u64 {
    ms.min(care::LONGEST_PAUSE_MS).div_ceil(1_000)
}

fn broken(target: &Target, what: &str) -> Refusal {
    let message = format!("model `{}` failed: {what}", target.name);
    refusal::upstream(502, "upstream_failed", message)
}

/// Why an answer with a status of success is none that could be relayed.
fn no_answer(answer: &Response<Answer>) -> Option<String> {
    let status = answer.status();
    if !status.is_success() {
        return None;
    }
    if !matches!(status, StatusCode::OK | StatusCode::CREATED) {
        let status = status.as_u16();
        return Some(format!(
            "the endpoint answered with status {status}, which is no whole answer"
        ));
    }
    let is_compressed = answer.headers().contains_key(CONTENT_ENCODING);
    is_compressed.then(|| "endpoint sent a compressed answer nobody asked for".to_owned())
}

/// An upstream's failure, after which the next one may be tried.
pub(crate) fn failed(target: &Target, what: &str) -> Failed {
    Failed::Setback(Setback {
        refusal: broken(target, what),
        seen: true,
        back: Back::No,
    })
}
