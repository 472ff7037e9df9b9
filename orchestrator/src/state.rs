//! How a task stands: the fold of its events.

mod apply;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::brief::Brief;
use crate::digest::Digest;
use crate::event::{Asking, Caller, Event, Gate, Item, Purpose, Status, Stored, ToolUse};
use crate::id::TaskId;
use crate::log::{Head, Recorded};
use crate::money::Usd;
use crate::plan::{Node, Plan};
use crate::tool::{Class, Verb};

pub use apply::Impossible;

/// A task as its log tells it.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    pub id: TaskId,
    pub brief: Brief,
    pub caller: Caller,
    pub schedule: Option<String>,
    pub policy: String,
    pub skills: BTreeMap<String, Digest>,
    pub head: Head,
    pub epoch: u64,
    /// The node that took it last.
    pub holder: String,
    pub created_ms: i64,
    pub updated_ms: i64,
    pub started_ms: Option<i64>,
    pub ended: Option<(Status, String, i64)>,
    pub paused: Option<String>,
    pub cancel: Option<String>,
    /// What the owner said meanwhile.
    pub steers: Vec<String>,
    pub plan: Plan,
    /// Earlier revisions.
    pub past_plans: Vec<Plan>,
    /// Times a planner's answer was refused, since the last plan.
    pub plan_problems: Vec<Vec<String>>,
    pub replans: u32,
    pub nodes: BTreeMap<String, NodeState>,
    pub calls: BTreeMap<u64, ModelCall>,
    pub effects: BTreeMap<String, Effect>,
    pub requests: BTreeMap<String, Request>,
    pub checks: BTreeMap<String, CheckState>,
    pub artifacts: BTreeMap<String, Artifact>,
    /// Digests that were approved: by which request, and how often they may still be used.
    pub approved: BTreeMap<Digest, Grant>,
    /// Tool and destinations that were approved for the whole task, by which request.
    pub approved_kinds: BTreeMap<(String, Vec<String>), String>,
    pub spent: Usd,
    /// What was raised above the brief's budget.
    pub raised: Usd,
    pub exhausted: Option<String>,
    pub notices: Vec<String>,
    pub summary: Option<String>,
    pub denials: u32,
    /// Facts for the loop detector over the whole task.
    pub last_progress_call: u64,
}

/// An approval that has not been used up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub request: String,
    pub uses: u32,
    pub until_ms: i64,
}

/// How a step stands.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeState {
    pub phase: NodePhase,
    pub attempt: u32,
    pub turns: Vec<Turn>,
    /// Turns before this one are told by the notes.
    pub notes: Option<(usize, String)>,
    pub output: Option<Value>,
    pub problem: Option<String>,
    /// It has seen text that nobody vouches for.
    pub tainted: bool,
    /// Answers that were not of its form.
    pub refused: u32,
    pub warned: u32,
    /// A call may be made again from then on.
    pub retry_at_ms: i64,
    pub failures: u32,
}

/// Where a step is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NodePhase {
    #[default]
    Waiting,
    Running,
    Succeeded,
    Failed,
    Skipped,
}

impl NodePhase {
    /// The word it goes by.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }

    /// Whether nothing more comes of it.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Skipped)
    }
}

/// A model's answer within a step, and what became of the tools it called.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    pub call: u64,
    pub text: String,
    pub cut: bool,
    pub uses: Vec<ToolUse>,
    /// One for each use, in their order, as far as they are decided.
    pub effects: Vec<String>,
    /// What the runtime says behind it: the answer was not of the right form, or a warning.
    pub remark: Option<String>,
}

/// A call to a model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelCall {
    pub purpose: Purpose,
    pub asked: String,
    pub request: String,
    pub reserved: Usd,
    pub epoch: u64,
    /// The node that asked.
    pub node: String,
    pub at_ms: i64,
    pub end: Option<CallEnd>,
}

