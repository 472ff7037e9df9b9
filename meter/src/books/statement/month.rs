//! A calendar month in UTC: what statements are made for.

use std::fmt;
use std::str::FromStr;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde::{Deserialize, Serialize};

/// A month, written `2026-11`. A call belongs to the month, in UTC, in which its hold was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Month(Date);

/// The text is no month.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a month; write 2026-11")]
pub struct ParseMonthError(String);

impl Month {
    /// The month of a moment.
    pub fn of(at_ms: i64) -> Self {
        let at = Timestamp::from_millisecond(at_ms).unwrap_or_default();
        Self(at.to_zoned(TimeZone::UTC).date().first_of_month())
    }

    /// Its first moment, in milliseconds since 1970.
    pub fn start_ms(self) -> i64 {
        start(self.0)
    }

    /// The first moment behind it.
    pub fn end_ms(self) -> i64 {
        start(self.0.checked_add(1.month()).unwrap_or(Date::MAX))
    }
}

fn start(date: Date) -> i64 {
    date.to_zoned(TimeZone::UTC)
        .map_or(i64::MAX, |at| at.timestamp().as_millisecond())
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.0.year(), self.0.month())
    }
}

impl From<Month> for String {
    fn from(month: Month) -> Self {
        month.to_string()
    }
}

impl FromStr for Month {
    type Err = ParseMonthError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseMonthError(text.to_owned());
        if text.len() != 7 {
            return Err(wrong());
        }
        format!("{text}-01").parse().map(Self).map_err(|_| wrong())
    }
}

impl TryFrom<String> for Month {
    type Error = ParseMonthError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}
