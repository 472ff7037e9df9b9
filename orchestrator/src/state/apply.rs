//! One event after the other.

mod effects;
mod requests;

use std::collections::BTreeMap;

use crate::brief::Brief;
use crate::event::{Event, Purpose, ReadEventError, Stored};
use crate::log::Recorded;
use crate::money::Usd;
use crate::plan::Plan;

use super::{
    Artifact, CallEnd, CheckState, EffectPhase, ModelCall, NodePhase, NodeState, State, Turn,
};

/// An event does not follow from those before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Impossible {
    #[error("the log is empty")]
    Empty,
    #[error("the log does not begin with task.created")]
    NotCreated,
    #[error(transparent)]
    Unread(#[from] ReadEventError),
    #[error("event {seq} stands where {expected} was expected")]
    OutOfOrder { seq: u64, expected: u64 },
    #[error("event {seq}: its hash does not follow from those before it")]
    BrokenChain { seq: u64 },
    #[error("event {seq} ({kind}): there is no {what}")]
    Unknown {
        seq: u64,
        kind: String,
        what: String,
    },
    #[error("event {seq} ({kind}): {what}")]
    Wrong {
        seq: u64,
        kind: String,
        what: &'static str,
    },
}

impl State {
    pub(super) fn begin(first: &Recorded) -> Result<Self, Impossible> {
        if first.seq != 1 || first.hash != first.chained(crate::Digest::default()) {
            return Err(Impossible::BrokenChain { seq: first.seq });
        }
        let Event::Created {
            task,
            brief,
            caller,
            schedule,
            policy,
            skills,
        } = Event::read(first)?
        else {
            return Err(Impossible::NotCreated);
        };
        Ok(Self::fresh(
            task, *brief, caller, schedule, policy, skills, first,
        ))
    }

    fn fresh(
        id: crate::TaskId,
        brief: Brief,
        caller: crate::event::Caller,
        schedule: Option<String>,
        policy: String,
        skills: BTreeMap<String, crate::Digest>,
        first: &Recorded,
    ) -> Self {
        Self {
            id,
            brief,
            caller,
            schedule,
            policy,
            skills,
            head: crate::log::Head {
                seq: 1,
                hash: first.hash,
            },
            holder: String::new(),
            epoch: 0,
            created_ms: first.at_ms,
            updated_ms: first.at_ms,
            started_ms: None,
            ended: None,
            paused: None,
            cancel: None,
            steers: Vec::new(),
            plan: Plan::default(),
            past_plans: Vec::new(),
            plan_problems: Vec::new(),
            replans: 0,
            nodes: BTreeMap::new(),
            calls: BTreeMap::new(),
            effects: BTreeMap::new(),
            requests: BTreeMap::new(),
            checks: BTreeMap::new(),
            artifacts: BTreeMap::new(),
            approved: BTreeMap::new(),
            approved_kinds: BTreeMap::new(),
            spent: Usd::ZERO,
            raised: Usd::ZERO,
            exhausted: None,
            notices: Vec::new(),
            summary: None,
            denials: 0,
            last_progress_call: 0,
        }
    }

    /// Takes the next event.
    ///
    /// # Errors
    /// When it is not the next, or does not follow; the state is then not to be used any more.
    pub fn take(&mut self, recorded: &Recorded) -> Result<(), Impossible> {
        let seq = recorded.seq;
        if seq != self.head.seq + 1 {
            return Err(Impossible::OutOfOrder {
                seq,
                expected: self.head.seq + 1,
            });
        }
        if recorded.hash != recorded.chained(self.head.hash) {
            return Err(Impossible::BrokenChain { seq });
        }
        let event = Event::read(recorded)?;
        self.updated_ms = recorded.at_ms;
        self.apply(event, recorded).map_err(|wrong| match wrong {
            Wrong::No(what) => Impossible::Unknown {
                seq,
                kind: recorded.kind.clone(),
                what,
            },
            Wrong::Not(what) => Impossible::Wrong {
                seq,
                kind: recorded.kind.clone(),
                what,
            },
        })?;
        self.head = crate::log::Head {
            seq,
            hash: recorded.hash,
        };
        Ok(())
    }

