//! The canonical answer: as events while it flows, and as a whole. Events of one answer are strictly
//! nested: a part is opened, gets its pieces, and is closed before the next one opens.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Usage;
use crate::call::{Citation, Kind, Own, Part, Role, Seal, Text, Thinking, ToolCall, Turn};
use crate::dialect;

/// Something that happened in an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The answer has begun.
    Begin {
        model: String,
        /// The prompt's side of the usage, where it is known this early.
        prompt: Option<Usage>,
    },
    Open(Opening),
    /// More of the open part: text, or the JSON text of a tool's arguments.
    Piece(String),
    /// Log probabilities of the open text, in OpenAI's shape.
    Logprobs(Vec<Value>),
    /// The open part is complete.
    Close {
        seal: Option<Seal>,
        citations: Vec<Citation>,
    },
    Stop(Stop),
    Usage(Usage),
    /// The answer came to its end.
    End,
    /// The upstream reports a failure, or sent something that can not be followed.
    Failed(String),
}

/// What kind of part opens.
#[derive(Debug, Clone, PartialEq)]
pub enum Opening {
    Text,
    Thinking,
    Refusal,
    ToolCall {
        id: String,
        name: String,
        custom: bool,
    },
    Own(Own),
}

/// Why the model stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// It had said everything.
    End,
    /// At the output cap.
    Length,
    /// At one of the caller's stop sequences.
    Sequence(Option<String>),
    Tools,
    /// It declined.
    Refusal,
    /// A filter of the provider cut it.
    Filter,
    /// A long turn of the provider's own tools paused; the caller sends it back to go on.
    Pause,
    /// The context window is full.
    Window,
}

/// Why it stopped, given what it consists of. Servers say `stop` behind a forced call, and whoever reads it must
/// still act on it; or they speak of calls that are not there, for which nobody should look.
pub(crate) fn stop_after(stop: Option<Stop>, called: bool, refused: bool) -> Option<Stop> {
    match stop {
        None | Some(Stop::End) if called => Some(Stop::Tools),
        None | Some(Stop::End | Stop::Tools) if refused && !called => Some(Stop::Refusal),
        Some(Stop::Tools) if !called => Some(Stop::End),
        stop => stop,
    }
}

/// A whole answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reply {
    pub model: String,
    pub parts: Vec<Part>,
    pub stop: Option<Stop>,
    pub usage: Option<Usage>,
    pub logprobs: Vec<Value>,
    /// The lane that served it.
    pub lane: Option<String>,
}

impl Reply {
    /// The answer as events.
    pub fn events(self) -> Vec<Event> {
        let mut events = vec![Event::Begin {
            model: self.model,
            prompt: self.usage,
        }];
        let mut logprobs = self.logprobs;
        for part in self.parts {
            let (opening, piece, seal, citations) = taken_apart(part.kind);
            let is_text = opening == Opening::Text;
            events.push(Event::Open(opening));
            if !piece.is_empty() {
                events.push(Event::Piece(piece));
            }
            if is_text && !logprobs.is_empty() {
                events.push(Event::Logprobs(std::mem::take(&mut logprobs)));
            }
            events.push(Event::Close { seal, citations });
        }
        events.extend(self.stop.map(Event::Stop));
        events.extend(self.usage.map(Event::Usage));
        events.push(Event::End);
        events
    }

    /// The answer as a turn of the transcript.
    pub fn turn(&self) -> Turn {
        Turn::new(Role::Assistant, self.parts.clone())
    }

    /// The mean log probability of the first tokens, at most `most`, where any are told.
    pub fn mean_logprob(&self, most: usize) -> Option<f64> {
        let told = self.logprobs.iter().take(most);
        let told: Vec<f64> = told.filter_map(dialect::logprob).collect();
        let count = u32::try_from(told.len()).ok().filter(|count| *count > 0)?;
        Some(told.iter().sum::<f64>() / f64::from(count))
    }
}

