//! Money as integers: pico-USD while multiplying, nano-USD once rounded. No floating point.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Neg, Sub};

use serde::{Deserialize, Serialize};

/// An amount in nano-USD (1e-9 USD). An `i64` holds +-9.2 billion USD.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct NanoUsd(pub i64);

impl NanoUsd {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The largest amount, used where there is no limit.
    pub const MAX: Self = Self(i64::MAX);

    /// The amount as decimal USD with all nine places, for instance `0.001250000`.
    pub fn to_usd(self) -> String {
        let sign = if self.0 < 0 { "-" } else { "" };
        let nano = self.0.unsigned_abs();
        let (whole, part) = (nano.div_euclid(NANO_PER_USD), nano.rem_euclid(NANO_PER_USD));
        format!("{sign}{whole}.{part:09}")
    }

    /// Reads decimal USD such as `12.50`, at most nine places.
    ///
    /// # Errors
    /// When the text is not a decimal, has more than nine places or does not fit.
    pub fn from_usd(text: &str) -> Result<Self, ParseMoneyError> {
        let nano = scaled(text, 9).ok_or_else(|| ParseMoneyError(text.to_owned()))?;
        i64::try_from(nano)
            .map(Self)
            .map_err(|_| ParseMoneyError(text.to_owned()))
    }
}

const NANO_PER_USD: u64 = 1_000_000_000;
const PICO_PER_NANO: i128 = 1_000;

/// The text is not an amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an amount; write a decimal in quotes, for instance \"12.50\"")]
pub struct ParseMoneyError(pub String);

/// A price: pico-USD (1e-12 USD) for one token. USD per million tokens with six places fits exactly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PicoPerUnit(pub i64);

impl PicoPerUnit {
    /// Reads USD for a million units, for instance `0.25`, at most six places.
    ///
    /// # Errors
    /// When the text is not a non-negative decimal, has more than six places or does not fit.
    pub fn per_million(text: &str) -> Result<Self, ParseMoneyError> {
        Self::read(text, 6)
    }

    /// Reads USD for a thousand units, for instance `10` for a thousand web searches.
    ///
    /// # Errors
    /// As [`PicoPerUnit::per_million`], with nine places.
    pub fn per_thousand(text: &str) -> Result<Self, ParseMoneyError> {
        Self::read(text, 9)
    }

    fn read(text: &str, places: u32) -> Result<Self, ParseMoneyError> {
        scaled(text, places)
            .and_then(|pico| i64::try_from(pico).ok())
            .filter(|pico| *pico >= 0)
            .map(Self)
            .ok_or_else(|| ParseMoneyError(text.to_owned()))
    }
}

/// A running sum in pico-USD, rounded once at its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PicoSum(i128);

impl PicoSum {
    /// Adds `units` at `price`. 2^64 units at the dearest price stay inside an `i128`.
    pub fn add(&mut self, units: u64, price: PicoPerUnit) {
        let amount = i128::from(units).saturating_mul(i128::from(price.0));
        self.0 = self.0.saturating_add(amount);
    }

    /// The sum in nano-USD, halves to even, clamped to what an `i64` holds.
    pub fn round(self) -> NanoUsd {
        let (nano, rest) = (
            self.0.div_euclid(PICO_PER_NANO),
            self.0.rem_euclid(PICO_PER_NANO),
        );
        let up = rest > 500 || (rest == 500 && nano.rem_euclid(2) == 1);
        NanoUsd::clamped(nano.saturating_add(i128::from(up)))
    }

    /// The sum in nano-USD, rounded up: bounds are never below the true amount.
    pub fn ceil(self) -> NanoUsd {
        let up = self.0.rem_euclid(PICO_PER_NANO) > 0;
        NanoUsd::clamped(
            self.0
                .div_euclid(PICO_PER_NANO)
                .saturating_add(i128::from(up)),
        )
    }
}

impl NanoUsd {
    fn clamped(nano: i128) -> Self {
        Self(i64::try_from(nano).unwrap_or(if nano < 0 { i64::MIN } else { i64::MAX }))
    }
}

/// The step of a cost in a histogram with eight steps for each power of two, so that a step's upper
/// end is at most an eighth above its lower one.
pub fn step(cost: NanoUsd) -> i64 {
    let nano = cost.0.max(0).unsigned_abs();
    let Some(log) = nano.checked_ilog2().filter(|log| *log >= 3) else {
        return i64::try_from(nano).unwrap_or(0);
    };
    let within = (nano >> log.saturating_sub(3)) & 7;
    let step = u64::from(log)
        .saturating_sub(2)
        .saturating_mul(8)
        .saturating_add(within);
    i64::try_from(step).unwrap_or(0)
}

/// The largest cost that falls into `step`, the other way round from [`step`].
pub fn step_end(step: i64) -> NanoUsd {
    let step = u64::try_from(step).unwrap_or(0);
    if step < 8 {
        return NanoUsd(i64::try_from(step).unwrap_or(0));
    }
    let log = u32::try_from(step.div_euclid(8).saturating_add(2)).unwrap_or(u32::MAX);
    let within = u128::from(step.rem_euclid(8)).saturating_add(9);
    let end = within
        .checked_shl(log.saturating_sub(3))
        .unwrap_or(u128::MAX)
        .saturating_sub(1);
    NanoUsd(i64::try_from(end).unwrap_or(i64::MAX))
}

/// Reads a decimal as an integer with `places` places after the point.
fn scaled(text: &str, places: u32) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let part = part.trim_end_matches('0');
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let fits = u32::try_from(part.len()).is_ok_and(|n| n <= places);
    if whole.is_empty() || whole.len() > 18 || !all_digits(whole) || !all_digits(part) || !fits {
        return None;
    }
    let shift = places.checked_sub(u32::try_from(part.len()).ok()?)?;
    let joined: i128 = format!("{whole}{part}").parse().ok()?;
    let value = joined.checked_mul(10_i128.checked_pow(shift)?)?;
    Some(if negative {
        value.saturating_neg()
    } else {
        value
    })
}

impl Add for NanoUsd {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for NanoUsd {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for NanoUsd {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Neg for NanoUsd {
    type Output = Self;
    fn neg(self) -> Self {
        Self(self.0.saturating_neg())
    }
}

impl Sum for NanoUsd {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Add::add)
    }
}

impl fmt::Display for NanoUsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_usd())
    }
}

#[cfg(test)]
mod tests;
