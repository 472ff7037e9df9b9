//! Events of acts: what is meant to be done, and what became of it.

use crate::event::{Event, Gate, Stored};
use crate::log::Recorded;

use super::super::{Effect, EffectPhase, State};
use super::{Wrong, told};

impl State {
    pub(super) fn effect_mut(&mut self, id: &str) -> Result<&mut Effect, Wrong> {
        self.effects
            .get_mut(id)
            .ok_or_else(|| Wrong::No(format!("effect `{id}`")))
    }

    pub(super) fn acted(&mut self, event: Event, recorded: &Recorded) -> Result<(), Wrong> {
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
                let at_ms = recorded.at_ms;
                let it = self.effect_mut(&effect)?;
                // This attempt did not happen; an earlier one may have.
                it.phase = if it.doubtful {
                    EffectPhase::InDoubt
                } else {
                    EffectPhase::Cleared
                };
                it.retry_at_ms = at_ms + (500_i64 << it.attempts.min(6));
            }
            Event::EffectLost { effect, .. } => {
                let it = self.effect_mut(&effect)?;
                it.phase = EffectPhase::InDoubt;
                it.doubtful = true;
            }
            Event::EffectUnknown { effect, .. } => {
                self.effect_mut(&effect)?.phase = EffectPhase::Unknown;
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
                let it = self.effect_mut(&effect)?;
                it.phase = EffectPhase::Cleared;
                it.doubtful = false;
            }
            Event::EffectDenied { effect, rule, why } => {
                let result = not_done(&rule, &why);
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
            Gate::Denied { rule, why } => Some(not_done(rule, why)),
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
                first_committed_ms: 0,
                doubtful: false,
                retry_at_ms: 0,
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
        if attempt == 1 {
            effect.first_committed_ms = recorded.at_ms;
        }
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

    pub(super) fn finish(
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
}

/// What a model is told of an act that may not be.
fn not_done(rule: &str, why: &str) -> Stored {
    told(format!("This was not done ({rule}): {why}"), true)
}
