//! A call to a model, as an ordinary call into the gateway.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use tower::Service;
use tower::util::BoxCloneSyncService;
use wire::call::Kind;
use wire::dialect::{Change, OPENAI_CHAT};
use wire::reply::Stop;
use wire::{Losses, RequestId};

use crate::digest::Digest;
use crate::event::{Event, ToolUse, cut_at};
use crate::money::Usd;
use crate::next::{Ask, NO_MONEY, TOO_DEAR};
use crate::state::State;

/// Why a body broke off.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;
/// Bodies of requests and answers.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;
/// The gateway, as a caller on the network would see it.
pub type Models = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// The longest answer that is read.
const MOST_ANSWER: usize = 16 << 20;

/// A call as it is sent, and the digest of what it says.
#[derive(Debug)]
pub struct Sent {
    pub request: Request<Body>,
    pub prompt: Digest,
}

/// Writes `call` for the gateway. `id` is the one that it will have in the ledger; who pays and acts
/// travels beside it, where no caller on the network can put anything.
pub fn write(state: &State, ask: &Ask, call: &wire::Call, id: RequestId) -> Sent {
    let change = Change {
        model: &ask.asked,
        ..Change::default()
    };
    let body = OPENAI_CHAT
        .encode(call, &change, &mut Losses::default())
        .to_string();
    let prompt = Digest::of(body.as_bytes());
    let body = Full::new(Bytes::from(body)).map_err(|never: Infallible| match never {});
    let mut request = Request::new(body.boxed_unsync());
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = http::Uri::from_static(OPENAI_CHAT.path());
    let task = state.id.to_string();
    let most = ask.reserve.map(|most| most.to_string());
    let workflow = state.brief.labels.get("workflow").cloned();
    let user = state
        .brief
        .on_behalf_of
        .clone()
        .unwrap_or_else(|| state.caller.user.clone());
    let regions = state.brief.routing.residency.join(",");
    let headers = [
        ("content-type", Some("application/json".to_owned())),
        ("x-pareto-task", Some(task)),
        ("x-pareto-step", Some(ask.step.to_owned())),
        ("x-pareto-max-cost", most),
        ("x-pareto-workflow", workflow),
        ("x-pareto-user", Some(user)),
        ("x-pareto-label", state.brief.routing.max_label.clone()),
        ("x-pareto-residency", Some(regions)),
    ];
    for (name, value) in headers {
        let value = value.filter(|value| !value.is_empty());
        if let Some(Ok(value)) = value.map(|value| HeaderValue::from_str(&value)) {
            request
                .headers_mut()
                .insert(HeaderName::from_static(name), value);
        }
    }
    request.extensions_mut().insert(id);
    request.extensions_mut().insert(state.caller.clone());
    Sent { request, prompt }
}

/// What came of a call, before it has its place in the log.
#[derive(Debug)]
pub enum Answer {
    Completed {
        text: String,
        uses: Vec<ToolUse>,
        cut: bool,
        model: String,
        tier: String,
        route: String,
        cost: Usd,
        tokens: (u64, u64),
    },
    Failed {
        class: String,
        why: String,
        /// Milliseconds until it may be tried again; `None`: never.
        retry_in_ms: Option<i64>,
        cost: Usd,
    },
}

impl Answer {
    /// The event of it.
    pub fn event(self, call: u64, now_ms: i64) -> Event {
        match self {
            Self::Completed {
                text,
                uses,
                cut,
                model,
                tier,
                route,
                cost,
                tokens,
            } => Event::ModelCompleted {
                call,
                text,
                uses,
                cut,
                model,
                tier,
                route,
                cost,
                input_tokens: tokens.0,
                output_tokens: tokens.1,
            },
            Self::Failed {
                class,
                why,
                retry_in_ms,
                cost,
            } => Event::ModelFailed {
                call,
                class,
                why,
                cost,
                retry_at_ms: retry_in_ms.map(|wait| now_ms + wait),
            },
        }
    }
}

