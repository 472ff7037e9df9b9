//! How vendors tell what is left of an allowance, and when it is whole again.

/// Headers that tell what is left of each allowance, with those that tell when it is whole again.
pub const ALLOWANCES: [(&str, &str); 6] = [
    (
        "x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests",
    ),
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    (
        "anthropic-ratelimit-requests-remaining",
        "anthropic-ratelimit-requests-reset",
    ),
    (
        "anthropic-ratelimit-tokens-remaining",
        "anthropic-ratelimit-tokens-reset",
    ),
    (
        "anthropic-ratelimit-input-tokens-remaining",
        "anthropic-ratelimit-input-tokens-reset",
    ),
    (
        "anthropic-ratelimit-output-tokens-remaining",
        "anthropic-ratelimit-output-tokens-reset",
    ),
];

/// The header that tells a pause more finely than `retry-after`, in milliseconds.
pub const RETRY_AFTER_MS: &str = "retry-after-ms";

/// How often the caller's own client has tried before, and how many seconds it waits.
pub const RETRY_COUNT: &str = "x-stainless-retry-count";
pub const CLIENT_TIMEOUTS_S: [&str; 2] = ["x-stainless-timeout", "x-stainless-read-timeout"];

/// Milliseconds of a span such as `6m0s`, `1m2.5s`, `6ms` or `1.2s`; what is less than one counts as one. A bare
/// number is seconds.
pub fn span_ms(text: &str) -> Option<u64> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    let mut micros = 0_u64;
    while !rest.is_empty() {
        let digits = rest
            .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
            .unwrap_or(rest.len());
        let (number, behind) = rest.split_at_checked(digits)?;
        let letters = behind
            .find(|letter: char| letter.is_ascii_digit() || letter == '.')
            .unwrap_or(behind.len());
        let (unit, behind) = behind.split_at_checked(letters)?;
        let unit = match unit.trim() {
            "d" => 86_400_000_000,
            "h" => 3_600_000_000,
            "m" => 60_000_000,
            "s" | "" => 1_000_000,
            "ms" => 1_000,
            "us" | "µs" => 1,
            _ => return None,
        };
        micros = micros.checked_add(times(number, unit)?)?;
        rest = behind;
    }
    Some(micros.div_ceil(1_000))
}

/// A decimal number of a unit, without its part below one.
fn times(number: &str, unit: u64) -> Option<u64> {
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && part.is_empty() {
        return None;
    }
    let whole = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let mut sum = unit.checked_mul(whole)?;
    let mut unit = unit;
    for digit in part.chars() {
        unit /= 10;
        sum = sum.checked_add(unit * u64::from(digit.to_digit(10)?))?;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_vendors_write_them() {
        for (text, ms) in [
            ("6m0s", 360_000),
            ("1m2.5s", 62_500),
            ("6ms", 6),
            ("1.2s", 1_200),
            ("8.64s", 8_640),
            ("1h2m3s", 3_723_000),
            ("1d", 86_400_000),
            ("12", 12_000),
            ("0.4ms", 1),
            ("0s", 0),
            ("17.053124s", 17_054),
        ] {
            assert_eq!(span_ms(text), Some(ms), "{text}");
        }
        for text in [
            "",
            "soon",
            "1x",
            "s",
            ".",
            "-1s",
            "1..2s",
            "99999999999999999999s",
        ] {
            assert_eq!(span_ms(text), None, "{text}");
        }
    }
}
