//! Beginning tasks: a brief is read, held against what is in force here, and becomes the first event.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::brief::{Brief, Mode};
use crate::commit;
use crate::digest::Digest;
use crate::event::{Caller, Event};
use crate::id::TaskId;
use crate::log::{AppendError, Change, Created, Head, NewTask};
use crate::money::Usd;
use crate::state::State;

use super::{Desk, Problem};

/// The longest idempotency key, in bytes.
const LONGEST_KEY: usize = 255;

/// A task that is asked for.
#[derive(Debug, Clone)]
pub struct Asked {
    pub caller: Caller,
    /// The brief, as it came.
    pub brief: Value,
    /// A key under which the same brief is one task, however often it is sent.
    pub key: Option<String>,
    pub origin: Origin,
    /// What must happen with it, or not at all.
    pub changes: Vec<Change>,
    /// The id it is to have, where others speak of it already.
    pub id: Option<TaskId>,
}

/// Where a task comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Its caller asked for it now.
    Caller,
    /// A schedule of the caller's did, whose id this is.
    Schedule(String),
    /// The caller had it run by hand.
    ByHand(String),
}

/// A task that has begun.
#[derive(Debug, Clone)]
pub struct Begun {
    pub state: Arc<State>,
    /// False where the same was asked before under the same key.
    pub is_new: bool,
}

impl Asked {
    /// A brief of a caller's.
    pub fn new(caller: Caller, brief: Value) -> Self {
        Self {
            caller,
            brief,
            key: None,
            origin: Origin::Caller,
            changes: Vec::new(),
            id: None,
        }
    }
}

impl Desk {
    /// Begins a task.
    ///
    /// # Errors
    /// 422 with the field of the brief that can not be taken; 409 `idempotency_conflict` where another
    /// brief came under the same key; 409 `changed_meanwhile` where a change could not be made with it.
    pub async fn create(&self, asked: Asked) -> Result<Begun, Problem> {
        let Asked {
            caller,
            brief: value,
            key,
            origin,
            changes,
            id,
        } = asked;
        let brief = self.brief(&caller, &value).await?;
        let key = key_of(key, &brief)?;
        let digest = without_key(value);
        let (schedule, actor) = match origin {
            Origin::Caller => (None, caller.actor()),
            Origin::Schedule(id) => (Some(id.clone()), format!("schedule:{id}")),
            Origin::ByHand(id) => (Some(id), caller.actor()),
        };
        let pins = self.tools().skills(&caller.tenant, &brief.skills);
        let now_ms = self.now_ms();
        let id = id.unwrap_or_else(|| self.new_id());
        let tenant = caller.tenant.clone();
        let created = Event::Created {
            task: id,
            brief: Box::new(brief),
            caller: caller.clone(),
            schedule,
            policy: (self.ports().policy)().version,
            skills: pins
                .into_iter()
                .map(|(skill, pin)| (skill.name, pin))
                .collect(),
        };
        let first = created.record(Head::default(), now_ms, 0, &actor);
        let state = State::fold(std::slice::from_ref(&first))?;
        let new = NewTask {
            id,
            tenant,
            idempotency: key.map(|key| (key, digest)),
            created_at_ms: now_ms,
            events: vec![first],
            row: commit::row(&state, Some(now_ms)),
        };
        let made = self
            .ports()
            .ask(move |log| log.create(&new, &changes))
            .await?;
        match made {
            Ok(Created::New) => {
                let state = self.remember(state);
                self.worker.nudge(id);
                Ok(Begun {
                    state,
                    is_new: true,
                })
            }
            Ok(Created::Before(before)) => Ok(Begun {
                state: self.state(&caller, before).await?,
                is_new: false,
            }),
            Ok(Created::Conflict(before)) => Err(Problem::new(
                409,
                "idempotency_conflict",
                format!("another brief came under this idempotency key; it became `{before}`"),
            )),
            Err(AppendError::Behind | AppendError::Fenced) => Err(Problem::busy()),
            Err(error) => Err(error.into()),
        }
    }

    /// An id for a task that begins now.
    pub fn new_id(&self) -> TaskId {
        TaskId::new(self.now_ms(), (self.ports().random)())
    }

    /// Reads a brief and holds it against what is in force here.
    ///
    /// # Errors
    /// 422 with the first field that can not be taken.
    pub async fn brief(&self, caller: &Caller, value: &Value) -> Result<Brief, Problem> {
        if caller.tenant.is_empty() {
            return Err(Problem::field(
                "tenant",
                "say for which tenant, with the header x-pareto-tenant",
            ));
        }
        let brief: Brief = read(value)?;
        brief.check()?;
        self.check_policy(&brief)?;
        self.check_named(caller, &brief)?;
        check_approvers(&brief)?;
        if brief
            .deadline
            .is_some_and(|at| at.as_millisecond() <= self.now_ms())
        {
            return Err(Problem::field("deadline", "is over already"));
        }
        if let Some(parent) = brief.parent
            && self.state(caller, parent).await.is_err()
        {
            return Err(Problem::field("parent", "there is no such task of yours"));
        }
        Ok(brief)
    }

