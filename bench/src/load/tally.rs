//! What one window of load came to: counts, histograms and slices of time, which merge.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest time told apart, in nanoseconds; longer ones count as this.
const LONGEST: u64 = 600_000_000_000;
/// Slices of a window's time series.
pub(crate) const SLICES: u64 = 60;

/// How a call can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No connection.
    Connect,
    /// The connection ended before an answer began.
    Reset,
    /// No whole answer in time.
    Timeout,
    /// Status 429.
    Status429,
    /// Any other status from 400 to 499, or one that means nothing here.
    Status4xx,
    /// Status 500 and above.
    Status5xx,
    /// The answer broke off, or a stream ended without its last event.
    BrokenStream,
    /// Status 200, and an error inside.
    InBand,
    /// What came is not HTTP.
    Malformed,
}

/// Failures by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Errors {
    pub connect: u64,
    pub reset: u64,
    pub timeout: u64,
    pub status_429: u64,
    pub status_4xx: u64,
    pub status_5xx: u64,
    pub broken_stream: u64,
    pub in_band_error: u64,
    pub malformed: u64,
}

impl Errors {
    pub(crate) fn count(&mut self, failure: Failure) {
        *match failure {
            Failure::Connect => &mut self.connect,
            Failure::Reset => &mut self.reset,
            Failure::Timeout => &mut self.timeout,
            Failure::Status429 => &mut self.status_429,
            Failure::Status4xx => &mut self.status_4xx,
            Failure::Status5xx => &mut self.status_5xx,
            Failure::BrokenStream => &mut self.broken_stream,
            Failure::InBand => &mut self.in_band_error,
            Failure::Malformed => &mut self.malformed,
        } += 1;
    }

    /// The kinds by name, with how many there were.
    pub fn by_name(&self) -> [(&'static str, u64); 9] {
        [
            ("connect", self.connect),
            ("reset", self.reset),
            ("timeout", self.timeout),
            ("429", self.status_429),
            ("4xx", self.status_4xx),
            ("5xx", self.status_5xx),
            ("broken stream", self.broken_stream),
            ("in-band error", self.in_band_error),
            ("malformed", self.malformed),
        ]
    }

    pub fn sum(&self) -> u64 {
        self.by_name().iter().map(|(_, count)| count).sum()
    }

    fn add(&mut self, other: &Self) {
        self.connect += other.connect;
        self.reset += other.reset;
        self.timeout += other.timeout;
        self.status_429 += other.status_429;
        self.status_4xx += other.status_4xx;
        self.status_5xx += other.status_5xx;
        self.broken_stream += other.broken_stream;
        self.in_band_error += other.in_band_error;
        self.malformed += other.malformed;
    }
}

/// A part of the window.
#[derive(Debug, Clone)]
pub struct Slice {
    pub ended: u64,
    pub failed: u64,
    pub latency: Histogram<u64>,
}

impl Slice {
    /// Adds the time of a good call. There are many of these, so that each grows only with what it is given.
    pub(super) fn record(&mut self, nanoseconds: u64) {
        let _recorded = self.latency.record(nanoseconds);
    }
}

/// Counts and histograms of one window; times are in nanoseconds.
#[derive(Debug, Clone)]
pub struct Tally {
    /// Calls that were planned in the window.
    pub planned: u64,
    /// Calls that were under way at any time of the window and ended whole and without error.
    pub good: u64,
    /// Those that ended otherwise.
    pub errors: Errors,
    /// Good calls that ended in the window itself: what rates and costs are taken from.
    pub in_time: u64,
    /// Calls that began more than a millisecond late because the load itself was late.
    pub late: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Pieces of streams that came in the window.
    pub chunks: u64,
    /// Output tokens of calls that ended in the window, as usage tells them, else their pieces.
    pub tokens: u64,
    /// Streams open at once, at most.
    pub open: u64,
    /// From the planned start to the last byte, good calls planned in the window.
    pub latency: Histogram<u64>,
    /// From the planned start to the first piece of a stream, or the first bytes of a plain answer.
    pub first: Histogram<u64>,
    /// Between pieces as they were read.
    pub gap: Histogram<u64>,
    /// From the endpoint's write to the read here.
    pub transit: Histogram<u64>,
    /// From the planned start to the moment in which the load took the call up: how late it was itself.
    pub lag: Histogram<u64>,
    pub slices: Vec<Slice>,
}

/// A histogram that tells times apart to about a thousandth.
pub(crate) fn histogram() -> Histogram<u64> {
    grown(3)
}

fn grown(digits: u8) -> Histogram<u64> {
    // The bounds are constants that fit.
    let made = Histogram::new_with_bounds(1, LONGEST, digits);
    made.unwrap_or_else(|_| Histogram::new_from(&empty()))
}

#[expect(clippy::expect_used, reason = "two digits are always allowed")]
fn empty() -> Histogram<u64> {
    Histogram::new(2).expect("two significant digits")
}

impl Default for Tally {
    fn default() -> Self {
        let slice = Slice {
            ended: 0,
            failed: 0,
            latency: empty(),
        };
        Self {
            planned: 0,
            good: 0,
            errors: Errors::default(),
            in_time: 0,
            late: 0,
            bytes_in: 0,
            bytes_out: 0,
            chunks: 0,
            tokens: 0,
            open: 0,
            latency: histogram(),
            first: histogram(),
            gap: histogram(),
            transit: histogram(),
            lag: histogram(),
            slices: (0..SLICES).map(|_| slice.clone()).collect(),
        }
    }
}

impl Tally {
    /// Calls that counted, good or not.
    pub fn ended(&self) -> u64 {
        self.good + self.errors.sum()
    }

