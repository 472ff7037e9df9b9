//! Tasks behind the gateway: which paths are theirs, who asks, and the responses that tasks make.

pub(crate) mod assemble;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use meter::Subject;
use tower::Service;
use wire::Refusal;

use crate::gateway::{Body, Gateway, Shared};
use crate::intake::{self, Inbound};
use crate::refusal;
use crate::trace::Trace;

pub(crate) use assemble::{is_task_model, is_task_response};

/// Headers that say what is asked for besides the body.
const TAKEN: [&str; 6] = [
    "accept",
    "content-type",
    "idempotency-key",
    "if-match",
    "last-event-id",
    "x-pareto-tenant",
];

/// Who asks something about tasks: stands beside a request, where no caller on the network can put it.
#[derive(Debug, Clone)]
pub(crate) struct Asking {
    pub(crate) subject: Subject,
    pub(crate) is_operator: bool,
}

/// Whether a path is one of tasks.
pub(crate) fn is_at(path: &str) -> bool {
    let rest = path.strip_prefix("/v1/");
    let first = rest.map(|rest| rest.split('/').next().unwrap_or_default());
    first.is_some_and(|first| assemble::PATHS.contains(&first))
}

/// Whether a path is that of a response that a task makes.
pub(crate) fn is_response_at(path: &str) -> bool {
    let id = path.strip_prefix("/v1/responses/");
    id.is_some_and(is_task_response)
}

/// Answers a caller's request about tasks.
pub(crate) async fn answer(
    shared: &Arc<Shared>,
    request: Request<Body>,
    path: &str,
    trace: &mut Trace,
) -> Result<Response<Body>, Refusal> {
    let api = api(shared, path)?;
    let runtime = shared.runtime.load_full();
    // Streams of events go on for as long as their tasks do: they are not calls that a drain waits for.
    let subject = shared.caller(&request, trace)?;
    let _flight = shared.admit(&subject, request.headers()).await?;
    let (head, body) = request.into_parts();
    let body = intake::read_body(body, &runtime.limits, &shared.admission.room).await;
    let body = body.map_err(|error| refusal::unreadable(&error))?;
    let asked = Asked {
        method: head.method,
        uri: head.uri,
        headers: &head.headers,
        body,
    };
    let asking = Asking {
        subject,
        is_operator: false,
    };
    Ok(ask(api, asked, asking).await)
}

/// Begins a response that a task makes.
pub(crate) async fn respond(
    shared: &Arc<Shared>,
    subject: &Subject,
    inbound: Box<Inbound>,
) -> Result<Response<Body>, Refusal> {
    let path = "/v1/responses";
    let api = api(shared, path)?;
    let asked = Asked {
        method: Method::POST,
        uri: Uri::from_static(path),
        headers: &inbound.headers,
        body: inbound.body,
    };
    let asking = Asking {
        subject: subject.clone(),
        is_operator: false,
    };
    Ok(ask(api, asked, asking).await)
}

fn api(shared: &Shared, path: &str) -> Result<Gateway, Refusal> {
    let api = shared.api.get().cloned();
    api.ok_or_else(|| refusal::no_such_path(path))
}

/// What is asked.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: Bytes,
}

/// Asks. Keys stay here: whoever answers knows who asks from what stands beside the request.
pub(crate) async fn ask(mut api: Gateway, asked: Asked<'_>, asking: Asking) -> Response<Body> {
    let body = Full::new(asked.body).map_err(|never| match never {});
    let mut request = Request::new(body.boxed_unsync());
    *request.method_mut() = asked.method;
    *request.uri_mut() = asked.uri;
    for name in TAKEN {
        if let Some(value) = asked.headers.get(name) {
            let value: HeaderValue = value.clone();
            request.headers_mut().insert(name, value);
        }
    }
    request.extensions_mut().insert(asking);
    match api.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}