/// How a call to a model ended.
#[derive(Debug, Clone, PartialEq)]
pub struct CallEnd {
    pub ok: bool,
    pub model: String,
    pub tier: String,
    pub route: String,
    pub cost: Usd,
    pub tokens: (u64, u64),
    pub ms: i64,
    /// Planners', judges' and compactors' words.
    pub text: String,
    pub why: String,
    pub lost: bool,
}

/// An act, or a look.
#[derive(Debug, Clone, PartialEq)]
pub struct Effect {
    pub node: String,
    pub use_id: String,
    pub tool: String,
    pub pin: Digest,
    pub arguments: Value,
    pub class: Class,
    pub verb: Verb,
    pub destinations: Vec<String>,
    pub tainted: bool,
    pub digest: Digest,
    pub key: String,
    pub cost: Usd,
    pub gate: Gate,
    pub phase: EffectPhase,
    pub attempts: u32,
    pub epoch: u64,
    pub committed_ms: i64,
    /// When it was first committed: its key is as old as that.
    pub first_committed_ms: i64,
    /// An earlier attempt may have happened; nothing but a look or a person's word takes that back.
    pub doubtful: bool,
    /// It may be tried again from then on.
    pub retry_at_ms: i64,
    /// The request that is open about it, or was.
    pub request: Option<String>,
    pub result: Option<Stored>,
    pub at_ms: i64,
    pub ended_ms: Option<i64>,
}

/// Where an act is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EffectPhase {
    /// Decided, and maybe waiting for a person.
    Intended,
    /// A person has approved it, or said that it is to be done again.
    Cleared,
    /// It may have left.
    Committed,
    /// Its end was not seen.
    InDoubt,
    /// A person must say what happened.
    Unknown,
    Succeeded,
    Failed,
    Denied,
}

impl EffectPhase {
    /// The word it goes by.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Intended => "intended",
            Self::Cleared => "cleared",
            Self::Committed => "committed",
            Self::InDoubt => "in_doubt",
            Self::Unknown => "unknown",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Denied => "denied",
        }
    }

    /// Whether nothing more comes of it.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Denied)
    }
}

/// Something that a person must do.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub what: Asked,
    pub open: bool,
    pub at_ms: i64,
    pub expires_at_ms: i64,
    /// Who has approved so far.
    pub by: BTreeSet<String>,
    /// The least that all of them have said.
    pub terms: Option<Terms>,
    /// How it ended, in words.
    pub end: String,
}

/// What comes with a yes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    pub scope: crate::event::Scope,
    pub settle: Option<crate::event::Settle>,
    pub more: Option<Usd>,
}

/// What it is.
#[derive(Debug, Clone, PartialEq)]
pub enum Asked {
    Approval {
        asking: Asking,
        items: Vec<Item>,
        why: String,
    },
    Input {
        effect: String,
        question: String,
        choices: Vec<String>,
        default: Option<String>,
    },
}

/// How a check of the brief stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckState {
    pub passed: bool,
    pub evidence: String,
    /// The plan revision under which it was looked at.
    pub rev: u32,
}

/// A file that the task has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    pub sha256: Digest,
    pub bytes: u64,
    pub node: Option<String>,
}

impl State {
    /// The task that this log tells of.
    ///
    /// # Errors
    /// When an event can not be read, or does not follow from those before it.
    pub fn fold(events: &[Recorded]) -> Result<Self, Impossible> {
        let (first, rest) = events.split_first().ok_or(Impossible::Empty)?;
        let mut state = Self::begin(first)?;
        for recorded in rest {
            state.take(recorded)?;
        }
        Ok(state)
    }

    /// The status, as callers see it.
    pub fn status(&self) -> Status {
        match &self.ended {
            Some((status, ..)) => *status,
            None if self.paused.is_some() => Status::Paused,
            None if self.requests.values().any(|request| request.open) => Status::RequiresAction,
            None if self.started_ms.is_none() => Status::Queued,
            None => Status::InProgress,
        }
    }

    /// Whether the plan has been made.
    pub fn is_planned(&self) -> bool {
        self.plan.rev > 0
    }

