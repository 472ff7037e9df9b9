//! Cron patterns of five fields: minute, hour, day of the month, month, day of the week.

use jiff::civil::Date;

/// A pattern. Each field is a set of bits, bit `n` for the value `n`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cron {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    /// Sunday is 0.
    weekdays: u64,
    /// Both fields of days are narrowed: then a day that fits either one counts, as in every cron.
    either_day: bool,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseCronError {
    #[error("`{0}` has {1} fields; write five: minute hour day month weekday")]
    Fields(String, usize),
    #[error("`{part}` is no {field}; write numbers from {least} to {most}, ranges, lists or steps")]
    Part {
        field: &'static str,
        part: String,
        least: u8,
        most: u8,
    },
}

/// What one field may hold.
struct Field {
    name: &'static str,
    least: u8,
    most: u8,
    /// Names of values from `least` on.
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field {
        name: "minute",
        least: 0,
        most: 59,
        names: &[],
    },
    Field {
        name: "hour",
        least: 0,
        most: 23,
        names: &[],
    },
    Field {
        name: "day of the month",
        least: 1,
        most: 31,
        names: &[],
    },
    Field {
        name: "month",
        least: 1,
        most: 12,
        names: &[
            "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
        ],
    },
    Field {
        name: "day of the week",
        least: 0,
        most: 7,
        names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
    },
];

/// Words for the patterns that people write most.
const WORDS: [(&str, &str); 6] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

const EVERY_HOUR: u64 = (1 << 24) - 1;

impl Cron {
    /// Reads a pattern, or one of the words `@hourly` to `@yearly`.
    pub(super) fn parse(text: &str) -> Result<Self, ParseCronError> {
        let word = WORDS.iter().find(|(word, _)| *word == text.trim());
        let written = word.map_or(text, |(_, pattern)| pattern);
        let parts: Vec<&str> = written.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = parts.as_slice() else {
            let shown = text.chars().take(80).collect();
            return Err(ParseCronError::Fields(shown, parts.len()));
        };
        let [minute, hour, day, month, weekday] = &FIELDS;
        let week = weekday.read(weekdays)?;
        Ok(Self {
            minutes: minute.read(minutes)?,
            hours: hour.read(hours)?,
            days: day.read(days)?,
            months: month.read(months)?,
            // Seven is Sunday again.
            weekdays: (week | (week >> 7)) & 0x7f,
            either_day: !days.starts_with('*') && !weekdays.starts_with('*'),
        })
    }

    /// It comes in each hour, so it goes by elapsed time rather than by what clocks on walls show.
    pub(super) fn is_hourly(&self) -> bool {
        self.hours == EVERY_HOUR
    }

    pub(super) fn has_day(&self, date: Date) -> bool {
        let month = has(self.months, date.month());
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        let fits = if self.either_day {
            day || weekday
        } else {
            day && weekday
        };
        month && fits
    }

    /// Hours and minutes of a day, in order.
    pub(super) fn times(&self) -> impl Iterator<Item = (i8, i8)> {
        let hours = (0..24_i8).filter(|hour| has(self.hours, *hour));
        hours.flat_map(|hour| {
            let minutes = (0..60_i8).filter(|minute| has(self.minutes, *minute));
            minutes.map(move |minute| (hour, minute))
        })
    }
}

fn has(set: u64, value: i8) -> bool {
    u32::try_from(value).is_ok_and(|value| set >> value & 1 == 1)
}

impl Field {
    /// The values of a list of parts.
    fn read(&self, text: &str) -> Result<u64, ParseCronError> {
        text.split(',').try_fold(0, |set, part| {
            let values = self.part(part).ok_or_else(|| ParseCronError::Part {
                field: self.name,
                part: part.chars().take(80).collect(),
                least: self.least,
                most: self.most,
            })?;
            Ok(set | values)
        })
    }

    /// The values of `*`, `a`, `a-b`, each with or without `/step`.
    fn part(&self, part: &str) -> Option<u64> {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(number(step)?)),
            None => (part, None),
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (self.least, self.most),
            Some((first, last)) => (self.value(first)?, self.value(last)?),
            None => {
                let first = self.value(range)?;
                // A single value with a step goes on to the end of its field.
                (first, if step.is_some() { self.most } else { first })
            }
        };
        let step = step.unwrap_or(1);
        if first > last || step == 0 {
            return None;
        }
        let values = (first..=last).step_by(usize::from(step));
        Some(values.fold(0, |set, value| set | 1 << value))
    }

    fn value(&self, text: &str) -> Option<u8> {
        let named = self.names.iter().zip(self.least..);
        let mut named = named.filter(|(name, _)| name.eq_ignore_ascii_case(text));
        let value = named.next().map(|(_, value)| value);
        let value = value.or_else(|| number(text))?;
        (self.least..=self.most).contains(&value).then_some(value)
    }
}

/// Digits alone: a sign is no part of a pattern.
fn number(text: &str) -> Option<u8> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then_some(())?;
    text.parse().ok()
}
