//! Periods of time: presets, what they are compared with, and their days in a time zone.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use meter::finance::Grain;

/// A stretch of time in milliseconds since 1970; the end is exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from_ms: i64,
    pub(crate) until_ms: i64,
}

/// One day of a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Day {
    pub(crate) date: Date,
    pub(crate) span: Span,
}

/// The period of a page.
#[derive(Debug, Clone)]
pub(crate) struct Period {
    /// One of [`PRESETS`], or `custom`.
    pub(crate) preset: &'static str,
    /// The month in which fiscal years begin.
    pub(crate) fiscal: i8,
    pub(crate) zone: TimeZone,
    pub(crate) zone_name: String,
    pub(crate) first: Date,
    /// The day behind the last.
    pub(crate) end: Date,
    pub(crate) today: Date,
    pub(crate) span: Span,
}

/// What people choose from: the word and how it is called.
pub(crate) const PRESETS: [(&str, &str); 11] = [
    ("today", "Today"),
    ("yesterday", "Yesterday"),
    ("7d", "Last 7 days"),
    ("28d", "Last 28 days"),
    ("month", "Month to date"),
    ("last-month", "Last month"),
    ("quarter", "Quarter to date"),
    ("year", "Year to date"),
    ("fiscal-quarter", "Fiscal quarter to date"),
    ("fiscal-year", "Fiscal year to date"),
    ("custom", "Custom"),
];
/// The longest custom period: more days than pages can show.
const MOST_DAYS: i32 = 1_100;

impl Period {
    /// The period of a preset; a custom one runs from the first to the second date, both included.
    pub(crate) fn read(
        preset: &str,
        dates: (Option<&str>, Option<&str>),
        (zone, zone_name): (TimeZone, String),
        fiscal: i8,
        now_ms: i64,
    ) -> Self {
        let now = Timestamp::from_millisecond(now_ms).unwrap_or_default();
        let today = now.to_zoned(zone.clone()).date();
        let known = PRESETS.iter().find(|(word, _)| *word == preset);
        let preset = known.map_or("month", |(word, _)| *word);
        let tomorrow = shift(today, 1);
        let month = today.first_of_month();
        let (first, end) = match preset {
            "today" => (today, tomorrow),
            "yesterday" => (shift(today, -1), today),
            "7d" => (shift(today, -6), tomorrow),
            "28d" => (shift(today, -27), tomorrow),
            "last-month" => (months(month, -1), month),
            "quarter" => (months(month, -i32::from((today.month() - 1) % 3)), tomorrow),
            "year" => (today.first_of_year(), tomorrow),
            "fiscal-quarter" => {
                let since = (today.month() - fiscal).rem_euclid(12);
                (months(month, -i32::from(since % 3)), tomorrow)
            }
            "fiscal-year" => {
                let since = (today.month() - fiscal).rem_euclid(12);
                (months(month, -i32::from(since)), tomorrow)
            }
            "custom" => custom(dates, today),
            _ => (month, tomorrow),
        };
        let span = Span {
            from_ms: midnight(first, &zone),
            until_ms: midnight(end, &zone),
        };
        Self {
            preset,
            fiscal,
            zone,
            zone_name,
            first,
            end,
            today,
            span,
        }
    }

    /// What it is compared with: the same days of the month, quarter or year before, or as many days
    /// just before it.
    pub(crate) fn before(&self) -> (Date, Date) {
        let length = days_between(self.first, self.end);
        let first = match self.preset {
            "month" | "last-month" => months(self.first, -1),
            "quarter" | "fiscal-quarter" => months(self.first, -3),
            "year" | "fiscal-year" => months(self.first, -12),
            _ => shift(self.first, -length),
        };
        let end = match self.preset {
            "last-month" => self.first,
            _ => shift(first, length).min(self.first),
        };
        (first, end)
    }

    /// The stretch between two midnights of the zone.
    pub(crate) fn between(&self, first: Date, end: Date) -> Span {
        Span {
            from_ms: midnight(first, &self.zone),
            until_ms: midnight(end, &self.zone),
        }
    }

    /// The days from `first` up to, but without, `end`.
    pub(crate) fn days(&self, first: Date, end: Date) -> Vec<Day> {
        let mut days = Vec::new();
        let mut date = first;
        while date < end {
            let next = shift(date, 1);
            if next <= date {
                break;
            }
            days.push(Day {
                date,
                span: self.between(date, next),
            });
            date = next;
        }
        days
    }

    pub(crate) fn grain(&self) -> Grain {
        if self.zone == TimeZone::UTC {
            Grain::Day
        } else {
            Grain::Hour
        }
    }

    /// Whether its zone's days begin between two hours.
    pub(crate) fn is_between_hours(&self) -> bool {
        let start = self.first.to_zoned(self.zone.clone());
        start.is_ok_and(|at| at.offset().seconds() % 3_600 != 0)
    }

    /// For people: `1 – 21 November 2026`.
    pub(crate) fn title(&self) -> String {
        title(self.first, shift(self.end, -1))
    }
}

/// The day of `days`, which are in order, that `at_ms` lies in.
pub(crate) fn place(days: &[Day], at_ms: i64) -> Option<usize> {
    let behind = days.partition_point(|day| day.span.from_ms <= at_ms);
    let place = behind.checked_sub(1)?;
    days.get(place)
        .is_some_and(|day| at_ms < day.span.until_ms)
        .then_some(place)
}

/// Two dates as a title.
pub(crate) fn title(first: Date, last: Date) -> String {
    if first == last {
        return first.strftime("%-d %B %Y").to_string();
    }
    let until = last.strftime("%-d %B %Y");
    if first.year() != last.year() {
        return format!("{} \u{2013} {until}", first.strftime("%-d %B %Y"));
    }
    if first.month() != last.month() {
        return format!("{} \u{2013} {until}", first.strftime("%-d %B"));
    }
    format!("{} \u{2013} {until}", first.strftime("%-d"))
}

