//! What people decide: approvals of acts, plans and money, answers to questions.

use std::sync::Arc;

use serde::Deserialize;

use crate::digest::Digest;
use crate::event::{Asking, Caller, Event, Scope, Settle};
use crate::id::TaskId;
use crate::log::Change;
use crate::money::Usd;
use crate::state::{Asked, Request, State};
use crate::view;

use super::control::{going_on, text};
use super::standing::NewStanding;
use super::{Also, Desk, Problem, Thought};

/// A decision about a request.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// The digest that the request shows: nobody approves what they have not seen.
    pub digest: String,
    pub approve: bool,
    /// How far it reaches: `once`, or `task` for the same tool with the same destinations.
    #[serde(default)]
    pub scope: Option<Scope>,
    /// What has become of an act whose end nobody saw.
    #[serde(default)]
    pub settle: Option<Settle>,
    /// How much more may be spent, where money is asked for.
    #[serde(default)]
    pub more_usd: Option<Usd>,
    #[serde(default)]
    pub reason: String,
    /// With a no: the task is cancelled as well.
    #[serde(default)]
    pub stop: bool,
    /// With a yes: a standing approval for acts like this one, made in the same step.
    #[serde(default)]
    pub standing: Option<NewStanding>,
}

/// An answer to a question.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    pub answer: String,
}

/// The name of a request, as the inbox shows it: which task's, and which of it.
fn place(id: &str) -> Result<(TaskId, &str), Problem> {
    let missing = || Problem::missing("request", id);
    let (task, request) = id.split_once('.').ok_or_else(missing)?;
    let task = format!("task_{task}").parse().map_err(|_| missing())?;
    Ok((task, request))
}

impl Desk {
    /// A request and how its task stands.
    ///
    /// # Errors
    /// 404 where the caller has none of this id.
    pub async fn request(
        &self,
        caller: &Caller,
        id: &str,
    ) -> Result<(Arc<State>, String), Problem> {
        let (task, request) = place(id)?;
        let missing = || Problem::missing("request", id);
        let state = self.state(caller, task).await.map_err(|problem| {
            if problem.status == 404 {
                missing()
            } else {
                problem
            }
        })?;
        if !state.requests.contains_key(request) {
            return Err(missing());
        }
        Ok((state, request.to_owned()))
    }

    /// Decides over acts, a plan, money, or what has become of an act.
    ///
    /// # Errors
    /// 409 where the digest is another (`approval_digest_mismatch`), nobody decided in time
    /// (`approval_expired`), it is decided already (`approval_closed`) or the task has ended
    /// (`task_ended`); 403 where the caller may not; 422 with the field that can not be taken.
    pub async fn decide(
        &self,
        caller: &Caller,
        id: &str,
        decision: &Decision,
    ) -> Result<Arc<State>, Problem> {
        self.decide_and(caller, id, decision, &|_| Vec::new()).await
    }

    /// The same, with changes of records that depend on the number of the last event it writes.
    pub(crate) async fn decide_and(
        &self,
        caller: &Caller,
        id: &str,
        decision: &Decision,
        also: Also<'_>,
    ) -> Result<Arc<State>, Problem> {
        let (before, request) = self.request(caller, id).await?;
        let standing = match &decision.standing {
            Some(standing) => Some(
                self.standing_of(caller, &before, &request, standing)
                    .await?,
            ),
            None => None,
        };
        self.change(caller, before.id, None, |state, now_ms| {
            let open = open(state, &request, now_ms)?;
            let standing = standing.as_ref().map(|(_, change)| change);
            let thought = decided(state, open, &request, caller, decision, standing)?;
            Ok(thought.and(state, also))
        })
        .await
    }

    /// Answers a question of a task.
    ///
    /// # Errors
    /// As [`Desk::decide`]; 422 where the answer is none of the choices.
    pub async fn answer(
        &self,
        caller: &Caller,
        id: &str,
        answer: &Answer,
    ) -> Result<Arc<State>, Problem> {
        self.answer_and(caller, id, answer, &|_| Vec::new()).await
    }

    /// The same, with changes of records that depend on the number of the last event it writes.
    pub(crate) async fn answer_and(
        &self,
        caller: &Caller,
        id: &str,
        answer: &Answer,
        also: Also<'_>,
    ) -> Result<Arc<State>, Problem> {
        let (before, request) = self.request(caller, id).await?;
        let said = text("answer", &answer.answer, false)?;
        self.change(caller, before.id, None, |state, now_ms| {
            let open = open(state, &request, now_ms)?;
            let Asked::Input { choices, .. } = &open.what else {
                return Err(Problem::new(
                    409,
                    "not_an_input",
                    "this asks for an approval; POST it to /v1/approvals/{id}/decision",
                ));
            };
            if !choices.is_empty() && !choices.contains(&said) {
                let choices = choices.join(", ");
                return Err(Problem::field("answer", format!("write one of: {choices}")));
            }
            let event = Event::InputReceived {
                request: request.clone(),
                answer: said.clone(),
                by_default: false,
            };
            Ok(Thought::from(vec![event]).and(state, also))
        })
        .await
    }
}

