//! One event after the other.

use crate::brief::Brief;
use crate::event::{Asking, Event, Gate, Item, Purpose, ReadEventError, Scope, Settle, Stored};
use crate::log::Recorded;
use crate::money::Usd;
use crate::plan::Plan;

use super::{
    Artifact, Asked, CallEnd, CheckState, Effect, EffectPhase, Grant, ModelCall, NodePhase,
    NodeState, Request, State, Turn,
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
        skills: std::collections::BTreeMap<String, crate::Digest>,
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
            nodes: Default::default(),
            calls: Default::default(),
            effects: Default::default(),
            requests: Default::default(),
            checks: Default::default(),
            artifacts: Default::default(),
            approved: Default::default(),
            approved_kinds: Default::default(),
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
            Event::Taken { .. } => self.taken(recorded),
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
    fn taken(&mut self, recorded: &Recorded) {
        self.epoch = recorded.epoch;
        self.started_ms.get_or_insert(recorded.at_ms);
        for effect in self.effects.values_mut() {
            if effect.phase == EffectPhase::Committed {
                effect.phase = EffectPhase::InDoubt;
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
        self.ended = Some((status, why, at_ms));
        Ok(())
    }

    fn progress(&mut self) {
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
                // A new attempt begins with what the last one failed of, and no turns.
                let problem = state.problem.take();
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
                    at_ms,
                    end: None,
                };
                if self.calls.insert(call, made).is_some() {
                    return Err(Wrong::Not("the call was made before"));
                }
            }
            Event::ModelCompleted {
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
            } => {
                let tokens = (input_tokens, output_tokens);
                let end = CallEnd {
                    ok: true,
                    model,
                    tier,
                    route,
                    cost,
                    tokens,
                    ms: 0,
                    text: text.clone(),
                    why: String::new(),
                    lost: false,
                };
                let purpose = self.close(call, end, at_ms)?;
                if let Purpose::Node { node } = purpose {
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
            }
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
                    state.failures += 1;
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

    fn effect_mut(&mut self, id: &str) -> Result<&mut Effect, Wrong> {
        self.effects
            .get_mut(id)
            .ok_or_else(|| Wrong::No(format!("effect `{id}`")))
    }

    fn acted(&mut self, event: Event, recorded: &Recorded) -> Result<(), Wrong> {
        match event {
            event @ Event::EffectIntent { .. } => self.intended(event, recorded)?,
            Event::EffectCommitted {
                effect,
                attempt,
                approval,
            } => {
                self.committed(&effect, attempt, approval.as_deref(), recorded)?;
            }
            Event::EffectSucceeded { effect, result } => {
                self.finish(&effect, EffectPhase::Succeeded, Some(result))?;
            }
            Event::EffectFailed { effect, result } => {
                self.finish(&effect, EffectPhase::Failed, Some(result))?;
            }
            Event::EffectNotSent { effect, .. } => {
                let it = self.effect_mut(&effect)?;
                it.phase = EffectPhase::Cleared;
            }
            Event::EffectLost { effect, .. } => {
                self.effect_mut(&effect)?.phase = EffectPhase::InDoubt
            }
            Event::EffectUnknown { effect, .. } => {
                self.effect_mut(&effect)?.phase = EffectPhase::Unknown
            }
            Event::EffectReconciled {
                effect,
                happened: true,
                result,
                how,
            } => {
                let result = result.unwrap_or_else(|| told(format!("It happened: {how}."), false));
                self.finish(&effect, EffectPhase::Succeeded, Some(result))?;
            }
            Event::EffectReconciled {
                effect,
                happened: false,
                ..
            } => {
                self.effect_mut(&effect)?.phase = EffectPhase::Cleared;
            }
            Event::EffectDenied { effect, rule, why } => {
                let result = told(format!("This was not done ({rule}): {why}"), true);
                self.finish(&effect, EffectPhase::Denied, Some(result))?;
            }
            _ => return Err(Wrong::Not("it is not about an effect")),
        }
        Ok(())
    }

    fn intended(&mut self, event: Event, recorded: &Recorded) -> Result<(), Wrong> {
        let Event::EffectIntent {
            effect,
            node,
            use_id,
            tool,
            pin,
            arguments,
            class,
            verb,
            destinations,
            tainted,
            digest,
            key,
            cost,
            gate,
        } = event
        else {
            return Err(Wrong::Not("it is no intent"));
        };
        if self.effects.contains_key(&effect) {
            return Err(Wrong::Not("the effect is there already"));
        }
        let denied = match &gate {
            Gate::Denied { rule, why } => {
                Some(told(format!("This was not done ({rule}): {why}"), true))
            }
            Gate::Allowed { .. } | Gate::Ask { .. } => None,
        };
        let turn = self.node_mut(&node)?.turns.last_mut();
        let turn = turn.ok_or(Wrong::Not("no model has asked for it"))?;
        turn.effects.push(effect.clone());
        let phase = if denied.is_some() {
            EffectPhase::Denied
        } else {
            EffectPhase::Intended
        };
        self.effects.insert(
            effect,
            Effect {
                node,
                use_id,
                tool,
                pin,
                arguments,
                class,
                verb,
                destinations,
                tainted,
                digest,
                key,
                cost,
                gate,
                phase,
                attempts: 0,
                epoch: 0,
                committed_ms: 0,
                request: None,
                ended_ms: denied.as_ref().map(|_| recorded.at_ms),
                result: denied,
                at_ms: recorded.at_ms,
            },
        );
        Ok(())
    }

    fn committed(
        &mut self,
        id: &str,
        attempt: u32,
        approval: Option<&str>,
        recorded: &Recorded,
    ) -> Result<(), Wrong> {
        let effect = self.effect_mut(id)?;
        if !matches!(
            effect.phase,
            EffectPhase::Intended | EffectPhase::Cleared | EffectPhase::InDoubt
        ) {
            return Err(Wrong::Not("the effect can not be committed now"));
        }
        if attempt != effect.attempts + 1 {
            return Err(Wrong::Not("the attempt is out of order"));
        }
        effect.phase = EffectPhase::Committed;
        effect.attempts = attempt;
        effect.epoch = recorded.epoch;
        effect.committed_ms = recorded.at_ms;
        let digest = effect.digest;
        // An approval is used up with the first attempt; further ones are the same act.
        if attempt == 1 && approval.is_some() {
            let used_up = self.approved.get_mut(&digest).is_some_and(|grant| {
                grant.uses = grant.uses.saturating_sub(1);
                grant.uses == 0
            });
            if used_up {
                self.approved.remove(&digest);
            }
        }
        Ok(())
    }

    fn finish(
        &mut self,
        id: &str,
        phase: EffectPhase,
        result: Option<Stored>,
    ) -> Result<(), Wrong> {
        let now_ms = self.updated_ms;
        let effect = self.effect_mut(id)?;
        if effect.phase.is_over() {
            return Err(Wrong::Not("the effect has ended"));
        }
        effect.phase = phase;
        effect.ended_ms = Some(now_ms);
        effect.result = result;
        let (node, taints, cost) = (effect.node.clone(), effect.tainted, effect.cost);
        if phase != EffectPhase::Denied {
            self.spent += cost;
            if let Some(state) = self.nodes.get_mut(&node) {
                state.tainted |= taints;
            }
        }
        Ok(())
    }

    fn asked(&mut self, event: Event, recorded: &Recorded) -> Result<(), Wrong> {
        match event {
            Event::ApprovalRequested {
                request,
                asking,
                items,
                why,
                expires_at_ms,
            } => {
                for item in &items {
                    if let Some(effect) =
                        item.effect.as_ref().and_then(|id| self.effects.get_mut(id))
                    {
                        effect.request = Some(request.clone());
                    }
                }
                let what = Asked::Approval { asking, items, why };
                self.open(request, what, recorded.at_ms, expires_at_ms)?;
            }
            Event::InputRequested {
                request,
                effect,
                question,
                choices,
                default,
                expires_at_ms,
            } => {
                self.effect_mut(&effect)?.request = Some(request.clone());
                let what = Asked::Input {
                    effect,
                    question,
                    choices,
                    default,
                };
                self.open(request, what, recorded.at_ms, expires_at_ms)?;
            }
            event @ Event::ApprovalDecided { .. } => self.decided(event)?,
            Event::ApprovalExpired { request } => {
                self.close_request(&request, "nobody decided in time")?;
            }
            Event::ApprovalInvalidated { request, why } => {
                // It may have been decided: what it granted is taken back.
                self.approved.retain(|_, grant| grant.request != request);
                self.approved_kinds.retain(|_, by| *by != request);
                if let Some(it) = self.requests.get_mut(&request) {
                    // What was decided before stays told: some of its acts may have been done.
                    it.end = if it.open {
                        why
                    } else {
                        format!("{}; taken back: {why}", it.end)
                    };
                    it.open = false;
                }
            }
            Event::InputReceived { request, answer } => {
                let Asked::Input { effect, .. } = self.close_request(&request, &answer)? else {
                    return Err(Wrong::Not("it asked for no input"));
                };
                self.finish(&effect, EffectPhase::Succeeded, Some(told(answer, false)))?;
            }
            _ => return Err(Wrong::Not("it is not about a request")),
        }
        Ok(())
    }

    fn open(
        &mut self,
        id: String,
        what: Asked,
        at_ms: i64,
        expires_at_ms: i64,
    ) -> Result<(), Wrong> {
        let request = Request {
            what,
            open: true,
            at_ms,
            expires_at_ms,
            by: Default::default(),
            end: String::new(),
        };
        if self.requests.insert(id, request).is_some() {
            return Err(Wrong::Not("the request is there already"));
        }
        Ok(())
    }

    fn close_request(&mut self, id: &str, end: &str) -> Result<Asked, Wrong> {
        let request = self
            .requests
            .get_mut(id)
            .ok_or_else(|| Wrong::No(format!("request `{id}`")))?;
        if !request.open {
            return Err(Wrong::Not("the request is closed"));
        }
        request.open = false;
        end.clone_into(&mut request.end);
        Ok(request.what.clone())
    }

    fn decided(&mut self, event: Event) -> Result<(), Wrong> {
        let Event::ApprovalDecided {
            request: id,
            by,
            approve,
            scope,
            settle,
            more,
            reason,
        } = event
        else {
            return Err(Wrong::Not("it is no decision"));
        };
        let quorum = usize::try_from(self.brief.approval.quorum).unwrap_or(1);
        let request = self
            .requests
            .get_mut(&id)
            .ok_or_else(|| Wrong::No(format!("request `{id}`")))?;
        if !request.open {
            return Err(Wrong::Not("the request is closed"));
        }
        let until_ms = request.expires_at_ms;
        if approve {
            request.by.insert(by.clone());
            if request.by.len() < quorum {
                return Ok(());
            }
        }
        let end = if approve {
            format!("approved by {by}")
        } else {
            format!("denied by {by}: {reason}")
        };
        let Asked::Approval { asking, items, .. } = self.close_request(&id, &end)? else {
            return Err(Wrong::Not("it asked for no approval"));
        };
        match (asking, approve) {
            (Asking::Budget, true) => {
                self.raised += more.unwrap_or_default();
                self.exhausted = None;
            }
            (Asking::Unknown, _) => self.settled(&items, settle, &by)?,
            (Asking::Acts | Asking::Plan, true) => self.granted(&id, &items, scope, until_ms),
            (_, false) => self.refused(&items, &reason)?,
        }
        Ok(())
    }

    fn granted(&mut self, id: &str, items: &[Item], scope: Scope, until_ms: i64) {
        for item in items {
            let grant = self.approved.entry(item.digest).or_insert_with(|| Grant {
                request: id.to_owned(),
                uses: 0,
                until_ms,
            });
            grant.uses += 1;
            let effect = item.effect.as_ref().and_then(|id| self.effects.get_mut(id));
            if let Some(effect) = effect {
                if effect.phase == EffectPhase::Intended {
                    effect.phase = EffectPhase::Cleared;
                }
                if scope == Scope::Task {
                    let kind = (effect.tool.clone(), effect.destinations.clone());
                    self.approved_kinds.insert(kind, id.to_owned());
                }
            }
        }
    }

    fn refused(&mut self, items: &[Item], reason: &str) -> Result<(), Wrong> {
        self.denials += 1;
        let why = if reason.is_empty() {
            "a person said no"
        } else {
            reason
        };
        for id in items.iter().filter_map(|item| item.effect.clone()) {
            if self
                .effects
                .get(&id)
                .is_some_and(|effect| !effect.phase.is_over())
            {
                let result = told(format!("This was not done (denied): {why}"), true);
                self.finish(&id, EffectPhase::Denied, Some(result))?;
            }
        }
        Ok(())
    }

    fn settled(&mut self, items: &[Item], settle: Option<Settle>, by: &str) -> Result<(), Wrong> {
        for id in items.iter().filter_map(|item| item.effect.clone()) {
            match settle.unwrap_or(Settle::GiveUp) {
                Settle::Happened => {
                    let result = told(format!("It happened, says {by}."), false);
                    self.finish(&id, EffectPhase::Succeeded, Some(result))?;
                }
                Settle::Again => self.effect_mut(&id)?.phase = EffectPhase::Cleared,
                Settle::GiveUp => {
                    let text =
                        "Whether this happened is not known, and it will not be tried again.";
                    self.finish(&id, EffectPhase::Failed, Some(told(text.to_owned(), true)))?;
                }
            }
        }
        Ok(())
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
fn told(text: String, is_error: bool) -> Stored {
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
enum Wrong {
    No(String),
    Not(&'static str),
}
