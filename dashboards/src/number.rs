//! Amounts, counts and shares as people read them: separators, sensible digits, a true minus sign.

/// Nano-USD in one USD.
const USD: i128 = 1_000_000_000;

/// Digits behind the point that tell amounts up to `largest` well.
pub(crate) fn digits(largest: i64) -> u32 {
    match largest.unsigned_abs() {
        0 | 1_000_000_000.. => 2,
        10_000_000.. => 4,
        1_000.. => 6,
        _ => 9,
    }
}

/// `$12,345.68`, rounded half to even to `digits` places.
pub(crate) fn usd(nano: i64, digits: u32) -> String {
    let unit = USD / 10_i128.pow(digits.min(9));
    let value = divide(i128::from(nano), unit);
    let sign = if value < 0 { "\u{2212}" } else { "" };
    let value = value.unsigned_abs();
    let scale = 10_u128.pow(digits.min(9));
    let whole = grouped(&(value / scale).to_string());
    if digits == 0 {
        return format!("{sign}${whole}");
    }
    let places = usize::try_from(digits).unwrap_or(2);
    format!("{sign}${whole}.{:0places$}", value % scale)
}

/// `12,345`.
pub(crate) fn count(count: i64) -> String {
    let sign = if count < 0 { "\u{2212}" } else { "" };
    format!("{sign}{}", grouped(&count.unsigned_abs().to_string()))
}

/// `1.2 M`, for axes and small places.
pub(crate) fn short(count: i64) -> String {
    let sign = if count < 0 { "\u{2212}" } else { "" };
    let size = count.unsigned_abs();
    for (unit, name) in [(1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")] {
        if size >= unit {
            let tenths = size / (unit / 10);
            let (whole, tenth) = (tenths / 10, tenths % 10);
            return if tenth == 0 || whole >= 100 {
                format!("{sign}{whole}\u{a0}{name}")
            } else {
                format!("{sign}{whole}.{tenth}\u{a0}{name}")
            };
        }
    }
    format!("{sign}{size}")
}

/// An amount for an axis: `$1.2 k`, `$0.25`.
pub(crate) fn short_usd(nano: i64) -> String {
    let whole = nano / 1_000_000_000;
    if whole.unsigned_abs() < 1_000 {
        let round = nano % 1_000_000_000 == 0;
        return usd(nano, if round { 0 } else { digits(nano) });
    }
    let text = short(whole);
    match text.strip_prefix('\u{2212}') {
        Some(rest) => format!("\u{2212}${rest}"),
        None => format!("${text}"),
    }
}

/// `12.3 %` from thousandths.
pub(crate) fn percent(permille: i64) -> String {
    let sign = if permille < 0 { "\u{2212}" } else { "" };
    let size = permille.unsigned_abs();
    let whole = grouped(&(size / 10).to_string());
    format!("{sign}{whole}.{}\u{a0}%", size % 10)
}

/// `+12.3 %`: a change.
pub(crate) fn change(permille: i64) -> String {
    if permille > 0 {
        return format!("+{}", percent(permille));
    }
    percent(permille)
}

/// `part` of `whole` in thousandths; nothing where there is no whole.
pub(crate) fn permille(part: i64, whole: i64) -> Option<i64> {
    if whole == 0 {
        return None;
    }
    let share = divide(i128::from(part) * 1_000, i128::from(whole.unsigned_abs()));
    let share = if whole < 0 { -share } else { share };
    i64::try_from(share).ok()
}

/// `amount * times / by`, halves to even; nothing where `by` is nothing.
pub(crate) fn ratio(amount: i64, times: i64, by: i64) -> Option<i64> {
    if by <= 0 {
        return None;
    }
    i64::try_from(divide(
        i128::from(amount) * i128::from(times),
        i128::from(by),
    ))
    .ok()
}

/// Divides by a positive number, halves to even.
fn divide(value: i128, by: i128) -> i128 {
    let (whole, rest) = (value.div_euclid(by), value.rem_euclid(by));
    let up = rest * 2 > by || (rest * 2 == by && whole.rem_euclid(2) == 1);
    whole + i128::from(up)
}

/// Commas between thousands.
fn grouped(digits: &str) -> String {
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_well_and_round_half_to_even() {
        assert_eq!(usd(1_234_567_125_000_000, 2), "$1,234,567.12");
        assert_eq!(usd(-1_500_000_000, 0), "\u{2212}$2");
        assert_eq!(usd(2_500_000_000, 0), "$2");
        assert_eq!(usd(999, 6), "$0.000001");
        assert_eq!(short_usd(12_500_000_000_000), "$12.5\u{a0}k");
        assert_eq!(count(-1_234), "\u{2212}1,234");
        assert_eq!(short(1_250_000), "1.2\u{a0}M");
    }

    #[test]
    fn shares_are_thousandths() {
        assert_eq!(permille(1, 3), Some(333));
        assert_eq!(permille(-1, 3), Some(-333));
        assert_eq!(permille(1, 0), None);
        assert_eq!(percent(-1_234), "\u{2212}123.4\u{a0}%");
        assert_eq!(change(5), "+0.5\u{a0}%");
        assert_eq!(ratio(10, 1_000, 3), Some(3_333));
    }
}
