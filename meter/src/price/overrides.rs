//! Prices of one's own: figures, discounts, confirmed zeros and costs by the hour, each from one moment
//! to another. Of two that cover the same moment the later one in the file holds.

use std::sync::Arc;

use crate::config::PriceConfig;
use crate::money::{NanoUsd, PicoPerUnit, PicoSum, Ratio, share_out};

use super::build::{Offer, Span, State, classes, lane_suffix};
use super::document::{Amounts, canonical, fingerprint};
use super::rates::Rates;
use super::{PriceBook, ReadBookError, STANDARD, moment, time};

/// A cost that arises by the hour, whether or not anybody calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedCost {
    /// The offer.
    pub id: String,
    pub per_hour: NanoUsd,
    /// Milliseconds since 1970; `None` where it has no beginning.
    pub from_ms: Option<i64>,
    /// Exclusive; `None` where it has no end.
    pub until_ms: Option<i64>,
}

impl FixedCost {
    /// What arises from `from_ms` up to `until_ms`: to the millisecond, rounded once, halves to even.
    pub fn over(&self, from_ms: i64, until_ms: i64) -> NanoUsd {
        const HOUR_MS: u64 = 3_600_000;
        let from = self.from_ms.map_or(from_ms, |from| from.max(from_ms));
        let until = self.until_ms.map_or(until_ms, |until| until.min(until_ms));
        let span = u64::try_from(until.saturating_sub(from)).unwrap_or(0);
        PicoSum::of(self.per_hour).parts(span, HOUR_MS).round()
    }

    /// The same shared out by tokens: the shares are its sum exactly. Where nobody used a token, all
    /// pay alike.
    pub fn shared(&self, from_ms: i64, until_ms: i64, tokens: &[u64]) -> Vec<NanoUsd> {
        share_out(self.over(from_ms, until_ms), tokens)
    }
}

impl PriceBook {
    /// Puts prices of one's own before the book's.
    ///
    /// # Errors
    /// When an amount or time can not be read, or an entry says nothing or of an unknown offer.
    pub fn with_overrides(mut self, overrides: &[PriceConfig]) -> Result<Self, ReadBookError> {
        if overrides.is_empty() {
            return Ok(self);
        }
        for price in overrides {
            self.put(price)?;
        }
        let all = format!("{}\n{}", self.version, canonical(&overrides));
        self.version = fingerprint(&all);
        self.index();
        Ok(self)
    }

    fn put(&mut self, price: &PriceConfig) -> Result<(), ReadBookError> {
        let own = Own::read(price)?;
        if let Some(per_hour) = own.per_hour {
            let some = |at: i64, none: i64| (at != none).then_some(at);
            self.fixed.push(FixedCost {
                id: price.id.clone(),
                per_hour,
                from_ms: some(own.from_ms, i64::MIN),
                until_ms: some(own.until_ms, i64::MAX),
            });
        }
        if let Some(span) = own.span(price)? {
            let offer = self.offers.entry(price.id.clone()).or_default();
            offer.cut(&own);
            offer.spans.push(span);
            return Ok(());
        }
        let known = self.offers.get_mut(&price.id);
        let offer = known.ok_or_else(|| {
            let what =
                "a discount or confirmed zero needs a price in the book, or input and output";
            ReadBookError::Shape(price.id.clone(), what.to_owned())
        })?;
        for mut span in offer.cut(&own) {
            own.change(&mut span, price);
            offer.spans.push(span);
        }
        Ok(())
    }
}

/// What an entry says, read.
struct Own {
    lane: Option<String>,
    from_ms: i64,
    until_ms: i64,
    discount: Option<Ratio>,
    per_hour: Option<NanoUsd>,
}

impl Own {
    fn read(price: &PriceConfig) -> Result<Self, ReadBookError> {
        let wrong = |what: &str| ReadBookError::Shape(price.id.clone(), what.to_owned());
        let amount = |error| ReadBookError::Amount(price.id.clone(), error);
        let from_ms = time(&price.id, price.from.as_deref())?.unwrap_or(i64::MIN);
        let until_ms = time(&price.id, price.until.as_deref())?.unwrap_or(i64::MAX);
        if from_ms >= until_ms {
            return Err(wrong("`until` must be after `from`"));
        }
        let share = price.discount.as_deref().map(Ratio::read).transpose();
        let share = share.map_err(amount)?;
        if share.is_some_and(|share| share.exceeds(Ratio::ONE)) {
            return Err(wrong("`discount` is a share: \"0.12\" takes 12 % off"));
        }
        let per_hour = price.fixed_per_hour.as_deref().map(NanoUsd::from_usd);
        let per_hour = per_hour.transpose().map_err(amount)?;
        if per_hour.is_some_and(|amount| amount < NanoUsd::ZERO) {
            return Err(wrong("`fixed_per_hour` is negative; write 0 or more"));
        }
        if price.input.is_some() != price.output.is_some() {
            return Err(wrong("`input` and `output` go together"));
        }
        if price.input.is_none() && price.classes().next().is_some() {
            return Err(wrong(
                "prices of classes need `input` and `output` beside them",
            ));
        }
        if price.input.is_none() && share.is_none() && per_hour.is_none() && !price.confirm_zero {
            return Err(wrong(
                "it says no price; give `input` and `output`, `discount`, `confirm_zero` or `fixed_per_hour`",
            ));
        }
        Ok(Self {
            lane: price.lane.clone(),
            from_ms,
            until_ms,
            discount: share.map(Ratio::left),
            per_hour,
        })
    }

