//! What the endpoint is told to do: by its start, by a header, or by the prompt itself.

use std::path::PathBuf;

use http::HeaderMap;
use serde::Deserialize;
use serde_json::Value;

/// A script. A call overrides parts of it with JSON in the header `x-scripted`, or in its last user
/// text between `<<script` and `>>`, because a gateway forwards no unknown header.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Script {
    /// Milliseconds to the first token.
    pub first_token_ms: u64,
    /// Microseconds between two tokens.
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
    /// `malformed_after:N`: an event that is not JSON after N content events.
    MalformedAfter(usize),
    /// `no_usage`: usage is not reported.
    NoUsage,
    /// `no_end`: the stream ends cleanly, without its last event.
    NoEnd,
    /// `extra_after_end`: text behind the last event.
    ExtraAfterEnd,
    /// `split:N`: the body is written in pieces of N bytes, wherever that cuts.
    Split(usize),
    /// `flap:K`: every K-th call answers 503.
    Flap(u64),
    /// `hostile_usage`: negative and huge figures.
    HostileUsage,
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
            ("malformed_after", Some(_)) => Self::MalformedAfter(count.unwrap_or(0)),
            ("no_usage", None) => Self::NoUsage,
            ("no_end", None) => Self::NoEnd,
            ("extra_after_end", None) => Self::ExtraAfterEnd,
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

impl Script {
    /// The script as this call wants it.
    pub(super) fn overridden(
        mut self,
        request: &Value,
        headers: &HeaderMap,
    ) -> Result<Self, String> {
        let header = headers
            .get("x-scripted")
            .and_then(|value| value.to_str().ok());
        let text = last_user_text(request);
        let inside = text
            .split_once("<<script")
            .and_then(|(_, rest)| rest.split_once(">>"));
        for json in header.into_iter().chain(inside.map(|(json, _)| json)) {
            self.overlay(json)?;
        }
        Ok(self)
    }

    fn overlay(&mut self, json: &str) -> Result<(), String> {
        let over: Value = serde_json::from_str(json).map_err(|error| error.to_string())?;
        let number = |name: &str| over[name].as_u64();
        for (name, field) in [
            ("first_token_ms", &mut self.first_token_ms),
            ("token_gap_us", &mut self.token_gap_us),
            ("tokens_per_event", &mut self.tokens_per_event),
            ("output_tokens", &mut self.output_tokens),
            ("reasoning_tokens", &mut self.reasoning_tokens),
            ("cached_tokens", &mut self.cached_tokens),
        ] {
            *field = number(name).unwrap_or(*field);
        }
        self.echo = over["echo"].as_bool().unwrap_or(self.echo);
        if let Some(fault) = over["fault"].as_str() {
            self.fault = Some(fault.parse()?);
        }
        Ok(())
    }
}

/// Four bytes of text a token, rounded up: a function of the request alone.
pub(super) fn prompt_tokens(request: &Value) -> u64 {
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
    let text: usize = ["messages", "system", "tools"]
        .iter()
        .map(|name| bytes(&request[*name]))
        .sum();
    u64::try_from(text.div_ceil(4)).unwrap_or(0)
}

/// The last text of role `user`.
pub(super) fn last_user_text(request: &Value) -> String {
    let messages = request["messages"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let last = messages
        .iter()
        .rev()
        .find(|message| message["role"] == "user");
    match last.map(|message| &message["content"]) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => parts
            .iter()
            .filter_map(|part| part["text"].as_str())
            .collect::<Vec<_>>()
            .join("\n"),
        _ => String::new(),
    }
}
