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
        let mut digits = itoa::Buffer::new();
        let mut usd = String::with_capacity(24);
        usd.push_str(sign);
        usd.push_str(digits.format(whole));
        usd.push('.');
        // One more dollar keeps the zeros in front.
        let nine = digits.format(NANO_PER_USD.saturating_add(part)).get(1..);
        usd.push_str(nine.unwrap_or_default());
        usd
    }

    /// Reads decimal USD such as `12.50`, at most nine places.
    ///
    /// # Errors
    /// When the text is not a decimal, has more than nine places or does not fit.
    pub fn from_usd(text: &str) -> Result<Self, ParseMoneyError> {
        let nano = scaled(text, USD_PLACES).and_then(|nano| i64::try_from(nano).ok());
        nano.map(Self).ok_or_else(|| ParseMoneyError::of_usd(text))
    }
}

const NANO_PER_USD: u64 = 1_000_000_000;
const PICO_PER_NANO: i128 = 1_000;

/// The text is not an amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not an amount; write a decimal in quotes, for instance \"12.50\", with at most {places} digits behind \
     the point"
)]
pub struct ParseMoneyError {
    /// What was read.
    pub text: String,
    /// Digits behind the point that would be.
    pub places: u32,
}

impl ParseMoneyError {
    fn new(text: &str, places: u32) -> Self {
        let text = text.to_owned();
        Self { text, places }
    }

    /// Of USD, as [`NanoUsd::from_usd`] reads them.
    pub(crate) fn of_usd(text: &str) -> Self {
        Self::new(text, USD_PLACES)
    }
}

/// Digits behind the point of amounts in USD.
const USD_PLACES: u32 = 9;

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

    /// Reads USD for one unit, for instance `0.002` for a call.
    ///
    /// # Errors
    /// As [`PicoPerUnit::per_million`], with twelve places.
    pub fn each(text: &str) -> Result<Self, ParseMoneyError> {
        Self::read(text, 12)
    }

    /// The price as decimal USD for a million units, without needless zeros, for instance `0.25`.
    pub fn to_per_million(self) -> String {
        let (whole, part) = (self.0.div_euclid(1_000_000), self.0.rem_euclid(1_000_000));
        let text = format!("{whole}.{part:06}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }

    fn read(text: &str, places: u32) -> Result<Self, ParseMoneyError> {
        scaled(text, places)
            .and_then(|pico| i64::try_from(pico).ok())
            .filter(|pico| *pico >= 0)
            .map(Self)
            .ok_or_else(|| ParseMoneyError::new(text, places))
    }
}

/// An exact factor, for instance 1.1 for a region or 0.88 for a discount of 12 %. At most six places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ratio {
    over: i128,
    under: i128,
}

impl Ratio {
    /// The factor that changes nothing.
    pub const ONE: Self = Self { over: 1, under: 1 };

    /// Reads a decimal such as `1.1`.
    ///
    /// # Errors
    /// When the text is not a decimal of 0 to 1000 with at most six places.
    pub fn read(text: &str) -> Result<Self, ParseMoneyError> {
        let over = scaled(text, 6).filter(|over| (0..=1_000_000_000).contains(over));
        let over = over.ok_or_else(|| ParseMoneyError::new(text, 6))?;
        Ok(Self::reduced(over, 1_000_000))
    }

    /// What a share leaves, for instance 0.88 of a discount of 0.12; nothing where it is 1 or more.
    pub fn left(self) -> Self {
        Self::reduced(self.under.saturating_sub(self.over).max(0), self.under)
    }

    /// A percentage on top, for instance 1.2 for 20 %.
    pub fn and_percent(self) -> Self {
        let whole = self.under.saturating_mul(100);
        Self::reduced(self.over.saturating_add(whole), whole)
    }

    /// Both factors, one after the other.
    pub fn times(self, other: Self) -> Self {
        Self::reduced(
            self.over.saturating_mul(other.over),
            self.under.saturating_mul(other.under),
        )
    }

    /// Whether it is larger than `other`.
    pub fn exceeds(self, other: Self) -> bool {
        self.over.saturating_mul(other.under) > other.over.saturating_mul(self.under)
    }

    fn reduced(over: i128, under: i128) -> Self {
        let (over, under) = reduced(over, under);
        Self { over, under }
    }
}

impl Default for Ratio {
    fn default() -> Self {
        Self::ONE
    }
}

fn reduced(over: i128, under: i128) -> (i128, i128) {
    let (mut a, mut b) = (over.saturating_abs(), under);
    while let Some(rest) = a.checked_rem(b) {
        (a, b) = (b, rest);
    }
    let by = |n: i128| n.checked_div(a).unwrap_or(n);
    (by(over), by(under))
}

/// An exact sum in pico-USD, or in parts of one where a factor made them; rounded once at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PicoSum {
    over: i128,
    under: i128,
}

impl Default for PicoSum {
    fn default() -> Self {
        Self { over: 0, under: 1 }
    }
}

