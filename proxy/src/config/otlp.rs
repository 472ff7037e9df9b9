//! `[otlp]`: what goes to a collector of OpenTelemetry, and how.

use std::collections::BTreeMap;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::{HeaderName, HeaderValue, Uri};
use serde::Deserialize;

use super::{Secret, masked};
use crate::assemble::outbound;

/// Where traces, metrics and logs of calls go. All of it is off without a `url`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a key that is set by itself"
)]
pub struct Otlp {
    /// The collector's base address; `/v1/traces` and so on are put behind it.
    pub url: Option<String>,
    /// Sent with every post: what the collector knows this gateway by.
    pub headers: BTreeMap<String, Secret>,
    /// Take plain http beyond this machine.
    pub plain_http: bool,
    /// What the gateway is called there.
    pub service: String,
    pub traces: bool,
    pub metrics: bool,
    /// The request log.
    pub logs: bool,
    /// The part of calls whose spans are sent, where no caller has decided that before.
    pub sample_ratio: f64,
    /// Records that wait to be taken up, and spans and log records of each kind that wait to be sent.
    pub queue: usize,
    /// Milliseconds between two posts of spans or log records, and between two of metrics.
    pub interval_ms: u64,
    pub metrics_interval_ms: u64,
    /// Milliseconds that the collector may take to answer.
    pub timeout_ms: u64,
}

impl Default for Otlp {
    fn default() -> Self {
        Self {
            url: None,
            headers: BTreeMap::new(),
            plain_http: false,
            service: "pareto".to_owned(),
            traces: true,
            metrics: true,
            logs: false,
            sample_ratio: 1.0,
            queue: 8_192,
            interval_ms: 5_000,
            metrics_interval_ms: 60_000,
            timeout_ms: 10_000,
        }
    }
}

impl PartialEq for Otlp {
    fn eq(&self, other: &Self) -> bool {
        // Secrets print alike, so they are compared by themselves.
        let secrets = |it: &Self| -> Vec<String> {
            let headers = it.headers.values();
            headers.map(|it| it.expose().to_owned()).collect()
        };
        format!("{self:?}") == format!("{other:?}") && secrets(self) == secrets(other)
    }
}

impl Otlp {
    /// Where a signal is posted, for instance `traces`.
    pub(crate) fn uri(&self, signal: &str) -> Option<Uri> {
        let base = self.url.as_deref()?.trim_end_matches('/');
        format!("{base}/v1/{signal}").parse().ok()
    }

    /// What can not be, by key.
    pub(super) fn problems(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let mut say = |key: &str, message: String| found.push((format!("otlp.{key}"), message));
        if let (Some(url), Some(message)) = (&self.url, self.unfit()) {
            say("url", format!("`{}` {message}", masked(url)));
        }
        for (name, value) in &self.headers {
            if let Some(message) = unsendable(name, value) {
                say(&format!("headers.{name}"), message.to_owned());
            }
        }
        if !(0.0..=1.0).contains(&self.sample_ratio) {
            let message = format!("`{}` is no part; write 0.0 to 1.0", self.sample_ratio);
            say("sample_ratio", message);
        }
        if self.service.is_empty() {
            say("service", "must not be empty".to_owned());
        }
        if !(1..=MOST_QUEUED).contains(&self.queue) {
            say("queue", format!("must be from 1 to {MOST_QUEUED}"));
        }
        found
    }

    /// Why nothing can be sent to the address.
    fn unfit(&self) -> Option<&'static str> {
        let no_address = "is not an address; write http://127.0.0.1:4318";
        let Some(uri) = self.uri("traces") else {
            return Some(no_address);
        };
        if uri.query().is_some() {
            return Some("has a query; what a collector wants to know goes into headers");
        }
        match outbound::check(&uri) {
            Ok(()) => None,
            Err(outbound::AddressError::Plain) if self.plain_http => None,
            Err(outbound::AddressError::Plain) => {
                Some("is plain http beyond this machine; write https, or allow it with plain_http")
            }
            Err(outbound::AddressError::Credentials) => {
                Some("has a name or password in it; put them into headers")
            }
            Err(_) => Some(no_address),
        }
    }
}

/// At two kilobytes each, what waits stays within gigabytes.
const MOST_QUEUED: usize = 1_000_000;

/// Why a header can not be sent.
fn unsendable(name: &str, value: &Secret) -> Option<&'static str> {
    let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
        return Some("is no name of a header");
    };
    if [CONTENT_TYPE, CONTENT_LENGTH, HOST].contains(&name) {
        return Some("is written by the gateway itself; leave it out");
    }
    let is_sound = HeaderValue::from_str(value.expose()).is_ok();
    (!is_sound).then_some("has characters that no header can carry")
}
