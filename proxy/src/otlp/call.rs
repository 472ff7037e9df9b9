//! What is noted of a call while it is under way, and handed over at the end of each attempt and of the call.
//!
//! A call costs a box and two short locks that nobody else wants, an attempt a copy of its entry; both are put
//! into a bounded queue that wakes nobody.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use meter::{Entry, NanoUsd, Outcome, Subject};
use tokio::time::Instant;
use wire::{Refusal, RequestId};

use super::context::{Context, Spot};
use super::{Exporter, Record};
use crate::clock::unix_ns;
use crate::runtime::Target;
use crate::trace::Trace;
use crate::upstream::Endpoint;

/// A call under way. Whoever has a copy of its trace shares it; the last one to go ends it.
#[derive(Debug)]
pub(crate) struct Call {
    exporter: Arc<Exporter>,
    arrived: Instant,
    began_ns: u64,
    /// Taken at the end.
    ended: Mutex<Option<Box<Ended>>>,
    context: Context,
}

/// A call at its end.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(super) context: Context,
    pub(super) request: RequestId,
    pub(super) dialect: &'static str,
    /// Nobody has asked for it but the gateway itself.
    pub(super) is_inner: bool,
    pub(super) began_ns: u64,
    pub(super) took: Duration,
    /// What it was answered with; 0 where its caller left before.
    pub(super) status: u16,
    pub(super) refused: Option<Refused>,
    pub(super) attempts: u32,
    pub(super) cost: NanoUsd,
    /// The attempt whose answer was given, or the last one.
    pub(super) last: Option<Arc<Attempt>>,
}

/// Why a call got no answer of a model.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(super) code: &'static str,
    pub(super) fault: &'static str,
    pub(super) status: u16,
    pub(super) subject: Option<Subject>,
    pub(super) at_ns: u64,
}

/// An attempt at its end.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(super) spot: Spot,
    pub(super) parent: [u8; 8],
    pub(super) state: Option<Box<str>>,
    pub(super) entry: Entry,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) upstream_model: String,
    pub(super) finish: Option<&'static str>,
    /// Another attempt's answer was given.
    pub(super) gives_way: bool,
    pub(super) began_ns: u64,
    pub(super) took: Duration,
    /// Since the call arrived.
    pub(super) total: Duration,
}

/// What is known of an attempt beside its entry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen<'a> {
    pub(crate) target: &'a Target,
    pub(crate) sent_at: Instant,
    pub(crate) finish: Option<&'static str>,
    pub(crate) gives_way: bool,
}

impl Call {
    pub(super) fn new(
        exporter: Arc<Exporter>,
        request: RequestId,
        dialect: &'static str,
        headers: Option<&HeaderMap>,
    ) -> Self {
        let began_ns = unix_ns();
        let none = HeaderMap::new();
        let said = headers.unwrap_or(&none);
        let context = Context::of(said, request, began_ns, exporter.least_lot);
        let ended = Ended {
            context: context.clone(),
            request,
            dialect,
            is_inner: headers.is_none(),
            began_ns,
            took: Duration::ZERO,
            status: 0,
            refused: None,
            attempts: 0,
            cost: NanoUsd::ZERO,
            last: None,
        };
        Self {
            exporter,
            arrived: Instant::now(),
            began_ns,
            ended: Mutex::new(Some(Box::new(ended))),
            context,
        }
    }

    fn note(&self, what: impl FnOnce(&mut Ended)) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ended) = ended.as_mut() {
            what(ended);
        }
    }

    /// The head of its answer goes out.
    pub(crate) fn answered(&self, status: StatusCode) {
        self.note(|ended| ended.status = status.as_u16());
    }

    /// It was refused.
    pub(crate) fn refused(&self, refusal: &Refusal, trace: &Trace) {
        let refused = Refused {
            code: refusal.code,
            fault: refusal.fault.as_str(),
            status: refusal.status,
            subject: trace.subject.clone(),
            at_ns: unix_ns(),
        };
        self.note(|ended| ended.refused = Some(refused));
    }

    /// One of its attempts was settled.
    pub(crate) fn settled(&self, entry: &Entry, seen: &Seen<'_>) {
        let since = seen.sent_at.saturating_duration_since(self.arrived);
        let attempt = Arc::new(Attempt {
            spot: self.context.attempt(entry.held.attempt),
            parent: self.context.spot.span,
            state: self.context.state.clone(),
            entry: entry.clone(),
            endpoint: Arc::clone(&seen.target.endpoint),
            upstream_model: seen.target.upstream_model.clone(),
            finish: seen.finish,
            gives_way: seen.gives_way,
            began_ns: self.began_ns.saturating_add(nanos(since)),
            took: seen.sent_at.elapsed(),
            total: self.arrived.elapsed(),
        });
        self.note(|ended| {
            ended.attempts += 1;
            ended.cost += entry.cost;
            let is_answer = |it: &Attempt| !it.gives_way && it.entry.outcome != Outcome::Failed;
            if is_answer(&attempt) || !ended.last.as_deref().is_some_and(is_answer) {
                ended.last = Some(Arc::clone(&attempt));
            }
        });
        self.exporter.put(Record::Settled(attempt));
    }

    /// Where attempt `number` stands in the trace, for the endpoint; `None` where no spans are sent.
    pub(super) fn attempt(&self, number: u16) -> Option<Spot> {
        let has_spans = self.exporter.config.traces;
        has_spans.then(|| self.context.attempt(number))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let ended = self.ended.get_mut();
        if let Some(mut ended) = ended.unwrap_or_else(PoisonError::into_inner).take() {
            ended.took = self.arrived.elapsed();
            self.exporter.put(Record::Ended(ended));
        }
    }
}

pub(super) fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
