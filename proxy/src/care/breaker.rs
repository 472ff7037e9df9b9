//! When a model at an endpoint is left alone: a machine over what calls have shown of it, with the time and
//! luck as arguments. After some failures it opens; when its rest is over, one call at a time tries.

/// Seconds over which successes are held against failures.
const WINDOW: usize = 10;
/// The part of a rest that luck may add, so that endpoints that failed together do not come back together.
const JITTER: i64 = 5;

/// When it opens, for how long, and when it closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Failures in a row that open it.
    pub(crate) failures: u32,
    /// Percent of successes below which so many calls open it.
    pub(crate) least_success: u32,
    pub(crate) least_calls: u32,
    /// The first rest; each further one is longer by as much, up to the most.
    pub(crate) rest_ms: i64,
    pub(crate) most_rest_ms: i64,
    /// Successes that close it.
    pub(crate) closing: u32,
}

/// How a call was let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// As any.
    Through,
    /// To see whether the endpoint is back. The number tells it from earlier ones.
    Probe(u32),
    /// Because nobody better is left.
    Panic,
}

/// What a failure leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It is one of some.
    Counted,
    /// It was the one too many: [`Breaker::open`] if the others allow that.
    Trips,
    /// It was a probe's, and the rest goes on.
    Rests,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open { until_ms: i64 },
    HalfOpen { probe: Option<u32> },
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Breaker {
    state: State,
    failures: u32,
    window: Window,
    /// Successes while it is not closed.
    good: u32,
    /// Rests of late; one is forgotten for each rest's time without another.
    rests: u32,
    closed_at_ms: i64,
    probes: u32,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            state: State::Closed,
            failures: 0,
            window: Window::default(),
            good: 0,
            rests: 0,
            closed_at_ms: 0,
            probes: 0,
        }
    }
}

impl Breaker {
    /// Whether a call would be let through now.
    pub(crate) fn is_usable(&self, now_ms: i64) -> bool {
        match self.state {
            State::Closed => true,
            State::Open { until_ms } => until_ms <= now_ms,
            State::HalfOpen { probe } => probe.is_none(),
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// When its rest is over; of two that rest, the one with the earlier end is better.
    pub(crate) fn until_ms(&self) -> i64 {
        match self.state {
            State::Closed | State::HalfOpen { .. } => 0,
            State::Open { until_ms } => until_ms,
        }
    }

    /// Lets a call through, if any.
    pub(crate) fn enter(&mut self, now_ms: i64) -> Option<Entry> {
        if self.state == State::Closed {
            return Some(Entry::Through);
        }
        if !self.is_usable(now_ms) {
            return None;
        }
        self.probes = self.probes.wrapping_add(1);
        let probe = Some(self.probes);
        self.state = State::HalfOpen { probe };
        Some(Entry::Probe(self.probes))
    }

    /// A call has succeeded.
    pub(crate) fn succeeded(&mut self, entry: Entry, now_ms: i64, rules: &Rules) {
        match (self.state, entry) {
            (State::Closed, _) => {
                self.failures = 0;
                self.window.add(now_ms, true);
            }
            (State::HalfOpen { probe }, Entry::Probe(number)) if probe == Some(number) => {
                self.state = State::HalfOpen { probe: None };
                self.better(now_ms, rules);
            }
            (_, Entry::Panic) => self.better(now_ms, rules),
            _ => {}
        }
    }

    fn better(&mut self, now_ms: i64, rules: &Rules) {
        self.good += 1;
        if self.good >= rules.closing {
            self.state = State::Closed;
            self.failures = 0;
            self.good = 0;
            self.window = Window::default();
            self.closed_at_ms = now_ms;
        }
    }

    /// A call was answered, if only by saying what is wrong with it.
    pub(crate) fn answered(&mut self, entry: Entry, now_ms: i64, rules: &Rules) {
        if self.state == State::Closed {
            self.failures = 0;
        } else {
            self.succeeded(entry, now_ms, rules);
        }
    }

    /// A call has failed by the endpoint's fault.
    pub(crate) fn failed(
        &mut self,
        entry: Entry,
        now_ms: i64,
        luck: u64,
        rules: &Rules,
    ) -> Failure {
        match (self.state, entry) {
            (State::Closed, _) => {
                self.failures = self.failures.saturating_add(1);
                self.window.add(now_ms, false);
                if self.failures >= rules.failures || self.window.is_poor(now_ms, rules) {
                    return Failure::Trips;
                }
                Failure::Counted
            }
            (State::HalfOpen { probe }, Entry::Probe(number)) if probe == Some(number) => {
                self.rest(now_ms, luck, rules);
                Failure::Rests
            }
            _ => Failure::Counted,
        }
    }

    /// Leaves the endpoint alone. `false` where somebody else has done so already.
    pub(crate) fn open(&mut self, now_ms: i64, luck: u64, rules: &Rules) -> bool {
        if self.state != State::Closed {
            return false;
        }
        let well = now_ms.saturating_sub(self.closed_at_ms) / rules.rest_ms.max(1);
        self.rests = self
            .rests
            .saturating_sub(u32::try_from(well).unwrap_or(u32::MAX));
        self.rest(now_ms, luck, rules);
        true
    }

    fn rest(&mut self, now_ms: i64, luck: u64, rules: &Rules) {
        self.rests = self.rests.saturating_add(1);
        self.good = 0;
        let long = rules.rest_ms.saturating_mul(i64::from(self.rests));
        let more = i64::try_from(luck % 1_024).unwrap_or(0);
        let long = long.saturating_add(long / JITTER * more / 1_024);
        self.state = State::Open {
            until_ms: now_ms.saturating_add(long.min(rules.most_rest_ms)),
        };
    }

    /// A call has ended without showing anything of the endpoint: its caller left.
    pub(crate) fn left(&mut self, entry: Entry) {
        if let (State::HalfOpen { probe }, Entry::Probe(number)) = (self.state, entry)
            && probe == Some(number)
        {
            self.state = State::HalfOpen { probe: None };
        }
    }
}

/// Outcomes by the second.
#[derive(Debug, Clone, Copy, Default)]
struct Window([Second; WINDOW]);

#[derive(Debug, Clone, Copy, Default)]
struct Second {
    at_s: i64,
    good: u32,
    bad: u32,
}

impl Window {
    fn add(&mut self, now_ms: i64, is_good: bool) {
        let at_s = now_ms.div_euclid(1_000);
        let place = usize::try_from(at_s).unwrap_or(0) % WINDOW;
        if let Some(second) = self.0.get_mut(place) {
            if second.at_s != at_s {
                *second = Second {
                    at_s,
                    ..Second::default()
                };
            }
            second.good += u32::from(is_good);
            second.bad += u32::from(!is_good);
        }
    }

    /// Whether too few calls succeed.
    fn is_poor(&self, now_ms: i64, rules: &Rules) -> bool {
        let now_s = now_ms.div_euclid(1_000);
        let width = i64::try_from(WINDOW).unwrap_or(i64::MAX);
        let recent = self.0.iter().filter(|it| now_s - it.at_s < width);
        let (good, bad) = recent.fold((0_u32, 0_u32), |(good, bad), it| {
            (good.saturating_add(it.good), bad.saturating_add(it.bad))
        });
        let all = good.saturating_add(bad);
        all >= rules.least_calls
            && u64::from(good) * 100 < u64::from(all) * u64::from(rules.least_success)
    }
}

#[cfg(test)]
mod tests;
