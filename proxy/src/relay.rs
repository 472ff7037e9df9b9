//! Bringing an answer to the caller: whole or as a stream, as it came or in the caller's dialect, with
//! the bill at its end.

mod billing;
mod feed;
mod keeper;
mod stream;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, SERVER};
use http::response::Parts;
use http::{HeaderValue, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::time::timeout_at;
use wire::dialect::{Asked, DecodeError, Facts, Seen};
use wire::{Dialect, translate};

use crate::attempt::{Answered, Dispatch, Failed, failed, timed_out};
use crate::gateway::Body;
use crate::hints;
use crate::refusal;
use crate::runtime::Target;
use crate::telemetry;
use crate::trace::{Phase, Trace};
use crate::upstream;

pub(crate) use billing::Billing;
use feed::Feed;
use keeper::Keeper;
use stream::Stream;

/// Brings an answer that is not streamed: read whole, settled, and sent with its cost in a header.
pub(crate) async fn whole(
    call: &Dispatch<'_>,
    answered: Answered<'_>,
    answer: Response<Incoming>,
    mut billing: Billing,
    trace: &mut Trace,
) -> Result<Response<Body>, Failed> {
    let target = answered.target;
    let (head, body) = answer.into_parts();
    let reading = upstream::read_all(body, call.runtime.upstream.reply_bytes);
    let reply = match timeout_at(answered.deadline, reading).await {
        Ok(Some(reply)) => reply,
        Ok(None) => {
            billing.charge_bound();
            return Err(failed(target, "its answer broke off or was too long"));
        }
        Err(_) => return Err(timed_out(target, &mut billing)),
    };
    if !wire::dialect::is_object(&reply) {
        billing.interrupt(&Facts::default());
        return Err(failed(target, "its answer is not of its dialect"));
    }
    content_is_there(target, &mut billing, trace).await?;
    let mut facts = Facts::of_reply(target.dialect.usage(&reply));
    let mut keeper = Keeper::new(call, target);
    let reply = match &answered.prepared.asked {
        None => {
            keeper.passed(&reply, true);
            reply
        }
        Some(asked) => {
            let to = call.inbound.dialect;
            let translated = translated(target, to, asked, &reply, &mut facts, &mut keeper, trace);
            match translated {
                Ok(body) => body,
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
    let cost = billing.complete(&facts, reply.len());
    trace.lap(Phase::Relay);
    let body = Full::new(reply).map_err(|never| match never {});
    let mut response = begun(&head, body.boxed_unsync(), target, call, trace);
    if answered.prepared.asked.is_some() && call.inbound.scan.stream {
        let kind = HeaderValue::from_static("text/event-stream");
        response.headers_mut().insert(CONTENT_TYPE, kind);
    }
    if let Some(cost) = cost.and_then(|cost| HeaderValue::from_str(&cost.to_usd()).ok()) {
        response.headers_mut().insert("x-pareto-cost-usd", cost);
    }
    Ok(response)
}

/// A whole answer in the caller's dialect; as a stream where the caller wanted one.
fn translated(
    target: &Target,
    to: &'static dyn Dialect,
    asked: &Asked,
    reply: &Bytes,
    facts: &mut Facts,
    keeper: &mut Keeper,
    trace: &mut Trace,
) -> Result<Bytes, DecodeError> {
    let origin = &target.endpoint.origin;
    let (body, read) =
        translate::reply(target.dialect, origin, to, asked, reply, &mut trace.losses)?;
    if facts.usage.is_none() {
        facts.counted = read.usage.map(|usage| usage.answer());
    }
    let text = Bytes::from(body.to_string());
    keeper.translated(&asked.call, &read, to.kept(&text).as_ref());
    if !asked.call.stream {
        return Ok(text);
    }
    let mut writer = to.writer(asked.clone());
    let mut out = String::new();
    for event in read.events() {
        writer.event(event, &mut out);
    }
    Ok(Bytes::from(out))
}

/// Brings a stream: nothing is released before its first content, so that until then another
/// upstream can still take over; from then on each event goes out as it comes in.
pub(crate) async fn stream(
    call: &Dispatch<'_>,
    answered: Answered<'_>,
    answer: Response<Incoming>,
    mut billing: Billing,
    trace: &mut Trace,
) -> Result<Response<Body>, Failed> {
    let target = answered.target;
    let (head, mut body) = answer.into_parts();
    let scan = &call.inbound.scan;
    let to = call.inbound.dialect;
    let keeper = Keeper::new(call, target);
    let mut feed = match answered.prepared.asked {
        None => Feed::through(target, scan.stream && !scan.include_usage, Some(keeper)),
        Some(_) if !scan.stream => {
            billing.interrupt(&Facts::default());
            return Err(failed(
                target,
                "it streamed an answer that was asked for whole",
            ));
        }
        Some(asked) => Feed::translated(target, to, asked, keeper),
    };
    let seen = match timeout_at(answered.deadline, feed.until_content(&mut body)).await {
        Ok(Ok(seen)) => seen,
        Ok(Err(what)) => {
            billing.interrupt(&feed.facts());
            return Err(failed(target, what));
        }
        Err(_) => return Err(timed_out(target, &mut billing)),
    };
    content_is_there(target, &mut billing, trace).await?;
    let mut stream = Stream::new(body, feed, billing, to, &call.runtime.upstream);
    if seen == Seen::End {
        stream.ended();
    }
    let body = stream.boxed_unsync();
    Ok(begun(&head, body, target, call, trace))
}

/// The upstream delivers: from here on the call is its own, once the hold is on the disk.
async fn content_is_there(
    target: &Target,
    billing: &mut Billing,
    trace: &mut Trace,
) -> Result<(), Failed> {
    trace.lap(Phase::Upstream);
    let after = trace.arrived.elapsed();
    target.health.succeeded();
    target.health.came(telemetry::elapsed_ms(after));
    billing.first_byte(after);
    billing
        .synced()
        .await
        .map_err(|error| Failed::Last(refusal::journal(&error)))?;
    trace.lap(Phase::Sync);
    billing.trace = trace.clone();
    Ok(())
}

/// The answer to the caller, with the headers that say which model answered, and why that one.
fn begun(
    head: &Parts,
    body: Body,
    target: &Target,
    call: &Dispatch<'_>,
    trace: &Trace,
) -> Response<Body> {
    let route = &call.decided.route;
    let mut response = Response::new(body);
    *response.status_mut() = head.status;
    let headers = response.headers_mut();
    upstream::returned(&head.headers, headers);
    headers.remove(SERVER);
    if let Ok(model) = HeaderValue::from_str(&target.name) {
        headers.insert("x-pareto-model", model);
    }
    headers.insert(
        "x-pareto-tier",
        HeaderValue::from_static(target.tier.as_str()),
    );
    headers.insert(
        "x-pareto-route",
        HeaderValue::from_static(route.reason.as_str()),
    );
    headers.insert(hints::HEADER, HeaderValue::from_static(route.step.as_str()));
    telemetry::lost(&trace.losses);
    let session = format!("{:016x}", call.context.session.key);
    for (name, value) in [
        ("x-pareto-loss", trace.losses.header()),
        ("x-pareto-session", session),
    ] {
        if let (false, Ok(value)) = (value.is_empty(), HeaderValue::from_str(&value)) {
            headers.insert(name, value);
        }
    }
    let budget = [
        (
            "x-pareto-budget-remaining",
            trace.remaining.map(meter::NanoUsd::to_usd),
        ),
        ("x-pareto-output-cap", trace.cap.map(|cap| cap.to_string())),
        (
            "x-pareto-cap-reason",
            trace.cap.map(|_| "budget".to_owned()),
        ),
    ];
    for (name, value) in budget {
        if let Some(Ok(value)) = value.map(|value| HeaderValue::from_str(&value)) {
            headers.insert(name, value);
        }
    }
    if let Some(score) = route.score {
        headers.insert("x-pareto-score", HeaderValue::from(score.milli()));
    }
    if let Ok(timing) = HeaderValue::from_str(&trace.server_timing()) {
        headers.insert("server-timing", timing);
    }
    telemetry::first_byte(trace);
    response
}
