//! Making the body that an upstream gets: the caller's bytes with edits in them, or, where dialect,
//! origin or window differ, the conversation written anew.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use router::Wanted;
use wire::call::Call;
use wire::dialect::{Asked, Change, ThinkingForm, carry};
use wire::{LossKind, Losses, Scan};

use crate::attempt::{Dispatch, Failed};
use crate::clock::now_ms;
use crate::context::fit::{self, DoesNotFit, Window};
use crate::context::{memory, summary};
use crate::hints;
use crate::intake::{Inbound, ReadCallError};
use crate::refusal;
use crate::runtime::Target;

/// Prompts up to this many bytes are counted exactly before an answer begins; longer ones are rated at
/// four bytes a token, because counting them would hold up the call by milliseconds.
const COUNTED_BYTES: usize = 64 << 10;

/// A body for one upstream.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The body, where it was written anew; `None` where the caller's bytes go on.
    pub(crate) made: Option<Bytes>,
    /// The scan of what the upstream gets, with what it has kept itself, where that is not the
    /// caller's body: a bound must be made of what is sent.
    seen: Option<Box<Scan>>,
    /// The conversation it was written from.
    call: Option<Box<Call>>,
    pub(crate) losses: Losses,
    /// What the answer's translator must know; `None` where the upstream speaks the caller's dialect.
    pub(crate) asked: Option<Asked>,
}

impl Prepared {
    /// What the upstream sees.
    pub(crate) fn scan<'a>(&'a self, inbound: &'a Inbound) -> &'a Scan {
        self.seen.as_deref().unwrap_or(&inbound.scan)
    }
}

/// The call in canonical form, decoded when first needed.
pub(crate) type Canonical = OnceLock<Result<Arc<Call>, String>>;