    fn apply(&mut self, event: Event, recorded: &Recorded) -> Result<(), Wrong> {
        if self.ended.is_some() {
            return Err(Wrong::Not("the task has ended"));
        }
        match event {
            Event::Created { .. } => return Err(Wrong::Not("the task is there already")),
            Event::Taken { node } => self.taken(recorded, node),
            Event::Paused { why } => self.paused = Some(why),
            Event::Resumed => self.paused = None,
            Event::Steered { text } => self.steers.push(text),
            Event::CancelRequested { why } => self.cancel = Some(why),
            Event::Ended { status, why } => self.end(status, why, recorded.at_ms)?,
            Event::Summarised { text } => self.summary = Some(text),
            Event::BudgetNotice { text } => self.notices.push(text),
            Event::BudgetExhausted { what } => self.exhausted = Some(what),
            Event::ArtifactWritten {
                name,
                sha256,
                bytes,
                node,
            } => {
                self.artifacts.insert(
                    name,
                    Artifact {
                        sha256,
                        bytes,
                        node,
                    },
                );
                self.progress();
            }
            Event::CheckPassed { check, evidence } => {
                self.checked(check, true, evidence);
                self.progress();
            }
            Event::CheckFailed { check, why } => self.checked(check, false, why),
            event @ (Event::PlanProposed { .. }
            | Event::PlanRefused { .. }
            | Event::PlanRevised { .. }) => self.planned(event)?,
            event @ (Event::NodeStarted { .. }
            | Event::NodeSucceeded { .. }
            | Event::NodeRefused { .. }
            | Event::NodeFailed { .. }
            | Event::NodeSkipped { .. }
            | Event::ContextCompacted { .. }
            | Event::LoopWarned { .. }) => self.stepped(event)?,
            event @ (Event::ModelRequested { .. }
            | Event::ModelCompleted { .. }
            | Event::ModelFailed { .. }
            | Event::ModelLost { .. }) => self.called(event, recorded)?,
            event @ (Event::ApprovalRequested { .. }
            | Event::ApprovalDecided { .. }
            | Event::ApprovalExpired { .. }
            | Event::ApprovalInvalidated { .. }
            | Event::InputRequested { .. }
            | Event::InputReceived { .. }) => self.asked(event, recorded)?,
            event => self.acted(event, recorded)?,
        }
        Ok(())
    }

    /// What an earlier lease left open is in doubt from now on.
    fn taken(&mut self, recorded: &Recorded, node: String) {
        self.epoch = recorded.epoch;
        self.holder = node;
        self.started_ms.get_or_insert(recorded.at_ms);
        for effect in self.effects.values_mut() {
            if effect.phase == EffectPhase::Committed {
                effect.phase = EffectPhase::InDoubt;
                effect.doubtful = true;
            }
        }
    }

    fn end(&mut self, status: crate::event::Status, why: String, at_ms: i64) -> Result<(), Wrong> {
        if !status.is_end() {
            return Err(Wrong::Not("this status is no end"));
        }
        for request in self.requests.values_mut().filter(|request| request.open) {
            request.open = false;
            "the task has ended".clone_into(&mut request.end);
        }
        // What may have happened counts as spent, and stays shown as unknown.
        for effect in self.effects.values_mut() {
            if matches!(
                effect.phase,
                EffectPhase::Committed | EffectPhase::InDoubt | EffectPhase::Unknown
            ) {
                effect.phase = EffectPhase::Unknown;
                self.spent += effect.cost;
                effect.cost = Usd::ZERO;
            }
        }
        self.ended = Some((status, why, at_ms));
        Ok(())
    }

    fn progress(&mut self) {
        self.plan_problems.clear();
        self.last_progress_call = self.calls.keys().next_back().copied().unwrap_or(0);
    }

