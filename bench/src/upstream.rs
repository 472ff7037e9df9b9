//! The scripted model endpoint: OpenAI chat and Anthropic messages, streamed or not, with a pace, a
//! size, faults on request, and a bill of its own that is the oracle of every test about money.

mod anthropic;
mod openai;
mod script;
mod steps;

use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use script::{Fault, Script};
use steps::Steps;

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// One call as the endpoint saw it, and what it bills for it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Billed {
    /// The gateway's `x-request-id` and `x-pareto-attempt`.
    pub request: String,
    pub attempt: String,
    pub model: String,
    pub dialect: &'static str,
    pub stream: bool,
    /// The endpoint's own status.
    pub status: u16,
    pub prompt_tokens: u64,
    pub cached_tokens: u64,
    /// Answer tokens made, reasoning included, up to the end or until the caller left.
    pub output_tokens: u64,
    /// The answer was made to its end.
    pub completed: bool,
    /// At the script's prices.
    pub cost_pico: u64,
    /// The body as it arrived, and the headers, where the script keeps them.
    #[serde(skip)]
    pub body: Bytes,
    #[serde(skip)]
    pub headers: HeaderMap,
    /// What was sent as the answer, where the script keeps it.
    #[serde(skip)]
    pub answer: Vec<u8>,
}

/// A running endpoint; it stops when dropped.
#[derive(Debug)]
pub struct Upstream {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Shared {
    script: Mutex<Script>,
    calls: AtomicU64,
    bill: Mutex<Vec<Billed>>,
    file: Option<Mutex<std::fs::File>>,
}

impl Upstream {
    /// Starts an endpoint on a free loopback port.
    pub async fn start(script: Script) -> anyhow::Result<Self> {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), script).await
    }

    /// Starts an endpoint at `address`.
    pub async fn start_at(address: SocketAddr, script: Script) -> anyhow::Result<Self> {
        let file = script.bill_file.as_ref().map(|path| {
            let open = std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(path);
            open.with_context(|| format!("opening bill {}", path.display()))
        });
        let shared = Arc::new(Shared {
            script: Mutex::new(script),
            calls: AtomicU64::new(0),
            bill: Mutex::new(Vec::new()),
            file: file.transpose()?.map(Mutex::new),
        });
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("at {address}"))?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        tasks.spawn(accept(
            listener,
            Arc::clone(&shared),
            tasks.clone(),
            stop.clone(),
        ));
        Ok(Self {
            address,
            shared,
            stop,
        })
    }

    /// The base address to configure as an endpoint.
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Everything billed so far, in the order in which the calls ended.
    pub fn bill(&self) -> Vec<Billed> {
        lock(&self.shared.bill).clone()
    }

    /// How many calls have arrived, ended or not.
    pub fn calls(&self) -> u64 {
        self.shared.calls.load(Ordering::Acquire)
    }

    /// Another script for the calls to come.
    pub fn set_script(&self, script: Script) {
        *lock(&self.shared.script) = script;
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    while let Some(Ok((stream, _))) = stop.run_until_cancelled(listener.accept()).await {
        // Without this, small events wait for acknowledgements.
        let _set = stream.set_nodelay(true);
        let (shared, stop) = (Arc::clone(&shared), stop.clone());
        tasks.spawn(connection(stream, shared, stop));
    }
}

/// Serves one connection.
fn connection(
    stream: TcpStream,
    shared: Arc<Shared>,
    stop: CancellationToken,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| -> Answer {
        answer(Arc::clone(&shared), request)
    });
    let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    Box::pin(async move {
        // A caller that leaves, or a scripted fault, ends a connection early on purpose.
        let _ended = stop.run_until_cancelled(serving).await;
    })
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, std::io::Error>> + Send>>;

fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Answer {
    Box::pin(async move {
        let path = request.uri().path().to_owned();
        let method = request.method().clone();
        let (head, body) = request.into_parts();
        let body = body
            .collect()
            .await
            .map_err(std::io::Error::other)?
            .to_bytes();
        match (method, path.as_str()) {
            (Method::POST, "/v1/chat/completions") => {
                call(&shared, head.headers, body, "openai_chat").await
            }
            (Method::POST, "/v1/messages") => {
                call(&shared, head.headers, body, "anthropic_messages").await
            }
            (Method::GET, "/v1/models") => Ok(json(
                200,
                "{\"object\":\"list\",\"data\":[{\"id\":\"scripted\",\"object\":\"model\"}]}",
            )),
            _ => Ok(json(
                404,
                "{\"error\":{\"message\":\"nothing here\",\"type\":\"not_found_error\"}}",
            )),
        }
    })
}

