//! Chance from a seed, so that a run can be had again: arrivals, orders of rounds, resampling.

use std::time::Duration;

/// A stream of numbers that a seed fixes.
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// The stream of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number (SplitMix64: every seed is as good as any other).
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Above 0 and at most 1.
    pub fn unit(&mut self) -> f64 {
        let upper = u32::try_from(self.draw() >> 32).unwrap_or(0);
        (f64::from(upper) + 1.0) / 4_294_967_296.0
    }

    /// A number below `end`; 0 where that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        let wide = u64::try_from(end.max(1)).unwrap_or(1);
        usize::try_from(self.draw() % wide).unwrap_or(0)
    }

    /// The pause before the next of arrivals that know nothing of each other, in nanoseconds.
    pub fn pause(&mut self, per_second: f64) -> u64 {
        let seconds = -self.unit().ln() / per_second.max(1e-9);
        let pause = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Puts `items` in an order by lot.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last + 1);
            items.swap(last, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_fixes_arrivals_and_their_rate_is_the_one_asked_for() {
        let arrivals = |seed| {
            let mut chance = Chance::new(seed);
            (0..20_000)
                .map(|_| chance.pause(1_000.0))
                .collect::<Vec<_>>()
        };
        assert_eq!(arrivals(7), arrivals(7));
        assert_ne!(arrivals(7), arrivals(8));
        let pauses = arrivals(7);
        let mean = pauses.iter().sum::<u64>() / 20_000;
        // A mean of 20,000 exponential pauses is within 3 % of theirs but once in 20,000 seeds.
        assert!((970_000..1_030_000).contains(&mean), "{mean}");
        // The share above the mean is 1/e, where a fixed pause would have none or all.
        let above = pauses.iter().filter(|pause| **pause > 1_000_000).count();
        assert!((7_000..7_700).contains(&above), "{above}");
    }

    #[test]
    fn a_shuffle_keeps_every_item() {
        let mut items: Vec<u32> = (0..50).collect();
        Chance::new(3).shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
    }
}
