//! Spans of calls and of their attempts, and the attributes that they are made of.

use meter::Outcome;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};

use super::call::{Attempt, Ended, nanos};
use super::context::Spot;
use super::semconv as name;
use crate::request_log::Redaction;

/// Bits of a span's flags: it is known whether its parent is of another process, and it is.
const KNOWS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// Attributes under way. Texts are made fit to leave where they are put in.
pub(super) struct Attributes<'a> {
    list: Vec<KeyValue>,
    redaction: &'a Redaction,
}

impl<'a> Attributes<'a> {
    pub(super) fn new(redaction: &'a Redaction) -> Self {
        let list = Vec::with_capacity(32);
        Self { list, redaction }
    }

    /// A text, unless it is empty.
    pub(super) fn text(&mut self, key: &str, text: &str) {
        if !text.is_empty() {
            let text = self.redaction.of(text).into_owned();
            self.list.push(pair(key, Value::StringValue(text)));
        }
    }

    pub(super) fn count(&mut self, key: &str, count: impl TryInto<i64>) {
        let count = count.try_into().unwrap_or(i64::MAX);
        self.list.push(pair(key, Value::IntValue(count)));
    }

    pub(super) fn flag(&mut self, key: &str, is_set: bool) {
        self.list.push(pair(key, Value::BoolValue(is_set)));
    }

    pub(super) fn number(&mut self, key: &str, number: f64) {
        self.list.push(pair(key, Value::DoubleValue(number)));
    }

    pub(super) fn words(&mut self, key: &str, words: &[&str]) {
        let value = |it: &&str| AnyValue {
            value: Some(Value::StringValue((*it).to_owned())),
        };
        let values = words.iter().map(value).collect();
        let list = Value::ArrayValue(ArrayValue { values });
        self.list.push(pair(key, list));
    }

    pub(super) fn done(self) -> Vec<KeyValue> {
        self.list
    }
}

pub(super) fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

impl Attempt {
    /// Why it brought no answer: the endpoint's status where that says it, or how it ended.
    pub(super) fn error(&self) -> Option<String> {
        let entry = &self.entry;
        match entry.outcome {
            Outcome::Completed => None,
            Outcome::Failed if entry.status >= 300 => Some(entry.status.to_string()),
            outcome => Some(outcome.as_str().to_owned()),
        }
    }

    /// The span of an attempt: the gateway is a client of the endpoint.
    pub(super) fn span(&self, redaction: &Redaction) -> Span {
        let (entry, held) = (&self.entry, &self.entry.held);
        let dialect = self.endpoint.dialect.name();
        let operation = name::operation(dialect);
        let error = self.error();
        let mut told = Attributes::new(redaction);
        told.text(name::OPERATION, operation);
        told.text(name::PROVIDER, name::provider(dialect));
        told.text(name::REQUESTED, &held.model);
        if error.is_none() || !entry.usage.is_empty() {
            told.text(name::MODEL, &held.model);
        }
        self.address(&mut told);
        if entry.status != 0 {
            told.count(name::STATUS, entry.status);
        }
        told.text(name::ERROR, error.as_deref().unwrap_or_default());
        self.used(&mut told);
        told.text("pareto.request_id", &held.request.to_string());
        told.count("pareto.attempt", held.attempt);
        told.text("pareto.requested_model", &held.requested);
        told.text("pareto.upstream_model", &self.upstream_model);
        told.text("pareto.endpoint", &held.endpoint);
        told.text("pareto.tenant", &held.subject.tenant);
        told.text("pareto.tier", held.tier.as_str());
        told.text("pareto.route", &held.reason);
        told.flag("pareto.stream", held.stream);
        told.text("pareto.outcome", entry.outcome.as_str());
        told.text("pareto.usage_source", entry.source.as_str());
        told.count("pareto.cost_nano_usd", entry.cost.0);
        if self.gives_way {
            told.flag("pareto.gives_way", true);
        }
        Span {
            parent_span_id: self.parent.to_vec(),
            trace_state: self.state.as_deref().unwrap_or_default().to_owned(),
            flags: u32::from(self.spot.is_sampled) | KNOWS_REMOTE,
            name: format!("{operation} {}", held.model),
            status: Some(status(error.is_some())),
            ..span(
                self.spot,
                SpanKind::Client,
                (self.began_ns, nanos(self.took)),
                told,
            )
        }
    }

    fn address(&self, told: &mut Attributes<'_>) {
        let (host, port) = self.endpoint.address();
        told.text(name::HOST, host);
        told.count(name::PORT, port);
    }

