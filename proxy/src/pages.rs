//! Pages over HTTP: what they may load, how long they may be kept, and how long they took.

mod assemble;
pub(crate) mod tasks;

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};

use meter::Standing;
use meter::finance::{Allowance, Filter};
use meter::ledger::Dimension;

use crate::admin::{Admin, Problem, Role};
use crate::assemble::asset as file;

/// Nothing but what this listener serves, and no script or style inside a page.
const POLICY: &str = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'";
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// The pages and what they load.
pub(crate) fn routes() -> Router<Admin> {
    Router::new()
        .route("/", get(page))
        .route("/assets/{name}", get(asset))
        .fallback(get(page))
}

/// A page, or a table of it.
pub(crate) struct Shown {
    pub(crate) kind: &'static str,
    pub(crate) body: String,
    /// What it is to be saved as.
    pub(crate) file: Option<String>,
}

async fn page(
    State(admin): State<Admin>,
    Extension(role): Extension<Role>,
    uri: Uri,
) -> Result<Response, Problem> {
    let began = Instant::now();
    let parts = Arc::clone(&admin.parts);
    let wanted = uri.clone();
    let asked = tokio::task::spawn_blocking(move || {
        let query = wanted.query().unwrap_or_default();
        parts.page(wanted.path(), query, role == Role::Operator)
    });
    let shown = asked.await??;
    let nothing = || Problem(StatusCode::NOT_FOUND, format!("no page {}", uri.path()));
    Ok(dressed(shown.ok_or_else(nothing)?, began))
}

/// A page with its headers.
fn dressed(shown: Shown, began: Instant) -> Response {
    let mut response = shown.body.into_response();
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, shown.kind),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Some(file) = shown.file {
        let value = format!("attachment; filename=\"{file}\"");
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(CONTENT_DISPOSITION, value);
        }
    }
    let took = began.elapsed().as_micros();
    let timing = format!("total;dur={}.{:03}", took / 1_000, took % 1_000);
    if let Ok(timing) = HeaderValue::from_str(&timing) {
        headers.insert(SERVER_TIMING, timing);
    }
    response
}

async fn asset(uri: Uri) -> Result<Response, Problem> {
    let nothing = || Problem(StatusCode::NOT_FOUND, format!("no file {}", uri.path()));
    let (kind, bytes) = file(uri.path()).ok_or_else(nothing)?;
    let headers = [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "private, max-age=31536000, immutable"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((headers, bytes).into_response())
}

/// Budgets as the pages show them, with what of the use each covers, where a filter can tell it.
pub(crate) fn allowances(standings: Vec<Standing>) -> Vec<Allowance> {
    let with_scope = |standing: Standing| Allowance {
        scope: scope(&standing),
        standing,
    };
    standings.into_iter().map(with_scope).collect()
}

/// What a budget covers; `None` where it names what pages can not be filtered by.
fn scope(standing: &Standing) -> Option<Filter> {
    let tenant = Some(standing.tenant.clone());
    let mut scope = Filter::default().with(Dimension::Tenant, tenant);
    for (level, name) in &standing.covers {
        let dimension = match *level {
            "team" => Dimension::Team,
            "project" => Dimension::Project,
            "key" => Dimension::Key,
            "model" => Dimension::Model,
            _ => return None,
        };
        if scope.named(dimension).is_some() {
            return None;
        }
        scope = scope.with(dimension, Some(name.clone()));
    }
    Some(scope)
}
