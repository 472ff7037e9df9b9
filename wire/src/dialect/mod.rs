//! The dialects of the wire. Each file knows one provider's field names, and nobody else does.

mod alike;
pub mod allowance;
mod anthropic_messages;
pub mod carry;
mod fields;
mod finish;
pub mod line;
mod openai;
mod openai_chat;
mod openai_embeddings;
pub mod openai_responses;
mod schemas;
mod strict;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use memchr::memmem::Finder;
use serde_json::Value;

pub use self::finish::Facts;
use crate::call::{Call, Part};
use crate::json::{JsonError, Kind, Scanner, quote};
use crate::loss::Losses;
use crate::reply::{Event, Reply};
use crate::scan::word;
use crate::splice::Edit;
use crate::{RequestId, Scan, ScanError, Usage};

/// Every dialect; adding one is adding a line.
pub static ALL: [&dyn Dialect; 4] = [
    OPENAI_CHAT,
    OPENAI_RESPONSES,
    ANTHROPIC_MESSAGES,
    OPENAI_EMBEDDINGS,
];

/// OpenAI Chat Completions.
pub static OPENAI_CHAT: &dyn Dialect = &openai_chat::OpenAiChat;
/// OpenAI Responses.
pub static OPENAI_RESPONSES: &dyn Dialect = &openai_responses::OpenAiResponses;
/// Anthropic Messages.
pub static ANTHROPIC_MESSAGES: &dyn Dialect = &anthropic_messages::AnthropicMessages;

/// OpenAI Embeddings.
pub static OPENAI_EMBEDDINGS: &dyn Dialect = &openai_embeddings::OpenAiEmbeddings;

/// The dialect called `name` in configuration.
pub fn named(name: &str) -> Option<&'static dyn Dialect> {
    ALL.into_iter().find(|dialect| dialect.name() == name)
}

/// The dialect spoken at `path`, which is written as [`plain_path`] writes it.
pub fn of_path(path: &str) -> Option<&'static dyn Dialect> {
    ALL.into_iter().find(|dialect| dialect.path() == path)
}

/// The dialect in which an answer at `path` is dressed, whatever it is; `anthropic` says that the
/// caller named a version of that API.
pub fn shown_at(path: &str, anthropic: bool) -> &'static dyn Dialect {
    let beneath = |dialect: &&'static dyn Dialect| path.starts_with(dialect.path());
    let found = ALL.into_iter().find(beneath);
    found.unwrap_or(if anthropic {
        ANTHROPIC_MESSAGES
    } else {
        OPENAI_CHAT
    })
}

/// A path without the prefix of a provider and with its version, as `/v1/messages`: clients put
/// either into their base address or leave it out.
pub fn plain_path(path: &str) -> Cow<'_, str> {
    let bare = ["/openai/", "/anthropic/"]
        .iter()
        .find_map(|prefix| path.strip_prefix(prefix));
    match bare {
        Some(rest) if rest.starts_with("v1/") => path
            .get(path.len() - rest.len() - 1..)
            .map_or(path.into(), Cow::from),
        Some(rest) => format!("/v1/{rest}").into(),
        None if path.starts_with("/v1/") || matches!(path, "/" | "/v1") => path.into(),
        None => format!("/v1{path}").into(),
    }
}

/// One way of writing calls, replies, streams and errors.
pub trait Dialect: Sync + Send + fmt::Debug {
    /// The word used in configuration, labels and the ledger.
    fn name(&self) -> &'static str;

    /// Whether it is a conversation's, which any other such dialect can carry on.
    fn converses(&self) -> bool {
        true
    }

    /// The path at which callers speak it.
    fn path(&self) -> &'static str;

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

    /// What a reply says that came in one piece; `None` where it is no JSON object, or one that has an error and
    /// no answer.
    fn facts(&self, reply: &[u8]) -> Option<Facts> {
        is_object(reply).then(|| Facts::of_reply(self.usage(reply), reply))
    }

