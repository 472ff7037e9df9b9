//! `/v1/approvals`, `/v1/inputs` and `/v1/standing-approvals`: what waits for a person, and rules.

use std::sync::Arc;

use http::{Method, Response};
use serde_json::{Value, json};

use crate::commit::request_body;
use crate::desk::{Answer, Decision, Desk, NewStanding, Problem, tenant_of};
use crate::log::Kind;
use crate::model::Body;
use crate::state::State;

use super::answer;
use super::request::Question;

/// Answers a request behind `/v1/approvals`.
pub(super) async fn route(
    desk: &Desk,
    it: &Question,
    rest: &[&str],
) -> Result<Response<Body>, Problem> {
    match rest {
        [] => {
            it.only(&[Method::GET])?;
            list(desk, it).await
        }
        [id] => {
            it.only(&[Method::GET])?;
            let (state, request) = desk.request(&it.caller, id).await?;
            Ok(answer::json(200, &shown(&state, &request)))
        }
        [id, "decision"] => {
            it.only(&[Method::POST])?;
            let decision: Decision = it.said()?;
            let state = desk.decide(&it.caller, id, &decision).await?;
            Ok(answer::json(200, &shown(&state, name(id))))
        }
        _ => Err(it.no_such_path()),
    }
}

/// The inbox: what is open, the oldest task first.
async fn list(desk: &Desk, it: &Question) -> Result<Response<Body>, Problem> {
    let (tenant, limit) = (tenant_of(&it.caller), it.limit()?);
    let after = it.asked("after").unwrap_or_default().to_owned();
    let records = desk
        .ask(move |log| log.records(Kind::Request, tenant.as_deref(), &after, limit))
        .await?;
    let last = records.last().map(|record| record.id.clone());
    let of_task = it.asked("task");
    let requests: Vec<Value> = records
        .iter()
        .filter_map(|record| {
            let mut body: Value = serde_json::from_str(&record.body).ok()?;
            let fields = body.as_object_mut()?;
            fields.insert("tenant".to_owned(), record.tenant.clone().into());
            let task = fields.get("task").and_then(Value::as_str);
            (of_task.is_none() || of_task == task).then_some(body)
        })
        .collect();
    let full = records.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
    let next = last.filter(|_| full);
    Ok(answer::json(
        200,
        &json!({ "object": "list", "data": requests, "has_more": full, "next": next }),
    ))
}

/// Answers a task's question.
pub(super) async fn answer(
    desk: &Desk,
    it: &Question,
    id: &str,
) -> Result<Response<Body>, Problem> {
    let said: Answer = it.said()?;
    let state = desk.answer(&it.caller, id, &said).await?;
    Ok(answer::json(200, &shown(&state, name(id))))
}

/// A request's own name, behind its task's.
fn name(id: &str) -> &str {
    id.split_once('.').map_or(id, |(_, name)| name)
}

/// A request and how its task stands.
fn shown(state: &State, request: &str) -> Value {
    let Some(asked) = state.requests.get(request) else {
        return Value::Null;
    };
    let mut body = request_body(state, request, asked);
    if let Some(fields) = body.as_object_mut() {
        fields.insert("tenant".to_owned(), state.caller.tenant.clone().into());
        fields.insert("task_status".to_owned(), json!(state.status()));
        let me = json!(state.brief.approval.requester_may_approve);
        fields.insert("requester_may_approve".to_owned(), me);
    }
    body
}

/// Answers a request behind `/v1/standing-approvals`.
pub(super) async fn standing(
    desk: &Arc<Desk>,
    it: &Question,
    rest: &[&str],
) -> Result<Response<Body>, Problem> {
    match rest {
        [] if it.method == Method::POST => {
            let new: NewStanding = it.said()?;
            let dry = it.says("dry_run");
            let made = desk.stand(&it.caller, &new, dry).await?;
            Ok(answer::json(if dry { 200 } else { 201 }, &made))
        }
        [] => {
            it.only(&[Method::GET, Method::POST])?;
            let limit = it.limit()?;
            let after = it.asked("after").unwrap_or_default().to_owned();
            let all = desk.standings(&it.caller, after, limit).await?;
            let last = all.last().and_then(|it| it.get("id")?.as_str());
            Ok(answer::list(&all, limit, last))
        }
        [id] => {
            it.only(&[Method::DELETE])?;
            desk.withdraw(&it.caller, id).await?;
            let gone = json!({ "id": id, "object": "standing_approval.deleted", "deleted": true });
            Ok(answer::json(200, &gone))
        }
        _ => Err(it.no_such_path()),
    }
}
