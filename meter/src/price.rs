//! The price book: dated prices by model, lane and long-context tier, and rating by them.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use wire::Usage;

use crate::config::PriceConfig;
use crate::money::{NanoUsd, ParseMoneyError, PicoPerUnit, PicoSum};

/// The ordinary service tier.
pub const STANDARD: &str = "standard";

/// Prices by offer, for instance `openai/gpt-5-mini`.
#[derive(Debug, Default)]
pub struct PriceBook {
    offers: HashMap<String, Offer>,
}

#[derive(Debug)]
struct Offer {
    max_output: Option<u64>,
    max_input: Option<u64>,
    /// Sources disagree; nobody has picked a figure yet.
    conflict: bool,
    periods: Vec<Period>,
}

#[derive(Debug)]
struct Period {
    from_ms: Option<i64>,
    to_ms: Option<i64>,
    lanes: HashMap<String, Arc<Rates>>,
}

/// The prices that rate one call.
#[derive(Debug, PartialEq, Eq)]
pub struct Rates {
    /// Offer, start of the period, and lane where it is not the standard one.
    pub id: Arc<str>,
    base: Classes,
    /// Whole-request prices above a number of prompt tokens, lowest first.
    tiers: Vec<(u64, Classes)>,
}

/// Pico-USD for one token (or search) of each class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Classes {
    input: PicoPerUnit,
    cache_read: PicoPerUnit,
    cache_write_5m: PicoPerUnit,
    cache_write_1h: PicoPerUnit,
    output: PicoPerUnit,
    reasoning: PicoPerUnit,
    audio_input: PicoPerUnit,
    web_search: PicoPerUnit,
}

/// Why a call has no price.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unpriced {
    #[error("price `{0}` is not in the price book; add a [[price]] with this id")]
    Unknown(String),
    #[error("price `{0}` has no period in force at this time; add a [[price]] with this id")]
    NoPeriod(String),
    #[error("price `{0}` has no lane `{1}`; add a [[price]] with this id")]
    NoLane(String, String),
    #[error("the sources of price `{0}` differ; settle it with a [[price]] of this id")]
    Conflict(String),
    #[error("price `{0}` is recorded as zero, which may be a gap; confirm it with a [[price]]")]
    Zero(String),
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
}

impl PriceBook {
    /// Reads a book in the format of `config/prices.json`.
    pub fn read(json: &str) -> Result<Self, ReadBookError> {
        let file: File = serde_json::from_str(json)?;
        if file.format != "pricebook/1" {
            return Err(ReadBookError::Format(file.format));
        }
        let mut offers = HashMap::with_capacity(file.models.len());
        for model in file.models {
            let (id, offer) = offer(model)?;
            offers.insert(id, offer);
        }
        Ok(Self { offers })
    }

    /// Puts prices of one's own before the book's.
    pub fn with_overrides(mut self, overrides: &[PriceConfig]) -> Result<Self, ReadBookError> {
        for price in overrides {
            let amount = |text: &str| {
                PicoPerUnit::per_million(text)
                    .map_err(|e| ReadBookError::Amount(price.id.clone(), e))
            };
            let input = amount(&price.input)?;
            let output = amount(&price.output)?;
            let or_input = |text: &Option<String>| text.as_deref().map_or(Ok(input), amount);
            let write = or_input(&price.cache_write)?;
            let base = Classes {
                input,
                cache_read: or_input(&price.cache_read)?,
                cache_write_5m: write,
                cache_write_1h: write,
                output,
                reasoning: output,
                audio_input: input,
                web_search: PicoPerUnit::default(),
            };
            let id: Arc<str> = Arc::from(format!("{}@override", price.id));
            let rates = Arc::new(Rates {
                id,
                base,
                tiers: Vec::new(),
            });
            let known = self.offers.remove(&price.id);
            let period = Period {
                from_ms: None,
                to_ms: None,
                lanes: HashMap::from([(STANDARD.to_owned(), rates)]),
            };
            let offer = Offer {
                max_output: known.as_ref().and_then(|offer| offer.max_output),
                max_input: known.as_ref().and_then(|offer| offer.max_input),
                conflict: false,
                periods: vec![period],
            };
            self.offers.insert(price.id.clone(), offer);
        }
        Ok(self)
    }

