//! The bill of one attempt, from the moment its upstream saw it. Whatever happens, it is settled
//! exactly once: by what is called here, or by its drop when the caller has gone.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use meter::hold::{Settled, Settlement};
use meter::{Hold, JournalError, NanoUsd, Outcome, Position};
use tokio::time::Instant;
use wire::dialect::Facts;
use wire::{Usage, UsageSource};

use crate::care::Passage;
use crate::clock::now_ms;
use crate::context::{Session, Sessions};
use crate::otlp::Seen;
use crate::trace::{Phase, Trace};
use crate::{request_log, telemetry};

/// Tokens added to a count of a stream that was left: what the endpoint wrote before it noticed.
const IN_FLIGHT_TOKENS: u64 = 16;

/// Bodies up to this length are counted exactly: some milliseconds, off the usual way.
const COUNTED_BYTES: usize = 256 << 10;
/// One settled call in this many teaches the count of its model.
const SAMPLED: u8 = 64;

/// An attempt's open hold with what settling it needs.
#[derive(Debug)]
pub(crate) struct Billing {
    hold: Option<Hold>,
    pub(crate) trace: Trace,
    /// The endpoint's status; 0 until it answers.
    pub(crate) status: u16,
    /// When the upstream was asked.
    pub(crate) sent_at: Instant,
    first_byte_ms: Option<u32>,
    /// What was sent, to be counted where nobody reports it.
    sent: Bytes,
    /// The call at its model, which hears how it ended.
    pub(crate) passage: Box<Passage>,
    /// What was sent is text alone, and all of it: its reported tokens say how the model counts.
    teaches: bool,
    /// Another attempt's answer is to be given in place of this one's: the call is counted there.
    gives_way: bool,
    /// The conversation that the answer belongs to.
    seat: Option<(Arc<Sessions>, Session)>,
}

/// What an attempt used, as far as is known.
#[derive(Debug, Clone, Copy)]
struct Used {
    usage: Usage,
    source: UsageSource,
    /// The most it can have been, where it was counted.
    upper: Option<Usage>,
    /// Why the answer ended.
    finish: Option<&'static str>,
}

impl Used {
    fn reported(usage: Usage) -> Self {
        Self {
            usage,
            source: UsageSource::Provider,
            upper: None,
            finish: None,
        }
    }

    fn estimated(usage: Usage) -> Self {
        Self {
            usage,
            source: UsageSource::Estimated,
            upper: None,
            finish: None,
        }
    }
}

impl Billing {
    pub(crate) fn new(
        hold: Hold,
        trace: Trace,
        sent: Bytes,
        passage: Box<Passage>,
        teaches: bool,
    ) -> Box<Self> {
        // A kilobyte, which is handed on from step to step.
        Box::new(Self {
            hold: Some(hold),
            trace,
            status: 0,
            sent_at: Instant::now(),
            first_byte_ms: None,
            sent,
            passage,
            teaches,
            gives_way: false,
            seat: None,
        })
    }

    /// The same for an answer of a conversation, which is then known to sit at this model.
    pub(crate) fn seated(
        mut self: Box<Self>,
        sessions: &Arc<Sessions>,
        session: Session,
    ) -> Box<Self> {
        self.seat = Some((Arc::clone(sessions), session));
        self
    }

    /// Notes the check that the answer failed, and whether it gives way to a better one.
    pub(crate) fn doubt(&mut self, cause: &str, gives_way: bool) {
        self.gives_way = gives_way;
        if let Some(hold) = &mut self.hold {
            hold.doubt(cause);
        }
    }

    /// No better answer came.
    pub(crate) fn stays(&mut self) {
        self.gives_way = false;
    }

    /// Notes when the first content came.
    pub(crate) fn first_byte(&mut self, after: Duration) {
        self.first_byte_ms = Some(telemetry::elapsed_ms(after));
    }

    /// Waits until the hold is on the disk.
    pub(crate) async fn synced(&self) -> Result<(), JournalError> {
        match &self.hold {
            Some(hold) => hold.synced().await,
            None => Ok(()),
        }
    }

    /// The stream is there to its end. Unless that will never be written down, it may be delivered.
    pub(crate) fn complete(&mut self, facts: &Facts) -> Result<(), JournalError> {
        self.passage.succeeded();
        let used = self.used(facts, facts.counted_output());
        self.settle(Outcome::Completed, used)
    }

