//! One decision: the tier, the order of models to try, and the reason.

mod field;
#[cfg(test)]
mod tests;

use std::fmt;

use wire::Tier;

use crate::cascade::Band;
use crate::config::Config;
use crate::features::Features;
use crate::learn::Head;
use crate::policy::Policy;
use crate::rules::{Barred, Ruling};
use crate::score::{Layers, Score, layers};
use crate::split::{Choice, Split};
use crate::step::{Step, shifted};
use crate::switch::{Stakes, gain};

use field::Field;
pub use field::Order;

/// What the caller wrote as `model`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// The router chooses.
    Auto,
    /// A tier.
    Tier(Tier),
    /// A model by name.
    Named(&'a str),
}

impl<'a> Wanted<'a> {
    /// Reads `auto`, `fast`, `deep` or a name.
    pub fn parse(model: &'a str) -> Self {
        match model {
            "auto" => Self::Auto,
            "fast" => Self::Tier(Tier::Fast),
            "deep" => Self::Tier(Tier::Deep),
            name => Self::Named(name),
        }
    }
}

/// Why a tier was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The score, against the threshold that holds the split.
    Score,
    /// The split's debt ledger, against the score.
    Split,
    /// The score is near the threshold: fast first, and deep if that answer fails a check.
    Cascade,
    /// A fast answer failed a check. No decision has this reason, the attempt that follows it does.
    Escalated,
    /// The lot, for the control group.
    Control,
    /// The caller named the tier.
    Pinned,
    /// The caller named the model.
    Named,
    /// A rule of the operator's names the tier.
    Rule,
    /// Only one tier has a model for such calls.
    OnlyTier,
    /// The call goes on a tool loop, and stays with the model that began it.
    Session,
    /// The prompt cache that a change of the model would lose is worth more than the change.
    Cache,
    /// A budget that is nearly spent, or spent ahead of its plan, sends calls to the fast tier.
    Budget,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 12] = [
        Self::Score,
        Self::Split,
        Self::Cascade,
        Self::Escalated,
        Self::Control,
        Self::Pinned,
        Self::Named,
        Self::Rule,
        Self::OnlyTier,
        Self::Session,
        Self::Cache,
        Self::Budget,
    ];

    /// The word used in headers, labels and the ledger.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Score => "score",
            Self::Split => "split",
            Self::Cascade => "cascade",
            Self::Escalated => "escalated",
            Self::Control => "control",
            Self::Pinned => "pinned",
            Self::Named => "named",
            Self::Rule => "rule",
            Self::OnlyTier => "only_tier",
            Self::Session => "session",
            Self::Cache => "cache",
            Self::Budget => "budget",
        }
    }

    /// What it means, for people.
    pub const fn explained(self) -> &'static str {
        match self {
            Self::Score => "the classifier's score, against the threshold that holds the split",
            Self::Split => "the split, which overruled the score to hold its target",
            Self::Cascade => {
                "the score is near the threshold: fast first, deep if that fails a check"
            }
            Self::Escalated => "the fast answer before it failed a check",
            Self::Control => "the lot: this call is one of the control group",
            Self::Pinned => "the caller named the tier",
            Self::Named => "the caller named the model",
            Self::Rule => "a rule of the operator's names the tier",
            Self::OnlyTier => "only this tier has a model that may take the call",
            Self::Session => "a tool loop under way stays with the model that began it",
            Self::Cache => "a change of the model would lose a prompt cache that is worth more",
            Self::Budget => {
                "a budget that is nearly spent, or ahead of its plan, sends calls to the fast tier"
            }
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a call goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Route {
    pub tier: Tier,
    pub order: Order,
    pub reason: Reason,
    /// The classifier's score, with the prior of the step; `None` when it was not asked.
    pub score: Option<Score>,
    pub step: Step,
    /// The score above which calls went deep, where the score was asked.
    pub threshold: Option<f32>,
    /// What the last layer saw, where the score was asked anew.
    pub layers: Option<Layers>,
    /// How likely the tier was, over the lot that the control group draws; 1 where nothing was drawn.
    pub propensity: f32,
    /// What a change of the model loses by the conversation's cache, in nano-USD; 0 without a change.
    pub lost_nano_usd: i64,
    /// The answer of the fast tier is checked, and may be followed by one of the deep tier.
    pub cascade: bool,
    /// The models to ask then.
    pub deeper: Order,
}

impl Route {
    /// Whether the split has counted the call.
    pub fn is_counted(&self) -> bool {
        matches!(
            self.reason,
            Reason::Score
                | Reason::Split
                | Reason::Cascade
                | Reason::Session
                | Reason::Cache
                | Reason::Control
        )
    }

    fn plain(tier: Tier, order: Order, reason: Reason, step: Step) -> Self {
        Self {
            tier,
            order,
            reason,
            score: None,
            step,
            threshold: None,
            layers: None,
            propensity: 1.0,
            lost_nano_usd: 0,
            cascade: false,
            deeper: Order::default(),
        }
    }
}

/// No model can take the call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoModel {
    #[error("no model `{name}`; write auto, fast, deep or one of {known}")]
    Unknown { name: String, known: String },
    #[error("model `{name}` can not answer a call of {dialect}; name another model")]
    OtherDialect { name: String, dialect: String },
    #[error("no model can answer a call of {dialect}; add an [[endpoint]] of this dialect")]
    NoDialect { dialect: String },
    #[error("no model may have this call: {why}; ask for less, or have the policy changed")]
    Barred { why: String },
    #[error("{0}")]
    Refused(String),
}

