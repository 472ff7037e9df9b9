//! When a brief is to be begun again: cron patterns in time zones, jitter, and what becomes of times
//! that were missed. Pure: whoever asks brings the time.

mod cron;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use jiff::{Timestamp, ToSpan};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::Digest;
use cron::Cron;
pub use cron::ParseCronError;

/// A brief that is begun again and again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    pub id: String,
    /// Minute, hour, day of the month, month, day of the week; or `@daily` and the like.
    pub cron: String,
    /// An IANA name such as `Europe/Berlin`.
    #[serde(default = "Schedule::utc")]
    pub zone: String,
    /// Begins up to so many seconds later, so that not everything begins at once; never as late as the
    /// next time.
    #[serde(default)]
    pub jitter_s: u32,
    pub brief: Value,
    #[serde(default)]
    pub missed: Missed,
    #[serde(default)]
    pub overlap: Overlap,
    /// The most that its tasks may cost in a period together, in decimal USD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spend_per_period_usd: Option<String>,
    #[serde(default)]
    pub period: Period,
    /// So many failures behind one another disable it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_after_failures: Option<u32>,
    #[serde(default = "Schedule::yes")]
    pub enabled: bool,
    /// The last due time that was acted on, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_due_ms: Option<i64>,
    /// Failures since the last success.
    #[serde(default)]
    pub failures: u32,
}

/// What becomes of times at which nobody was there to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// Nothing.
    Skip,
    /// One fire for all of them.
    #[default]
    Once,
    /// One for each of the latest `most`.
    All { most: u32 },
}

/// What happens when the task of the last fire has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// The new fire comes to nothing.
    #[default]
    Skip,
    /// The new task waits for the end of the last.
    Queue,
    /// The last task is cancelled.
    Replace,
}

/// Over which its spending is counted, in its own zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Period {
    Day,
    /// From Monday.
    Week,
    #[default]
    Month,
}

/// One time at which a schedule begins its brief.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fire {
    /// The same on every node: whoever keeps it first has it.
    pub id: Digest,
    /// As the pattern has it, in milliseconds since 1970.
    pub due_ms: i64,
    /// With jitter.
    pub at_ms: i64,
    /// It was missed and is made up for.
    pub late: bool,
}

/// Why a schedule can not be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckScheduleError {
    #[error("schedule: an id has 1 to {MOST_ID} letters, digits, `-` or `_`, which `{0}` has not")]
    Id(String),
    #[error("cron: {0}")]
    Cron(#[from] ParseCronError),
    #[error("cron: `{0}` never comes; no month has such a day")]
    Never(String),
    #[error("zone: `{0}` is not known; write an IANA name such as Europe/Berlin")]
    Zone(String),
    #[error("jitter_s: {0} is more than a day; write at most {MOST_JITTER_S}")]
    Jitter(u32),
    #[error("missed: `all` makes up for 1 to {MOST_MADE_UP} times, not for {0}")]
    Most(u32),
    #[error("spend_per_period_usd: `{0}` is no amount; write decimal USD such as \"5.00\"")]
    Spend(String),
    #[error("pause_after_failures: 0 would never let it run; leave it out or write 1 or more")]
    Failures,
    #[error("brief: it is no JSON object with an objective")]
    Brief,
}

const MOST_ID: usize = 64;
const MOST_JITTER_S: u32 = 86_400;
/// More tasks at once than this are a flood, not a catching up.
const MOST_MADE_UP: u32 = 100;
/// A time that is longer past was missed: nodes look every few seconds, and no pattern is finer than a
/// minute.
const LATE_MS: i64 = 60_000;
/// What one question for due times gives at most.
const MOST_DUE: usize = 1_000;
/// The 29th of February is eight years away from the next where a century is no leap year, and on a
/// given weekday up to forty.
const FAR_DAYS: u32 = 41 * 366;
const DAY_MS: i64 = 86_400_000;

impl Schedule {
    fn utc() -> String {
        "UTC".to_owned()
    }

    fn yes() -> bool {
        true
    }

    /// Holds that it can be followed.
    pub fn check(&self) -> Result<(), CheckScheduleError> {
        let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
        if self.id.is_empty() || self.id.len() > MOST_ID || !self.id.chars().all(plain) {
            let shown = self.id.chars().take(80).collect();
            return Err(CheckScheduleError::Id(shown));
        }
        Cron::parse(&self.cron)?;
        if TimeZone::get(&self.zone).is_err() {
            return Err(CheckScheduleError::Zone(self.zone.clone()));
        }
        if next(self, 0).is_none() {
            return Err(CheckScheduleError::Never(self.cron.clone()));
        }
        if self.jitter_s > MOST_JITTER_S {
            return Err(CheckScheduleError::Jitter(self.jitter_s));
        }
        if let Missed::All { most } = self.missed
            && !(1..=MOST_MADE_UP).contains(&most)
        {
            return Err(CheckScheduleError::Most(most));
        }
        if let Some(amount) = &self.spend_per_period_usd
            && !is_amount(amount)
        {
            return Err(CheckScheduleError::Spend(amount.clone()));
        }
        if self.pause_after_failures == Some(0) {
            return Err(CheckScheduleError::Failures);
        }
        let objective = self.brief.get("objective").and_then(Value::as_str);
        if objective.is_none_or(str::is_empty) {
            return Err(CheckScheduleError::Brief);
        }
        Ok(())
    }

