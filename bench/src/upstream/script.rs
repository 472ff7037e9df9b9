//! What the endpoint is told to do: by its start, by a header, or by the prompt itself.

use std::path::PathBuf;

use http::HeaderMap;
use serde::Deserialize;
use serde_json::Value;

use super::request::{Turn, last_user_text};

/// A script. A call overrides parts of it with JSON in the header `x-scripted`, or in its last user
/// text between `<<script` and `>>`, because a gateway forwards no unknown header.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of its own, as a caller writes it"
)]
pub struct Script {
    /// Milliseconds to the first token.
    #[serde(alias = "first_ms")]
    pub first_token_ms: u64,
    /// Microseconds between two tokens.
    #[serde(alias = "gap_us")]
    pub token_gap_us: u64,
    /// Tokens in one event of a stream.
    pub tokens_per_event: u64,
    /// Length of the visible answer; the caller's cap cuts it.
    pub output_tokens: u64,
    /// Reasoning tokens, billed as output before the visible answer.
    pub reasoning_tokens: u64,
    /// Prompt tokens that came from the cache.
    pub cached_tokens: u64,
    /// Answer with the last user text instead of made-up words.
    pub echo: bool,
    /// Answer with the lines of the last user text that contain this word, as a summary would.
    pub digest: Option<String>,
    /// The visible text, exactly.
    pub say: Option<String>,
    /// Decline: what is said is marked as a refusal, in the dialect's own way.
    pub refuses: bool,
    /// Log probability of each token of the text, in the dialects that tell it.
    pub logprob: Option<f64>,
    /// The endpoint's own limit on answers, in tokens.
    pub most_tokens: Option<u64>,
    /// Visible reasoning before the answer.
    pub thinking: Option<String>,
    /// Tools to call, those of them that the caller offers.
    #[serde(deserialize_with = "calls")]
    pub call: Vec<ScriptedCall>,
    /// Answer with a line of JSON that says what arrived.
    pub see: bool,
    /// How often the visible text is said.
    pub repeat: u64,
    /// Write the answer in pieces of one to three bytes, so that characters are cut.
    pub split_chars: bool,
    /// Refuse what the vendor of the dialect would refuse.
    pub strict: bool,
    /// Being strict, take `reasoning_content` in messages of chat completions.
    pub takes_reasoning: bool,
    /// Whose reasoning this is: it stands in the marks on it. Only set at the start.
    pub origin: String,
    /// A play to give, or a folder of plays: see `upstream::Play`. Only set at the start.
    pub play: Option<PathBuf>,
    /// What goes wrong.
    #[serde(deserialize_with = "fault")]
    pub fault: Option<Fault>,
    /// The key that callers must present.
    pub key: Option<String>,
    /// Own prices in pico-USD a token.
    pub input_pico: u64,
    pub cached_pico: u64,
    pub output_pico: u64,
    /// Keep bodies, headers and answers in the bill.
    pub keep: bool,
    /// A file that gets a JSON line for each call billed.
    pub bill_file: Option<PathBuf>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            first_token_ms: 0,
            token_gap_us: 0,
            tokens_per_event: 1,
            output_tokens: 20,
            reasoning_tokens: 0,
            cached_tokens: 0,
            echo: false,
            digest: None,
            say: None,
            refuses: false,
            logprob: None,
            most_tokens: None,
            thinking: None,
            call: Vec::new(),
            see: false,
            repeat: 1,
            split_chars: false,
            strict: false,
            takes_reasoning: false,
            origin: "scripted".to_owned(),
            play: None,
            fault: None,
            key: None,
            input_pico: 0,
            cached_pico: 0,
            output_pico: 0,
            keep: false,
            bill_file: None,
        }
    }
}

/// A call of a tool, as a script wants it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScriptedCall {
    pub name: String,
    /// An object; or a string, which is sent as it is.
    #[serde(default)]
    pub arguments: Value,
    /// Call it whether or not it is offered.
    #[serde(default)]
    pub invented: bool,
}

