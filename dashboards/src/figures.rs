//! Sums put together for pages: days of a zone from rollups, groups by size, measures by name.

use std::collections::BTreeMap;

use meter::finance::{Filter, Line, Sums, View};
use meter::ledger::Dimension;

use crate::ask::{self, view_word};
use crate::chart::{COLOURS, Series, Unit};
use crate::number;
use crate::period::{self, Day};
use crate::table::{Cell, named};

/// A number that can be read off sums.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measure {
    /// Its word in URLs and in names of sums.
    pub(crate) word: &'static str,
    pub(crate) title: &'static str,
    pub(crate) unit: Unit,
    pub(crate) read: fn(&Sums) -> i64,
}

const fn measure(
    word: &'static str,
    title: &'static str,
    unit: Unit,
    read: fn(&Sums) -> i64,
) -> Measure {
    Measure {
        word,
        title,
        unit,
        read,
    }
}

/// What Explore offers; the amounts come first.
pub(crate) const MEASURES: [Measure; 15] = [
    measure("cost", "Cost", Unit::Usd, |sums| sums.cost.0),
    measure("sell", "Sell", Unit::Usd, |sums| sums.sell.0),
    measure("margin", "Margin", Unit::Usd, |sums| {
        sums.amount(View::Margin).0
    }),
    measure("saved", "Saved against all deep", Unit::Usd, |sums| {
        sums.routed().0
    }),
    measure("calls", "Requests", Unit::Count, |sums| sums.calls),
    measure("failed", "Failed requests", Unit::Count, |sums| sums.failed),
    measure("prompt", "Prompt tokens", Unit::Count, |sums| {
        int(sums.usage.prompt())
    }),
    measure("input", "Uncached input tokens", Unit::Count, |sums| {
        int(sums.usage.input)
    }),
    measure("cache_read", "Cache-read tokens", Unit::Count, |sums| {
        int(sums.usage.cache_read)
    }),
    measure("cache_write", "Cache-write tokens", Unit::Count, |sums| {
        int(sums.usage.cache_write())
    }),
    measure("answer", "Answer tokens", Unit::Count, |sums| {
        int(sums.usage.answer())
    }),
    measure("output", "Visible output tokens", Unit::Count, |sums| {
        int(sums.usage.output)
    }),
    measure("reasoning", "Reasoning tokens", Unit::Count, |sums| {
        int(sums.usage.reasoning)
    }),
    measure("per1k", "Cost per 1,000 requests", Unit::Usd, |sums| {
        per_thousand(sums).unwrap_or(0)
    }),
    measure("hits", "Cache-hit share", Unit::Share, |sums| {
        hits(sums).unwrap_or(0)
    }),
];

impl Measure {
    /// The measure of this word.
    pub(crate) fn named(word: &str) -> Option<Self> {
        MEASURES.into_iter().find(|measure| measure.word == word)
    }

    /// The measure of a view.
    pub(crate) fn of(view: View) -> Self {
        let [cost, sell, margin, ..] = MEASURES;
        match view {
            View::Cost => cost,
            View::Sell => sell,
            View::Margin => margin,
        }
    }

    /// Whether its values may be added up.
    pub(crate) fn adds(&self) -> bool {
        !matches!(self.word, "per1k" | "hits")
    }

    /// The cell of these sums, which are those of `filter`.
    pub(crate) fn cell(&self, sums: &Sums, filter: &Filter) -> Cell {
        let value = (self.read)(sums);
        let name = || Some(ask::key(self.word, filter));
        match self.unit {
            Unit::Usd => Cell::Money(value, name()),
            Unit::Count => Cell::Count(value, name()),
            Unit::Share => Cell::Share(Some(value)),
        }
    }
}

