//! The header fields of a call: the caller's that may go on, and our own. What an endpoint gets with every
//! call is written once.

use std::fmt;
use std::io::Write;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use memchr::memmem::Finder;
use wire::{Dialect, RequestId};

use crate::otlp::context::Spot;

/// Headers of the caller that go on to an endpoint of the caller's dialect; everything else stays
/// here, keys above all, and whose account is charged.
const FORWARDED: [&str; 7] = [
    "anthropic-version",
    "anthropic-beta",
    "openai-beta",
    "originator",
    "x-app",
    "x-claude-code-session-id",
    "x-client-request-id",
];
/// And those that begin like this.
const PREFIXES: [&str; 2] = ["x-stainless-", "x-codex-"];
/// Headers that mean the same to every endpoint.
const NEUTRAL: [&str; 3] = ["session-id", "thread-id", "x-session-id"];
/// Letters of a key that is looked for in what an endpoint says: fewer stand there for other reasons.
const LEAST_KEY: usize = 8;
/// What is taken by a caller that does not say.
static ANY: HeaderValue = HeaderValue::from_static("*/*");

/// What every call to an endpoint has.
pub(super) struct Own {
    dialect: &'static dyn Dialect,
    fields: Vec<(HeaderName, HeaderValue)>,
    /// The same as lines.
    lines: Vec<u8>,
    /// The key, where it is long enough to be known by.
    key: Option<Finder<'static>>,
}

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Own")
    }
}

impl PartialEq for Own {
    fn eq(&self, other: &Self) -> bool {
        self.lines == other.lines
    }
}

impl Own {
    /// Fields of `dialect`, with the endpoint's key where it wants one.
    pub(super) fn new(dialect: &'static dyn Dialect, key: Option<&str>) -> Result<Self, String> {
        let mut fields = vec![
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            // A compressed answer could not be followed byte by byte.
            (ACCEPT_ENCODING, HeaderValue::from_static("identity")),
        ];
        if let Some(key) = key {
            let (name, scheme) = dialect.key_header();
            let mut value = HeaderValue::from_str(&format!("{scheme}{key}"))
                .map_err(|_| "the key has characters that no header can carry".to_owned())?;
            value.set_sensitive(true);
            fields.push((HeaderName::from_static(name), value));
        }
        let mut lines = Vec::new();
        for (name, value) in &fields {
            line(&mut lines, name.as_str(), value.as_bytes());
        }
        let key = key.filter(|key| key.len() >= LEAST_KEY);
        Ok(Self {
            dialect,
            fields,
            lines,
            key: key.map(|key| Finder::new(key).into_owned()),
        })
    }

    /// `text` with stars for the key, wherever it stands.
    pub(super) fn without_key(&self, text: Bytes) -> Bytes {
        let Some(key) = &self.key else { return text };
        let (mut left, mut end) = (Vec::new(), 0);
        for at in key.find_iter(&text) {
            left.extend_from_slice(text.get(end..at).unwrap_or_default());
            left.extend_from_slice(b"***");
            end = at + key.needle().len();
        }
        if end == 0 {
            return text;
        }
        left.extend_from_slice(text.get(end..).unwrap_or_default());
        left.into()
    }
}

/// The fields of one call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a> {
    pub(super) own: &'a Own,
    pub(super) caller: &'a HeaderMap,
    /// The endpoint speaks the caller's dialect.
    pub(super) at_home: bool,
    pub(super) request: RequestId,
    pub(super) attempt: Option<u16>,
    /// The header that tells how many milliseconds are left.
    pub(super) left_ms: Option<(&'a HeaderName, u64)>,
    /// Where the attempt stands in its trace.
    pub(super) spot: Option<Spot>,
}

