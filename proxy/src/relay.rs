//! Bringing an answer to the caller: whole or as a stream, as it came or in the caller's dialect, with
//! the bill at its end.

mod billing;
mod doubted;
mod feed;
mod keeper;
mod stream;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, SERVER};
use http::response::Parts;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use meter::point;
use tokio::time::timeout_at;
use wire::dialect::{Asked, DecodeError, Facts, Seen};
use wire::{Dialect, translate};

use crate::attempt::{Answered, Dispatch, Failed, failed};
use crate::cascade::{Cause, Glimpse, Leg, Verdict};
use crate::gateway::Body;
use crate::names;
use crate::refusal;
use crate::runtime::Target;
use crate::telemetry;
use crate::trace::{Phase, Trace};
use crate::upstream::{self, Answer};

pub(crate) use billing::Billing;
pub(crate) use doubted::Doubted;
use doubted::Kept;
use feed::Feed;
use keeper::{Keeper, Unkept};
use stream::Stream;

/// Brings an answer that is not streamed: read whole, settled, and sent with its cost in a header.
pub(crate) async fn whole(
    call: &Dispatch<'_>,
    answered: Answered<'_>,
    answer: Response<Answer>,
    mut billing: Box<Billing>,
    trace: &mut Trace,
) -> Result<Response<Body>, Failed> {
    let target = answered.target;
    let (head, body) = answer.into_parts();
    let (reply, mut facts) = read_whole(call, &answered, body, &mut billing).await?;
    content_is_there(call, false, &mut billing, trace).await?;
    let keeper = Keeper::new(call, target);
    let came = reply.clone();
    // Who wanted a stream gets one, even of its own dialect, where the endpoint knows no streams.
    let played = call.plays(target, &answered.prepared);
    let asked = answered.prepared.asked.as_ref().or(played.as_ref());
    let (reply, unkept) = match asked {
        None => (reply.clone(), Unkept::passed(keeper, reply)),
        Some(asked) => {
            let to = call.inbound.dialect;
            let translated = translated(target, to, asked, &reply, &mut facts, keeper, trace);
            match translated {
                Ok(translated) => translated,
                Err(error) => {
                    billing.interrupt(&facts);
                    return Err(failed(
                        target,
                        &format!("its answer can not be read: {error}"),
                    ));
                }
            }
        }
    };
    let verdict = if answered.leg == Leg::First {
        call.verdict(call.whole_cause(target, &came))
    } else {
        Verdict::Given(None)
    };
    if let Verdict::Escalated(cause) | Verdict::Given(Some(cause)) = verdict {
        billing.doubt(cause.as_str(), verdict == Verdict::Escalated(cause));
    }
    let delivered = billing.deliver(&facts, reply.len(), trace).await;
    trace.cost = delivered.map_err(|error| Failed::Last(refusal::journal(&error)))?;
    let mut head = dressed(&head, target, call, answered.leg, trace);
    if asked.is_some() && call.inbound.scan.stream {
        let kind = HeaderValue::from_static("text/event-stream");
        head.headers_mut().insert(CONTENT_TYPE, kind);
    }
    let cost = trace.cost.map(|cost| HeaderValue::from_str(&cost.to_usd()));
    if let Some(Ok(cost)) = cost {
        head.headers_mut().insert(names::COST, cost);
    }
    if let Verdict::Escalated(cause) = verdict {
        let unkept = Box::new(unkept);
        let kept = Kept::Whole {
            body: reply,
            unkept,
        };
        return Err(doubted(cause, head, kept, trace));
    }
    unkept.keep();
    let body = Full::new(reply).map_err(|never| match never {});
    Ok(begun(head, body.boxed_unsync(), trace))
}