/// A count as a signed number.
pub(crate) fn int(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// What a thousand requests cost.
pub(crate) fn per_thousand(sums: &Sums) -> Option<i64> {
    number::ratio(sums.cost.0, 1_000, sums.calls)
}

/// The share of prompt tokens that came from a cache.
pub(crate) fn hits(sums: &Sums) -> Option<i64> {
    number::permille(int(sums.usage.cache_read), int(sums.usage.prompt()))
}

/// The amount that a view looks at, as a cell.
pub(crate) fn amount(view: View, sums: &Sums, filter: &Filter) -> Cell {
    Cell::Money(sums.amount(view).0, Some(ask::key(view_word(view), filter)))
}

/// Sums of each day of each group.
#[derive(Debug, Default)]
pub(crate) struct Days {
    pub(crate) days: Vec<Day>,
    pub(crate) groups: BTreeMap<String, Vec<Sums>>,
}

impl Days {
    /// Puts together lines by time and at most one more dimension.
    pub(crate) fn new(days: Vec<Day>, lines: &[Line]) -> Self {
        let mut groups: BTreeMap<String, Vec<Sums>> = BTreeMap::new();
        for line in lines {
            let Some(place) = period::place(&days, line.at_ms) else {
                continue;
            };
            let name = line.group.first().cloned().unwrap_or_default();
            let group = groups
                .entry(name)
                .or_insert_with(|| vec![Sums::default(); days.len()]);
            if let Some(sums) = group.get_mut(place) {
                sums.add(&line.sums);
            }
        }
        Self { days, groups }
    }

    /// Which of the days lie between two dates.
    pub(crate) fn range(
        &self,
        first: jiff::civil::Date,
        end: jiff::civil::Date,
    ) -> std::ops::Range<usize> {
        let at = |date| self.days.partition_point(|day| day.date < date);
        at(first)..at(end).max(at(first))
    }

    /// Sums of each day over all groups.
    pub(crate) fn totals(&self) -> Vec<Sums> {
        let mut totals = vec![Sums::default(); self.days.len()];
        for group in self.groups.values() {
            for (total, sums) in totals.iter_mut().zip(group) {
                total.add(sums);
            }
        }
        totals
    }

    /// Each group's sums over some of the days.
    pub(crate) fn over(&self, range: &std::ops::Range<usize>) -> BTreeMap<&str, Sums> {
        self.groups
            .iter()
            .map(|(name, days)| {
                (
                    name.as_str(),
                    total(days.get(range.clone()).unwrap_or_default()),
                )
            })
            .collect()
    }

    /// The largest groups as series of a measure over some of the days; the rest as one.
    pub(crate) fn series(
        &self,
        range: &std::ops::Range<usize>,
        measure: Measure,
        dimension: Dimension,
    ) -> Vec<Series> {
        let weight = |days: &Vec<Sums>| {
            let sums = total(days.get(range.clone()).unwrap_or_default());
            let value = (measure.read)(&sums);
            (value.saturating_abs(), sums.calls)
        };
        let mut order: Vec<(&String, &Vec<Sums>)> = self.groups.iter().collect();
        order.retain(|(_, days)| weight(days) != (0, 0));
        order.sort_by_key(|(name, days)| (std::cmp::Reverse(weight(days)), name.as_str()));
        let shown = if order.len() > COLOURS {
            COLOURS - 1
        } else {
            COLOURS
        };
        let read = |days: &[Sums]| -> Vec<i64> {
            let days = days.get(range.clone()).unwrap_or_default();
            days.iter().map(measure.read).collect()
        };
        let mut series: Vec<Series> = order
            .iter()
            .take(shown)
            .map(|(name, days)| Series {
                name: named(name).to_owned(),
                of: Some(ask::part(dimension, name)),
                values: read(days),
            })
            .collect();
        let mut rest = vec![Sums::default(); self.days.len()];
        for (_, days) in order.iter().skip(shown) {
            for (sum, day) in rest.iter_mut().zip(*days) {
                sum.add(day);
            }
        }
        if order.len() > shown {
            series.push(Series {
                name: format!("Other ({})", order.len() - shown),
                of: None,
                values: read(&rest),
            });
        }
        series
    }

    /// The days as places of a chart.
    pub(crate) fn places(&self, range: &std::ops::Range<usize>) -> Vec<(String, String)> {
        let days = self.days.get(range.clone()).unwrap_or_default();
        days.iter()
            .map(|day| {
                let of = format!("from={}&until={}", day.span.from_ms, day.span.until_ms);
                (day.date.strftime("%-d %b").to_string(), of)
            })
            .collect()
    }
}

/// The parts of a filter's name that say nothing of time, for charts over time.
pub(crate) fn timeless(filter: &Filter) -> String {
    let text = ask::of(filter);
    let names = text.split('&').skip(2);
    names.collect::<Vec<_>>().join("&")
}

/// The sum of sums.
pub(crate) fn total<'a>(all: impl IntoIterator<Item = &'a Sums>) -> Sums {
    let mut total = Sums::default();
    for sums in all {
        total.add(sums);
    }
    total
}
