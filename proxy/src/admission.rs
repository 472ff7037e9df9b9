//! Who may come in. A call takes one of `limits.in_flight` places for as long as it is under way. Where all
//! are taken it waits a while, in a line that is fair between tenants; and where the process can not keep
//! up, calls are turned away before they cost anything, the least urgent first.
//!
//! A call that finds a place costs two counters and one look into a map.

mod gauge;
mod line;
mod room;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use dashmap::DashMap;
use http::HeaderMap;
use wire::Refusal;

use crate::config::{Config, Overload};
use crate::names;
use crate::refusal;
use crate::telemetry;

use gauge::{Gauge, Pressure};
pub(crate) use gauge::{Standing, watch};
use line::Line;
pub(crate) use room::{Room, Taken};

/// The header in which callers say how urgent a call is.
pub(crate) const PRIORITY: &str = "x-pareto-priority";

/// How urgent a call is, the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Somebody waits for the answer.
    #[default]
    Interactive,
    /// It is to be done soon.
    Batch,
    /// It is done where nothing else wants the place.
    BestEffort,
}

impl Priority {
    /// In the order of urgency.
    pub(crate) const ALL: [Self; 3] = [Self::Interactive, Self::Batch, Self::BestEffort];

    /// The word used in headers, labels and the configuration.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Batch => "batch",
            Self::BestEffort => "best_effort",
        }
    }

    const fn rank(self) -> usize {
        match self {
            Self::Interactive => 0,
            Self::Batch => 1,
            Self::BestEffort => 2,
        }
    }

    /// What the caller says of its call; `None` where it says nothing.
    ///
    /// # Errors
    /// When it says something else.
    pub(crate) fn asked(headers: &HeaderMap) -> Result<Option<Self>, Refusal> {
        let Some(value) = names::find(headers, PRIORITY) else {
            return Ok(None);
        };
        let word = value.to_str().unwrap_or_default();
        let found = Self::ALL.into_iter().find(|it| it.as_str() == word);
        let wrong = || {
            let message = format!("header `{PRIORITY}`: write interactive, batch or best_effort");
            refusal::invalid(message)
        };
        found.map(Some).ok_or_else(wrong)
    }
}

/// What the configuration says, worked out.
#[derive(Debug)]
struct Terms {
    /// Places that calls of each priority may fill up, by rank.
    places: [usize; Priority::ALL.len()],
    config: Overload,
}

impl Terms {
    fn of(config: &Config) -> Self {
        let all = config.limits.in_flight;
        let overload = config.overload.clone();
        Self {
            places: Priority::ALL.map(|priority| all * overload.percent(priority) / 100),
            config: overload,
        }
    }

    fn places(&self, priority: Priority) -> usize {
        self.places.get(priority.rank()).copied().unwrap_or(0)
    }
}

/// What a tenant has of the gateway.
#[derive(Debug)]
pub(crate) struct Share {
    tenant: Arc<str>,
    weight: u32,
    /// The most urgent that its calls may be, and are where they do not say.
    priority: Priority,
    /// Its calls under way.
    taken: AtomicUsize,
    /// When one of its calls was called in last, counted in those that came.
    turn: AtomicU64,
    came: gauge::Came,
}

impl Share {
    /// How much the tenant has already, for one of its weight, and how long ago it had its turn: who has
    /// least goes first, and of those who have as much, whoever has waited longer.
    fn load(&self) -> (u64, u64) {
        let taken = u64::try_from(self.taken.load(Ordering::Relaxed)).unwrap_or(u64::MAX);
        let load = taken.saturating_mul(1 << 20) / u64::from(self.weight);
        (load, self.turn.load(Ordering::Relaxed))
    }
}

/// The door.
#[derive(Debug)]
pub(crate) struct Admission {
    terms: ArcSwap<Terms>,
    taken: AtomicUsize,
    shares: DashMap<Arc<str>, Arc<Share>, foldhash::fast::RandomState>,
    line: Line,
    gauge: Gauge,
    /// Memory for what callers send.
    pub(crate) room: Room,
}

/// A place that is taken; given back when the last of the call is gone.
pub(crate) struct Flight {
    admission: Arc<Admission>,
    share: Arc<Share>,
}

impl fmt::Debug for Flight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Flight").field(&self.share.tenant).finish()
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.share.taken.fetch_sub(1, Ordering::Relaxed);
        self.admission.gauge.ended();
        self.admission.taken.fetch_sub(1, Ordering::SeqCst);
        self.admission.call_in();
    }
}

/// Why a call is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Short {
    /// No place came free in time, or too many wait for one.
    Places,
    /// The threads that serve callers are late.
    Lag,
    /// The process has nearly all the memory that it may have.
    Memory,
    /// So has what callers are sending now.
    Bodies,
    /// The process can open no more connections.
    Descriptors,
}