    fn checked(&mut self, check: String, passed: bool, evidence: String) {
        let rev = self.plan.rev;
        self.checks.insert(
            check,
            CheckState {
                passed,
                evidence,
                rev,
            },
        );
    }

    fn planned(&mut self, event: Event) -> Result<(), Wrong> {
        match event {
            Event::PlanProposed { plan, .. } => {
                self.nodes = plan
                    .nodes
                    .iter()
                    .map(|it| (it.id.clone(), NodeState::default()))
                    .collect();
                self.plan = plan;
            }
            Event::PlanRefused { problems } => {
                self.plan_problems.push(problems);
                return Ok(());
            }
            Event::PlanRevised { mut plan, .. } => {
                plan.rev = self.plan.rev + 1;
                for node in &plan.nodes {
                    let state = self.nodes.entry(node.id.clone()).or_default();
                    if matches!(state.phase, NodePhase::Failed | NodePhase::Skipped)
                        && self.plan.node(&node.id) != Some(node)
                    {
                        *state = NodeState::default();
                    }
                }
                self.nodes.retain(|id, _| plan.node(id).is_some());
                // What was approved with the old plan is not approved with the new one.
                let of_plan = |request: &String| request.starts_with("req-plan-");
                self.approved.retain(|_, grant| !of_plan(&grant.request));
                self.past_plans
                    .push(std::mem::replace(&mut self.plan, plan));
                self.replans += 1;
            }
            _ => return Err(Wrong::Not("it is not about the plan")),
        }
        self.plan_problems.clear();
        self.progress();
        Ok(())
    }

    fn node_mut(&mut self, id: &str) -> Result<&mut NodeState, Wrong> {
        self.nodes
            .get_mut(id)
            .ok_or_else(|| Wrong::No(format!("step `{id}`")))
    }

    fn stepped(&mut self, event: Event) -> Result<(), Wrong> {
        match event {
            Event::NodeStarted { node, attempt } => {
                let tainted = self.inherits_taint(&node);
                let state = self.node_mut(&node)?;
                // A new attempt begins with what the last one failed of, and no turns. It is told what that
                // one has done, in words that may be somebody else's.
                let problem = state.problem.take();
                let tainted = tainted || (attempt > 1 && state.tainted);
                *state = NodeState {
                    phase: NodePhase::Running,
                    attempt,
                    problem,
                    tainted,
                    ..NodeState::default()
                };
            }
            Event::NodeSucceeded { node, output } => {
                let state = self.node_mut(&node)?;
                state.phase = NodePhase::Succeeded;
                state.output = Some(output);
                self.progress();
            }
            Event::NodeRefused { node, problem } => {
                let state = self.node_mut(&node)?;
                state.refused += 1;
                remark(state, problem);
            }
            Event::NodeFailed { node, class, why } => {
                let state = self.node_mut(&node)?;
                state.phase = NodePhase::Failed;
                state.problem = Some(format!("{class}: {why}"));
            }
            Event::NodeSkipped { node, why } => {
                let state = self.node_mut(&node)?;
                state.phase = NodePhase::Skipped;
                state.problem = Some(why);
                self.progress();
            }
            Event::ContextCompacted {
                node,
                through,
                notes,
            } => {
                self.node_mut(&node)?.notes = Some((through, notes));
            }
            Event::LoopWarned { node, why } => {
                let state = self.node_mut(&node)?;
                state.warned += 1;
                remark(state, why);
            }
            _ => return Err(Wrong::Not("it is not about a step")),
        }
        Ok(())
    }

    /// Whether a step takes over text that nobody vouches for from those it depends on.
    fn inherits_taint(&self, id: &str) -> bool {
        // A plan that was made anew was written by somebody who has read what steps have found.
        if self.replans > 0 && self.nodes.values().any(|node| node.tainted) {
            return true;
        }
        let before = self.plan.node(id).map(|node| node.depends_on.as_slice());
        let mut before = before.unwrap_or_default().iter();
        before.any(|id| self.nodes.get(id).is_some_and(|it| it.tainted))
    }

