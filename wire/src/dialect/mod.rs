//! The dialects of the wire. Each file knows one provider's field names, and nobody else does.

mod anthropic_messages;
mod openai_chat;

use std::fmt;

use bytes::Bytes;

use crate::json::{Kind, Scanner, quote};
use crate::splice::Edit;
use crate::{RequestId, Scan, ScanError, Usage};

/// Every dialect; adding one is adding a line.
pub static ALL: [&dyn Dialect; 2] = [OPENAI_CHAT, ANTHROPIC_MESSAGES];

/// OpenAI Chat Completions.
pub static OPENAI_CHAT: &dyn Dialect = &openai_chat::OpenAiChat;
/// Anthropic Messages.
pub static ANTHROPIC_MESSAGES: &dyn Dialect = &anthropic_messages::AnthropicMessages;

/// The dialect called `name` in configuration.
pub fn named(name: &str) -> Option<&'static dyn Dialect> {
    ALL.into_iter().find(|dialect| dialect.name() == name)
}

/// The dialect spoken at `path`, provider prefixes included.
pub fn of_path(path: &str) -> Option<&'static dyn Dialect> {
    ALL.into_iter()
        .find(|dialect| dialect.paths().contains(&path))
}

/// One way of writing calls, replies, streams and errors.
pub trait Dialect: Sync + Send + fmt::Debug {
    /// The word used in configuration, labels and the ledger.
    fn name(&self) -> &'static str;

    /// The paths at which callers speak it.
    fn paths(&self) -> &'static [&'static str];

    /// The path behind an endpoint's base address.
    fn upstream_path(&self) -> &'static str;

    /// Reads what the gateway acts on, and checks the whole body on the way.
    fn scan(&self, body: &[u8]) -> Result<Scan, ScanError>;

    /// The edits that turn the caller's body into the upstream's.
    fn edits(&self, scan: &Scan, change: &Change<'_>) -> Vec<Edit>;

    /// A reader that follows a stream without changing it.
    fn watch(&self) -> Box<dyn Watch>;

    /// The usage that a whole reply reports.
    fn usage(&self, reply: &[u8]) -> Option<Usage>;

    /// The body of an error answer.
    fn refuse(&self, refusal: &Refusal, request: RequestId) -> String;

    /// An error as an event, for a stream that has begun.
    fn refuse_in_stream(&self, refusal: &Refusal, request: RequestId) -> String;

    /// The listing of `models`.
    fn list_models(&self, models: &[&str]) -> String;

    /// The header that carries the key to an upstream, and what stands before the key in it.
    fn key_header(&self) -> (&'static str, &'static str);
}

/// What routing and metering must change in a call.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// The model's name at the upstream.
    pub model: &'a str,
    /// The output cap that was reserved, in tokens, where one must be written.
    pub cap: Option<u64>,
    /// The name of the field a cap is written to where the caller set none; the dialect's own when empty.
    pub cap_field: &'a str,
}

/// What an event of a stream was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Lifecycle and pings: nothing of the answer yet.
    Quiet,
    /// A piece of the answer.
    Content,
    /// Usage alone, sent only because it was asked for.
    UsageOnly,
    /// The stream ended as it should.
    End,
    /// The upstream reports an error.
    Error,
}

/// What has been seen of a stream so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Facts {
    /// The last usage reported.
    pub usage: Option<Usage>,
    /// The prompt side of the usage, which some upstreams report at the start.
    pub prompt: Option<Usage>,
    /// The answer came to its end.
    pub finished: bool,
    /// Events that carried a piece of the answer.
    pub content_events: u64,
    /// Their bytes, less the frame around the text as measured on the first.
    pub content_bytes: u64,
    frame_bytes: u64,
}

impl Facts {
    /// What a reply says that came in one piece.
    pub fn of_reply(usage: Option<Usage>) -> Self {
        Self {
            usage,
            finished: true,
            ..Self::default()
        }
    }

