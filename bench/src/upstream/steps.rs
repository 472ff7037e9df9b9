//! An answer as a list of steps, and the body that walks it. What was given out is on the bill,
//! whether the walk came to its end or the caller left.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use serde_json::{Value, json};
use tokio::time::{Sleep, sleep};

use super::content::Content;
use super::request::Dialect;
use super::script::{Fault, Script};
use super::{Billed, Shared, anthropic, openai, responses};

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

/// The events of an answer, each with the answer tokens in it.
#[derive(Debug)]
pub(super) struct Events {
    pub(super) list: Vec<(Bytes, u64)>,
    /// Where the events begin that end the answer.
    pub(super) end: usize,
}

/// A text in two parts of about the same length.
pub(super) fn halves(text: &str) -> (&str, &str) {
    let middle = (0..=text.len() / 2)
        .rev()
        .find(|at| text.is_char_boundary(*at));
    text.split_at(middle.unwrap_or(0))
}

/// What a plan is made from.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) script: &'a Script,
    pub(super) fault: Option<&'a Fault>,
    pub(super) dialect: Dialect,
    pub(super) content: &'a Content,
    /// As it came, for an answer that repeats parts of it.
    pub(super) request: &'a Value,
    pub(super) stream: bool,
}

impl Plan<'_> {
    fn events(&self) -> Events {
        let (content, request) = (self.content, self.request);
        if self.stream {
            return match self.dialect {
                Dialect::Chat => openai::events(content),
                Dialect::Messages => anthropic::events(content),
                Dialect::Responses => responses::events(content, request),
            };
        }
        let whole = match self.dialect {
            Dialect::Chat => openai::whole(content),
            Dialect::Messages => anthropic::whole(content),
            Dialect::Responses => responses::whole(content, request),
        };
        Events {
            list: vec![(Bytes::from(whole), content.output_tokens)],
            end: 1,
        }
    }

    /// The steps of the answer.
    pub(super) fn steps(&self) -> Vec<Step> {
        let Events { list, end } = self.events();
        let gap = Duration::from_micros(self.script.token_gap_us);
        let mut steps = Vec::with_capacity(list.len() * 2 + 2);
        let first = Duration::from_millis(self.script.first_token_ms);
        let reasoning = gap * u32::try_from(self.content.silent_tokens).unwrap_or(0);
        steps.push(Step::Wait(first + reasoning));
        let again: Vec<_> = match self.fault {
            Some(Fault::DuplicateEnd) => list.get(end..).unwrap_or_default().to_vec(),
            _ => Vec::new(),
        };
        let mut sent_content = 0;
        for (number, (bytes, tokens)) in list.into_iter().chain(again).enumerate() {
            if tokens > 0 {
                if let Some(step) = self.strike(sent_content, number) {
                    steps.extend(step);
                    return steps;
                }
                if self.fault == Some(&Fault::Garbage(sent_content)) {
                    steps.push(Step::Send(Bytes::from(self.garbage()), 0));
                }
                sent_content += 1;
            }
            if !gap.is_zero() && tokens > 0 {
                steps.push(Step::Wait(gap * u32::try_from(tokens).unwrap_or(0)));
            }
            match self.fault {
                Some(Fault::Split(size)) => split(&bytes, &[*size], tokens, &mut steps),
                _ if self.script.split_chars => split(&bytes, &[1, 2, 3], tokens, &mut steps),
                _ => steps.push(Step::Send(bytes, tokens)),
            }
        }
        if let Some(Fault::ExtraAfterEnd) = self.fault {
            steps.push(Step::Send(
                Bytes::from_static(b"data: {\"extra\":true}\n\n"),
                0,
            ));
        }
        steps
    }

    /// The fault that strikes after `sent` content events, as the steps that end the answer. The
    /// turn before a cut lets what was sent leave first.
    fn strike(&self, sent: usize, number: usize) -> Option<Vec<Step>> {
        match self.fault? {
            Fault::CutAfter(after) if *after == sent => {
                Some(vec![Step::Wait(Duration::ZERO), Step::Cut])
            }
            Fault::HangAfter(after) if *after == sent => Some(vec![Step::Hang]),
            Fault::ErrorAfter(after) if *after == sent => {
                Some(vec![Step::Send(self.error(number), 0)])
            }
            Fault::FailedAfter(after) if *after == sent => {
                let event = match self.dialect {
                    Dialect::Responses => responses::failed(self.content, self.request, number),
                    Dialect::Chat | Dialect::Messages => self.error(number),
                };
                Some(vec![Step::Send(event, 0)])
            }
            Fault::MalformedAfter(after) if *after == sent => Some(vec![
                Step::Send(Bytes::from_static(b"data: {\"choices\":[{broken\n\n"), 0),
                Step::Wait(Duration::ZERO),
                Step::Cut,
            ]),
            Fault::CutInUtf8(after) if *after == sent => Some(vec![
                Step::Send(self.half_a_character(), 0),
                Step::Wait(Duration::ZERO),
                Step::Cut,
            ]),
            _ => None,
        }
    }

    fn error(&self, number: usize) -> Bytes {
        let event = match self.dialect {
            Dialect::Chat => {
                "data: {\"error\":{\"message\":\"scripted\",\"type\":\"server_error\"}}\n\n"
            }
            Dialect::Messages => {
                "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"scripted\"}}\n\n"
            }
            Dialect::Responses => {
                let data = json!({ "code": "server_error", "message": "scripted", "param": null });
                return responses::event(number, "error", data);
            }
        };
        Bytes::from(event)
    }

    /// The beginning of an event of text, up to where its JSON breaks off.
    fn beginning(&self) -> &'static str {
        match self.dialect {
            Dialect::Chat => "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"",
            Dialect::Messages => {
                "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\""
            }
            Dialect::Responses => {
                "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\""
            }
        }
    }

    fn garbage(&self) -> String {
        format!("{}\n\n", self.beginning())
    }

    fn half_a_character(&self) -> Bytes {
        let mut event = self.beginning().as_bytes().to_vec();
        event.extend("🙂".bytes().take(2));
        Bytes::from(event)
    }
}

/// Bytes in pieces of these sizes, over and over.
fn split(bytes: &Bytes, sizes: &[usize], tokens: u64, steps: &mut Vec<Step>) {
    let mut rest = bytes.clone();
    let mut tokens = tokens;
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            return;
        }
        let piece = rest.split_to((*size).clamp(1, rest.len()));
        steps.push(Step::Send(piece, std::mem::take(&mut tokens)));
        // A turn of the reactor, so that the pieces leave one by one.
        steps.push(Step::Wait(Duration::ZERO));
    }
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
                    if this.queue.iter().all(|step| matches!(step, Step::Wait(_))) {
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
