//! The HTTP surface of tasks: `/v1/tasks`, `/v1/approvals` and what belongs to them. Who calls has been
//! established by whoever hands a request in; it stands beside the request, as [`Caller`].

mod answer;
mod approvals;
mod audit;
mod events;
mod live;
mod request;
mod responses;
mod schedules;
mod tasks;

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use http::{Method, Request, Response};
use tower::util::BoxCloneSyncService;

use crate::desk::{Desk, Problem};
use crate::event::Caller;
use crate::model::Body;

use request::Question;

pub use responses::{is_task_model, is_task_response};

/// The first segments of the paths that are answered here, behind `/v1/`.
pub const PATHS: [&str; 9] = [
    "tasks",
    "approvals",
    "inputs",
    "standing-approvals",
    "schedules",
    "skills",
    "tools",
    "audit",
    "exceptions",
];

/// Answers requests about tasks. Refusals are answers, so it never fails.
pub type Api = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// The surface over a desk.
pub fn service(desk: Arc<Desk>) -> Api {
    BoxCloneSyncService::new(tower::service_fn(move |request: Request<Body>| {
        let desk = Arc::clone(&desk);
        async move { Ok(whole(desk, request).await) }
    }))
}

async fn whole(desk: Arc<Desk>, request: Request<Body>) -> Response<Body> {
    let in_dialect = request.uri().path().starts_with("/v1/responses");
    let answering = AssertUnwindSafe(take(desk, request)).catch_unwind();
    let answer = answering.await.unwrap_or_else(|_| {
        tracing::error!("a request about tasks ended in a panic");
        Err(Problem::new(
            500,
            "internal",
            "the gateway failed over this request",
        ))
    });
    answer.unwrap_or_else(|problem| {
        if in_dialect {
            responses::refused(problem)
        } else {
            answer::problem(&problem)
        }
    })
}

async fn take(desk: Arc<Desk>, request: Request<Body>) -> Result<Response<Body>, Problem> {
    let caller = request.extensions().get::<Caller>().cloned();
    let caller = caller.ok_or_else(|| Problem::new(401, "no_caller", "nobody is known to call"))?;
    let question = Question::read(request, caller).await?;
    route(&desk, &question).await
}

/// Finds what a path means.
async fn route(desk: &Arc<Desk>, it: &Question) -> Result<Response<Body>, Problem> {
    let segments: Vec<&str> = it.path.iter().map(String::as_str).collect();
    match segments.as_slice() {
        ["v1", "tasks", rest @ ..] => tasks::route(desk, it, rest).await,
        ["v1", "approvals", rest @ ..] => approvals::route(desk, it, rest).await,
        ["v1", "inputs", id] => {
            it.only(&[Method::POST])?;
            approvals::answer(desk, it, id).await
        }
        ["v1", "standing-approvals", rest @ ..] => approvals::standing(desk, it, rest).await,
        ["v1", "schedules", rest @ ..] => schedules::route(desk, it, rest).await,
        ["v1", "skills"] => {
            it.only(&[Method::GET])?;
            Ok(audit::skills(desk, it))
        }
        ["v1", "tools", rest @ ..] => audit::tools(desk, it, rest).await,
        ["v1", "audit"] => {
            it.only(&[Method::GET])?;
            audit::lines(desk, it).await
        }
        ["v1", "audit", "verify"] => {
            it.only(&[Method::GET])?;
            audit::verify(desk, it).await
        }
        ["v1", "exceptions"] => {
            it.only(&[Method::GET])?;
            audit::exceptions(desk, it).await
        }
        ["v1", "responses", rest @ ..] => responses::route(desk, it, rest).await,
        _ => Err(it.no_such_path()),
    }
}
