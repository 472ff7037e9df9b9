//! Money of a task, in integers.

use std::fmt;
use std::ops::{Add, AddAssign, Sub, SubAssign};

use serde::{Deserialize, Serialize};

/// An amount in nano-USD (1 USD is 1,000,000,000). Written as decimal USD.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(into = "String", try_from = "String")]
pub struct Usd(pub i64);

const NANOS: i64 = 1_000_000_000;

impl Usd {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// Reads decimal USD such as `0.05`, with nine decimals at most.
    ///
    /// # Errors
    /// When the text is no such amount, or one that is too large.
    pub fn parse(text: &str) -> Result<Self, ParseUsdError> {
        let wrong = || ParseUsdError(text.chars().take(40).collect());
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || part.len() > 9 || !digits(whole) || !digits(part) {
            return Err(wrong());
        }
        let whole: i64 = whole.parse().map_err(|_| wrong())?;
        let nanos: i64 = format!("{part:0<9}").parse().map_err(|_| wrong())?;
        let all = whole
            .checked_mul(NANOS)
            .and_then(|it| it.checked_add(nanos));
        all.map(Self).ok_or_else(wrong)
    }

    /// `percent` hundredths of it, rounded down.
    pub fn percent(self, percent: u8) -> Self {
        let part = i128::from(self.0) * i128::from(percent) / 100;
        Self(i64::try_from(part).unwrap_or(i64::MAX))
    }

    /// It, or nothing where it is less than nothing.
    pub fn or_zero(self) -> Self {
        self.max(Self::ZERO)
    }
}

impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let nanos = self.0.unsigned_abs();
        let scale = NANOS.unsigned_abs();
        let part = format!("{:09}", nanos % scale);
        let part = part.trim_end_matches('0');
        let whole = nanos / scale;
        if part.is_empty() {
            write!(f, "{sign}{whole}")
        } else {
            write!(f, "{sign}{whole}.{part}")
        }
    }
}

impl Add for Usd {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub for Usd {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl AddAssign for Usd {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Usd {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

/// The text is no amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no amount; write decimal USD such as \"0.05\"")]
pub struct ParseUsdError(String);

impl From<Usd> for String {
    fn from(usd: Usd) -> Self {
        usd.to_string()
    }
}

impl TryFrom<String> for Usd {
    type Error = ParseUsdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}