/// Reads an answer that is not streamed to its end.
async fn read_whole(
    call: &Dispatch<'_>,
    answered: &Answered<'_>,
    body: Answer,
    billing: &mut Billing,
) -> Result<(Bytes, Facts), Failed> {
    let target = answered.target;
    let reading = upstream::read_all(body, call.runtime.upstream.reply_bytes);
    let reply = match timeout_at(answered.deadline, reading).await {
        Ok(Some(reply)) => reply,
        Ok(None) => {
            billing.charge_bound();
            return Err(failed(target, "its answer broke off or was too long"));
        }
        Err(_) => return Err(call.timed_out(target, billing)),
    };
    let Some(facts) = target.dialect.facts(&reply) else {
        billing.interrupt(&Facts::default());
        return Err(failed(target, "its answer is not of its dialect"));
    };
    Ok((reply, facts))
}

/// A whole answer in the caller's dialect; as a stream where the caller wanted one. With what is to be
/// remembered of it.
fn translated(
    target: &Target,
    to: &'static dyn Dialect,
    asked: &Asked,
    reply: &Bytes,
    facts: &mut Facts,
    keeper: Keeper,
    trace: &mut Trace,
) -> Result<(Bytes, Unkept), DecodeError> {
    let origin = &target.endpoint.origin;
    let (body, read) =
        translate::reply(target.dialect, origin, to, asked, reply, &mut trace.losses)?;
    if facts.usage.is_none() {
        facts.counted = read.usage.map(|usage| usage.answer());
    }
    let text = Bytes::from(body.to_string());
    let events = asked.call.stream.then(|| read.clone().events());
    let unkept = Unkept::translated(keeper, &asked.call, read, to.kept(&text));
    let Some(events) = events else {
        return Ok((text, unkept));
    };
    let mut writer = to.writer(asked.clone());
    let mut out = String::new();
    for event in events {
        writer.event(event, &mut out);
    }
    Ok((Bytes::from(out), unkept))
}

/// Brings a stream: nothing is released before its first content, so that until then another
/// upstream can still take over; from then on each event goes out as it comes in.
pub(crate) async fn stream(
    call: &Dispatch<'_>,
    answered: Answered<'_>,
    answer: Response<Answer>,
    mut billing: Box<Billing>,
    trace: &mut Trace,
) -> Result<Response<Body>, Failed> {
    let target = answered.target;
    let (head, mut body) = answer.into_parts();
    let scan = &call.inbound.scan;
    let to = call.inbound.dialect;
    let keeper = Keeper::new(call, target);
    if !scan.stream {
        billing.interrupt(&Facts::default());
        return Err(failed(
            target,
            "it streamed an answer that was asked for whole",
        ));
    }
    let mut feed = match answered.prepared.asked {
        None => Feed::through(target, !scan.include_usage, Some(keeper)),
        Some(asked) => Feed::translated(target, to, asked, keeper),
    };
    if answered.leg == Leg::First {
        feed.hold_back(Glimpse::new(target.dialect, &target.endpoint.origin));
    }
    let seen = match timeout_at(answered.deadline, feed.until_content(&mut body)).await {
        Ok(Ok(seen)) => seen,
        Ok(Err(what)) => {
            billing.interrupt(&feed.facts());
            return Err(failed(target, what));
        }
        Err(_) => return Err(call.timed_out(target, &mut billing)),
    };
    content_is_there(call, true, &mut billing, trace).await?;
    let cut = Arc::clone(&call.shared.cut);
    let mut stream = Stream::new(body, feed, billing, to, (&call.runtime.upstream, cut));
    if seen == Seen::End {
        stream.ended();
    }
    if answered.leg == Leg::First {
        return held(call, target, stream, &head, trace).await;
    }
    let head = dressed(&head, target, call, answered.leg, trace);
    Ok(begun(head, stream.boxed_unsync(), trace))
}

