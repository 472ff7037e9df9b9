//! The hold of an attempt: how much is held, what makes it smaller, how long it is waited for, and
//! what is told where it can not be had.

use std::sync::Arc;
use std::time::Duration;

use meter::config::OnUnpriced;
use meter::{Denied, Estimate, Held, Hold, NanoUsd};
use tokio::time::{Instant, timeout_at};
use wire::Usage;

use super::{Dispatch, Failed};
use crate::cascade::Leg;
use crate::clock::now_ms;
use crate::prepare::Prepared;
use crate::refusal;
use crate::runtime::{self, Target};
use crate::telemetry;
use crate::trace::{Phase, Trace};

/// Tokens that an image or file may cost; published formulas stay below.
const IMAGE_TOKENS: u64 = 8_192;
/// Tokens that a chat template and a tool preamble may add to a prompt.
const TEMPLATE_TOKENS: u64 = 1_024;
/// Tokens of a prompt with files, or of an answer at most, for a model whose context nobody knows.
const LONGEST_CONTEXT: u64 = 1 << 20;
/// Tokens of an answer that nobody bounds, at a model of which nobody knows how long its answers are: the longest
/// that vendors have in their lists.
const LONGEST_ANSWER: u64 = 128 << 10;
/// The least output cap that is worth sending a call for.
const LEAST_CAP: u64 = 16;

/// How often the journal is tried again: it may have moved to another process meanwhile.
const JOURNAL_TRIES: u8 = 2;

/// What of a hold can change while it is sought.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    prompt: u64,
    cap: u64,
}

/// Why a hold can not be had.
enum TooMuch {
    /// A budget or limit has no room.
    Meter(Denied),
    /// The caller does not want to pay as much; `None` where nobody knows what it may cost.
    Caller {
        most: NanoUsd,
        needed: Option<NanoUsd>,
    },
}

impl TooMuch {
    fn waits(&self) -> bool {
        matches!(self, Self::Meter(denied) if denied.waits())
    }
}