/// What can go wrong. Written `name` or `name:number`, for instance `cut_after:3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// `status:CODE` or `status:CODE:RETRY_AFTER`: an error answer.
    Status(u16, Option<u64>),
    /// `refuse`: the connection closes before any answer.
    Refuse,
    /// `hang_before_headers`: silence.
    HangBeforeHeaders,
    /// `hang_after:N`: silence after N content events.
    HangAfter(usize),
    /// `cut_after:N`: the connection breaks after N content events.
    CutAfter(usize),
    /// `error_after:N`: an error event after N content events; 0 makes it the first event.
    ErrorAfter(usize),
    /// `failed_after:N`: the same, but that Responses tells it as `response.failed`.
    FailedAfter(usize),
    /// `malformed_after:N`: an event that is not JSON after N content events.
    MalformedAfter(usize),
    /// `garbage:N`: an event that is not JSON after N content events; the stream goes on.
    Garbage(usize),
    /// `cut_in_utf8:N`: after N content events half of a character, then the connection breaks.
    CutInUtf8(usize),
    /// `ignores_cap`: the caller's output cap is not heeded.
    IgnoresCap,
    /// `no_usage`: usage is not reported.
    NoUsage,
    /// `no_end`: the stream ends cleanly, without its last event.
    NoEnd,
    /// `extra_after_end`: text behind the last event.
    ExtraAfterEnd,
    /// `duplicate_end`: the last events come twice.
    DuplicateEnd,
    /// `split:N`: the body is written in pieces of N bytes, wherever that cuts.
    Split(usize),
    /// `flap:K`: every K-th call answers 503.
    Flap(u64),
    /// `hostile_usage`: negative and huge figures.
    HostileUsage,
    /// `wrong_type`: a page of HTML, with status 200.
    WrongType,
    /// `gzip`: a compressed body nobody asked for.
    Gzip,
    /// `empty`: status 200, the right type, and no body.
    Empty,
}

impl std::str::FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or_default();
        let number = parts.next().and_then(|n| n.parse::<u64>().ok());
        let second = parts.next().and_then(|n| n.parse::<u64>().ok());
        let count = number.and_then(|n| usize::try_from(n).ok());
        let status = number.and_then(|n| u16::try_from(n).ok());
        let fault = match (name, number) {
            ("status", Some(_)) => Self::Status(status.unwrap_or(500), second),
            ("refuse", None) => Self::Refuse,
            ("hang_before_headers", None) => Self::HangBeforeHeaders,
            ("hang_after", Some(_)) => Self::HangAfter(count.unwrap_or(0)),
            ("cut_after", Some(_)) => Self::CutAfter(count.unwrap_or(0)),
            ("error_after", Some(_)) => Self::ErrorAfter(count.unwrap_or(0)),
            ("failed_after", Some(_)) => Self::FailedAfter(count.unwrap_or(0)),
            ("malformed_after", Some(_)) => Self::MalformedAfter(count.unwrap_or(0)),
            ("garbage", Some(_)) => Self::Garbage(count.unwrap_or(0)),
            ("cut_in_utf8", Some(_)) => Self::CutInUtf8(count.unwrap_or(0)),
            ("ignores_cap", None) => Self::IgnoresCap,
            ("no_usage", None) => Self::NoUsage,
            ("no_end", None) => Self::NoEnd,
            ("extra_after_end", None) => Self::ExtraAfterEnd,
            ("duplicate_end", None) => Self::DuplicateEnd,
            ("wrong_type", None) => Self::WrongType,
            ("gzip", None) => Self::Gzip,
            ("empty", None) => Self::Empty,
            ("split", Some(_)) => Self::Split(count.unwrap_or(1).max(1)),
            ("flap", Some(every)) => Self::Flap(every),
            ("hostile_usage", None) => Self::HostileUsage,
            _ => return Err(format!("`{text}` is not a fault")),
        };
        Ok(fault)
    }
}

fn fault<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Fault>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| text.parse().map_err(serde::de::Error::custom))
        .transpose()
}

/// One call, or a list of them.
fn calls<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<ScriptedCall>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    read_calls(value).map_err(serde::de::Error::custom)
}

pub(super) fn read_calls(value: Value) -> serde_json::Result<Vec<ScriptedCall>> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(_) => serde_json::from_value(value),
        one => serde_json::from_value(one).map(|call| vec![call]),
    }
}

