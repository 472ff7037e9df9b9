//! The price book: dated prices by offer, lane, region and long-context tier. Which prices rate a call
//! is decided when its hold is made; the hours of a schedule are looked at when it completes.

mod build;
pub mod diff;
pub mod document;
pub mod import;
mod overrides;
mod rates;
mod schedule;
mod view;

use std::sync::Arc;

use crate::Map;
use crate::config::OnConflict;
use crate::money::ParseMoneyError;

use build::{Offer, Span, State};

pub use document::Document;
pub use overrides::FixedCost;
pub use rates::{Line, Rated, Rates};
pub use view::{ClassPrice, Listing, ModelView, OfferView, PeriodView, SearchFee};

/// The ordinary service tier.
pub const STANDARD: &str = "standard";

/// Prices by offer, for instance `openai/gpt-5-mini`.
#[derive(Debug, Default)]
pub struct PriceBook {
    offers: Map<String, Offer>,
    /// Every price there ever was in this book, the overridden ones too: old rows keep their names.
    by_id: Map<Arc<str>, Arc<Rates>>,
    fixed: Vec<FixedCost>,
    version: String,
    as_of_ms: Option<i64>,
}

/// Why a call has no price.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unpriced {
    #[error("price `{0}` is not in the price book; add a [[price]] with this id")]
    Unknown(String),
    #[error("price `{0}` has no period in force at this time; add a [[price]] with this id")]
    NoPeriod(String),
    #[error("price `{0}` has no lane `{1}`; add a [[price]] with this id and lane")]
    NoLane(String, String),
    #[error(
        "the sources of price `{0}` differ; settle it with a [[price]] of this id, or set on_conflict"
    )]
    Conflict(String),
    #[error(
        "price `{0}` is recorded as zero, which may be a gap; set confirm_zero in a [[price]] of this id"
    )]
    Zero(String),
}

impl Unpriced {
    /// Every code, for metrics.
    pub const CODES: [&'static str; 5] = ["unknown", "no_period", "no_lane", "conflict", "zero"];

    /// The word used in labels.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "unknown",
            Self::NoPeriod(_) => "no_period",
            Self::NoLane(..) => "no_lane",
            Self::Conflict(_) => "conflict",
            Self::Zero(_) => "zero",
        }
    }
}

/// The price book can not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadBookError {
    #[error("the price book is not valid JSON of format pricebook/1: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the price book's format is `{0}`; this version reads pricebook/1")]
    Format(String),
    #[error("price of `{0}`: {1}")]
    Amount(String, ParseMoneyError),
    #[error("price of `{0}`: `{1}` is not a time such as 2026-11-21T00:00:00Z")]
    Time(String, String),
    #[error("price of `{0}`: {1}")]
    Shape(String, String),
}

impl PriceBook {
    /// Reads a book in the format of `config/prices.json`.
    ///
    /// # Errors
    /// When the text is no such book, or one of its amounts or times can not be read.
    pub fn read(json: &str) -> Result<Self, ReadBookError> {
        Self::of(&Document::read(json)?)
    }

    /// The book that a document describes.
    ///
    /// # Errors
    /// When one of its amounts or times can not be read.
    pub fn of(document: &Document) -> Result<Self, ReadBookError> {
        let offers = build::offers(document)?;
        let mut book = Self {
            by_id: Map::default(),
            fixed: Vec::new(),
            version: document::fingerprint(&document.canonical()),
            as_of_ms: document.as_of.as_deref().and_then(day),
            offers,
        };
        book.index();
        Ok(book)
    }

    /// Settles offers whose sources differ. Call it before [`PriceBook::with_overrides`]: a price of
    /// one's own settles them, too.
    pub fn with_conflicts(mut self, rule: OnConflict) -> Self {
        if rule == OnConflict::Refuse {
            return self;
        }
        for offer in self.offers.values_mut() {
            build::settle(offer, rule);
        }
        self.version = document::fingerprint(&format!("{}\n{rule:?}", self.version));
        self.index();
        self
    }

    /// The prices of offer `id` in `lane` at `at_ms` (milliseconds since 1970), in no special region.
    ///
    /// # Errors
    /// When no sure price is in force; the message says what to do.
    pub fn rates(&self, id: &str, lane: &str, at_ms: i64) -> Result<Arc<Rates>, Unpriced> {
        self.rates_in(id, lane, None, at_ms)
    }

