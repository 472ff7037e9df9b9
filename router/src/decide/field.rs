//! The models that a call may go to, and the order in which they are tried.

use wire::Tier;

use super::{Asked, NoModel, Outlook, Quote, Reason, Route};
use crate::config::Config;
use crate::features::Features;
use crate::policy::{Model, Needs, Policy};
use crate::rules::Barred;

/// Places of models in the order in which to try them; at most eight.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Order {
    places: [u16; 8],
    len: u8,
}

impl Order {
    fn push(&mut self, place: usize) {
        if let (Some(slot), Ok(place)) = (
            self.places.get_mut(usize::from(self.len)),
            u16::try_from(place),
        ) {
            *slot = place;
            self.len += 1;
        }
    }

    /// The places, first choice first.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.places
            .iter()
            .take(usize::from(self.len))
            .map(|place| usize::from(*place))
    }
}

/// The models, as one call sees them.
pub(super) struct Field<'a> {
    pub(super) asked: &'a Asked<'a>,
    pub(super) config: &'a Config,
    pub(super) outlook: &'a Outlook<'a>,
    policy: &'a Policy,
    needs: Needs,
    /// Some model's window takes the prompt as it is.
    has_window: bool,
}

impl<'a> Field<'a> {
    pub(super) fn new(
        features: &Features<'_>,
        asked: &'a Asked<'a>,
        policy: &'a Policy,
        config: &'a Config,
        outlook: &'a Outlook<'a>,
    ) -> Self {
        let is_wide = |model: &Model| model.context.is_none_or(|most| most >= asked.prompt_tokens);
        let mut field = Self {
            asked,
            config,
            outlook,
            policy,
            needs: Needs::of(features.shape),
            has_window: false,
        };
        let models = policy.models.iter().enumerate();
        field.has_window = models
            .filter(|(_, model)| is_wide(model))
            .any(|(place, model)| field.bar(place, model).is_none() && asked.fits(model));
        field
    }

    /// Why a model may not have the call, if it may not.
    fn bar(&self, place: usize, model: &Model) -> Option<Barred> {
        let ruling = self.asked.ruling;
        let latency = || {
            let is_bounded = !ruling.applied.is_empty();
            is_bounded.then(|| (self.outlook.quote)(place).first_byte_ms)
        };
        let rules = &self.policy.rules;
        if let Some(barred) = rules.bar(ruling, model, latency().flatten()) {
            return Some(barred);
        }
        if model.lacks.meets(self.needs) {
            return Some(Barred::Capability);
        }
        let is_narrow = model
            .context
            .is_some_and(|most| most < self.asked.prompt_tokens);
        (is_narrow && self.has_window).then_some(Barred::Window)
    }

    fn is_open(&self, place: usize, model: &Model) -> bool {
        self.asked.fits(model) && self.bar(place, model).is_none()
    }

    /// Whether a tier has a model for the call.
    pub(super) fn has(&self, tier: Tier) -> bool {
        let mut models = self.policy.models.iter().enumerate();
        models.any(|(place, model)| model.tier == tier && self.is_open(place, model))
    }

    /// The tier of the model at `place`, where that is healthy and may go on with the conversation.
    pub(super) fn sits(&self, place: usize) -> Option<Tier> {
        let model = self.policy.models.get(place)?;
        let can = (self.outlook.usable)(place) && self.is_open(place, model);
        can.then_some(model.tier)
    }

    /// Healthy models of the tier, then of the other tier, then the rest: a sick model beats none.
    /// Within a tier those of the caller's own dialect come first: nothing is lost on the way to them.
    /// A model with several endpoints is tried at one of them.
    pub(super) fn order(&self, tier: Tier) -> Order {
        let mut order = Order::default();
        for (tier, healthy) in [
            (tier, true),
            (tier.other(), true),
            (tier, false),
            (tier.other(), false),
        ] {
            for at_home in [true, false] {
                let from = usize::from(order.len);
                self.push_all(&mut order, tier, healthy, at_home);
                if self.config.terms.is_used() {
                    self.sort(&mut order, from);
                }
            }
        }
        order
    }

    /// The same with the model at `first` before all others.
    pub(super) fn order_from(&self, first: usize, tier: Tier) -> Order {
        let mut order = Order::default();
        order.push(first);
        for other in self.order(tier).iter().filter(|other| *other != first) {
            order.push(other);
        }
        order
    }

    fn push_all(&self, order: &mut Order, tier: Tier, healthy: bool, at_home: bool) {
        for (place, model) in self.policy.models.iter().enumerate() {
            let again = |other: usize| {
                let found: Option<&Model> = self.policy.models.get(other);
                found.is_some_and(|found| found.name == model.name)
            };
            let is_own = model.dialect == self.asked.dialect;
            let is_meant = model.tier == tier && is_own == at_home;
            if is_meant
                && (self.outlook.usable)(place) == healthy
                && self.is_open(place, model)
                && !order.iter().any(again)
            {
                order.push(place);
            }
        }
    }