    /// The answer of `bytes`, which was not streamed, is there to be delivered. Tells what it costs, once
    /// that is written down.
    ///
    /// # Errors
    /// When it never will be: nobody is told that the call is done.
    pub(crate) async fn deliver(
        &mut self,
        facts: &Facts,
        bytes: usize,
        trace: &mut Trace,
    ) -> Result<Option<NanoUsd>, JournalError> {
        self.passage.succeeded();
        let unstreamed = u64::try_from(bytes).unwrap_or(u64::MAX).div_ceil(3);
        let output = facts.counted_output().max(unstreamed);
        let used = self.used(facts, output);
        let Some(mut settled) = self.post(Outcome::Completed, used) else {
            return Ok(None);
        };
        trace.lap(Phase::Relay);
        let written = settled.write_together().await;
        trace.lap(Phase::Journal);
        self.told(&settled, written)?;
        Ok(Some(settled.entry.cost))
    }

    /// The upstream broke off; what it produced is charged.
    pub(crate) fn interrupt(&mut self, facts: &Facts) {
        self.passage.failed();
        let used = self.used(facts, facts.counted_output());
        self.end(Outcome::Interrupted, used);
    }

    /// A better answer has begun; the upstream is cancelled and bills what it wrote until it noticed.
    pub(crate) fn cut(&mut self, facts: &Facts) {
        let output = facts.counted_output().saturating_add(IN_FLIGHT_TOKENS);
        let used = self.used(facts, output);
        self.end(Outcome::Interrupted, used);
    }

    /// The caller left; the upstream is cancelled and bills what it wrote until it noticed.
    pub(crate) fn disconnect(&mut self, facts: &Facts) {
        let output = facts.counted_output().saturating_add(IN_FLIGHT_TOKENS);
        let used = self.used(facts, output);
        self.end(Outcome::Disconnected, used);
    }

    /// Nobody knows what was used: the bound is charged, marked as an estimate.
    pub(crate) fn charge_bound(&mut self) {
        self.passage.failed();
        let bound = self.bound().unwrap_or_default();
        self.end(Outcome::Interrupted, Used::estimated(bound));
    }

    /// The upstream bills nothing for this attempt.
    pub(crate) fn void(&mut self) {
        self.end(Outcome::Failed, Used::reported(Usage::default()));
    }

    /// The usage that was held for; `None` once settled.
    fn bound(&self) -> Option<Usage> {
        self.hold.as_ref()?.held().map(|held| held.bound_usage)
    }

    /// Whether an answer of so many events has passed the output cap that was held for, beyond what
    /// may be in the way of counting: from here on nobody has reserved the money.
    pub(crate) fn is_over_cap(&self, content_events: u64) -> bool {
        let held = self.hold.as_ref().and_then(|hold| hold.held());
        held.is_some_and(|held| {
            let cap = held.bound_usage.output;
            cap > 0 && content_events > cap.saturating_add(IN_FLIGHT_TOKENS)
        })
    }

    /// The tokens of what was sent, as the model may count them; long prompts by their bytes.
    fn counted_prompt(&self) -> u64 {
        match std::str::from_utf8(&self.sent) {
            Ok(text) if text.len() <= COUNTED_BYTES => {
                let target = self.passage.target();
                target.factor.apply(target.tokenizer.count(text))
            }
            _ => u64::try_from(self.sent.len())
                .unwrap_or(u64::MAX)
                .div_ceil(3),
        }
    }