/// Holds a stream until it is known whether its beginning passes, and no longer than the configuration
/// says; nothing of it has been released, so that another upstream can still take over.
async fn held(
    call: &Dispatch<'_>,
    target: &Target,
    mut stream: Stream,
    head: &Parts,
    trace: &mut Trace,
) -> Result<Response<Body>, Failed> {
    let checks = call.checks(target);
    let patience = checks.patience();
    let mut cause = None;
    while let Some((glimpse, extent)) = stream.glimpse() {
        cause = checks.cause(&glimpse.reply(), extent);
        let until = checks.held_until(glimpse, (stream.queued(), patience));
        let (None, Some(until)) = (cause, until) else {
            break;
        };
        if !stream.read_on(until).await {
            break;
        }
    }
    // The wait was for the endpoint.
    trace.lap(Phase::Upstream);
    if stream.is_broken() {
        return Err(failed(
            target,
            "its stream broke off before it was released",
        ));
    }
    let verdict = call.verdict(cause);
    if let Verdict::Escalated(cause) | Verdict::Given(Some(cause)) = verdict {
        stream.doubt(cause.as_str(), verdict == Verdict::Escalated(cause));
    }
    let head = dressed(head, target, call, Leg::First, trace);
    if let Verdict::Escalated(cause) = verdict {
        return Err(doubted(cause, head, Kept::Stream(Box::new(stream)), trace));
    }
    stream.release();
    Ok(begun(head, stream.boxed_unsync(), trace))
}

/// An answer that is kept until a better one has begun.
fn doubted(cause: Cause, head: Response<()>, kept: Kept, trace: &Trace) -> Failed {
    Failed::Doubted(Box::new(Doubted {
        cause,
        head,
        trace: trace.clone(),
        kept,
    }))
}

/// The upstream delivers: from here on the call is its own, once the hold is on the disk.
async fn content_is_there(
    call: &Dispatch<'_>,
    is_stream: bool,
    billing: &mut Billing,
    trace: &mut Trace,
) -> Result<(), Failed> {
    trace.lap(Phase::Upstream);
    let after = trace.arrived.elapsed();
    // What the call waited for before is not the model's doing: holds, attempts elsewhere, a doubted answer.
    let took = telemetry::elapsed_ms(billing.sent_at.elapsed());
    let bytes = call.inbound.body.len();
    billing.passage.came(took, is_stream, bytes);
    billing.first_byte(after);
    point::at("call.content");
    billing
        .synced()
        .await
        .map_err(|error| Failed::Last(refusal::journal(&error)))?;
    point::at("call.synced");
    trace.lap(Phase::Sync);
    billing.trace = trace.clone();
    Ok(())
}

/// The answer to the caller begins.
fn begun(head: Response<()>, body: Body, trace: &Trace) -> Response<Body> {
    telemetry::lost(&trace.losses);
    telemetry::first_byte(trace);
    head.map(|()| body)
}

/// Its head, with the headers that say which model answered, and why that one.
fn dressed(
    head: &Parts,
    target: &Target,
    call: &Dispatch<'_>,
    leg: Leg,
    trace: &Trace,
) -> Response<()> {
    let route = &call.decided.route;
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.reserve(24);
    upstream::returned(&head.headers, headers);
    headers.remove(SERVER);
    if let Ok(model) = HeaderValue::from_str(&target.name) {
        headers.insert(names::MODEL, model);
    }
    let reason = leg.reason(route).as_str();
    for (name, word) in [
        (names::TIER, target.tier.as_str()),
        (names::ROUTE, reason),
        (names::STEP, route.step.as_str()),
    ] {
        headers.insert(name, HeaderValue::from_static(word));
    }
    let mut put = |name, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    if !trace.losses.is_empty() {
        put(names::LOSS, &trace.losses.header());
    }
    put(
        names::SESSION,
        &format!("{:016x}", call.context.session.key),
    );
    if let Some(remaining) = trace.remaining {
        put(names::REMAINING, &remaining.to_usd());
    }
    if let Some(cap) = trace.cap {
        put(names::CAP, &cap.to_string());
        put(names::CAP_REASON, "budget");
    }
    put(names::SERVER_TIMING, &trace.server_timing());
    if let Some(score) = route.score {
        headers.insert(names::SCORE, HeaderValue::from(score.milli()));
    }
    response
}
