//! What a budget covers: a node of the tree, a user, a task, some models, or each one of a kind.

use std::sync::Arc;

use crate::Subject;

/// What a budget covers. `*` stands for each name of its own: such a budget is a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Scope {
    /// Team, project, key, user and task, in this order.
    pub(super) names: [Option<Arc<str>>; LEVELS.len()],
    models: Vec<Arc<str>>,
}

/// What can be named below a tenant, widest first.
const LEVELS: [&str; 5] = ["team", "project", "key", "user", "task"];
pub(super) const EACH: &str = "*";

/// What `subject` is called on each of the levels; empty where it has no name.
pub(crate) fn names(subject: &Subject) -> [&Arc<str>; LEVELS.len()] {
    [
        &subject.team,
        &subject.project,
        &subject.key,
        &subject.user,
        &subject.task,
    ]
}

impl Scope {
    pub(super) fn new(named: [&Option<String>; LEVELS.len()], models: &[String]) -> Self {
        Self {
            names: named.map(|name| name.as_deref().map(Arc::from)),
            models: models
                .iter()
                .map(|model| Arc::from(model.as_str()))
                .collect(),
        }
    }

    /// Whether a call of `subject` to `model` counts against it. The tenant has matched before.
    pub(crate) fn covers(&self, subject: &Subject, model: &str) -> bool {
        let named = self.names.iter().zip(names(subject)).all(|(want, is)| {
            want.as_ref()
                .is_none_or(|want| want == is || (&**want == EACH && !is.is_empty()))
        });
        named && (self.models.is_empty() || self.models.iter().any(|name| &**name == model))
    }

    /// Whether it stands for many budgets, one for each name.
    pub(crate) fn is_pattern(&self) -> bool {
        self.names.iter().flatten().any(|name| &**name == EACH)
    }

    /// The scope of `subject` alone, of a pattern that covers it.
    pub(crate) fn of(&self, subject: &Subject) -> Self {
        let mut own = self.clone();
        for (name, is) in own.names.iter_mut().zip(names(subject)) {
            if name.as_deref() == Some(EACH) {
                *name = Some(Arc::clone(is));
            }
        }
        own
    }

    /// The place among the levels, and the name, of the narrowest thing it names.
    pub(crate) fn narrowest(&self) -> Option<(usize, &Arc<str>)> {
        let mut named = self.names.iter().enumerate().rev();
        named.find_map(|(place, name)| Some((place, name.as_ref()?)))
    }

    pub(super) fn level(&self) -> &'static str {
        match self.narrowest() {
            Some((place, _)) => LEVELS.get(place).copied().unwrap_or("tenant"),
            None if !self.models.is_empty() => "model",
            None => "tenant",
        }
    }

    /// Whether everything that `other` covers is covered by it as well.
    pub(super) fn contains(&self, other: &Self) -> bool {
        let wider =
            |(mine, its): (&Option<Arc<str>>, &Option<Arc<str>>)| mine.is_none() || mine == its;
        self.names.iter().zip(&other.names).all(wider)
            && (self.models.is_empty() || self.models == other.models)
    }

    /// What it names, by level, widest first; each model by itself.
    pub(super) fn named(&self) -> Vec<(&'static str, String)> {
        let levels = LEVELS.iter().zip(&self.names);
        let names = levels.filter_map(|(level, name)| Some((*level, name.as_ref()?.to_string())));
        let models = self.models.iter().map(|model| ("model", model.to_string()));
        names.chain(models).collect()
    }

    /// Its part of a name: `/team:search/key:0123`.
    pub(super) fn path(&self) -> String {
        let mut path = String::new();
        for (level, name) in LEVELS.iter().zip(&self.names) {
            if let Some(name) = name {
                path = format!("{path}/{level}:{name}");
            }
        }
        if !self.models.is_empty() {
            path = format!("{path}/models:{}", self.models.join("+"));
        }
        path
    }
}
