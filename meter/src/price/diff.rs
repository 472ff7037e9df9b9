//! What changed between two books, and what that would have done to recorded usage.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use wire::Usage;

use super::{PeriodView, PriceBook, STANDARD, Unpriced, moment};
use crate::money::NanoUsd;

/// A price that differs between two books.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The offer.
    pub id: String,
    /// Lane, length of prompt and the moment of the change, for instance `flex, above 272000, from 2026-12-01T00:00:00Z`.
    pub place: String,
    /// The class, or `state` where the price is not sure.
    pub what: String,
    /// Empty where it was not there.
    pub old: String,
    /// Empty where it is no longer there.
    pub new: String,
}

/// Every price that differs, by offer, lane and time: at each moment at which one of the books changes,
/// what was in force by the old one and what is by the new one.
pub fn diff(old: &PriceBook, new: &PriceBook) -> Vec<Change> {
    let mut ids: Vec<&str> = old.ids().chain(new.ids()).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut changes = Vec::new();
    for id in ids {
        let (before, after) = (old.periods(id), new.periods(id));
        if before == after {
            continue;
        }
        let all = || before.iter().chain(&after);
        let lanes: BTreeSet<&str> = all().map(|period| period.lane.as_str()).collect();
        let moments: BTreeSet<i64> = all()
            .flat_map(|period| [Some(period.from_ms.unwrap_or(i64::MIN)), period.until_ms])
            .flatten()
            .collect();
        for lane in lanes {
            let mut told = BTreeMap::new();
            for at_ms in &moments {
                let both = [&before, &after].map(|periods| in_force(periods, lane, *at_ms));
                let now = differences(&both);
                let news = now
                    .iter()
                    .filter(|(place, pair)| told.get(*place) != Some(*pair));
                changes.extend(news.map(|(place, pair)| change(id, lane, *at_ms, place, pair)));
                told = now;
            }
        }
    }
    changes
}

/// The length of prompt above which a figure holds, and what it is of.
type Place = (u64, String);
type Figures = BTreeMap<Place, String>;

/// The figures of a lane at a moment.
fn in_force(periods: &[PeriodView], lane: &str, at_ms: i64) -> Figures {
    let mut figures = Figures::new();
    let holds = |period: &&PeriodView| period.lane == lane && period.holds_at(at_ms);
    for period in periods.iter().filter(holds) {
        let above = period.above_input_tokens;
        for class in &period.classes {
            figures.insert((above, class.class.to_owned()), class.price.clone());
        }
        if period.state != "sure" {
            figures.insert((above, "state".to_owned()), period.state.to_owned());
        }
    }
    figures
}

/// The figures that differ, each as old and new; empty where there is none.
fn differences([old, new]: &[Figures; 2]) -> BTreeMap<Place, (String, String)> {
    let places: BTreeSet<&Place> = old.keys().chain(new.keys()).collect();
    let pair = |place: &Place| {
        let of = |figures: &Figures| figures.get(place).cloned().unwrap_or_default();
        (of(old), of(new))
    };
    let pairs = places.into_iter().map(|place| (place.clone(), pair(place)));
    pairs.filter(|(_, (old, new))| old != new).collect()
}

fn change(id: &str, lane: &str, at_ms: i64, place: &Place, pair: &(String, String)) -> Change {
    let (above, what) = place;
    let length = match above {
        0 => String::new(),
        above => format!(", above {above}"),
    };
    let from = match at_ms {
        i64::MIN => "the beginning".to_owned(),
        at_ms => moment(at_ms),
    };
    Change {
        id: id.to_owned(),
        place: format!("{lane}{length}, from {from}"),
        what: what.clone(),
        old: pair.0.clone(),
        new: pair.1.clone(),
    }
}

/// Usage as the ledger sums it: of one price (or, where a row has none, one model) on one day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayRow {
    /// The configured model.
    pub model: String,
    /// The offer that the model is priced by, or a price id; what stands behind `@` is passed over.
    pub price: String,
    /// The service lane; the standard one where it is not known.
    pub lane: String,
    /// Milliseconds since 1970: any moment of the day.
    pub day_ms: i64,
    pub usage: Usage,
    /// What the ledger says it cost.
    pub cost: NanoUsd,
}

/// What a model's usage costs by each book.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Replayed {
    pub model: String,
    /// What the ledger says.
    pub recorded: NanoUsd,
    pub old: NanoUsd,
    pub new: NanoUsd,
    /// Why some of its usage has no price in the new book; empty where all of it has.
    pub unpriced: String,
}

impl Replayed {
    /// What the new book adds; below zero where it is cheaper.
    pub fn delta(&self) -> NanoUsd {
        self.new - self.old
    }
}

/// Rates `rows` by both books, summed by model. Sums of a day do not tell how long each prompt was or at
/// which hour it came, so all is rated at the ordinary length, outside the hours of schedules: look at
/// the difference, not at the amounts. What a book has no price for counts as nothing.
pub fn replay(rows: &[ReplayRow], old: &PriceBook, new: &PriceBook) -> Vec<Replayed> {
    let mut by_model: BTreeMap<&str, Replayed> = BTreeMap::new();
    for row in rows {
        let sum = by_model.entry(&row.model).or_insert_with(|| Replayed {
            model: row.model.clone(),
            ..Replayed::default()
        });
        sum.recorded += row.cost;
        sum.old += rated(row, old).unwrap_or_default();
        match rated(row, new) {
            Ok(cost) => sum.new += cost,
            Err(unpriced) => unpriced.as_str().clone_into(&mut sum.unpriced),
        }
    }
    by_model.into_values().collect()
}