    /// Notes how a task of it ended. True when that was one failure too many and it is disabled now.
    pub fn ended(&mut self, succeeded: bool) -> bool {
        if succeeded {
            self.failures = 0;
            return false;
        }
        self.failures = self.failures.saturating_add(1);
        let too_many = self
            .pause_after_failures
            .is_some_and(|most| self.failures >= most);
        let pauses = too_many && self.enabled;
        self.enabled = self.enabled && !too_many;
        pauses
    }

    /// When the period began that `at_ms` is in, in milliseconds since 1970. `None` where its zone is
    /// unknown.
    pub fn period_start_ms(&self, at_ms: i64) -> Option<i64> {
        let zone = TimeZone::get(&self.zone).ok()?;
        let today = Timestamp::from_millisecond(at_ms).ok()?;
        let today = zone.to_datetime(today).date();
        let first = match self.period {
            Period::Day => today,
            Period::Week => {
                let behind = today.weekday().to_monday_zero_offset();
                today.checked_sub(i64::from(behind).days()).ok()?
            }
            Period::Month => today.first_of_month(),
        };
        let start = first.to_zoned(zone).ok()?;
        Some(start.timestamp().as_millisecond())
    }

    /// Due times behind `after_ms`, each once and in order.
    fn times(&self, after_ms: i64) -> Option<Times> {
        let zone = TimeZone::get(&self.zone).ok()?;
        let after = Timestamp::from_millisecond(after_ms).ok()?;
        let today = zone.to_datetime(after).date();
        Some(Times {
            cron: Cron::parse(&self.cron).ok()?,
            // Where a zone left out a whole day, its times come at the beginning of the next.
            date: today.yesterday().ok(),
            zone,
            after_ms,
            ready: VecDeque::new(),
        })
    }

    /// The fire of a due time, before which `next_ms` is the one behind it.
    fn fire(&self, due_ms: i64, next_ms: Option<i64>) -> Fire {
        let id = fire_id(&self.id, due_ms);
        let most = i64::from(self.jitter_s) * 1_000;
        let room = next_ms.map_or(most, |next| (next - due_ms - 1).min(most));
        let lot = id.bytes().first_chunk().copied().unwrap_or_default();
        let lot = u64::from_be_bytes(lot);
        let width = u64::try_from(room).unwrap_or(0).saturating_add(1);
        let jitter_ms = i64::try_from(lot % width).unwrap_or(0);
        Fire {
            id,
            due_ms,
            at_ms: due_ms + jitter_ms,
            late: false,
        }
    }
}

/// Decimal USD with at most nine digits behind the point.
fn is_amount(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    digits(whole) && whole.len() <= 9 && digits(part) && part.len() <= 9
}

/// The name of a fire: of one schedule and one due time.
pub fn fire_id(schedule: &str, due_ms: i64) -> Digest {
    Digest::of_parts(&[b"fire", schedule.as_bytes(), &due_ms.to_be_bytes()])
}

/// The first due time behind `after_ms`, without jitter. `None` where the schedule can not be followed.
pub fn next(schedule: &Schedule, after_ms: i64) -> Option<i64> {
    schedule.times(after_ms)?.next()
}

/// Due times behind `after_ms` and up to `until_ms`, without jitter: the first thousand.
///
/// A wall-clock time that a zone leaves out comes at the next moment there is, once; one that a zone has
/// twice comes at the first. A pattern that comes in every hour goes by elapsed time instead: nothing is
/// made up for, and the hour that comes twice has its times twice.
pub fn due(schedule: &Schedule, after_ms: i64, until_ms: i64) -> Vec<i64> {
    let times = schedule.times(after_ms).into_iter().flatten();
    times
        .take_while(|time| *time <= until_ms)
        .take(MOST_DUE)
        .collect()
}

/// The first fire behind `after_ms`, with its jitter: when to look again.
pub fn upcoming(schedule: &Schedule, after_ms: i64) -> Option<Fire> {
    let mut times = schedule.times(after_ms)?;
    let first = times.next()?;
    Some(schedule.fire(first, times.next()))
}

/// What to begin at `now_ms`, where `last_ms` is the last due time that was acted on, in order. A
/// disabled schedule begins nothing. Who acts on it keeps the last `due_ms`; a fire that two nodes find
/// has one id.
pub fn fires(schedule: &Schedule, last_ms: i64, now_ms: i64) -> Vec<Fire> {
    if !schedule.enabled || now_ms <= last_ms {
        return Vec::new();
    }
    let wanted = match schedule.missed {
        Missed::Skip | Missed::Once => 1,
        Missed::All { most } => most.min(MOST_MADE_UP),
    };
    let mut found = latest(schedule, last_ms, now_ms, wanted);
    for fire in &mut found {
        fire.late = now_ms - fire.at_ms > LATE_MS;
    }
    let late = found.iter().filter(|fire| fire.late).count();
    let kept = match schedule.missed {
        Missed::Skip => found.len() - late,
        // What is on time makes up for what was missed.
        Missed::Once if late > 0 => 1,
        Missed::Once => found.len(),
        Missed::All { .. } => {
            found.len() - late + late.min(usize::try_from(wanted).unwrap_or(usize::MAX))
        }
    };
    found.split_off(found.len().saturating_sub(kept))
}

