//! The request log as log records: what a line says, with the ids of the span it belongs to.

use meter::Outcome;
use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};
use serde_json::Value as Json;

use super::call::{Attempt, Ended, Refused, nanos};
use super::context::Spot;
use super::spans::Attributes;
use crate::clock::unix_ns;
use crate::request_log::{self, Redaction, Told};

/// The record of an attempt.
pub(super) fn settled(attempt: &Attempt, redaction: &Redaction) -> LogRecord {
    let total_ms = attempt.total.as_secs_f64() * 1_000.0;
    let dialect = attempt.endpoint.dialect.name();
    let fields = request_log::settled_fields(&attempt.entry, dialect, total_ms);
    let at_ns = attempt.began_ns.saturating_add(nanos(attempt.took));
    let severity = match attempt.entry.outcome {
        Outcome::Completed | Outcome::Disconnected => SeverityNumber::Info,
        Outcome::Interrupted | Outcome::Failed | Outcome::Orphaned => SeverityNumber::Warn,
    };
    record(fields, (attempt.spot, at_ns, severity), redaction)
}

/// The record of a call that was refused.
pub(super) fn refused(ended: &Ended, refused: &Refused, redaction: &Redaction) -> LogRecord {
    let fields = request_log::refused_fields(&Told {
        request: ended.request,
        tenant: refused.subject.as_ref().map(|it| &*it.tenant),
        dialect: ended.dialect,
        code: refused.code,
        fault: refused.fault,
        status: refused.status,
    });
    let of = (ended.context.spot, refused.at_ns, SeverityNumber::Warn);
    record(fields, of, redaction)
}

fn record(
    fields: Vec<(&'static str, Json)>,
    (spot, at_ns, severity): (Spot, u64, SeverityNumber),
    redaction: &Redaction,
) -> LogRecord {
    let mut told = Attributes::new(redaction);
    let mut event = String::new();
    for (key, value) in fields {
        match value {
            Json::String(text) if key == "event.name" => event = text,
            Json::String(text) => told.text(key, &text),
            Json::Bool(is_set) => told.flag(key, is_set),
            Json::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(count), _) => told.count(key, count),
                (None, Some(number)) => told.number(key, number),
                (None, None) => {}
            },
            // There are none in a line.
            Json::Null | Json::Array(_) | Json::Object(_) => {}
        }
    }
    LogRecord {
        time_unix_nano: at_ns,
        observed_time_unix_nano: unix_ns(),
        severity_number: i32::from(severity),
        severity_text: severity_word(severity).to_owned(),
        // A backend that shows no event names shows this.
        body: Some(AnyValue {
            value: Some(Value::StringValue(event.clone())),
        }),
        attributes: told.done(),
        flags: u32::from(spot.is_sampled),
        trace_id: spot.trace.to_vec(),
        span_id: spot.span.to_vec(),
        event_name: event,
        ..LogRecord::default()
    }
}

fn severity_word(severity: SeverityNumber) -> &'static str {
    if severity == SeverityNumber::Info {
        "INFO"
    } else {
        "WARN"
    }
}
