//! Standing approvals: rules by which acts need no asking, for a while and so many times.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::brief::fits;
use crate::state::State;
use crate::tool::Offered;

/// The longest that one stands, in milliseconds: 90 days.
pub const LONGEST_MS: i64 = 90 * 86_400_000;

/// A standing approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    pub id: String,
    /// The version of its record, under which a use is counted.
    #[serde(skip)]
    pub version: u64,
    /// Only tasks of this schedule; `None`: any of the tenant's.
    #[serde(default)]
    pub schedule: Option<String>,
    /// Only tasks that act for this principal.
    #[serde(default)]
    pub on_behalf_of: Option<String>,
    /// A tool; no pattern, so that nothing is approved that nobody has seen.
    pub tool: String,
    /// Patterns of arguments; arguments that are not named may be anything but destinations.
    #[serde(default)]
    pub arguments: BTreeMap<String, String>,
    pub max_uses: u32,
    #[serde(default)]
    pub used: u32,
    pub expires_at_ms: i64,
    pub created_by: String,
    /// The public id of the key that it was made with; empty for the operator's.
    #[serde(default)]
    pub created_key: String,
    pub created_at_ms: i64,
}

impl Standing {
    /// Whether it covers a call of `tool` by a task. Expiry and uses are looked at where it is read and
    /// where it is used.
    pub fn covers(&self, state: &State, tool: &Offered, arguments: &Value) -> bool {
        let schedule = self.schedule.is_none() || self.schedule == state.schedule;
        let principal =
            self.on_behalf_of.is_none() || self.on_behalf_of == state.brief.on_behalf_of;
        let named = self.arguments.iter().all(|(name, pattern)| {
            arguments
                .get(name)
                .is_some_and(|value| all_fit(pattern, value))
        });
        // A destination that the rule does not speak of is not approved by it.
        let mut wanted = tool.manifest.destinations.iter();
        let destinations = wanted.all(|name| {
            self.arguments.contains_key(name) || arguments.get(name).is_none_or(Value::is_null)
        });
        schedule
            && principal
            && self.tool == tool.definition.name
            && named
            && destinations
            && self.may_approve(state)
    }

    /// Whether who made it may approve acts of the task alone: a rule is no way around those whom the brief
    /// asks.
    fn may_approve(&self, state: &State) -> bool {
        let (rules, asked) = (&state.brief.approval, &state.caller);
        let key = format!("key:{}", self.created_key);
        let is_named = |it: &String| *it == self.created_by || *it == key;
        let named = rules.approvers.is_empty() || rules.approvers.iter().any(is_named);
        let requester = self.created_by == asked.actor()
            || (!asked.key.is_empty() && self.created_key == asked.key);
        named && rules.quorum <= 1 && (rules.requester_may_approve || !requester)
    }

    /// Whether it may be used at `now_ms`.
    pub fn stands(&self, now_ms: i64) -> bool {
        self.used < self.max_uses && now_ms < self.expires_at_ms
    }

    /// It, used once more.
    pub fn once_more(&self) -> Self {
        Self {
            used: self.used + 1,
            ..self.clone()
        }
    }
}

fn all_fit(pattern: &str, value: &Value) -> bool {
    match value {
        Value::String(text) => fits(pattern, text),
        Value::Array(items) => items.iter().all(|item| all_fit(pattern, item)),
        Value::Object(_) | Value::Null => false,
        other => fits(pattern, &other.to_string()),
    }
}
