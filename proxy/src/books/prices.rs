//! What things cost, as the books ask: by the price id of an entry, or anew by its model and time.

use std::collections::HashMap;

use meter::books::Terms;
use meter::price::{Listing, STANDARD};
use meter::sell::{MonthUse, SellLine};
use meter::{Entry, NanoUsd, PriceBook, SellBook};
use wire::Usage;

use crate::config::Config;
use crate::runtime;

/// The price book in force, with the offer of each configured model.
#[derive(Debug)]
pub(crate) struct Prices {
    book: PriceBook,
    sell: SellBook,
    offers: HashMap<String, String>,
    /// All of them, those without an offer too.
    models: Vec<(String, Option<String>)>,
    /// Names that providers give our models.
    upstream: HashMap<String, String>,
}

/// What an attempt costs at the price in force at its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rated {
    pub(crate) cost: NanoUsd,
    pub(crate) price: String,
}

/// Enough tokens that a price in pico-USD for one is a whole number of nano-USD for all.
const THOUSAND: u64 = 1_000;

impl Prices {
    /// The prices that `config` asks for.
    pub(crate) fn of(config: &Config) -> anyhow::Result<Self> {
        let models = config.models.iter();
        let models = models.map(|model| (model.name.clone(), model.price.clone()));
        let offers = config.models.iter();
        let offers = offers.filter_map(|model| Some((model.name.clone(), model.price.clone()?)));
        let upstream = config.models.iter().map(|model| {
            let theirs = model.upstream_model.as_ref().unwrap_or(&model.name);
            (theirs.clone(), model.name.clone())
        });
        Ok(Self {
            book: runtime::price_book(config)?,
            sell: SellBook::read(&config.sells)?,
            offers: offers.collect(),
            models: models.collect(),
            upstream: upstream.collect(),
        })
    }

    /// What the page of prices shows.
    pub(crate) fn listing(&self, now_ms: i64) -> Listing {
        self.book.listing(&self.models, now_ms)
    }

    /// The first digits of the book's version, as entries keep it.
    pub(crate) fn version(&self) -> &str {
        self.book.version().get(..12).unwrap_or_default()
    }

    /// Our name for a provider's model; dated names fall back to the undated ones.
    pub(crate) fn model(&self, theirs: &str) -> String {
        let mut name = theirs;
        loop {
            if let Some(ours) = self.upstream.get(name) {
                return ours.clone();
            }
            match name.rsplit_once('-') {
                Some((shorter, _)) => name = shorter,
                None => return theirs.to_owned(),
            }
        }
    }

    /// What `usage` costs at the prices called `price`; `None` where nobody knows them.
    pub(crate) fn at(&self, price: &str, usage: &Usage) -> Option<NanoUsd> {
        Some(self.book.by_id(price)?.cost(usage))
    }

    /// What `usage` costs in the call that `entry` tells; `None` where there is no price.
    pub(crate) fn rate(&self, entry: &Entry, usage: &Usage) -> Option<Rated> {
        let held = &entry.held;
        let offer = self.offers.get(&*held.model)?;
        let lane = if held.lane.is_empty() {
            STANDARD
        } else {
            &*held.lane
        };
        let rates = self.book.rates(offer, lane, held.held_at_ms).ok()?;
        Some(Rated {
            cost: rates.rate(usage, entry.settled_at_ms).cost,
            price: rates.id.to_string(),
        })
    }

    /// What `usage` costs by the price that an entry names.
    pub(crate) fn cost(&self, price: &str, usage: &Usage) -> Option<NanoUsd> {
        Some(self.book.by_id(price)?.cost(usage))
    }
}

impl Terms for Prices {
    /// Pico-USD for one of each class, at a price and context tier.
    fn units(&self, price: &str, context_tier: u64) -> Option<[i64; 9]> {
        let rates = self.book.by_id(price)?;
        // Usage that reaches the tier, in whole thousands, so that nothing is rounded.
        let reached = match context_tier {
            0 => 0,
            above => above
                .div_ceil(THOUSAND)
                .saturating_add(1)
                .saturating_mul(THOUSAND),
        };
        let base = Usage {
            input: reached,
            ..Usage::default()
        };
        let floor = rates.cost(&base);
        let one = |change: fn(&mut Usage)| {
            let mut usage = base;
            change(&mut usage);
            (rates.cost(&usage) - floor).0
        };
        Some([
            one(|usage| usage.input += THOUSAND),
            one(|usage| usage.cache_read += THOUSAND),
            one(|usage| usage.cache_write_5m += THOUSAND),
            one(|usage| usage.cache_write_1h += THOUSAND),
            one(|usage| usage.output += THOUSAND),
            one(|usage| usage.reasoning += THOUSAND),
            one(|usage| usage.audio_input += THOUSAND),
            one(|usage| usage.audio_output += THOUSAND),
            one(|usage| usage.web_searches += THOUSAND),
        ])
    }

    fn plan(&self, tenant: &str, used: &MonthUse) -> Vec<SellLine> {
        self.sell.beside_charges(tenant, used)
    }
}