impl PicoSum {
    /// An amount that was rounded already.
    pub fn of(amount: NanoUsd) -> Self {
        let over = i128::from(amount.0).saturating_mul(PICO_PER_NANO);
        Self { over, under: 1 }
    }

    /// Adds `units` at `price`. 2^64 units at the dearest price stay inside an `i128`.
    pub fn add(&mut self, units: u64, price: PicoPerUnit) {
        let amount = i128::from(units).saturating_mul(i128::from(price.0));
        self.over = self.over.saturating_add(amount.saturating_mul(self.under));
    }

    /// The sum times an exact factor.
    pub fn times(self, factor: Ratio) -> Self {
        if factor == Ratio::ONE {
            return self;
        }
        // The parts that cancel go first, so that large sums stay inside an `i128`.
        let (over, factor_under) = reduced(self.over, factor.under);
        let (factor_over, under) = reduced(factor.over, self.under);
        Self {
            over: over.saturating_mul(factor_over),
            under: under.saturating_mul(factor_under),
        }
    }

    /// The sum times `over`, divided by `under`.
    pub fn parts(self, over: u64, under: u64) -> Self {
        let (over, under) = reduced(i128::from(over), i128::from(under.max(1)));
        self.times(Ratio { over, under })
    }

    /// Both sums together.
    pub fn plus(self, other: Self) -> Self {
        if self.under == other.under {
            let over = self.over.saturating_add(other.over);
            return Self { over, ..self };
        }
        let mine = self.over.saturating_mul(other.under);
        let (over, under) = reduced(
            mine.saturating_add(other.over.saturating_mul(self.under)),
            self.under.saturating_mul(other.under),
        );
        Self { over, under }
    }

    /// What is left of it when `other` is taken away.
    pub fn minus(self, other: Self) -> Self {
        let over = other.over.saturating_neg();
        self.plus(Self { over, ..other })
    }

    /// The sum in nano-USD, halves to even, clamped to what an `i64` holds.
    pub fn round(self) -> NanoUsd {
        let unit = self.unit();
        let (nano, rest) = (self.over.div_euclid(unit), self.over.rem_euclid(unit));
        let twice = rest.saturating_mul(2);
        let up = twice > unit || (twice == unit && nano.rem_euclid(2) == 1);
        NanoUsd::clamped(nano.saturating_add(i128::from(up)))
    }

    /// The sum in nano-USD, rounded up: bounds are never below the true amount.
    pub fn ceil(self) -> NanoUsd {
        let unit = self.unit();
        let up = self.over.rem_euclid(unit) > 0;
        let nano = self.over.div_euclid(unit);
        NanoUsd::clamped(nano.saturating_add(i128::from(up)))
    }

    /// How often `price` times `factor` fits into it; no limit where that is nothing.
    pub fn holds(self, price: PicoPerUnit, factor: Ratio) -> u64 {
        let mut one = Self::default();
        one.add(1, price);
        let one = one.times(factor);
        let room = self.over.saturating_mul(one.under);
        let each = one.over.saturating_mul(self.under);
        let times = room.max(0).checked_div(each).unwrap_or(i128::MAX);
        u64::try_from(times).unwrap_or(u64::MAX)
    }

    /// Whole pico-USD, halves up: for printing the price of one unit.
    pub fn pico(self) -> PicoPerUnit {
        let half = self.under.div_euclid(2);
        let pico = self.over.saturating_add(half).div_euclid(self.under);
        PicoPerUnit(i64::try_from(pico).unwrap_or(i64::MAX))
    }

    fn unit(self) -> i128 {
        self.under.saturating_mul(PICO_PER_NANO).max(1)
    }
}

/// Divides `total` by `weights`: whole nano-USD whose sum is `total` exactly, each within one of its
/// share; what rounding leaves goes to the largest remainders, earlier ones first. Where no weight is
/// above 0, all of them count the same; without any there is nobody to pay.
pub fn share_out(total: NanoUsd, weights: &[u64]) -> Vec<NanoUsd> {
    let even = vec![1; weights.len()];
    let weights = if weights.iter().any(|weight| *weight > 0) {
        weights
    } else {
        &even
    };
    let sum = weights.iter().fold(0_i128, |sum, weight| {
        sum.saturating_add(i128::from(*weight))
    });
    let whole = i128::from(total.0);
    let (mut shares, mut rests) = (Vec::new(), Vec::new());
    let mut given = 0_i128;
    for (place, weight) in weights.iter().enumerate() {
        let part = whole.saturating_mul(i128::from(*weight));
        let share = part.div_euclid(sum);
        given = given.saturating_add(share);
        shares.push(share);
        rests.push((part.rem_euclid(sum), place));
    }
    rests.sort_by_key(|(rest, place)| (std::cmp::Reverse(*rest), *place));
    let left = usize::try_from(whole.saturating_sub(given)).unwrap_or(0);
    for (_, place) in rests.into_iter().take(left) {
        if let Some(share) = shares.get_mut(place) {
            *share = share.saturating_add(1);
        }
    }
    shares.into_iter().map(NanoUsd::clamped).collect()
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
