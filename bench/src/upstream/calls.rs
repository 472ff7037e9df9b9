//! One call, from its body to its answer: what it is told to do, whether it is let in, which fault
//! strikes, and what is billed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Response};
use http_body_util::BodyExt;
use serde_json::Value;

use super::content::{Asked, Content};
use super::kept::Expanded;
use super::play::{Heard, Line};
use super::request::{self, Dialect, Turn};
use super::script::{Fault, Script, prompt_tokens};
use super::steps::{Plan, Steps};
use super::{Billed, Body, Shared, embeddings, errors, json, lock, responses, strict};

/// What a path asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    Model(Dialect),
    CountTokens,
    Embeddings,
}

impl Door {
    pub(super) fn of(method: &Method, path: &str) -> Option<Self> {
        let door = match path {
            "/v1/chat/completions" => Self::Model(Dialect::Chat),
            "/v1/messages" => Self::Model(Dialect::Messages),
            "/v1/responses" => Self::Model(Dialect::Responses),
            "/v1/messages/count_tokens" => Self::CountTokens,
            "/v1/embeddings" => Self::Embeddings,
            _ => return None,
        };
        (method == Method::POST).then_some(door)
    }

    /// Whose requests and errors these are.
    fn dialect(self) -> Dialect {
        match self {
            Self::Model(dialect) => dialect,
            Self::CountTokens => Dialect::Messages,
            Self::Embeddings => Dialect::Chat,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Embeddings => "openai_embeddings",
            Self::Model(_) | Self::CountTokens => self.dialect().name(),
        }
    }

    fn turns(self, request: &Value) -> Vec<Turn<'_>> {
        match self {
            Self::Embeddings => embeddings::turns(request),
            Self::Model(_) | Self::CountTokens => request::turns(request, self.dialect()),
        }
    }

    fn prompt_tokens(self, request: &Value) -> u64 {
        match self {
            Self::Embeddings => embeddings::tokens(request),
            Self::Model(Dialect::Responses) => {
                prompt_tokens(request, &["input", "instructions", "tools"])
            }
            Self::Model(_) | Self::CountTokens => {
                prompt_tokens(request, &["messages", "system", "tools"])
            }
        }
    }
}

/// A call that arrived.
struct Arrived {
    door: Door,
    /// Which call it is, from 0.
    number: u64,
    /// As it came.
    request: Value,
    /// With all that it refers to, where it refers to anything.
    expanded: Option<Expanded>,
}

impl Arrived {
    /// The call of this body; nothing where it is not JSON.
    fn read(shared: &Shared, door: Door, body: &[u8], number: u64) -> Option<Self> {
        let request: Value = serde_json::from_slice(body).ok()?;
        let expanded = match door {
            Door::Model(Dialect::Responses) => lock(&shared.kept).expand(&request),
            Door::Model(_) | Door::CountTokens | Door::Embeddings => None,
        };
        Some(Self {
            door,
            number,
            request,
            expanded,
        })
    }

    /// The request with all that it refers to.
    fn context(&self) -> &Value {
        let expanded = self.expanded.as_ref();
        expanded.map_or(&self.request, |expanded| &expanded.request)
    }

    fn error(&self, status: u16, message: &str) -> Response<Body> {
        let body = errors::body(self.door.dialect(), status, message, self.number);
        json(status, body)
    }
}

