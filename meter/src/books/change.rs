//! What a correction changes: tokens and money, as differences.

use serde::{Deserialize, Serialize};
use wire::Usage;

use crate::{Entry, NanoUsd};

/// The classes of usage, in the order of [`Change::counts`].
pub const CLASSES: [&str; 9] = [
    "input",
    "cache_read",
    "cache_write_5m",
    "cache_write_1h",
    "output",
    "reasoning",
    "audio_input",
    "audio_output",
    "web_searches",
];

/// Usage and money that may go either way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub counts: [i64; 9],
    pub cost: NanoUsd,
    pub list: NanoUsd,
    pub sell: NanoUsd,
    pub baseline: NanoUsd,
    pub cache_saved: NanoUsd,
}

impl Change {
    /// An entry's own usage and money.
    pub fn of(entry: &Entry) -> Self {
        Self {
            counts: counts(&entry.usage),
            cost: entry.cost,
            list: entry.list,
            sell: entry.sell,
            baseline: entry.baseline,
            cache_saved: entry.cache_saved,
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        self.with(other, i64::saturating_add)
    }

    /// What leads from `other` to this.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        self.with(other, i64::saturating_sub)
    }

    /// The same usage at another cost: what depends on the cost moves with it.
    #[must_use]
    pub fn costing(&self, cost: NanoUsd) -> Self {
        let moved = |amount: NanoUsd| NanoUsd(share(amount.0, cost.0, self.cost.0, cost.0));
        Self {
            counts: self.counts,
            cost,
            list: moved(self.list),
            sell: moved(self.sell),
            baseline: moved(self.baseline),
            cache_saved: NanoUsd(share(self.cache_saved.0, cost.0, self.cost.0, 0)),
        }
    }

    /// Whether it changes nothing.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// The usage, where no class is below nothing.
    pub fn usage(&self) -> Usage {
        let [
            input,
            cache_read,
            cache_write_5m,
            cache_write_1h,
            output,
            reasoning,
            audio_input,
            audio_output,
            web_searches,
        ] = self.counts.map(|count| u64::try_from(count).unwrap_or(0));
        Usage {
            input,
            cache_read,
            cache_write_5m,
            cache_write_1h,
            output,
            reasoning,
            audio_input,
            audio_output,
            web_searches,
        }
    }

    /// Tokens of the prompt, of it read from a cache, and of the answer: what bills count.
    pub fn billed(&self) -> [i64; 3] {
        let usage = self.usage();
        [usage.prompt(), usage.cache_read, usage.answer()]
            .map(|count| i64::try_from(count).unwrap_or(i64::MAX))
    }

    /// Usage changed so that prompt, cached and answer tokens are those of a bill. What a bill does
    /// not tell apart stays where it was, as far as it goes.
    #[must_use]
    pub fn with_billed(&self, bill: [i64; 3]) -> Self {
        let [prompt, cached, answer] = bill;
        let now = self.billed();
        let mut counts = self.counts;
        let [_, read, ..] = &mut counts;
        *read = cached;
        let plain = prompt.saturating_sub(cached);
        let had = now[0].saturating_sub(now[1]);
        spread(&mut counts, [0, 2, 3, 6], plain.saturating_sub(had));
        spread(&mut counts, [4, 5, 7, 7], answer.saturating_sub(now[2]));
        Self { counts, ..*self }
    }

    fn with(&self, other: &Self, act: fn(i64, i64) -> i64) -> Self {
        let mut counts = self.counts;
        for (count, more) in counts.iter_mut().zip(other.counts) {
            *count = act(*count, more);
        }
        let money = |a: NanoUsd, b: NanoUsd| NanoUsd(act(a.0, b.0));
        Self {
            counts,
            cost: money(self.cost, other.cost),
            list: money(self.list, other.list),
            sell: money(self.sell, other.sell),
            baseline: money(self.baseline, other.baseline),
            cache_saved: money(self.cache_saved, other.cache_saved),
        }
    }
}

/// More goes to the first class; less is taken from one after the other, none below nothing.
fn spread(counts: &mut [i64; 9], order: [usize; 4], difference: i64) {
    let mut left = difference;
    for place in order {
        let Some(count) = counts.get_mut(place) else {
            continue;
        };
        let step = left.max(count.saturating_neg());
        *count = count.saturating_add(step);
        left = left.saturating_sub(step);
    }
}

/// Usage as numbers that may be subtracted.
pub fn counts(usage: &Usage) -> [i64; 9] {
    [
        usage.input,
        usage.cache_read,
        usage.cache_write_5m,
        usage.cache_write_1h,
        usage.output,
        usage.reasoning,
        usage.audio_input,
        usage.audio_output,
        usage.web_searches,
    ]
    .map(|count| i64::try_from(count).unwrap_or(i64::MAX))
}

/// `amount * of / whole`, halves to even; `none` where the whole is nothing.
pub fn share(amount: i64, of: i64, whole: i64, none: i64) -> i64 {
    let product = i128::from(amount).saturating_mul(i128::from(of));
    half_even(product, i128::from(whole)).unwrap_or(none)
}

/// A quotient rounded to the nearest, halves to even.
pub fn half_even(value: i128, by: i128) -> Option<i64> {
    let (value, by) = if by < 0 {
        (value.saturating_neg(), by.saturating_neg())
    } else {
        (value, by)
    };
    let whole = value.checked_div_euclid(by)?;
    let twice = value.checked_rem_euclid(by)?.saturating_mul(2);
    let up = twice > by || (twice == by && whole.rem_euclid(2) == 1);
    i64::try_from(whole.saturating_add(i128::from(up))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bill_moves_what_it_can_tell_apart_and_nothing_below_zero() {
        let had = Change {
            counts: [10, 3, 4, 0, 5, 6, 0, 0, 1],
            ..Change::default()
        };
        assert_eq!(had.billed(), [17, 3, 11]);
        for bill in [[17, 3, 11], [20, 8, 4], [3, 3, 0], [100, 0, 30], [0, 0, 0]] {
            let moved = had.with_billed(bill);
            assert_eq!(moved.billed(), bill);
            assert!(moved.counts.iter().all(|count| *count >= 0), "{moved:?}");
        }
    }

    #[test]
    fn shares_round_halves_to_even_both_ways() {
        assert_eq!(share(5, 1, 2, 0), 2);
        assert_eq!(share(7, 1, 2, 0), 4);
        assert_eq!(share(-5, 1, 2, 0), -2);
        assert_eq!(share(5, 1, 0, 9), 9);
        let paid = Change {
            cost: NanoUsd(100),
            sell: NanoUsd(120),
            ..Change::default()
        };
        assert_eq!(paid.costing(NanoUsd(50)).sell, NanoUsd(60));
        assert_eq!(paid.costing(NanoUsd::ZERO).sell, NanoUsd::ZERO);
    }
}