/// What the call is, besides its text.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub wanted: Wanted<'a>,
    /// The caller's dialect.
    pub dialect: &'a str,
    /// Whether it is a conversation, which models of other dialects can carry on.
    pub converses: bool,
    /// The place of the model that the tool loop which this call goes on began with.
    pub stay: Option<usize>,
    /// The place of the model that the conversation's last answer came from, while its cache is warm.
    pub seat: Option<usize>,
    pub step: Step,
    /// The score of an earlier decision, where that is made again.
    pub score: Option<Score>,
    /// What the text shows, where it was looked at beforehand; see [`Asked::reads_text`].
    pub seen: Option<Layers>,
    /// The tenant's last layer.
    pub head: &'a Head,
    /// What the operator's rules say.
    pub ruling: &'a Ruling,
    /// About how long the prompt is, in tokens.
    pub prompt_tokens: u64,
    /// Random bits.
    pub luck: u64,
    /// How near to the threshold a call is tried fast first; `None` for one that may not be.
    pub band: Option<Band>,
    /// What the splits that are mixed with this one owe together; see [`Split::choose_within`].
    pub debt: i64,
}

impl Asked<'_> {
    /// Whether the decision most likely looks at the text. That takes microseconds: who shares a split with
    /// other threads does it before locking it, with [`layers`], and leaves it in `seen`.
    pub fn reads_text(&self, policy: &Policy) -> bool {
        let has = |tier| policy.models.iter().any(|model| model.tier == tier);
        let is_open = self.wanted == Wanted::Auto && self.stay.is_none() && self.score.is_none();
        let is_ruled = self.ruling.tier.is_some() || self.ruling.refused.is_some();
        is_open && !is_ruled && has(Tier::Fast) && has(Tier::Deep)
    }
}

/// What is known of the models now, by their places.
#[derive(Clone, Copy)]
pub struct Outlook<'a> {
    /// Whether it is healthy.
    pub usable: &'a dyn Fn(usize) -> bool,
    pub quote: &'a dyn Fn(usize) -> Quote,
    /// What a conversation has at stake that would change from the first model to the second.
    pub stakes: &'a dyn Fn(usize, usize) -> Stakes,
}

impl fmt::Debug for Outlook<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outlook")
    }
}

/// What a call costs at a model, and how long its first content has taken lately, where that is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quote {
    pub cost_nano_usd: Option<i64>,
    pub first_byte_ms: Option<u32>,
}

/// Decides where a call goes. Only `auto` looks at the text and counts in `split`.
///
/// # Errors
/// When no model can, or may, take it.
pub fn decide(
    features: &Features<'_>,
    asked: &Asked<'_>,
    policy: &Policy,
    config: &Config,
    outlook: &Outlook<'_>,
    split: &mut Split,
) -> Result<Route, NoModel> {
    if let Some(words) = &asked.ruling.refused {
        return Err(NoModel::Refused(words.clone()));
    }
    let field = Field::new(features, asked, policy, config, outlook);
    if let Wanted::Named(name) = asked.wanted {
        return field.named(name);
    }
    let ruled = asked.ruling.tier.filter(|_| asked.wanted == Wanted::Auto);
    if let (Wanted::Auto, None, Some(route)) = (asked.wanted, ruled, stay(&field, split)) {
        return Ok(route);
    }
    let plain = |tier, reason| Route::plain(tier, field.order(tier), reason, asked.step);
    match (asked.wanted, field.has(Tier::Fast), field.has(Tier::Deep)) {
        (_, false, false) => Err(field.nobody()),
        (_, true, false) => Ok(plain(Tier::Fast, Reason::OnlyTier)),
        (_, false, true) => Ok(plain(Tier::Deep, Reason::OnlyTier)),
        (Wanted::Tier(tier), ..) => Ok(plain(tier, Reason::Pinned)),
        _ => Ok(match ruled {
            Some(tier) => plain(tier, Reason::Rule),
            None => scored(features, &field, split),
        }),
    }
}

/// A tool loop is not torn between models: reasoning that one began another could not go on with.
fn stay(field: &Field<'_>, split: &mut Split) -> Option<Route> {
    let place = field.asked.stay?;
    let tier = field.sits(place)?;
    split.stay(tier).then(|| {
        let order = field.order_from(place, tier);
        Route::plain(tier, order, Reason::Session, field.asked.step)
    })
}