async fn call(
    shared: &Arc<Shared>,
    headers: HeaderMap,
    body: Bytes,
    dialect: &'static str,
) -> Result<Response<Body>, std::io::Error> {
    let number = shared.calls.fetch_add(1, Ordering::AcqRel);
    let Ok(request) = serde_json::from_slice::<Value>(&body) else {
        return Ok(json(
            400,
            "{\"error\":{\"message\":\"not JSON\",\"type\":\"invalid_request_error\"}}",
        ));
    };
    let script = lock(&shared.script).clone();
    let script = script
        .overridden(&request, &headers)
        .map_err(std::io::Error::other)?;
    let mut billed = begin(&script, &request, &headers, &body, dialect);
    if let Some(key) = &script.key
        && !presents(&headers, key)
    {
        billed.status = 401;
        shared.record(billed);
        return Ok(json(
            401,
            "{\"error\":{\"message\":\"wrong key\",\"type\":\"authentication_error\"}}",
        ));
    }
    let flapping =
        matches!(script.fault, Some(Fault::Flap(every)) if number.is_multiple_of(every.max(1)));
    let fault = if flapping {
        Some(Fault::Status(503, None))
    } else {
        script.fault.clone()
    };
    if let Some(fault @ (Fault::Status(..) | Fault::Refuse | Fault::HangBeforeHeaders)) = &fault {
        return strike(shared, fault, billed).await;
    }
    billed.status = 200;
    let steps = steps::plan(&script, fault.as_ref(), &request, dialect, &mut billed);
    let kind = if billed.stream {
        "text/event-stream"
    } else {
        "application/json"
    };
    let id = format!("up-{number}");
    let body = Steps::new(steps, billed, Arc::clone(shared), script).boxed_unsync();
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("x-request-id", id);
    }
    Ok(response)
}

/// The faults that come before any answer.
async fn strike(
    shared: &Shared,
    fault: &Fault,
    mut billed: Billed,
) -> Result<Response<Body>, std::io::Error> {
    let Fault::Status(status, retry_after) = fault else {
        shared.record(billed);
        if *fault == Fault::HangBeforeHeaders {
            return std::future::pending().await;
        }
        return Err(std::io::Error::other("scripted: closed before any answer"));
    };
    billed.status = *status;
    shared.record(billed);
    let text = "{\"error\":{\"message\":\"scripted fault\",\"type\":\"server_error\"}}";
    let mut response = json(*status, text);
    if let Some(seconds) = retry_after {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(*seconds));
    }
    Ok(response)
}

fn begin(
    script: &Script,
    request: &Value,
    headers: &HeaderMap,
    body: &Bytes,
    dialect: &'static str,
) -> Billed {
    let header = |name: &str| {
        headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    let mut billed = Billed {
        request: header("x-request-id"),
        attempt: header("x-pareto-attempt"),
        model: request["model"].as_str().unwrap_or_default().to_owned(),
        dialect,
        stream: request["stream"].as_bool().unwrap_or(false),
        prompt_tokens: script::prompt_tokens(request),
        ..Billed::default()
    };
    billed.cached_tokens = script.cached_tokens.min(billed.prompt_tokens);
    if script.keep {
        (billed.body, billed.headers) = (body.clone(), headers.clone());
    }
    billed
}

impl Shared {
    fn record(&self, billed: Billed) {
        if let Some(file) = &self.file
            && let Ok(mut line) = serde_json::to_vec(&billed)
        {
            line.push(b'\n');
            // A bill that can not be written shows as a missing line, which fails the test.
            let _written = lock(file).write_all(&line);
        }
        lock(&self.bill).push(billed);
    }
}

fn presents(headers: &HeaderMap, key: &str) -> bool {
    let bearer = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    bearer == Some(key)
        || headers
            .get("x-api-key")
            .and_then(|value| value.to_str().ok())
            == Some(key)
}

fn json(status: u16, text: &'static str) -> Response<Body> {
    let body = Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
