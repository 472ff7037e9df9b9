//! One decision: the tier, the order of models to try, and the reason.

use std::fmt;

use wire::Tier;

use crate::features::Features;
use crate::policy::{Model, Policy};
use crate::score::{Score, score};
use crate::split::Split;

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
    /// The caller named the tier.
    Pinned,
    /// The caller named the model.
    Named,
    /// Only one tier has a model that speaks the dialect.
    OnlyTier,
}

impl Reason {
    /// The word used in headers, labels and the ledger.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Score => "score",
            Self::Split => "split",
            Self::Pinned => "pinned",
            Self::Named => "named",
            Self::OnlyTier => "only_tier",
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
}

impl Route {
    /// Whether the split has counted the call.
    pub fn is_counted(&self) -> bool {
        matches!(self.reason, Reason::Score | Reason::Split)
    }
}

/// No model can take the call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoModel {
    #[error("no model `{name}`; write auto, fast, deep or one of {known}")]
    Unknown { name: String, known: String },
    #[error("model `{name}` does not speak {dialect}; call it at its own dialect's path")]
    OtherDialect { name: String, dialect: String },
    #[error("no model speaks {dialect}; add an [[endpoint]] of this dialect")]
    NoDialect { dialect: String },
}

/// Decides where a call in `dialect` goes. `usable` says whether the model at a place is healthy.
/// Only `auto` looks at the text and counts in `split`.
pub fn decide(
    features: &Features<'_>,
    wanted: Wanted<'_>,
    dialect: &str,
    policy: &Policy,
    usable: &dyn Fn(usize) -> bool,
    split: &mut Split,
) -> Result<Route, NoModel> {
    if let Wanted::Named(name) = wanted {
        return named(name, dialect, policy);
    }
    let speaks = |tier: Tier| {
        policy
            .models
            .iter()
            .any(|model| model.dialect == dialect && model.tier == tier)
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
            let choice = split.choose(score);
            let reason = if choice.overruled {
                Reason::Split
            } else {
                Reason::Score
            };
            (choice.tier, reason, Some(score))
        }
    };
    Ok(Route {
        tier,
        order: order(tier, dialect, policy, usable),
        reason,
        score,
    })
}

fn named(name: &str, dialect: &str, policy: &Policy) -> Result<Route, NoModel> {
    let found = policy
        .models
        .iter()
        .enumerate()
        .find(|(_, model)| &*model.name == name);
    let Some((place, model)) = found else {
        let names: Vec<&str> = policy.models.iter().map(|model| &*model.name).collect();
        let known = names.join(", ");
        return Err(NoModel::Unknown {
            name: name.to_owned(),
            known,
        });
    };
    if model.dialect != dialect {
        let dialect = dialect.to_owned();
        return Err(NoModel::OtherDialect {
            name: name.to_owned(),
            dialect,
        });
    }
    let mut order = Order::default();
    order.push(place);
    Ok(Route {
        tier: model.tier,
        order,
        reason: Reason::Named,
        score: None,
    })
}

/// Healthy models of the tier, then of the other tier, then the rest: a sick model beats none.
fn order(tier: Tier, dialect: &str, policy: &Policy, usable: &dyn Fn(usize) -> bool) -> Order {
    let mut order = Order::default();
    let mut push_all = |tier: Tier, healthy: bool| {
        let fits = |model: &Model| model.dialect == dialect && model.tier == tier;
        for (place, model) in policy.models.iter().enumerate() {
            if fits(model) && usable(place) == healthy {
                order.push(place);
            }
        }
    };
    push_all(tier, true);
    push_all(tier.other(), true);
    push_all(tier, false);
    push_all(tier.other(), false);
    order
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
        decide(
            &features,
            Wanted::parse(model),
            "a",
            policy,
            &usable,
            &mut Split::new(200),
        )
    }

    #[test]
    fn the_order_is_the_tier_then_the_other_then_the_sick() {
        let policy = policy(&[
            ("f1", Tier::Fast, "a"),
            ("d1", Tier::Deep, "a"),
            ("f2", Tier::Fast, "a"),
            ("other", Tier::Fast, "b"),
        ]);
        let places = |model: &str, sick: &[usize]| {
            let route = route(&policy, model, sick).expect("a route");
            (route.order.iter().collect::<Vec<_>>(), route.reason)
        };
        assert_eq!(places("fast", &[]), (vec![0, 2, 1], Reason::Pinned));
        assert_eq!(places("fast", &[0]), (vec![2, 1, 0], Reason::Pinned));
        assert_eq!(places("deep", &[1]), (vec![0, 2, 1], Reason::Pinned));
        assert_eq!(places("d1", &[]), (vec![1], Reason::Named));
        assert!(matches!(
            route(&policy, "other", &[]),
            Err(NoModel::OtherDialect { .. })
        ));
        let unknown = route(&policy, "gpt", &[]).expect_err("no such model");
        assert!(unknown.to_string().contains("f1, d1, f2"), "{unknown}");
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
