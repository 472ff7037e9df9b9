//! How many calls an endpoint gets at once: a number, or as many as it turns out to bear. What an answer takes
//! depends on its length, so what is watched is the time to the first content, by the size of the prompt.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::config::{Adaptive, Concurrency};

/// Where a limit that adapts begins, and what it stays between.
const FIRST: f64 = 20.0;
const LEAST: f64 = 4.0;
const MOST: f64 = 200.0;
/// Gradient: the part of a new limit that is taken over, calls over which a usual time is formed, what may
/// be slower than usual, and calls that may wait at the endpoint.
const SMOOTHING: f64 = 0.2;
const LONG: f64 = 600.0;
const TOLERANCE: f64 = 1.5;
const QUEUE: f64 = 4.0;
/// What is left of the limit when the endpoint turns a call away.
const CUT: f64 = 0.9;
/// Sizes of prompts that are told apart, each four times the one before: the first is below a kilobyte.
const CLASSES: usize = 6;

/// A limit on calls at once.
#[derive(Debug)]
pub(crate) struct Limit {
    config: Concurrency,
    /// Calls under way, and how many there may be.
    calls: AtomicU32,
    most: AtomicU32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    limit: f64,
    /// What the first content usually takes, by class, and of how many calls that is known.
    usual_ms: [(f64, f64); CLASSES],
    /// Successes since the limit was raised last, and when it was cut last.
    successes: f64,
    cut_at_ms: i64,
}

impl Limit {
    pub(crate) fn new(config: Concurrency) -> Self {
        let most = match config {
            Concurrency::Count(count) => count,
            Concurrency::Adaptive(_) => whole(FIRST),
        };
        Self {
            config,
            calls: AtomicU32::new(0),
            most: AtomicU32::new(most),
            state: Mutex::new(State {
                limit: FIRST,
                usual_ms: [(0.0, 0.0); CLASSES],
                successes: 0.0,
                cut_at_ms: i64::MIN,
            }),
        }
    }

    /// What it was made from.
    pub(crate) fn config(&self) -> Concurrency {
        self.config
    }

    /// How many calls there may be at once.
    pub(crate) fn most(&self) -> u32 {
        self.most.load(Ordering::Relaxed)
    }

    /// Counts a call in, if there is room.
    pub(crate) fn enter(&self) -> bool {
        let most = self.most();
        let (set, read) = (Ordering::Relaxed, Ordering::Relaxed);
        let more = |calls| (calls < most).then_some(calls + 1);
        self.calls.fetch_update(set, read, more).is_ok()
    }

    /// Counts it out.
    pub(crate) fn leave(&self) {
        self.calls.fetch_sub(1, Ordering::Relaxed);
    }

    /// The first content of a call with a prompt of `bytes` came after `ms`.
    pub(crate) fn came(&self, ms: u32, bytes: usize) {
        let calls = f64::from(self.calls.load(Ordering::Relaxed));
        self.change(|state| match self.config {
            Concurrency::Count(_) => {}
            Concurrency::Adaptive(Adaptive::Aimd) => state.grow(calls),
            Concurrency::Adaptive(Adaptive::Gradient2) => {
                state.follow(f64::from(ms.max(1)), class(bytes), calls);
            }
        });
    }

