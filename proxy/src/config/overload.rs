//! `[overload]`: what happens when more comes than can be served.

use std::time::Duration;

use serde::Deserialize;

use crate::admission::Priority;

/// Bounds beyond which calls wait or are turned away.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Overload {
    /// The longest that a call waits for a place, in milliseconds.
    pub queue_ms: u64,
    /// How many may wait; as many as may be in flight if absent.
    pub queue: Option<usize>,
    /// What is filled when calls of these priorities are turned away, of what calls may fill at all.
    pub batch_percent: usize,
    pub best_effort_percent: usize,
    /// How late the threads that serve callers may be, in milliseconds.
    pub lag_ms: u64,
    /// Memory of the process, in MiB; what the machine or the control group leaves it for 0.
    pub memory_mb: u64,
    /// Memory for what callers are sending, in MiB; an eighth of all for 0.
    pub bodies_mb: u64,
    /// What tenants get of places that are short; the first that fits counts.
    #[serde(rename = "share")]
    pub shares: Vec<Portion>,
}

/// What a tenant gets of places that are short.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Portion {
    /// A pattern, in which `*` stands for any text.
    pub tenant: String,
    /// Its part, against 1 of those that are not named.
    #[serde(default = "one")]
    pub weight: u32,
    /// The most urgent that its calls may be, and are where they do not say.
    #[serde(default)]
    pub priority: Priority,
}

const fn one() -> u32 {
    1
}

impl Default for Overload {
    fn default() -> Self {
        Self {
            queue_ms: 1_000,
            queue: None,
            batch_percent: 85,
            best_effort_percent: 70,
            lag_ms: 500,
            memory_mb: 0,
            bodies_mb: 0,
            shares: Vec::new(),
        }
    }
}

impl Overload {
    pub(crate) fn queue(&self) -> Duration {
        Duration::from_millis(self.queue_ms)
    }

    /// How many may wait, where `places` may be in flight.
    pub(crate) fn queue_places(&self, places: usize) -> usize {
        self.queue.unwrap_or(places)
    }

    /// How much of everything calls of a priority may fill.
    pub(crate) fn percent(&self, priority: Priority) -> usize {
        match priority {
            Priority::Interactive => 100,
            Priority::Batch => self.batch_percent,
            Priority::BestEffort => self.best_effort_percent,
        }
    }

    /// What `tenant` gets, where it is named.
    pub(crate) fn of(&self, tenant: &str) -> Option<&Portion> {
        let fits = |it: &&Portion| router::rules::fits(&it.tenant, tenant);
        self.shares.iter().find(fits)
    }

    /// What can not be, by key.
    pub(super) fn problems(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for (key, value) in [
            ("batch_percent", self.batch_percent),
            ("best_effort_percent", self.best_effort_percent),
        ] {
            if !(1..=100).contains(&value) {
                let message = format!("`{value}` is no part of a hundred; write 1 to 100");
                found.push((format!("overload.{key}"), message));
            }
        }
        for (index, share) in self.shares.iter().enumerate() {
            if !(1..=1_000_000).contains(&share.weight) {
                let message = "is no part; write 1 to 1000000".to_owned();
                found.push((format!("overload.share[{index}].weight"), message));
            }
        }
        found
    }
}