/// The latest fires whose time has come: all that are on time, and at least `wanted` of those before
/// them, if there are so many. Looks back a day, then two, then four, so that years of minutes cost no
/// more than a day of them.
fn latest(schedule: &Schedule, last_ms: i64, now_ms: i64, wanted: u32) -> Vec<Fire> {
    // At most two minutes begin in the time in which nothing is late.
    let wanted = usize::try_from(wanted)
        .unwrap_or(usize::MAX)
        .saturating_add(2);
    let mut back_ms = DAY_MS;
    loop {
        let from_ms = now_ms.saturating_sub(back_ms).max(last_ms);
        let found = begun(schedule, from_ms, now_ms);
        if from_ms == last_ms || found.len() >= wanted {
            return found;
        }
        back_ms = back_ms.saturating_mul(2);
    }
}

/// The fires of all due times behind `from_ms` whose time has come at `now_ms`.
fn begun(schedule: &Schedule, from_ms: i64, now_ms: i64) -> Vec<Fire> {
    let mut found = Vec::new();
    let mut times = schedule.times(from_ms).into_iter().flatten().peekable();
    while let Some(due_ms) = times.next().filter(|due| *due <= now_ms) {
        let fire = schedule.fire(due_ms, times.peek().copied());
        // Jitter never passes the next due time, so fires come in the order of their due times.
        if fire.at_ms > now_ms {
            break;
        }
        found.push(fire);
    }
    found
}

/// The due times of a pattern in a zone, day by day.
struct Times {
    cron: Cron,
    zone: TimeZone,
    /// The next day to look at.
    date: Option<Date>,
    /// The last time given out.
    after_ms: i64,
    /// Times of the days looked at.
    ready: VecDeque<i64>,
}

impl Iterator for Times {
    type Item = i64;

    fn next(&mut self) -> Option<i64> {
        for _ in 0..FAR_DAYS {
            while let Some(time) = self.ready.pop_front() {
                if time > self.after_ms {
                    self.after_ms = time;
                    return Some(time);
                }
            }
            let date = self.date?;
            self.date = date.tomorrow().ok();
            if self.cron.has_day(date) {
                self.ready = self.times_of(date).into();
            }
        }
        None
    }
}

impl Times {
    /// The times of one day, in order.
    fn times_of(&self, date: Date) -> Vec<i64> {
        if let Some(midnight_ms) = self.even(date) {
            let since = |(hour, minute)| i64::from(hour) * 3_600_000 + i64::from(minute) * 60_000;
            return self
                .cron
                .times()
                .map(|time| midnight_ms + since(time))
                .collect();
        }
        let times = self.cron.times();
        let times = times.map(|(hour, minute)| date.at(hour, minute, 0, 0));
        let mut found: Vec<i64> = times.flat_map(|time| self.moments(time)).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The midnight that begins a day on which no clock is changed; most are such.
    fn even(&self, date: Date) -> Option<i64> {
        let midnight = date.at(0, 0, 0, 0);
        let begins = self
            .zone
            .to_ambiguous_timestamp(midnight)
            .unambiguous()
            .ok()?;
        let begins_ms = begins.as_millisecond();
        let change = self.zone.following(begins).next();
        let even = change.is_none_or(|it| it.timestamp().as_millisecond() >= begins_ms + DAY_MS);
        // A change at this very midnight is none that follows it.
        let was = self
            .zone
            .to_offset(begins.checked_sub(1.nanoseconds()).ok()?);
        (even && was == self.zone.to_offset(begins)).then_some(begins_ms)
    }

    /// When a wall-clock time comes: never, once, or twice.
    fn moments(&self, time: DateTime) -> impl Iterator<Item = i64> {
        let ambiguous = self.zone.to_ambiguous_timestamp(time);
        let at = |offset: Offset| offset.to_timestamp(time).ok();
        let moments = match ambiguous.offset() {
            AmbiguousOffset::Unambiguous { offset } => [at(offset), None],
            AmbiguousOffset::Gap { .. } if self.cron.is_hourly() => [None, None],
            // Read by the offset behind the gap, it lies before the change.
            AmbiguousOffset::Gap { after, .. } => [at(after).and_then(|at| self.change(at)), None],
            AmbiguousOffset::Fold { before, after } if self.cron.is_hourly() => {
                [at(before), at(after)]
            }
            AmbiguousOffset::Fold { before, .. } => [at(before), None],
        };
        moments.into_iter().flatten().map(Timestamp::as_millisecond)
    }

    /// When the zone changes its offset next.
    fn change(&self, after: Timestamp) -> Option<Timestamp> {
        let mut changes = self.zone.following(after);
        changes.next().map(|change| change.timestamp())
    }
}
