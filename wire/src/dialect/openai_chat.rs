//! OpenAI Chat Completions: `POST /v1/chat/completions`.

mod call;
mod encode;
mod read;
mod reply;

use std::ops::Range;
use std::sync::LazyLock;

use bytes::Bytes;
use memchr::memmem::Finder;
use serde_json::Value;

use super::alike::Alike;
use super::{
    Asked, Change, DecodeError, Dialect, Facts, Reader, Refusal, Reported, Seen, Watch, Writer,
    counts, insert, is_json, is_object, model_and_cap, schemas, strings_behind,
};
use crate::call::{Call, Part};
use crate::json::{JsonError, Kind, Scanner, quote};
use crate::loss::Losses;
use crate::reply::Reply;
use crate::scan::{self, Acted, Message, count, flag, len32, trail, word};
use crate::splice::Edit;
use crate::{RequestId, Scan, ScanError, Usage, sse};

/// The dialect.
#[derive(Debug)]
pub(super) struct OpenAiChat;

const NAME: &str = "openai_chat";
/// What stands before the word for why an answer ended.
const FINISH: &[u8] = b"\"finish_reason\":\"";

const ACTED: &[&str] = &[
    "model",
    "messages",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "n",
    "service_tier",
    "tools",
    "response_format",
    "reasoning_effort",
    "web_search_options",
    "prompt_cache_key",
    "metadata",
];

