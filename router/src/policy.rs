//! Which models there are, in the order of preference.

use std::collections::HashSet;
use std::sync::Arc;

use serde::Deserialize;
use wire::{Shape, Tier};

use crate::rules::Rules;

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
    /// Where its endpoint is.
    pub region: Option<Arc<str>>,
    /// The place of the most sensitive label that it may see; the least sensitive one if absent.
    pub label: Option<usize>,
    /// What it can not do.
    pub lacks: Needs,
}

impl Model {
    /// A model that can do everything, for conversations.
    pub fn new(name: &str, tier: Tier, dialect: &'static str) -> Self {
        Self {
            name: Arc::from(name),
            tier,
            dialect,
            converses: true,
            context: None,
            region: None,
            label: None,
            lacks: Needs::default(),
        }
    }
}

/// What a call needs a model to be able to do; or what a model lacks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Vec<Need>")]
pub struct Needs(u8);

/// One ability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    Tools,
    Images,
    Files,
    /// Answers that keep to a schema.
    Schema,
    Thinking,
}

impl Needs {
    /// What a call of this shape needs.
    pub fn of(shape: &Shape) -> Self {
        let needs = [
            (Need::Tools, shape.tools > 0),
            (Need::Images, shape.images > 0),
            (Need::Files, shape.files > 0),
            (Need::Schema, shape.schema),
            (Need::Thinking, shape.thinking),
        ];
        let needed = needs.into_iter().filter(|(_, is)| *is);
        needed.map(|(need, _)| need).collect()
    }

    /// A shape with these needs and nothing else.
    pub fn shape(self) -> Shape {
        let has = |need: Need| self.0 & (1 << need as u8) != 0;
        Shape {
            tools: u32::from(has(Need::Tools)),
            images: u32::from(has(Need::Images)),
            files: u32::from(has(Need::Files)),
            schema: has(Need::Schema),
            thinking: has(Need::Thinking),
            ..Shape::default()
        }
    }

    /// Whether both have something.
    pub fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// As one number, for a record.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// From a record.
    pub fn from_bits(bits: u8) -> Self {
        Self(bits)
    }
}

impl FromIterator<Need> for Needs {
    fn from_iter<I: IntoIterator<Item = Need>>(needs: I) -> Self {
        Self(
            needs
                .into_iter()
                .fold(0, |bits, need| bits | 1 << need as u8),
        )
    }
}

impl From<Vec<Need>> for Needs {
    fn from(needs: Vec<Need>) -> Self {
        needs.into_iter().collect()
    }
}

/// The models of a configuration. Places in the list are what routes name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub(crate) models: Vec<Model>,
    pub(crate) rules: Rules,
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
    ///
    /// # Errors
    /// When there are none, or two of one name in one dialect.
    pub fn new(models: Vec<Model>, rules: Rules) -> Result<Self, PolicyError> {
        if models.is_empty() {
            return Err(PolicyError::Empty);
        }
        let mut names = HashSet::new();
        let again = |model: &&Model| !names.insert((Arc::clone(&model.name), model.dialect));
        match models.iter().find(again) {
            Some(twice) => Err(PolicyError::Twice(Arc::clone(&twice.name))),
            None => Ok(Self { models, rules }),
        }
    }

    /// The operator's rules.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The models, preferred ones first.
    pub fn models(&self) -> &[Model] {
        &self.models
    }
}