    /// The prices of offer `id` in `lane` at `at_ms` (milliseconds since 1970).
    pub fn rates(&self, id: &str, lane: &str, at_ms: i64) -> Result<Arc<Rates>, Unpriced> {
        let offer = self
            .offers
            .get(id)
            .ok_or_else(|| Unpriced::Unknown(id.to_owned()))?;
        if offer.conflict {
            return Err(Unpriced::Conflict(id.to_owned()));
        }
        let period = offer
            .periods
            .iter()
            .find(|p| p.from_ms.is_none_or(|f| f <= at_ms) && p.to_ms.is_none_or(|t| at_ms < t))
            .ok_or_else(|| Unpriced::NoPeriod(id.to_owned()))?;
        let rates = period
            .lanes
            .get(lane)
            .ok_or_else(|| Unpriced::NoLane(id.to_owned(), lane.to_owned()))?;
        if rates.base.input.0 == 0 && rates.base.output.0 == 0 && period.from_ms.is_some() {
            return Err(Unpriced::Zero(id.to_owned()));
        }
        Ok(Arc::clone(rates))
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
}

impl Rates {
    /// What `usage` costs: summed in pico-USD, rounded once, halves to even.
    pub fn cost(&self, usage: &Usage) -> NanoUsd {
        let prompt = usage.prompt();
        let tier = self.tiers.iter().rev().find(|(above, _)| prompt > *above);
        let classes = tier.map_or(&self.base, |(_, classes)| classes);
        let mut sum = PicoSum::default();
        sum.add(usage.input, classes.input);
        sum.add(usage.cache_read, classes.cache_read);
        sum.add(usage.cache_write_5m, classes.cache_write_5m);
        sum.add(usage.cache_write_1h, classes.cache_write_1h);
        sum.add(usage.output, classes.output);
        sum.add(usage.reasoning, classes.reasoning);
        sum.add(usage.audio_input, classes.audio_input);
        sum.add(usage.audio_output, classes.output);
        sum.add(usage.web_searches, classes.web_search);
        sum.round()
    }

    /// The most that `prompt` and `answer` tokens can cost: each side at its dearest class, in the
    /// dearest of the context tiers that the prompt may reach. Rounded up.
    pub fn bound(&self, prompt: u64, answer: u64) -> NanoUsd {
        let (input, output) = self.dearest(prompt);
        let mut sum = PicoSum::default();
        sum.add(prompt, input);
        sum.add(answer, output);
        sum.ceil()
    }

    /// How many answer tokens fit into `room` beside a prompt of `prompt` tokens.
    pub fn affordable_answer(&self, prompt: u64, room: NanoUsd) -> u64 {
        let (_, output) = self.dearest(prompt);
        let left = i128::from((room - self.bound(prompt, 0)).0).saturating_mul(1_000);
        let tokens = left.checked_div(i128::from(output.0)).unwrap_or(i128::MAX);
        u64::try_from(tokens.max(0)).unwrap_or(u64::MAX)
    }