    fn check_policy(&self, brief: &Brief) -> Result<(), Problem> {
        let policy = (self.ports().policy)();
        if brief.autonomy > policy.autonomy {
            let most = policy.autonomy;
            return Err(Problem {
                code: "autonomy_ceiling",
                ..Problem::field("autonomy", format!("at most {most} is allowed here"))
            });
        }
        let labels = [
            ("routing.max_label", &brief.routing.max_label),
            (
                "approval.thresholds.label",
                &brief.approval.thresholds.label,
            ),
        ];
        for (field, label) in labels {
            let unknown = |label: &&String| !policy.labels.contains(label);
            if let Some(label) = label.as_ref().filter(unknown)
                && !policy.labels.is_empty()
            {
                let known = policy.labels.join(", ");
                return Err(Problem::field(
                    field,
                    format!("`{label}` is no label here; write one of {known}"),
                ));
            }
        }
        Ok(())
    }

    fn check_named(&self, caller: &Caller, brief: &Brief) -> Result<(), Problem> {
        let known = self.tools().skills(&caller.tenant, &brief.skills);
        for (place, name) in brief.skills.iter().enumerate() {
            if !known.iter().any(|(skill, _)| skill.name == *name) {
                return Err(Problem::field(
                    format!("skills[{place}]"),
                    format!("there is no skill `{name}`; GET /v1/skills lists those there are"),
                ));
            }
        }
        for (place, notify) in brief.notify.iter().enumerate() {
            if !self.settings.webhooks.contains(&notify.webhook) {
                return Err(Problem::field(
                    format!("notify[{place}].webhook"),
                    format!(
                        "there is no webhook `{}`; the operator names them in [[webhook]]",
                        notify.webhook
                    ),
                ));
            }
            let known = ["requires_action", "ended"];
            if let Some(word) = notify
                .events
                .iter()
                .find(|it| !known.contains(&it.as_str()))
            {
                return Err(Problem::field(
                    format!("notify[{place}].events"),
                    format!("`{word}` is none of requires_action and ended"),
                ));
            }
        }
        Ok(())
    }

    /// Begins a task again that has ended: the same brief, with the old task as its parent.
    ///
    /// # Errors
    /// 409 while it has not ended, and as [`Desk::create`].
    pub async fn retry(&self, caller: &Caller, task: TaskId) -> Result<Begun, Problem> {
        let state = self.state(caller, task).await?;
        if state.ended.is_none() {
            return Err(Problem::new(
                409,
                "task_not_ended",
                "the task has not ended; cancel it first",
            ));
        }
        let mut brief = state.brief.clone();
        (brief.parent, brief.idempotency_key) = (Some(task), None);
        let brief = serde_json::to_value(&brief).unwrap_or_default();
        let caller = Caller {
            tenant: state.caller.tenant.clone(),
            ..caller.clone()
        };
        self.create(Asked::new(caller, brief)).await
    }
}

/// Reads what a caller sent.
///
/// # Errors
/// 422 with the field that can not be read.
pub fn read<T: DeserializeOwned>(value: &Value) -> Result<T, Problem> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let mut field = error.path().to_string();
        let what = error.inner().to_string();
        let named = ["unknown field `", "missing field `"];
        let named = named.iter().find_map(|start| what.strip_prefix(start));
        if let Some((name, _)) = named.and_then(|rest| rest.split_once('`')) {
            // What is missing or too much stands in the object that the path leads to.
            let ends_so = field == name || field.ends_with(&format!(".{name}"));
            field = match field.as_str() {
                "." | "?" | "" => name.to_owned(),
                _ if ends_so => field,
                _ => format!("{field}.{name}"),
            };
        }
        Problem::field(field, what)
    })
}

/// The idempotency key of the header or of the brief.
fn key_of(header: Option<String>, brief: &Brief) -> Result<Option<String>, Problem> {
    let wrong = |what: &str| Err(Problem::field("idempotency_key", what));
    let key = match (header, brief.idempotency_key.clone()) {
        (Some(one), Some(other)) if one != other => {
            return wrong("the header Idempotency-Key says another one; send one of them");
        }
        (one, other) => one.or(other),
    };
    match &key {
        Some(key) if key.is_empty() || key.len() > LONGEST_KEY => wrong("has 1 to 255 bytes"),
        _ => Ok(key),
    }
}

/// The digest of a brief, however its key was sent.
fn without_key(mut brief: Value) -> Digest {
    if let Some(fields) = brief.as_object_mut() {
        fields.shift_remove("idempotency_key");
    }
    Digest::of_value(&brief)
}

fn check_approvers(brief: &Brief) -> Result<(), Problem> {
    let rules = &brief.approval;
    for (place, approver) in rules.approvers.iter().enumerate() {
        let named = ["user:", "key:"]
            .iter()
            .any(|start| approver.len() > start.len() && approver.starts_with(start));
        if !named && approver != "operator" {
            return Err(Problem::field(
                format!("approval.approvers[{place}]"),
                format!("`{approver}` is none of user:<name>, key:<id> and operator"),
            ));
        }
    }
    let named = rules.approvers.len();
    if named > 0 && usize::try_from(rules.quorum).unwrap_or(usize::MAX) > named {
        return Err(Problem::field(
            "approval.quorum",
            "is more than there are approvers, so nothing could ever be approved",
        ));
    }
    if brief.budget.cost_usd.is_some_and(|cost| cost <= Usd::ZERO) {
        return Err(Problem::field(
            "budget.cost_usd",
            "must be more than nothing",
        ));
    }
    if brief.mode == Mode::PlanOnly && brief.autonomy > 2 {
        return Err(Problem::field(
            "autonomy",
            "a task that only plans acts on nothing; write at most 2",
        ));
    }
    Ok(())
}
