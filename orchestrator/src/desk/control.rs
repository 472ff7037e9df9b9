//! Stopping, steering and forgetting tasks.

use std::sync::Arc;

use crate::event::{Asking, Caller, Event, Scope, cut_at};
use crate::id::TaskId;
use crate::log::{Append, RowChange};
use crate::money::Usd;
use crate::state::{Asked, State};

use super::{Also, Desk, Problem, Seen, Thought, decide};

/// The longest text of a person's, in bytes.
const LONGEST_TEXT: usize = 16_384;

/// A task and what is said of it.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    pub task: TaskId,
    /// `If-Match`: only while the task has one of these etags.
    pub etag: Option<&'a str>,
}

impl About<'_> {
    /// The task, however it stands.
    pub fn task(task: TaskId) -> Self {
        Self { task, etag: None }
    }
}

impl Desk {
    /// Begins nothing more until it is resumed; what is under way comes to its end. Pausing a task that is
    /// paused changes nothing.
    ///
    /// # Errors
    /// 409 where it has ended.
    pub async fn pause(
        &self,
        caller: &Caller,
        about: About<'_>,
        why: &str,
    ) -> Result<Arc<State>, Problem> {
        let why = text("reason", why, true)?;
        self.change(caller, about.task, about.etag, |state, _| {
            not_ended(state)?;
            let event = Event::Paused { why: why.clone() };
            Ok(events(state.paused.is_none(), event))
        })
        .await
    }

    /// Goes on with a task that was paused; with one that is not, nothing happens.
    ///
    /// # Errors
    /// 409 where it has ended.
    pub async fn resume(&self, caller: &Caller, about: About<'_>) -> Result<Arc<State>, Problem> {
        self.change(caller, about.task, about.etag, |state, _| {
            not_ended(state)?;
            Ok(events(state.paused.is_some(), Event::Resumed))
        })
        .await
    }

    /// Ends a task: once this is acknowledged, no act of it begins any more. What is under way comes to
    /// its end first. A task that is or will be cancelled stays so.
    ///
    /// # Errors
    /// 409 where it has ended otherwise.
    pub async fn cancel(
        &self,
        caller: &Caller,
        about: About<'_>,
        why: &str,
    ) -> Result<Arc<State>, Problem> {
        self.cancel_as(caller, about, why, None).await
    }

    /// The same as somebody else, such as a schedule.
    pub(crate) async fn cancel_as(
        &self,
        caller: &Caller,
        about: About<'_>,
        why: &str,
        actor: Option<&str>,
    ) -> Result<Arc<State>, Problem> {
        let why = text("reason", why, true)?;
        self.change(caller, about.task, about.etag, |state, _| {
            if let Some((status, ..)) = &state.ended
                && *status == crate::event::Status::Cancelled
            {
                return Ok(Thought::default());
            }
            not_ended(state)?;
            let event = Event::CancelRequested { why: why.clone() };
            let mut thought = events(state.cancel.is_none(), event);
            thought.actor = actor.map(str::to_owned);
            Ok(thought)
        })
        .await
    }

    /// Says something to a task: every call from the next turn on has it, as the owner's own words.
    ///
    /// # Errors
    /// 409 where it has ended, 422 where the text is empty or too long.
    pub async fn steer(
        &self,
        caller: &Caller,
        about: About<'_>,
        said: &str,
    ) -> Result<Arc<State>, Problem> {
        self.steer_and(caller, about, said, &|_| Vec::new()).await
    }

    /// The same, with changes of records that depend on the number of the event.
    pub(crate) async fn steer_and(
        &self,
        caller: &Caller,
        about: About<'_>,
        said: &str,
        also: Also<'_>,
    ) -> Result<Arc<State>, Problem> {
        let said = text("text", said, false)?;
        self.change(caller, about.task, about.etag, |state, _| {
            going_on(state)?;
            let event = Event::Steered { text: said.clone() };
            Ok(Thought::from(vec![event]).and(state, also))
        })
        .await
    }

    /// Adds to a task's budget, asked or not. The approvers of the brief decide over it as over any act:
    /// where it takes several, the first asks the others.
    ///
    /// # Errors
    /// 409 where it has ended or has no budget, 403 where the caller may not, 422 for no amount.
    pub async fn raise(
        &self,
        caller: &Caller,
        about: About<'_>,
        more: Usd,
    ) -> Result<Arc<State>, Problem> {
        if more <= Usd::ZERO {
            return Err(Problem::field("usd", "must be more than nothing"));
        }
        self.change(caller, about.task, about.etag, |state, now_ms| {
            going_on(state)?;
            if state.limit().is_none() {
                let message = "the task has no budget of its own, so nothing can be added to it";
                return Err(Problem::new(409, "no_budget", message));
            }
            decide::may_approve(state, caller)?;
            Ok(raised(state, caller, more, now_ms).into())
        })
        .await
    }

