//! Posting batches of one signal to the collector, one at a time: again where it asks for that or can not be
//! reached, never where it refuses them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Collected, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use tokio::time::Instant;

use crate::care::{self, luck};
use crate::clock::now_ms;
use crate::config;
use crate::outbound;
use crate::telemetry;
use crate::upstream::{Pieces, chain};

/// The waits between tries: doubled from the first to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// The longest pause that a collector's `Retry-After` is obeyed for.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);
/// The longest answer that is looked at: it may say how much of a batch was not taken.
const ANSWER_BYTES: usize = 64 << 10;

/// How the collector is reached.
#[derive(Debug, Clone)]
pub(super) struct Collector {
    client: Client<HttpsConnector<HttpConnector>, Pieces>,
    headers: HeaderMap,
    patience: Duration,
}

impl Collector {
    pub(super) fn new(config: &config::Otlp, patience: &config::Upstream) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in &config.headers {
            let unfit = || format!("otlp.headers.{name} can not be sent");
            let value = HeaderValue::from_str(value.expose());
            let mut value = value.map_err(|_| unfit())?;
            value.set_sensitive(true);
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unfit())?;
            headers.insert(name, value);
        }
        let kind = HeaderValue::from_static("application/x-protobuf");
        headers.insert(CONTENT_TYPE, kind);
        Ok(Self {
            client: outbound::client(patience)?,
            headers,
            patience: Duration::from_millis(config.timeout_ms),
        })
    }

    async fn post(self, uri: Uri, body: Bytes) -> Posted {
        let mut request = Request::new(Pieces::from(vec![body]));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        *request.headers_mut() = self.headers;
        let asking = async {
            let answer = self.client.request(request).await;
            let answer = answer.map_err(|error| chain(&error))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, ANSWER_BYTES).collect().await;
            let body = body.map(Collected::to_bytes).unwrap_or_default();
            Ok::<_, String>((head, body))
        };
        match tokio::time::timeout(self.patience, asking).await {
            Err(_) => Posted::Again(None, "it did not answer in time".to_owned()),
            Ok(Err(error)) => Posted::Again(None, error),
            Ok(Ok((head, body))) if head.status.is_success() => Posted::Taken(rejected(&body)),
            Ok(Ok((head, _))) => refused(head.status, &head.headers),
        }
    }
}

/// What a refusal means: by the protocol these statuses ask for another try, and others forbid it.
fn refused(status: StatusCode, headers: &HeaderMap) -> Posted {
    let why = format!("it answered with status {status}");
    if !matches!(status.as_u16(), 429 | 502 | 503 | 504) {
        return Posted::Refused(why);
    }
    let asked = care::asked_ms(headers, now_ms()).map(Duration::from_millis);
    Posted::Again(asked.map(|it| it.min(LONGEST_PAUSE)), why)
}

/// How many of a batch were not taken. The answers to all signals are of one shape.
fn rejected(body: &[u8]) -> u64 {
    let answer = ExportTraceServiceResponse::decode(body).unwrap_or_default();
    let rejected = answer.partial_success.map(|it| it.rejected_spans);
    u64::try_from(rejected.unwrap_or(0)).unwrap_or(0)
}

/// How a post ended.
#[derive(Debug)]
pub(super) enum Posted {
    /// It was taken, but for so many.
    Taken(u64),
    /// It may be posted again, and after so long where the collector says that.
    Again(Option<Duration>, String),
    Refused(String),
}

/// What is posted at once.
#[derive(Debug, Clone)]
pub(super) struct Batch {
    pub(super) body: Bytes,
    pub(super) items: u64,
}

/// The way of one signal.
pub(super) struct Post {
    signal: &'static str,
    uri: Uri,
    collector: Arc<Collector>,
    under_way: Option<(BoxFuture<'static, Posted>, Batch)>,
    /// What is to be posted again.
    again: Option<Batch>,
    /// Nothing is posted before.
    not_before: Instant,
    failures: u32,
}

impl Post {
    pub(super) fn new(signal: &'static str, uri: Uri, collector: &Arc<Collector>) -> Self {
        Self {
            signal,
            uri,
            collector: Arc::clone(collector),
            under_way: None,
            again: None,
            not_before: Instant::now(),
            failures: 0,
        }
    }