    /// The endpoint turned a call away because it has too many. What was under way by then says no more.
    pub(crate) fn turned_away(&self, usual_ms: u32, now_ms: i64) {
        self.change(|state| {
            let is_new = now_ms.saturating_sub(i64::from(usual_ms)) >= state.cut_at_ms;
            if is_new && matches!(self.config, Concurrency::Adaptive(_)) {
                state.limit = (state.limit * CUT).max(1.0);
                state.cut_at_ms = now_ms;
                state.successes = 0.0;
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        if let Concurrency::Count(_) = self.config {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        self.most.store(whole(state.limit), Ordering::Relaxed);
    }
}

impl State {
    /// One more after as many successes as there may be calls, if so many are made at all.
    fn grow(&mut self, calls: f64) {
        self.successes += 1.0;
        if self.successes >= self.limit && calls * 2.0 >= self.limit {
            self.limit = (self.limit + 1.0).min(MOST);
            self.successes = 0.0;
        }
    }

    /// Less, if the first content takes longer than usual; more, while it does not.
    fn follow(&mut self, ms: f64, class: usize, calls: f64) {
        let Some((usual, count)) = self.usual_ms.get_mut(class) else {
            return;
        };
        *count = (*count + 1.0).min(LONG);
        *usual += (ms - *usual) / *count;
        if *usual / ms > 2.0 {
            // It has become much quicker: what was slow is forgotten sooner.
            *usual *= 0.95;
        }
        if calls * 2.0 < self.limit {
            return;
        }
        let gradient = (TOLERANCE * *usual / ms).clamp(0.5, 1.0);
        let wanted = self.limit * gradient + QUEUE;
        let limit = self.limit * (1.0 - SMOOTHING) + wanted * SMOOTHING;
        self.limit = limit.clamp(LEAST, MOST);
    }
}

/// The class of a prompt of so many bytes.
fn class(bytes: usize) -> usize {
    let mut most = 1 << 10;
    let mut class = 0;
    while bytes >= most && class + 1 < CLASSES {
        most <<= 2;
        class += 1;
    }
    class
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 1 and 200"
)]
fn whole(limit: f64) -> u32 {
    limit.clamp(1.0, MOST) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(adaptive: Adaptive) -> Limit {
        Limit::new(Concurrency::Adaptive(adaptive))
    }

    /// An endpoint that answers in 100 ms as long as it has at most `room` calls, and beyond takes longer in
    /// proportion, under as many calls as the limit lets through.
    fn settle(limit: &Limit, room: u32, bytes: usize, rounds: usize) -> u32 {
        for _ in 0..rounds {
            while limit.enter() {}
            let calls = limit.most();
            limit.came(100 * calls.max(room) / room, bytes);
            for _ in 0..calls.max(limit.calls.load(Ordering::Relaxed)) {
                limit.leave();
            }
        }
        limit.most()
    }

    #[test]
    fn a_number_is_a_number() {
        let limit = Limit::new(Concurrency::Count(2));
        assert!(limit.enter() && limit.enter() && !limit.enter());
        limit.turned_away(1, 0);
        limit.leave();
        assert!(limit.enter() && !limit.enter());
    }

    #[test]
    fn the_gradient_grows_while_nothing_slows_and_stops_where_it_does() {
        let free = settle(&limit(Adaptive::Gradient2), 1_000, 100, 500);
        assert_eq!(free, 200);
        let tight = settle(&limit(Adaptive::Gradient2), 30, 100, 60);
        assert!((30..90).contains(&tight), "{tight}");
        // Without calls enough to tell, it stays.
        let idle = limit(Adaptive::Gradient2);
        for _ in 0..100 {
            idle.came(100, 100);
        }
        assert_eq!(idle.most(), 20);
    }

    #[test]
    fn long_prompts_do_not_make_short_ones_look_slow() {
        let limit = limit(Adaptive::Gradient2);
        for _ in 0..200 {
            while limit.enter() {}
            limit.came(50, 500);
            limit.came(5_000, 1 << 20);
            while limit.calls.load(Ordering::Relaxed) > 0 {
                limit.leave();
            }
        }
        assert_eq!(limit.most(), 200);
    }

    #[test]
    fn what_is_turned_away_cuts_once_for_a_round_and_successes_add_one_by_one() {
        let limit = limit(Adaptive::Aimd);
        for _ in 0..10 {
            limit.turned_away(500, 1_000);
        }
        assert_eq!(limit.most(), 18);
        limit.turned_away(500, 1_501);
        assert_eq!(limit.most(), 16);
        for _ in 0..15 {
            limit.enter();
        }
        for _ in 0..17 {
            limit.came(500, 100);
        }
        assert_eq!(limit.most(), 17);
        for round in 0..200 {
            limit.turned_away(500, 10_000 + round * 1_000);
        }
        assert_eq!(limit.most(), 1, "and somebody always gets through");
    }
}
