//! Rating: what a call's usage costs, what it may cost at most, and what each class of it comes to.

use std::sync::Arc;

use wire::Usage;

use crate::money::{NanoUsd, PicoPerUnit, PicoSum, Ratio};

use super::schedule::Schedule;

/// The prices that rate one call. Which ones they are is decided when its hold is made; what a
/// schedule adds is decided when it completes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rates {
    /// Offer, start of the period, and lane and region where they are not the ordinary ones, for
    /// instance `openai/gpt-5@2026-10-01T01:47:31Z/flex+us`.
    pub id: Arc<str>,
    pub(super) base: Classes,
    /// Whole-request prices above a number of prompt tokens, lowest first.
    pub(super) tiers: Vec<(u64, Classes)>,
    /// The region's factor on tokens.
    pub(super) region: Ratio,
    /// What our discount leaves of every class.
    pub(super) discount: Ratio,
    pub(super) schedule: Option<Arc<Schedule>>,
}

/// Pico-USD for one token (or search) of each class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Classes {
    pub(super) input: PicoPerUnit,
    pub(super) cache_read: PicoPerUnit,
    pub(super) cache_write_5m: PicoPerUnit,
    pub(super) cache_write_1h: PicoPerUnit,
    pub(super) output: PicoPerUnit,
    pub(super) reasoning: PicoPerUnit,
    pub(super) audio_input: PicoPerUnit,
    pub(super) web_search: PicoPerUnit,
}

/// What a call came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rated {
    /// What we pay: after our discount, rounded once, halves to even.
    pub cost: NanoUsd,
    /// The same before our discount.
    pub list: NanoUsd,
    /// What the cache saved against plain input, less what writing to it cost on top: below zero where
    /// the writing was not worth it.
    pub cache_saved: NanoUsd,
    /// The prompt length, in tokens, above which these prices hold; 0 for the ordinary ones.
    pub context_tier: u64,
    /// Searches for which the book lists no fee: they are in neither amount.
    pub unpriced_searches: u64,
}

/// One class of a call's usage. `amount` is exact: the amounts of all lines are the cost before it is
/// rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// The name of the class, as in [`Usage`].
    pub class: &'static str,
    pub units: u64,
    /// Pico-USD for one unit before our discount, with region and hour in it; rounded to whole ones.
    pub list_pico: i64,
    /// The same after our discount.
    pub unit_pico: i64,
    pub list: PicoSum,
    pub amount: PicoSum,
}