impl Short {
    pub(crate) const ALL: [Self; 5] = [
        Self::Places,
        Self::Lag,
        Self::Memory,
        Self::Bodies,
        Self::Descriptors,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Places => "places",
            Self::Lag => "lag",
            Self::Memory => "memory",
            Self::Bodies => "bodies",
            Self::Descriptors => "descriptors",
        }
    }
}

impl Admission {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            terms: ArcSwap::from_pointee(Terms::of(config)),
            taken: AtomicUsize::new(0),
            shares: DashMap::default(),
            line: Line::default(),
            gauge: Gauge::new(&config.overload),
            room: Room::new(&config.overload),
        }
    }

    /// Takes up a new configuration; memory stays as it was shared out at the start.
    pub(crate) fn configure(self: &Arc<Self>, config: &Config) {
        self.terms.store(Arc::new(Terms::of(config)));
        // Shares that are in use are made anew by the next call of their tenants.
        self.shares.clear();
        self.call_in();
    }

    /// Calls under way.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Lets a call of `tenant` in, at once or after its turn.
    ///
    /// # Errors
    /// Why it is turned away, in words for the caller.
    pub(crate) async fn admit(
        self: &Arc<Self>,
        tenant: &Arc<str>,
        asked: Option<Priority>,
    ) -> Result<Arc<Flight>, Refusal> {
        let terms = self.terms.load();
        let share = self.share(tenant, &terms);
        let priority = asked.map_or(share.priority, |asked| asked.max(share.priority));
        let came = share.came.count(self.gauge.window());
        let pressure = self.gauge.pressure(&terms.config);
        if let Some(short) = self.too_much(&terms.config, &share, priority, pressure, came) {
            return Err(self.refuse(short, priority));
        }
        let places = terms.places(priority);
        if !self.line.is_ahead_of(priority)
            && let Some(flight) = self.take(&share, places)
        {
            return Ok(Arc::new(flight));
        }
        let patience = terms.config.queue();
        let most = terms
            .config
            .queue_places(terms.places(Priority::Interactive));
        drop(terms);
        let began = Instant::now();
        let Some(ticket) = self.line.join(&share, priority, (most, patience)) else {
            return Err(self.refuse(Short::Places, priority));
        };
        // One may have come free before the ticket was there to be seen.
        self.call_in();
        let flight = Box::pin(ticket.place()).await;
        telemetry::queued(priority, began.elapsed());
        flight
            .map(Arc::new)
            .ok_or_else(|| self.refuse(Short::Places, priority))
    }

    /// Whether the process can not take the call, whatever places there are.
    fn too_much(
        &self,
        config: &Overload,
        share: &Share,
        priority: Priority,
        pressure: Pressure,
        came: u32,
    ) -> Option<Short> {
        if pressure.percent < config.percent(priority) {
            return None;
        }
        // Who asks for no more than its part of what gets done is let in, so that nobody is shut out by
        // others, and the door is never closed for good.
        let within = priority == Priority::Interactive && came <= self.gauge.part(share.weight);
        (!within).then_some(pressure.of)
    }

    fn refuse(&self, short: Short, priority: Priority) -> Refusal {
        telemetry::shed(priority, short);
        refusal::overloaded(short, self.gauge.jitter())
    }

    /// Takes a place where fewer than `places` are taken.
    fn take(self: &Arc<Self>, share: &Arc<Share>, places: usize) -> Option<Flight> {
        let more = |taken| (taken < places).then_some(taken + 1);
        let (set, read) = (Ordering::SeqCst, Ordering::Relaxed);
        self.taken.fetch_update(set, read, more).ok()?;
        share.taken.fetch_add(1, Ordering::Relaxed);
        Some(Flight {
            admission: Arc::clone(self),
            share: Arc::clone(share),
        })
    }

    /// Gives places that are free to those who wait.
    fn call_in(self: &Arc<Self>) {
        if self.line.is_empty() {
            return;
        }
        let terms = self.terms.load();
        self.line
            .call_in(|share, priority| self.take(share, terms.places(priority)));
    }

    fn share(&self, tenant: &Arc<str>, terms: &Terms) -> Arc<Share> {
        if let Some(share) = self.shares.get(tenant) {
            return Arc::clone(share.value());
        }
        let said = terms.config.of(tenant);
        let share = self.shares.entry(Arc::clone(tenant)).or_insert_with(|| {
            Arc::new(Share {
                tenant: Arc::clone(tenant),
                weight: said.map_or(1, |said| said.weight.max(1)),
                priority: said.map_or(Priority::Interactive, |said| said.priority),
                taken: AtomicUsize::new(0),
                turn: AtomicU64::new(0),
                came: gauge::Came::default(),
            })
        });
        Arc::clone(share.value())
    }
}

#[cfg(test)]
mod tests;