impl<'a> Fields<'a> {
    /// The caller's fields that go on, and what the dialect asks for where the caller says nothing.
    fn forwarded(self) -> impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)> {
        self.caller.iter().filter(move |(name, _)| {
            let text = name.as_str();
            let is_own =
                FORWARDED.contains(&text) || PREFIXES.iter().any(|prefix| text.starts_with(prefix));
            NEUTRAL.contains(&text) || (self.at_home && is_own)
        })
    }

    /// What the dialect asks for, where the caller has not said it.
    fn asked_for(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let fields = self.own.dialect.headers().iter().copied();
        fields.filter(move |(name, _)| !self.forwarded().any(|(said, _)| said == name))
    }

    fn accept(self) -> &'a HeaderValue {
        self.caller.get(ACCEPT).unwrap_or(&ANY)
    }

    /// As lines of a head.
    pub(super) fn write(self, out: &mut Vec<u8>) {
        for (name, value) in self.forwarded() {
            line(out, name.as_str(), value.as_bytes());
        }
        for (name, value) in self.asked_for() {
            line(out, name, value.as_bytes());
        }
        line(out, ACCEPT.as_str(), self.accept().as_bytes());
        out.extend_from_slice(&self.own.lines);
        // Writing to memory does not fail.
        let _written = write!(out, "x-request-id: {}\r\n", self.request);
        if let Some(attempt) = self.attempt {
            let _written = write!(out, "x-pareto-attempt: {attempt}\r\n");
        }
        if let Some((name, ms)) = self.left_ms {
            let _written = write!(out, "{name}: {ms}\r\n");
        }
        if let Some(spot) = self.spot {
            let _written = write!(out, "traceparent: {spot}\r\n");
        }
    }

    /// As a map.
    pub(super) fn map(self) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(16);
        for (name, value) in self.forwarded() {
            map.append(name.clone(), value.clone());
        }
        for (name, value) in self.asked_for() {
            map.insert(name, HeaderValue::from_static(value));
        }
        map.insert(ACCEPT, self.accept().clone());
        for (name, value) in &self.own.fields {
            map.insert(name.clone(), value.clone());
        }
        if let Ok(id) = HeaderValue::from_str(&self.request.to_string()) {
            map.insert("x-request-id", id);
        }
        if let Some(attempt) = self.attempt {
            map.insert("x-pareto-attempt", HeaderValue::from(attempt));
        }
        if let Some((name, ms)) = self.left_ms {
            map.insert(name.clone(), HeaderValue::from(ms));
        }
        if let Some(Ok(spot)) = self.spot.map(|it| HeaderValue::from_str(&it.to_string())) {
            map.insert("traceparent", spot);
        }
        map
    }
}

fn line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use wire::dialect::{ANTHROPIC_MESSAGES, OPENAI_CHAT};

    use super::*;

    #[test]
    fn lines_and_map_say_the_same_and_nothing_of_the_callers_key() {
        let mut caller = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer caller"),
            ("x-api-key", "caller"),
            ("cookie", "caller"),
            ("host", "caller"),
            ("x-request-id", "caller"),
            ("content-length", "9"),
            ("accept", "text/event-stream"),
            ("anthropic-version", "2099-01-01"),
            ("anthropic-beta", "one"),
            ("anthropic-beta", "two"),
            ("x-stainless-lang", "rust"),
            ("traceparent", "00-caller-2-3"),
            ("tracestate", "caller=1"),
        ] {
            caller.append(name, HeaderValue::from_static(value));
        }
        let empty = HeaderMap::new();
        let left = HeaderName::from_static("x-request-timeout-ms");
        let spot = Spot {
            trace: [1; 16],
            span: [2; 8],
            is_sampled: true,
        };
        for dialect in [OPENAI_CHAT, ANTHROPIC_MESSAGES] {
            let own = Own::new(dialect, Some("ours")).unwrap();
            for (caller, at_home) in [(&caller, true), (&caller, false), (&empty, true)] {
                let fields = Fields {
                    own: &own,
                    caller,
                    at_home,
                    request: RequestId::new(1, [7; 10]),
                    attempt: Some(2),
                    left_ms: Some((&left, 700)),
                    spot: Some(spot),
                };
                let mut lines = Vec::new();
                fields.write(&mut lines);
                let lines = String::from_utf8(lines).unwrap();
                let written: BTreeSet<_> = lines.lines().map(str::to_owned).collect();
                let map = fields.map();
                let mapped = map.iter().map(|(name, value)| {
                    let value = std::str::from_utf8(value.as_bytes()).unwrap();
                    format!("{name}: {value}")
                });
                assert_eq!(written, mapped.collect());
                assert_eq!(lines.lines().count(), map.len(), "{lines}");
                assert!(!lines.contains("caller"), "{lines}");
                assert_eq!(lines.contains("x-stainless"), at_home && !caller.is_empty());
                assert!(lines.contains(&format!("traceparent: {spot}\r\n")));
                let (key, scheme) = dialect.key_header();
                assert!(
                    lines.contains(&format!("{key}: {scheme}ours\r\n")),
                    "{lines}"
                );
                assert!(map[key].is_sensitive());
            }
        }
    }
}