    /// The same for an endpoint in `region`, for instance `us`. An offer that knows no factor for the
    /// region costs the same everywhere.
    ///
    /// # Errors
    /// As [`PriceBook::rates`].
    pub fn rates_in(
        &self,
        id: &str,
        lane: &str,
        region: Option<&str>,
        at_ms: i64,
    ) -> Result<Arc<Rates>, Unpriced> {
        let offer = self
            .offers
            .get(id)
            .ok_or_else(|| Unpriced::Unknown(id.to_owned()))?;
        let mut in_force = offer.spans.iter().filter(|span| span.holds_at(at_ms));
        let Some(span) = in_force.clone().find(|span| span.lane == lane) else {
            return Err(match in_force.next() {
                Some(_) => Unpriced::NoLane(id.to_owned(), lane.to_owned()),
                None => Unpriced::NoPeriod(id.to_owned()),
            });
        };
        match span.state {
            State::Conflict => Err(Unpriced::Conflict(id.to_owned())),
            State::Zero => Err(Unpriced::Zero(id.to_owned())),
            State::Sure => Ok(Arc::clone(span.in_region(region))),
        }
    }

    /// The prices that rated a row of the ledger, by the price id in it, whether or not they are still
    /// in force. `None` where this book never had them.
    pub fn by_id(&self, price: &str) -> Option<Arc<Rates>> {
        self.by_id.get(price).map(Arc::clone)
    }

    /// SHA-256 of the canonical document (sorted names, no spaces), in hexadecimal; with prices of
    /// one's own, of that and their canonical list. Empty for the empty book.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// When its document says that its prices were looked up, in milliseconds since 1970.
    pub fn as_of_ms(&self) -> Option<i64> {
        self.as_of_ms
    }

    /// Costs that arise by the hour, to be shared out at the month's close.
    pub fn fixed_costs(&self) -> &[FixedCost] {
        &self.fixed
    }

    /// The longest answer of offer `id`, in tokens, where the book knows it.
    pub fn max_output(&self, id: &str) -> Option<u64> {
        self.offers.get(id)?.max_output
    }

    /// The longest prompt of offer `id`, in tokens, where the book knows it.
    pub fn max_input(&self, id: &str) -> Option<u64> {
        self.offers.get(id)?.max_input
    }

    /// Whether the book knows offer `id`.
    pub fn has(&self, id: &str) -> bool {
        self.offers.contains_key(id)
    }

    /// How many offers the book holds.
    pub fn len(&self) -> usize {
        self.offers.len()
    }

    /// Whether the book holds nothing.
    pub fn is_empty(&self) -> bool {
        self.offers.is_empty()
    }

    /// The ids of all offers, for suggestions.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.offers.keys().map(String::as_str)
    }

    /// Enters every price under its id.
    fn index(&mut self) {
        for span in self.offers.values().flat_map(|offer| &offer.spans) {
            for rates in span.all() {
                self.by_id.insert(Arc::clone(&rates.id), Arc::clone(rates));
            }
        }
    }
}

impl Span {
    fn holds_at(&self, at_ms: i64) -> bool {
        self.from_ms <= at_ms && at_ms < self.until_ms
    }

    fn in_region(&self, region: Option<&str>) -> &Arc<Rates> {
        let known = region.and_then(|name| self.regions.iter().find(|(known, _)| known == name));
        known.map_or(&self.rates, |(_, rates)| rates)
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Rates>> {
        std::iter::once(&self.rates).chain(self.regions.iter().map(|(_, rates)| rates))
    }
}

/// The moment that a text such as `2026-11-21T00:00:00Z` names, in milliseconds since 1970.
fn time(id: &str, text: Option<&str>) -> Result<Option<i64>, ReadBookError> {
    let wrong = |text: &str| ReadBookError::Time(id.to_owned(), text.to_owned());
    text.map(|text| {
        text.parse()
            .map(jiff::Timestamp::as_millisecond)
            .map_err(|_| wrong(text))
    })
    .transpose()
}

/// A moment, or the start of a day in UTC; `None` where the text is neither.
fn day(text: &str) -> Option<i64> {
    let moment = || text.parse().ok();
    let midnight = || format!("{text}T00:00:00Z").parse().ok();
    moment()
        .or_else(midnight)
        .map(jiff::Timestamp::as_millisecond)
}

/// A moment as the book writes it.
fn moment(at_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(at_ms).map_or_else(|_| at_ms.to_string(), |at| at.to_string())
}

#[cfg(test)]
mod tests;