impl Classes {
    /// Each class with what was used of it.
    fn of(&self, usage: &Usage) -> [(&'static str, u64, PicoPerUnit); 9] {
        [
            ("input", usage.input, self.input),
            ("cache_read", usage.cache_read, self.cache_read),
            ("cache_write_5m", usage.cache_write_5m, self.cache_write_5m),
            ("cache_write_1h", usage.cache_write_1h, self.cache_write_1h),
            ("output", usage.output, self.output),
            ("reasoning", usage.reasoning, self.reasoning),
            ("audio_input", usage.audio_input, self.audio_input),
            ("audio_output", usage.audio_output, self.output),
            (SEARCHES, usage.web_searches, self.web_search),
        ]
    }

    /// Each class of tokens by its name.
    pub(super) fn named(&self) -> [(&'static str, PicoPerUnit); 7] {
        [
            ("input", self.input),
            ("cache_read", self.cache_read),
            ("cache_write_5m", self.cache_write_5m),
            ("cache_write_1h", self.cache_write_1h),
            ("output", self.output),
            ("reasoning", self.reasoning),
            ("audio_input", self.audio_input),
        ]
    }

    pub(super) fn is_zero(&self) -> bool {
        self.input.0 == 0 && self.output.0 == 0
    }
}

/// The one class that is no token's: neither region nor hour changes its fee.
const SEARCHES: &str = "web_searches";

impl Rates {
    /// What `usage` costs that was complete at `completed_ms` (milliseconds since 1970).
    pub fn rate(&self, usage: &Usage, completed_ms: i64) -> Rated {
        let (context_tier, classes) = self.tier(usage.prompt());
        let factor = self.factor(completed_ms);
        let list = listed(classes, usage, factor);
        Rated {
            cost: list.times(self.discount).round(),
            list: list.round(),
            cache_saved: saved(classes, usage)
                .times(factor)
                .times(self.discount)
                .round(),
            context_tier,
            unpriced_searches: if classes.web_search.0 == 0 {
                usage.web_searches
            } else {
                0
            },
        }
    }

    /// What `usage` costs outside the hours of any schedule.
    pub fn cost(&self, usage: &Usage) -> NanoUsd {
        let (_, classes) = self.tier(usage.prompt());
        listed(classes, usage, self.region)
            .times(self.discount)
            .round()
    }

    /// The cost by class, for statements and exports: a line for each class that was used.
    pub fn lines(&self, usage: &Usage, completed_ms: i64) -> Vec<Line> {
        let (_, classes) = self.tier(usage.prompt());
        let used = classes
            .of(usage)
            .into_iter()
            .filter(|(_, units, _)| *units > 0);
        used.map(|(class, units, price)| {
            let factor = match class {
                SEARCHES => Ratio::ONE,
                _ => self.factor(completed_ms),
            };
            let list = |units| {
                let mut sum = PicoSum::default();
                sum.add(units, price);
                sum.times(factor)
            };
            Line {
                class,
                units,
                list_pico: list(1).pico().0,
                unit_pico: list(1).times(self.discount).pico().0,
                list: list(units),
                amount: list(units).times(self.discount),
            }
        })
        .collect()
    }

    /// The most that `prompt` and `answer` tokens can cost: each side at its dearest class, in the
    /// dearest of the context tiers that the prompt may reach, at the dearest hour. Rounded up.
    pub fn bound(&self, prompt: u64, answer: u64) -> NanoUsd {
        let (input, output) = self.dearest(prompt);
        let mut sum = PicoSum::default();
        sum.add(prompt, input);
        sum.add(answer, output);
        sum.times(self.dearest_factor()).ceil()
    }

    /// What `searches` that the provider runs cost at most: free ones are not counted on. Rounded up.
    pub fn bound_searches(&self, searches: u64) -> NanoUsd {
        let mut sum = PicoSum::default();
        sum.add(searches, self.base.web_search);
        sum.times(self.discount).ceil()
    }

    /// How many answer tokens fit into `room` beside a prompt of `prompt` tokens.
    pub fn affordable_answer(&self, prompt: u64, room: NanoUsd) -> u64 {
        let (_, output) = self.dearest(prompt);
        let left = PicoSum::of(room - self.bound(prompt, 0));
        left.holds(output, self.dearest_factor())
    }

    /// The same without steps by the length of the prompt, for sums of many calls.
    pub(super) fn ordinary(&self) -> Self {
        Self {
            tiers: Vec::new(),
            ..self.clone()
        }
    }

    /// The prices of a request with a prompt of `prompt` tokens, and the step it reached.
    fn tier(&self, prompt: u64) -> (u64, &Classes) {
        let reached = self.tiers.iter().rev().find(|(above, _)| prompt > *above);
        reached.map_or((0, &self.base), |(above, classes)| (*above, classes))
    }

    /// Region and hour.
    fn factor(&self, completed_ms: i64) -> Ratio {
        match &self.schedule {
            Some(schedule) => self.region.times(schedule.factor(completed_ms)),
            None => self.region,
        }
    }

    /// Region, dearest hour and discount.
    fn dearest_factor(&self) -> Ratio {
        let hour = self.schedule.as_ref().map(|schedule| schedule.multiplier);
        let hour = hour.filter(|hour| hour.exceeds(Ratio::ONE));
        self.region
            .times(hour.unwrap_or(Ratio::ONE))
            .times(self.discount)
    }

    fn dearest(&self, prompt: u64) -> (PicoPerUnit, PicoPerUnit) {
        // Providers differ on whether the step itself is below or above: it is held as both.
        let reached = self
            .tiers
            .iter()
            .filter(|(above, _)| prompt >= *above)
            .map(|(_, classes)| classes);
        let all = std::iter::once(&self.base).chain(reached);
        all.fold(
            (PicoPerUnit(0), PicoPerUnit(0)),
            |(input, output), classes| {
                let prompt_side = [
                    classes.input,
                    classes.cache_read,
                    classes.cache_write_5m,
                    classes.cache_write_1h,
                    classes.audio_input,
                ];
                (
                    prompt_side.into_iter().fold(input, Ord::max),
                    output.max(classes.output).max(classes.reasoning),
                )
            },
        )
    }
}

/// What is listed for `usage`: tokens times `factor`, and the fees of tools.
fn listed(classes: &Classes, usage: &Usage, factor: Ratio) -> PicoSum {
    let (mut tokens, mut fees) = (PicoSum::default(), PicoSum::default());
    // Most calls use two classes or three of the nine.
    for (class, units, price) in classes.of(usage) {
        if units == 0 {
            continue;
        }
        let sum = if class == SEARCHES {
            &mut fees
        } else {
            &mut tokens
        };
        sum.add(units, price);
    }
    tokens.times(factor).plus(fees)
}

/// The cached part of the prompt as plain input, less what it costs as it is.
fn saved(classes: &Classes, usage: &Usage) -> PicoSum {
    let (mut plain, mut cached) = (PicoSum::default(), PicoSum::default());
    for (units, price) in [
        (usage.cache_read, classes.cache_read),
        (usage.cache_write_5m, classes.cache_write_5m),
        (usage.cache_write_1h, classes.cache_write_1h),
    ] {
        plain.add(units, classes.input);
        cached.add(units, price);
    }
    plain.minus(cached)
}