/// The request, while somebody may still answer it.
fn open<'a>(state: &'a State, id: &str, now_ms: i64) -> Result<&'a Request, Problem> {
    going_on(state)?;
    let request = state.requests.get(id);
    let request = request.ok_or_else(|| Problem::missing("request", id))?;
    let expired = || {
        Problem::new(
            409,
            "approval_expired",
            "nobody decided in time; the act will not happen by this request",
        )
    };
    if !request.open {
        return Err(match request.end.as_str() {
            "nobody decided in time" => expired(),
            end => Problem::new(
                409,
                "approval_closed",
                format!("this is closed already: {end}"),
            ),
        });
    }
    if request.expires_at_ms <= now_ms {
        return Err(expired());
    }
    Ok(request)
}

/// What a decision writes.
fn decided(
    state: &State,
    request: &Request,
    id: &str,
    caller: &Caller,
    decision: &Decision,
    standing: Option<&Change>,
) -> Result<Thought, Problem> {
    let Asked::Approval { asking, .. } = &request.what else {
        return Err(Problem::new(
            409,
            "not_an_approval",
            "this asks a question; POST the answer to /v1/inputs/{id}",
        ));
    };
    let echoed: Option<Digest> = decision.digest.parse().ok();
    if echoed != Some(view::digest_of(request)) {
        return Err(Problem::new(
            409,
            "approval_digest_mismatch",
            "the digest is not that of what is asked; look at the request again",
        ));
    }
    may_approve(state, caller)?;
    check(*asking, decision)?;
    let by = caller.actor();
    if decision.approve && request.by.contains(&by) {
        // Said before; others are still waited for.
        return Ok(Thought::default());
    }
    let said = u32::try_from(request.by.len()).unwrap_or(u32::MAX);
    if standing.is_some() && said.saturating_add(1) < state.brief.approval.quorum {
        let what = "goes with the last yes only; others must approve, too";
        return Err(Problem::field("standing", what));
    }
    let mut events = vec![Event::ApprovalDecided {
        request: id.to_owned(),
        by,
        approve: decision.approve,
        scope: decision.scope.unwrap_or_default(),
        settle: decision.settle,
        more: decision.more_usd,
        reason: text("reason", &decision.reason, true)?,
        standing: standing.map(|change| change.id.clone()),
    }];
    if decision.stop {
        events.push(Event::CancelRequested {
            why: "an act was refused, and the task with it".to_owned(),
        });
    }
    Ok(Thought {
        events,
        changes: standing.cloned().into_iter().collect(),
        actor: None,
    })
}

/// What a decision must and may say about what is asked.
fn check(asking: Asking, decision: &Decision) -> Result<(), Problem> {
    match (asking, decision.settle) {
        (Asking::Unknown, None) if decision.approve => {
            return Err(Problem::field(
                "settle",
                "say what is so: happened, again (it did not, and is to be done again) or give_up",
            ));
        }
        (Asking::Unknown, _) | (_, None) => {}
        (_, Some(_)) => {
            return Err(Problem::field(
                "settle",
                "is only for acts whose end nobody saw",
            ));
        }
    }
    let more = decision.more_usd;
    if asking == Asking::Budget && decision.approve && more.is_none_or(|it| it <= Usd::ZERO) {
        return Err(Problem::field(
            "more_usd",
            "say how much more, such as \"1.00\"",
        ));
    }
    if asking != Asking::Budget && more.is_some() {
        return Err(Problem::field("more_usd", "no money is asked for"));
    }
    if decision.stop && decision.approve {
        return Err(Problem::field("stop", "goes with a no only"));
    }
    if decision.standing.is_some() && (asking != Asking::Acts || !decision.approve) {
        return Err(Problem::field("standing", "goes with a yes to acts only"));
    }
    Ok(())
}

/// Holds that `caller` may decide over acts of the task.
pub(super) fn may_approve(state: &State, caller: &Caller) -> Result<(), Problem> {
    let rules = &state.brief.approval;
    let refused = |message: &str| Err(Problem::new(403, "approver_not_allowed", message));
    let is_named = |approver: &String| match approver.split_once(':') {
        Some(("user", name)) => caller.user == name,
        Some(("key", id)) => !caller.key.is_empty() && caller.key == id,
        _ => approver == "operator" && caller.is_operator,
    };
    if !rules.approvers.is_empty() && !rules.approvers.iter().any(is_named) {
        return refused("the brief names others as approvers");
    }
    let asked = &state.caller;
    let same_key = !caller.key.is_empty() && caller.key == asked.key;
    let same_user = !caller.user.is_empty() && caller.user == asked.user;
    let both_operators = caller.is_operator && asked.is_operator;
    if !rules.requester_may_approve && (same_key || same_user || both_operators) {
        return refused("who asked for the task may not approve its acts; somebody else must");
    }
    Ok(())
}