    /// What it used, and why it ended.
    fn used(&self, told: &mut Attributes<'_>) {
        let usage = &self.entry.usage;
        if usage.is_empty() {
            return;
        }
        told.count(name::PROMPT_TOKENS, usage.prompt());
        told.count(name::ANSWER_TOKENS, usage.answer());
        if usage.cache_read > 0 {
            told.count(name::CACHE_READ, usage.cache_read);
        }
        if usage.cache_write() > 0 {
            told.count(name::CACHE_WRITE, usage.cache_write());
        }
        if let Some(finish) = self.finish {
            told.words(name::FINISH, &[finish]);
        }
        if let Some(ms) = self.entry.first_byte_ms {
            told.count("pareto.first_byte_ms", ms);
        }
    }
}

impl Ended {
    /// What went wrong, as far as the caller is told or has left.
    pub(super) fn error(&self) -> Option<String> {
        if let Some(refused) = &self.refused {
            return Some(refused.code.to_owned());
        }
        if self.status >= 400 {
            return Some(self.status.to_string());
        }
        let outcome = self.last.as_ref().map(|it| it.entry.outcome);
        match outcome {
            Some(outcome @ (Outcome::Disconnected | Outcome::Interrupted)) => {
                Some(outcome.as_str().to_owned())
            }
            _ if self.status == 0 && !self.is_inner => {
                Some(Outcome::Disconnected.as_str().to_owned())
            }
            _ => None,
        }
    }

    /// The span of a call: the gateway is its caller's server.
    pub(super) fn span(&self, redaction: &Redaction) -> Span {
        let operation = name::operation(self.dialect);
        let error = self.error();
        let mut told = Attributes::new(redaction);
        told.text(name::OPERATION, operation);
        if !self.is_inner {
            told.text(name::METHOD, "POST");
        }
        if self.status != 0 {
            told.count(name::STATUS, self.status);
        }
        told.text(name::ERROR, error.as_deref().unwrap_or_default());
        told.text("pareto.request_id", &self.request.to_string());
        told.text("pareto.dialect", self.dialect);
        told.count("pareto.attempts", self.attempts);
        told.count("pareto.cost_nano_usd", self.cost.0);
        let mut called = operation.to_owned();
        if let Some(last) = &self.last {
            let held = &last.entry.held;
            called = format!("{operation} {}", redaction.of(&held.requested));
            told.text(name::REQUESTED, &held.requested);
            told.text("pareto.tenant", &held.subject.tenant);
            told.text("pareto.tier", held.tier.as_str());
            told.text("pareto.route", &held.reason);
            told.flag("pareto.stream", held.stream);
            if self.refused.is_none() && last.entry.outcome != Outcome::Failed {
                told.text(name::PROVIDER, name::provider(last.endpoint.dialect.name()));
                told.text(name::MODEL, &held.model);
                last.used(&mut told);
            }
        } else if let Some(subject) = self.refused.as_ref().and_then(|it| it.subject.as_ref()) {
            told.text("pareto.tenant", &subject.tenant);
        }
        let has_parent = self.context.parent.is_some();
        // A caller's own mistake is no failure of the server.
        let is_failure = error.is_some() && !(400..500).contains(&self.status);
        let kind = if self.is_inner {
            SpanKind::Internal
        } else {
            SpanKind::Server
        };
        let spot = self.context.spot;
        Span {
            parent_span_id: self.context.parent.map_or_else(Vec::new, |it| it.to_vec()),
            trace_state: self.context.state.as_deref().unwrap_or_default().to_owned(),
            flags: u32::from(spot.is_sampled)
                | KNOWS_REMOTE
                | if has_parent { IS_REMOTE } else { 0 },
            name: called,
            status: Some(status(is_failure)),
            ..span(spot, kind, (self.began_ns, nanos(self.took)), told)
        }
    }
}

fn span(spot: Spot, kind: SpanKind, (began, took): (u64, u64), told: Attributes<'_>) -> Span {
    Span {
        trace_id: spot.trace.to_vec(),
        span_id: spot.span.to_vec(),
        kind: i32::from(kind),
        start_time_unix_nano: began,
        end_time_unix_nano: began.saturating_add(took),
        attributes: told.done(),
        ..Span::default()
    }
}

/// Without words: what went wrong is an attribute, and messages may have texts of others in them.
fn status(is_failure: bool) -> Status {
    let code = if is_failure {
        StatusCode::Error
    } else {
        StatusCode::Unset
    };
    Status {
        code: i32::from(code),
        message: String::new(),
    }
}
