//! Which models there are, in the order of preference.

use std::collections::HashSet;
use std::sync::Arc;

use wire::Tier;

use crate::step::StepPriors;

/// A model that calls can go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    pub name: Arc<str>,
    pub tier: Tier,
    /// The dialect its endpoint speaks.
    pub dialect: &'static str,
    /// Whether that is a conversation's dialect, which any call of a conversation can be brought into.
    pub converses: bool,
    /// The longest prompt it takes, in tokens, where that is known.
    pub context: Option<u64>,
}

/// The models of a configuration. Places in the list are what routes name.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    pub(crate) models: Vec<Model>,
    /// What each step adds to the score.
    pub(crate) steps: StepPriors,
}

/// The models make no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    #[error("no model is configured; add a [[model]]")]
    Empty,
    #[error("model `{0}` stands twice in one dialect; rename one")]
    Twice(Arc<str>),
}

impl Policy {
    /// A policy over `models`, preferred ones first.
    pub fn new(models: Vec<Model>) -> Result<Self, PolicyError> {
        if models.is_empty() {
            return Err(PolicyError::Empty);
        }
        let mut names = HashSet::new();
        let again = |model: &&Model| !names.insert((Arc::clone(&model.name), model.dialect));
        match models.iter().find(again) {
            Some(twice) => Err(PolicyError::Twice(Arc::clone(&twice.name))),
            None => Ok(Self {
                models,
                steps: StepPriors::default(),
            }),
        }
    }

    /// The policy with other priors of steps.
    #[must_use]
    pub fn with_steps(self, steps: StepPriors) -> Self {
        Self { steps, ..self }
    }
}