    /// Counts a content event of `length` bytes. The first one is taken for a frame and four bytes
    /// of text.
    fn count(&mut self, length: usize) {
        let bytes = u64::try_from(length).unwrap_or(u64::MAX);
        if self.content_events == 0 {
            self.frame_bytes = bytes.saturating_sub(4);
        }
        self.content_events += 1;
        self.content_bytes += bytes.saturating_sub(self.frame_bytes);
    }

    /// Tokens that the answer seen so far may have, when nobody reports them: never fewer than the
    /// events, and a token for each three bytes, because English averages four.
    pub fn counted_output(&self) -> u64 {
        self.content_events.max(self.content_bytes.div_ceil(3))
    }
}

/// Follows a stream.
pub trait Watch: Send + fmt::Debug {
    /// Looks at one whole event.
    fn event(&mut self, event: &[u8]) -> Seen;

    /// What has been seen up to now.
    fn facts(&self) -> Facts;
}

/// Whose fault an error is; callers' SDKs decide by the status, people by this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    Caller,
    Upstream,
    Gateway,
}

impl Fault {
    /// The word used in labels and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Upstream => "upstream",
            Self::Gateway => "gateway",
        }
    }
}

/// An answer that is not the model's. Each dialect dresses it in its own error shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub fault: Fault,
    /// The HTTP status.
    pub status: u16,
    /// A stable word for programs, for instance `budget_exceeded`.
    pub code: &'static str,
    /// One sentence for people: what failed, on what, and what to do.
    pub message: String,
    /// Seconds after which another try makes sense.
    pub retry_after_s: Option<u64>,
    /// Another try can not help before something changes; SDKs are told so.
    pub is_final: bool,
}

/// Reads the counts of a usage object: `set` gets each field's name and value, and the names of
/// objects around it joined by dots. `false` when a figure is not a whole number that fits.
fn counts(scanner: &mut Scanner<'_>, prefix: &str, set: &mut dyn FnMut(&str, u64)) -> bool {
    let mut sound = true;
    let walked = scanner.object(|scanner, key| {
        let name = if prefix.is_empty() {
            key.text().into_owned()
        } else {
            format!("{prefix}.{}", key.text())
        };
        match scanner.peek()? {
            Kind::Number => match scanner.number()?.parse() {
                // A count above 2^40 tokens is a broken upstream, not a long answer.
                Ok(count) if count < 1 << 40 => set(&name, count),
                _ => sound = false,
            },
            Kind::Object if prefix.is_empty() => sound &= counts(scanner, &name, set),
            _ => {}
        }
        Ok::<(), crate::json::JsonError>(())
    });
    sound && walked.is_ok()
}

/// The edit that inserts `field` (name and value, without a comma) at the head of the object.
fn insert(scan: &Scan, field: &str) -> Edit {
    let comma = if scan.empty { "" } else { "," };
    Edit {
        at: scan.head_at..scan.head_at,
        with: Bytes::from(format!("{field}{comma}")),
    }
}

/// The edits that write the upstream's model name and the cap that was held; a cap that the caller
/// did not set goes into the field `cap_field`.
fn model_and_cap(scan: &Scan, change: &Change<'_>, cap_field: &str) -> Vec<Edit> {
    let mut edits = Vec::with_capacity(3);
    if scan.model != change.model {
        edits.push(Edit {
            at: scan.model_at.clone(),
            with: Bytes::from(quote(change.model)),
        });
    }
    match change.cap {
        Some(cap) if scan.caps.is_empty() => {
            edits.push(insert(scan, &format!("{}:{cap}", quote(cap_field))));
        }
        // Of two caps the upstream may take the larger: both say the same.
        Some(cap) if scan.caps.len() > 1 || scan.max_output != Some(cap) => {
            edits.extend(scan.caps.iter().map(|at| Edit {
                at: at.clone(),
                with: Bytes::from(cap.to_string()),
            }));
        }
        _ => {}
    }
    edits
}