impl Dispatch<'_> {
    /// Holds the bound; waits while only other calls' holds stand in the way. Also returns the
    /// output cap that must be written into the call to make the bound true.
    pub(super) async fn hold(
        &self,
        target: &Target,
        leg: Leg,
        trace: &mut Trace,
        prepared: &Prepared,
        (cap, capped): (u64, bool),
    ) -> Result<(Hold, u64), Failed> {
        let meter = &self.shared.meter;
        let deadline = self.waits_until();
        if capped && prepared.scan(self.inbound).shape.server_tools > 0 {
            return Err(Failed::Last(refusal::unbounded()));
        }
        let mut bounds = self.bounds(target, prepared, cap);
        let (mut is_counted, mut has_waited, mut tries) = (false, false, JOURNAL_TRIES);
        loop {
            let releases = meter.releases(&self.subject.tenant);
            let now = now_ms();
            let estimate = self.estimate(target, leg, trace, prepared, bounds, now);
            let denied = match self.held(estimate, now, trace) {
                Ok(mut hold) => match put_down(&mut hold, trace).await {
                    Ok(()) => return Ok((hold, bounds.cap)),
                    Err(unwritten) => unwritten,
                },
                Err(denied) => denied,
            };
            // Another process may be taking over.
            if tries > 0 && matches!(denied, TooMuch::Meter(Denied::Journal(_))) {
                tries -= 1;
                self.shared.journal.moved().await;
                continue;
            }
            // Bytes are a bound that costs nothing; where it is too wide, tokens are counted.
            let may_fit = matches!(
                denied,
                TooMuch::Meter(Denied::Budget { .. } | Denied::Rate { .. })
                    | TooMuch::Caller { .. }
            );
            if may_fit && !is_counted {
                is_counted = true;
                let counted = self.counted_bound(target, prepared);
                if let Some(counted) = counted.filter(|counted| *counted < bounds.prompt) {
                    bounds.prompt = counted;
                    continue;
                }
            }
            // There is an answer already: nothing is waited for, and no shorter one is wanted.
            if let Leg::Second(_) | Leg::Beside = leg {
                return Err(not_deep(target, &denied, now));
            }
            if let (true, Some(mut releases)) = (denied.waits(), releases) {
                if !std::mem::replace(&mut has_waited, true) {
                    self.note_wait(&denied, now);
                }
                if timeout_at(deadline, releases.changed()).await.is_ok() {
                    continue;
                }
            }
            // A caller who named no cap is served as far as the money goes.
            if let Some(smaller) = self.affordable(target, prepared, bounds, now) {
                bounds.cap = smaller;
                continue;
            }
            return Err(self.too_much(target, &denied));
        }
    }

    /// What the call is held at first.
    fn bounds(&self, target: &Target, prepared: &Prepared, cap: u64) -> Bounds {
        let made = prepared.made.as_ref();
        // A dialect may have a least cap, above the one that was asked for.
        let written = made.and(prepared.scan(self.inbound).max_output);
        Bounds {
            prompt: self.prompt_bound(target, prepared),
            cap: written.map_or(cap, |written| written.max(cap)),
        }
    }

    /// Until when a hold is waited for that only other calls stand in the way of.
    fn waits_until(&self) -> Instant {
        let until = Instant::now() + Duration::from_millis(self.runtime.meter.hold_wait_ms);
        self.deadline.map_or(until, |it| it.min(until))
    }

    /// Notes, once for each call, that it waits.
    fn note_wait(&self, denied: &TooMuch, now: i64) {
        if let TooMuch::Meter(denied) = denied {
            let meter = &self.shared.meter;
            meter.note_wait(&self.subject.tenant, denied, now);
        }
    }

    /// Notes that there is no hold for the call, and tells why.
    fn too_much(&self, target: &Target, denied: &TooMuch) -> Failed {
        match denied {
            TooMuch::Meter(denied) => {
                let (tenant, now) = (&self.subject.tenant, now_ms());
                self.shared.meter.note_denied(tenant, denied, now);
                if let Denied::Rate { unit, .. } = denied {
                    telemetry::rate_limited(tenant, *unit);
                }
                Failed::Last(refusal::denied(denied, now))
            }
            TooMuch::Caller { most, needed } => {
                Failed::Next(refusal::too_dear(&target.name, *most, *needed))
            }
        }
    }

    /// Holds, unless the caller's own limit is below the bound; what is held is still to be written.
    fn held(&self, estimate: Estimate, now: i64, trace: &mut Trace) -> Result<Hold, TooMuch> {
        if let Some(most) = self.thrift.most {
            let needed = estimate.bound();
            if needed.is_none_or(|needed| needed > most) {
                return Err(TooMuch::Caller { most, needed });
            }
        }
        let meter = &self.shared.meter;
        let hold = meter.hold(estimate, now).map_err(TooMuch::Meter)?;
        trace.lap(Phase::Hold);
        Ok(hold)
    }

    /// The output cap to hold for: the caller's, or the default under a hard budget. Where there is neither, this is
    /// what is charged for an answer of which nobody has seen how long it was.
    pub(super) fn cap(&self, target: &Target, capped: bool) -> u64 {
        if !self.inbound.dialect.converses() {
            return 0;
        }
        let known = target.max_output.or(target.context);
        let longest = known.unwrap_or(LONGEST_CONTEXT);
        let default = if capped {
            self.runtime.meter.default_max_output
        } else {
            target.max_output.unwrap_or(LONGEST_ANSWER)
        };
        self.inbound.scan.max_output.unwrap_or(default).min(longest)
    }

    /// A smaller cap that what is left pays for, where the caller set none.
    fn affordable(
        &self,
        target: &Target,
        prepared: &Prepared,
        bounds: Bounds,
        now: i64,
    ) -> Option<u64> {
        let scan = &self.inbound.scan;
        if scan.max_output.is_some() {
            return None;
        }
        let room = self.shared.meter.room(self.subject, &target.name, now);
        let room = match (room, self.thrift.most) {
            (Some(room), Some(most)) => room.min(most),
            (room, most) => room.or(most)?,
        };
        let sent = prepared.scan(self.inbound);
        let rates = self.runtime.rates(target, &sent.lane, now)?;
        let fits = rates.affordable_answer(bounds.prompt, room);
        let each = fits.checked_div(sent.answers)?;
        (each >= LEAST_CAP && each < bounds.cap).then_some(each)
    }

    /// No byte-level tokenizer makes more tokens than bytes, so this can not be exceeded. Pages of a
    /// file can: a call with files is held for all that the model takes.
    fn prompt_bound(&self, target: &Target, prepared: &Prepared) -> u64 {
        let sent = prepared.made.as_ref().unwrap_or(&self.inbound.body).len();
        let elsewhere = if prepared.made.is_none() {
            self.context.bytes_elsewhere() + self.context.tokens_elsewhere()
        } else {
            0
        };
        let bytes = u64::try_from(sent + elsewhere).unwrap_or(u64::MAX);
        let bound = bytes.saturating_add(self.beside_text(prepared));
        if prepared.scan(self.inbound).shape.files > 0 {
            bound.max(target.context.unwrap_or(LONGEST_CONTEXT))
        } else {
            bound
        }
    }

    /// Tokens of images, templates and tool preambles.
    fn beside_text(&self, prepared: &Prepared) -> u64 {
        let shape = &prepared.scan(self.inbound).shape;
        let images = u64::from(shape.images).saturating_mul(IMAGE_TOKENS);
        let template = if shape.tools > 0 { TEMPLATE_TOKENS } else { 0 };
        images.saturating_add(template)
    }

    /// The bound by counted tokens, where the model's own tokenizer is known. The whole body is
    /// counted as text: its JSON marks outnumber what a chat template puts in their place.
    fn counted_bound(&self, target: &Target, prepared: &Prepared) -> Option<u64> {
        let shape = &prepared.scan(self.inbound).shape;
        let whole = prepared.made.is_some() || self.context.bytes_elsewhere() == 0;
        if !target.tokenizer_is_its_own || shape.files > 0 || !whole {
            return None;
        }
        let sent = prepared.made.as_ref().unwrap_or(&self.inbound.body);
        let text = std::str::from_utf8(sent).ok()?;
        let counted = target.factor.apply(target.tokenizer.count(text));
        Some(
            counted
                .saturating_add(self.beside_text(prepared))
                .saturating_add(TEMPLATE_TOKENS),
        )
    }

    fn estimate(
        &self,
        target: &Target,
        leg: Leg,
        trace: &Trace,
        prepared: &Prepared,
        bounds: Bounds,
        now: i64,
    ) -> Estimate {
        // The lane and the number of answers are those that are sent: a translation may drop them.
        let sent = prepared.scan(self.inbound);
        let scan = &self.inbound.scan;
        let bound = Usage {
            input: bounds.prompt,
            output: bounds.cap.saturating_mul(sent.answers),
            ..Usage::default()
        };
        Estimate {
            held: Held {
                request: trace.request,
                attempt: trace.attempts,
                subject: self.subject.clone(),
                dialect: Arc::from(self.inbound.dialect.name()),
                requested: Arc::from(scan.model.as_str()),
                model: Arc::clone(&target.name),
                endpoint: Arc::clone(&target.endpoint.name),
                tier: target.tier,
                reason: Arc::from(leg.reason(&self.decided.route).as_str()),
                score_milli: self.decided.route.score.map(router::Score::milli),
                stream: scan.stream,
                held_at_ms: now,
                bound: NanoUsd::ZERO,
                bound_usage: bound,
                price: Arc::from(""),
                losses: Arc::from(prepared.losses.header()),
                session: self.context.session.key,
                lane: Arc::from(runtime::lane(&sent.lane)),
                book: Arc::clone(&self.runtime.book_version),
                charges: Vec::new(),
                routing: Some(self.decided.routing_of(trace.attempts, target.tier)),
                escalated: leg
                    .cause()
                    .map_or_else(Arc::default, |it| Arc::from(it.as_str())),
            },
            rates: self.runtime.rates(target, &sent.lane, now),
            baseline: self.runtime.deep_rates(target, &sent.lane, now),
            sell: Arc::clone(&self.runtime.sell),
            admits_unpriced: self.runtime.meter.on_unpriced == OnUnpriced::Meter,
        }
    }
}

/// Waits until the hold is written; the upstream sees nothing before.
async fn put_down(hold: &mut Hold, trace: &mut Trace) -> Result<(), TooMuch> {
    let written = hold.written().await;
    trace.lap(Phase::Journal);
    written.map_err(|error| TooMuch::Meter(error.into()))
}

/// Why a better answer is not to be had.
fn not_deep(target: &Target, denied: &TooMuch, now: i64) -> Failed {
    Failed::Next(match denied {
        TooMuch::Meter(denied) => refusal::denied(denied, now),
        TooMuch::Caller { most, needed } => refusal::too_dear(&target.name, *most, *needed),
    })
}
