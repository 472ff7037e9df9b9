//! What models cost and how quick they are, for decisions: the price of a call at each, what a
//! conversation loses that changes its model, and how often prompts are found in providers' caches.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use meter::ledger::{Dimension, UsageQuery};
use meter::{Ledger, LedgerError, Rates};
use router::Quote;
use router::switch::Stakes;
use wire::{Tier, Usage};

use crate::clock::uptime_ms;
use crate::runtime::{Runtime, Target};

/// Tokens of an answer that nobody has bounded, for comparing prices.
const USUAL_ANSWER: u64 = 512;
/// Prompt tokens that a model must have read lately before its share of cache reads is believed.
const TELLING: u64 = 10_000;
/// How far back the ledger is asked, in milliseconds.
const LATELY_MS: i64 = 24 * 3_600_000;
const HOUR_MS: i64 = 3_600_000;

/// The share of prompt tokens that each model has read from its provider's cache lately.
#[derive(Debug, Default)]
pub(crate) struct CacheHits(ArcSwap<HashMap<Arc<str>, f64>>);

/// Where a conversation sits: the model of its last answer, and what that had to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) model: Arc<str>,
    /// Tokens of its last prompt and answer, which the next prompt begins with.
    pub(crate) tokens: u64,
    /// Tokens of that prompt that came from the cache, or were put there.
    pub(crate) cached: u64,
    pub(crate) at_ms: i64,
}

impl CacheHits {
    /// Asks the ledger anew. Blocks.
    pub(crate) fn refresh(&self, ledger: &dyn Ledger, now_ms: i64) -> Result<(), LedgerError> {
        let from_ms = (now_ms - LATELY_MS).div_euclid(HOUR_MS) * HOUR_MS;
        let rows = ledger.usage(&UsageQuery {
            from_ms: Some(from_ms),
            by: vec![Dimension::Model],
            ..UsageQuery::default()
        })?;
        let share = |usage: &Usage| {
            let prompt = usage.prompt();
            (prompt >= TELLING).then(|| ratio(usage.cache_read, prompt))
        };
        let hits = rows.iter().filter_map(|row| {
            let model = row.group.first()?;
            Some((Arc::from(model.as_str()), share(&row.usage)?))
        });
        self.0.store(Arc::new(hits.collect()));
        Ok(())
    }

    /// The share of `model`, where enough is known.
    fn share(&self, model: &str) -> Option<f64> {
        self.0.load().get(model).copied()
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a share of tokens, for an estimate"
)]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// One call, as prices see it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Priced<'a> {
    pub(crate) runtime: &'a Runtime,
    pub(crate) lane: &'a str,
    pub(crate) prompt_tokens: u64,
    pub(crate) answer_tokens: Option<u64>,
    pub(crate) now_ms: i64,
}

impl Priced<'_> {
    /// What the call costs at the model at `place`, all of its prompt read anew.
    pub(crate) fn quote(&self, place: usize) -> Quote {
        let Some(target) = self.runtime.targets.get(place) else {
            return Quote::default();
        };
        let cost = |rates: Arc<Rates>| rates.cost(&self.usage(0)).0;
        Quote {
            cost_nano_usd: self.rates(target).map(cost),
            first_byte_ms: {
                let now = uptime_ms();
                let known = target
                    .equals()
                    .filter_map(|it| it.health.first_byte_ms(now));
                known.min()
            },
        }
    }

    /// What is at stake when a conversation changes from `seat` at one place to the model at another.
    pub(crate) fn stakes(
        &self,
        hits: &CacheHits,
        seat: &Seat,
        (from, to): (usize, usize),
    ) -> Stakes {
        let both = [from, to].map(|place| {
            let target = self.runtime.targets.get(place)?;
            Some((target, self.rates(target)?))
        });
        let [Some((at, stays)), Some((other, goes))] = both else {
            return Stakes::default();
        };
        let prefix = seat.tokens.min(self.prompt_tokens.max(seat.cached));
        let cold = goes.cost(&self.usage(0)).0;
        let warm = goes.cost(&self.usage(prefix)).0;
        let own = ratio(seat.cached, seat.tokens).min(1.0);
        let share = hits.share(&other.name).unwrap_or(own).max(own);
        let stay = stays.cost(&self.usage(prefix)).0;
        let premium = if at.tier == Tier::Deep {
            stay - warm
        } else {
            warm - stay
        };
        Stakes {
            lost_nano_usd: weighted(cold - warm, share),
            premium_nano_usd: premium,
        }
    }

    fn rates(&self, target: &Target) -> Option<Arc<Rates>> {
        self.runtime.rates(target, self.lane, self.now_ms)
    }

    /// What the call uses, when `cached` tokens of its prompt are in the cache.
    fn usage(&self, cached: u64) -> Usage {
        let prompt = self.prompt_tokens.max(1);
        let cached = cached.min(prompt);
        Usage {
            input: prompt - cached,
            cache_read: cached,
            output: self.answer_tokens.unwrap_or(USUAL_ANSWER).min(USUAL_ANSWER),
            ..Usage::default()
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "an estimate of what is lost, which no account is charged with"
)]
fn weighted(nano_usd: i64, share: f64) -> i64 {
    (nano_usd.max(0) as f64 * share) as i64
}
