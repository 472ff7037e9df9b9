//! The figures of a window by name, for tables, ratios and JSON.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::stats::{micros, over, real};
use super::window::Measured;

/// Figures by name; one that means nothing for a run is not there.
pub type Figures = BTreeMap<&'static str, f64>;

/// A figure: its name in JSON, its title, and whether a ratio of it says something.
#[derive(Debug, Clone, Copy)]
pub struct Figure {
    pub name: &'static str,
    pub title: &'static str,
    pub compared: bool,
}

const fn compared(name: &'static str, title: &'static str) -> Figure {
    Figure {
        name,
        title,
        compared: true,
    }
}

const fn shown(name: &'static str, title: &'static str) -> Figure {
    Figure {
        name,
        title,
        compared: false,
    }
}

/// All figures in the order in which they are shown.
pub const FIGURES: &[Figure] = &[
    compared("calls_per_s", "calls/s"),
    compared("cpu_s_per_1000_calls", "CPU s per 1,000 calls"),
    compared("cpu_s_per_1000_chunks", "CPU s per 1,000 chunks"),
    shown("cpu_cores", "cores busy"),
    compared("latency_p50_us", "latency p50, us"),
    compared("latency_p90_us", "latency p90, us"),
    compared("latency_p99_us", "latency p99, us"),
    compared("latency_p999_us", "latency p99.9, us"),
    shown("latency_max_us", "latency longest, us"),
    compared("first_p50_us", "first token p50, us"),
    compared("first_p99_us", "first token p99, us"),
    shown("gap_p50_us", "gap p50, us"),
    compared("gap_p99_us", "gap p99, us"),
    compared("transit_p50_us", "transit p50, us"),
    compared("transit_p99_us", "transit p99, us"),
    compared("chunks_per_s", "chunks/s"),
    shown("tokens_per_s", "tokens/s"),
    shown("open", "calls open"),
    compared("kib_per_stream", "KiB per stream"),
    compared("rss_peak_kib", "RSS peak, KiB"),
    shown("rss_before_kib", "RSS before, KiB"),
    shown("rss_after_kib", "RSS after, KiB"),
    shown("bytes_in_per_s", "bytes in/s"),
    shown("bytes_out_per_s", "bytes out/s"),
    shown("lag_p99_us", "the load's own lateness p99, us"),
];

/// Figures of latency whose difference to a direct call says what a gateway adds.
pub const ADDED: &[&str] = &[
    "latency_p50_us",
    "latency_p90_us",
    "latency_p99_us",
    "first_p50_us",
    "first_p99_us",
    "transit_p50_us",
    "transit_p99_us",
];

/// The title of a figure.
pub fn title(name: &str) -> &'static str {
    let found = FIGURES.iter().find(|figure| figure.name == name);
    found.map_or("", |figure| figure.title)
}

/// The figures of one window; `streams` says whether its calls were streamed.
pub fn of(measured: &Measured, streams: bool) -> Figures {
    let (tally, seconds) = (&measured.tally, measured.seconds);
    let mut figures = Figures::new();
    let mut put = |name, value: Option<f64>| {
        if let Some(value) = value {
            figures.insert(name, value);
        }
    };
    put("calls_per_s", over(real(tally.in_time), seconds));
    put("bytes_in_per_s", over(real(tally.bytes_in), seconds));
    put("bytes_out_per_s", over(real(tally.bytes_out), seconds));
    put("tokens_per_s", over(real(tally.tokens), seconds));
    put("latency_max_us", longest(&tally.latency));
    for (name, of, quantile) in [
        ("latency_p50_us", &tally.latency, 0.5),
        ("latency_p90_us", &tally.latency, 0.9),
        ("latency_p99_us", &tally.latency, 0.99),
        ("latency_p999_us", &tally.latency, 0.999),
        ("lag_p99_us", &tally.lag, 0.99),
    ] {
        put(name, at(of, quantile));
    }
    if streams {
        put("chunks_per_s", over(real(tally.chunks), seconds));
        put("open", Some(real(tally.open)));
        for (name, of, quantile) in [
            ("first_p50_us", &tally.first, 0.5),
            ("first_p99_us", &tally.first, 0.99),
            ("gap_p50_us", &tally.gap, 0.5),
            ("gap_p99_us", &tally.gap, 0.99),
            ("transit_p50_us", &tally.transit, 0.5),
            ("transit_p99_us", &tally.transit, 0.99),
        ] {
            put(name, at(of, quantile));
        }
    }
    if let Some(cpu) = measured.cpu {
        let cpu = cpu.as_secs_f64();
        put("cpu_cores", over(cpu, seconds));
        put(
            "cpu_s_per_1000_calls",
            over(1_000.0 * cpu, real(tally.in_time)),
        );
        put(
            "cpu_s_per_1000_chunks",
            over(1_000.0 * cpu, real(tally.chunks)),
        );
    }
    if let Some(memory) = measured.memory {
        put("rss_before_kib", Some(real(memory.before_kib)));
        put("rss_peak_kib", Some(real(memory.peak_kib)));
        put("rss_after_kib", Some(real(memory.after_kib)));
        let grown = memory.peak_kib.saturating_sub(memory.before_kib);
        if streams {
            put("kib_per_stream", over(real(grown), real(tally.open)));
        }
    }
    figures
}