/// By the score: by lot for the control group, with what a change of the model is worth otherwise.
fn scored(features: &Features<'_>, field: &Field<'_>, split: &mut Split) -> Route {
    let asked = field.asked;
    let seen = asked.score.is_none();
    let seen = seen.then(|| asked.seen.unwrap_or_else(|| layers(features)));
    let score = match (asked.score, &seen) {
        (None, Some(layers)) => {
            let prior = field.config.step.of(asked.step, features.shape);
            shifted(asked.head.score(layers), prior)
        }
        (known, _) => known.unwrap_or(Score(0.0)),
    };
    let threshold = split.threshold();
    let share = f32::from(split.target()) / 1_000.0;
    let control = f32::from(field.config.control_per_thousand.min(1_000)) / 1_000.0;
    let lot = |tier| {
        control
            * if tier == Tier::Deep {
                share
            } else {
                1.0 - share
            }
    };
    let route = |tier, order, reason, propensity| Route {
        score: Some(score),
        threshold: Some(threshold),
        layers: seen,
        propensity,
        ..Route::plain(tier, order, reason, asked.step)
    };
    let seated = seated(field);
    let lost = |tier| seated.map_or(0, |it| i64::from(it.sits != tier) * it.stakes.lost_nano_usd);
    if let Some(drawn) = drawn(field.config, split.target(), asked.luck) {
        let chosen = alone(score, seated, field, &mut split.clone()).tier;
        if split.stay(drawn) {
            let own = if chosen == drawn { 1.0 - control } else { 0.0 };
            let order = field.order(drawn);
            return Route {
                lost_nano_usd: lost(drawn),
                ..route(drawn, order, Reason::Control, own + lot(drawn))
            };
        }
    }
    let Alone {
        tier,
        place,
        reason,
    } = alone(score, seated, field, split);
    let order = match place {
        Some(place) => field.order_from(place, tier),
        None => field.order(tier),
    };
    let cascade = reason == Reason::Cascade;
    let deeper = cascade.then(|| field.order(Tier::Deep));
    Route {
        lost_nano_usd: lost(tier),
        cascade,
        deeper: deeper.unwrap_or_default(),
        ..route(tier, order, reason, 1.0 - control + lot(tier))
    }
}

/// What is chosen where no lot is drawn.
struct Alone {
    tier: Tier,
    /// The model that the conversation rests with.
    place: Option<usize>,
    reason: Reason,
}

/// By the score, for a conversation with what a change of its model is worth.
fn alone(score: Score, seated: Option<Seated>, field: &Field<'_>, split: &mut Split) -> Alone {
    if let Some(it) = seated.filter(|it| it.stakes.lost_nano_usd > 0)
        && let Some(reason) = rests(&it, score, field, split)
    {
        return Alone {
            tier: it.sits,
            place: Some(it.place),
            reason,
        };
    }
    let choice = split.choose_within(score, field.asked.band, field.asked.debt);
    Alone {
        tier: choice.tier,
        place: None,
        reason: reason_of(choice),
    }
}

fn reason_of(choice: Choice) -> Reason {
    match (choice.near, choice.overruled) {
        (true, _) => Reason::Cascade,
        (_, true) => Reason::Split,
        _ => Reason::Score,
    }
}

/// Where a conversation sits, and what is at stake if it goes to the other tier.
#[derive(Debug, Clone, Copy)]
struct Seated {
    place: usize,
    sits: Tier,
    stakes: Stakes,
}

fn seated(field: &Field<'_>) -> Option<Seated> {
    let place = field.asked.seat?;
    let sits = field.sits(place)?;
    let other = field.order(sits.other()).iter().next()?;
    Some(Seated {
        place,
        sits,
        stakes: (field.outlook.stakes)(place, other),
    })
}

/// Why a conversation with a cache to lose rests where it sits, if it does: the split may not change
/// its model for the split's own sake either, as long as the count allows that.
fn rests(it: &Seated, score: Score, field: &Field<'_>, split: &mut Split) -> Option<Reason> {
    let wanted = split.wants(score);
    let premium = it.stakes.premium_nano_usd;
    let gain = gain(score, split.threshold(), premium, wanted == Tier::Deep);
    let changes = wanted != it.sits && field.config.switch.pays(gain, &it.stakes);
    let reason = if wanted == it.sits {
        Reason::Score
    } else {
        Reason::Cache
    };
    (!changes && split.stay(it.sits)).then_some(reason)
}

/// The tier that is drawn for a call of the control group: deep as often as the split's target.
fn drawn(config: &Config, target: u16, luck: u64) -> Option<Tier> {
    let thousandth = |bits: u64| u16::try_from(bits % 1_000).unwrap_or(0);
    let is_control = thousandth(luck) < config.control_per_thousand;
    let is_deep = thousandth(luck / 1_000) < target;
    is_control.then_some(if is_deep { Tier::Deep } else { Tier::Fast })
}

/// The models that may not have a call, each with the reason: what an explanation shows.
pub fn barred(
    features: &Features<'_>,
    asked: &Asked<'_>,
    policy: &Policy,
    config: &Config,
    outlook: &Outlook<'_>,
) -> Vec<(usize, Barred)> {
    let field = Field::new(features, asked, policy, config, outlook);
    field.barred().collect()
}