    fn called(&mut self, event: Event, recorded: &Recorded) -> Result<(), Wrong> {
        let at_ms = recorded.at_ms;
        match event {
            Event::ModelRequested {
                call,
                purpose,
                asked,
                request,
                reserved,
                ..
            } => {
                let epoch = recorded.epoch;
                let made = ModelCall {
                    purpose,
                    asked,
                    request,
                    reserved,
                    epoch,
                    node: self.holder.clone(),
                    at_ms,
                    end: None,
                };
                if self.calls.insert(call, made).is_some() {
                    return Err(Wrong::Not("the call was made before"));
                }
            }
            event @ Event::ModelCompleted { .. } => self.answered(event, at_ms)?,
            Event::ModelFailed {
                call,
                class,
                why,
                retry_at_ms,
                cost,
            } => {
                let end = CallEnd::failed(format!("{class}: {why}"), cost, false);
                let purpose = self.close(call, end, at_ms)?;
                if let Some(node) = purpose.node() {
                    let node = node.to_owned();
                    let state = self.node_mut(&node)?;
                    // What will never do counts for all attempts.
                    let counts = if retry_at_ms.is_some() { 1 } else { 1_000 };
                    state.failures = state.failures.saturating_add(counts);
                    state.retry_at_ms = retry_at_ms.unwrap_or(0);
                }
            }
            Event::ModelLost { call, cost } => {
                let why = "its end was not seen".to_owned();
                self.close(call, CallEnd::failed(why, cost, true), at_ms)?;
            }
            _ => return Err(Wrong::Not("it is not about a model")),
        }
        Ok(())
    }

    fn answered(&mut self, event: Event, at_ms: i64) -> Result<(), Wrong> {
        let Event::ModelCompleted {
            call,
            text,
            uses,
            cut,
            model,
            tier,
            route,
            cost,
            input_tokens,
            output_tokens,
        } = event
        else {
            return Err(Wrong::Not("it is no answer"));
        };
        let end = CallEnd {
            ok: true,
            model,
            tier,
            route,
            cost,
            tokens: (input_tokens, output_tokens),
            ms: 0,
            text: text.clone(),
            why: String::new(),
            lost: false,
        };
        if let Purpose::Node { node } = self.close(call, end, at_ms)? {
            let state = self.node_mut(&node)?;
            state.failures = 0;
            state.turns.push(Turn {
                call,
                text,
                cut,
                uses,
                effects: Vec::new(),
                remark: None,
            });
        }
        Ok(())
    }

    fn close(&mut self, number: u64, mut end: CallEnd, at_ms: i64) -> Result<Purpose, Wrong> {
        let call = self
            .calls
            .get_mut(&number)
            .ok_or_else(|| Wrong::No(format!("call {number}")))?;
        if call.end.is_some() {
            return Err(Wrong::Not("the call has ended"));
        }
        end.ms = at_ms - call.at_ms;
        self.spent += end.cost;
        call.end = Some(end);
        Ok(call.purpose.clone())
    }
}

impl CallEnd {
    fn failed(why: String, cost: Usd, lost: bool) -> Self {
        Self {
            ok: false,
            model: String::new(),
            tier: String::new(),
            route: String::new(),
            cost,
            tokens: (0, 0),
            ms: 0,
            text: String::new(),
            why,
            lost,
        }
    }
}

/// A result that the runtime makes.
pub(super) fn told(text: String, is_error: bool) -> Stored {
    let bytes = u64::try_from(text.len()).unwrap_or(u64::MAX);
    Stored {
        shown: text,
        is_error,
        whole: None,
        bytes,
    }
}

fn remark(state: &mut NodeState, text: String) {
    if let Some(turn) = state.turns.last_mut() {
        turn.remark = Some(text);
    }
}

/// Why an event does not follow.
pub(super) enum Wrong {
    No(String),
    Not(&'static str),
}