    /// Money held for calls whose end is not known yet.
    pub fn reserved(&self) -> Usd {
        let open = self.calls.values().filter(|call| call.end.is_none());
        let acts = self.effects.values().filter(|it| {
            matches!(
                it.phase,
                EffectPhase::Committed | EffectPhase::InDoubt | EffectPhase::Unknown
            )
        });
        let calls = open.fold(Usd::ZERO, |sum, call| sum + call.reserved);
        acts.fold(calls, |sum, effect| sum + effect.cost)
    }

    /// The most that it may cost, where the brief says so.
    pub fn limit(&self) -> Option<Usd> {
        self.brief.budget.cost_usd.map(|cost| cost + self.raised)
    }

    /// What is left of the budget, less what is held and the share for the last calls.
    pub fn left(&self) -> Option<Usd> {
        let limit = self.limit()?;
        let kept = limit.percent(self.brief.budget.wrap_up_reserve_pct);
        Some((limit - kept - self.spent - self.reserved()).or_zero())
    }

    /// What is left for the last calls.
    pub fn left_at_all(&self) -> Option<Usd> {
        Some((self.limit()? - self.spent - self.reserved()).or_zero())
    }

    /// The open call of a step, or of the task itself.
    pub fn open_call(&self, node: Option<&str>) -> Option<(u64, &ModelCall)> {
        let open = self
            .calls
            .iter()
            .find(|(_, call)| call.end.is_none() && call.purpose.node() == node);
        open.map(|(number, call)| (*number, call))
    }

    /// Acts and looks of a step that have not ended.
    pub fn open_effects<'a>(
        &'a self,
        node: &'a str,
    ) -> impl Iterator<Item = (&'a String, &'a Effect)> {
        let mine = move |(_, effect): &(&String, &Effect)| effect.node == node;
        self.effects
            .iter()
            .filter(mine)
            .filter(|(_, it)| !it.phase.is_over())
    }

    /// Acts on the world that were committed.
    pub fn acts(&self) -> usize {
        let acted = |effect: &&Effect| effect.verb == Verb::Execute && effect.attempts > 0;
        self.effects.values().filter(acted).count()
    }

    /// A step of the plan with how it stands.
    pub fn node(&self, id: &str) -> Option<(&Node, &NodeState)> {
        Some((self.plan.node(id)?, self.nodes.get(id)?))
    }

    /// Whether every check of the brief has passed under the plan in force.
    pub fn all_passed(&self) -> bool {
        let mut checks = self.brief.definition_of_done.iter();
        checks.all(|check| self.checks.get(&check.id).is_some_and(|it| it.passed))
    }

    /// Text that the owner or the operator vouches for: destinations that stand in it are the owner's own.
    pub fn trusted_text(&self) -> String {
        let mut text = self.brief.objective.clone();
        let more = self.brief.constraints.iter().chain(&self.steers);
        let refs = self.brief.sources_of_truth.iter().map(|it| &it.reference);
        for piece in more.chain(refs) {
            text.push('\n');
            text.push_str(piece);
        }
        // What the owner answered, and what tools say that the operator trusts.
        let vouched = |effect: &&Effect| {
            !effect.tainted && (effect.tool == crate::next::ASK_USER || effect.tool.contains("__"))
        };
        for effect in self.effects.values().filter(vouched) {
            if let Some(result) = effect.result.as_ref().filter(|it| !it.is_error) {
                text.push('\n');
                text.push_str(&result.shown);
            }
        }
        text
    }

    /// Applies an event of this task that has been read already, for simulations of what would follow.
    ///
    /// # Errors
    /// When it does not follow.
    pub fn follow(
        &mut self,
        event: &Event,
        at_ms: i64,
        actor: &str,
    ) -> Result<Recorded, Impossible> {
        let recorded = event.record(self.head, at_ms, self.epoch, actor);
        self.take(&recorded)?;
        Ok(recorded)
    }
}
