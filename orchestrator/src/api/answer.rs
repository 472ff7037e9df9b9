//! Answers: JSON, problems, files.

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, ETAG, HeaderName, LOCATION};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use crate::desk::Problem;
use crate::model::Body;
use crate::state::State;
use crate::view;

/// A whole answer.
pub(super) fn whole(status: u16, kind: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(body.into()).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(
        "x-content-type-options",
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// JSON.
pub(super) fn json(status: u16, value: &Value) -> Response<Body> {
    whole(status, "application/json", value.to_string())
}

/// A list, with what to ask for to go on.
pub(super) fn list(data: &[Value], limit: u32, next: Option<&str>) -> Response<Body> {
    let full = data.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
    let next = next.filter(|_| full);
    json(
        200,
        &json!({ "object": "list", "data": data, "has_more": full, "next": next }),
    )
}

/// A refusal, as RFC 9457 has it.
pub(super) fn problem(problem: &Problem) -> Response<Body> {
    let status = StatusCode::from_u16(problem.status).ok();
    let body = json!({
        "type": "about:blank",
        "title": status.and_then(|status| status.canonical_reason()),
        "status": problem.status,
        "detail": problem.message,
        "code": problem.code,
        "message": problem.message,
        "field": problem.field,
    });
    let mut response = whole(problem.status, "application/problem+json", body.to_string());
    if let Some(allow) = &problem.allow {
        set(&mut response, ALLOW, allow);
    }
    if matches!(problem.status, 429 | 503) {
        let seconds = HeaderValue::from_static("1");
        response.headers_mut().insert("retry-after", seconds);
    }
    response
}

/// A task, with its etag.
pub(super) fn task(status: u16, state: &State) -> Response<Body> {
    let mut response = json(status, &view::task(state));
    set(
        &mut response,
        ETAG,
        &format!("\"{}\"", state.head.hash.short()),
    );
    if status == 201 {
        set(&mut response, LOCATION, &format!("/v1/tasks/{}", state.id));
    }
    response
}

/// Sets a header whose value is plain.
pub(super) fn set(response: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}
