//! What a month will come to: what is there, and for each day to come the mean of its weekday over the
//! trailing 28 days, with a band that holds four months of five.

use jiff::civil::Date;

use crate::period::{months, shift};

/// Days that a forecast looks back.
pub(crate) const BACK_DAYS: i32 = 28;
/// Days without which nothing is forecast.
const LEAST_DAYS: usize = 7;
/// Deviations that hold 80 % of a normal distribution, in thousandths.
const BAND: i128 = 1_282;

/// A forecast of a month, in nano-USD.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Forecast {
    pub(crate) expected: i64,
    pub(crate) low: i64,
    pub(crate) high: i64,
}

/// The month of `today` from `daily` amounts in order of their days: those before `today` are taken as
/// they are, `today` and the rest of the month as expected.
pub(crate) fn month(daily: &[(Date, i64)], today: Date) -> Option<Forecast> {
    let first = today.first_of_month();
    course(daily, first, today, months(first, 1))
        .last()
        .copied()
}

/// What it will have come to since `first` by the end of each day from `today` up to, but without,
/// `end`; nothing where too little is known.
pub(crate) fn course(daily: &[(Date, i64)], first: Date, today: Date, end: Date) -> Vec<Forecast> {
    let known: i128 = between(daily, first, today)
        .map(|(_, nano)| i128::from(*nano))
        .sum();
    let back: Vec<&(Date, i64)> = between(daily, shift(today, -BACK_DAYS), today).collect();
    if back.len() < LEAST_DAYS || back.iter().all(|(_, nano)| *nano == 0) {
        return Vec::new();
    }
    let mean = |weekday| {
        let same: Vec<i128> = back
            .iter()
            .filter(|(date, _)| date.weekday() == weekday)
            .map(|(_, nano)| i128::from(*nano))
            .collect();
        let count = i128::try_from(same.len()).unwrap_or(1).max(1);
        (same.iter().sum::<i128>() / count, count)
    };
    let squares: i128 = back
        .iter()
        .map(|(date, nano)| {
            // In micro-USD, so that squares of any amounts fit.
            let off = (i128::from(*nano) - mean(date.weekday()).0) / 1_000;
            off.saturating_mul(off)
        })
        .fold(0, i128::saturating_add);
    let free = i128::try_from(back.len()).unwrap_or(8) - 7;
    let variance = squares / free.max(1);
    let (mut rest, mut spread) = (0_i128, 0_i128);
    let mut counts = [0_i128; 7];
    let mut made = Vec::new();
    let nano = |value: i128| i64::try_from(value).unwrap_or(i64::MAX);
    let mut date = today;
    while date < end {
        let (expected, samples) = mean(date.weekday());
        rest += expected;
        let place = usize::try_from(date.weekday().to_monday_zero_offset()).unwrap_or(0);
        if let Some(count) = counts.get_mut(place) {
            // A mean of few days is itself uncertain, alike for all days of this weekday.
            spread += 1_000 + (2 * *count + 1) * 1_000 / samples;
            *count += 1;
        }
        let width = (variance.saturating_mul(spread) / 1_000).isqrt() * 1_000 * BAND / 1_000;
        let expected = known + rest;
        made.push(Forecast {
            expected: nano(expected),
            low: nano((expected - width).max(known)),
            high: nano(expected + width),
        });
        date = shift(date, 1);
    }
    made
}

/// By how much the forecast that was made on the tenth of the month before missed it, in thousandths of
/// what it came to.
pub(crate) fn back_test(daily: &[(Date, i64)], today: Date) -> Option<i64> {
    let first = months(today.first_of_month(), -1);
    let then = shift(first, 10);
    // Nothing is said of times that the ledger does not know.
    let oldest = daily.iter().find(|(_, nano)| *nano != 0)?.0;
    if oldest > shift(then, -14) {
        return None;
    }
    let made = month(daily, then)?.expected;
    let came = between(daily, first, today.first_of_month())
        .map(|(_, nano)| *nano)
        .sum();
    crate::number::permille(made.saturating_sub(came), came)
}

fn between(daily: &[(Date, i64)], first: Date, end: Date) -> impl Iterator<Item = &(Date, i64)> {
    daily
        .iter()
        .filter(move |(date, _)| (first..end).contains(date))
}

/// A day on which a group cost more than its weekday explains.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Odd {
    pub(crate) place: usize,
    pub(crate) nano: i64,
    /// The upper end of what was to be expected.
    pub(crate) band: i64,
}

/// Days among the last seven before `end` that lie above the median of the same weekday in the weeks
/// before by more than four robust deviations and a quarter.
pub(crate) fn odd(values: &[i64], end: usize) -> Vec<Odd> {
    let mut found = Vec::new();
    for place in end.saturating_sub(7)..end {
        let mut same: Vec<i64> = (1..=8)
            .filter_map(|week| values.get(place.checked_sub(7 * week)?).copied())
            .collect();
        if same.len() < 4 {
            continue;
        }
        let middle = median(&mut same);
        let mut off: Vec<i64> = same.iter().map(|value| (value - middle).abs()).collect();
        // 1.4826 makes the median deviation comparable to a standard one.
        let spread = median(&mut off).saturating_mul(5_930) / 1_000;
        let band = middle.saturating_add(spread.max(middle / 4));
        let nano = values.get(place).copied().unwrap_or(0);
        if nano > band && middle > 0 {
            found.push(Odd { place, nano, band });
        }
    }
    found
}

fn median(values: &mut [i64]) -> i64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daily(days: i32, amount: impl Fn(Date) -> i64) -> Vec<(Date, i64)> {
        let first = jiff::civil::date(2026, 9, 1);
        (0..days)
            .map(|n| shift(first, n))
            .map(|date| (date, amount(date)))
            .collect()
    }

    #[test]
    fn a_month_of_weekdays_is_forecast_exactly() {
        let shape = |date: Date| 1_000_000_000 * i64::from(date.weekday().to_monday_one_offset());
        let days = daily(80, shape);
        let made = month(&days, jiff::civil::date(2026, 11, 15)).expect("enough days");
        let came: i64 = (1..=30)
            .map(|day| shape(jiff::civil::date(2026, 11, day)))
            .sum();
        assert_eq!(
            made,
            Forecast {
                expected: came,
                low: came,
                high: came
            }
        );
        assert_eq!(back_test(&days, jiff::civil::date(2026, 11, 15)), Some(0));
    }

    #[test]
    fn the_band_grows_with_what_is_uncertain_and_with_the_days_to_come() {
        let days = daily(80, |date| {
            1_000_000_000 + i64::from(date.day() % 5) * 200_000_000
        });
        let early = month(&days, jiff::civil::date(2026, 11, 3)).expect("enough days");
        let late = month(&days, jiff::civil::date(2026, 11, 15)).expect("enough days");
        let width = |made: Forecast| made.high - made.expected;
        assert!(
            width(early) > width(late) && width(late) > 0,
            "{early:?} {late:?}"
        );
        assert_eq!(month(&days[..5], jiff::civil::date(2026, 9, 6)), None);
    }

    #[test]
    fn a_day_far_above_its_weekday_is_odd() {
        let mut values: Vec<i64> = (0..63).map(|n| 100 + n % 7).collect();
        assert_eq!(odd(&values, 63), []);
        values[60] = 400;
        let found = odd(&values, 63);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].place, found[0].nano), (60, 400));
    }
}