    /// Sorts the places from `from` on by the terms; equals keep their order.
    fn sort(&self, order: &mut Order, from: usize) {
        let Some(places) = order.places.get_mut(from..usize::from(order.len)) else {
            return;
        };
        let mut quotes = [Quote::default(); 8];
        for (quote, place) in quotes.iter_mut().zip(places.iter()) {
            *quote = (self.outlook.quote)(usize::from(*place));
        }
        let known = quotes.iter().take(places.len());
        let cheapest = known.clone().filter_map(|it| it.cost_nano_usd).min();
        let quickest = known.filter_map(|it| it.first_byte_ms).min();
        let mut ranked = [(0.0_f32, 0_u16); 8];
        for ((slot, quote), place) in ranked.iter_mut().zip(&quotes).zip(places.iter()) {
            *slot = (self.distance(quote, cheapest, quickest), *place);
        }
        let Some(ranked) = ranked.get_mut(..places.len()) else {
            return;
        };
        ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (place, (_, ranked)) in places.iter_mut().zip(ranked) {
            *place = *ranked;
        }
    }

    /// How far a model is from the best in each term; what nobody knows of it counts as the best.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a logarithm of a price needs no 24th bit"
    )]
    fn distance(&self, quote: &Quote, cheapest: Option<i64>, quickest: Option<u32>) -> f32 {
        let beyond = |value: Option<f32>, least: Option<f32>| match (value, least) {
            (Some(value), Some(least)) => (value.max(1.0) / least.max(1.0)).ln(),
            _ => 0.0,
        };
        let terms = &self.config.terms;
        let price = beyond(
            quote.cost_nano_usd.map(|it| it as f32),
            cheapest.map(|it| it as f32),
        );
        let latency = beyond(
            quote.first_byte_ms.map(|it| it as f32),
            quickest.map(|it| it as f32),
        );
        terms.price * price + terms.latency * latency
    }

    /// The endpoints of the model that the caller named; what rules and labels forbid stays forbidden,
    /// all else its vendor tells.
    pub(super) fn named(&self, name: &str) -> Result<Route, NoModel> {
        let models = &self.policy.models;
        let mut known = models.iter().filter(|model| &*model.name == name);
        let Some(model) = known.next() else {
            let mut names: Vec<&str> = models.iter().map(|model| &*model.name).collect();
            names.dedup();
            return Err(NoModel::Unknown {
                name: name.to_owned(),
                known: names.join(", "),
            });
        };
        let (mut order, mut barred) = (Order::default(), None);
        for at_home in [true, false] {
            for (place, model) in models.iter().enumerate() {
                let is_own = model.dialect == self.asked.dialect;
                if &*model.name != name || !self.asked.fits(model) || is_own != at_home {
                    continue;
                }
                match self.bar(place, model) {
                    Some(Barred::Capability | Barred::Window | Barred::Latency) | None => {
                        order.push(place);
                    }
                    Some(why) => barred = Some(why),
                }
            }
        }
        if order == Order::default() {
            return Err(match barred {
                Some(why) => NoModel::Barred {
                    why: format!("{name} ({})", why.as_str()),
                },
                None => NoModel::OtherDialect {
                    name: name.to_owned(),
                    dialect: self.asked.dialect.to_owned(),
                },
            });
        }
        let step = self.asked.step;
        Ok(Route::plain(model.tier, order, Reason::Named, step))
    }

    /// Models of the caller's reach that may not have the call, each with the reason.
    pub(super) fn barred(&self) -> impl Iterator<Item = (usize, Barred)> + '_ {
        let models = self.policy.models.iter().enumerate();
        models
            .filter(|(_, model)| self.asked.fits(model))
            .filter_map(|(place, model)| Some((place, self.bar(place, model)?)))
    }

    /// Why nobody can take the call.
    pub(super) fn nobody(&self) -> NoModel {
        let reasons: Vec<String> = self
            .barred()
            .filter_map(|(place, why)| {
                let model = self.policy.models.get(place)?;
                Some(format!("{} ({})", model.name, why.as_str()))
            })
            .collect();
        if reasons.is_empty() {
            return NoModel::NoDialect {
                dialect: self.asked.dialect.to_owned(),
            };
        }
        NoModel::Barred {
            why: reasons.join(", "),
        }
    }
}

impl Asked<'_> {
    fn fits(&self, model: &Model) -> bool {
        model.dialect == self.dialect || (self.converses && model.converses)
    }
}
