//! Bringing an answer to the caller: whole or as a stream, byte for byte, with the bill at its end.

mod billing;
mod feed;
mod stream;

use http::header::SERVER;
use http::response::Parts;
use http::{HeaderValue, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};
use wire::dialect::Facts;

use crate::attempt::{Dispatch, Failed, failed, timed_out};
use crate::gateway::Body;
use crate::refusal;
use crate::runtime::Target;
use crate::telemetry;
use crate::trace::{Phase, Trace};
use crate::upstream;

pub(crate) use billing::Billing;
use feed::Feed;
use stream::Stream;

/// Brings an answer that is not streamed: read whole, settled, and sent with its cost in a header.
pub(crate) async fn whole(
    call: &Dispatch<'_>,
    target: &Target,
    answer: Response<Incoming>,
    mut billing: Billing,
    trace: &mut Trace,
    deadline: Instant,
) -> Result<Response<Body>, Failed> {
    let (head, body) = answer.into_parts();
    let reading = upstream::read_all(body, call.runtime.upstream.reply_bytes);
    let reply = match timeout_at(deadline, reading).await {
        Ok(Some(reply)) => reply,
        Ok(None) => {
            billing.charge_bound();
            return Err(failed(target, "its answer broke off or was too long"));
        }
        Err(_) => return Err(timed_out(target, &mut billing)),
    };
    content_is_there(target, &mut billing, trace).await?;
    let facts = Facts::of_reply(call.inbound.dialect.usage(&reply));
    let cost = billing.complete(&facts, reply.len());
    trace.lap(Phase::Relay);
    let body = Full::new(reply).map_err(|never| match never {});
    let mut response = begun(&head, body.boxed_unsync(), target, call.route, trace);
    if let Some(cost) = cost.and_then(|cost| HeaderValue::from_str(&cost.to_usd()).ok()) {
        response.headers_mut().insert("x-pareto-cost-usd", cost);
    }
    Ok(response)
}

/// Brings a stream: nothing is released before its first content, so that until then another
/// upstream can still take over; from then on each frame goes out as it came in.
pub(crate) async fn stream(
    call: &Dispatch<'_>,
    target: &Target,
    answer: Response<Incoming>,
    mut billing: Billing,
    trace: &mut Trace,
    deadline: Instant,
) -> Result<Response<Body>, Failed> {
    let (head, mut body) = answer.into_parts();
    let unasked = call.inbound.scan.stream && !call.inbound.scan.include_usage;
    let mut feed = Feed::new(call.inbound.dialect, unasked);
    match timeout_at(deadline, feed.until_content(&mut body)).await {
        Ok(Ok(())) => {}
        Ok(Err(what)) => {
            billing.interrupt(&feed.facts());
            return Err(failed(target, what));
        }
        Err(_) => return Err(timed_out(target, &mut billing)),
    }
    content_is_there(target, &mut billing, trace).await?;
    let stream = Stream::new(
        body,
        feed,
        billing,
        call.inbound.dialect,
        &call.runtime.upstream,
    );
    let body = stream.boxed_unsync();
    Ok(begun(&head, body, target, call.route, trace))
}

/// The upstream delivers: from here on the call is its own, once the hold is on the disk.
async fn content_is_there(
    target: &Target,
    billing: &mut Billing,
    trace: &mut Trace,
) -> Result<(), Failed> {
    trace.lap(Phase::Upstream);
    target.health.succeeded();
    billing.first_byte(trace.arrived.elapsed());
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
    route: &router::Route,
    trace: &Trace,
) -> Response<Body> {
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
    if let Some(score) = route.score {
        headers.insert("x-pareto-score", HeaderValue::from(score.milli()));
    }
    if let Ok(timing) = HeaderValue::from_str(&trace.server_timing()) {
        headers.insert("server-timing", timing);
    }
    telemetry::first_byte(trace);
    response
}
