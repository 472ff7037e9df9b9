//! Windows of budgets: calendar, fiscal and rolling, each in a time zone.

use std::fmt;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan, Zoned};
use serde::{Deserialize, Deserializer};

/// Buckets that a rolling window is counted in: money spent leaves it by at most a sixtieth of its
/// length too late, never too early.
const BUCKETS: i64 = 60;

/// What a limit counts over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Period {
    Minute,
    Hour,
    Day,
    /// From Monday on.
    Week,
    Month,
    /// Three months of the fiscal year.
    Quarter,
    /// The fiscal year.
    Year,
    /// Never begins anew.
    Total,
    /// The last so many milliseconds, at every moment.
    Rolling(i64),
}

impl Period {
    /// Reads `month`, or `rolling 24h` (minutes `m`, hours `h`, days `d`).
    ///
    /// # Errors
    /// When the text is neither.
    pub fn parse(text: &str) -> Result<Self, ParsePeriodError> {
        let wrong = || ParsePeriodError(text.to_owned());
        Ok(match text {
            "minute" => Self::Minute,
            "hour" => Self::Hour,
            "day" => Self::Day,
            "week" => Self::Week,
            "month" => Self::Month,
            "quarter" => Self::Quarter,
            "year" => Self::Year,
            "total" => Self::Total,
            other => {
                let length = other.strip_prefix("rolling ").ok_or_else(wrong)?;
                let unit = length.chars().next_back().ok_or_else(wrong)?;
                let count: i64 = length
                    .strip_suffix(unit)
                    .and_then(|digits| digits.trim().parse().ok())
                    .filter(|count| (1..=3_660).contains(count))
                    .ok_or_else(wrong)?;
                let each = match unit {
                    'm' => 60_000,
                    'h' => 3_600_000,
                    'd' => 86_400_000,
                    _ => return Err(wrong()),
                };
                Self::Rolling(count.checked_mul(each).ok_or_else(wrong)?)
            }
        })
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Minute => f.write_str("minute"),
            Self::Hour => f.write_str("hour"),
            Self::Day => f.write_str("day"),
            Self::Week => f.write_str("week"),
            Self::Month => f.write_str("month"),
            Self::Quarter => f.write_str("quarter"),
            Self::Year => f.write_str("year"),
            Self::Total => f.write_str("total"),
            Self::Rolling(ms) => {
                let (days, hours) = (ms.rem_euclid(86_400_000), ms.rem_euclid(3_600_000));
                match (days, hours) {
                    (0, _) => write!(f, "rolling {}d", ms.div_euclid(86_400_000)),
                    (_, 0) => write!(f, "rolling {}h", ms.div_euclid(3_600_000)),
                    _ => write!(f, "rolling {}m", ms.div_euclid(60_000)),
                }
            }
        }
    }
}

/// The text is no period.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no window; write hour, day, week, month, quarter, year, total, or `rolling 24h` (m, h or d)"
)]
pub struct ParsePeriodError(pub String);

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// A period in a time zone, for a fiscal year that begins in some month.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    pub period: Period,
    zone: TimeZone,
    zone_name: String,
    /// 1 for January.
    fiscal_start: i8,
}

/// A window at one moment. What is spent now is counted in the bucket that begins at `start_ms`; what
/// counts against the limit are all buckets from `from_ms` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub start_ms: i64,
    pub from_ms: i64,
    /// When the bucket ends, exclusive; `None` where it never does.
    pub end_ms: Option<i64>,
}

/// There is no such time zone or month.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    #[error("`{0}` is no time zone; write one such as Europe/Berlin")]
    Zone(String),
    #[error("{0} is no month in which a fiscal year may begin; write 1 to 12")]
    Month(i8),
}

impl Window {
    /// A window of `period` in the zone of this IANA name.
    ///
    /// # Errors
    /// When there is no such zone or month.
    pub fn new(period: Period, zone: &str, fiscal_start: i8) -> Result<Self, WindowError> {
        if !(1..=12).contains(&fiscal_start) {
            return Err(WindowError::Month(fiscal_start));
        }
        let found = if zone == "UTC" {
            TimeZone::UTC
        } else {
            TimeZone::get(zone).map_err(|_| WindowError::Zone(zone.to_owned()))?
        };
        Ok(Self {
            period,
            zone: found,
            zone_name: zone.to_owned(),
            fiscal_start,
        })
    }

    /// The same in UTC, for a fiscal year that is the calendar's.
    pub fn utc(period: Period) -> Self {
        Self {
            period,
            zone: TimeZone::UTC,
            zone_name: "UTC".to_owned(),
            fiscal_start: 1,
        }
    }

