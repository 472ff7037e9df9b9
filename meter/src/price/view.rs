//! The book as people look at it: offers and their periods with figures as decimal text.

use serde::Serialize;
use std::sync::Arc;

use crate::money::{PicoPerUnit, PicoSum, Ratio};

use super::build::{Offer, Span, State};
use super::diff::{self, Finding};
use super::rates::{Classes, Rates};
use super::{PriceBook, moment};

/// An offer, for a page of prices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OfferView {
    pub id: String,
    pub provider: String,
    /// `agree`, `agree_at_peak`, `one_source` or `differ`; empty where it is one's own.
    pub check: String,
    /// What the sources say where they differ, for instance `input: litellm 1.5, used 2`.
    pub conflict: Vec<String>,
    /// The day from which the provider no longer serves it.
    pub retired_on: Option<String>,
    pub max_input: Option<u64>,
    pub max_output: Option<u64>,
    pub search: Option<SearchFee>,
    /// Fees of the provider that no usage record counts: they are not rated.
    pub unrated: Vec<String>,
    pub periods: Vec<PeriodView>,
}

/// One lane and length of prompt of an offer, from one moment to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PeriodView {
    /// The price id, as rows of the ledger keep it.
    pub price: Arc<str>,
    pub lane: String,
    /// Milliseconds since 1970; `None` where it has no known beginning.
    pub from_ms: Option<i64>,
    /// Exclusive; `None` while it is in force.
    pub until_ms: Option<i64>,
    /// The prompt length, in tokens, above which it holds; 0 for the ordinary one.
    pub above_input_tokens: u64,
    pub classes: Vec<ClassPrice>,
    /// `sure`, `conflict` or `zero`: only sure prices are billed on.
    pub state: &'static str,
    /// The name of the schedule that multiplies it at some hours.
    pub schedule: Option<String>,
    /// Regions with a price of their own.
    pub regions: Vec<String>,
    pub source: Option<String>,
    pub why: Option<String>,
    /// It comes from a `[[price]]`.
    pub is_own: bool,
}

/// A class with its price: decimal USD for a million tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClassPrice {
    pub class: &'static str,
    /// Before our discount.
    pub list: String,
    /// After it.
    pub price: String,
}

/// What a search by the provider costs. Each is rated at the listed fee.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SearchFee {
    #[serde(skip)]
    pub price: PicoPerUnit,
    /// The provider lists fees by the size of the answer; the dearest is taken.
    pub is_dearest_of_table: bool,
    /// Free searches that the provider lists, as JSON: shared by many, so never counted on.
    pub unused_allowance: Option<String>,
}

/// What a page of prices shows of a book.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    pub version: String,
    /// When its prices were looked up, in milliseconds since 1970, and how many whole days ago.
    pub as_of_ms: Option<i64>,
    pub age_days: Option<i64>,
    /// How many offers it has.
    pub offers: usize,
    pub models: Vec<ModelView>,
    pub findings: Vec<Finding>,
}

/// A configured model with the offer that prices it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelView {
    pub model: String,
    /// The id of the offer that is configured, if one is.
    pub price: Option<String>,
    /// What the book knows of it.
    pub offer: Option<OfferView>,
}

impl PeriodView {
    /// Whether it begins after `now_ms`.
    pub fn is_upcoming(&self, now_ms: i64) -> bool {
        self.from_ms.is_some_and(|from| from > now_ms)
    }

    /// Whether it is in force at `at_ms`.
    pub fn holds_at(&self, at_ms: i64) -> bool {
        self.from_ms.is_none_or(|from| from <= at_ms)
            && self.until_ms.is_none_or(|until| at_ms < until)
    }

    /// When it begins and ends, as text; empty where there is no such moment.
    pub fn times(&self) -> (String, String) {
        let text = |at: Option<i64>| at.map(moment).unwrap_or_default();
        (text(self.from_ms), text(self.until_ms))
    }
}

