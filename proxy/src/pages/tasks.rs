//! Pages of tasks over HTTP, for the operator: they are made of what the API of tasks says, and what their
//! forms say goes to the same API, as any client's would.

use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use meter::Subject;
use serde_json::Value;
use tokio::runtime::Handle;

use super::assemble::{self, Refused, Told};
use super::dressed;
use crate::admin::{Admin, Problem};
use crate::gateway::Gateway;
use crate::tasks::{Asked, Asking, ask};

/// The longest answer of the API that a page is made of, in bytes.
const MOST_ANSWER: usize = 64 << 20;

/// All routes; whoever comes here is the operator.
pub(crate) fn routes() -> Router<Admin> {
    Router::new()
        .route("/tasks", get(page))
        .route("/tasks/{id}", get(page))
        .route("/tasks/{id}/{verb}", post(act))
        .route("/approvals", get(page))
        .route("/approvals/{id}", post(act))
}

async fn page(State(admin): State<Admin>, uri: Uri) -> Result<Response, Problem> {
    let began = Instant::now();
    let api = api(&admin)?;
    let wanted = uri.clone();
    // A page asks several things, one after the other, of a log that blocks: it is made off the reactor.
    let reactor = Handle::current();
    let made = tokio::task::spawn_blocking(move || {
        let read = |path: &str| reactor.block_on(read(api.clone(), path));
        assemble::page(wanted.path(), wanted.query().unwrap_or_default(), &read)
    });
    let made = made.await?;
    let nothing = || Problem(StatusCode::NOT_FOUND, format!("no page {}", uri.path()));
    match made.map_err(|refused| Problem(status(&refused), refused.message))? {
        Some(Told::Shown(shown)) => Ok(dressed(shown, began)),
        Some(Told::Unchanged) => {
            let kept = [(CACHE_CONTROL, "no-store")];
            Ok((StatusCode::NO_CONTENT, kept).into_response())
        }
        None => Err(nothing()),
    }
}

/// Does what a form says, and leads back to the page that shows it.
async fn act(
    State(admin): State<Admin>,
    uri: Uri,
    headers: HeaderMap,
    form: Bytes,
) -> Result<Response, Problem> {
    let began = Instant::now();
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let is_form = kind.is_some_and(|it| it.starts_with(b"application/x-www-form-urlencoded"));
    let said = str::from_utf8(&form).ok().filter(|_| is_form);
    let act = said.and_then(|said| assemble::act(uri.path(), said));
    let act = act.ok_or_else(|| {
        let detail = "no form of these pages says that; use the API".to_owned();
        Problem(StatusCode::BAD_REQUEST, detail)
    })?;
    let body = Bytes::from(act.body.to_string());
    match send(api(&admin)?, Method::POST, &act.path, body).await {
        Ok(_) => {
            let back = HeaderValue::from_str(&act.back)
                .map_err(|error| Problem(StatusCode::BAD_REQUEST, error.to_string()))?;
            Ok((StatusCode::SEE_OTHER, [(LOCATION, back)]).into_response())
        }
        Err(refused) => {
            let mut response = dressed(assemble::refused(&refused, &act), began);
            *response.status_mut() = status(&refused);
            Ok(response)
        }
    }
}

fn api(admin: &Admin) -> Result<Gateway, Problem> {
    let api = admin.parts.shared.api.get().cloned();
    api.ok_or_else(|| {
        let detail = "no tasks run here: [orchestrator] enabled = false".to_owned();
        Problem(StatusCode::NOT_FOUND, detail)
    })
}

async fn read(api: Gateway, path: &str) -> Result<Value, Refused> {
    send(api, Method::GET, path, Bytes::new()).await
}

/// Asks the API as the operator, for all tenants.
async fn send(api: Gateway, method: Method, path: &str, body: Bytes) -> Result<Value, Refused> {
    let broken = |message: String| Refused {
        status: 502,
        code: "broken_answer".to_owned(),
        message,
    };
    let uri: Uri = path
        .parse()
        .map_err(|error| broken(format!("{path}: {error}")))?;
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let asked = Asked {
        method,
        uri,
        headers: &headers,
        body,
    };
    let asking = Asking {
        subject: Subject::of_key("", "", "", ""),
        is_operator: true,
    };
    let (head, body) = ask(api, asked, asking).await.into_parts();
    let body = to_bytes(Body::new(body), MOST_ANSWER).await;
    let body = body.map_err(|error| broken(error.to_string()))?;
    let value: Value =
        serde_json::from_slice(&body).map_err(|error| broken(format!("{path}: {error}")))?;
    if head.status.is_success() {
        return Ok(value);
    }
    let text = |name: &str| {
        let text = value.get(name).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    let field = text("field");
    let message = text("message");
    Err(Refused {
        status: head.status.as_u16(),
        code: text("code"),
        message: if field.is_empty() {
            message
        } else {
            format!("{field}: {message}")
        },
    })
}

fn status(refused: &Refused) -> StatusCode {
    StatusCode::from_u16(refused.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