    /// Its own figures, if it has some. They stand as they are: no region or hour changes them.
    fn span(&self, price: &PriceConfig) -> Result<Option<Span>, ReadBookError> {
        let is_fixed_alone =
            self.per_hour.is_some() && self.discount.is_none() && !price.confirm_zero;
        if price.input.is_none() && !is_fixed_alone {
            return Ok(None);
        }
        let amounts: Amounts = [("input", &price.input), ("output", &price.output)]
            .into_iter()
            .filter_map(|(class, text)| Some((class.to_owned(), text.clone()?)))
            .chain(
                price
                    .classes()
                    .map(|(class, text)| (class.to_owned(), text.to_owned())),
            )
            .collect();
        let search = price.web_search.as_deref().map(PicoPerUnit::per_thousand);
        let search = search
            .transpose()
            .map_err(|error| ReadBookError::Amount(price.id.clone(), error))?;
        let lane = self.lane.as_deref().unwrap_or(STANDARD);
        let begins = price.from.as_ref().map(|from| format!(":{from}"));
        let (begins, suffix) = (begins.unwrap_or_default(), lane_suffix(lane));
        let rates = Rates {
            id: Arc::from(format!("{}@override{begins}{suffix}", price.id)),
            base: classes(&price.id, &amounts, search.unwrap_or_default())?,
            tiers: Vec::new(),
            region: Ratio::ONE,
            discount: self.discount.unwrap_or(Ratio::ONE),
            schedule: None,
        };
        Ok(Some(Span {
            lane: lane.to_owned(),
            from_ms: self.from_ms,
            until_ms: self.until_ms,
            // A person wrote these figures, zeros too.
            state: State::Sure,
            rates: Arc::new(rates),
            regions: Vec::new(),
            source: None,
            why: price.why.clone(),
            is_own: true,
        }))
    }

    /// Changes a price that is there.
    fn change(&self, span: &mut Span, price: &PriceConfig) {
        if price.confirm_zero && span.state == State::Zero {
            span.state = State::Sure;
        }
        span.why = price.why.clone().or(span.why.take());
        let Some(discount) = self.discount else {
            return;
        };
        span.is_own = true;
        let begins = match span.from_ms {
            i64::MIN => "always".to_owned(),
            from => moment(from),
        };
        let suffix = lane_suffix(&span.lane);
        let id = format!("{}@override:{begins}{suffix}", price.id);
        let lower = |rates: &Rates, id: &str| {
            Arc::new(Rates {
                id: Arc::from(id),
                discount,
                ..rates.clone()
            })
        };
        span.rates = lower(&span.rates, &id);
        for (region, rates) in &mut span.regions {
            *rates = lower(rates, &format!("{id}+{region}"));
        }
    }
}

impl Offer {
    /// Takes out what lies in the time and lane of `own`, and gives it back.
    fn cut(&mut self, own: &Own) -> Vec<Span> {
        let mut inside = Vec::new();
        let mut outside = Vec::with_capacity(self.spans.len());
        for span in self.spans.drain(..) {
            let touches = own.lane.as_ref().is_none_or(|lane| *lane == span.lane)
                && span.from_ms < own.until_ms
                && own.from_ms < span.until_ms;
            if !touches {
                outside.push(span);
                continue;
            }
            let piece = |from_ms: i64, until_ms: i64, to: &mut Vec<Span>| {
                if from_ms < until_ms {
                    to.push(Span {
                        from_ms,
                        until_ms,
                        ..span.clone()
                    });
                }
            };
            piece(span.from_ms, own.from_ms, &mut outside);
            piece(own.until_ms, span.until_ms, &mut outside);
            let (from, until) = (
                span.from_ms.max(own.from_ms),
                span.until_ms.min(own.until_ms),
            );
            piece(from, until, &mut inside);
        }
        self.spans = outside;
        inside
    }
}
