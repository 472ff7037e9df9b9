//! Records as they lie in a buffer: read without a copy, and made whole where somebody keeps them.

use std::sync::Arc;

use meter::{Charge, Entry, Held, NanoUsd, Outcome, Routing, Subject};
use wire::{RequestId, Tier, Usage, UsageSource};

use super::fields::Fields;
use super::{DecodeError, FORMAT, HOLD, Head, Kind, SETTLE};

impl Head {
    /// Whose record this is.
    pub(crate) fn of(payload: &[u8]) -> Result<Self, DecodeError> {
        head(&mut Fields(payload))
    }
}

/// A hold in a buffer; the fields are those of [`Held`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeldView<'a> {
    /// The request's bytes where they lie.
    pub id: &'a [u8],
    pub request: RequestId,
    pub attempt: u16,
    pub tier: Tier,
    pub stream: bool,
    pub tenant: &'a str,
    pub team: &'a str,
    pub project: &'a str,
    pub key: &'a str,
    pub user: &'a str,
    pub task: &'a str,
    pub workflow: &'a str,
    pub dialect: &'a str,
    pub requested: &'a str,
    pub model: &'a str,
    pub endpoint: &'a str,
    pub reason: &'a str,
    pub price: &'a str,
    losses: &'a str,
    pub lane: &'a str,
    pub book: &'a str,
    escalated: &'a str,
    pub score_milli: Option<u16>,
    pub session: u64,
    pub held_at_ms: i64,
    pub bound: NanoUsd,
    bound_usage: Usage,
    charges: (u64, Fields<'a>),
    pub routing: Option<RoutingView<'a>>,
}

/// What sums need of a decision; the rest is read where somebody keeps it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RoutingView<'a> {
    pub class: &'a str,
    pub step: &'a str,
    pub lost: NanoUsd,
    rest: Fields<'a>,
}

/// An entry in a buffer; the fields are those of [`Entry`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct EntryView<'a> {
    pub held: HeldView<'a>,
    pub outcome: Outcome,
    pub source: UsageSource,
    pub status: u16,
    pub settled_at_ms: i64,
    pub usage: Usage,
    pub cost: NanoUsd,
    pub baseline: NanoUsd,
    pub list: NanoUsd,
    pub sell: NanoUsd,
    pub cache_saved: NanoUsd,
    pub suspense: NanoUsd,
    pub context_tier: u64,
    pub first_byte_ms: Option<u32>,
    /// The record that it was read from.
    pub payload: &'a [u8],
}

/// Where the request's bytes lie in a record.
pub(crate) fn id(payload: &[u8]) -> &[u8] {
    payload.get(2..18).unwrap_or_default()
}

fn head(from: &mut Fields<'_>) -> Result<Head, DecodeError> {
    let [format, kind] = from.array()?;
    let kind = match (format, kind) {
        (FORMAT, HOLD) => Kind::Hold,
        (FORMAT, SETTLE) => Kind::Settle,
        _ => return Err(DecodeError),
    };
    Ok(Head {
        kind,
        request: RequestId::from_bytes(from.array()?),
        attempt: from.small()?,
    })
}

impl<'a> HeldView<'a> {
    /// The hold, or that of the entry, in `payload`.
    pub(crate) fn of(payload: &'a [u8]) -> Result<Self, DecodeError> {
        Self::read(&mut Fields(payload))
    }

    fn read(from: &mut Fields<'a>) -> Result<Self, DecodeError> {
        let id = id(from.0);
        let Head {
            request, attempt, ..
        } = head(from)?;
        Ok(Self {
            id,
            request,
            attempt,
            tier: one_of(&Tier::ALL, from)?,
            stream: from.byte()? != 0,
            tenant: from.text()?,
            team: from.text()?,
            project: from.text()?,
            key: from.text()?,
            user: from.text()?,
            task: from.text()?,
            workflow: from.text()?,
            dialect: from.text()?,
            requested: from.text()?,
            model: from.text()?,
            endpoint: from.text()?,
            reason: from.text()?,
            price: from.text()?,
            losses: from.text()?,
            lane: from.text()?,
            book: from.text()?,
            escalated: from.text()?,
            score_milli: from.opt()?,
            session: u64::from_le_bytes(from.array()?),
            held_at_ms: from.signed()?,
            bound: NanoUsd(from.signed()?),
            bound_usage: usage(from)?,
            charges: charges(from)?,
            routing: match from.byte()? {
                0 => None,
                _ => Some(RoutingView::read(from)?),
            },
        })
    }

    /// The budgets that carry it, with the starts of their windows.
    pub(crate) fn charges(&self) -> impl Iterator<Item = (&'a str, i64)> {
        let (count, mut from) = self.charges;
        // They were read once, so they can be read again.
        (0..count).filter_map(move |_| Some((from.text().ok()?, from.signed().ok()?)))
    }