fn custom((from, until): (Option<&str>, Option<&str>), today: Date) -> (Date, Date) {
    let last = until.and_then(day).unwrap_or(today);
    let first = from.and_then(day).unwrap_or(last).min(last);
    (first.max(shift(last, -MOST_DAYS)), shift(last, 1))
}

/// A day that a custom period may have.
fn day(text: &str) -> Option<Date> {
    let date = text.parse::<Date>().ok();
    date.filter(|date| (2000..=2100).contains(&date.year()))
}

/// Why a custom period is not the one that was asked for; nothing where it is.
pub(crate) fn amiss(
    (from, until): (Option<&str>, Option<&str>),
    today: Date,
) -> Option<&'static str> {
    let is_unread = |text: &str| day(text).is_none();
    if from.is_some_and(is_unread) || until.is_some_and(is_unread) {
        return Some("A day of it is no date of the years 2000 to 2100.");
    }
    let last = until.and_then(day).unwrap_or(today);
    let first = from.and_then(day).unwrap_or(last);
    if last < first {
        return Some("It ends before it begins.");
    }
    (first < shift(last, -MOST_DAYS)).then_some("It is longer than 1,100 days.")
}

/// `date` so many days later; itself at the end of time.
pub(crate) fn shift(date: Date, days: i32) -> Date {
    date.checked_add(i64::from(days).days()).unwrap_or(date)
}

/// `date` so many months later.
pub(crate) fn months(date: Date, months: i32) -> Date {
    date.checked_add(i64::from(months).months()).unwrap_or(date)
}

/// How many days lie between two dates.
pub(crate) fn days_between(first: Date, end: Date) -> i32 {
    first.until(end).map_or(0, |span| span.get_days())
}

/// The first moment of a day. Rollups know whole hours, so zones with half hours begin at the full
/// hour before.
pub(crate) fn midnight(date: Date, zone: &TimeZone) -> i64 {
    const HOUR_MS: i64 = 3_600_000;
    let start = date.to_zoned(zone.clone()).map(|at| at.timestamp());
    let ms = start.map_or(0, Timestamp::as_millisecond);
    ms.div_euclid(HOUR_MS) * HOUR_MS
}

/// When something was, for people, in a zone: `21 Nov 14:05`.
pub(crate) fn moment(at_ms: i64, zone: &TimeZone) -> String {
    let at = Timestamp::from_millisecond(at_ms).unwrap_or_default();
    at.to_zoned(zone.clone())
        .strftime("%-d %b %H:%M")
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(preset: &str) -> Period {
        // 21 November 2026, 14:00 in UTC.
        let zone = (TimeZone::UTC, "UTC".to_owned());
        Period::read(
            preset,
            (Some("2026-02-01"), Some("2026-02-03")),
            zone,
            4,
            1_795_269_600_000,
        )
    }

    #[test]
    fn presets_and_what_they_are_compared_with() {
        let dates = |preset: &str| {
            let period = read(preset);
            let (first, end) = period.before();
            format!("{}..{} {first}..{end}", period.first, period.end)
        };
        assert_eq!(
            dates("month"),
            "2026-11-01..2026-11-22 2026-10-01..2026-10-22"
        );
        assert_eq!(
            dates("last-month"),
            "2026-10-01..2026-11-01 2026-09-01..2026-10-01"
        );
        assert_eq!(dates("7d"), "2026-11-15..2026-11-22 2026-11-08..2026-11-15");
        assert_eq!(
            dates("quarter"),
            "2026-10-01..2026-11-22 2026-07-01..2026-08-22"
        );
        assert_eq!(
            dates("fiscal-quarter"),
            "2026-10-01..2026-11-22 2026-07-01..2026-08-22"
        );
        assert_eq!(
            dates("fiscal-year"),
            "2026-04-01..2026-11-22 2025-04-01..2025-11-22"
        );
        assert_eq!(
            dates("custom"),
            "2026-02-01..2026-02-04 2026-01-29..2026-02-01"
        );
        assert_eq!(read("month").title(), "1 \u{2013} 21 November 2026");
    }

    #[test]
    fn a_custom_period_that_is_not_the_one_asked_for_says_why() {
        let today = jiff::civil::date(2026, 11, 21);
        for (from, until, why) in [
            ("2026-11-01", "2026-11-21", ""),
            ("2026-11-01", "2026-11-01", ""),
            ("2026-11-22", "2026-11-01", "ends before"),
            ("0001-01-01", "9999-12-31", "no date of the years"),
            ("2026-11-31", "2026-12-01", "no date"),
            ("2020-01-01", "2026-11-01", "longer than 1,100 days"),
        ] {
            let told = amiss((Some(from), Some(until)), today).unwrap_or_default();
            assert_eq!(told.is_empty(), why.is_empty(), "{from} {until}: {told}");
            assert!(told.contains(why), "{from} {until}: {told}");
        }
        assert_eq!(amiss((None, None), today), None);
    }

    #[test]
    fn a_day_of_another_zone_begins_at_its_own_midnight() {
        let berlin = TimeZone::get("Europe/Berlin").expect("a zone");
        let zone = (berlin, "Europe/Berlin".to_owned());
        let period = Period::read(
            "custom",
            (Some("2026-10-25"), Some("2026-10-25")),
            zone,
            1,
            0,
        );
        let hours = (period.span.until_ms - period.span.from_ms) / 3_600_000;
        assert_eq!(hours, 25, "the day on which clocks go back");
        assert_eq!(period.grain(), Grain::Hour);
    }
}
