//! From the document to prices: periods, lanes, tiers and regions, each as one span of time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::Value;

use crate::Map;
use crate::config::OnConflict;
use crate::money::{PicoPerUnit, Ratio};

use super::document::{Amounts, Document, Model, Period};
use super::rates::{Classes, Rates};
use super::schedule::Schedule;
use super::view::SearchFee;
use super::{ReadBookError, STANDARD, time};

/// What one provider asks for one model.
#[derive(Debug, Default)]
pub(super) struct Offer {
    pub(super) provider: String,
    pub(super) max_output: Option<u64>,
    pub(super) max_input: Option<u64>,
    pub(super) check: String,
    /// Class to the figures of each source, where they differ.
    pub(super) conflict: BTreeMap<String, Amounts>,
    pub(super) retired_on: Option<String>,
    pub(super) search: Option<SearchFee>,
    /// Fees for what no usage record counts.
    pub(super) unrated: Vec<String>,
    pub(super) spans: Vec<Span>,
}

/// The prices of one lane from one moment to another.
#[derive(Debug, Clone)]
pub(super) struct Span {
    pub(super) lane: String,
    /// Milliseconds since 1970, inclusive; the least number where there is no beginning.
    pub(super) from_ms: i64,
    /// Exclusive; the greatest number where there is no end.
    pub(super) until_ms: i64,
    pub(super) state: State,
    pub(super) rates: Arc<Rates>,
    /// The same by region, where that makes a difference.
    pub(super) regions: Vec<(String, Arc<Rates>)>,
    pub(super) source: Option<String>,
    /// Why it stands here, where it is one's own.
    pub(super) why: Option<String>,
    pub(super) is_own: bool,
}

/// Whether a price may be billed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Sure,
    /// Sources disagree; nobody has picked a figure yet.
    Conflict,
    /// Recorded as zero, which may be a gap; nobody has confirmed it.
    Zero,
}

/// Every offer of a document.
pub(super) fn offers(document: &Document) -> Result<Map<String, Offer>, ReadBookError> {
    let mut schedules = HashMap::new();
    for entry in &document.schedules {
        schedules.insert(entry.id.as_str(), Arc::new(Schedule::read(entry)?));
    }
    let mut offers = Map::default();
    for model in &document.models {
        let schedule =
            match &model.schedule {
                None => None,
                Some(name) => Some(schedules.get(name.as_str()).map(Arc::clone).ok_or_else(
                    || {
                        ReadBookError::Shape(
                            model.id.clone(),
                            format!("there is no schedule `{name}`"),
                        )
                    },
                )?),
            };
        offers.insert(model.id.clone(), offer(model, schedule.as_ref())?);
    }
    Ok(offers)
}

fn offer(model: &Model, schedule: Option<&Arc<Schedule>>) -> Result<Offer, ReadBookError> {
    let search = search_fee(model)?;
    let mut factors = Vec::with_capacity(model.multipliers.len());
    for (name, text) in &model.multipliers {
        let factor = Ratio::read(text)
            .map_err(|error| ReadBookError::Amount(format!("{}, {name}", model.id), error))?;
        factors.push((name.as_str(), factor));
    }
    let plain = Rates {
        id: Arc::from(model.id.as_str()),
        base: Classes {
            web_search: search.as_ref().map_or(PicoPerUnit(0), |fee| fee.price),
            ..Classes::default()
        },
        tiers: Vec::new(),
        region: Ratio::ONE,
        discount: Ratio::ONE,
        schedule: schedule.map(Arc::clone),
    };
    let mut spans = Vec::with_capacity(model.rates.len());
    for period in &model.rates {
        spans.extend(lanes(model, period, &plain, &factors)?);
    }
    let known = |name: &&String| !matches!(name.as_str(), "web_search_per_1k" | "web_search_free");
    Ok(Offer {
        provider: model.provider.clone(),
        max_output: model.context.max_output,
        max_input: model.context.max_input,
        check: model.check.clone(),
        conflict: model.conflict.clone(),
        retired_on: model.retired_on.clone(),
        search,
        unrated: model.tools.keys().filter(known).cloned().collect(),
        spans,
    })
}

/// The lanes of a period. A lane that has but a factor costs so many times the standard one.
fn lanes(
    model: &Model,
    period: &Period,
    plain: &Rates,
    factors: &[(&str, Ratio)],
) -> Result<Vec<Span>, ReadBookError> {
    let mut spans = Vec::with_capacity(period.lanes.len());
    for (lane, amounts) in &period.lanes {
        spans.push(span(
            model,
            period,
            plain,
            (lane, lane, Ratio::ONE),
            amounts,
        )?);
    }
    for (name, factor) in factors {
        let is_lane = !name.starts_with("region_") && !period.lanes.contains_key(*name);
        if let (true, Some(amounts)) = (is_lane, period.lanes.get(STANDARD)) {
            let lane = (*name, STANDARD, *factor);
            spans.push(span(model, period, plain, lane, amounts)?);
        }
    }
    for span in &mut spans {
        for (name, factor) in factors {
            let Some(region) = name.strip_prefix("region_") else {
                continue;
            };
            let mut rates = Rates::clone(&span.rates);
            rates.region = rates.region.times(*factor);
            rates.id = Arc::from(format!("{}+{region}", rates.id));
            span.regions.push((region.to_owned(), Arc::new(rates)));
        }
    }
    Ok(spans)
}

