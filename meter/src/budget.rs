//! Budgets: limits on the nodes of the tree tenant, team, project, key, in calendar windows.
//! The invariant: for a hard budget, settled + held <= limit at every instant.

use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde::{Deserialize, Serialize};

use crate::config::BudgetConfig;
use crate::ledger::Spent;
use crate::money::ParseMoneyError;
use crate::{NanoUsd, Subject};

/// A calendar window in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Window {
    Hour,
    Day,
    /// From Monday on.
    Week,
    Month,
    /// Never begins anew.
    Total,
}

impl Window {
    /// The start of the window that holds `now_ms`, and of the one after it (none after `Total`).
    /// Both in milliseconds since 1970.
    pub fn around(self, now_ms: i64) -> (i64, Option<i64>) {
        let bounds = || {
            let now = Timestamp::from_millisecond(now_ms)
                .ok()?
                .to_zoned(TimeZone::UTC)
                .datetime();
            let midnight = now.date().to_datetime(Time::midnight());
            let (start, next) = match self {
                Self::Hour => {
                    let start = midnight.checked_add(i64::from(now.hour()).hours()).ok()?;
                    (start, start.checked_add(1.hour()).ok()?)
                }
                Self::Day => (midnight, midnight.checked_add(1.day()).ok()?),
                Self::Week => {
                    let since = i64::from(now.date().weekday().to_monday_zero_offset());
                    let start = midnight.checked_sub(since.days()).ok()?;
                    (start, start.checked_add(7.days()).ok()?)
                }
                Self::Month => {
                    let start = now.date().first_of_month().to_datetime(Time::midnight());
                    (start, start.checked_add(1.month()).ok()?)
                }
                Self::Total => return None,
            };
            Some((utc_ms(start)?, Some(utc_ms(next)?)))
        };
        bounds().unwrap_or((0, None))
    }

    /// The word used in configuration and labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Total => "total",
        }
    }
}

fn utc_ms(at: DateTime) -> Option<i64> {
    TimeZone::UTC
        .to_timestamp(at)
        .ok()
        .map(Timestamp::as_millisecond)
}

/// One budget with its present state. Amounts count for the window that begins at `start_ms`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Budget {
    /// What it limits, for people: `tenant acme, team search, per month`.
    pub name: String,
    #[serde(skip)]
    scope: Scope,
    pub window: Window,
    pub hard: bool,
    pub limit: NanoUsd,
    pub start_ms: i64,
    /// When the next window begins; `None` for `total`.
    pub resets_at_ms: Option<i64>,
    pub settled: NanoUsd,
    pub held: NanoUsd,
    /// No longer configured: kept while holds point at it, checks nothing.
    #[serde(skip)]
    retired: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Scope {
    team: Option<String>,
    project: Option<String>,
    key: Option<String>,
}

impl Scope {
    fn covers(&self, team: &str, project: &str, key: &str) -> bool {
        let fits =
            |named: &Option<String>, given: &str| named.as_deref().is_none_or(|n| n == given);
        fits(&self.team, team) && fits(&self.project, project) && fits(&self.key, key)
    }
}

impl Budget {
    /// The budget of a configuration entry, with nothing spent.
    pub(crate) fn new(config: &BudgetConfig, now_ms: i64) -> Result<Self, ParseMoneyError> {
        let limit = NanoUsd::from_usd(&config.limit_usd)?;
        if limit < NanoUsd::ZERO {
            return Err(ParseMoneyError(config.limit_usd.clone()));
        }
        let mut name = format!("tenant {}", config.tenant);
        for (level, value) in [
            ("team", &config.team),
            ("project", &config.project),
            ("key", &config.key),
        ] {
            if let Some(value) = value {
                name = format!("{name}, {level} {value}");
            }
        }
        let every = if config.window == Window::Total {
            "in"
        } else {
            "per"
        };
        let (start_ms, resets_at_ms) = config.window.around(now_ms);
        Ok(Self {
            name: format!("{name}, {every} {}", config.window.as_str()),
            scope: Scope {
                team: config.team.clone(),
                project: config.project.clone(),
                key: config.key.clone(),
            },
            window: config.window,
            hard: config.hard,
            limit,
            start_ms,
            resets_at_ms,
            settled: NanoUsd::ZERO,
            held: NanoUsd::ZERO,
            retired: false,
        })
    }

    /// Whether a call of `subject` counts against it. Its tenant has matched before.
    pub(crate) fn covers(&self, subject: &Subject) -> bool {
        let Subject {
            team, project, key, ..
        } = subject;
        !self.retired && self.scope.covers(team, project, key)
    }

    /// Whether it is the same node and window as `other`, whatever the limits.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.scope == other.scope && self.window == other.window
    }

    /// Takes the limit of a new configuration; what is settled and held stays.
    pub(crate) fn adopt(&mut self, config: Option<&Self>) {
        if let Some(config) = config {
            (self.limit, self.hard) = (config.limit, config.hard);
            // While it was retired it saw no call; the ledger did.
            if self.retired {
                self.settled = config.settled;
            }
        }
        self.retired = config.is_none();
    }

    /// Moves on to the window of `now_ms`. A clock that runs backwards changes nothing.
    pub(crate) fn roll(&mut self, now_ms: i64) {
        if self.resets_at_ms.is_some_and(|reset| now_ms >= reset) {
            (self.start_ms, self.resets_at_ms) = self.window.around(now_ms);
            (self.settled, self.held) = (NanoUsd::ZERO, NanoUsd::ZERO);
        }
    }

    /// What may still be held: the limit less all that is settled and held.
    pub fn left(&self) -> NanoUsd {
        (self.limit - self.settled - self.held).max(NanoUsd::ZERO)
    }

    /// Sets what the ledger says was settled in this window.
    pub(crate) fn load(&mut self, spent: &[Spent], tenant: &str) {
        self.settled = spent
            .iter()
            .filter(|row| {
                &*row.tenant == tenant && self.scope.covers(&row.team, &row.project, &row.key)
            })
            .map(|row| row.cost)
            .sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> i64 {
        text.parse::<Timestamp>().expect("a time").as_millisecond()
    }

    #[test]
    fn windows_follow_the_utc_calendar() {
        let now = ms("2028-02-29T23:59:59.999Z");
        for (window, start, next) in [
            (Window::Hour, "2028-02-29T23:00:00Z", "2028-03-01T00:00:00Z"),
            (Window::Day, "2028-02-29T00:00:00Z", "2028-03-01T00:00:00Z"),
            (Window::Week, "2028-02-28T00:00:00Z", "2028-03-06T00:00:00Z"),
            (
                Window::Month,
                "2028-02-01T00:00:00Z",
                "2028-03-01T00:00:00Z",
            ),
        ] {
            assert_eq!(
                window.around(now),
                (ms(start), Some(ms(next))),
                "{window:?}"
            );
            assert_eq!(
                window.around(ms(start)).0,
                ms(start),
                "a window begins inside itself"
            );
        }
        assert_eq!(Window::Total.around(now), (0, None));
    }
}
