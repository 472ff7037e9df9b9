//! What is known of one call while it is under way: ids, phases, and in the end its log line.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use meter::Subject;
use tokio::time::Instant;
use wire::{Dialect, Losses, RequestId, Tier};

use crate::admission::Flight;
use crate::otlp;

/// A stretch of a call's way through the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Key check, body, scan.
    Parse,
    /// Routing.
    Decide,
    /// From the decision to the hold: the order of models, the body, and reserving money.
    Hold,
    /// Writing the hold into the journal's file, and where an answer comes whole its settlement too; with
    /// the turn that other calls of the thread get, so that their records go with it.
    Journal,
    /// Waiting for the endpoint up to the first content.
    Upstream,
    /// Waiting for the hold to be on the disk, where the endpoint was faster.
    Sync,
    /// From the first content to the end of the answer; a stream's is known only in the metrics.
    Relay,
}

impl Phase {
    /// In the order of the way.
    pub(crate) const ALL: [Self; 7] = [
        Self::Parse,
        Self::Decide,
        Self::Hold,
        Self::Journal,
        Self::Upstream,
        Self::Sync,
        Self::Relay,
    ];

    /// The word used in labels and `Server-Timing`.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Parse => "parse",
            Self::Decide => "decide",
            Self::Hold => "hold",
            Self::Journal => "journal",
            Self::Upstream => "upstream",
            Self::Sync => "sync",
            Self::Relay => "relay",
        }
    }
}

/// One call's trace.
#[derive(Debug, Clone)]
pub(crate) struct Trace {
    pub(crate) request: RequestId,
    pub(crate) arrived: Instant,
    lap: Instant,
    /// The first content is there.
    flows: bool,
    spent: [Duration; Phase::ALL.len()],
    /// The address that the call came from.
    pub(crate) peer: Option<IpAddr>,
    pub(crate) subject: Option<Subject>,
    pub(crate) dialect: &'static dyn Dialect,
    pub(crate) answered_by: Option<(Arc<str>, Tier, &'static str)>,
    /// Attempts so far that money was held for.
    pub(crate) attempts: u16,
    /// What the last attempt's translation could not carry.
    pub(crate) losses: Losses,
    /// The most that the caller wants to pay for the call.
    pub(crate) most: Option<meter::NanoUsd>,
    /// The output cap that the gateway wrote into the call, because a budget needs one.
    pub(crate) cap: Option<u64>,
    /// What the last answer that was read whole cost.
    pub(crate) cost: Option<meter::NanoUsd>,
    /// What all attempts so far have cost, in nano-USD; all copies of the trace count together.
    charged: Arc<AtomicI64>,
    /// What is left of a budget that wants it told.
    pub(crate) remaining: Option<meter::NanoUsd>,
    /// Counts the call as under way for as long as any copy of its trace lives.
    pub(crate) flight: Option<Arc<Flight>>,
    /// Its spans, where a collector gets them; the last copy of the trace ends them.
    pub(crate) call: Option<Arc<otlp::Call>>,
}

impl Trace {
    pub(crate) fn new(request: RequestId, dialect: &'static dyn Dialect) -> Self {
        let now = Instant::now();
        Self {
            request,
            arrived: now,
            lap: now,
            flows: false,
            spent: [Duration::ZERO; Phase::ALL.len()],
            peer: None,
            subject: None,
            dialect,
            answered_by: None,
            attempts: 0,
            losses: Losses::default(),
            most: None,
            cap: None,
            cost: None,
            charged: Arc::default(),
            remaining: None,
            flight: None,
            call: None,
        }
    }

    /// Counts what an attempt has cost.
    pub(crate) fn charge(&self, cost: meter::NanoUsd) {
        self.charged.fetch_add(cost.0, Ordering::Relaxed);
    }

    /// What all attempts so far have cost.
    pub(crate) fn charged(&self) -> meter::NanoUsd {
        meter::NanoUsd(self.charged.load(Ordering::Relaxed))
    }

    /// Books the time since the last call of this to `phase`.
    pub(crate) fn lap(&mut self, phase: Phase) {
        let now = Instant::now();
        if let Some((_, spent)) = Phase::ALL
            .iter()
            .zip(&mut self.spent)
            .find(|(p, _)| **p == phase)
        {
            *spent += now - self.lap;
        }
        self.lap = now;
        self.flows |= phase == Phase::Sync;
    }

    /// Time spent in each phase so far.
    pub(crate) fn phases(&self) -> impl Iterator<Item = (Phase, Duration)> + '_ {
        Phase::ALL.into_iter().zip(self.spent)
    }

    /// How long the answer has flowed; `None` before it does.
    pub(crate) fn relayed(&self) -> Option<Duration> {
        self.flows.then(|| self.lap.elapsed())
    }

    /// What the gateway itself has added so far: all that is not waiting for the endpoint.
    pub(crate) fn overhead(&self) -> Duration {
        let waited: Duration = self
            .phases()
            .filter(|(p, _)| *p == Phase::Upstream)
            .map(|(_, spent)| spent)
            .sum();
        self.lap.duration_since(self.arrived).saturating_sub(waited)
    }

    /// The `Server-Timing` header: milliseconds by phase, and the gateway's own share of them.
    pub(crate) fn server_timing(&self) -> String {
        let mut text = String::with_capacity(160);
        for (phase, spent) in self.phases() {
            put(&mut text, phase.as_str(), spent);
            text.push_str(", ");
        }
        put(&mut text, "pareto", self.overhead());
        text
    }
}

/// Writes an entry of `Server-Timing`: milliseconds with three places, as every call does.
fn put(text: &mut String, name: &str, time: Duration) {
    text.push_str(name);
    text.push_str(";dur=");
    let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let mut digits = itoa::Buffer::new();
    text.push_str(digits.format(us / 1_000));
    text.push('.');
    let part = digits.format(us % 1_000);
    text.push_str("00".get(part.len().min(3) - 1..).unwrap_or_default());
    text.push_str(part);
}