impl Dialect for OpenAiChat {
    fn name(&self) -> &'static str {
        NAME
    }

    fn path(&self) -> &'static str {
        "/v1/chat/completions"
    }

    fn upstream_path(&self) -> &'static str {
        "/chat/completions"
    }

    fn scan(&self, body: &[u8]) -> Result<Scan, ScanError> {
        scan::body(body, ACTED, &["messages"], field)
    }

    fn edits(&self, scan: &Scan, change: &Change<'_>) -> Vec<Edit> {
        let cap_field = match change.cap_field {
            "" => "max_completion_tokens",
            name => name,
        };
        let mut edits = model_and_cap(scan, change, cap_field);
        if scan.stream && !scan.include_usage {
            edits.push(ask_for_usage(scan));
        }
        // Two insertions at the head become one edit, so that none overlaps another.
        merge_head(edits, scan.head_at)
    }

    fn watch(&self) -> Box<dyn Watch> {
        Box::new(Follower::new())
    }

    fn usage(&self, reply: &[u8]) -> Option<Usage> {
        usage_of(reply)
    }

    fn facts(&self, reply: &[u8]) -> Option<Facts> {
        // One walk says both, but for what is JSON and yet no answer.
        match chunk(reply) {
            Ok(chunk) if chunk.error && chunk.choices == 0 => None,
            Ok(chunk) => Some(Facts {
                finish: chunk.finish,
                ..Facts::of_reply(chunk.usage, reply)
            }),
            Err(_) => is_object(reply).then(|| Facts::of_reply(None, reply)),
        }
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

    fn carries_seals(&self) -> bool {
        false
    }

    /// Reasoning has no signature here; the text itself is what comes back.
    fn seals(&self, answer: &[u8]) -> Vec<String> {
        static NAMES: LazyLock<[Finder<'static>; 2]> =
            LazyLock::new(|| ["\"reasoning_content\"", "\"reasoning\""].map(Finder::new));
        let names = NAMES.iter();
        names
            .flat_map(|name| strings_behind(answer, name))
            .collect()
    }

    fn reader(&self, origin: &str) -> Box<dyn Reader> {
        Box::new(read::ChatReader::new(origin))
    }

    fn writer(&self, asked: Asked) -> Box<dyn Writer> {
        Box::new(reply::ChatWriter::new(asked))
    }

    fn refuse(&self, refusal: &Refusal, _request: RequestId) -> String {
        let kind = match refusal.status {
            429 if refusal.is_final => "insufficient_quota",
            429 => "rate_limit_error",
            400..=499 => "invalid_request_error",
            _ => "server_error",
        };
        let param = param_of(refusal).map_or("null".into(), quote);
        format!(
            "{{\"error\":{{\"message\":{},\"type\":\"{kind}\",\"param\":{param},\"code\":\"{}\"}}}}",
            quote(&refusal.message),
            refusal.code
        )
    }

    fn refuse_in_stream(&self, refusal: &Refusal, request: RequestId, _number: u64) -> String {
        format!("data: {}\n\n", self.refuse(refusal, request))
    }

    fn list_models(&self, models: &[&str]) -> String {
        let all: Vec<String> = models.iter().map(|model| self.show_model(model)).collect();
        format!("{{\"object\":\"list\",\"data\":[{}]}}", all.join(","))
    }

    fn show_model(&self, model: &str) -> String {
        let id = quote(model);
        format!("{{\"id\":{id},\"object\":\"model\",\"created\":0,\"owned_by\":\"pareto\"}}")
    }

    fn key_header(&self) -> (&'static str, &'static str) {
        ("authorization", "Bearer ")
    }
}

/// The field that a refusal is about, where it is about one: its message names that first.
fn param_of(refusal: &Refusal) -> Option<&str> {
    match refusal.code {
        "model_not_found" | "model_not_allowed" => return Some("model"),
        "previous_response_not_found" => return Some("previous_response_id"),
        "invalid_field" | "duplicate_field" => {}
        _ => return None,
    }
    let named = refusal.message.split('`').nth(1)?;
    // Ids and headers are no fields.
    let is_field = |c: char| c.is_ascii_lowercase() || matches!(c, '_' | '.');
    (!named.is_empty() && named.chars().all(is_field)).then_some(named)
}

/// Takes one field of the body into the scan; a field not acted on is left for the scanner to skip.
fn field(scanner: &mut Scanner<'_>, name: &str, scan: &mut Scan) -> Result<(), ScanError> {
    match name {
        "model" => scan::model(scanner, scan)?,
        "messages" => scan::messages(scanner, scan, "messages", message)?,
        "stream" => scan.stream = flag(scanner, "stream")?,
        "stream_options" => stream_options(scanner, scan)?,
        "max_tokens" => cap(scanner, "max_tokens", scan)?,
        "max_completion_tokens" => cap(scanner, "max_completion_tokens", scan)?,
        "n" => scan.answers = count(scanner, "n")?.unwrap_or(1).max(1),
        "service_tier" => scan::lane(scanner, scan)?,
        "tools" if scanner.peek()? == Kind::Array => {
            let start = scanner.offset();
            scanner.array(|scanner| tool(scanner, scan))?;
            scan.shape.tool_bytes = len32(scanner.offset() - start);
        }
        "response_format" if scanner.peek()? == Kind::Object => response_format(scanner, scan)?,
        "metadata" if scanner.peek()? == Kind::Object => {
            scan::metadata(scanner, scan, |_, _, _| Ok(()))?;
        }
        "web_search_options" => {
            scan.shape.server_tools += u32::from(scanner.peek()? == Kind::Object);
        }
        "prompt_cache_key" => {
            if let Some(key) = word(scanner)? {
                scan.session = key.text().into_owned();
            }
        }
        "reasoning_effort" => {
            let effort = word(scanner)?;
            scan.reasons = effort.is_some();
            scan.shape.thinking = effort.is_some_and(|effort| !effort.is("none"));
        }
        _ => {}
    }
    Ok(())
}

/// Takes a tool: what its parameters ask for.
fn tool(scanner: &mut Scanner<'_>, scan: &mut Scan) -> Result<(), JsonError> {
    scan.shape.tools += 1;
    if scanner.peek()? != Kind::Object {
        return Ok(());
    }
    scanner.object(|scanner, key| match (key.raw, scanner.peek()?) {
        ("function", Kind::Object) => {
            scanner.object(|scanner, key| schemas::declared(scanner, key, "parameters", scan))
        }
        _ => Ok(()),
    })
}

fn response_format(scanner: &mut Scanner<'_>, scan: &mut Scan) -> Result<(), JsonError> {
    scanner.object(|scanner, key| {
        match (key.raw, scanner.peek()?) {
            ("type", _) => {
                scan.shape.schema = word(scanner)?.is_some_and(|kind| !kind.is("text"));
            }
            ("json_schema", Kind::Object) => {
                scanner.object(|scanner, key| schemas::answer_schema(scanner, key, scan))?;
            }
            _ => {}
        }
        Ok(())
    })
}

fn cap(scanner: &mut Scanner<'_>, name: &'static str, scan: &mut Scan) -> Result<(), ScanError> {
    scanner.peek()?;
    let start = scanner.offset();
    if let Some(cap) = count(scanner, name)? {
        scan.max_output = Some(scan.max_output.map_or(cap, |other| other.min(cap)));
    }
    scan.caps.push(start..scanner.offset());
    Ok(())
}

fn stream_options(scanner: &mut Scanner<'_>, scan: &mut Scan) -> Result<(), ScanError> {
    let kind = scanner.peek()?;
    let start = scanner.offset();
    if kind != Kind::Object {
        let at = scanner.skip()?;
        scan.usage_edit = Some(edit(at, "{\"include_usage\":true}"));
        return Ok(());
    }
    let mut acted = Acted::new(&["include_usage"]);
    let mut value_at = None;
    let mut empty = true;
    scanner.object(|scanner, key| {
        empty = false;
        if acted.name(key)? == "include_usage" {
            scanner.peek()?;
            let value = scanner.offset();
            scan.include_usage = flag(scanner, "stream_options.include_usage")?;
            value_at = Some(value..scanner.offset());
        }
        Ok::<(), ScanError>(())
    })?;
    scan.usage_edit = Some(match value_at {
        Some(at) => edit(at, "true"),
        None if empty => edit(start + 1..start + 1, "\"include_usage\":true"),
        None => edit(start + 1..start + 1, "\"include_usage\":true,"),
    });
    Ok(())
}

fn edit(at: Range<usize>, with: &'static str) -> Edit {
    Edit {
        at,
        with: Bytes::from_static(with.as_bytes()),
    }
}

/// Asks the upstream for usage, which the caller did not; other stream options stay.
fn ask_for_usage(scan: &Scan) -> Edit {
    let switch = || insert(scan, "\"stream_options\":{\"include_usage\":true}");
    scan.usage_edit.clone().unwrap_or_else(switch)
}

fn merge_head(edits: Vec<Edit>, head_at: usize) -> Vec<Edit> {
    let at_head = |edit: &Edit| edit.at == (head_at..head_at);
    if edits.iter().filter(|edit| at_head(edit)).count() < 2 {
        return edits;
    }
    let (head, mut rest): (Vec<_>, Vec<_>) = edits.into_iter().partition(at_head);
    let with: Vec<u8> = head
        .iter()
        .flat_map(|edit| edit.with.iter().copied())
        .collect();
    rest.push(Edit {
        at: head_at..head_at,
        with: Bytes::from(with),
    });
    rest
}

/// Takes one field of a message.
fn message(
    scanner: &mut Scanner<'_>,
    name: &str,
    message: &mut Message,
    scan: &mut Scan,
) -> Result<(), JsonError> {
    match name {
        "content" => content(scanner, message, scan),
        "reasoning_content" | "reasoning" if scanner.peek()? == Kind::String => {
            let at = scanner.string()?.at;
            scan.seals_at.push(at);
            Ok(())
        }
        "tool_calls" if scanner.peek()? == Kind::Array => scanner.array(|scanner| {
            scan.shape.tool_calls += 1;
            called(scanner, message)
        }),
        _ => Ok(()),
    }
}

/// Takes a call of a tool.
fn called(scanner: &mut Scanner<'_>, message: &mut Message) -> Result<(), JsonError> {
    if scanner.peek()? != Kind::Object {
        return Ok(());
    }
    let (mut name, mut arguments) = ("", "");
    scanner.object(|scanner, key| match (key.raw, scanner.peek()?) {
        ("function" | "custom", Kind::Object) => scanner.object(|scanner, key| {
            match (key.raw, scanner.peek()?) {
                ("name", Kind::String) => name = scanner.string()?.raw,
                ("arguments" | "input", Kind::String) => arguments = scanner.string()?.raw,
                _ => {}
            }
            Ok(())
        }),
        _ => Ok::<(), JsonError>(()),
    })?;
    message.made = message.made.wrapping_add(trail::call(name, arguments));
    Ok(())
}

fn content(
    scanner: &mut Scanner<'_>,
    message: &mut Message,
    scan: &mut Scan,
) -> Result<(), JsonError> {
    match scanner.peek()? {
        Kind::String => message.text(&scanner.string()?),
        Kind::Array => scanner.array(|scanner| {
            if scanner.peek()? != Kind::Object {
                return Ok(());
            }
            scanner.object(|scanner, key| {
                match key.text().as_ref() {
                    "text" => {
                        if let Some(text) = word(scanner)? {
                            message.text(&text);
                        }
                    }
                    "image_url" | "input_audio" => scan.shape.images += 1,
                    "file" => scan.shape.files += 1,
                    _ => {}
                }
                Ok::<(), JsonError>(())
            })
        })?,
        _ => {}
    }
    Ok(())
}

/// What a chunk or a whole reply says, as far as metering asks.
#[derive(Debug, Default)]
struct Chunk {
    usage: Option<Usage>,
    choices: u32,
    content: bool,
    finished: bool,
    finish: Option<&'static str>,
    error: bool,
}

fn chunk(data: &[u8]) -> Result<Chunk, JsonError> {
    let mut chunk = Chunk::default();
    // An error, where nothing else is there.
    let mut detail = false;
    let mut scanner = Scanner::new(data)?;
    scanner.object(|scanner, key| {
        match (key.raw, scanner.peek()?) {
            ("usage", Kind::Object) => chunk.usage = usage(scanner),
            ("error", Kind::Object | Kind::String) => chunk.error = true,
            // Words of older servers and of their frameworks.
            ("object", Kind::String) => chunk.error |= scanner.string()?.is("error"),
            ("detail", Kind::Object | Kind::Array | Kind::String) => detail = true,
            ("choices", Kind::Array) => scanner.array(|scanner| {
                chunk.choices += 1;
                choice(scanner, &mut chunk)
            })?,
            _ => {}
        }
        Ok::<(), JsonError>(())
    })?;
    scanner.end()?;
    chunk.error |= detail && chunk.choices == 0 && chunk.usage.is_none();
    Ok(chunk)
}

fn choice(scanner: &mut Scanner<'_>, chunk: &mut Chunk) -> Result<(), JsonError> {
    scanner.object(|scanner, key| {
        match (key.raw, scanner.peek()?) {
            ("finish_reason", Kind::String) => {
                let word = scanner.string()?;
                if reply::FAILED.iter().any(|failed| word.is(failed)) {
                    chunk.error = true;
                } else {
                    chunk.finished = true;
                    chunk.finish = super::finish::known(word.raw.as_bytes());
                }
            }
            ("text", Kind::String) => chunk.content |= !scanner.string()?.raw.is_empty(),
            ("delta" | "message", Kind::Object) => scanner.object(|scanner, key| {
                let kind = scanner.peek()?;
                chunk.content |= match (key.raw, kind) {
                    ("role", _) => false,
                    (_, Kind::String) => !scanner.string()?.raw.is_empty(),
                    (_, Kind::Array | Kind::Object) => true,
                    _ => false,
                };
                Ok::<(), JsonError>(())
            })?,
            _ => {}
        }
        Ok(())
    })
}

/// The usage that a chunk or a whole answer reports.
fn usage_of(data: &[u8]) -> Option<Usage> {
    chunk(data).ok()?.usage
}

/// What a usage object of this dialect says, by the names of all vendors that speak it.
fn usage(scanner: &mut Scanner<'_>) -> Option<Usage> {
    let mut told = Reported::default();
    let sound = counts(scanner, "", &mut |name, count| match name {
        "prompt_tokens" => told.prompt = Some(count),
        "completion_tokens" => told.answer = Some(count),
        "total_tokens" => told.total = Some(count),
        "prompt_tokens_details.cached_tokens" => told.used.cache_read = count,
        // DeepSeek's and Moonshot's own words.
        "prompt_cache_hit_tokens" | "cached_tokens" => told.cached = told.cached.max(count),
        // The second is Alibaba's.
        "prompt_tokens_details.cache_write_tokens"
        | "prompt_tokens_details.cache_creation_input_tokens" => told.used.cache_write_5m = count,
        "prompt_tokens_details.audio_tokens" => told.used.audio_input = count,
        "completion_tokens_details.reasoning_tokens" => told.used.reasoning = count,
        "completion_tokens_details.audio_tokens" => told.used.audio_output = count,
        _ => {}
    });
    told.disjoint().filter(|_| sound)
}

#[derive(Debug)]
struct Follower {
    facts: Facts,
    usage: Finder<'static>,
    choices: Finder<'static>,
    finish: Finder<'static>,
    error: Finder<'static>,
    /// The last chunk with a piece of the answer and nothing else, and those like it.
    content: Alike,
}

impl Watch for Follower {
    fn event(&mut self, event: &[u8]) -> Seen {
        let Some(data) = sse::data(event) else {
            return Seen::Quiet;
        };
        let data = &*data;
        if data == b"[DONE]" {
            self.facts.finished = true;
            return Seen::End;
        }
        if self.content.is(data) {
            self.facts.count(data.len());
            return Seen::Content;
        }
        // Once content flows, a chunk is only searched for four words, not parsed.
        let flows = self.facts.content_events > 0 && self.choices.find(data).is_some();
        if flows && !self.reports_usage(data) && self.error.find(data).is_none() {
            if !is_json(data) {
                return Seen::Broken;
            }
            if let Some(at) = self.finish.find(data) {
                let word = data.get(at + FINISH.len()..).unwrap_or_default();
                self.facts.finish = super::finish::known(word);
                if self.facts.finish.is_none() {
                    return self.parse(data);
                }
                self.facts.finished = true;
            } else {
                self.content.know(data);
            }
            self.facts.count(data.len());
            return Seen::Content;
        }
        if sse::name(event) == Some(b"error") {
            return Seen::Error;
        }
        self.parse(data)
    }

    fn facts(&self) -> Facts {
        self.facts
    }
}

impl Follower {
    fn new() -> Self {
        Self {
            facts: Facts::default(),
            usage: Finder::new(b"\"usage\"").into_owned(),
            choices: Finder::new(b"\"choices\"").into_owned(),
            finish: Finder::new(FINISH).into_owned(),
            error: Finder::new(b"\"error\"").into_owned(),
            content: Alike::default(),
        }
    }

    /// Whether a `usage` that is not `null` may stand in the chunk.
    fn reports_usage(&self, data: &[u8]) -> bool {
        self.usage
            .find(data)
            .and_then(|at| data.get(at + 7..))
            .is_some_and(|rest| {
                rest.iter().find(|byte| !matches!(byte, b':' | b' ')) != Some(&b'n')
            })
    }

    fn parse(&mut self, data: &[u8]) -> Seen {
        let Ok(chunk) = chunk(data) else {
            return Seen::Broken;
        };
        if chunk.error {
            return Seen::Error;
        }
        if let Some(usage) = chunk.usage {
            self.facts.usage = Some(usage.behind(self.facts.usage.unwrap_or_default()));
        }
        self.facts.finished |= chunk.finished;
        self.facts.finish = chunk.finish.or(self.facts.finish);
        if chunk.choices == 0 {
            return if chunk.usage.is_some() {
                Seen::UsageOnly
            } else {
                Seen::Quiet
            };
        }
        if !chunk.content && !chunk.finished {
            return Seen::Quiet;
        }
        if chunk.content {
            self.facts.count(data.len());
        }
        Seen::Content
    }
}

#[cfg(test)]
mod tests;
