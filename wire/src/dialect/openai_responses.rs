//! OpenAI Responses: `POST /v1/responses`.

mod call;
mod encode;
mod items;
pub mod made;
mod read;
mod write;

use std::sync::LazyLock;

use memchr::memmem::{self, Finder};
use serde_json::Value;

use super::finish::{self, Told};
use super::{
    Asked, Change, DecodeError, Dialect, Facts, Reader, Refusal, Reported, Seen, Watch, Writer,
    counts, is_json, model_and_cap, openai_chat, schemas, strings_behind,
};
use crate::call::{Call, Part};
use crate::json::{JsonError, Kind, Scanner, Str, quote};
use crate::loss::Losses;
use crate::reply::Reply;
use crate::scan::{self, Message, Role, count, flag, len32, trail, word};
use crate::splice::Edit;
use crate::{RequestId, Scan, ScanError, Usage, sse};

/// Tools that the provider runs itself, by the beginning of their types.
const RUN_THERE: &[&str] = &[
    "web_search",
    "file_search",
    "code_interpreter",
    "image_generation",
    "mcp",
    "computer_use",
];

pub use items::{
    input_items, item_id, reference, response_id, total_tokens, with_input, written_out,
};
pub use write::pending;

/// The dialect.
#[derive(Debug)]
pub(super) struct OpenAiResponses;

const NAME: &str = "openai_responses";

const ACTED: &[&str] = &[
    "model",
    "input",
    "instructions",
    "stream",
    "max_output_tokens",
    "service_tier",
    "tools",
    "text",
    "reasoning",
    "include",
    "previous_response_id",
    "conversation",
    "background",
    "store",
    "prompt_cache_key",
    "prompt",
    "metadata",
];
/// What a call goes by: one of them must be there.
const NEEDED: &[&str] = &["input", "prompt", "previous_response_id", "conversation"];
/// What a call includes to get reasoning sealed.
const ENCRYPTED: &str = "reasoning.encrypted_content";
/// How ids of reasoning begin.
const REASONING_ID: &str = "rs_";

impl Dialect for OpenAiResponses {
    fn name(&self) -> &'static str {
        NAME
    }

    fn path(&self) -> &'static str {
        "/v1/responses"
    }

    fn upstream_path(&self) -> &'static str {
        "/responses"
    }

    fn scan(&self, body: &[u8]) -> Result<Scan, ScanError> {
        scan::body(body, ACTED, NEEDED, field)
    }

    fn edits(&self, scan: &Scan, change: &Change<'_>) -> Vec<Edit> {
        model_and_cap(scan, change, "max_output_tokens")
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
        read::decode(body, origin)
    }

    fn encode_reply(&self, reply: &Reply, asked: &Asked, losses: &mut Losses) -> Value {
        write::encode(reply, asked, losses)
    }

    fn reader(&self, origin: &str) -> Box<dyn Reader> {
        Box::new(read::ResponsesReader::new(origin))
    }

    fn seals(&self, answer: &[u8]) -> Vec<String> {
        static NAMES: LazyLock<[Finder<'static>; 2]> =
            LazyLock::new(|| ["\"encrypted_content\"", "\"id\""].map(Finder::new));
        let [encrypted, id] = &*NAMES;
        let mut seals = strings_behind(answer, encrypted);
        // Reasoning that its origin keeps goes by its id alone.
        let ids = strings_behind(answer, id);
        seals.extend(ids.into_iter().filter(|id| id.starts_with(REASONING_ID)));
        seals
    }

    fn kept(&self, answer: &[u8]) -> Option<Value> {
        let data = sse::data(answer);
        let mut value: Value = crate::json::read(data.as_deref().unwrap_or(answer)).ok()?;
        let is_end = matches!(
            super::fields::text(&value, "type"),
            "response.completed" | "response.incomplete"
        );
        if is_end {
            value = value.get_mut("response")?.take();
        }
        (super::fields::text(&value, "object") == "response").then_some(value)
    }

    fn writer(&self, asked: Asked) -> Box<dyn Writer> {
        Box::new(write::ResponsesWriter::new(asked))
    }

    fn refuse(&self, refusal: &Refusal, request: RequestId) -> String {
        openai_chat::OpenAiChat.refuse(refusal, request)
    }

    fn refuse_in_stream(&self, refusal: &Refusal, _request: RequestId, number: u64) -> String {
        format!(
            "event: error\ndata: {{\"type\":\"error\",\"sequence_number\":{number},\"code\":\"{}\",\"message\":{},\
             \"param\":null}}\n\n",
            refusal.code,
            quote(&refusal.message)
        )
    }

    fn list_models(&self, models: &[&str]) -> String {
        openai_chat::OpenAiChat.list_models(models)
    }

    fn show_model(&self, model: &str) -> String {
        openai_chat::OpenAiChat.show_model(model)
    }

    fn key_header(&self) -> (&'static str, &'static str) {
        openai_chat::OpenAiChat.key_header()
    }
}

