//! Anthropic Messages: `POST /v1/messages`.

mod call;
mod encode;
mod read;
mod reply;
mod schema;
mod thinking;

use std::ops::Range;
use std::sync::LazyLock;

use memchr::memmem::{self, Finder};
use serde_json::Value;

use super::finish::{self, Told};
use super::{
    Asked, Change, DecodeError, Dialect, Facts, Reader, Refusal, Seen, ThinkingForm, Watch, Writer,
    counts, is_json, kind_of, model_and_cap, schemas, strings_behind,
};
use crate::call::{Call, Part};
use crate::json::{JsonError, Kind, Scanner, quote};
use crate::loss::Losses;
use crate::reply::Reply;
use crate::scan::{self, Message, Role, count, flag, len32, trail, word};
use crate::splice::Edit;
use crate::{RequestId, Scan, ScanError, Usage, sse};

/// Tools that the provider runs itself, by the beginning of their types.
const RUN_THERE: &[&str] = &["web_search_", "web_fetch_", "code_execution_"];

const NAME: &str = "anthropic_messages";
/// The longest name of a tool that the API takes.
pub(super) const LONGEST_NAME: usize = 128;

/// The dialect.
#[derive(Debug)]
pub(super) struct AnthropicMessages;

const ACTED: &[&str] = &[
    "model",
    "messages",
    "system",
    "stream",
    "max_tokens",
    "service_tier",
    "tools",
    "thinking",
    "output_config",
    "metadata",
];

impl Dialect for AnthropicMessages {
    fn name(&self) -> &'static str {
        NAME
    }

    fn path(&self) -> &'static str {
        "/v1/messages"
    }

    fn upstream_path(&self) -> &'static str {
        "/messages"
    }

    fn scan(&self, body: &[u8]) -> Result<Scan, ScanError> {
        scan::body(body, ACTED, &["messages"], field)
    }

    fn edits(&self, scan: &Scan, change: &Change<'_>) -> Vec<Edit> {
        model_and_cap(scan, change, "max_tokens")
    }

    fn watch(&self) -> Box<dyn Watch> {
        Box::new(Follower::default())
    }

    fn usage(&self, reply: &[u8]) -> Option<Usage> {
        usage_of(reply)
    }

    fn facts(&self, reply: &[u8]) -> Option<Facts> {
        finish::facts(told_of(reply), reply)
    }

    fn decode(&self, body: &[u8]) -> Result<Call, DecodeError> {
        call::decode(body)
    }

    fn encode(&self, call: &Call, change: &Change<'_>, losses: &mut Losses) -> Value {
        encode::encode(call, change, losses)
    }

    fn tells(&self, part: &Part, losses: &mut Losses) -> bool {
        encode::tells(part, losses)
    }

    fn decode_reply(&self, body: &[u8], origin: &str) -> Result<Reply, DecodeError> {
        reply::decode(body, origin)
    }

    fn encode_reply(&self, reply: &Reply, asked: &Asked, losses: &mut Losses) -> Value {
        reply::encode(reply, asked, losses)
    }

    fn reader(&self, origin: &str) -> Box<dyn Reader> {
        Box::new(read::MessagesReader::new(origin))
    }

    fn seals(&self, answer: &[u8]) -> Vec<String> {
        static NAMES: LazyLock<[Finder<'static>; 3]> =
            LazyLock::new(|| ["\"signature\"", "redacted_thinking", "\"data\""].map(Finder::new));
        let [signature, redacted, data] = &*NAMES;
        let mut seals = strings_behind(answer, signature);
        if redacted.find(answer).is_some() {
            seals.extend(strings_behind(answer, data));
        }
        seals
    }

    fn writer(&self, asked: Asked) -> Box<dyn Writer> {
        Box::new(reply::MessagesWriter::new(asked))
    }

    fn refuse(&self, refusal: &Refusal, request: RequestId) -> String {
        let kind = match refusal.status {
            401 => "authentication_error",
            402 => "billing_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            400..=499 => "invalid_request_error",
            504 => "timeout_error",
            503 | 529 => "overloaded_error",
            _ => "api_error",
        };
        format!(
            "{{\"type\":\"error\",\"error\":{{\"type\":\"{kind}\",\"message\":{},\"code\":\"{}\"}},\
             \"request_id\":\"{request}\"}}",
            quote(&refusal.message),
            refusal.code
        )
    }

    fn refuse_in_stream(&self, refusal: &Refusal, request: RequestId, _number: u64) -> String {
        format!("event: error\ndata: {}\n\n", self.refuse(refusal, request))
    }

    fn list_models(&self, models: &[&str]) -> String {
        let all: Vec<String> = models.iter().map(|model| self.show_model(model)).collect();
        let ends = |model: Option<&&str>| model.map_or_else(|| "null".to_owned(), |m| quote(m));
        format!(
            "{{\"data\":[{}],\"has_more\":false,\"first_id\":{},\"last_id\":{}}}",
            all.join(","),
            ends(models.first()),
            ends(models.last())
        )
    }

    fn show_model(&self, model: &str) -> String {
        let id = quote(model);
        format!(
            "{{\"type\":\"model\",\"id\":{id},\"display_name\":{id},\"created_at\":\"1970-01-01T00:00:00Z\"}}"
        )
    }

    fn headers(&self) -> &'static [(&'static str, &'static str)] {
        &[("anthropic-version", "2023-06-01")]
    }

    fn key_header(&self) -> (&'static str, &'static str) {
        ("x-api-key", "")
    }
}