    /// Forgets what a task said and did: briefs, answers, arguments, results, notices and the files in its
    /// workspace on this node. Hashes stay, so the audit chain holds.
    ///
    /// # Errors
    /// 404, and 409 while it has not ended.
    pub async fn erase(&self, caller: &Caller, task: TaskId) -> Result<(), Problem> {
        let state = match self.seen(caller, task).await? {
            Seen::Erased(_) => return Ok(()),
            Seen::Whole(state) => state,
        };
        let Some((status, ..)) = &state.ended else {
            return Err(Problem::new(
                409,
                "task_not_ended",
                "the task has not ended; cancel it first",
            ));
        };
        // The row's summary holds words of the brief, too.
        let row = RowChange {
            status: status.as_str().to_owned(),
            ended: true,
            wake_at_ms: None,
            summary: erased(&state).to_string(),
        };
        let after = state.head;
        // Files first: what fails here is told, and the next try begins anew.
        let builtins = self.toolbox().builtins().clone();
        let tenant = state.caller.tenant.clone();
        let removing = tokio::task::spawn_blocking(move || builtins.remove(&tenant, task));
        let removed = removing.await.map_err(|error| error.to_string());
        let removed = removed.and_then(|it| it.map_err(|error| error.to_string()));
        removed.map_err(|error| {
            let message = format!("the task's files could not be removed: {error}");
            Problem::new(500, "files_not_removed", message)
        })?;
        self.ports()
            .ask(move |log| {
                let append = Append {
                    task,
                    after,
                    epoch: None,
                    events: &[],
                    row: &row,
                    changes: &[],
                    release: false,
                };
                log.append(&append)?;
                log.erase(task)?;
                Ok::<(), crate::log::AppendError>(())
            })
            .await??;
        self.forget(task);
        tracing::info!(%task, by = caller.actor(), "a task was erased");
        Ok(())
    }
}

/// A summary without anything that was said.
fn erased(state: &State) -> serde_json::Value {
    let mut summary = crate::view::summary(state);
    if let Some(fields) = summary.as_object_mut() {
        for (name, blank) in [("objective", ""), ("owner", "")] {
            fields.insert(name.to_owned(), blank.into());
        }
        fields.insert("labels".to_owned(), serde_json::json!({}));
        fields.insert("erased".to_owned(), true.into());
    }
    summary
}

/// The events that raise a budget: an open request for money is decided, or one is made for it.
fn raised(state: &State, caller: &Caller, more: Usd, now_ms: i64) -> Vec<Event> {
    let is_open = |request: &&crate::state::Request| {
        request.open
            && matches!(
                request.what,
                Asked::Approval {
                    asking: Asking::Budget,
                    ..
                }
            )
    };
    let mut requests = state.requests.iter();
    let open = requests.find(|(_, request)| is_open(request));
    let mut made = Vec::new();
    let request = if let Some((id, _)) = open {
        id.clone()
    } else {
        let id = format!("req-raise-{}", state.head.seq + 1);
        made.push(Event::ApprovalRequested {
            request: id.clone(),
            asking: Asking::Budget,
            items: Vec::new(),
            why: format!("{} offers {more} USD more", caller.actor()),
            expires_at_ms: now_ms + state.brief.approval_ms(),
        });
        id
    };
    made.push(Event::ApprovalDecided {
        request,
        by: caller.actor(),
        approve: true,
        scope: Scope::Once,
        settle: None,
        more: Some(more),
        reason: String::new(),
        standing: None,
    });
    made
}

fn events(wanted: bool, event: Event) -> Thought {
    if wanted {
        vec![event].into()
    } else {
        Thought::default()
    }
}

/// Holds that the task has not ended.
pub(super) fn not_ended(state: &State) -> Result<(), Problem> {
    match &state.ended {
        Some((status, ..)) => Err(Problem::ended(status.as_str())),
        None => Ok(()),
    }
}

/// Holds that the task neither has ended nor is about to be cancelled.
pub(super) fn going_on(state: &State) -> Result<(), Problem> {
    not_ended(state)?;
    if state.cancel.is_some() {
        return Err(Problem::new(
            409,
            "task_cancelled",
            "the task is being cancelled; nothing more is done for it",
        ));
    }
    Ok(())
}

/// A text of a person's, within its bounds.
pub(super) fn text(field: &str, text: &str, may_be_empty: bool) -> Result<String, Problem> {
    let trimmed = text.trim();
    if trimmed.len() > LONGEST_TEXT {
        let start = cut_at(trimmed, 40);
        return Err(Problem::field(
            field,
            format!("has more than {LONGEST_TEXT} bytes (`{start}...`)"),
        ));
    }
    if trimmed.is_empty() && !may_be_empty {
        return Err(Problem::field(field, "must say something"));
    }
    Ok(trimmed.to_owned())
}