pub(super) async fn call(
    shared: &Arc<Shared>,
    door: Door,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response<Body>, std::io::Error> {
    // Counting is free of charge, so it is no call that a bill would have to show.
    let number = match door {
        Door::CountTokens => shared.calls.load(Ordering::Acquire),
        Door::Model(_) | Door::Embeddings => shared.calls.fetch_add(1, Ordering::AcqRel),
    };
    let Some(arrived) = Arrived::read(shared, door, &body, number) else {
        let text = errors::body(door.dialect(), 400, "not JSON", number);
        return Ok(json(400, text));
    };
    let turns = door.turns(arrived.context());
    let script = lock(&shared.script).clone();
    let mut billed = begin(&script, &arrived, &headers, &body);
    let script = match script.overridden(&turns, &headers) {
        Ok(script) => script,
        Err(error) => {
            let answer = arrived.error(400, &format!("script: {error}"));
            return Ok(refuse(shared, door, billed, answer));
        }
    };
    billed.cached_tokens = script.cached_tokens.min(billed.prompt_tokens);
    if let Err(answer) = judge(shared, &script, &headers, &arrived) {
        return Ok(refuse(shared, door, billed, *answer));
    }
    let fault = fault(&script, number);
    if let Some(fault) = fault.as_ref().filter(|fault| before_any_answer(fault)) {
        return strike(shared, fault, billed, &arrived).await;
    }
    billed.status = 200;
    let dialect = match door {
        Door::Model(dialect) => dialect,
        Door::CountTokens => {
            let counted = format!("{{\"input_tokens\":{}}}", billed.prompt_tokens);
            return Ok(json(200, counted));
        }
        Door::Embeddings => return Ok(embed(shared, &script, &arrived, billed)),
    };
    let mut script = script;
    let line = line(shared, &arrived, &turns);
    if let Some(line) = &line {
        follow(line, &mut script, &mut billed);
    }
    let content = Content::of(&Asked {
        script: &script,
        fault: fault.as_ref(),
        dialect,
        request: arrived.context(),
        turns: &turns,
        billed: &billed,
        number,
        line: line.as_ref(),
    });
    let fault = fault.as_ref();
    Ok(answer(shared, script, fault, &arrived, &content, billed))
}

/// What the play has for this call.
fn line(shared: &Shared, arrived: &Arrived, turns: &[Turn<'_>]) -> Option<Line> {
    let mut stage = lock(&shared.stage);
    if stage.is_empty() {
        return None;
    }
    stage.line(&Heard::of(arrived.context(), turns))
}

/// What a line says of pace, reasoning and usage holds instead of the script.
fn follow(line: &Line, script: &mut Script, billed: &mut Billed) {
    if line.thinking.is_some() {
        script.thinking.clone_from(&line.thinking);
    }
    script.first_token_ms = line.first_ms.unwrap_or(script.first_token_ms);
    script.reasoning_tokens = line
        .usage
        .reasoning_tokens
        .unwrap_or(script.reasoning_tokens);
    billed.prompt_tokens = line.usage.prompt_tokens.unwrap_or(billed.prompt_tokens);
    let cached = line.usage.cached_tokens.unwrap_or(script.cached_tokens);
    billed.cached_tokens = cached.min(billed.prompt_tokens);
}

fn begin(script: &Script, arrived: &Arrived, headers: &HeaderMap, body: &Bytes) -> Billed {
    let header = |name: &str| {
        headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    let request = &arrived.request;
    let mut billed = Billed {
        request: header("x-request-id"),
        attempt: header("x-pareto-attempt"),
        model: request["model"].as_str().unwrap_or_default().to_owned(),
        dialect: arrived.door.name(),
        stream: request["stream"].as_bool().unwrap_or(false),
        prompt_tokens: arrived.door.prompt_tokens(arrived.context()),
        ..Billed::default()
    };
    if script.keep {
        (billed.body, billed.headers) = (body.clone(), headers.clone());
    }
    billed
}

/// Whether the call is let in: with the right key, and, where the script is strict, with a
/// transcript that the vendor would take.
fn judge(
    shared: &Shared,
    script: &Script,
    headers: &HeaderMap,
    arrived: &Arrived,
) -> Result<(), Box<Response<Body>>> {
    if let Some(key) = &script.key
        && !presents(headers, key)
    {
        return Err(Box::new(arrived.error(401, "wrong key")));
    }
    if !script.strict || arrived.door == Door::Embeddings {
        return Ok(());
    }
    let kept = lock(&shared.kept);
    let rules = strict::Rules {
        origin: &script.origin,
        takes_reasoning: script.takes_reasoning,
        counts_only: arrived.door == Door::CountTokens,
        kept: &|id| kept.item(id).is_some(),
    };
    let missing = arrived.expanded.as_ref().and_then(|e| e.missing.clone());
    let missing = missing.map_or(Ok(()), Err);
    let judged =
        missing.and_then(|()| strict::check(arrived.door.dialect(), arrived.context(), &rules));
    judged.map_err(|broken| Box::new(arrived.error(400, &format!("strict: {broken}"))))
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

fn refuse(
    shared: &Shared,
    door: Door,
    mut billed: Billed,
    answer: Response<Body>,
) -> Response<Body> {
    billed.status = answer.status().as_u16();
    shared.note(door, billed);
    answer
}

/// The fault of call `number`.
fn fault(script: &Script, number: u64) -> Option<Fault> {
    match script.fault {
        Some(Fault::Flap(every)) if number.is_multiple_of(every.max(1)) => {
            Some(Fault::Status(503, None))
        }
        _ => script.fault.clone(),
    }
}

fn before_any_answer(fault: &Fault) -> bool {
    matches!(
        fault,
        Fault::Status(..)
            | Fault::Refuse
            | Fault::HangBeforeHeaders
            | Fault::WrongType
            | Fault::Gzip
            | Fault::Empty
    )
}

/// `{}`, compressed.
const GZIP: &[u8] = &[
    0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0xff, 0xab, 0xae, 0x05, 0x00, 0x43, 0xbf,
    0xa6, 0xa3, 0x02, 0x00, 0x00, 0x00,
];

/// The faults that come before any answer.
async fn strike(
    shared: &Shared,
    fault: &Fault,
    mut billed: Billed,
    arrived: &Arrived,
) -> Result<Response<Body>, std::io::Error> {
    let stream = billed.stream;
    billed.status = match fault {
        Fault::Status(status, _) => *status,
        Fault::WrongType | Fault::Gzip | Fault::Empty => 200,
        _ => 0,
    };
    shared.note(arrived.door, billed);
    let mut response = match fault {
        Fault::Status(status, _) => arrived.error(*status, "scripted fault"),
        Fault::WrongType => json(200, "<!doctype html>\n<title>Please sign in</title>\n"),
        Fault::Gzip => json(200, GZIP),
        Fault::Empty => json(200, ""),
        Fault::HangBeforeHeaders => return std::future::pending().await,
        _ => {
            return Err(std::io::Error::other("scripted: closed before any answer"));
        }
    };
    let headers = response.headers_mut();
    match fault {
        Fault::Status(_, Some(seconds)) => {
            headers.insert(RETRY_AFTER, HeaderValue::from(*seconds));
        }
        Fault::WrongType => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
        }
        Fault::Gzip | Fault::Empty => {
            headers.insert(CONTENT_TYPE, kind(stream));
        }
        _ => {}
    }
    if *fault == Fault::Gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}

fn kind(stream: bool) -> HeaderValue {
    HeaderValue::from_static(if stream {
        "text/event-stream"
    } else {
        "application/json"
    })
}

fn embed(
    shared: &Shared,
    script: &Script,
    arrived: &Arrived,
    mut billed: Billed,
) -> Response<Body> {
    let reply = embeddings::reply(&arrived.request, billed.prompt_tokens);
    billed.completed = true;
    billed.cost_pico = billed.prompt_tokens * script.input_pico;
    shared.note(arrived.door, billed);
    json(200, reply)
}

/// The answer of a model, which bills itself as it leaves.
fn answer(
    shared: &Arc<Shared>,
    script: Script,
    fault: Option<&Fault>,
    arrived: &Arrived,
    content: &Content,
    billed: Billed,
) -> Response<Body> {
    let dialect = arrived.door.dialect();
    if dialect == Dialect::Responses && arrived.request["store"] != false {
        let input = &arrived.context()["input"];
        let output = responses::output(content);
        lock(&shared.kept).keep(responses::id(content), input, output);
    }
    let plan = Plan {
        script: &script,
        fault,
        dialect,
        content,
        request: &arrived.request,
        stream: billed.stream,
    };
    let (steps, kind) = (plan.steps(), kind(billed.stream));
    let body = Steps::new(steps, billed, Arc::clone(shared), script).boxed_unsync();
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    if let Ok(id) = HeaderValue::from_str(&format!("up-{}", arrived.number)) {
        response.headers_mut().insert("x-request-id", id);
    }
    response
}

impl Shared {
    /// Records what is no counting of tokens.
    fn note(&self, door: Door, billed: Billed) {
        if door != Door::CountTokens {
            self.record(billed);
        }
    }
}
