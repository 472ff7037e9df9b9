//! The scripted model endpoint: OpenAI chat completions and responses and Anthropic messages, streamed
//! or not, with a pace, a size, faults on request, a judge of transcripts, and a bill of its own that
//! is the oracle of every test about money.

mod calls;
pub mod play;
mod script;
mod steps;

// What an answer says, and how each dialect writes it.
mod anthropic;
mod content;
mod embeddings;
mod errors;
mod fit;
mod openai;
mod responses;

// What came, and what is remembered of it.
mod kept;
mod request;
mod seal;
mod see;
mod strict;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use calls::Door;
use kept::Kept;
use play::Stage;
pub use play::{Play, Scene, Usage};
pub use script::{Fault, Script, ScriptedCall};
pub use strict::judge;

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// One call as the endpoint saw it, and what it bills for it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Billed {
    /// The gateway's `x-request-id` and `x-pareto-attempt`.
    pub request: String,
    pub attempt: String,
    pub model: String,
    /// `openai_chat`, `anthropic_messages`, `openai_responses`; or `openai_embeddings`.
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
    kept: Mutex<Kept>,
    stage: Mutex<Stage>,
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
        let play = script.play.as_deref().map(Play::read).transpose()?;
        let shared = Arc::new(Shared {
            stage: Mutex::new(Stage::of(play.unwrap_or_default())),
            script: Mutex::new(script),
            calls: AtomicU64::new(0),
            bill: Mutex::new(Vec::new()),
            kept: Mutex::default(),
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

    /// How many responses it keeps.
    pub fn kept(&self) -> usize {
        lock(&self.shared.kept).len()
    }

    /// Another script for the calls to come.
    pub fn set_script(&self, script: Script) {
        *lock(&self.shared.script) = script;
    }

    /// Another play for the calls to come, from its beginning; the empty one for none.
    pub fn perform(&self, play: Play) {
        *lock(&self.shared.stage) = Stage::of(play);
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
        let (head, body) = request.into_parts();
        let body = body
            .collect()
            .await
            .map_err(std::io::Error::other)?
            .to_bytes();
        if let Some(door) = Door::of(&head.method, head.uri.path()) {
            return calls::call(&shared, door, head.headers, body).await;
        }
        if let (&Method::DELETE, Some(id)) =
            (&head.method, head.uri.path().strip_prefix("/v1/responses/"))
        {
            let deleted = format!("{{\"id\":\"{id}\",\"object\":\"response\",\"deleted\":true}}");
            if lock(&shared.kept).delete(id) {
                return Ok(json(200, deleted));
            }
        }
        if head.method == Method::GET && head.uri.path() == "/v1/models" {
            return Ok(json(200, models(&head.headers)));
        }
        Ok(json(
            404,
            "{\"error\":{\"message\":\"nothing here\",\"type\":\"not_found_error\"}}",
        ))
    })
}

/// The listing in the words of the vendor whose header is there.
fn models(headers: &HeaderMap) -> &'static str {
    if headers.contains_key("anthropic-version") {
        return "{\"data\":[{\"type\":\"model\",\"id\":\"scripted\",\"display_name\":\"Scripted\",\
                \"created_at\":\"2026-01-01T00:00:00Z\"}],\"has_more\":false,\
                \"first_id\":\"scripted\",\"last_id\":\"scripted\"}";
    }
    "{\"object\":\"list\",\"data\":[{\"id\":\"scripted\",\"object\":\"model\",\"created\":1795000000,\
     \"owned_by\":\"scripted\"}]}"
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

fn json(status: u16, text: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(text.into()).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
