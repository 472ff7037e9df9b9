//! The task that takes what calls hand over, counts it, and posts spans, metrics and log records to the collector.
//!
//! It looks into the queue by itself, so that no call has to wake it. While the collector is away it goes on
//! counting; spans and log records wait up to a bound.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::figures::Figures;
use super::post::{Batch, Collector, Post};
use super::semconv as name;
use super::spans::pair;
use super::{LAST_POST, Record, logs};
use crate::config;
use crate::gateway::new_id;
use crate::request_log::Redaction;
use crate::telemetry;

/// How often the queue is looked into.
const TAKE_EVERY: Duration = Duration::from_millis(50);
/// Records taken before others get a turn.
const TURN: usize = 256;
/// Spans or log records in a post: about a megabyte.
const BATCH: usize = 1_024;

/// Spans or log records that wait, and their way.
struct Lane<T> {
    signal: &'static str,
    waiting: VecDeque<T>,
    most: usize,
    post: Post,
    every: Duration,
    due: Instant,
    wrap: fn(&Resource, Vec<T>) -> Vec<u8>,
}

impl<T> Lane<T> {
    fn put(&mut self, item: T) {
        if self.waiting.len() < self.most {
            self.waiting.push_back(item);
        } else {
            telemetry::otlp_dropped(self.signal, "full", 1);
        }
    }

    /// Posts what waits, if there is enough of it or it has waited for long enough.
    fn advance(&mut self, resource: &Resource, now: bool) {
        self.post.again();
        let is_due = now || self.due <= Instant::now() || self.waiting.len() >= BATCH;
        if !is_due || !self.post.is_free() {
            return;
        }
        self.due = Instant::now() + self.every;
        let count = self.waiting.len().min(BATCH);
        if count == 0 {
            return;
        }
        let items: Vec<T> = self.waiting.drain(..count).collect();
        let body = (self.wrap)(resource, items);
        self.post.send(Batch {
            body: Bytes::from(body),
            items: u64::try_from(count).unwrap_or(u64::MAX),
        });
    }

    /// Whether there is nothing more to be done, or no use in it.
    fn is_done(&self) -> bool {
        let is_left = self.post.is_failing() || self.waiting.is_empty();
        is_left && !self.post.is_under_way()
    }

    fn give_up(&mut self) {
        let waiting = u64::try_from(self.waiting.len()).unwrap_or(u64::MAX);
        let left = waiting.saturating_add(self.post.give_up());
        if left > 0 {
            telemetry::otlp_dropped(self.signal, "end", left);
            tracing::warn!(
                signal = self.signal,
                left,
                "telemetry was not sent before the end"
            );
        }
        self.waiting.clear();
    }
}

/// See the module.
pub(super) struct Worker {
    records: Receiver<Record>,
    redaction: Redaction,
    resource: Resource,
    figures: Figures,
    /// `None` where a signal is off.
    spans: Option<Lane<Span>>,
    logs: Option<Lane<LogRecord>>,
    metrics: Option<Post>,
    metrics_every: Duration,
    metrics_due: Instant,
}