    fn dearest(&self, prompt: u64) -> (PicoPerUnit, PicoPerUnit) {
        let reached = self
            .tiers
            .iter()
            .filter(|(above, _)| prompt >= *above)
            .map(|(_, c)| c);
        std::iter::once(&self.base).chain(reached).fold(
            (PicoPerUnit(0), PicoPerUnit(0)),
            |(input, output), c| {
                let prompt_side = [
                    c.input,
                    c.cache_read,
                    c.cache_write_5m,
                    c.cache_write_1h,
                    c.audio_input,
                    input,
                ];
                (
                    prompt_side.into_iter().fold(input, Ord::max),
                    output.max(c.output).max(c.reasoning),
                )
            },
        )
    }
}

#[derive(Deserialize)]
struct File {
    format: String,
    models: Vec<FileModel>,
}

#[derive(Deserialize)]
struct FileModel {
    id: String,
    #[serde(default)]
    context: FileContext,
    rates: Vec<FilePeriod>,
    #[serde(default)]
    check: String,
    #[serde(default)]
    tools: HashMap<String, serde_json::Value>,
}

#[derive(Deserialize, Default)]
struct FileContext {
    max_output: Option<u64>,
    max_input: Option<u64>,
}

#[derive(Deserialize)]
struct FilePeriod {
    from: Option<String>,
    to: Option<String>,
    lanes: HashMap<String, HashMap<String, String>>,
    #[serde(default)]
    tiers: Vec<FileTier>,
}

#[derive(Deserialize)]
struct FileTier {
    above_input_tokens: u64,
    lanes: HashMap<String, HashMap<String, String>>,
}

fn offer(model: FileModel) -> Result<(String, Offer), ReadBookError> {
    // Some fees are tables with free allowances; only flat ones are rated here.
    let search = model
        .tools
        .get("web_search_per_1k")
        .and_then(|fee| fee.as_str())
        .unwrap_or("0");
    let search = PicoPerUnit::per_thousand(search)
        .map_err(|error| ReadBookError::Amount(model.id.clone(), error))?;
    let mut periods = Vec::with_capacity(model.rates.len());
    for period in &model.rates {
        let from = period.from.as_deref().unwrap_or("always");
        let mut lanes = HashMap::with_capacity(period.lanes.len());
        for (lane, prices) in &period.lanes {
            let mut tiers = Vec::new();
            for tier in &period.tiers {
                // A lane that a tier leaves out keeps its base price there.
                let prices = tier.lanes.get(lane).unwrap_or(prices);
                tiers.push((tier.above_input_tokens, classes(&model.id, prices, search)?));
            }
            tiers.sort_by_key(|(above, _)| *above);
            let suffix = if lane == STANDARD {
                String::new()
            } else {
                format!("/{lane}")
            };
            let id = Arc::from(format!("{}@{from}{suffix}", model.id));
            let base = classes(&model.id, prices, search)?;
            lanes.insert(lane.clone(), Arc::new(Rates { id, base, tiers }));
        }
        periods.push(Period {
            from_ms: time(&model.id, period.from.as_deref())?,
            to_ms: time(&model.id, period.to.as_deref())?,
            lanes,
        });
    }
    let offer = Offer {
        max_output: model.context.max_output,
        max_input: model.context.max_input,
        conflict: model.check == "differ",
        periods,
    };
    Ok((model.id, offer))
}

/// Absent classes fall back as the data's format says: caches to input, reasoning to output.
fn classes(
    id: &str,
    prices: &HashMap<String, String>,
    web_search: PicoPerUnit,
) -> Result<Classes, ReadBookError> {
    let read = |name: &str| {
        prices
            .get(name)
            .map(|text| PicoPerUnit::per_million(text))
            .transpose()
            .map_err(|error| ReadBookError::Amount(format!("{id}, {name}"), error))
    };
    let input = read("input")?.unwrap_or_default();
    let output = read("output")?.unwrap_or_default();
    let write = read("cache_write")?;
    let short = read("cache_write_5m")?
        .or(read("cache_write_30m")?)
        .or(write);
    let long = read("cache_write_1h")?
        .or(read("cache_write_12h")?)
        .or(short);
    Ok(Classes {
        input,
        cache_read: read("cache_read")?.unwrap_or(input),
        cache_write_5m: short.or(long).unwrap_or(input),
        cache_write_1h: long.unwrap_or(input),
        output,
        reasoning: read("reasoning")?.unwrap_or(output),
        audio_input: read("audio_input")?.unwrap_or(input),
        web_search,
    })
}

fn time(id: &str, text: Option<&str>) -> Result<Option<i64>, ReadBookError> {
    let wrong = |text: &str| ReadBookError::Time(id.to_owned(), text.to_owned());
    text.map(|text| {
        text.parse()
            .map(jiff::Timestamp::as_millisecond)
            .map_err(|_| wrong(text))
    })
    .transpose()
}

#[cfg(test)]
mod tests;