impl Script {
    /// The script as this call wants it.
    pub(super) fn overridden(
        mut self,
        turns: &[Turn<'_>],
        headers: &HeaderMap,
    ) -> Result<Self, String> {
        let header = headers
            .get("x-scripted")
            .and_then(|value| value.to_str().ok());
        if let Some(json) = header {
            self.overlay(&serde_json::from_str(json).map_err(|error| error.to_string())?)?;
        }
        if let Some((over, _)) = inside(&last_user_text(turns)) {
            self.overlay(&over.map_err(|error| error.to_string())?)?;
        }
        Ok(self)
    }

    fn overlay(&mut self, over: &Value) -> Result<(), String> {
        for (key, value) in over.as_object().ok_or("it is not an object")? {
            self.set(key, value)
                .ok_or_else(|| format!("`{key}` can not be {value}"))?;
        }
        Ok(())
    }

    /// Sets one field; nothing where there is no such field, or it can not have this value.
    fn set(&mut self, key: &str, value: &Value) -> Option<()> {
        let text = || value.as_str().map(str::to_owned);
        match key {
            "first_token_ms" | "first_ms" => self.first_token_ms = value.as_u64()?,
            "token_gap_us" | "gap_us" => self.token_gap_us = value.as_u64()?,
            "tokens_per_event" => self.tokens_per_event = value.as_u64()?,
            "output_tokens" => self.output_tokens = value.as_u64()?,
            "reasoning_tokens" => self.reasoning_tokens = value.as_u64()?,
            "cached_tokens" => self.cached_tokens = value.as_u64()?,
            "repeat" => self.repeat = value.as_u64()?,
            "echo" => self.echo = value.as_bool()?,
            "see" => self.see = value.as_bool()?,
            "split_chars" => self.split_chars = value.as_bool()?,
            "strict" => self.strict = value.as_bool()?,
            "takes_reasoning" => self.takes_reasoning = value.as_bool()?,
            "say" => self.say = Some(text()?),
            "refuses" => self.refuses = value.as_bool()?,
            "logprob" => self.logprob = Some(value.as_f64()?),
            "most_tokens" => self.most_tokens = Some(value.as_u64()?),
            "thinking" => self.thinking = Some(text()?),
            "call" => self.call = read_calls(value.clone()).ok()?,
            "fault" => self.fault = Some(text()?.parse().ok()?),
            _ => return None,
        }
        Some(())
    }
}

/// The script inside a text, and the text without it. The JSON is read to its own end, because
/// `>>` may stand in it.
fn inside(text: &str) -> Option<(serde_json::Result<Value>, String)> {
    let (before, rest) = text.split_once("<<script")?;
    let mut reader = serde_json::Deserializer::from_str(rest).into_iter();
    let read = reader.next();
    let (json, behind) = rest.split_at_checked(reader.byte_offset())?;
    match (read, behind.trim_start().strip_prefix(">>")) {
        (Some(Ok(over)), Some(behind)) if !json.is_empty() => {
            Some((Ok(over), format!("{before}{behind}")))
        }
        _ => {
            let (json, behind) = rest.split_once(">>")?;
            Some((serde_json::from_str(json), format!("{before}{behind}")))
        }
    }
}

/// A text without the script in it.
pub(super) fn without_script(text: String) -> String {
    inside(&text).map_or(text, |(_, rest)| rest)
}

/// Four bytes of text a token, rounded up: a function of the request alone.
pub(super) fn prompt_tokens(request: &Value, fields: &[&str]) -> u64 {
    let text: usize = fields.iter().map(|name| bytes(&request[*name])).sum();
    u64::try_from(text.div_ceil(4)).unwrap_or(0)
}

fn bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(bytes).sum(),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| key.len() + bytes(value))
            .sum(),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(text: &str) -> Result<Script, String> {
        let request = serde_json::json!({ "messages": [{ "role": "user", "content": text }] });
        let turns = super::super::request::turns(&request, super::super::request::Dialect::Chat);
        Script::default().overridden(&turns, &HeaderMap::new())
    }

    #[test]
    fn a_script_in_the_prompt_overrides_the_fields_it_names() {
        let script = over("Hi <<script {\"say\":\"a >> b\",\"gap_us\":5}>> there").unwrap();
        assert_eq!(
            (script.say.as_deref(), script.token_gap_us),
            (Some("a >> b"), 5)
        );
        let call = over("<<script{\"call\":{\"name\":\"f\"},\"fault\":\"garbage:2\"}>>").unwrap();
        assert_eq!(call.call.first().map(|call| call.name.as_str()), Some("f"));
        assert_eq!(call.fault, Some(Fault::Garbage(2)));
        let several = over("<<script{\"call\":[{\"name\":\"f\"},{\"name\":\"g\"}]}>>").unwrap();
        assert_eq!(several.call.len(), 2);
        assert_eq!(without_script("a <<script{}>> b".to_owned()), "a  b");
    }

    #[test]
    fn a_script_that_can_not_be_followed_is_an_error() {
        assert!(over("<<script {\"sya\":\"a\"}>>").is_err());
        assert!(over("<<script {\"say\":1}>>").is_err());
        assert!(over("<<script {>>").is_err());
        assert!(over("<<script without an end").is_ok(), "it is only text");
    }
}