impl PriceBook {
    /// What is to be shown of it at `now_ms`; `models` are those configured, each with its offer.
    pub fn listing(&self, models: &[(String, Option<String>)], now_ms: i64) -> Listing {
        let age = |at: i64| now_ms.saturating_sub(at).div_euclid(86_400_000);
        let model = |(model, price): &(String, Option<String>)| ModelView {
            model: model.clone(),
            price: price.clone(),
            offer: price.as_deref().and_then(|id| self.offer(id)),
        };
        Listing {
            version: self.version.clone(),
            as_of_ms: self.as_of_ms,
            age_days: self.as_of_ms.map(age),
            offers: self.len(),
            models: models.iter().map(model).collect(),
            findings: diff::check(self, models, now_ms),
        }
    }

    /// Every offer with its periods, by id.
    pub fn offers(&self) -> Vec<OfferView> {
        let mut ids: Vec<&String> = self.offers.keys().collect();
        ids.sort();
        ids.into_iter().filter_map(|id| self.offer(id)).collect()
    }

    /// One offer with its periods.
    pub fn offer(&self, id: &str) -> Option<OfferView> {
        let offer = self.offers.get(id)?;
        let conflict = offer.conflict.iter().map(|(class, figures)| {
            let figures: Vec<String> = figures
                .iter()
                .map(|(source, figure)| format!("{source} {figure}"))
                .collect();
            format!("{class}: {}", figures.join(", "))
        });
        Some(OfferView {
            id: id.to_owned(),
            provider: offer.provider.clone(),
            check: offer.check.clone(),
            conflict: conflict.collect(),
            retired_on: offer.retired_on.clone(),
            max_input: offer.max_input,
            max_output: offer.max_output,
            search: offer.search.clone(),
            unrated: offer.unrated.clone(),
            periods: periods(offer),
        })
    }

    /// The periods of offer `id`, by lane and time, each length of prompt for itself; none where there
    /// is no such offer.
    pub fn periods(&self, id: &str) -> Vec<PeriodView> {
        self.offers.get(id).map(periods).unwrap_or_default()
    }
}

fn periods(offer: &Offer) -> Vec<PeriodView> {
    let mut spans: Vec<&Span> = offer.spans.iter().collect();
    spans.sort_by_key(|span| (&span.lane, span.from_ms));
    let of = |span: &Span| {
        let base = std::iter::once((0, span.rates.base));
        let steps = base.chain(span.rates.tiers.iter().copied());
        let views = steps.map(|(above, classes)| period(span, above, &classes));
        views.collect::<Vec<_>>()
    };
    spans.into_iter().flat_map(of).collect()
}

fn period(span: &Span, above_input_tokens: u64, classes: &Classes) -> PeriodView {
    let Rates {
        id,
        region,
        discount,
        schedule,
        ..
    } = &*span.rates;
    let priced = |price: PicoPerUnit, factor: Ratio| {
        let mut sum = PicoSum::default();
        sum.add(1, price);
        sum.times(factor).pico().to_per_million()
    };
    let classes = classes
        .named()
        .into_iter()
        .map(|(class, price)| ClassPrice {
            class,
            list: priced(price, *region),
            price: priced(price, region.times(*discount)),
        });
    PeriodView {
        price: Arc::clone(id),
        lane: span.lane.clone(),
        from_ms: (span.from_ms != i64::MIN).then_some(span.from_ms),
        until_ms: (span.until_ms != i64::MAX).then_some(span.until_ms),
        above_input_tokens,
        classes: classes.collect(),
        state: match span.state {
            State::Sure => "sure",
            State::Conflict => "conflict",
            State::Zero => "zero",
        },
        schedule: schedule.as_ref().map(|schedule| schedule.id.clone()),
        regions: span.regions.iter().map(|(name, _)| name.clone()).collect(),
        source: span.source.clone(),
        why: span.why.clone(),
        is_own: span.is_own,
    }
}
