//! The operators' listener: health, metrics, pages, and the admin API. Everything but health needs
//! the admin token, as bearer or as the password of a browser's log-in; what only reads sums takes the
//! finance token as well.

mod books;
mod edge;
mod read;
mod tasks;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::{Path, Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use meter::ledger::{Dimension, UsageQuery};
use meter::{Entry, Ledger, LedgerError};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Deserialize;
use serde_json::{Value, json};
use subtle::ConstantTimeEq;
use wire::RequestId;

use crate::assemble::Parts;
use crate::boot::Reloads;
use crate::clock::now_ms;
use crate::guessing::Whom;
use crate::identify::{self, Owner, WrongOwner};
use crate::serve::Doors;
use crate::{openapi, pages, telemetry};

pub(crate) use edge::{application, limits, refuse};
use read::{Params, Told, in_order};

/// What the admin API works on.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) parts: Arc<Parts>,
    pub(crate) metrics: PrometheusHandle,
    pub(crate) reloads: Arc<Reloads>,
    /// How far callers may come in.
    pub(crate) callers: Doors,
}

/// A problem document (RFC 9457).
pub(crate) struct Problem(pub(crate) StatusCode, pub(crate) String);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = json!({ "type": "about:blank", "title": self.0.canonical_reason(),
            "status": self.0.as_u16(), "detail": self.1 });
        let kind = HeaderValue::from_static("application/problem+json");
        let mut response = (self.0, Json(body)).into_response();
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    }
}

impl From<LedgerError> for Problem {
    fn from(error: LedgerError) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

/// The address that an operator's connection comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Operator,
    /// Reads sums, and changes nothing.
    Finance,
}

/// All routes. Those of `sums` take either token, all others above the layer the admin token alone;
/// health is below it on purpose.
pub(crate) fn router(admin: Admin) -> Router {
    let sums = pages::routes()
        .route("/openapi.json", get(described))
        .route("/metrics", get(metrics))
        .route("/api/usage", get(usage))
        .route("/api/budgets", get(budgets))
        .route("/api/calls/{id}", get(call));
    let operators = Router::new()
        .route("/api/overrides", get(overrides).post(add_override))
        .route("/api/keys", get(keys).post(create_key))
        .route("/api/keys/{id}", delete(revoke_key))
        .route("/api/config", get(config))
        .route("/api/reload", post(reload))
        .merge(books::routes())
        .merge(tasks::routes())
        .merge(pages::tasks::routes())
        .layer(from_fn_with_state(admin.clone(), edge::read_body))
        .layer(from_fn(operators_only));
    sums.merge(operators)
        .layer(from_fn(not_from_elsewhere))
        .layer(from_fn_with_state(admin.clone(), authorised))
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/healthz", get(ready))
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn(unkept))
        .with_state(admin)
}

/// The router says beside it which methods are taken.
async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let detail = format!(
        "{} does not take {method}; `allow` says what it takes",
        uri.path()
    );
    Problem(StatusCode::METHOD_NOT_ALLOWED, detail)
}

/// Has nobody keep what the API says, keys among it, nor take it for anything else.
async fn unkept(request: Request, next: Next) -> Response {
    let is_api = request.uri().path().starts_with("/api/");
    let mut response = next.run(request).await;
    if is_api {
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    }
    response
}

async fn authorised(State(admin): State<Admin>, mut request: Request, next: Next) -> Response {
    let sent = presented(request.headers()).unwrap_or_default();
    let same =
        |token: &str| !token.is_empty() && bool::from(sent.as_bytes().ct_eq(token.as_bytes()));
    let operator = same(admin.parts.admin_token.load().expose());
    let finance = same(admin.parts.finance_token.load().expose());
    if operator || finance {
        let role = if operator {
            Role::Operator
        } else {
            Role::Finance
        };
        request.extensions_mut().insert(role);
        return next.run(request).await;
    }
    let peer = request.extensions().get::<Peer>();
    if let (Some(peer), false) = (peer, sent.is_empty())
        && let Some(seconds) = (admin.parts.shared).guessed("operators", &[Whom::Operator(peer.0)])
    {
        return slowed(seconds);
    }
    let detail = "send the admin token as bearer, or as the password of any user".to_owned();
    let mut response = Problem(StatusCode::UNAUTHORIZED, detail).into_response();
    let ask = HeaderValue::from_static("Basic realm=\"pareto\"");
    response.headers_mut().insert(WWW_AUTHENTICATE, ask);
    response
}

