//! How many tokens a prompt has: asked of the upstream where it tells, counted here where it does not.
//! Nothing is held or billed for that.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use router::Wanted;
use tokio::time::timeout;
use wire::dialect::{ANTHROPIC_MESSAGES, Change, OPENAI_RESPONSES};
use wire::{Dialect, Refusal};

use crate::gateway::{Body, Shared};
use crate::intake::{self, Inbound};
use crate::refusal;
use crate::routing::Deciding;
use crate::runtime::{Runtime, Target};
use crate::thrift::Thrift;
use crate::trace::Trace;
use crate::upstream::Pieces;

/// How long an upstream may take; counting here is quicker than a slow one.
const PATIENCE: Duration = Duration::from_secs(5);

/// The dialect whose prompts are counted at `path`.
pub(crate) fn counted_at(path: &str) -> Option<&'static dyn Dialect> {
    match path {
        "/v1/messages/count_tokens" => Some(ANTHROPIC_MESSAGES),
        "/v1/responses/input_tokens" => Some(OPENAI_RESPONSES),
        _ => None,
    }
}

/// Counts the prompt of a call.
pub(crate) async fn tokens(
    shared: &Arc<Shared>,
    request: Request<Body>,
    dialect: &'static dyn Dialect,
    trace: &mut Trace,
) -> Result<Response<Body>, Refusal> {
    let runtime = shared.runtime.load_full();
    let subject = shared.caller(&request, trace)?;
    trace.flight = Some(shared.admit(&subject, request.headers()).await?);
    let (limits, room) = (&runtime.limits, &shared.admission.room);
    let inbound = intake::read_call(request, dialect, limits, room).await;
    let inbound = inbound.map_err(|error| refusal::unreadable(&error))?;
    let (place, target) = target(&runtime, &inbound)?;
    let context = shared.recall(&subject, &inbound).await?;
    let may_see = Deciding {
        runtime: &runtime,
        subject: &subject,
        inbound: &inbound,
        context: &context,
        thrift: &Thrift::default(),
        request: trace.request,
    }
    .may_see(place)?;
    // Only this dialect counts, and private parts of another origin are none of its business; nor is
    // what the operator's rules keep from it.
    let counts = dialect.name() == ANTHROPIC_MESSAGES.name()
        && target.dialect.name() == dialect.name()
        && may_see
        && !context.must_rewrite(&target.endpoint.origin);
    if counts && let Some(told) = asked(target, &inbound, trace).await {
        return Ok(refusal::json(200, told));
    }
    let call = shared.canonical(&subject, &inbound, &context);
    let call = call.map_err(|error| refusal::undecodable(&error.to_string()))?;
    let tokenizer = Arc::clone(&target.tokenizer);
    let counted = tokio::task::spawn_blocking(move || tokenizer.count_call(&call)).await;
    let counted = target.factor.apply(counted.unwrap_or(0));
    let object = if dialect.name() == OPENAI_RESPONSES.name() {
        "\"object\":\"response.input_tokens\","
    } else {
        ""
    };
    Ok(refusal::json(
        200,
        format!("{{{object}\"input_tokens\":{counted}}}"),
    ))
}

/// The model that the call would go to, with its place; for `auto` the first of the tier that most calls go to. The
/// split does not count questions.
fn target<'a>(runtime: &'a Runtime, inbound: &Inbound) -> Result<(usize, &'a Target), Refusal> {
    let wanted = Wanted::parse(&inbound.scan.model);
    let fits = |(_, target): &(usize, &Target)| match wanted {
        Wanted::Named(name) => *target.name == *name,
        Wanted::Tier(tier) => target.tier == tier,
        Wanted::Auto => target.tier == wire::Tier::Fast,
    };
    let own = |(_, target): &&(usize, &Target)| target.dialect.name() == inbound.dialect.name();
    let targets = || runtime.targets.iter().map(|it| &**it).enumerate();
    let candidates: Vec<(usize, &Target)> = targets()
        .filter(|(_, target)| target.dialect.converses())
        .filter(fits)
        .collect();
    let found = candidates
        .iter()
        .find(own)
        .or_else(|| candidates.first())
        .copied();
    found
        .or_else(|| targets().next().filter(|_| wanted == Wanted::Auto))
        .ok_or_else(|| {
            let known: Vec<&str> = runtime.targets.iter().map(|target| &*target.name).collect();
            let (name, known) = (inbound.scan.model.clone(), known.join(", "));
            refusal::no_model(&router::NoModel::Unknown { name, known })
        })
}

/// The upstream's own answer; `None` where it gives none in time.
async fn asked(target: &Target, inbound: &Inbound, trace: &Trace) -> Option<String> {
    let change = Change {
        model: &target.upstream_model,
        ..Change::default()
    };
    let edits = inbound.dialect.edits(&inbound.scan, &change);
    let body = Pieces::from(wire::splice::apply(&inbound.body, edits));
    let counting = target.endpoint.count(&inbound.headers, body, trace.request);
    let told = timeout(PATIENCE, counting).await.ok()??;
    wire::dialect::is_object(&told).then(|| String::from_utf8_lossy(&told).into_owned())
}