fn at(times: &Histogram<u64>, quantile: f64) -> Option<f64> {
    (!times.is_empty()).then(|| micros(times.value_at_quantile(quantile)))
}

fn longest(times: &Histogram<u64>) -> Option<f64> {
    (!times.is_empty()).then(|| micros(times.max()))
}

/// Times by quantile, dense towards the end, as (quantile, microseconds).
pub fn curve(times: &Histogram<u64>) -> Vec<(f64, f64)> {
    if times.is_empty() {
        return Vec::new();
    }
    let mut points = Vec::new();
    let mut rest = 1.0;
    // As far as one call in the number there were; each step halves what is left in four parts.
    while rest * real(times.len()) >= 1.0 {
        for part in 0..4_u8 {
            let quantile = 1.0 - rest * (1.0 - f64::from(part) / 8.0);
            points.push((quantile, micros(times.value_at_quantile(quantile))));
        }
        rest /= 2.0;
    }
    points.push((1.0, micros(times.max())));
    points
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::load::tally::{Tally, histogram};
    use crate::load::window::Memory;

    #[test]
    fn figures_by_hand() {
        let mut latency = histogram();
        for millis in 1..=100_u64 {
            latency.saturating_record(millis * 1_000_000);
        }
        let measured = Measured {
            at: 0.0,
            seconds: 2.0,
            tally: Tally {
                in_time: 1_000,
                chunks: 4_000,
                open: 50,
                latency,
                ..Tally::default()
            },
            cpu: Some(Duration::from_millis(500)),
            memory: Some(Memory {
                before_kib: 1_000,
                peak_kib: 2_000,
                after_kib: 1_100,
            }),
        };
        let figures = of(&measured, true);
        let check = |name: &str, expected: f64| {
            let found = figures[name];
            assert!(
                (found - expected).abs() <= expected * 0.001,
                "{name}: {found}"
            );
        };
        check("calls_per_s", 500.0);
        check("chunks_per_s", 2_000.0);
        check("cpu_cores", 0.25);
        check("cpu_s_per_1000_calls", 0.5);
        check("cpu_s_per_1000_chunks", 0.125);
        check("latency_p50_us", 50_000.0);
        check("latency_p99_us", 99_000.0);
        check("kib_per_stream", 20.0);
        assert!(!figures.contains_key("gap_p99_us"));
        assert!(figures.keys().all(|name| !title(name).is_empty()));
        let plain = of(&measured, false);
        assert!(!plain.contains_key("kib_per_stream"));
    }

    #[test]
    fn a_curve_rises_and_ends_at_the_longest() {
        let mut times = histogram();
        for value in 1..=1_000_u64 {
            times.saturating_record(value * 1_000);
        }
        let points = curve(&times);
        assert!(
            points
                .windows(2)
                .all(|two| two[0].0 < two[1].0 && two[0].1 <= two[1].1)
        );
        assert_eq!(points.last(), Some(&(1.0, micros(times.max()))));
    }
}