/// Takes one field of the body into the scan; a field not acted on is left for the scanner to skip.
fn field(scanner: &mut Scanner<'_>, name: &str, scan: &mut Scan) -> Result<(), ScanError> {
    match name {
        "model" => scan::model(scanner, scan)?,
        "input" => input(scanner, scan)?,
        "instructions" => {
            if let Some(text) = word(scanner)? {
                scan.system_at = text.at.clone();
                scan.shape.system_bytes =
                    scan.shape.system_bytes.saturating_add(len32(text.at.len()));
                scan.shape.text_bytes = scan.shape.text_bytes.saturating_add(len32(text.at.len()));
            }
        }
        "stream" => scan.stream = flag(scanner, "stream")?,
        "background" => scan.background = flag(scanner, "background")?,
        "store" => scan.is_unstored = scanner.peek()? != Kind::Null && !flag(scanner, "store")?,
        "previous_response_id" if scanner.peek()? != Kind::Null => {
            let what = "the id of a response";
            scan.previous =
                named(scanner)?.ok_or(ScanError::Wrong("previous_response_id", what))?;
        }
        "conversation" => conversation(scanner, scan)?,
        // A prompt that the provider keeps may be as long as the model takes.
        "prompt" => scan.shape.files += u32::from(scanner.peek()? == Kind::Object),
        "prompt_cache_key" => {
            if let Some(key) = word(scanner)? {
                scan.session = key.text().into_owned();
            }
        }
        "max_output_tokens" => {
            scanner.peek()?;
            let start = scanner.offset();
            scan.max_output = count(scanner, "max_output_tokens")?;
            scan.caps.push(start..scanner.offset());
        }
        "service_tier" => scan::lane(scanner, scan)?,
        "tools" if scanner.peek()? == Kind::Array => {
            let start = scanner.offset();
            scanner.array(|scanner| schemas::tool(scanner, ("parameters", RUN_THERE), scan))?;
            scan.shape.tool_bytes = len32(scanner.offset() - start);
        }
        "text" if scanner.peek()? == Kind::Object => scanner.object(|scanner, key| {
            if key.is("format") && scanner.peek()? == Kind::Object {
                format(scanner, scan)?;
            }
            Ok::<(), JsonError>(())
        })?,
        "metadata" if scanner.peek()? == Kind::Object => {
            scan::metadata(scanner, scan, |_, _, _| Ok(()))?;
        }
        "reasoning" if scanner.peek()? == Kind::Object => reasoning(scanner, scan)?,
        "include" if scanner.peek()? == Kind::Array => scanner.array(|scanner| {
            if scanner.peek()? == Kind::String {
                scan.reasons |= scanner.string()?.text() == ENCRYPTED;
            }
            Ok::<(), JsonError>(())
        })?,
        _ => {}
    }
    Ok(())
}

fn format(scanner: &mut Scanner<'_>, scan: &mut Scan) -> Result<(), JsonError> {
    scanner.object(|scanner, key| {
        if key.is("type") {
            scan.shape.schema = word(scanner)?.is_some_and(|kind| !kind.is("text"));
        }
        schemas::answer_schema(scanner, key, scan)
    })
}

fn reasoning(scanner: &mut Scanner<'_>, scan: &mut Scan) -> Result<(), JsonError> {
    scanner.object(|scanner, key| {
        scan.reasons |= scanner.peek()? == Kind::String;
        if key.is("effort") {
            scan.shape.thinking = word(scanner)?.is_some_and(|effort| !effort.is("none"));
        }
        Ok(())
    })
}

/// The conversation's id, alone or inside an object.
fn conversation(scanner: &mut Scanner<'_>, scan: &mut Scan) -> Result<(), ScanError> {
    let mut found = None;
    match scanner.peek()? {
        Kind::Null => return Ok(()),
        Kind::Object => scanner.object(|scanner, key| {
            if key.is("id") {
                found = named(scanner)?;
            }
            Ok::<(), JsonError>(())
        })?,
        _ => found = named(scanner)?,
    }
    scan.conversation = found.ok_or(ScanError::Wrong("conversation", "the id of one"))?;
    Ok(())
}

