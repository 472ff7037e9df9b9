//! Prices by the hour: windows of the day in which every token costs a multiple.

use crate::money::Ratio;

use super::document::ScheduleEntry;
use super::{ReadBookError, time};

const DAY_MS: i64 = 86_400_000;
const MINUTE_MS: i64 = 60_000;

/// When prices are multiplied, and by what. Decided by the moment a call completes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Schedule {
    pub(super) id: String,
    from_ms: Option<i64>,
    pub(super) multiplier: Ratio,
    /// Milliseconds since midnight UTC; the end is exclusive.
    windows: Vec<(i64, i64)>,
    /// Monday first.
    days: [bool; 7],
    /// Days since 1970 on which it does not hold.
    except: Vec<i64>,
}

impl Schedule {
    pub(super) fn read(entry: &ScheduleEntry) -> Result<Self, ReadBookError> {
        let wrong = |text: &str| ReadBookError::Time(entry.id.clone(), text.to_owned());
        let windows = entry
            .windows_utc
            .iter()
            .map(|text| window(text).ok_or_else(|| wrong(text)));
        let days = entry.days.as_deref().unwrap_or("daily");
        // Behind the days stands what people must know, for instance of holidays.
        let days = match days.split(' ').next().unwrap_or_default() {
            "mon-fri" => [true, true, true, true, true, false, false],
            "sat-sun" => [false, false, false, false, false, true, true],
            "daily" => [true; 7],
            _ => return Err(wrong(days)),
        };
        let mut except = Vec::with_capacity(entry.except.len());
        for day in &entry.except {
            let midnight = format!("{day}T00:00:00Z");
            let at = time(&entry.id, Some(&midnight))?.ok_or_else(|| wrong(day))?;
            except.push(at.div_euclid(DAY_MS));
        }
        Ok(Self {
            id: entry.id.clone(),
            from_ms: time(&entry.id, entry.from.as_deref())?,
            multiplier: Ratio::read(&entry.multiplier)
                .map_err(|error| ReadBookError::Amount(entry.id.clone(), error))?,
            windows: windows.collect::<Result<_, _>>()?,
            days,
            except,
        })
    }

    /// What a call that completes at `at_ms` (milliseconds since 1970) is multiplied by.
    pub(super) fn factor(&self, at_ms: i64) -> Ratio {
        let (day, clock) = (at_ms.div_euclid(DAY_MS), at_ms.rem_euclid(DAY_MS));
        // The first day of 1970 was a Thursday.
        let weekday = usize::try_from(day.saturating_add(3).rem_euclid(7)).unwrap_or(0);
        let holds = self.from_ms.is_none_or(|from| from <= at_ms)
            && self.days.get(weekday).copied().unwrap_or(false)
            && !self.except.contains(&day)
            && self
                .windows
                .iter()
                .any(|(from, to)| *from <= clock && clock < *to);
        if holds { self.multiplier } else { Ratio::ONE }
    }
}

/// A window such as `01:00-04:00`; `24:00` may end it.
fn window(text: &str) -> Option<(i64, i64)> {
    let minutes = |text: &str| {
        let (hour, minute) = text.split_once(':')?;
        let (hour, minute): (i64, i64) = (hour.parse().ok()?, minute.parse().ok()?);
        let sound = (0..=24).contains(&hour) && (0..60).contains(&minute);
        let minutes = hour.checked_mul(60)?.checked_add(minute)?;
        (sound && minutes <= 1_440).then_some(minutes)
    };
    let (from, to) = text.split_once('-')?;
    let (from, to) = (minutes(from)?, minutes(to)?);
    (from < to).then_some((from.checked_mul(MINUTE_MS)?, to.checked_mul(MINUTE_MS)?))
}
