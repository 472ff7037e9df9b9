//! One decision: the tier, the order of models to try, and the reason.

use std::fmt;

use wire::Tier;

use crate::cascade::Band;
use crate::features::Features;
use crate::policy::{Model, Policy};
use crate::score::{Score, score};
use crate::split::{Choice, Split};

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
    /// The caller named the tier.
    Pinned,
    /// The caller named the model.
    Named,
    /// Only one tier has a model for such calls.
    OnlyTier,
    /// The call goes on a tool loop, and stays with the model that began it.
    Session,
    /// A budget that is nearly spent, or spent ahead of its plan, sends calls to the fast tier.
    Budget,
}

impl Reason {
    /// The word used in headers, labels and the ledger.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Score => "score",
            Self::Split => "split",
            Self::Cascade => "cascade",
            Self::Escalated => "escalated",
            Self::Pinned => "pinned",
            Self::Named => "named",
            Self::OnlyTier => "only_tier",
            Self::Session => "session",
            Self::Budget => "budget",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

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

/// Where a call goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Route {
    pub tier: Tier,
    pub order: Order,
    pub reason: Reason,
    /// The classifier's score; `None` when it was not asked.
    pub score: Option<Score>,
    /// The answer of the fast tier is checked, and may be followed by one of the deep tier.
    pub cascade: bool,
}

impl Route {
    /// Whether the split has counted the call.
    pub fn is_counted(&self) -> bool {
        matches!(
            self.reason,
            Reason::Score | Reason::Split | Reason::Cascade | Reason::Session
        )
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
    /// How near to the threshold a call is tried fast first; `None` for one that may not be.
    pub band: Option<Band>,
}

impl Asked<'_> {
    fn fits(&self, model: &Model) -> bool {
        model.dialect == self.dialect || (self.converses && model.converses)
    }
}

/// Decides where a call goes. `usable` says whether the model at a place is healthy. Only `auto`
/// looks at the text and counts in `split`.
pub fn decide(
    features: &Features<'_>,
    asked: &Asked<'_>,
    policy: &Policy,
    usable: &dyn Fn(usize) -> bool,
    split: &mut Split,
) -> Result<Route, NoModel> {
    let (wanted, dialect) = (asked.wanted, asked.dialect);
    if let Wanted::Named(name) = wanted {
        return named(name, asked, policy);
    }
    if let (Wanted::Auto, Some(route)) = (wanted, stay(asked, policy, usable, split)) {
        return Ok(route);
    }
    let speaks = |tier: Tier| {
        policy
            .models
            .iter()
            .any(|model| asked.fits(model) && model.tier == tier)
    };
    let (tier, reason, score) = match (wanted, speaks(Tier::Fast), speaks(Tier::Deep)) {
        (_, false, false) => {
            return Err(NoModel::NoDialect {
                dialect: dialect.to_owned(),
            });
        }
        (_, true, false) => (Tier::Fast, Reason::OnlyTier, None),
        (_, false, true) => (Tier::Deep, Reason::OnlyTier, None),
        (Wanted::Tier(tier), ..) => (tier, Reason::Pinned, None),
        _ => {
            let score = score(features);
            let choice = split.choose_beside(score, asked.band);
            let reason = match choice {
                Choice { near: true, .. } => Reason::Cascade,
                Choice {
                    overruled: true, ..
                } => Reason::Split,
                _ => Reason::Score,
            };
            (choice.tier, reason, Some(score))
        }
    };
    Ok(Route {
        tier,
        order: order(tier, asked, policy, usable),
        reason,
        score,
        cascade: reason == Reason::Cascade,
    })
}

/// A tool loop is not torn between models: reasoning that one began another could not go on with.
fn stay(
    asked: &Asked<'_>,
    policy: &Policy,
    usable: &dyn Fn(usize) -> bool,
    split: &mut Split,
) -> Option<Route> {
    let place = asked.stay.filter(|place| usable(*place))?;
    let model = policy.models.get(place).filter(|model| asked.fits(model))?;
    if !split.stay(model.tier) {
        return None;
    }
    let mut first = Order::default();
    first.push(place);
    for other in order(model.tier, asked, policy, usable)
        .iter()
        .filter(|other| *other != place)
    {
        first.push(other);
    }
    Some(Route {
        tier: model.tier,
        order: first,
        reason: Reason::Session,
        score: None,
        cascade: false,
    })
}