/// Takes one field of the body into the scan; a field not acted on is left for the scanner to skip.
fn field(scanner: &mut Scanner<'_>, name: &str, scan: &mut Scan) -> Result<(), ScanError> {
    match name {
        "model" => scan::model(scanner, scan)?,
        "messages" => {
            scan::messages(
                scanner,
                scan,
                "messages",
                |scanner, name, message, scan| match name {
                    "content" => blocks(scanner, message, scan),
                    _ => Ok(()),
                },
            )?;
        }
        "system" => {
            let mut system = Message {
                role: Role::System,
                ..Message::default()
            };
            blocks(scanner, &mut system, scan)?;
            system.count_into(scan);
            scan.shape.messages -= 1;
        }
        "stream" => scan.stream = flag(scanner, "stream")?,
        "max_tokens" => {
            scanner.peek()?;
            let start = scanner.offset();
            scan.max_output = count(scanner, "max_tokens")?;
            scan.caps.push(start..scanner.offset());
        }
        "service_tier" => scan::lane(scanner, scan)?,
        "tools" if scanner.peek()? == Kind::Array => {
            let start = scanner.offset();
            scanner.array(|scanner| schemas::tool(scanner, ("input_schema", RUN_THERE), scan))?;
            scan.shape.tool_bytes = len32(scanner.offset() - start);
        }
        "thinking" if scanner.peek()? == Kind::Object => scanner.object(|scanner, key| {
            if key.is("type") {
                let kind = word(scanner)?;
                scan.shape.thinking = kind.as_ref().is_some_and(|kind| !kind.is("disabled"));
                scan.thinking = kind.and_then(|kind| ThinkingForm::asked(&kind.text()));
            }
            Ok::<(), JsonError>(())
        })?,
        "metadata" if scanner.peek()? == Kind::Object => {
            scan::metadata(scanner, scan, |scanner, name, scan| {
                // Claude Code names its session inside the user's id.
                if name == "user_id"
                    && let Some(user) = word(scanner)?
                    && user.raw.contains("session")
                {
                    user.text().as_ref().clone_into(&mut scan.session);
                }
                Ok(())
            })?;
        }
        "output_config" if scanner.peek()? == Kind::Object => scanner.object(|scanner, key| {
            scan.has_effort |= key.is("effort") && scanner.peek()? == Kind::String;
            if key.is("format") && scanner.peek()? == Kind::Object {
                scan.shape.schema = true;
                scanner.object(|scanner, key| schemas::answer_schema(scanner, key, scan))?;
            }
            Ok::<(), JsonError>(())
        })?,
        _ => {}
    }
    Ok(())
}

/// Takes a text or a list of content blocks.
fn blocks(
    scanner: &mut Scanner<'_>,
    message: &mut Message,
    scan: &mut Scan,
) -> Result<(), JsonError> {
    match scanner.peek()? {
        Kind::String => message.texts.push(scanner.string()?.at),
        Kind::Array => scanner.array(|scanner| {
            if scanner.peek()? == Kind::Object {
                block(scanner, message, scan)
            } else {
                Ok(())
            }
        })?,
        _ => {}
    }
    Ok(())
}