/// A wrong token is one of too many.
fn slowed(seconds: u64) -> Response {
    let detail =
        "too many wrong tokens came from this address; the right one is let in at any time";
    let mut response = Problem(StatusCode::TOO_MANY_REQUESTS, detail.to_owned()).into_response();
    let headers = response.headers_mut();
    headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Refuses what another site's page makes a browser send: browsers keep the log-in and send it along,
/// whoever wrote the form. Programs say nothing of where they come from.
async fn not_from_elsewhere(request: Request, next: Next) -> Response {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    if is_read || is_from_here(request.headers(), request.uri()) {
        return next.run(request).await;
    }
    let detail =
        "this comes from a page of another site; open the pages of this gateway".to_owned();
    Problem(StatusCode::FORBIDDEN, detail).into_response()
}

fn is_from_here(headers: &HeaderMap, uri: &Uri) -> bool {
    let word = |name: &str| headers.get(name).map(HeaderValue::as_bytes);
    let same_site = word("sec-fetch-site").is_none_or(|it| matches!(it, b"same-origin" | b"none"));
    let authority = uri.authority().map(|it| it.as_str().as_bytes());
    let here = word("host").or(authority);
    let same_origin = word("origin").is_none_or(|origin| {
        let marker = origin.windows(3).position(|it| it == b"://");
        let from = marker.and_then(|at| origin.get(at + 3..));
        from.is_some() && from == here
    });
    same_site && same_origin
}

async fn operators_only(request: Request, next: Next) -> Response {
    if request.extensions().get() == Some(&Role::Operator) {
        return next.run(request).await;
    }
    let detail = "the finance token reads sums only; this needs the admin token".to_owned();
    Problem(StatusCode::FORBIDDEN, detail).into_response()
}

fn presented(headers: &HeaderMap) -> Option<String> {
    let (scheme, value) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(value.trim().to_owned());
    }
    let decoded = String::from_utf8(STANDARD.decode(value.trim()).ok()?).ok()?;
    decoded
        .split_once(':')
        .map(|(_, password)| password.to_owned())
}

/// Whether calls are taken. Callers learn of a journal that can not be written by 503, one after the other.
async fn ready(State(admin): State<Admin>) -> (StatusCode, &'static str) {
    let parts = Arc::clone(&admin.parts);
    let asked = tokio::task::spawn_blocking(move || parts.journal_refuses());
    if asked.await.unwrap_or(true) {
        let told = "the journal can not be written; the log says why";
        return (StatusCode::SERVICE_UNAVAILABLE, told);
    }
    if admin.callers.draining.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining")
    } else {
        (StatusCode::OK, "ready")
    }
}

/// What this listener answers.
async fn described() -> impl IntoResponse {
    let kind = HeaderValue::from_static("application/json");
    ([(CONTENT_TYPE, kind)], openapi::OPERATORS.as_str())
}

async fn metrics(State(admin): State<Admin>) -> String {
    let callers = admin.callers.open.load(Ordering::Relaxed);
    telemetry::state(&admin.parts.state(), callers);
    let text = admin.metrics.render();
    telemetry::scraped();
    text
}

