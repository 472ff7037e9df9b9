//! What callers ask of their settled calls, and what they say of the answers: `GET /v1/calls/{id}` and
//! `POST /v1/feedback`.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use meter::{Entry, Feedback, NanoUsd, Outcome, Routing, Subject, VerdictKind};
use serde::Deserialize;
use serde_json::json;
use wire::{Refusal, RequestId};

use crate::clock::now_ms;
use crate::gateway::{Body, Shared};
use crate::intake;
use crate::refusal;
use crate::routing::ppm;
use crate::trace::Trace;

/// The longest note that is kept, in characters.
const LONGEST_NOTE: usize = 500;
/// How often a call is looked for, and how long the gateway waits between: it is in the ledger some
/// milliseconds after its end, and a caller may be faster.
const LOOKS: u32 = 20;
const BETWEEN: Duration = Duration::from_millis(25);

/// A verdict as callers write it: the id, and exactly one of the four.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    request_id: String,
    /// How good the answer was, from 0 to 1.
    #[serde(default)]
    score: Option<f64>,
    /// How much of the answer was kept when it was edited, from 0 to 1.
    #[serde(default)]
    edit: Option<f64>,
    /// The caller went on to a better model.
    #[serde(default)]
    escalation: Option<bool>,
    /// How the task ended that the call belongs to.
    #[serde(default)]
    outcome: Option<Ended>,
    #[serde(default)]
    note: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Ended {
    Success,
    Failure,
}

impl Said {
    /// The kind of the verdict and how good it says the answer was, in millionths.
    fn verdict(&self) -> Result<(VerdictKind, u32), Refusal> {
        let share = |kind, value: f64| {
            if (0.0..=1.0).contains(&value) {
                Ok((kind, ppm(value)))
            } else {
                Err(invalid(&format!("`{value}` is not between 0 and 1")))
            }
        };
        let good = |is: bool| if is { 1_000_000 } else { 0 };
        match (self.score, self.edit, self.escalation, self.outcome) {
            (Some(score), None, None, None) => share(VerdictKind::Score, score),
            (None, Some(kept), None, None) => share(VerdictKind::Edit, kept),
            (None, None, Some(is), None) => Ok((VerdictKind::Escalation, good(!is))),
            (None, None, None, Some(ended)) => {
                Ok((VerdictKind::Outcome, good(ended == Ended::Success)))
            }
            _ => Err(invalid(
                "write exactly one of `score`, `edit`, `escalation` and `outcome`",
            )),
        }
    }
}

fn invalid(what: &str) -> Refusal {
    refusal::invalid(format!(
        "{what}; a verdict is {{\"request_id\": \"req_...\", \"score\": 0 to 1}}, or `edit` (the share that was \
         kept), `escalation` (true or false) or `outcome` (success or failure) in the place of `score`"
    ))
}

/// What one settled call cost, for the tenant it belongs to.
pub(crate) async fn show(
    shared: &Arc<Shared>,
    subject: &Subject,
    id: &str,
) -> Result<Response<Body>, Refusal> {
    let (wanted, entries) = settled(shared, subject, id).await?;
    let text = crate::admin::call_json(wanted, &entries);
    Ok(refusal::json(200, text.to_string()))
}

/// Takes a verdict on a call of the tenant's own.
pub(crate) async fn judge(
    shared: &Arc<Shared>,
    request: Request<Body>,
    trace: &mut Trace,
) -> Result<Response<Body>, Refusal> {
    let runtime = shared.runtime.load_full();
    let subject = shared.caller(&request, trace)?;
    let body =
        intake::read_body(request.into_body(), &runtime.limits, &shared.admission.room).await;
    let body = body.map_err(|error| refusal::unreadable(&error))?;
    let said: Said = serde_json::from_slice(&body).map_err(|error| invalid(&error.to_string()))?;
    let (kind, good_ppm) = said.verdict()?;
    let (_, entries) = settled(shared, &subject, &said.request_id).await?;
    let Some(feedback) = feedback(&entries, &subject, kind, good_ppm, &said.note) else {
        return Err(refusal::no_such_call(&said.request_id));
    };
    let (verdicts, request) = (Arc::clone(&shared.verdicts), feedback.request);
    let added = tokio::task::spawn_blocking(move || verdicts.add(&feedback)).await;
    let Ok(Ok(is_new)) = added else {
        return Err(refusal::ledger_unavailable());
    };
    let answer = json!({
        "request_id": request.to_string(),
        "kind": kind.as_str(),
        "recorded": is_new,
    });
    Ok(refusal::json(200, answer.to_string()))
}

/// The attempts of a call that belongs to `subject`'s tenant, once it is in the ledger.
async fn settled(
    shared: &Arc<Shared>,
    subject: &Subject,
    id: &str,
) -> Result<(RequestId, Vec<Entry>), Refusal> {
    let wanted: RequestId = id.parse().map_err(|_| refusal::no_such_call(id))?;
    for _ in 0..LOOKS {
        let ledger = Arc::clone(&shared.ledger);
        let found = tokio::task::spawn_blocking(move || ledger.call(wanted)).await;
        let Ok(Ok((entries, open))) = found else {
            return Err(refusal::ledger_unavailable());
        };
        if let (Some(first), true) = (entries.first(), open.is_empty()) {
            if first.held.subject.tenant != subject.tenant {
                break;
            }
            return Ok((wanted, entries));
        }
        tokio::time::sleep(BETWEEN).await;
    }
    Err(refusal::no_such_call(id))
}

/// The attempt whose answer the caller has: the last one that brought content, because where no better
/// answer came in its place, the one before was given.
fn answered(entries: &[Entry]) -> Option<&Entry> {
    let brought = |it: &&Entry| it.outcome != Outcome::Failed && it.first_byte_ms.is_some();
    entries.iter().rev().find(brought).or(entries.last())
}

/// A verdict with what the ledger knows of its call.
fn feedback(
    entries: &[Entry],
    by: &Subject,
    kind: VerdictKind,
    good_ppm: u32,
    note: &str,
) -> Option<Feedback> {
    let (first, last) = (entries.first()?, answered(entries)?);
    let sum = |of: fn(&Entry) -> NanoUsd| entries.iter().map(of).sum();
    let routing: Routing = first.held.routing.as_deref().cloned().unwrap_or_default();
    Some(Feedback {
        request: first.held.request,
        tenant: Arc::clone(&first.held.subject.tenant),
        kind,
        good_ppm,
        note: note.chars().take(LONGEST_NOTE).collect(),
        by: Arc::clone(&by.key),
        at_ms: now_ms(),
        held_at_ms: first.held.held_at_ms,
        model: Arc::clone(&last.held.model),
        tier: last.held.tier,
        first_tier: first.held.tier,
        reason: Arc::clone(&last.held.reason),
        routing,
        cost: sum(|entry| entry.cost),
        baseline: sum(|entry| entry.baseline),
    })
}
