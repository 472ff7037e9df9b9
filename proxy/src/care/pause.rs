//! How long an endpoint asks to be left alone, in whatever way it says so.

use http::HeaderMap;
use http::header::RETRY_AFTER;
use wire::dialect::allowance::{ALLOWANCES, RETRY_AFTER_MS, span_ms};

use crate::names;

/// Milliseconds that an endpoint asks callers to wait; `None` where it says nothing that can be read.
/// `now_ms` is the wall clock, for those that name a time.
pub(crate) fn asked_ms(headers: &HeaderMap, now_ms: i64) -> Option<u64> {
    let text = |name: &str| names::find(headers, name)?.to_str().ok();
    let fine = text(RETRY_AFTER_MS).and_then(|text| span_ms(&format!("{}ms", text.trim())));
    fine.or_else(|| {
        let text = text(RETRY_AFTER.as_str())?;
        let at = || httpdate::parse_http_date(text).ok();
        span_ms(text).or_else(|| left_ms(at()?, now_ms))
    })
}

/// Milliseconds until the last of the allowances that are used up is whole again; `None` where none is.
pub(crate) fn used_up_ms(headers: &HeaderMap, now_ms: i64) -> Option<u64> {
    let text = |name: &str| names::find(headers, name)?.to_str().ok();
    let spent = ALLOWANCES
        .iter()
        .filter(|(remaining, _)| text(remaining) == Some("0"));
    let waits = spent.filter_map(|(_, reset)| {
        let reset = text(reset)?;
        let at = || reset.parse::<jiff::Timestamp>().ok();
        span_ms(reset).or_else(|| left_ms(at()?.into(), now_ms))
    });
    waits.max()
}

/// Milliseconds from `now_ms` until `at`.
fn left_ms(at: std::time::SystemTime, now_ms: i64) -> Option<u64> {
    let at = at.duration_since(std::time::UNIX_EPOCH).ok()?;
    let at = i64::try_from(at.as_millis()).ok()?;
    u64::try_from(at.saturating_sub(now_ms).max(0)).ok()
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(of: &[(&'static str, &'static str)]) -> HeaderMap {
        of.iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    /// 2026-11-22T08:00:00Z.
    const NOW_MS: i64 = 1_795_334_400_000;

    #[test]
    fn a_pause_is_read_in_seconds_milliseconds_and_dates() {
        for (given, ms) in [
            (&[("retry-after", "7")][..], Some(7_000)),
            (&[("retry-after", "0.5")], Some(500)),
            (
                &[("retry-after", "Sun, 22 Nov 2026 08:00:30 GMT")],
                Some(30_000),
            ),
            (&[("retry-after", "Sun, 22 Nov 2026 07:00:00 GMT")], Some(0)),
            (
                &[("retry-after", "7"), ("retry-after-ms", "120")],
                Some(120),
            ),
            (
                &[("retry-after", "7"), ("retry-after-ms", "x")],
                Some(7_000),
            ),
            (&[("retry-after", "tomorrow")], None),
            (&[], None),
        ] {
            assert_eq!(asked_ms(&headers(given), NOW_MS), ms, "{given:?}");
        }
    }

    #[test]
    fn an_allowance_that_is_used_up_asks_for_the_time_until_it_is_whole() {
        for (given, ms) in [
            (
                &[
                    ("x-ratelimit-remaining-requests", "0"),
                    ("x-ratelimit-reset-requests", "1m2.5s"),
                    ("x-ratelimit-remaining-tokens", "10"),
                    ("x-ratelimit-reset-tokens", "6m0s"),
                ][..],
                Some(62_500),
            ),
            (
                &[
                    ("anthropic-ratelimit-output-tokens-remaining", "0"),
                    (
                        "anthropic-ratelimit-output-tokens-reset",
                        "2026-11-22T08:00:04Z",
                    ),
                    ("anthropic-ratelimit-requests-remaining", "0"),
                    ("anthropic-ratelimit-requests-reset", "2026-11-22T08:00:01Z"),
                ],
                Some(4_000),
            ),
            (&[("x-ratelimit-remaining-requests", "0")], None),
            (
                &[
                    ("x-ratelimit-remaining-requests", "1"),
                    ("x-ratelimit-reset-requests", "6ms"),
                ],
                None,
            ),
        ] {
            assert_eq!(used_up_ms(&headers(given), NOW_MS), ms, "{given:?}");
        }
    }
}
