//! An answer as a list of steps, and the body that walks it. What was given out is on the bill,
//! whether the walk came to its end or the caller left.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use serde_json::Value;
use tokio::time::{Sleep, sleep};

use super::script::{Fault, Script, last_user_text};
use super::{Billed, Shared, anthropic, openai};

/// One step of an answer.
#[derive(Debug)]
pub(super) enum Step {
    Wait(Duration),
    /// Bytes, and how many answer tokens are in them.
    Send(Bytes, u64),
    /// The connection breaks.
    Cut,
    /// Nothing more ever comes.
    Hang,
}

/// What an answer consists of, whatever the dialect.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the script, none a state"
)]
pub(super) struct Content {
    /// Visible text in pieces, one an event, each with its number of tokens.
    pub(super) pieces: Vec<(String, u64)>,
    /// A call of this tool instead of text: name and arguments as JSON.
    pub(super) tool: Option<(String, String)>,
    /// The caller's cap cut the answer.
    pub(super) cut_by_cap: bool,
    pub(super) prompt_tokens: u64,
    pub(super) cached_tokens: u64,
    pub(super) reasoning_tokens: u64,
    pub(super) output_tokens: u64,
    pub(super) model: String,
    pub(super) reports_usage: bool,
    pub(super) hostile_usage: bool,
    pub(super) has_end: bool,
    pub(super) wants_usage: bool,
}

impl Content {
    /// The visible text as a whole.
    pub(super) fn text(&self) -> String {
        self.pieces.iter().map(|(text, _)| text.as_str()).collect()
    }
}

const WORDS: [&str; 16] = [
    "light", "river", "of", "the", "stone", "Grüße", "sum", "and", "🙂", "proof", "is", "a",
    "table", "seven", "naïve", "end",
];

/// The steps of the answer to `request`.
pub(super) fn plan(
    script: &Script,
    fault: Option<&Fault>,
    request: &Value,
    dialect: &'static str,
    billed: &mut Billed,
) -> Vec<Step> {
    let content = content(script, fault, request, billed);
    let events = match (dialect, billed.stream) {
        ("openai_chat", true) => openai::events(&content),
        ("openai_chat", false) => {
            vec![(Bytes::from(openai::whole(&content)), content.output_tokens)]
        }
        (_, true) => anthropic::events(&content),
        (_, false) => vec![(
            Bytes::from(anthropic::whole(&content)),
            content.output_tokens,
        )],
    };
    let gap = Duration::from_micros(script.token_gap_us);
    let mut steps = Vec::with_capacity(events.len() * 2 + 2);
    let first = Duration::from_millis(script.first_token_ms);
    let reasoning = gap * u32::try_from(content.reasoning_tokens).unwrap_or(0);
    steps.push(Step::Wait(first + reasoning));
    let mut sent_content = 0;
    for (bytes, tokens) in events {
        if tokens > 0 {
            if let Some(step) = strike(fault, sent_content, dialect) {
                steps.extend(step);
                return steps;
            }
            sent_content += 1;
        }
        if !gap.is_zero() && tokens > 0 {
            steps.push(Step::Wait(gap * u32::try_from(tokens).unwrap_or(0)));
        }
        match fault {
            Some(Fault::Split(size)) => split(&bytes, *size, tokens, &mut steps),
            _ => steps.push(Step::Send(bytes, tokens)),
        }
    }
    if let Some(Fault::ExtraAfterEnd) = fault {
        steps.push(Step::Send(
            Bytes::from_static(b"data: {\"extra\":true}\n\n"),
            0,
        ));
    }
    steps
}

/// The fault that strikes after `sent` content events, as the steps that end the answer. The turn
/// before a cut lets what was sent leave first.
fn strike(fault: Option<&Fault>, sent: usize, dialect: &str) -> Option<Vec<Step>> {
    match fault? {
        Fault::CutAfter(after) if *after == sent => {
            Some(vec![Step::Wait(Duration::ZERO), Step::Cut])
        }
        Fault::HangAfter(after) if *after == sent => Some(vec![Step::Hang]),
        Fault::ErrorAfter(after) if *after == sent => {
            let event = if dialect == "openai_chat" {
                "data: {\"error\":{\"message\":\"scripted\",\"type\":\"server_error\"}}\n\n"
            } else {
                "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"scripted\"}}\n\n"
            };
            Some(vec![Step::Send(Bytes::from(event), 0)])
        }
        Fault::MalformedAfter(after) if *after == sent => Some(vec![
            Step::Send(Bytes::from_static(b"data: {\"choices\":[{broken\n\n"), 0),
            Step::Wait(Duration::ZERO),
            Step::Cut,
        ]),
        _ => None,
    }
}

fn split(bytes: &Bytes, size: usize, tokens: u64, steps: &mut Vec<Step>) {
    let mut rest = bytes.clone();
    let mut tokens = tokens;
    while !rest.is_empty() {
        let piece = rest.split_to(size.min(rest.len()));
        steps.push(Step::Send(piece, std::mem::take(&mut tokens)));
        // A turn of the reactor, so that the pieces leave one by one.
        steps.push(Step::Wait(Duration::ZERO));
    }
}