/// The id that is the value; `None` where it is none. Without it, the call would be answered as if nothing
/// had been said before.
fn named(scanner: &mut Scanner<'_>) -> Result<Option<String>, JsonError> {
    let id = word(scanner)?.map(|id| id.text().into_owned());
    Ok(id.filter(|id| !id.is_empty()))
}

fn input(scanner: &mut Scanner<'_>, scan: &mut Scan) -> Result<(), ScanError> {
    if scanner.peek()? == Kind::String {
        let mut message = Message {
            role: Role::User,
            ..Message::default()
        };
        let text = scanner.string()?;
        scan.turns_at.push(text.at.clone());
        message.texts.push(text.at);
        message.count_into(scan);
        return Ok(());
    }
    scan::messages(scanner, scan, "input", item)
}

/// Takes one field of an input item.
fn item(
    scanner: &mut Scanner<'_>,
    name: &str,
    message: &mut Message,
    scan: &mut Scan,
) -> Result<(), JsonError> {
    match (name, scanner.peek()?) {
        ("content", Kind::String) => message.text(&scanner.string()?),
        ("content", Kind::Array) => content(scanner, scan, |text| message.text(&text))?,
        ("type", Kind::String) => {
            let kind = scanner.string()?;
            let kind = kind.text();
            scan.has_references |= kind == "item_reference";
            message.results += u32::from(kind.ends_with("_call_output"));
            message.is_call = kind.ends_with("_call");
            scan.shape.tool_calls += u32::from(message.is_call);
        }
        // What is called, and with what, in either order.
        ("name" | "arguments" | "input", Kind::String) => {
            let made = trail::call(name, scanner.string()?.raw);
            message.made = message.made.wrapping_add(made);
        }
        ("action", Kind::Object) => {
            let at = scanner.skip()?;
            let made = trail::call(name, scanner.slice(at));
            message.made = message.made.wrapping_add(made);
        }
        ("output", Kind::String) => {
            let text = scanner.string()?;
            let failed = trail::failed(text.raw);
            message.told.result(len32(text.at.len()), failed);
            trail::last(Some(&text.at), scan);
        }
        ("output", Kind::Array) => {
            let (mut bytes, mut failed, mut first) = (0, false, None);
            content(scanner, scan, |text| {
                failed |= first.is_none() && trail::failed(text.raw);
                bytes += len32(text.at.len());
                first.get_or_insert(text.at);
            })?;
            message.told.result(bytes, failed);
            trail::last(first.as_ref(), scan);
        }
        ("id", Kind::String) => {
            let id = scanner.string()?;
            if id.raw.starts_with(REASONING_ID) {
                scan.seals_at.push(id.at);
            }
        }
        ("encrypted_content", Kind::String) => {
            let at = scanner.string()?.at;
            scan.seals_at.push(at);
        }
        _ => {}
    }
    Ok(())
}

fn content<'a>(
    scanner: &mut Scanner<'a>,
    scan: &mut Scan,
    mut text: impl FnMut(Str<'a>),
) -> Result<(), JsonError> {
    scanner.array(|scanner| {
        if scanner.peek()? != Kind::Object {
            return Ok(());
        }
        scanner.object(|scanner, key| {
            match key.text().as_ref() {
                "text" => {
                    if let Some(found) = word(scanner)? {
                        text(found);
                    }
                }
                "type" => {
                    if let Some(kind) = word(scanner)? {
                        scan.shape.images +=
                            u32::from(kind.is("input_image") || kind.is("input_audio"));
                        scan.shape.files += u32::from(kind.is("input_file"));
                    }
                }
                _ => {}
            }
            Ok::<(), JsonError>(())
        })
    })
}

/// What a usage object of this dialect says.
fn usage(scanner: &mut Scanner<'_>) -> Option<Usage> {
    let mut told = Reported::default();
    let sound = counts(scanner, "", &mut |name, count| match name {
        "input_tokens" => told.prompt = Some(count),
        "output_tokens" => told.answer = Some(count),
        "total_tokens" => told.total = Some(count),
        "input_tokens_details.cached_tokens" => told.used.cache_read = count,
        "input_tokens_details.cache_write_tokens" => told.used.cache_write_5m = count,
        "output_tokens_details.reasoning_tokens" => told.used.reasoning = count,
        _ => {}
    });
    told.disjoint().filter(|_| sound)
}

/// The usage of a whole answer, or of the answer inside an event.
fn usage_of(body: &[u8]) -> Option<Usage> {
    told_of(body).ok()?.usage
}

