//! What requests of operators pass before anybody answers them: the checks that callers' requests pass, told as
//! problem documents, and for those that have bodies a bound and a clock.

use std::net::IpAddr;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode};
use axum::middleware::Next;
use axum::response::IntoResponse;
use http_body_util::BodyExt;
use tower::util::BoxCloneSyncService;
use tower::{ServiceExt, service_fn};
use wire::Refusal;

use super::{Admin, Peer, Problem};
use crate::config::Limits;
use crate::gateway::{Application, Body, BodyError};
use crate::http1::BadRequest;
use crate::intake::ReadCallError;
use crate::{edge, intake, refusal};

/// The longest body, in bytes: what an operator sends is a form, a key's owner or a task's brief. Books and bills
/// come in by the command line, at the store itself.
const BODY: usize = 1 << 20;

/// The limits of operators' connections: those of callers', but for the body, which another surface has.
pub(crate) fn limits(callers: &Limits) -> Limits {
    Limits {
        body_bytes: BODY,
        ..callers.clone()
    }
}

/// Answers the requests that come from `peer`.
pub(crate) fn application(router: Router, peer: IpAddr) -> Application {
    BoxCloneSyncService::new(service_fn(move |mut request: http::Request<Body>| {
        let router = router.clone();
        async move {
            let admitted = edge::admit(&request, request.uri().path());
            let response = match admitted {
                Ok(()) => {
                    request.extensions_mut().insert(Peer(peer));
                    router.oneshot(request.map(axum::body::Body::new)).await?
                }
                Err(refused) => told(&refused),
            };
            Ok(response.map(of_axum))
        }
    }))
}

/// Answers a request that could not be read.
pub(crate) fn refuse(bad: &BadRequest, _path: &str) -> Response<Body> {
    told(&refusal::unread(bad)).map(of_axum)
}

/// Reads the body, so that whoever answers has all of it.
pub(super) async fn read_body(
    State(admin): State<Admin>,
    request: Request,
    next: Next,
) -> axum::response::Response {
    let shared = &admin.parts.shared;
    let limits = limits(&shared.runtime.load().limits);
    let (head, body) = request.into_parts();
    match intake::read_body(of_axum(body), &limits, &shared.admission.room).await {
        Ok(body) => next.run(Request::from_parts(head, body.into())).await,
        Err(error) => {
            let mut refused = refusal::unreadable(&error);
            if let ReadCallError::TooLong(most) = error {
                // No key of the configuration raises this one.
                refused.message = format!("the body is longer than {most} bytes; send less");
            }
            told(&refused)
        }
    }
}

fn of_axum(body: axum::body::Body) -> Body {
    body.map_err(BodyError::from).boxed_unsync()
}

/// A refusal in the words of this listener.
fn told(refused: &Refusal) -> axum::response::Response {
    let status = StatusCode::from_u16(refused.status).unwrap_or(StatusCode::BAD_REQUEST);
    tracing::debug!(code = refused.code, %status, "an operator's request was refused");
    let mut response = Problem(status, refused.message.clone()).into_response();
    refusal::dress(response.headers_mut(), refused);
    response
}