/// Asks the ledger, which blocks, off the reactor.
async fn ask<T: Send + 'static>(
    admin: &Admin,
    question: impl FnOnce(&dyn Ledger) -> Result<T, LedgerError> + Send + 'static,
) -> Result<T, Problem> {
    let ledger = Arc::clone(&admin.parts.shared.ledger);
    let asked = tokio::task::spawn_blocking(move || question(&*ledger)).await;
    asked?.map_err(Into::into)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UsageParams {
    /// Comma-separated dimensions.
    #[serde(default)]
    by: String,
    tenant: Option<String>,
    from_ms: Option<i64>,
    until_ms: Option<i64>,
}

async fn usage(
    State(admin): State<Admin>,
    Params(params): Params<UsageParams>,
) -> Result<Json<Value>, Problem> {
    in_order(params.from_ms, params.until_ms)?;
    let by = dimensions(&params.by).map_err(|error| Problem(StatusCode::BAD_REQUEST, error))?;
    let UsageParams {
        tenant,
        from_ms,
        until_ms,
        ..
    } = params;
    let query = UsageQuery {
        from_ms,
        until_ms,
        tenant,
        by: by.clone(),
    };
    let rows = ask(&admin, move |ledger| ledger.usage(&query)).await?;
    Ok(Json(json!({ "by": by, "rows": rows })))
}

/// Reads `tenant,model,day`.
pub(crate) fn dimensions(text: &str) -> Result<Vec<Dimension>, String> {
    text.split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .map(|word| {
            serde_json::from_value(Value::from(word)).map_err(|_| {
                format!("`{word}` is no dimension; write tenant, team, project, key, user, workflow, model, endpoint, tier, lane, price, day or hour")
            })
        })
        .collect()
}

async fn budgets(State(admin): State<Admin>) -> Json<Value> {
    let budgets = admin.parts.shared.meter.standings(now_ms());
    let rows: Vec<Value> = budgets
        .iter()
        .map(|it| json!({ "tenant": it.tenant, "budget": it, "left": it.left() }))
        .collect();
    Json(Value::from(rows))
}

async fn overrides(State(admin): State<Admin>) -> Result<Json<Value>, Problem> {
    let changes = ask(&admin, |ledger| ledger.overrides()).await?;
    let rows: Vec<Value> = changes
        .iter()
        .map(|it| {
            json!({ "id": it.id, "budget": it.budget, "usd": meter::NanoUsd(it.amount).to_usd(),
                "from_ms": it.from_ms, "until_ms": it.until_ms, "author": it.author, "reason": it.reason })
        })
        .collect();
    Ok(Json(Value::from(rows)))
}

/// A dated change of a limit, as the admin API takes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewOverride {
    budget: String,
    usd: String,
    from_ms: Option<i64>,
    until_ms: i64,
    author: String,
    reason: String,
}

async fn add_override(
    State(admin): State<Admin>,
    Told(asked): Told<NewOverride>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let wrong = |detail: String| Problem(StatusCode::BAD_REQUEST, detail);
    let amount = meter::NanoUsd::from_usd(&asked.usd).map_err(|error| wrong(error.to_string()))?;
    let number = identify::random().map_err(|error| wrong(error.to_string()))?;
    let change = meter::Override {
        id: format!("{number:016x}"),
        budget: asked.budget,
        amount: amount.0,
        from_ms: asked.from_ms.unwrap_or_else(now_ms),
        until_ms: asked.until_ms,
        author: asked.author,
        reason: asked.reason,
        created_at_ms: now_ms(),
    };
    let standings = admin.parts.shared.meter.standings(now_ms());
    let checked = change.check(&standings, now_ms());
    checked.map_err(|error| wrong(error.to_string()))?;
    let id = change.id.clone();
    let changes = ask(&admin, move |ledger| {
        ledger.add_override(&change)?;
        ledger.overrides()
    });
    admin.parts.shared.meter.set_overrides(&changes.await?);
    Ok((StatusCode::CREATED, Json(json!({ "id": id }))))
}

async fn call(State(admin): State<Admin>, Path(id): Path<String>) -> Result<Response, Problem> {
    let not_found = |detail: String| Problem(StatusCode::NOT_FOUND, detail);
    let wanted: RequestId = id
        .parse()
        .map_err(|error: wire::ParseRequestIdError| not_found(error.to_string()))?;
    let desk = admin.parts.desk.load_full();
    let (entries, corrections) = ask(&admin, move |ledger| {
        let (entries, _) = ledger.call(wanted)?;
        Ok((entries, desk.books.corrections(wanted)?))
    })
    .await?;
    if entries.is_empty() && corrections.is_empty() {
        return Err(not_found(format!("no settled call {id}")));
    }
    let mut json = call_json(wanted, &entries);
    if let Some(fields) = json.as_object_mut() {
        let settled: meter::NanoUsd = entries.iter().map(|entry| entry.cost).sum();
        let changed: meter::NanoUsd = corrections.iter().map(|it| it.change.cost).sum();
        fields.insert("cost_usd".to_owned(), (settled + changed).to_usd().into());
        fields.insert("corrections".to_owned(), json!(corrections));
    }
    Ok(Json(json).into_response())
}