fn taken_apart(kind: Kind) -> (Opening, String, Option<Seal>, Vec<Citation>) {
    let bare = |opening, piece| (opening, piece, None, Vec::new());
    match kind {
        Kind::Text(text) => (Opening::Text, text.text, None, text.citations),
        Kind::Thinking(it) => (Opening::Thinking, it.text, it.seal, Vec::new()),
        Kind::Refusal(text) => bare(Opening::Refusal, text),
        Kind::ToolCall(call) => {
            let ToolCall {
                id,
                name,
                arguments,
                custom,
            } = call;
            bare(Opening::ToolCall { id, name, custom }, arguments)
        }
        Kind::Own(own) => bare(Opening::Own(own), String::new()),
        // Models do not answer with these yet; their place is kept by an empty text.
        Kind::Image(_) | Kind::Audio(_) | Kind::File(_) | Kind::ToolResult(_) => {
            bare(Opening::Text, String::new())
        }
    }
}

/// Puts events together to a whole answer.
#[derive(Debug, Default)]
pub struct Assembler {
    reply: Reply,
    open: Option<(Opening, String)>,
    reported: bool,
    ended: bool,
}

impl Assembler {
    /// Takes one event.
    pub fn take(&mut self, event: &Event) {
        let reply = &mut self.reply;
        match event {
            Event::Begin { model, prompt } => {
                model.clone_into(&mut reply.model);
                reply.usage = *prompt;
            }
            Event::Open(opening) => self.open = Some((opening.clone(), String::new())),
            Event::Piece(piece) => {
                if let Some((_, text)) = &mut self.open {
                    text.push_str(piece);
                }
            }
            Event::Logprobs(more) => reply.logprobs.extend(more.iter().cloned()),
            Event::Close { seal, citations } => {
                if let Some((opening, text)) = self.open.take() {
                    let kind = closed(opening, text, seal.clone(), citations.clone());
                    reply.parts.push(Part::new(kind));
                }
            }
            Event::Stop(stop) => reply.stop = Some(stop.clone()),
            Event::Usage(usage) => (reply.usage, self.reported) = (Some(*usage), true),
            Event::End => self.ended = true,
            Event::Failed(_) => {}
        }
    }

    /// Visible text and tool arguments so far, for counting.
    pub fn seen(&self) -> String {
        let mut text = Turn::new(Role::Assistant, self.reply.parts.clone()).plain_text();
        for part in &self.reply.parts {
            if let Kind::Thinking(thinking) = &part.kind {
                text.push_str(&thinking.text);
            }
        }
        if let Some((_, open)) = &self.open {
            text.push_str(open);
        }
        text
    }

    /// Whether the upstream has reported what was used.
    pub fn is_reported(&self) -> bool {
        self.reported
    }

    /// The whole answer; `None` while it has not come to its end.
    pub fn whole(&self) -> Option<&Reply> {
        self.ended.then_some(&self.reply)
    }

    /// The answer as far as it came.
    pub fn so_far(&self) -> &Reply {
        &self.reply
    }

    /// The same, with what came of the part that is still open as its last part.
    pub fn up_to_now(&self) -> Reply {
        let mut reply = self.reply.clone();
        if let Some((opening, text)) = self.open.clone() {
            let kind = closed(opening, text, None, Vec::new());
            reply.parts.push(Part::new(kind));
        }
        reply
    }
}

fn closed(opening: Opening, text: String, seal: Option<Seal>, citations: Vec<Citation>) -> Kind {
    match opening {
        Opening::Text => Kind::Text(Text { text, citations }),
        Opening::Thinking => Kind::Thinking(Thinking { text, seal }),
        Opening::Refusal => Kind::Refusal(text),
        Opening::ToolCall { id, name, custom } => Kind::ToolCall(ToolCall {
            id,
            name,
            arguments: text,
            custom,
        }),
        Opening::Own(own) => Kind::Own(own),
    }
}