impl Dispatch<'_> {
    /// What `target` gets where the caller's own bytes go on.
    pub(crate) fn as_it_is(&self, target: &Target, cap: Option<u64>) -> Option<Prepared> {
        let is_long = || self.too_long(target, cap).is_some();
        (!self.inbound.dialect.converses() || (self.is_at_home(target) && !is_long()))
            .then(|| self.untouched(target))
    }

    fn untouched(&self, target: &Target) -> Prepared {
        Prepared {
            made: None,
            seen: self.context.seen_elsewhere(self.inbound).map(Box::new),
            call: None,
            losses: self.clamped(target),
            asked: None,
        }
    }

    /// Whether nothing but the length of the call stands against its own bytes.
    fn is_at_home(&self, target: &Target) -> bool {
        target.dialect.name() == self.inbound.dialect.name()
            && !self.writes_out.load(Ordering::Relaxed)
            && self.inbound.scan.can_think(target.thinking)
            && !self.context.must_rewrite(&target.endpoint.origin)
    }

    /// The tokens that the model takes, where the call may have more.
    fn too_long(&self, target: &Target, cap: Option<u64>) -> Option<u64> {
        let bytes = self.inbound.body.len() + self.context.bytes_elsewhere();
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.window(target, cap).filter(|limit| bytes > *limit)
    }

    /// The body for `target` written anew where it must be, with an output cap of `cap` tokens in it.
    pub(crate) async fn rewritten(
        &self,
        target: &Target,
        cap: Option<u64>,
    ) -> Result<Prepared, Failed> {
        let origin = &target.endpoint.origin;
        let translates = target.dialect.name() != self.inbound.dialect.name();
        let at_home = self.is_at_home(target);
        let written = self.canonical()?;
        if translates {
            carried(&written, target)?;
        }
        let mut losses = Losses::default();
        let mut call = Call::clone(&written);
        call.withhold(target.dialect.name(), origin, &mut losses);
        if target.thinking == Some(ThinkingForm::None) {
            call.forget_reasoning(&mut losses);
        }
        let fitted = match self.too_long(target, cap) {
            Some(limit) => {
                let (shorter, fitted) = self
                    .fit(target, call, (limit, at_home), &mut losses)
                    .await?;
                call = shorter;
                fitted
            }
            None => false,
        };
        if at_home && !fitted {
            return Ok(self.untouched(target));
        }
        let asked = translates.then_some(written);
        self.encoded(target, Box::new(call), cap, losses, asked)
    }

    /// The body for `target` with another cap in it: the conversation stays as it was fitted, or more
    /// would be sent than was held for.
    pub(crate) fn recapped(
        &self,
        target: &Target,
        prepared: Prepared,
        cap: u64,
    ) -> Result<Prepared, Failed> {
        let Prepared {
            call: Some(call),
            losses,
            asked,
            ..
        } = prepared
        else {
            return Ok(prepared);
        };
        self.encoded(
            target,
            call,
            Some(cap),
            losses,
            asked.map(|asked| asked.call),
        )
    }

    fn encoded(
        &self,
        target: &Target,
        call: Box<Call>,
        cap: Option<u64>,
        mut losses: Losses,
        asked: Option<Arc<Call>>,
    ) -> Result<Prepared, Failed> {
        let change = Change {
            model: &target.upstream_model,
            cap,
            cap_field: &target.endpoint.cap_field,
            most_output: target.max_output,
            thinking: target.thinking,
        };
        let body = target.dialect.encode(&call, &change, &mut losses);
        self.check(target, &losses)?;
        let body = Bytes::from(body.to_string());
        let unsound = |error| Failed::Last(refusal::unreadable(&ReadCallError::Scan(error)));
        let seen = target.dialect.scan(&body).map_err(unsound)?;
        let asked = asked.map(|asked| self.asked(target, asked, &body));
        Ok(Prepared {
            made: Some(body),
            seen: Some(Box::new(seen)),
            call: Some(call),
            losses,
            asked,
        })
    }

    /// The longest answer to hold a spliced call to. Whoever names a model is told its limit by the
    /// vendor; whoever leaves the choice to the router can not know it.
    pub(crate) fn most_output(&self, target: &Target) -> Option<u64> {
        let asked = self.inbound.scan.max_output?;
        let routed = !matches!(Wanted::parse(&self.inbound.scan.model), Wanted::Named(_));
        target.max_output.filter(|most| routed && asked > *most)
    }

    /// What is told of a cap that is made smaller.
    fn clamped(&self, target: &Target) -> Losses {
        let mut losses = Losses::default();
        if self.most_output(target).is_some() {
            losses.approximated("max_output_tokens");
        }
        losses
    }

    /// Refuses what the policy does not let be lost.
    fn check(&self, target: &Target, losses: &Losses) -> Result<(), Failed> {
        match losses.serious() {
            Some(loss) if self.runtime.policy_config.refuses_losses() => {
                Err(Failed::Next(refusal::lossy(&target.name, loss)))
            }
            _ => Ok(()),
        }
    }

    /// What must be known to play a whole answer as a stream of the caller's own dialect, where that is wanted.
    pub(crate) fn plays(&self, target: &Target, prepared: &Prepared) -> Option<Asked> {
        let wants = self.inbound.scan.stream && self.inbound.dialect.converses();
        if !wants || prepared.asked.is_some() {
            return None;
        }
        // A call that can not be read as a conversation is answered as it was.
        let call = self.canonical().ok()?;
        Some(self.asked(target, call, &self.inbound.body))
    }

    fn asked(&self, target: &Target, call: Arc<Call>, body: &Bytes) -> Asked {
        let text = std::str::from_utf8(body).unwrap_or_default();
        let prompt_tokens = if text.len() <= COUNTED_BYTES {
            target.tokenizer.count(text)
        } else {
            u64::try_from(text.len() / 4).unwrap_or(u64::MAX)
        };
        Asked {
            request: self.request,
            created_s: now_ms() / 1_000,
            include_usage: self.inbound.scan.include_usage,
            call,
            prompt_tokens,
            count: crate::runtime::count,
        }
    }

    /// The call in canonical form.
    pub(crate) fn canonical(&self) -> Result<Arc<Call>, Failed> {
        let decode = || {
            let call = self
                .shared
                .canonical(self.subject, self.inbound, self.context);
            call.map(Arc::new).map_err(|error| error.to_string())
        };
        let call = self.canonical.get_or_init(decode);
        call.clone()
            .map_err(|error| Failed::Last(refusal::undecodable(&error)))
    }

    /// Prompt tokens that fit the model's window beside the answer, in its own count; `None` where
    /// nobody knows the window.
    fn window(&self, target: &Target, cap: Option<u64>) -> Option<u64> {
        const ANSWER: u64 = 4_096;
        let context = target.context?;
        let answer = cap.or(self.inbound.scan.max_output).unwrap_or(ANSWER);
        Some(context.saturating_sub(answer.min(context / 4)))
    }

    /// Shortens the call to `limit` tokens of the model's; also says whether it had to. At home, where
    /// the upstream would have had the caller's own bytes, only what is surely too long is touched.
    async fn fit(
        &self,
        target: &Target,
        mut call: Call,
        (limit, at_home): (u64, bool),
        losses: &mut Losses,
    ) -> Result<(Call, bool), Failed> {
        let (tokenizer, memory) = (
            Arc::clone(&target.tokenizer),
            Arc::clone(&self.shared.memory),
        );
        let tenant = Arc::clone(&self.subject.tenant);
        let (model, context) = (Arc::clone(&target.name), target.context.unwrap_or(limit));
        let pins = self.runtime.context.pins.clone();
        let room = target.factor.unapply(limit);
        let before = std::mem::take(losses);
        // Counting takes a second for the longest bodies, which no reactor has to spare.
        let fitting = tokio::task::spawn_blocking(move || {
            let mut losses = before;
            let window = Window {
                limit: room,
                untouched: if at_home { limit } else { room },
                context,
                tokenizer: &tokenizer,
                pins: &pins,
            };
            let shapes = memory.shapes(&tenant, &model, &call.turns);
            let handle = |text: &str| memory::handle(&tenant, text);
            let mut fitted = fit::fit(&mut call, window, shapes.latest, &handle, &mut losses);
            if let Ok(fitted) = &mut fitted {
                memory.keep_shape(&tenant, &shapes, fitted.shape);
                memory.keep_results(&tenant, std::mem::take(&mut fitted.results));
            }
            (call, fitted, losses)
        });
        let fitting = fitting.await;
        let (mut call, fitted, after) = fitting.map_err(|_| Failed::Last(refusal::panicked()))?;
        *losses = after;
        let fitted = fitted.map_err(|tokens| {
            let error = DoesNotFit {
                tokens: target.factor.apply(tokens),
                limit,
                model: target.name.to_string(),
            };
            Failed::Next(refusal::too_long(&error))
        })?;
        // Before anything is paid for a summary that would be refused.
        self.check(target, losses)?;
        let trimmed = losses.iter().any(|loss| loss.kind == LossKind::Trimmed);
        let most = fit::most_summaries(context);
        let chunks = &fitted.chunks;
        let by = summary::By {
            shared: self.shared,
            subject: self.subject,
            headers: self.ruled_headers(),
        };
        let summaries = summary::of(&by, chunks, most).await;
        fitted.put_into(&mut call, &summaries);
        Ok((call, trimmed))
    }

    /// What binds calls that the gateway makes of this one: headers that the operator's rules look at, the
    /// regions that the caller keeps to, and the label that it was taken to bear.
    fn ruled_headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let looked_at = self.runtime.policy.rules().headers();
        for name in looked_at.chain([hints::REGIONS]) {
            let name = HeaderName::from_bytes(name.as_bytes()).ok();
            let value = name.as_ref().and_then(|it| self.inbound.headers.get(it));
            if let (Some(name), Some(value)) = (&name, value) {
                headers.insert(name, value.clone());
            }
        }
        let label = &self.decided.routing.label;
        if let (false, Ok(label)) = (label.is_empty(), HeaderValue::from_str(label)) {
            headers.insert(hints::LABEL, label);
        }
        headers
    }
}

/// Refuses a call that has not what its dialect demands, or of whose question nothing can be put to `target`.
fn carried(call: &Call, target: &Target) -> Result<(), Failed> {
    let whole = carry::whole(call);
    whole.map_err(|error| Failed::Last(refusal::undecodable(&error.to_string())))?;
    match carry::untold(call, target.dialect) {
        Some(what) => Err(Failed::Next(refusal::untold(&target.name, &what))),
        None => Ok(()),
    }
}