    /// Now and then a reported prompt is counted as well, so that counts of this model get better.
    fn learn(&self, reported: &Usage) {
        let sampled = self
            .trace
            .request
            .bytes()
            .last()
            .is_some_and(|last| last % SAMPLED == 0);
        let reported = reported.prompt();
        let is_wanted = sampled && self.teaches && self.sent.len() <= COUNTED_BYTES;
        let target = self.passage.target();
        if !is_wanted || !target.factor.is_due(reported, now_ms()) {
            return;
        }
        let (sent, tokenizer, factor) = (
            self.sent.clone(),
            Arc::clone(&target.tokenizer),
            Arc::clone(&target.factor),
        );
        // Counting takes up to milliseconds, which no reactor has to spare.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(move || {
                let text = std::str::from_utf8(&sent).unwrap_or_default();
                factor.learn(tokenizer.count(text), reported);
            });
        }
    }

    /// Usage as reported, or else as counted, within the bound, each side by itself: no prompt is without tokens,
    /// and no answer that holds something. An endpoint that fills in zeros must not make its calls free.
    fn used(&self, facts: &Facts, counted_output: u64) -> Used {
        let bound = self.bound().unwrap_or_default();
        let asked = facts.usage.or(facts.prompt);
        let asked = asked.filter(|usage| usage.prompt() > 0);
        let wrote = bound.output > 0 && facts.has_content();
        let answered = facts.usage.filter(|usage| usage.answer() > 0 || !wrote);
        if let (Some(usage), Some(_)) = (asked, answered) {
            self.learn(&usage);
            let finish = facts.finish;
            return Used {
                finish,
                ..Used::reported(usage)
            };
        }
        let counted = || Usage {
            input: self.counted_prompt().min(bound.input),
            web_searches: facts.usage.map_or(0, |usage| usage.web_searches),
            ..Usage::default()
        };
        let prompt = asked.unwrap_or_else(counted);
        let output = |output| Usage {
            output,
            ..Usage::default()
        };
        let answer = answered.unwrap_or(output(counted_output.min(bound.output)));
        // No tokenizer makes more tokens than bytes; what was not seen of the answer may have been
        // thought, as far as the cap goes, where the answer was not streamed.
        let seen = counted_output
            .saturating_mul(2)
            .max(facts.content_events.saturating_add(facts.content_bytes))
            .saturating_add(IN_FLIGHT_TOKENS);
        let most = if facts.content_events == 0 {
            bound.output
        } else {
            seen.min(bound.output)
        };
        let upper = asked.unwrap_or(bound);
        Used {
            usage: prompt.with_answer(answer),
            source: UsageSource::Counted,
            upper: Some(upper.with_answer(answered.unwrap_or(output(most)))),
            finish: facts.finish,
        }
    }

    /// Settles an attempt whose caller is not told that it is done.
    fn end(&mut self, outcome: Outcome, used: Used) {
        // What becomes of it has been told.
        let _written = self.settle(outcome, used);
    }

    fn settle(&mut self, outcome: Outcome, used: Used) -> Result<(), JournalError> {
        let Some(mut settled) = self.post(outcome, used) else {
            return Ok(());
        };
        let written = settled.write();
        self.told(&settled, written)
    }

    /// Tells what the journal did not take. What it takes later, once there is room, counts as written.
    fn told(
        &self,
        settled: &Settled,
        written: Result<Position, JournalError>,
    ) -> Result<(), JournalError> {
        let Err(error) = written else { return Ok(()) };
        tracing::error!(request = %self.trace.request, %error, "a settlement was not written");
        if settled.is_lost() {
            Err(error)
        } else {
            Ok(())
        }
    }

    /// Settles; what is returned is still to be written.
    fn post(&mut self, outcome: Outcome, used: Used) -> Option<Settled> {
        let Used {
            usage,
            source,
            upper,
            finish,
        } = used;
        let settlement = Settlement {
            outcome,
            status: self.status,
            usage,
            source,
            upper,
            first_byte_ms: self.first_byte_ms,
            now_ms: now_ms(),
        };
        let settled = self.hold.take()?.post(&settlement)?;
        let entry = &settled.entry;
        self.trace.charge(entry.cost);
        telemetry::settled(entry);
        let target = self.passage.target();
        let spoken = target.dialect.name();
        request_log::settled(entry, spoken, self.trace.arrived.elapsed());
        if let Some(call) = &self.trace.call {
            let seen = Seen {
                target,
                sent_at: self.sent_at,
                finish,
                gives_way: self.gives_way,
            };
            call.settled(entry, &seen);
        }
        let stays = !self.gives_way;
        if let (Outcome::Completed, Some((sessions, session)), true) = (outcome, &self.seat, stays)
        {
            sessions.settled(*session, entry);
        }
        if outcome != Outcome::Failed && stays {
            telemetry::answered(&self.trace, outcome.as_str());
        }
        tracing::debug!(
            target: "pareto::call",
            request = %entry.held.request,
            attempt = entry.held.attempt,
            tenant = %entry.held.subject.tenant,
            key = %entry.held.subject.key,
            model = %entry.held.model,
            tier = %entry.held.tier,
            route = %entry.held.reason,
            outcome = outcome.as_str(),
            status = entry.status,
            prompt_tokens = entry.usage.prompt(),
            answer_tokens = entry.usage.answer(),
            usage = source.as_str(),
            cost_usd = %entry.cost,
            losses = %entry.held.losses,
            session = %format_args!("{:016x}", entry.held.session),
            first_byte_ms = entry.first_byte_ms,
            total_ms = telemetry::elapsed_ms(self.trace.arrived.elapsed()),
        );
        Some(settled)
    }
}

impl Drop for Billing {
    fn drop(&mut self) {
        if self.passage.is_beaten() {
            self.gives_way = true;
            let held = self.hold.as_ref().and_then(|hold| hold.held());
            if held.is_some_and(|held| held.stream) {
                // A stream that has not begun was hardly worked on.
                self.cut(&Facts::default());
            }
        }
        // The caller left before the answer began, and the upstream may bill for it all the same.
        if let Some(bound) = self.bound() {
            self.end(Outcome::Disconnected, Used::estimated(bound));
        }
    }
}