    /// Whether a batch may be posted now, other than the one that is to be tried again.
    pub(super) fn is_free(&self) -> bool {
        self.under_way.is_none() && self.again.is_none() && self.not_before <= Instant::now()
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// The collector has not taken the last batch.
    pub(super) fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// Posts the batch that was not taken, once its time has come.
    pub(super) fn again(&mut self) {
        if self.under_way.is_none()
            && self.not_before <= Instant::now()
            && let Some(batch) = self.again.take()
        {
            self.send(batch);
        }
    }

    pub(super) fn send(&mut self, batch: Batch) {
        let collector = Collector::clone(&self.collector);
        let posting = collector.post(self.uri.clone(), batch.body.clone());
        self.under_way = Some((Box::pin(posting), batch));
    }

    /// Waits for the end of the post under way, or for ever.
    pub(super) async fn done(&mut self) {
        let Some((posting, _)) = &mut self.under_way else {
            return std::future::pending().await;
        };
        let posted = posting.await;
        let Some((_, batch)) = self.under_way.take() else {
            return;
        };
        match posted {
            Posted::Taken(rejected) => {
                telemetry::otlp_posted(self.signal, "taken");
                telemetry::otlp_dropped(self.signal, "rejected", rejected);
                if self.failures > 0 {
                    tracing::info!(signal = self.signal, "the collector takes telemetry again");
                }
                self.failures = 0;
            }
            Posted::Again(asked, why) => {
                telemetry::otlp_posted(self.signal, "again");
                self.failed(&why);
                self.not_before = Instant::now() + asked.unwrap_or_else(|| self.wait());
                self.again = Some(batch);
            }
            Posted::Refused(why) => {
                telemetry::otlp_posted(self.signal, "refused");
                telemetry::otlp_dropped(self.signal, "refused", batch.items);
                self.failed(&why);
                self.not_before = Instant::now() + self.wait();
            }
        }
    }

    /// Told once, and not with every try.
    fn failed(&mut self, why: &str) {
        if self.failures == 0 {
            let signal = self.signal;
            tracing::warn!(signal, why, "the collector does not take telemetry");
        }
        self.failures = self.failures.saturating_add(1);
    }

    /// Half of it is left to chance, so that many gateways do not come back at once.
    fn wait(&self) -> Duration {
        let doubled =
            FIRST_WAIT.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        let most = doubled.min(LONGEST_WAIT);
        let part = u32::try_from(luck() % 512).unwrap_or(0);
        most / 2 + most / 1_024 * part
    }

    /// Gives up what was not taken, and says how much that is.
    pub(super) fn give_up(&mut self) -> u64 {
        let under_way = self.under_way.take().map(|(_, batch)| batch);
        let left = under_way.into_iter().chain(self.again.take());
        left.map(|it| it.items).sum()
    }
}

#[cfg(test)]
mod tests {
    use http::header::RETRY_AFTER;
    use opentelemetry_proto::tonic::collector::logs::v1::{
        ExportLogsPartialSuccess, ExportLogsServiceResponse,
    };

    use super::*;

    #[test]
    fn what_asks_for_another_try_gets_one_and_nothing_else_does() {
        for status in [400, 401, 404, 413, 500, 429, 502, 503, 504] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static("7"));
            let status = StatusCode::from_u16(status).expect("a status");
            let asked = match refused(status, &headers) {
                Posted::Again(asked, _) => asked,
                Posted::Refused(_) | Posted::Taken(_) => None,
            };
            let wanted = matches!(status.as_u16(), 429 | 502 | 503 | 504);
            assert_eq!(asked, wanted.then_some(Duration::from_secs(7)), "{status}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_static("86400"));
        let posted = refused(StatusCode::SERVICE_UNAVAILABLE, &headers);
        assert!(matches!(posted, Posted::Again(Some(LONGEST_PAUSE), _)));
    }

    #[test]
    fn what_was_not_taken_of_a_batch_is_read_from_any_signals_answer() {
        let answer = ExportLogsServiceResponse {
            partial_success: Some(ExportLogsPartialSuccess {
                rejected_log_records: 3,
                error_message: "too old".to_owned(),
            }),
        };
        assert_eq!(rejected(&answer.encode_to_vec()), 3);
        for nothing in [&b""[..], b"{}", b"<html>"] {
            assert_eq!(rejected(nothing), 0);
        }
    }
}