/// One lane of a period, with the prices of lane `from` times `factor`.
fn span(
    model: &Model,
    period: &Period,
    plain: &Rates,
    (lane, from, factor): (&str, &str, Ratio),
    amounts: &Amounts,
) -> Result<Span, ReadBookError> {
    let search = plain.base.web_search;
    let base = classes(&model.id, amounts, search)?;
    let mut tiers = Vec::with_capacity(period.tiers.len());
    for tier in &period.tiers {
        // A lane that a tier leaves out keeps its base price there.
        let amounts = tier.lanes.get(from).unwrap_or(amounts);
        tiers.push((
            tier.above_input_tokens,
            classes(&model.id, amounts, search)?,
        ));
    }
    tiers.sort_by_key(|(above, _)| *above);
    let begins = period.from.as_deref().unwrap_or("always");
    let suffix = lane_suffix(lane);
    let state = match model.check.as_str() {
        "differ" => State::Conflict,
        _ if base.is_zero() => State::Zero,
        _ => State::Sure,
    };
    let rates = Rates {
        id: Arc::from(format!("{}@{begins}{suffix}", model.id)),
        base,
        tiers,
        region: factor,
        ..plain.clone()
    };
    Ok(Span {
        lane: lane.to_owned(),
        from_ms: time(&model.id, period.from.as_deref())?.unwrap_or(i64::MIN),
        until_ms: time(&model.id, period.to.as_deref())?.unwrap_or(i64::MAX),
        state,
        rates: Arc::new(rates),
        regions: Vec::new(),
        source: period.source.clone(),
        why: None,
        is_own: false,
    })
}

/// What a price id says of its lane.
pub(super) fn lane_suffix(lane: &str) -> String {
    if lane == STANDARD {
        String::new()
    } else {
        format!("/{lane}")
    }
}

/// Takes the first source's figures, or for the present standard price the higher of each pair. Lanes
/// beside it can not be told from the pair and stay unsettled then.
pub(super) fn settle(offer: &mut Offer, rule: OnConflict) {
    for span in &mut offer.spans {
        let is_present = span.until_ms == i64::MAX;
        if span.state != State::Conflict
            || (rule == OnConflict::Higher && is_present && span.lane != STANDARD)
        {
            continue;
        }
        span.state = State::Sure;
        if rule == OnConflict::Higher && is_present {
            let raise = |rates: &Arc<Rates>| Arc::new(raised(rates, &offer.conflict));
            span.rates = raise(&span.rates);
            for (_, rates) in &mut span.regions {
                *rates = raise(rates);
            }
        }
        if span.rates.base.is_zero() {
            span.state = State::Zero;
        }
    }
}

fn raised(rates: &Rates, conflict: &BTreeMap<String, Amounts>) -> Rates {
    let mut raised = rates.clone();
    let highest = |class: &str| {
        let figures = conflict.get(class)?.values();
        figures
            .filter_map(|text| PicoPerUnit::per_million(text).ok())
            .max()
    };
    let at_least = |price: &mut PicoPerUnit, class: &str| {
        *price = highest(class).map_or(*price, |high| high.max(*price));
    };
    let base = &mut raised.base;
    let (reasons_apart, hears_apart) = (
        base.reasoning != base.output,
        base.audio_input != base.input,
    );
    at_least(&mut base.input, "input");
    at_least(&mut base.output, "output");
    at_least(&mut base.cache_read, "cache_read");
    if !reasons_apart {
        base.reasoning = base.output;
    }
    if !hears_apart {
        base.audio_input = base.input;
    }
    base.cache_write_5m = base.cache_write_5m.max(base.input);
    base.cache_write_1h = base.cache_write_1h.max(base.input);
    raised.id = Arc::from(format!("{}^higher", raised.id));
    raised
}

/// Absent classes fall back as the data's format says: caches to input, reasoning to output. Usage
/// knows two lives of a cache, five minutes or unstated, and an hour: each takes the price of the
/// shortest listed life that covers it.
pub(super) fn classes(
    id: &str,
    amounts: &Amounts,
    web_search: PicoPerUnit,
) -> Result<Classes, ReadBookError> {
    let read = |name: &str| {
        amounts
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

/// The listed fee of a search. Free allowances are shared by a group of models and by everybody who
/// uses the account, so they can not be counted on here: every search is rated at the listed fee. Of a
/// table by the size of the answer, which usage does not tell, the dearest fee is taken.
fn search_fee(model: &Model) -> Result<Option<SearchFee>, ReadBookError> {
    let name = || format!("{}, web_search_per_1k", model.id);
    let amount = |text: &str| {
        PicoPerUnit::per_thousand(text).map_err(|error| ReadBookError::Amount(name(), error))
    };
    let (price, by_size) = match model.tools.get("web_search_per_1k") {
        None => return Ok(None),
        Some(Value::String(text)) => (amount(text)?, false),
        Some(Value::Object(sizes)) => {
            let mut dearest = PicoPerUnit(0);
            for fee in sizes.values().filter_map(Value::as_str) {
                dearest = dearest.max(amount(fee)?);
            }
            (dearest, true)
        }
        Some(_) => {
            let what = "write a decimal in quotes, or a table of them";
            return Err(ReadBookError::Shape(name(), what.to_owned()));
        }
    };
    let free = model.tools.get("web_search_free").map(Value::to_string);
    Ok(Some(SearchFee {
        price,
        is_dearest_of_table: by_size,
        unused_allowance: free,
    }))
}