    /// Reads a call whole. What it does not know is kept, never refused; what it knows must be of its kind.
    fn decode(&self, body: &[u8]) -> Result<Call, DecodeError>;

    /// Writes a call for an upstream. A call of this very dialect keeps every field it came with.
    fn encode(&self, call: &Call, change: &Change<'_>, losses: &mut Losses) -> Value;

    /// Whether a call to an upstream can say this piece as the user's; what it can not is noted.
    fn tells(&self, _part: &Part, _losses: &mut Losses) -> bool {
        true
    }

    /// Reads a whole answer, made by `origin`.
    fn decode_reply(&self, body: &[u8], origin: &str) -> Result<Reply, DecodeError>;

    /// Writes a whole answer for the caller.
    fn encode_reply(&self, reply: &Reply, asked: &Asked, losses: &mut Losses) -> Value;

    /// A reader of a stream made by `origin`.
    fn reader(&self, origin: &str) -> Box<dyn Reader>;

    /// Whether callers bring sealed parts back with the transcript.
    fn carries_seals(&self) -> bool {
        true
    }

    /// Signatures and sealed content in an event or a whole answer, as its caller will send them back.
    fn seals(&self, _answer: &[u8]) -> Vec<String> {
        Vec::new()
    }

    /// The answer as an object to keep, where an event that ends a stream or a whole answer is one.
    fn kept(&self, _answer: &[u8]) -> Option<Value> {
        None
    }

    /// A writer of a stream for the caller.
    fn writer(&self, asked: Asked) -> Box<dyn Writer>;

    /// The body of an error answer.
    fn refuse(&self, refusal: &Refusal, request: RequestId) -> String;

    /// An error as an event, which is the one of number `number` in its stream.
    fn refuse_in_stream(&self, refusal: &Refusal, request: RequestId, number: u64) -> String;

    /// The listing of `models`.
    fn list_models(&self, models: &[&str]) -> String;

    /// One model of that listing.
    fn show_model(&self, model: &str) -> String;

    /// Headers that an upstream must get, where the caller sent none.
    fn headers(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// The header that carries the key to an upstream, and what stands before the key in it.
    fn key_header(&self) -> (&'static str, &'static str);
}

/// How a model is told to think before it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThinkingForm {
    /// Not at all: whatever asks for it is refused.
    None,
    /// By a budget of tokens; it takes no word for effort.
    Budget,
    /// As long as it sees fit, steered by a word for effort; it takes no budget.
    Adaptive,
}

impl ThinkingForm {
    /// The form in which a call asks for thinking by `word`, in the dialect that knows both.
    pub(crate) fn asked(word: &str) -> Option<Self> {
        match word {
            "enabled" => Some(Self::Budget),
            "adaptive" => Some(Self::Adaptive),
            _ => None,
        }
    }

    /// Whether a model of this form takes a call that asks in the form `asked`, or for an effort.
    pub(crate) fn takes(self, asked: Option<Self>, has_effort: bool) -> bool {
        match self {
            Self::None => asked.is_none() && !has_effort,
            Self::Budget => asked != Some(Self::Adaptive) && !has_effort,
            Self::Adaptive => asked != Some(Self::Budget),
        }
    }
}

/// What routing and metering must change in a call.
#[derive(Debug, Clone, Copy, Default)]
pub struct Change<'a> {
    /// The model's name at the upstream.
    pub model: &'a str,
    /// The output cap that was reserved, in tokens, where one must be written.
    pub cap: Option<u64>,
    /// The name of the field a cap is written to where the caller set none; the dialect's own when empty.
    pub cap_field: &'a str,
    /// The model's longest answer in tokens, for a dialect that demands a cap.
    pub most_output: Option<u64>,
    /// The only way the model can be told to think, where it has but one.
    pub thinking: Option<ThinkingForm>,
}