    /// Adds another worker's, or another round's.
    pub fn merge(&mut self, other: &Self) {
        self.planned += other.planned;
        self.good += other.good;
        self.errors.add(&other.errors);
        self.in_time += other.in_time;
        self.late += other.late;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.chunks += other.chunks;
        self.tokens += other.tokens;
        for (mine, others) in [
            (&mut self.latency, &other.latency),
            (&mut self.first, &other.first),
            (&mut self.gap, &other.gap),
            (&mut self.transit, &other.transit),
            (&mut self.lag, &other.lag),
        ] {
            // Both have the same bounds.
            let _added = mine.add(others);
        }
        for (mine, others) in self.slices.iter_mut().zip(&other.slices) {
            mine.ended += others.ended;
            mine.failed += others.failed;
            let _added = mine.latency.add(&others.latency);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_tells_the_times_that_it_was_given() {
        let mut one = Tally::default();
        let slice = &mut one.slices[3];
        for ms in 1..=100 {
            slice.record(ms * 1_000_000);
        }
        let mut all = Tally::default();
        all.merge(&one);
        let p99 = all.slices[3].latency.value_at_quantile(0.99);
        assert!((98_000_000..=100_000_000).contains(&p99), "{p99}");
    }

    #[test]
    fn merged_histograms_are_those_of_all_values_together() {
        let (mut all, mut parts) = (histogram(), [histogram(), histogram(), histogram()]);
        for value in (0..30_000_u64).map(|n| n * n) {
            all.saturating_record(value);
            let part = usize::try_from(value % 3).unwrap();
            parts[part].saturating_record(value);
        }
        let mut merged = Tally::default();
        for part in parts {
            let tally = Tally {
                latency: part,
                good: 1,
                ..Tally::default()
            };
            merged.merge(&tally);
        }
        assert_eq!(merged.latency, all);
        assert_eq!((merged.good, merged.latency.len()), (3, 30_000));
        // 15,000 squared; told apart to a thousandth.
        let median = merged.latency.value_at_quantile(0.5);
        assert!(median.abs_diff(15_000 * 15_000) < 225_000, "{median}");
    }

    #[test]
    fn times_beyond_the_longest_count_as_the_longest() {
        let mut times = histogram();
        times.saturating_record(u64::MAX);
        assert_eq!(times.len(), 1);
        assert!(times.max() >= LONGEST);
    }

    #[test]
    fn errors_are_counted_by_kind_and_merged() {
        let mut errors = Errors::default();
        for failure in [
            Failure::Connect,
            Failure::Reset,
            Failure::Timeout,
            Failure::Status429,
            Failure::Status4xx,
            Failure::Status5xx,
            Failure::BrokenStream,
            Failure::InBand,
            Failure::Malformed,
        ] {
            errors.count(failure);
        }
        assert!(errors.by_name().iter().all(|(_, count)| *count == 1));
        let mut twice = errors.clone();
        twice.add(&errors);
        assert!(twice.by_name().iter().all(|(_, count)| *count == 2));
        assert_eq!(twice.sum(), 18);
    }
}