fn block(
    scanner: &mut Scanner<'_>,
    message: &mut Message,
    scan: &mut Scan,
) -> Result<(), JsonError> {
    let mut text: Option<Range<usize>> = None;
    let (mut failed, mut result, mut told) = (false, false, 0);
    let mut made: u64 = 0;
    scanner.object(|scanner, key| {
        match (key.text().as_ref(), scanner.peek()?) {
            ("type", Kind::String) => match scanner.string()?.text().as_ref() {
                "tool_result" => result = true,
                "tool_use" => {
                    scan.shape.tool_calls += 1;
                    message.calls += 1;
                }
                "thinking" | "redacted_thinking" => message.thinks_first |= message.blocks == 0,
                "image" => scan.shape.images += 1,
                "document" => scan.shape.files += 1,
                _ => {}
            },
            ("text", Kind::String) => text = Some(scanner.string()?.at),
            ("content", Kind::String) => {
                let at = scanner.string()?.at;
                told = len32(at.len());
                trail::last(Some(&at), scan);
            }
            ("content", Kind::Array) => {
                scanner.array(|scanner| piece(scanner, &mut told, scan))?;
            }
            // What is called, and with what, in either order.
            (name @ ("name" | "input"), Kind::String | Kind::Object) => {
                let at = scanner.skip()?;
                let part = trail::call(name, scanner.slice(at));
                made = made.wrapping_add(part);
            }
            ("signature" | "data", Kind::String) => {
                let at = scanner.string()?.at;
                scan.seals_at.push(at);
            }
            ("is_error", Kind::Bool) => failed = scanner.boolean()?,
            _ => {}
        }
        Ok::<(), JsonError>(())
    })?;
    message.blocks += 1;
    message.made = message.made.wrapping_add(made);
    if result {
        message.results += 1;
        message.told.result(told, failed);
    }
    message.texts.extend(text);
    Ok(())
}

/// Counts what a piece of a tool's result tells and shows.
fn piece(scanner: &mut Scanner<'_>, told: &mut u32, scan: &mut Scan) -> Result<(), JsonError> {
    if scanner.peek()? != Kind::Object {
        return Ok(());
    }
    scanner.object(|scanner, key| {
        match key.raw {
            "type" => {
                if let Some(kind) = word(scanner)? {
                    scan.shape.images += u32::from(kind.is("image"));
                    scan.shape.files += u32::from(kind.is("document"));
                }
            }
            "text" => {
                if let Some(text) = word(scanner)? {
                    *told = told.saturating_add(len32(text.at.len()));
                    trail::last(Some(&text.at), scan);
                }
            }
            _ => {}
        }
        Ok(())
    })
}

/// The usage of a whole answer.
fn usage_of(reply: &[u8]) -> Option<Usage> {
    told_of(reply).ok()?.usage
}

/// The same, and why the answer ended.
fn told_of(reply: &[u8]) -> Result<Told, JsonError> {
    let mut told = Told::default();
    let mut scanner = Scanner::new(reply)?;
    scanner.object(|scanner, key| {
        let kind = scanner.peek()?;
        told.note(key.raw, kind, "content");
        match (key.raw, kind) {
            ("usage", Kind::Object) => {
                let (mut used, mut apart) = (Usage::default(), Usage::default());
                let sound = usage(scanner, &mut used, &mut apart);
                used += apart;
                told.usage = sound.then_some(used);
            }
            ("stop_reason", Kind::String) => {
                told.finish = finish::known(scanner.string()?.raw.as_bytes());
            }
            _ => {}
        }
        Ok::<(), JsonError>(())
    })?;
    scanner.end()?;
    Ok(told)
}

/// Adds what a usage object says to `used`; input excludes cache reads and writes here, and later
/// objects of a stream replace the figures they repeat. What is billed apart from the answer replaces
/// `apart`. `false` when a figure is unsound.
fn usage(scanner: &mut Scanner<'_>, used: &mut Usage, apart: &mut Usage) -> bool {
    if let Some(compactions) = compactions(scanner.clone()) {
        *apart = compactions;
    }
    one_usage(scanner, used)
}

/// What summaries of the conversation cost, where the vendor made some on the way: they are billed like
/// the answer, and stand only among the iterations. `None` where there were none.
fn compactions(mut scanner: Scanner<'_>) -> Option<Usage> {
    let mut sum = None;
    let walked = scanner.object(|scanner, key| {
        if !key.is("iterations") || scanner.peek()? != Kind::Array {
            return Ok(());
        }
        scanner.array(|scanner| {
            if scanner.peek()? != Kind::Object {
                return Ok(());
            }
            let (mut one, mut is_compaction) = (Usage::default(), false);
            scanner.clone().object(|scanner, key| {
                if key.is("type") {
                    is_compaction = word(scanner)?.is_some_and(|it| it.is("compaction"));
                }
                Ok::<(), JsonError>(())
            })?;
            if one_usage(scanner, &mut one) && is_compaction {
                *sum.get_or_insert_default() += one;
            }
            Ok::<(), JsonError>(())
        })
    });
    walked.ok().and(sum)
}