/// The body is not a call or answer of its dialect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("it is not JSON of the right shape: {0}")]
    Json(String),
    #[error("it is {0}")]
    Shape(&'static str),
    #[error("{0}")]
    Field(String),
}

impl Change<'_> {
    /// The cap to write, in tokens: what was reserved, or else what was asked for, and no more than the
    /// model takes. At home what was asked for stands there already.
    pub(crate) fn capped(&self, call: &Call, at_home: bool, losses: &mut Losses) -> Option<u64> {
        let most = self.most_output.unwrap_or(u64::MAX);
        let asked = call.max_output.filter(|asked| !at_home || *asked > most);
        let cap = self.cap.or(asked)?;
        if cap > most {
            losses.approximated("max_output_tokens");
        }
        Some(cap.min(most))
    }

    /// Whether the model does not reason.
    pub(crate) fn reasons_not(&self) -> bool {
        self.thinking == Some(ThinkingForm::None)
    }
}

impl From<serde_json::Error> for DecodeError {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error.to_string())
    }
}

/// What an answer's writer must know of the call it answers.
#[derive(Debug, Clone)]
pub struct Asked {
    pub request: RequestId,
    /// Seconds since 1970 at which the call came in.
    pub created_s: i64,
    /// The call as the caller wrote it.
    pub call: Arc<Call>,
    /// The caller gets the usage of a stream.
    pub include_usage: bool,
    /// The prompt's tokens as counted here, for places that come before the upstream's own figure.
    pub prompt_tokens: u64,
    /// Counts the tokens of a text, for answers whose usage nobody reports.
    pub count: fn(&str) -> u64,
}

impl Asked {
    /// The id of the answer, behind the prefix of its dialect.
    pub fn message_id(&self, prefix: &str) -> String {
        self.request.to_string().replacen("req_", prefix, 1)
    }

    /// The usage that stands where the upstream reports none, for an answer of this text.
    pub fn counted(&self, answer: &str) -> Usage {
        Usage {
            input: self.prompt_tokens,
            output: (self.count)(answer),
            ..Usage::default()
        }
    }
}

/// Reads a stream as canonical events.
pub trait Reader: Send + fmt::Debug {
    /// Takes one whole event.
    fn event(&mut self, event: &[u8], out: &mut Vec<Event>);

    /// The stream ended after its answer had, though without its last event.
    fn finish(&mut self, _out: &mut Vec<Event>) {}
}

/// Writes canonical events as a stream.
pub trait Writer: Send + fmt::Debug {
    /// Adds what the caller gets for one event to `out`.
    fn event(&mut self, event: Event, out: &mut String);

    /// What the dialect had no place for.
    fn losses(&self) -> &Losses;

    /// The answer as an object to keep, where the dialect has one and it is complete.
    fn whole(&self) -> Option<&Value> {
        None
    }
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
    /// It is no event of this dialect: not even JSON.
    Broken,
    /// The stream ended as it should.
    End,
    /// The upstream reports an error.
    Error,
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
    /// The methods that the path takes, where the request's is none of them; `""` otherwise.
    pub allow: &'static str,
}

/// Reads the counts of a usage object: `set` gets each field's name and value, and the names of
/// objects around it joined by dots. `false` when a figure of tokens or requests is not a whole number
/// that fits; beside them some vendors put times and costs, which are fractions.
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
                Ok(count) if count <= crate::usage::MOST => set(&name, count),
                _ => sound &= !name.ends_with("tokens") && !name.ends_with("requests"),
            },
            Kind::Object if prefix.is_empty() => sound &= counts(scanner, &name, set),
            _ => {}
        }
        Ok::<(), crate::json::JsonError>(())
    });
    sound && walked.is_ok()
}

/// What an upstream of one of OpenAI's dialects reports, before overlaps are taken out.
#[derive(Debug, Default)]
struct Reported {
    prompt: Option<u64>,
    answer: Option<u64>,
    total: Option<u64>,
    /// Cached tokens by another vendor's name, beside the details.
    cached: u64,
    /// The classes, as far as details name them.
    used: Usage,
}