fn content(script: &Script, fault: Option<&Fault>, request: &Value, billed: &Billed) -> Content {
    let cap = ["max_completion_tokens", "max_tokens"]
        .iter()
        .find_map(|name| request[*name].as_u64());
    let cap = cap.unwrap_or(u64::MAX);
    let tool = tool_call(request);
    let words: Vec<String> = if script.echo {
        last_user_text(request)
            .split_inclusive(' ')
            .map(str::to_owned)
            .collect()
    } else if let Some(result) = tool_result(request) {
        vec!["The ".into(), "tool ".into(), "said: ".into(), result]
    } else {
        let seed = billed.prompt_tokens;
        (0..script.output_tokens)
            .map(|n| usize::try_from((seed + n * n + n) % 16).unwrap_or(0))
            .map(|place| format!("{} ", WORDS.get(place).copied().unwrap_or("end")))
            .collect()
    };
    let reasoning = script.reasoning_tokens.min(cap);
    let wanted = if tool.is_some() {
        8
    } else {
        u64::try_from(words.len()).unwrap_or(0)
    };
    let visible = wanted.min(cap.saturating_sub(reasoning));
    let kept = words
        .get(..usize::try_from(visible).unwrap_or(0).min(words.len()))
        .unwrap_or(&words);
    let per_event = usize::try_from(script.tokens_per_event.max(1)).unwrap_or(1);
    let pieces = kept
        .chunks(per_event)
        .map(|chunk| (chunk.concat(), u64::try_from(chunk.len()).unwrap_or(0)));
    Content {
        pieces: if tool.is_some() {
            Vec::new()
        } else {
            pieces.collect()
        },
        tool,
        cut_by_cap: visible < wanted,
        prompt_tokens: billed.prompt_tokens,
        cached_tokens: billed.cached_tokens,
        reasoning_tokens: reasoning,
        output_tokens: visible + reasoning,
        model: billed.model.clone(),
        reports_usage: fault != Some(&Fault::NoUsage),
        hostile_usage: fault == Some(&Fault::HostileUsage),
        has_end: fault != Some(&Fault::NoEnd),
        wants_usage: request["stream_options"]["include_usage"]
            .as_bool()
            .unwrap_or(false),
    }
}

/// A call of the first tool offered, when the last user text asks about the weather.
fn tool_call(request: &Value) -> Option<(String, String)> {
    let tool = request["tools"].as_array()?.first()?;
    let last = request["messages"].as_array()?.last()?;
    let asks = last["role"] == "user" && last_user_text(request).to_lowercase().contains("weather");
    let has_result = tool_result(request).is_some();
    if !asks || has_result {
        return None;
    }
    let function = if tool["function"].is_object() {
        &tool["function"]
    } else {
        tool
    };
    let schema = [&function["parameters"], &function["input_schema"]]
        .into_iter()
        .find(|s| s.is_object())?;
    let mut arguments = serde_json::Map::new();
    for name in schema["required"]
        .as_array()?
        .iter()
        .filter_map(Value::as_str)
    {
        let first = schema["properties"][name]["enum"].get(0).cloned();
        arguments.insert(
            name.to_owned(),
            first.unwrap_or_else(|| Value::from("Paris")),
        );
    }
    Some((
        function["name"].as_str()?.to_owned(),
        Value::Object(arguments).to_string(),
    ))
}

/// The text of a tool result in the last message.
fn tool_result(request: &Value) -> Option<String> {
    let last = request["messages"].as_array()?.last()?;
    if last["role"] == "tool" {
        return last["content"].as_str().map(str::to_owned);
    }
    let block = last["content"]
        .as_array()?
        .iter()
        .find(|block| block["type"] == "tool_result")?;
    let content = &block["content"];
    content
        .as_str()
        .or_else(|| content[0]["text"].as_str())
        .map(str::to_owned)
}

/// The body of an answer.
#[derive(Debug)]
pub(super) struct Steps {
    queue: VecDeque<Step>,
    waiting: Option<Pin<Box<Sleep>>>,
    billed: Option<Billed>,
    shared: Arc<Shared>,
    script: Script,
}

impl Steps {
    pub(super) fn new(
        steps: Vec<Step>,
        billed: Billed,
        shared: Arc<Shared>,
        script: Script,
    ) -> Self {
        Self {
            queue: steps.into(),
            waiting: None,
            billed: Some(billed),
            shared,
            script,
        }
    }

    fn settle(&mut self, completed: bool) {
        let Some(mut billed) = self.billed.take() else {
            return;
        };
        billed.completed = completed;
        // Nothing made, nothing billed; reasoning comes before the first visible token.
        if billed.output_tokens > 0 && billed.stream {
            billed.output_tokens += self.script.reasoning_tokens;
        }
        let fresh = billed.prompt_tokens - billed.cached_tokens;
        let billable = u64::from(completed || billed.output_tokens > 0);
        billed.cost_pico = billable
            * (fresh * self.script.input_pico
                + billed.cached_tokens * self.script.cached_pico
                + billed.output_tokens * self.script.output_pico);
        self.shared.record(billed);
    }
}

impl Body for Steps {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let this = self.get_mut();
        loop {
            if let Some(sleep) = &mut this.waiting {
                ready!(sleep.as_mut().poll(context));
                this.waiting = None;
            }
            match this.queue.pop_front() {
                Some(Step::Wait(time)) if time.is_zero() => {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Some(Step::Wait(time)) => this.waiting = Some(Box::pin(sleep(time))),
                Some(Step::Send(bytes, tokens)) => {
                    if let Some(billed) = &mut this.billed {
                        billed.output_tokens += tokens;
                        if this.script.keep {
                            billed.answer.extend_from_slice(&bytes);
                        }
                    }
                    // Billed before the last bytes leave: whoever has the answer finds it billed.
                    if this.queue.is_empty() {
                        this.settle(true);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Some(Step::Cut) => {
                    this.settle(false);
                    return Poll::Ready(Some(Err(std::io::Error::other("scripted: cut"))));
                }
                Some(Step::Hang) => {
                    this.queue.push_front(Step::Hang);
                    return Poll::Pending;
                }
                None => return Poll::Ready(None),
            }
        }
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.settle(false);
    }
}