/// The same, and why the answer ended: its status, or what makes it incomplete.
fn told_of(body: &[u8]) -> Result<Told, JsonError> {
    let (mut told, mut searches) = (Told::default(), 0);
    let (mut status, mut reason) = (None, None);
    let mut take = |scanner: &mut Scanner<'_>, key: &str| {
        let kind = scanner.peek()?;
        told.note(key, kind, "output");
        match (key, kind) {
            ("usage", Kind::Object) => told.usage = usage(scanner),
            ("output", Kind::Array) => searches = web_searches(scanner)?,
            ("status", Kind::String) => {
                status = finish::known(scanner.string()?.raw.as_bytes());
            }
            ("incomplete_details", Kind::Object) => scanner.object(|scanner, key| {
                if key.raw == "reason" && scanner.peek()? == Kind::String {
                    reason = finish::known(scanner.string()?.raw.as_bytes());
                }
                Ok(())
            })?,
            _ => {}
        }
        Ok::<(), JsonError>(())
    };
    let mut scanner = Scanner::new(body)?;
    scanner.object(|scanner, key| {
        if key.raw == "response" && scanner.peek()? == Kind::Object {
            return scanner.object(|scanner, key| take(scanner, key.raw));
        }
        take(scanner, key.raw)
    })?;
    scanner.end()?;
    if let Some(used) = &mut told.usage {
        used.web_searches = searches;
    }
    told.finish = reason.or(status);
    Ok(told)
}

/// Searches among the items of an output: they are billed one by one, and what a search leads to, pages
/// that are opened, is not.
fn web_searches(scanner: &mut Scanner<'_>) -> Result<u64, JsonError> {
    let mut searches = 0;
    scanner.array(|scanner| {
        if scanner.peek()? != Kind::Object {
            return Ok(());
        }
        let (mut is_call, mut searched) = (false, true);
        scanner.object(|scanner, key| {
            match key.raw {
                "type" => is_call = word(scanner)?.is_some_and(|it| it.is("web_search_call")),
                "action" if scanner.peek()? == Kind::Object => scanner.object(|scanner, key| {
                    if key.is("type") {
                        searched = word(scanner)?.is_some_and(|it| it.is("search"));
                    }
                    Ok::<(), JsonError>(())
                })?,
                _ => {}
            }
            Ok::<(), JsonError>(())
        })?;
        searches += u64::from(is_call && searched);
        Ok::<(), JsonError>(())
    })?;
    Ok(searches)
}

#[derive(Debug, Default)]
struct Follower {
    facts: Facts,
}

impl Watch for Follower {
    fn event(&mut self, event: &[u8]) -> Seen {
        let Some(data) = sse::data(event) else {
            return Seen::Quiet;
        };
        let data = &*data;
        let typed;
        let kind = match sse::name(event).unwrap_or_default() {
            b"" => match super::kind_of(data) {
                Ok(kind) => {
                    typed = kind;
                    typed.as_bytes()
                }
                Err(_) => return Seen::Broken,
            },
            name => name,
        };
        match number_of(data) {
            Ok(number) => self.facts.numbered = number.or(self.facts.numbered),
            Err(_) if !is_json(data) => return Seen::Broken,
            Err(_) => {}
        }
        match kind {
            b"response.completed" | b"response.incomplete" => {
                let told = told_of(data).unwrap_or_default();
                (self.facts.usage, self.facts.finish) = (told.usage, told.finish);
                self.facts.finished = true;
                Seen::End
            }
            b"response.failed" | b"error" => Seen::Error,
            // An item that came without deltas still is a piece of the answer.
            b"response.output_item.done" => Seen::Content,
            kind if kind.ends_with(b".delta") => {
                // The first piece may be an empty one.
                let is_first = self.facts.content_events == 0;
                if !is_first || memmem::find(data, b"\"delta\":\"\"").is_none() {
                    self.facts.count(data.len());
                }
                Seen::Content
            }
            _ => Seen::Quiet,
        }
    }

    fn facts(&self) -> Facts {
        self.facts
    }
}

/// The number that an event carries, found while all of it is walked.
fn number_of(data: &[u8]) -> Result<Option<u64>, JsonError> {
    let (mut number, mut scanner) = (None, Scanner::new(data)?);
    scanner.object(|scanner, key| {
        if key.raw == "sequence_number" && scanner.peek()? == Kind::Number {
            number = scanner.number()?.parse().ok();
        }
        Ok::<(), JsonError>(())
    })?;
    scanner.end()?;
    Ok(number)
}
