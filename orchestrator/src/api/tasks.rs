//! `/v1/tasks`: beginning, listing, reading and steering them.

use std::sync::Arc;

use http::header::{CONTENT_DISPOSITION, ETAG};
use http::{Method, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::desk::{About, Asked, Begun, Desk, Problem, Seen, tenant_of};
use crate::event::Status;
use crate::id::TaskId;
use crate::log::Filter;
use crate::model::Body;
use crate::money::Usd;
use crate::state::State;
use crate::view;

use super::request::{Question, task};
use super::{answer, events};

/// Answers a request behind `/v1/tasks`.
pub(super) async fn route(
    desk: &Arc<Desk>,
    it: &Question,
    rest: &[&str],
) -> Result<Response<Body>, Problem> {
    match rest {
        [] if it.method == Method::POST => create(desk, it).await,
        [] => {
            it.only(&[Method::GET, Method::POST])?;
            list(desk, it).await
        }
        [id] if it.method == Method::DELETE => {
            desk.erase(&it.caller, task(id)?).await?;
            let gone = json!({ "id": id, "object": "task.deleted", "deleted": true });
            Ok(answer::json(200, &gone))
        }
        [id] => {
            it.only(&[Method::GET, Method::DELETE])?;
            show(desk, it, task(id)?).await
        }
        [id, "events"] => {
            it.only(&[Method::GET])?;
            events::route(desk, it, task(id)?).await
        }
        [id, "artifacts", name @ ..] if !name.is_empty() => {
            it.only(&[Method::GET])?;
            artifact(desk, it, task(id)?, &name.join("/")).await
        }
        [
            id,
            part @ ("plan" | "effects" | "usage" | "explain" | "artifacts"),
        ] => {
            it.only(&[Method::GET])?;
            projected(desk, it, task(id)?, part).await
        }
        [
            id,
            verb @ ("pause" | "resume" | "cancel" | "steer" | "raise" | "retry"),
        ] => {
            it.only(&[Method::POST])?;
            act(desk, it, task(id)?, verb).await
        }
        _ => Err(it.no_such_path()),
    }
}

async fn create(desk: &Desk, it: &Question) -> Result<Response<Body>, Problem> {
    let key = it.header("idempotency-key").map(str::to_owned);
    let asked = Asked {
        key,
        ..Asked::new(it.caller.clone(), it.body.clone())
    };
    Ok(begun(&desk.create(asked).await?))
}

/// A task that has begun, now or before.
pub(super) fn begun(begun: &Begun) -> Response<Body> {
    answer::task(if begun.is_new { 201 } else { 200 }, &begun.state)
}

async fn list(desk: &Desk, it: &Question) -> Result<Response<Body>, Problem> {
    let statuses = it.words("status");
    for word in &statuses {
        let known: Result<Status, _> = serde_json::from_value(Value::from(word.as_str()));
        if known.is_err() {
            return Err(Problem::field("status", format!("`{word}` is no status")));
        }
    }
    let limit = it.limit()?;
    // Who sees all tenants may look at one of them.
    let tenant = tenant_of(&it.caller);
    let tenant = tenant.or_else(|| it.asked("tenant").map(str::to_owned));
    let counted = it.says("counts").then(|| tenant.clone());
    let filter = Filter {
        tenant,
        statuses,
        before: it.asked("before").map(task).transpose()?,
        limit,
    };
    let rows = desk.ask(move |log| log.list(&filter)).await?;
    let last = rows.last().map(|row| row.id.to_string());
    let tasks: Vec<Value> = rows
        .iter()
        .map(|row| serde_json::from_str(&row.summary).unwrap_or_default())
        .collect();
    let Some(tenant) = counted else {
        return Ok(answer::list(&tasks, limit, last.as_deref()));
    };
    let counts = desk.ask(move |log| log.counts(tenant.as_deref())).await?;
    let counts: serde_json::Map<String, Value> = counts
        .into_iter()
        .map(|(status, n)| (status, n.into()))
        .collect();
    let has_more = tasks.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
    let next = last.filter(|_| has_more);
    Ok(answer::json(
        200,
        &json!({ "object": "list", "data": tasks, "has_more": has_more, "next": next,
            "by_status": counts }),
    ))
}

async fn show(desk: &Desk, it: &Question, task: TaskId) -> Result<Response<Body>, Problem> {
    match desk.seen(&it.caller, task).await? {
        Seen::Whole(state) => Ok(answer::task(200, &state)),
        // What is left of it: when it was, how it ended, what it cost.
        Seen::Erased(row) => {
            let summary = serde_json::from_str(&row.summary).unwrap_or_default();
            Ok(answer::json(200, &summary))
        }
    }
}

/// A part of a task's state.
async fn projected(
    desk: &Desk,
    it: &Question,
    task: TaskId,
    part: &str,
) -> Result<Response<Body>, Problem> {
    let project: fn(&State) -> Value = match part {
        "plan" => view::plan,
        "effects" => view::effects,
        "usage" => view::usage,
        "explain" => view::explain,
        "artifacts" => artifacts,
        _ => return Err(it.no_such_path()),
    };
    let state = desk.state(&it.caller, task).await?;
    let mut response = answer::json(200, &project(&state));
    let etag = format!("\"{}\"", state.head.hash.short());
    answer::set(&mut response, ETAG, &etag);
    Ok(response)
}

fn artifacts(state: &State) -> Value {
    let whole = view::task(state);
    json!({ "object": "list", "data": whole.get("artifacts") })
}

/// What is said with a verb.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    #[serde(default)]
    reason: String,
    /// What is said to the task.
    #[serde(default)]
    text: String,
    /// How much is added.
    #[serde(default)]
    usd: Option<Usd>,
}