fn named(name: &str, asked: &Asked<'_>, policy: &Policy) -> Result<Route, NoModel> {
    let known = |model: &&Model| &*model.name == name;
    let Some(model) = policy.models.iter().find(known) else {
        let mut names: Vec<&str> = policy.models.iter().map(|model| &*model.name).collect();
        names.dedup();
        return Err(NoModel::Unknown {
            name: name.to_owned(),
            known: names.join(", "),
        });
    };
    let mut order = Order::default();
    for at_home in [true, false] {
        for (place, model) in policy.models.iter().enumerate() {
            let is_own = model.dialect == asked.dialect;
            if known(&model) && asked.fits(model) && is_own == at_home {
                order.push(place);
            }
        }
    }
    if order == Order::default() {
        return Err(NoModel::OtherDialect {
            name: name.to_owned(),
            dialect: asked.dialect.to_owned(),
        });
    }
    Ok(Route {
        tier: model.tier,
        order,
        reason: Reason::Named,
        score: None,
        cascade: false,
    })
}

/// Healthy models of the tier, then of the other tier, then the rest: a sick model beats none. Within
/// a tier those of the caller's own dialect come first: nothing is lost on the way to them. A model with
/// several endpoints is tried at one of them.
fn order(tier: Tier, asked: &Asked<'_>, policy: &Policy, usable: &dyn Fn(usize) -> bool) -> Order {
    let mut order = Order::default();
    let mut push_all = |tier: Tier, healthy: bool| {
        for at_home in [true, false] {
            for (place, model) in policy.models.iter().enumerate() {
                let fits = asked.fits(model) && model.tier == tier;
                let is_own = model.dialect == asked.dialect;
                let again = |other: usize| {
                    let found: Option<&Model> = policy.models.get(other);
                    found.is_some_and(|found| found.name == model.name)
                };
                let is_new = !order.iter().any(again);
                if fits && is_own == at_home && is_new && usable(place) == healthy {
                    order.push(place);
                }
            }
        }
    };
    push_all(tier, true);
    push_all(tier.other(), true);
    push_all(tier, false);
    push_all(tier.other(), false);
    order
}

