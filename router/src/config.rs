//! The router's part of the configuration.

use serde::Deserialize;

use crate::cascade::Cascade;
use crate::rules::Rule;
use crate::step::StepPriors;
use crate::switch::SwitchConfig;

/// The class of calls that no rule gives another.
pub const DEFAULT_CLASS: &str = "default";

/// `[policy]`: what calls may and may not become.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyConfig {
    /// What happens to a call whose translation would lose something.
    pub loss: LossPolicy,
    /// Sensitivity labels, from the least to the most sensitive.
    pub labels: Vec<String>,
    /// What holds for some calls.
    #[serde(rename = "rule")]
    pub rules: Vec<Rule>,
}

/// What happens to a call whose translation would lose something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LossPolicy {
    /// It goes on; header, metric and log say what was lost.
    #[default]
    Report,
    /// It is refused, unless another model can take it without loss.
    Refuse,
}

impl PolicyConfig {
    /// Whether a call that would lose something is refused.
    pub fn refuses_losses(&self) -> bool {
        self.loss == LossPolicy::Refuse
    }
}

/// `[routing]`: how calls to `auto` are shared out.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The share of `auto` calls that goes to the deep tier, in thousandths, for each tenant.
    pub deep_per_thousand: u16,
    pub cascade: Cascade,
    /// The share of scored calls, in thousandths, whose tier is drawn by lot: what all estimates of
    /// routing's worth rest on.
    pub control_per_thousand: u16,
    /// Classes with targets of their own.
    #[serde(rename = "class")]
    pub classes: Vec<Class>,
    pub terms: Terms,
    pub switch: SwitchConfig,
    /// What each step of an agent's work adds to the score, in log-odds.
    pub step: StepPriors,
}

/// `[[routing.class]]`: calls that are counted by themselves.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// The name that rules give to calls.
    pub name: String,
    /// Its share of deep calls, in thousandths, for each tenant.
    pub deep_per_thousand: u16,
}

/// `[routing.terms]`: what the order of models within a tier depends on. Each model is `price` times
/// the logarithm of its price against the cheapest, and `latency` times that of its time to the first
/// content against the quickest, away from being the first; without either, the order is as listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Terms {
    pub price: f32,
    pub latency: f32,
}

impl Terms {
    /// Whether anything but the list matters.
    pub fn is_used(&self) -> bool {
        self.price != 0.0 || self.latency != 0.0
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            deep_per_thousand: 200,
            cascade: Cascade::default(),
            control_per_thousand: 10,
            classes: Vec::new(),
            terms: Terms::default(),
            switch: SwitchConfig::default(),
            step: StepPriors::default(),
        }
    }
}

impl Config {
    /// The share of deep calls of a class, in thousandths.
    pub fn target(&self, class: &str) -> u16 {
        let own = self.classes.iter().find(|it| it.name == class);
        own.map_or(self.deep_per_thousand, |class| class.deep_per_thousand)
    }
}