/// Does something to a task.
async fn act(
    desk: &Desk,
    it: &Question,
    task: TaskId,
    verb: &str,
) -> Result<Response<Body>, Problem> {
    let said: Said = it.said()?;
    let about = About {
        task,
        etag: it.header("if-match"),
    };
    let caller = &it.caller;
    let state = match verb {
        "pause" => desk.pause(caller, about, &said.reason).await?,
        "resume" => desk.resume(caller, about).await?,
        "cancel" => desk.cancel(caller, about, &said.reason).await?,
        "steer" => desk.steer(caller, about, &said.text).await?,
        "raise" => {
            let more = said
                .usd
                .ok_or_else(|| Problem::field("usd", "say how much more, such as \"1.00\""))?;
            desk.raise(caller, about, more).await?
        }
        "retry" => return Ok(begun(&desk.retry(caller, task).await?)),
        _ => return Err(it.no_such_path()),
    };
    Ok(answer::task(200, &state))
}

/// The bytes of an artefact. A browser saves them; it never shows them as a page of ours.
async fn artifact(
    desk: &Desk,
    it: &Question,
    task: TaskId,
    name: &str,
) -> Result<Response<Body>, Problem> {
    let state = desk.state(&it.caller, task).await?;
    let missing = || Problem::missing("artefact", name);
    let known = state.artifacts.get(name).ok_or_else(missing)?;
    let tools = &desk.ports().tools;
    let bytes = tools.artifact(&state.caller.tenant, task, name).await;
    let bytes = bytes.ok_or_else(|| {
        Problem::new(
            410,
            "artifact_gone",
            format!("the file of artefact `{name}` is not on this node any more"),
        )
    })?;
    let sha256 = crate::Digest::of(&bytes);
    let mut response = answer::whole(200, kind_of(name), bytes);
    let file = name.rsplit('/').next().unwrap_or(name);
    let plain: String = file
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "._- ".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect();
    let coded = percent_encoding::utf8_percent_encode(file, percent_encoding::NON_ALPHANUMERIC);
    answer::set(
        &mut response,
        CONTENT_DISPOSITION,
        &format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{coded}"),
    );
    answer::set(&mut response, ETAG, &format!("\"{sha256}\""));
    // A later step may have changed it since it was noted.
    if known.sha256 != sha256 {
        let name = http::HeaderName::from_static("x-pareto-changed-since");
        answer::set(&mut response, name, &known.sha256.to_string());
    }
    Ok(response)
}

/// The media type of a file, by its name.
fn kind_of(name: &str) -> &'static str {
    let suffix = name.rsplit_once('.').map_or("", |(_, suffix)| suffix);
    match suffix.to_ascii_lowercase().as_str() {
        "txt" | "log" => "text/plain; charset=utf-8",
        "md" => "text/markdown; charset=utf-8",
        "csv" => "text/csv; charset=utf-8",
        "json" => "application/json",
        "html" | "htm" => "text/html; charset=utf-8",
        "pdf" => "application/pdf",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "docx" => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "xlsx" => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "zip" => "application/zip",
        _ => "application/octet-stream",
    }
}