    /// The lane that it is summed under.
    pub(crate) fn summed_lane(&self) -> &'a str {
        if self.lane.is_empty() {
            "standard"
        } else {
            self.lane
        }
    }

    /// The router's class and step; empty where nothing was decided.
    pub(crate) fn class_and_step(&self) -> (&'a str, &'a str) {
        self.routing
            .map_or(("", ""), |routing| (routing.class, routing.step))
    }

    /// The hold, whole.
    pub(crate) fn to_held(self) -> Result<Held, DecodeError> {
        fn text(text: &str) -> Arc<str> {
            Arc::from(text)
        }
        Ok(Held {
            request: self.request,
            attempt: self.attempt,
            subject: Subject {
                user: text(self.user),
                task: text(self.task),
                workflow: text(self.workflow),
                ..Subject::of_key(self.tenant, self.team, self.project, self.key)
            },
            dialect: text(self.dialect),
            requested: text(self.requested),
            model: text(self.model),
            endpoint: text(self.endpoint),
            tier: self.tier,
            reason: text(self.reason),
            score_milli: self.score_milli,
            stream: self.stream,
            held_at_ms: self.held_at_ms,
            bound: self.bound,
            bound_usage: self.bound_usage,
            price: text(self.price),
            losses: text(self.losses),
            session: self.session,
            lane: text(self.lane),
            book: text(self.book),
            charges: self
                .charges()
                .map(|(budget, start_ms)| Charge {
                    budget: text(budget),
                    start_ms,
                })
                .collect(),
            escalated: text(self.escalated),
            routing: self
                .routing
                .map(|it| it.to_routing().map(Box::new))
                .transpose()?,
        })
    }
}

impl<'a> RoutingView<'a> {
    fn read(from: &mut Fields<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            class: from.text()?,
            step: from.text()?,
            lost: NanoUsd(from.signed()?),
            rest: {
                let length = u32::from_le_bytes(from.array()?);
                Fields(from.bytes(usize::try_from(length).map_err(|_| DecodeError)?)?)
            },
        })
    }

    fn to_routing(self) -> Result<Routing, DecodeError> {
        let mut from = self.rest;
        Ok(Routing {
            class: Arc::from(self.class),
            step: Arc::from(self.step),
            lost: self.lost,
            score_ppm: from.opt()?,
            threshold_ppm: from.opt()?,
            propensity_ppm: from.small()?,
            layers: (0..from.number()?)
                .map(|_| i32::try_from(from.signed()?).map_err(|_| DecodeError))
                .collect::<Result<_, _>>()?,
            head: from.small()?,
            weights: from.shared()?,
            rules: from.list()?,
            would: from.list()?,
            barred: from.pairs()?,
            label: from.shared()?,
            headers: from.pairs()?,
            needs: from.small()?,
            prompt_tokens: from.number()?,
            seat: from.shared()?,
        })
    }
}

impl<'a> EntryView<'a> {
    /// The entry in `payload`.
    pub(crate) fn of(payload: &'a [u8]) -> Result<Self, DecodeError> {
        let from = &mut Fields(payload);
        let held = HeldView::read(from)?;
        Ok(Self {
            held,
            outcome: one_of(&Outcome::ALL, from)?,
            source: one_of(&UsageSource::ALL, from)?,
            status: from.small()?,
            settled_at_ms: from.signed()?,
            usage: usage(from)?,
            cost: NanoUsd(from.signed()?),
            baseline: NanoUsd(from.signed()?),
            list: NanoUsd(from.signed()?),
            sell: NanoUsd(from.signed()?),
            cache_saved: NanoUsd(from.signed()?),
            suspense: NanoUsd(from.signed()?),
            context_tier: from.number()?,
            first_byte_ms: from.opt()?,
            payload,
        })
    }

    /// The entry, whole.
    pub(crate) fn to_entry(self) -> Result<Entry, DecodeError> {
        Ok(Entry {
            held: self.held.to_held()?,
            outcome: self.outcome,
            status: self.status,
            settled_at_ms: self.settled_at_ms,
            usage: self.usage,
            source: self.source,
            cost: self.cost,
            baseline: self.baseline,
            list: self.list,
            sell: self.sell,
            cache_saved: self.cache_saved,
            suspense: self.suspense,
            context_tier: self.context_tier,
            first_byte_ms: self.first_byte_ms,
        })
    }
}

fn one_of<T: Copy>(all: &[T], from: &mut Fields<'_>) -> Result<T, DecodeError> {
    all.get(usize::from(from.byte()?))
        .copied()
        .ok_or(DecodeError)
}

fn usage(from: &mut Fields<'_>) -> Result<Usage, DecodeError> {
    Ok(Usage {
        input: from.number()?,
        cache_read: from.number()?,
        cache_write_5m: from.number()?,
        cache_write_1h: from.number()?,
        output: from.number()?,
        reasoning: from.number()?,
        audio_input: from.number()?,
        audio_output: from.number()?,
        web_searches: from.number()?,
    })
}

/// How many charges there are, and where they begin.
fn charges<'a>(from: &mut Fields<'a>) -> Result<(u64, Fields<'a>), DecodeError> {
    let count = from.number()?;
    let first = *from;
    for _ in 0..count {
        from.text()?;
        from.signed()?;
    }
    Ok((count, first))
}
