//! The API of tasks for the operator, who sees those of all tenants: `/api/v1/...` answers as `/v1/...`
//! does. `x-pareto-tenant`, or `tenant` in the query, says for whom.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use meter::Subject;

use super::{Admin, Problem};
use crate::tasks::{Asked, Asking, ask, is_at};

/// All routes; whoever comes here is the operator.
pub(super) fn routes() -> Router<Admin> {
    Router::new().route("/api/v1/{*rest}", any(answer))
}

async fn answer(
    State(admin): State<Admin>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let path = uri.path();
    let is_known = path.strip_prefix("/api").is_some_and(is_at);
    let api = admin.parts.shared.api.get().cloned();
    let api = api.filter(|_| is_known);
    let missing = || Problem(StatusCode::NOT_FOUND, format!("there is nothing at {path}"));
    let api = api.ok_or_else(missing)?;
    let asking = Asking {
        subject: operator(&headers, &uri),
        is_operator: true,
    };
    let asked = Asked {
        // What a head is asked of is answered as ever; its connection leaves the body out.
        method: if method == Method::HEAD {
            Method::GET
        } else {
            method
        },
        uri,
        headers: &headers,
        body,
    };
    let response = ask(api, asked, asking).await;
    Ok(response.map(Body::new).into_response())
}

/// The operator, for a tenant where one is named.
fn operator(headers: &HeaderMap, uri: &Uri) -> Subject {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    // Signs of the query that stand for others are read here; the API itself refuses what can not be read.
    let pairs = Query::<Vec<(String, String)>>::try_from_uri(uri);
    let pairs = pairs.map_or_else(|_| Vec::new(), |Query(pairs)| pairs);
    let asked = pairs.iter().find(|(name, _)| name == "tenant");
    let tenant = header("x-pareto-tenant").or(asked.map(|(_, tenant)| tenant.as_str()));
    let mut subject = Subject::of_key(tenant.unwrap_or_default(), "", "", "");
    subject.user = header("x-pareto-user").unwrap_or_default().into();
    subject
}