impl Worker {
    pub(super) fn new(
        config: &config::Otlp,
        patience: &config::Upstream,
        redaction: Redaction,
        records: Receiver<Record>,
    ) -> Result<Self, String> {
        let collector = Arc::new(Collector::new(config, patience)?);
        let post = |signal: &'static str, is_on: bool| {
            let uri = config.uri(signal).filter(|_| is_on)?;
            Some(Post::new(signal, uri, &collector))
        };
        let every = Duration::from_millis(config.interval_ms);
        let metrics_every = Duration::from_millis(config.metrics_interval_ms);
        let now = Instant::now();
        Ok(Self {
            records,
            redaction,
            resource: resource(config),
            figures: Figures::new(),
            spans: post("traces", config.traces).map(|post| Lane {
                signal: "traces",
                waiting: VecDeque::new(),
                most: config.queue,
                post,
                every,
                due: now + every,
                wrap: wrapped_spans,
            }),
            logs: post("logs", config.logs).map(|post| Lane {
                signal: "logs",
                waiting: VecDeque::new(),
                most: config.queue,
                post,
                every,
                due: now + every,
                wrap: wrapped_logs,
            }),
            metrics: post("metrics", config.metrics),
            metrics_every,
            metrics_due: now + metrics_every,
        })
    }

    /// Works until `stop`, or until nobody hands anything over any more; then sends the rest.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut looks = tokio::time::interval(TAKE_EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                () = self.posted() => {}
                () = stop.cancelled() => break,
            }
            if !self.take_all().await {
                break;
            }
            self.advance(false);
        }
        self.take_all().await;
        let in_time = tokio::time::timeout(LAST_POST, self.finish()).await;
        tracing::debug!(in_time = in_time.is_ok(), "telemetry was flushed");
        if let Some(lane) = &mut self.spans {
            lane.give_up();
        }
        if let Some(lane) = &mut self.logs {
            lane.give_up();
        }
    }

    /// Takes all that was handed over. `false` once nobody will hand over anything more.
    async fn take_all(&mut self) -> bool {
        loop {
            for _ in 0..TURN {
                match self.records.try_recv() {
                    Ok(record) => self.take(record),
                    Err(TryRecvError::Empty) => return true,
                    Err(TryRecvError::Disconnected) => return false,
                }
            }
            tokio::task::yield_now().await;
        }
    }

    fn take(&mut self, record: Record) {
        match record {
            Record::Settled(attempt) => {
                self.figures.settled(&attempt);
                if let (Some(spans), true) = (&mut self.spans, attempt.spot.is_sampled) {
                    spans.put(attempt.span(&self.redaction));
                }
                if let Some(logs) = &mut self.logs {
                    logs.put(logs::settled(&attempt, &self.redaction));
                }
            }
            Record::Ended(ended) => {
                self.figures.ended(&ended);
                if let (Some(spans), true) = (&mut self.spans, ended.context.spot.is_sampled) {
                    spans.put(ended.span(&self.redaction));
                }
                if let (Some(logs), Some(refused)) = (&mut self.logs, &ended.refused) {
                    logs.put(logs::refused(&ended, refused, &self.redaction));
                }
            }
        }
    }

    /// Begins the posts that are due; all that can be begun if `now`.
    fn advance(&mut self, now: bool) {
        if let Some(lane) = &mut self.spans {
            lane.advance(&self.resource, now);
        }
        if let Some(lane) = &mut self.logs {
            lane.advance(&self.resource, now);
        }
        let is_due = now || self.metrics_due <= Instant::now();
        if let (Some(post), true) = (&mut self.metrics, is_due) {
            // Sums that were not taken are in the next ones as well.
            if !post.is_under_way() {
                post.give_up();
            }
            if post.is_free() {
                self.metrics_due = Instant::now() + self.metrics_every;
                let metrics = self.figures.metrics();
                if !metrics.is_empty() {
                    post.send(wrapped_metrics(&self.resource, metrics));
                }
            }
        }
    }

    /// Waits for the end of any post, or for ever.
    async fn posted(&mut self) {
        let (spans, logs) = (&mut self.spans, &mut self.logs);
        let spans = async {
            match spans {
                Some(lane) => lane.post.done().await,
                None => std::future::pending().await,
            }
        };
        let logs = async {
            match logs {
                Some(lane) => lane.post.done().await,
                None => std::future::pending().await,
            }
        };
        let metrics = &mut self.metrics;
        let metrics = async {
            match metrics {
                Some(post) => post.done().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = spans => {}
            () = logs => {}
            () = metrics => {}
        }
    }

    /// Sends the rest, each signal until it is through or fails.
    async fn finish(&mut self) {
        self.advance(true);
        loop {
            let spans = self.spans.as_ref().is_none_or(Lane::is_done);
            let logs = self.logs.as_ref().is_none_or(Lane::is_done);
            let metrics = self.metrics.as_ref().is_none_or(|it| !it.is_under_way());
            if spans && logs && metrics {
                return;
            }
            self.posted().await;
            if let Some(lane) = self.spans.as_mut().filter(|it| !it.is_done()) {
                lane.advance(&self.resource, true);
            }
            if let Some(lane) = self.logs.as_mut().filter(|it| !it.is_done()) {
                lane.advance(&self.resource, true);
            }
        }
    }
}

/// Who sends. A worker is an instance of its own, since its sums begin at nothing.
fn resource(config: &config::Otlp) -> Resource {
    let attributes = [
        (name::SERVICE, config.service.clone()),
        (name::VERSION, env!("CARGO_PKG_VERSION").to_owned()),
        (name::INSTANCE, new_id().to_string()),
    ];
    let attributes = attributes.into_iter();
    Resource {
        attributes: attributes
            .map(|(key, text)| pair(key, Value::StringValue(text)))
            .collect(),
        ..Resource::default()
    }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "pareto".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

fn wrapped_spans(resource: &Resource, spans: Vec<Span>) -> Vec<u8> {
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource.clone()),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope()),
                spans,
                schema_url: name::SCHEMA_URL.to_owned(),
            }],
            schema_url: name::SCHEMA_URL.to_owned(),
        }],
    };
    request.encode_to_vec()
}

fn wrapped_logs(resource: &Resource, log_records: Vec<LogRecord>) -> Vec<u8> {
    let request = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(resource.clone()),
            scope_logs: vec![ScopeLogs {
                scope: Some(scope()),
                log_records,
                schema_url: name::SCHEMA_URL.to_owned(),
            }],
            schema_url: name::SCHEMA_URL.to_owned(),
        }],
    };
    request.encode_to_vec()
}

fn wrapped_metrics(
    resource: &Resource,
    metrics: Vec<opentelemetry_proto::tonic::metrics::v1::Metric>,
) -> Batch {
    let items = u64::try_from(metrics.len()).unwrap_or(u64::MAX);
    let request = ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource.clone()),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(scope()),
                metrics,
                schema_url: name::SCHEMA_URL.to_owned(),
            }],
            schema_url: name::SCHEMA_URL.to_owned(),
        }],
    };
    let body = Bytes::from(request.encode_to_vec());
    Batch { body, items }
}