/// Sends a call and reads its answer whole.
pub fn send(
    mut models: Models,
    request: Request<Body>,
    failures: u32,
) -> BoxFuture<'static, Answer> {
    // The gateway takes every call and sheds by itself, so it is always ready.
    let answering = models.call(request);
    Box::pin(async move {
        match answering.await {
            Ok(response) => read(response, failures).await,
            Err(never) => match never {},
        }
    })
}

async fn read(response: Response<Body>, failures: u32) -> Answer {
    let (head, body) = response.into_parts();
    let cost = word(&head.headers, "x-pareto-cost-usd");
    let cost = Usd::parse(&cost).unwrap_or(Usd::ZERO);
    let body = match whole(body).await {
        Ok(body) => body,
        Err(why) => return failed("broken", why, Some(backoff(failures)), cost),
    };
    if !head.status.is_success() {
        return refused(head.status.as_u16(), &head.headers, &body, failures, cost);
    }
    let reply = match OPENAI_CHAT.decode_reply(&body, "gateway") {
        Ok(reply) => reply,
        Err(error) => return failed("broken", error.to_string(), Some(backoff(failures)), cost),
    };
    let mut text = String::new();
    let mut uses: Vec<ToolUse> = Vec::new();
    for part in reply.parts {
        match part.kind {
            Kind::Text(it) => text.push_str(&it.text),
            Kind::Refusal(it) => text.push_str(&it),
            Kind::ToolCall(it) => {
                let taken = it.id.is_empty() || uses.iter().any(|other| other.id == it.id);
                let id = if taken {
                    format!("call_{}", uses.len() + 1)
                } else {
                    it.id
                };
                uses.push(ToolUse {
                    id,
                    name: it.name,
                    arguments: it.arguments,
                });
            }
            _ => {}
        }
    }
    let usage = reply.usage.unwrap_or_default();
    Answer::Completed {
        text,
        uses,
        cut: matches!(reply.stop, Some(Stop::Length | Stop::Window)),
        model: word(&head.headers, "x-pareto-model"),
        tier: word(&head.headers, "x-pareto-tier"),
        route: word(&head.headers, "x-pareto-route"),
        cost,
        tokens: (usage.prompt(), usage.answer()),
    }
}

async fn whole(mut body: Body) -> Result<Vec<u8>, String> {
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("the answer broke off: {error}"))?;
        if let Some(data) = frame.data_ref() {
            read.extend_from_slice(data);
        }
        if read.len() > MOST_ANSWER {
            return Err(format!("the answer is longer than {MOST_ANSWER} bytes"));
        }
    }
    Ok(read)
}

fn word(headers: &HeaderMap, name: &str) -> String {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}

fn failed(class: &str, why: String, retry_in_ms: Option<i64>, cost: Usd) -> Answer {
    Answer::Failed {
        class: class.to_owned(),
        why,
        retry_in_ms,
        cost,
    }
}

/// Half a second, doubled for each failure before, at most half a minute.
fn backoff(failures: u32) -> i64 {
    500_i64 << failures.min(6)
}

/// What a refusal of the gateway means for a task.
fn refused(status: u16, headers: &HeaderMap, body: &[u8], failures: u32, cost: Usd) -> Answer {
    let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let told = |name: &str| {
        let text = value
            .pointer(&format!("/error/{name}"))
            .and_then(serde_json::Value::as_str);
        cut_at(text.unwrap_or_default(), 500).to_owned()
    };
    let (code, message) = (told("code"), told("message"));
    let why = if message.is_empty() {
        format!("status {status}")
    } else {
        format!("{status} {message}")
    };
    let after_s: Option<i64> = word(headers, "retry-after").parse().ok();
    let later = after_s.map_or_else(
        || backoff(failures),
        |wait| (wait * 1_000).clamp(100, 300_000),
    );
    match (status, code.as_str()) {
        (_, TOO_DEAR) => failed(TOO_DEAR, why, Some(0), cost),
        (402, _) | (429, "budget_exceeded") => failed(NO_MONEY, why, None, cost),
        (408 | 409 | 425 | 429 | 500..=599, _) => failed("upstream", why, Some(later), cost),
        (401 | 403, _) => failed("auth", why, None, cost),
        _ => failed("refused", why, None, cost),
    }
}
