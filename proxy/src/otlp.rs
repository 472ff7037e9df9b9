//! Traces, metrics and the request log as OpenTelemetry's collectors take them (OTLP over HTTP): a span for each
//! call and one for each of its attempts, and histograms of what they used and took.
//!
//! With it off a call costs one look at a flag. With it on, calls put what they have seen into a bounded queue and
//! wait for nothing; one task takes it from there, counts, and posts. Whatever the collector does is felt there
//! alone: what does not fit any more is dropped and counted.

mod call;
pub(crate) mod context;
mod figures;
mod logs;
mod post;
pub(crate) mod semconv;
mod spans;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::HeaderMap;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::RequestId;

use crate::config::{self, Config};
use crate::request_log::Redaction;
use crate::telemetry;
use context::{Spot, least_lot};
use worker::Worker;

pub(crate) use call::{Attempt, Call, Ended, Seen};

/// The longest that an end of the process waits for the collector.
const LAST_POST: Duration = Duration::from_secs(5);

/// What a call hands over.
#[derive(Debug)]
pub(crate) enum Record {
    Settled(Arc<Attempt>),
    Ended(Box<Ended>),
}

/// The way out, whether or not it is open.
#[derive(Debug, Default)]
pub(crate) struct Otlp {
    is_on: AtomicBool,
    exporter: ArcSwapOption<Exporter>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What calls need of one configuration. It goes with the last call that began under it, and its worker then.
#[derive(Debug)]
pub(crate) struct Exporter {
    config: config::Otlp,
    redact: Vec<String>,
    least_lot: u64,
    queue: SyncSender<Record>,
}

/// What a configuration asks for, made and not in force yet.
#[must_use]
pub(crate) struct Opened(Change);

enum Change {
    /// What is in force already is asked for.
    None,
    Off,
    On(Box<(Exporter, Worker)>),
}

impl Exporter {
    fn put(&self, record: Record) {
        match self.queue.try_send(record) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                telemetry::otlp_dropped("records", "full", 1);
            }
        }
    }
}

impl Otlp {
    /// Makes what a configuration asks for; what is in force stays.
    ///
    /// # Errors
    /// What is wrong with the TLS of this machine.
    pub(crate) fn open(&self, config: &Config) -> Result<Opened, String> {
        let (own, redact) = (&config.otlp, &config.request_log.redact);
        let present = self.exporter.load();
        if present
            .as_ref()
            .is_some_and(|it| it.config == *own && it.redact == *redact)
        {
            return Ok(Opened(Change::None));
        }
        if own.url.is_none() {
            return Ok(Opened(Change::Off));
        }
        let (queue, records) = sync_channel(own.queue);
        let redaction = Redaction::new(&config.request_log);
        let worker = Worker::new(own, &config.upstream, redaction, records)?;
        let exporter = Exporter {
            config: own.clone(),
            redact: redact.clone(),
            least_lot: least_lot(own.sample_ratio),
            queue,
        };
        Ok(Opened(Change::On(Box::new((exporter, worker)))))
    }

    /// Puts in force what was made, from within a runtime.
    pub(crate) fn put(&self, opened: Opened) {
        match opened.0 {
            Change::None => {}
            Change::Off => {
                self.is_on.store(false, Ordering::Relaxed);
                self.exporter.store(None);
            }
            Change::On(made) => {
                let (exporter, worker) = *made;
                self.tasks.spawn(worker.run(self.stop.clone()));
                self.exporter.store(Some(Arc::new(exporter)));
                self.is_on.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Whether anything is to be noted.
    pub(crate) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// Begins to note what becomes of a call with `headers`, or of one that the gateway makes itself.
    pub(crate) fn begin(
        &self,
        request: RequestId,
        dialect: &'static str,
        headers: Option<&HeaderMap>,
    ) -> Option<Arc<Call>> {
        if !self.is_on() {
            return None;
        }
        let exporter = self.exporter.load_full()?;
        Some(Arc::new(Call::new(exporter, request, dialect, headers)))
    }

    /// Sends what there is, as long as that takes no more than [`LAST_POST`].
    pub(crate) async fn close(&self) {
        self.is_on.store(false, Ordering::Relaxed);
        self.exporter.store(None);
        self.stop.cancel();
        self.tasks.close();
        // The worker gives up by itself; this is for one that can not even do that.
        let ended = tokio::time::timeout(2 * LAST_POST, self.tasks.wait()).await;
        tracing::debug!(all = ended.is_ok(), "the last of the telemetry is sent");
    }
}

/// What an endpoint is told of attempt `number` of a call: the attempt's own span, or what the caller says where
/// no spans are sent.
pub(crate) fn onward(call: Option<&Arc<Call>>, headers: &HeaderMap, number: u16) -> Option<Spot> {
    let own = call.and_then(|it| it.attempt(number));
    own.or_else(|| Spot::of(headers))
}