/// One usage object, without what stands apart from it.
fn one_usage(scanner: &mut Scanner<'_>, used: &mut Usage) -> bool {
    let (mut written, mut split) = (0, false);
    let (mut output, mut thought) = (None, 0);
    let mut reported = false;
    let sound = counts(scanner, "", &mut |name, count| match name {
        "input_tokens" => (used.input, reported) = (count, true),
        "cache_read_input_tokens" => used.cache_read = count,
        "cache_creation_input_tokens" => written = count,
        "cache_creation.ephemeral_5m_input_tokens" => (used.cache_write_5m, split) = (count, true),
        "cache_creation.ephemeral_1h_input_tokens" => (used.cache_write_1h, split) = (count, true),
        "output_tokens" => (output, reported) = (Some(count), true),
        "output_tokens_details.thinking_tokens" => thought = count,
        "server_tool_use.web_search_requests" => used.web_searches = count,
        _ => {}
    });
    if written > 0 && !split {
        // Only the first event of a stream tells how long what was written is kept.
        used.cache_write_5m = written.saturating_sub(used.cache_write_1h);
    }
    if let Some(output) = output {
        used.reasoning = thought.min(output);
        used.output = output - used.reasoning;
    }
    // An object without either figure reports nothing; it must not pass for a call that was free.
    sound && reported
}

#[derive(Debug, Default)]
struct Follower {
    facts: Facts,
    used: Usage,
    /// What is billed beside the answer.
    apart: Usage,
    /// A figure was unsound: nothing the stream reports is believed.
    unsound: bool,
    /// Some usage arrived.
    reported: bool,
    /// A closing usage arrived; the first event's output figure is only a placeholder.
    closed: bool,
}

impl Watch for Follower {
    fn event(&mut self, event: &[u8]) -> Seen {
        let Some(data) = sse::data(event) else {
            return Seen::Quiet;
        };
        let data = &*data;
        let typed;
        let kind = match sse::name(event).unwrap_or_default() {
            // An upstream that names no events still puts the type into the data.
            b"" => match kind_of(data) {
                Ok(kind) => {
                    typed = kind;
                    typed.as_bytes()
                }
                Err(_) => return Seen::Broken,
            },
            name => name,
        };
        match kind {
            b"content_block_delta" => {
                if !is_json(data) {
                    return Seen::Broken;
                }
                // The first piece may be an empty one.
                if self.facts.content_events > 0 || memmem::find(data, b":\"\"").is_none() {
                    self.facts.count(data.len());
                }
                Seen::Content
            }
            b"message_start" => self.take_usage(data, false),
            b"message_delta" => self.take_usage(data, true),
            b"message_stop" => {
                self.facts.finished = true;
                Seen::End
            }
            b"error" => Seen::Error,
            // Starts and stops of blocks, pings, and whatever is added one day.
            _ if is_json(data) => Seen::Quiet,
            _ => Seen::Broken,
        }
    }

    fn facts(&self) -> Facts {
        self.facts
    }
}

impl Follower {
    /// Takes usage from `message_start` (inside `message`) or `message_delta` (on top).
    fn take_usage(&mut self, data: &[u8], closing: bool) -> Seen {
        let (mut sound, mut reported) = (true, false);
        let before = self.used;
        let (used, apart) = (&mut self.used, &mut self.apart);
        let mut finish = None;
        let mut take = |scanner: &mut Scanner<'_>| {
            reported = true;
            sound &= usage(scanner, used, apart);
        };
        let walked = Scanner::new(data).and_then(|mut scanner| {
            scanner.object(|scanner, key| {
                match (key.raw, scanner.peek()?) {
                    ("usage", Kind::Object) => take(scanner),
                    ("delta", Kind::Object) => scanner.object(|scanner, key| {
                        if key.raw == "stop_reason" && scanner.peek()? == Kind::String {
                            finish = super::finish::known(scanner.string()?.raw.as_bytes());
                        }
                        Ok(())
                    })?,
                    ("message", Kind::Object) => scanner.object(|scanner, key| {
                        if key.raw == "usage" && scanner.peek()? == Kind::Object {
                            take(scanner);
                        }
                        Ok(())
                    })?,
                    _ => {}
                }
                Ok(())
            })
        });
        if walked.is_err() {
            return Seen::Broken;
        }
        self.facts.finish = finish.or(self.facts.finish);
        if self.used.prompt() == 0 {
            // The end takes nothing back of what the start told.
            let web_searches = self.used.web_searches;
            self.used = Usage {
                web_searches,
                ..before.with_answer(self.used)
            };
        }
        self.unsound |= !sound;
        self.closed |= closing && reported;
        // Figures that nobody reported must not pass for a call that was free.
        self.reported |= reported;
        let mut used = self.used;
        used += self.apart;
        let used = (self.reported && !self.unsound).then_some(used);
        self.facts.prompt = used.map(|used| Usage { output: 0, ..used });
        self.facts.usage = used.filter(|_| self.closed);
        // A closing event is a piece of the answer: it carries the reason why the model stopped.
        if closing { Seen::Content } else { Seen::Quiet }
    }
}

#[cfg(test)]
mod tests;