fn rated(row: &ReplayRow, book: &PriceBook) -> Result<NanoUsd, Unpriced> {
    let offer = row.price.split('@').next().unwrap_or_default();
    let lane = if row.lane.is_empty() {
        STANDARD
    } else {
        &row.lane
    };
    let rates = book.rates(offer, lane, row.day_ms)?;
    Ok(rates.ordinary().cost(&row.usage))
}

/// What is wrong with a book, or will be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub id: String,
    pub kind: FindingKind,
    pub what: String,
}

/// How a finding is dealt with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// A configured model has no price now.
    Unpriced,
    /// A configured model will have none soon.
    Ends,
    /// The provider will stop serving it soon, or has.
    Retires,
    /// Sources differ.
    Conflict,
    /// A price of zero that nobody confirmed.
    Zero,
    /// A price that will change.
    Upcoming,
}

impl FindingKind {
    /// The word used in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unpriced => "unpriced",
            Self::Ends => "ends",
            Self::Retires => "retires",
            Self::Conflict => "conflict",
            Self::Zero => "zero",
            Self::Upcoming => "upcoming",
        }
    }
}

const DAY_MS: i64 = 86_400_000;
/// How long before its end a price is spoken of.
const ENDS_MS: i64 = 30 * DAY_MS;
/// And a model.
const RETIRES_MS: i64 = 90 * DAY_MS;

/// Everything to know about `book` at `now_ms`; `models` are those configured, each with the offer that
/// it is priced by, if any.
pub fn check(book: &PriceBook, models: &[(String, Option<String>)], now_ms: i64) -> Vec<Finding> {
    let mut found = Vec::new();
    for (model, price) in models {
        let Some(price) = price else {
            found.push(finding(
                model,
                FindingKind::Unpriced,
                "it names no price".to_owned(),
            ));
            continue;
        };
        let at = |at_ms| book.rates(price, STANDARD, at_ms);
        match (at(now_ms), at(now_ms.saturating_add(ENDS_MS))) {
            (Err(unpriced), _) => {
                found.push(finding(model, FindingKind::Unpriced, unpriced.to_string()));
            }
            (Ok(_), Err(unpriced)) => {
                let what = format!("within 30 days: {unpriced}");
                found.push(finding(model, FindingKind::Ends, what));
            }
            _ => {}
        }
    }
    for offer in book.offers() {
        let names: Vec<&str> = models
            .iter()
            .filter(|(_, price)| price.as_ref() == Some(&offer.id))
            .map(|(model, _)| model.as_str())
            .collect();
        if let Some(day) = offer
            .retired_on
            .as_deref()
            .filter(|day| retires_soon(day, now_ms, &names))
        {
            let what = format!(
                "the provider stops serving it on {day}; models: {}",
                names.join(" ")
            );
            found.push(finding(&offer.id, FindingKind::Retires, what));
        }
        let some = |state| offer.periods.iter().any(|period| period.state == state);
        if some("conflict") {
            let what = offer.conflict.join("; ");
            found.push(finding(&offer.id, FindingKind::Conflict, what));
        }
        found.extend(
            offer
                .periods
                .iter()
                .filter_map(|period| told(&offer.id, period, now_ms)),
        );
    }
    found.sort_by(|a, b| (a.kind, &a.id).cmp(&(b.kind, &b.id)));
    found
}

fn finding(id: &str, kind: FindingKind, what: String) -> Finding {
    Finding {
        id: id.to_owned(),
        kind,
        what,
    }
}

/// Whether an offer stops within 90 days. One that has stopped matters only to models that name it.
fn retires_soon(day: &str, now_ms: i64, models: &[&str]) -> bool {
    let midnight = format!("{day}T00:00:00Z");
    let at = midnight.parse().map(jiff::Timestamp::as_millisecond);
    at.is_ok_and(|at: i64| {
        at <= now_ms.saturating_add(RETIRES_MS) && (at > now_ms || !models.is_empty())
    })
}

/// A zero, or a price that is yet to come.
fn told(id: &str, period: &PeriodView, now_ms: i64) -> Option<Finding> {
    let (from, until) = period.times();
    let place = format!("{} from {from} until {until}", period.lane);
    if period.state == "zero" && period.above_input_tokens == 0 {
        return Some(finding(id, FindingKind::Zero, place));
    }
    let changes = period.is_upcoming(now_ms) && period.above_input_tokens == 0;
    changes.then(|| {
        let figures: Vec<String> = period
            .classes
            .iter()
            .take(2)
            .map(|class| format!("{} {}", class.class, class.price))
            .collect();
        finding(
            id,
            FindingKind::Upcoming,
            format!("{place}: {}", figures.join(", ")),
        )
    })
}