impl Reported {
    /// The usage in disjoint classes: prompt tokens include the cached ones and answer tokens the
    /// reasoning ones. Where the total is larger than prompt and answer together, the vendor counts
    /// reasoning beside the answer, whether or not it says how much.
    fn disjoint(self) -> Option<Usage> {
        // An object without either figure reports nothing; it must not pass for a call that was free.
        if self.prompt.is_none() && self.answer.is_none() {
            return None;
        }
        let (prompt, answer) = (self.prompt.unwrap_or(0), self.answer.unwrap_or(0));
        let mut used = self.used;
        if used.cache_read == 0 {
            used.cache_read = self.cached.min(prompt);
        }
        let known = prompt.saturating_add(answer);
        let beside = match (self.prompt, self.answer, self.total) {
            (Some(_), Some(_), Some(total)) => total.saturating_sub(known),
            _ => 0,
        };
        if used.reasoning == 0 {
            used.reasoning = beside;
        }
        used.input = prompt.saturating_sub(used.prompt());
        used.output = answer.saturating_add(beside).saturating_sub(used.answer());
        Some(used)
    }
}

/// The log probability of a token, of those that [`Reply::logprobs`] holds.
pub(crate) fn logprob(token: &Value) -> Option<f64> {
    token.get("logprob").and_then(Value::as_f64)
}

/// What an upstream's error body tells, in any dialect; the body itself where it tells nothing known.
pub fn told(body: &[u8]) -> String {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = value.get("error").unwrap_or(&value);
    let message = error
        .get("message")
        .and_then(Value::as_str)
        .or_else(|| error.as_str());
    let text = message.map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned);
    text.chars().take(2_000).collect()
}

/// The strings that `json` has under each `name`, which is given with its quotes: those are plain, so it
/// is never found inside another string. Servers that indent their answers put spaces behind it.
fn strings_behind(json: &[u8], name: &Finder<'_>) -> Vec<String> {
    let text_at = |at: usize| {
        let rest = json.get(at + name.needle().len()..)?.trim_ascii_start();
        let rest = rest.strip_prefix(b":")?.trim_ascii_start();
        let mut texts = serde_json::Deserializer::from_slice(rest).into_iter::<String>();
        texts.next()?.ok().filter(|text| !text.is_empty())
    };
    name.find_iter(json).filter_map(text_at).collect()
}

/// The names under which a tool may be known where its own is too long.
pub(crate) fn shortened(name: &str) -> impl Iterator<Item = String> {
    const LONGEST: [usize; 2] = [openai::LONGEST_NAME, anthropic_messages::LONGEST_NAME];
    LONGEST.into_iter().map(|longest| fields::id(name, longest))
}

/// Whether an event's data is whole JSON: a cheap walk that builds nothing.
fn is_json(data: &[u8]) -> bool {
    let walk = |mut scanner: Scanner<'_>| scanner.skip().and_then(|_| scanner.end());
    Scanner::new(data).and_then(walk).is_ok()
}

/// Whether `body` is one whole JSON object.
pub fn is_object(body: &[u8]) -> bool {
    let first = body.trim_ascii_start().first();
    first == Some(&b'{') && is_json(body)
}

/// The `type` that an event's data carries; empty where it carries none.
fn kind_of(data: &[u8]) -> Result<String, JsonError> {
    let mut kind = String::new();
    Scanner::new(data)?.object(|scanner, key| {
        if key.raw == "type"
            && let Some(found) = word(scanner)?
        {
            found.text().as_ref().clone_into(&mut kind);
        }
        Ok::<(), JsonError>(())
    })?;
    Ok(kind)
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
    let over = change
        .most_output
        .filter(|most| scan.max_output > Some(*most));
    match change.cap.or(over) {
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