/// A settled call with each of its attempts.
pub(crate) fn call_json(request: RequestId, entries: &[Entry]) -> Value {
    let cost: meter::NanoUsd = entries.iter().map(|entry| entry.cost).sum();
    let attempts: Vec<Value> = entries
        .iter()
        .map(|entry| {
            let held = &entry.held;
            json!({
                "attempt": held.attempt, "model": held.model, "tier": held.tier, "route": held.reason,
                "score": held.score_milli, "escalated": held.escalated, "outcome": entry.outcome, "status": entry.status,
                "usage": entry.usage, "usage_source": entry.source, "cost_usd": entry.cost.to_usd(),
                "price": held.price, "first_byte_ms": entry.first_byte_ms, "losses": held.losses,
                "session": format!("{:016x}", held.session),
            })
        })
        .collect();
    json!({ "id": request.to_string(), "cost_usd": cost.to_usd(), "attempts": attempts })
}

async fn keys(State(admin): State<Admin>) -> Result<Json<Value>, Problem> {
    let keys = ask(&admin, |ledger| ledger.keys()).await?;
    let rows: Vec<Value> = keys
        .iter()
        .map(|key| {
            json!({ "id": key.id, "tenant": key.tenant, "team": key.team, "project": key.project,
                "label": key.label, "created_at_ms": key.created_at_ms, "revoked_at_ms": key.revoked_at_ms })
        })
        .collect();
    Ok(Json(Value::from(rows)))
}

async fn create_key(
    State(admin): State<Admin>,
    Told(owner): Told<Owner>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let wrong = |error: WrongOwner| Problem(StatusCode::BAD_REQUEST, error.to_string());
    owner.check().map_err(wrong)?;
    let created = identify::create(owner, admin.parts.shared.keys.pepper())
        .map_err(|error| Problem(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let row = created.row.clone();
    let rows = ask(&admin, move |ledger| {
        ledger.add_key(&row)?;
        ledger.keys()
    });
    admin.parts.shared.keys.load(rows.await?);
    let answer = json!({ "id": created.row.id, "key": created.key.expose() });
    Ok((StatusCode::CREATED, Json(answer)))
}

async fn revoke_key(
    State(admin): State<Admin>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let shown = id.clone();
    let (revoked, rows) = ask(&admin, move |ledger| {
        let revoked = ledger.revoke_key(&id, now_ms())?;
        Ok((revoked, ledger.keys()?))
    })
    .await?;
    admin.parts.shared.keys.load(rows);
    if revoked {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(Problem(
        StatusCode::NOT_FOUND,
        format!("no key `{shown}` that is in force"),
    ))
}

async fn config(State(admin): State<Admin>) -> Json<Value> {
    let runtime = admin.parts.shared.runtime.load();
    let models: Vec<Value> = runtime
        .everywhere()
        .map(|t| json!({ "name": t.name, "tier": t.tier, "endpoint": t.endpoint.name, "price": t.price }))
        .collect();
    Json(
        json!({ "models": models, "weights": router::version(), "last_reload_error": admin.reloads.last_error() }),
    )
}

/// Reads the configuration again. What of it only a restart takes is told.
async fn reload(State(admin): State<Admin>) -> Result<Response, Problem> {
    let reloads = Arc::clone(&admin.reloads);
    match tokio::task::spawn_blocking(move || reloads.reload()).await {
        Ok(Ok(left)) if left.is_empty() => Ok(StatusCode::NO_CONTENT.into_response()),
        Ok(Ok(left)) => Ok(Json(json!({ "needs_restart": left })).into_response()),
        Ok(Err(error)) => Err(Problem(StatusCode::UNPROCESSABLE_ENTITY, error)),
        Err(error) => Err(error.into()),
    }
}