    /// The window at `now_ms`, in milliseconds since 1970.
    pub fn at(&self, now_ms: i64) -> Span {
        if let Period::Rolling(length) = self.period {
            let bucket = rolling_bucket(length);
            let start_ms = now_ms.div_euclid(bucket).saturating_mul(bucket);
            let end = start_ms.saturating_add(bucket);
            // Whatever lies in a bucket that the window touches is counted whole.
            let oldest = now_ms.saturating_sub(length);
            return Span {
                start_ms,
                from_ms: oldest.div_euclid(bucket).saturating_mul(bucket),
                end_ms: Some(end),
            };
        }
        let bounds = || {
            let now = Timestamp::from_millisecond(now_ms)
                .ok()?
                .to_zoned(self.zone.clone());
            let (start, end) = self.calendar(&now)?;
            Some((start.as_millisecond(), end.as_millisecond()))
        };
        match bounds() {
            Some((start_ms, end_ms)) => Span {
                start_ms,
                from_ms: start_ms,
                end_ms: Some(end_ms),
            },
            None => Span {
                start_ms: 0,
                from_ms: 0,
                end_ms: None,
            },
        }
    }

    fn calendar(&self, now: &Zoned) -> Option<(Timestamp, Timestamp)> {
        let day = now.start_of_day().ok()?;
        let (start, next) = match self.period {
            Period::Minute | Period::Hour => return self.clock(now),
            Period::Day => (day.clone(), day.tomorrow().ok()?),
            Period::Week => {
                let since = i64::from(day.weekday().to_monday_zero_offset());
                let monday = day.checked_sub(since.days()).ok()?;
                (monday.clone(), monday.checked_add(7.days()).ok()?)
            }
            Period::Month | Period::Quarter | Period::Year => {
                let months: i8 = match self.period {
                    Period::Month => 1,
                    Period::Quarter => 3,
                    _ => 12,
                };
                let first = day.first_of_month().ok()?;
                let into = first
                    .month()
                    .saturating_sub(self.fiscal_start)
                    .rem_euclid(12)
                    .rem_euclid(months);
                let start = first.checked_sub(i64::from(into).months()).ok()?;
                (
                    start.clone(),
                    start.checked_add(i64::from(months).months()).ok()?,
                )
            }
            Period::Total | Period::Rolling(_) => return None,
        };
        // Midnight is not there on some days of a change to summer time: the day's first moment is.
        Some((
            start.start_of_day().ok()?.timestamp(),
            next.start_of_day().ok()?.timestamp(),
        ))
    }

    /// Minutes and hours of the zone's clock, each of its full length also when the clock is changed.
    fn clock(&self, now: &Zoned) -> Option<(Timestamp, Timestamp)> {
        let seconds = i64::from(now.second());
        let minutes = if self.period == Period::Hour {
            i64::from(now.minute())
        } else {
            0
        };
        let length = if self.period == Period::Hour {
            3_600
        } else {
            60
        };
        let since = minutes
            .checked_mul(60)?
            .checked_add(seconds)?
            .checked_mul(1_000)?
            .checked_add(i64::from(now.millisecond()))?;
        let start = now
            .timestamp()
            .as_millisecond()
            .checked_sub(since)
            .and_then(|ms| Timestamp::from_millisecond(ms).ok())?;
        Some((
            start,
            start.checked_add(SignedDuration::from_secs(length)).ok()?,
        ))
    }

    /// The length of a rolling window's buckets in milliseconds; `None` for the others.
    pub fn bucket_ms(&self) -> Option<i64> {
        match self.period {
            Period::Rolling(length) => Some(rolling_bucket(length)),
            _ => None,
        }
    }
}

