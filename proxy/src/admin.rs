//! The operators' listener: health, metrics, pages, and the admin API. Everything but health needs
//! the admin token, as bearer or as the password of a browser's log-in.

use std::sync::Arc;

use axum::extract::{Path, Query, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse, Response};
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
use tokio_util::sync::CancellationToken;
use wire::RequestId;

use crate::assemble::{self, Parts};
use crate::boot::Reloads;
use crate::clock::now_ms;
use crate::identify::{self, Owner};
use crate::telemetry;

/// What the admin API works on.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) parts: Arc<Parts>,
    pub(crate) metrics: PrometheusHandle,
    pub(crate) reloads: Arc<Reloads>,
    pub(crate) draining: CancellationToken,
}

/// A problem document (RFC 9457).
struct Problem(StatusCode, String);

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

/// All routes. A route added above the layer needs the token; health is below it on purpose.
pub(crate) fn router(admin: Admin) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/metrics", get(metrics))
        .route("/api/usage", get(usage))
        .route("/api/budgets", get(budgets))
        .route("/api/calls/{id}", get(call))
        .route("/api/keys", get(keys).post(create_key))
        .route("/api/keys/{id}", delete(revoke_key))
        .route("/api/config", get(config))
        .route("/api/reload", post(reload))
        .layer(from_fn_with_state(admin.clone(), authorised))
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/healthz", get(ready))
        .with_state(admin)
}

async fn authorised(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let token = admin.parts.admin_token.expose();
    let same = presented(request.headers())
        .is_some_and(|sent| bool::from(sent.as_bytes().ct_eq(token.as_bytes())));
    if same {
        return next.run(request).await;
    }
    let detail = "send the admin token as bearer, or as the password of any user".to_owned();
    let mut response = Problem(StatusCode::UNAUTHORIZED, detail).into_response();
    let ask = HeaderValue::from_static("Basic realm=\"pareto\"");
    response.headers_mut().insert(WWW_AUTHENTICATE, ask);
    response
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

async fn ready(State(admin): State<Admin>) -> (StatusCode, &'static str) {
    if admin.draining.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining")
    } else {
        (StatusCode::OK, "ready")
    }
}

async fn metrics(State(admin): State<Admin>) -> String {
    telemetry::state(&admin.parts.state());
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
    asked
        .map_err(|error| Problem(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?
        .map_err(Into::into)
}

#[derive(Deserialize)]
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
    Query(params): Query<UsageParams>,
) -> Result<Json<Value>, Problem> {
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

async fn call(State(admin): State<Admin>, Path(id): Path<String>) -> Result<Response, Problem> {
    let not_found = |detail: String| Problem(StatusCode::NOT_FOUND, detail);
    let wanted: RequestId = id
        .parse()
        .map_err(|error: wire::ParseRequestIdError| not_found(error.to_string()))?;
    let (entries, _) = ask(&admin, move |ledger| ledger.call(wanted)).await?;
    if entries.is_empty() {
        return Err(not_found(format!("no settled call {id}")));
    }
    let kind = [(CONTENT_TYPE, "application/json")];
    Ok((kind, call_json(wanted, &entries)).into_response())
}

/// A settled call with each of its attempts.
pub(crate) fn call_json(request: RequestId, entries: &[Entry]) -> String {
    let cost: meter::NanoUsd = entries.iter().map(|entry| entry.cost).sum();
    let attempts: Vec<Value> = entries
        .iter()
        .map(|entry| {
            let held = &entry.held;
            json!({
                "attempt": held.attempt, "model": held.model, "tier": held.tier, "route": held.reason,
                "score": held.score_milli, "outcome": entry.outcome, "status": entry.status,
                "usage": entry.usage, "usage_source": entry.source, "cost_usd": entry.cost.to_usd(),
                "price": held.price, "first_byte_ms": entry.first_byte_ms, "losses": held.losses,
                "session": format!("{:016x}", held.session),
            })
        })
        .collect();
    json!({ "id": request.to_string(), "cost_usd": cost.to_usd(), "attempts": attempts })
        .to_string()
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
    Json(owner): Json<Owner>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    if owner.tenant.is_empty() {
        return Err(Problem(
            StatusCode::BAD_REQUEST,
            "`tenant` is empty; name one".to_owned(),
        ));
    }
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
        .targets
        .iter()
        .map(|t| json!({ "name": t.name, "tier": t.tier, "endpoint": t.endpoint.name, "price": t.price }))
        .collect();
    Json(
        json!({ "models": models, "weights": router::version(), "last_reload_error": admin.reloads.last_error() }),
    )
}

async fn reload(State(admin): State<Admin>) -> Result<StatusCode, Problem> {
    let reloads = Arc::clone(&admin.reloads);
    match tokio::task::spawn_blocking(move || reloads.reload()).await {
        Ok(Ok(())) => Ok(StatusCode::NO_CONTENT),
        Ok(Err(error)) => Err(Problem(StatusCode::UNPROCESSABLE_ENTITY, error)),
        Err(error) => Err(Problem(
            StatusCode::INTERNAL_SERVER_ERROR,
            error.to_string(),
        )),
    }
}

async fn page(State(admin): State<Admin>) -> Result<Html<String>, Problem> {
    let (tenants, models, days, latest) = ask(&admin, |ledger| {
        let by = |by: Vec<Dimension>| {
            ledger.usage(&UsageQuery {
                by,
                ..UsageQuery::default()
            })
        };
        Ok((
            by(vec![Dimension::Tenant, Dimension::Tier])?,
            by(vec![Dimension::Model])?,
            by(vec![Dimension::Day])?,
            ledger.latest(20)?,
        ))
    })
    .await?;
    let budgets = admin.parts.shared.meter.standings(now_ms());
    Ok(Html(assemble::overview_page(
        &tenants, &models, &days, &latest, &budgets,
    )))
}
