//! Reading what a program sends to the admin API: what is not understood is refused as a problem document, and
//! nothing that is sent is left unread.

use axum::Json;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::task::JoinError;

use super::Problem;

/// A body that is a JSON object. A list would be taken by position, which nobody means.
pub(super) struct Told<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Told<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let read = Json::<Value>::from_request(request, state).await;
        let Json(value) = read.map_err(|error| Problem(error.status(), error.body_text()))?;
        let wrong = |detail: String| Problem(StatusCode::UNPROCESSABLE_ENTITY, detail);
        if !value.is_object() {
            return Err(wrong("the body is no JSON object".to_owned()));
        }
        T::deserialize(value)
            .map(Self)
            .map_err(|error| wrong(format!("the body is not as it should be: {error}")))
    }
}

/// The parameters of the query.
pub(super) struct Params<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = Query::from_request_parts(parts, state).await;
        let Query(params) = read.map_err(|error| Problem(error.status(), error.body_text()))?;
        Ok(Self(params))
    }
}

/// Refuses a stretch of time that ends before it begins.
pub(super) fn in_order(from_ms: Option<i64>, until_ms: Option<i64>) -> Result<(), Problem> {
    match (from_ms, until_ms) {
        (Some(from), Some(until)) if until < from => {
            let detail = "`until_ms` is before `from_ms`; give a later one".to_owned();
            Err(Problem(StatusCode::BAD_REQUEST, detail))
        }
        _ => Ok(()),
    }
}

impl From<JoinError> for Problem {
    /// What a panic says is for the log alone, which has told it: it may hold what callers said.
    fn from(_: JoinError) -> Self {
        let detail = "the gateway failed at this; its log says where";
        Self(StatusCode::INTERNAL_SERVER_ERROR, detail.to_owned())
    }
}
