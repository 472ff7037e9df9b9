//! Events of requests: what a person is asked, and what they decide.

use std::collections::BTreeSet;

use crate::event::{Asking, Event, Item, Scope, Settle};
use crate::log::Recorded;

use super::super::{Asked, EffectPhase, Grant, Request, State, Terms};
use super::{Wrong, told};

impl Terms {
    /// What both have said: several people who approve approve only what each of them does.
    fn least(self, other: Self) -> Self {
        Self {
            scope: if self.scope == other.scope {
                self.scope
            } else {
                Scope::Once
            },
            settle: self.settle.filter(|it| other.settle == Some(*it)),
            more: self.more.min(other.more),
        }
    }
}

impl State {
    pub(super) fn asked(&mut self, event: Event, recorded: &Recorded) -> Result<(), Wrong> {
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
            Event::InputReceived {
                request,
                answer,
                by_default,
            } => {
                let Asked::Input { effect, .. } = self.close_request(&request, &answer)? else {
                    return Err(Wrong::Not("it asked for no input"));
                };
                self.effect_mut(&effect)?.tainted |= by_default;
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
            by: BTreeSet::new(),
            terms: None,
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
            standing: _,
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
        let said = Terms {
            scope,
            settle,
            more,
        };
        let terms = request.terms.map_or(said, |before| before.least(said));
        if approve {
            request.by.insert(by.clone());
            request.terms = Some(terms);
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
                self.raised += terms.more.unwrap_or_default();
                self.exhausted = None;
            }
            (Asking::Unknown, _) => {
                let settle = terms.settle.filter(|_| approve);
                self.settled(&items, settle, &by)?;
            }
            (Asking::Acts | Asking::Plan, true) => {
                self.granted(&id, &items, terms.scope, until_ms);
            }
            (_, false) => self.refused(&items, &reason)?,
        }
        Ok(())
    }

    fn granted(&mut self, id: &str, items: &[Item], scope: Scope, until_ms: i64) {
        for item in items {
            let fresh = Grant {
                request: id.to_owned(),
                uses: 0,
                until_ms,
            };
            let grant = self
                .approved
                .entry(item.digest)
                .or_insert_with(|| fresh.clone());
            if grant.request != id {
                // What is left of an earlier yes does not add to this one.
                *grant = fresh;
            }
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
                Settle::Again => {
                    let it = self.effect_mut(&id)?;
                    it.phase = EffectPhase::Cleared;
                    it.doubtful = false;
                }
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