/// The deep models that a call may be escalated to, healthy ones only, as [`decide`] orders them.
pub fn deeper(asked: &Asked<'_>, policy: &Policy, usable: &dyn Fn(usize) -> bool) -> Order {
    let mut deeper = Order::default();
    let is_deep = |place: &usize| {
        let model = policy.models.get(*place);
        model.is_some_and(|model| model.tier == Tier::Deep) && usable(*place)
    };
    for place in order(Tier::Deep, asked, policy, usable)
        .iter()
        .filter(is_deep)
    {
        deeper.push(place);
    }
    deeper
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use wire::Shape;

    use super::*;

    fn policy(models: &[(&str, Tier, &'static str)]) -> Policy {
        let models = models.iter().map(|(name, tier, dialect)| Model {
            name: Arc::from(*name),
            tier: *tier,
            dialect,
            converses: *dialect != "alone",
            context: None,
        });
        Policy::new(models.collect()).expect("a policy")
    }

    fn route(policy: &Policy, model: &str, sick: &[usize]) -> Result<Route, NoModel> {
        let features = Features {
            text: "Hello",
            shape: &Shape::default(),
        };
        let usable = |place| !sick.contains(&place);
        let asked = Asked {
            wanted: Wanted::parse(model),
            dialect: "a",
            converses: true,
            stay: None,
            band: None,
        };
        decide(&features, &asked, policy, &usable, &mut Split::new(200))
    }

    #[test]
    fn the_order_is_the_tier_then_the_other_then_the_sick() {
        let policy = policy(&[
            ("f1", Tier::Fast, "a"),
            ("d1", Tier::Deep, "a"),
            ("f2", Tier::Fast, "a"),
            ("other", Tier::Fast, "b"),
            ("vectors", Tier::Fast, "alone"),
            ("f2", Tier::Fast, "b"),
        ]);
        let places = |model: &str, sick: &[usize]| {
            let route = route(&policy, model, sick).expect("a route");
            (route.order.iter().collect::<Vec<_>>(), route.reason)
        };
        assert_eq!(places("fast", &[]), (vec![0, 2, 3, 1], Reason::Pinned));
        assert_eq!(places("fast", &[0]), (vec![2, 3, 1, 0], Reason::Pinned));
        assert_eq!(places("deep", &[1]), (vec![0, 2, 3, 1], Reason::Pinned));
        assert_eq!(places("d1", &[]), (vec![1], Reason::Named));
        assert_eq!(places("f2", &[]), (vec![2, 5], Reason::Named));
        assert_eq!(places("fast", &[2]), (vec![0, 3, 5, 1], Reason::Pinned));
        assert!(matches!(
            route(&policy, "vectors", &[]),
            Err(NoModel::OtherDialect { .. })
        ));
        let unknown = route(&policy, "gpt", &[]).expect_err("no such model");
        assert!(unknown.to_string().contains("f1, d1, f2"), "{unknown}");
    }

    #[test]
    fn a_tool_loop_stays_with_its_model_while_the_count_allows() {
        let policy = policy(&[("f", Tier::Fast, "a"), ("d", Tier::Deep, "b")]);
        let features = Features {
            text: "Hello",
            shape: &Shape::default(),
        };
        let asked = Asked {
            wanted: Wanted::Auto,
            dialect: "a",
            converses: true,
            stay: Some(1),
            band: None,
        };
        let mut split = Split::new(200);
        let mut stays = || {
            let route = decide(&features, &asked, &policy, &|_| true, &mut split);
            route.expect("a route").reason == Reason::Session
        };
        assert!((0..6).all(|_| stays()));
        assert!(!stays(), "five calls beyond the target of one in five");
    }

    #[test]
    fn a_call_near_the_threshold_is_tried_fast_first_and_counted_so() {
        let policy = policy(&[("f", Tier::Fast, "a"), ("d", Tier::Deep, "b")]);
        let features = Features {
            text: "Prove that the group of order 56 has a normal Sylow subgroup.",
            shape: &Shape::default(),
        };
        let route = |wanted: Wanted<'_>, band: Option<Band>, split: &mut Split| {
            let asked = Asked {
                wanted,
                dialect: "a",
                converses: true,
                stay: None,
                band,
            };
            let deeper: Vec<_> = deeper(&asked, &policy, &|_| true).iter().collect();
            assert_eq!(deeper, [1]);
            let route = decide(&features, &asked, &policy, &|_| true, split);
            route.expect("a route")
        };
        let all = Some(Band {
            below: 1.0,
            above: 1.0,
        });
        let mut split = Split::new(200);
        let near = route(Wanted::Auto, all, &mut split);
        assert_eq!((near.tier, near.cascade), (Tier::Fast, true));
        assert_eq!((near.reason, near.is_counted()), (Reason::Cascade, true));
        assert_eq!(split.counts(), (1, 0));
        assert!(split.escalate());
        assert_eq!(split.counts(), (1, 1));
        for wanted in [Wanted::Tier(Tier::Fast), Wanted::Named("f")] {
            assert!(!route(wanted, all, &mut split).cascade);
        }
        assert!(!route(Wanted::Auto, None, &mut split).cascade);
    }

    #[test]
    fn one_tier_alone_takes_everything_and_is_not_counted() {
        let policy = policy(&[("d", Tier::Deep, "a")]);
        let route = route(&policy, "auto", &[]).expect("a route");
        assert_eq!(
            (route.tier, route.reason, route.is_counted()),
            (Tier::Deep, Reason::OnlyTier, false)
        );
    }
}