fn rolling_bucket(length: i64) -> i64 {
    length.div_euclid(BUCKETS).max(1_000)
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fiscal =
            matches!(self.period, Period::Quarter | Period::Year) && self.fiscal_start != 1;
        if fiscal {
            write!(f, "fiscal {} from month {}", self.period, self.fiscal_start)?;
        } else {
            write!(f, "{}", self.period)?;
        }
        if self.zone_name != "UTC" && !matches!(self.period, Period::Total | Period::Rolling(_)) {
            write!(f, " in {}", self.zone_name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> i64 {
        text.parse::<Timestamp>().expect("a time").as_millisecond()
    }

    fn window(period: &str, zone: &str, fiscal_start: i8) -> Window {
        Window::new(Period::parse(period).expect("a period"), zone, fiscal_start).expect("a zone")
    }

    /// Window, zone, first month of the fiscal year, a moment, and the window around it.
    const CALENDAR: &str = "
        hour    UTC              1 2028-02-29T23:59:59.999Z 2028-02-29T23:00:00Z 2028-03-01T00:00:00Z
        day     UTC              1 2028-02-29T23:59:59.999Z 2028-02-29T00:00:00Z 2028-03-01T00:00:00Z
        week    UTC              1 2028-02-29T23:59:59.999Z 2028-02-28T00:00:00Z 2028-03-06T00:00:00Z
        month   UTC              1 2028-02-29T23:59:59.999Z 2028-02-01T00:00:00Z 2028-03-01T00:00:00Z
        day     Europe/Berlin    1 2026-03-29T12:00:00Z     2026-03-28T23:00:00Z 2026-03-29T22:00:00Z
        day     Europe/Berlin    1 2026-10-25T12:00:00Z     2026-10-24T22:00:00Z 2026-10-25T23:00:00Z
        hour    Europe/Berlin    1 2026-10-25T00:30:00Z     2026-10-25T00:00:00Z 2026-10-25T01:00:00Z
        hour    Europe/Berlin    1 2026-10-25T01:30:00Z     2026-10-25T01:00:00Z 2026-10-25T02:00:00Z
        month   Europe/Berlin    1 2026-10-31T23:30:00Z     2026-10-31T23:00:00Z 2026-11-30T23:00:00Z
        day     America/Santiago 1 2026-09-06T12:00:00Z     2026-09-06T04:00:00Z 2026-09-07T03:00:00Z
        hour    Asia/Kathmandu   1 2026-11-21T10:20:00Z     2026-11-21T10:15:00Z 2026-11-21T11:15:00Z
        quarter UTC              4 2026-03-31T23:59:59Z     2026-01-01T00:00:00Z 2026-04-01T00:00:00Z
        quarter UTC              2 2026-01-15T00:00:00Z     2025-11-01T00:00:00Z 2026-02-01T00:00:00Z
        year    UTC             10 2026-11-21T00:00:00Z     2026-10-01T00:00:00Z 2027-10-01T00:00:00Z
        year    UTC              1 2028-02-29T00:00:00Z     2028-01-01T00:00:00Z 2029-01-01T00:00:00Z
        minute  UTC              1 2026-11-21T10:20:59.999Z 2026-11-21T10:20:00Z 2026-11-21T10:21:00Z
    ";

    /// Leap days, days of 23 and 25 hours, an hour that comes twice, a day without midnight, a zone
    /// that is not a whole hour away, fiscal years.
    #[test]
    fn windows_follow_the_calendar_of_their_zone() {
        for line in CALENDAR.lines().filter(|line| !line.trim().is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [period, zone, fiscal, now, start, end] = words[..] else {
                panic!("six words: {line}")
            };
            let window = window(period, zone, fiscal.parse().expect("a month"));
            let at = window.at(ms(now));
            assert_eq!(
                (at.start_ms, at.end_ms),
                (ms(start), Some(ms(end))),
                "{line}"
            );
            let first = window.at(ms(start)).start_ms;
            assert_eq!(first, ms(start), "it begins inside itself: {line}");
            let last = window.at(ms(end) - 1).start_ms;
            assert_eq!(last, ms(start), "and ends there: {line}");
        }
        assert_eq!(window("total", "UTC", 1).at(5).end_ms, None);
    }

    #[test]
    fn a_rolling_window_counts_every_bucket_that_it_touches() {
        let window = window("rolling 1h", "UTC", 1);
        let at = window.at(ms("2026-11-21T10:20:30Z"));
        assert_eq!(at.start_ms, ms("2026-11-21T10:20:00Z"));
        assert_eq!(at.from_ms, ms("2026-11-21T09:20:00Z"));
        assert_eq!(at.end_ms, Some(ms("2026-11-21T10:21:00Z")));
    }

    #[test]
    fn what_is_no_window_is_told() {
        for wrong in [
            "",
            "fortnight",
            "rolling",
            "rolling 0h",
            "rolling 5y",
            "rolling xh",
        ] {
            assert!(Period::parse(wrong).is_err(), "{wrong}");
        }
        assert!(Window::new(Period::Day, "Mars/Olympus", 1).is_err());
        assert!(Window::new(Period::Day, "UTC", 13).is_err());
        for good in ["rolling 90m", "rolling 24h", "rolling 30d", "quarter"] {
            let shown = Period::parse(good).expect(good).to_string();
            let long = if good == "rolling 24h" {
                "rolling 1d"
            } else {
                good
            };
            assert_eq!(shown, long);
        }
    }
}
