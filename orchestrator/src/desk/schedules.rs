//! Schedules, as people make, change and see them. [`crate::schedules`] fires them.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::digest::Digest;
use crate::event::Caller;
use crate::id::TaskId;
use crate::log::{Change, Expected, Kind, Record, To};
use crate::money::Usd;
use crate::schedule::{CheckScheduleError, Missed, Overlap, Period, Schedule, upcoming};

use super::create::{Asked, Begun, Origin, read};
use super::{Desk, Problem, tenant_of};

/// Tries of a change against others who change the same schedule.
const TRIES: usize = 8;

/// A schedule as it is kept, with how it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    pub schedule: Schedule,
    /// Whose tasks they are.
    pub caller: Caller,
    pub created_at_ms: i64,
    /// The task of the last fire.
    #[serde(default)]
    pub last_task: Option<TaskId>,
    /// Its tasks whose end has not been counted.
    #[serde(default)]
    pub open: Vec<TaskId>,
    /// Due times that wait for the end of the last task.
    #[serde(default)]
    pub queued: Vec<i64>,
    /// What its tasks that ended have cost since the period began.
    #[serde(default)]
    pub spent: Usd,
    #[serde(default)]
    pub period_start_ms: i64,
    /// Why it does nothing any more, where it was not switched off by a person.
    #[serde(default)]
    pub paused_why: Option<String>,
    /// Why its last due time came to nothing.
    #[serde(default)]
    pub held_back: Option<String>,
}

/// A schedule as people write it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewSchedule {
    /// A name of its own; one is made where it is left out.
    #[serde(default)]
    pub id: String,
    pub cron: String,
    #[serde(default = "NewSchedule::utc")]
    pub zone: String,
    #[serde(default)]
    pub jitter_s: u32,
    pub brief: Value,
    #[serde(default)]
    pub missed: Missed,
    #[serde(default)]
    pub overlap: Overlap,
    #[serde(default)]
    pub spend_per_period_usd: Option<String>,
    #[serde(default)]
    pub period: Period,
    #[serde(default)]
    pub pause_after_failures: Option<u32>,
    #[serde(default = "NewSchedule::yes")]
    pub enabled: bool,
}

impl NewSchedule {
    fn utc() -> String {
        "UTC".to_owned()
    }

    fn yes() -> bool {
        true
    }

    fn of(schedule: &Schedule) -> Self {
        let it = schedule.clone();
        Self {
            id: it.id,
            cron: it.cron,
            zone: it.zone,
            jitter_s: it.jitter_s,
            brief: it.brief,
            missed: it.missed,
            overlap: it.overlap,
            spend_per_period_usd: it.spend_per_period_usd,
            period: it.period,
            pause_after_failures: it.pause_after_failures,
            enabled: it.enabled,
        }
    }

    fn schedule(self, last_due_ms: i64) -> Schedule {
        Schedule {
            id: self.id,
            cron: self.cron,
            zone: self.zone,
            jitter_s: self.jitter_s,
            brief: self.brief,
            missed: self.missed,
            overlap: self.overlap,
            spend_per_period_usd: self.spend_per_period_usd,
            period: self.period,
            pause_after_failures: self.pause_after_failures,
            enabled: self.enabled,
            last_due_ms: Some(last_due_ms),
            failures: 0,
        }
    }
}

impl Kept {
    /// The schedule in a record.
    ///
    /// # Errors
    /// When it is of a format that this program does not know.
    pub fn read(record: &Record) -> Result<Self, serde_json::Error> {
        serde_json::from_str(&record.body)
    }

    /// When it must be looked at; `None` while it is switched off and none of its tasks is open.
    pub fn due_at_ms(&self, now_ms: i64) -> Option<i64> {
        let after = self.schedule.last_due_ms.unwrap_or(self.created_at_ms);
        let enabled = self.schedule.enabled;
        let next = upcoming(&self.schedule, after).filter(|_| enabled);
        // Ends of its tasks are not told; they are looked for.
        let look = (!self.open.is_empty()).then_some(now_ms + LOOK_MS);
        let waits = (enabled && !self.queued.is_empty() && self.open.is_empty()).then_some(now_ms);
        let next = next.map(|fire| fire.at_ms);
        next.into_iter().chain(look).chain(waits).min()
    }

    /// The change that keeps it so, where the record has the version `expected`.
    pub fn change(&self, tenant: &str, expected: Expected, now_ms: i64) -> Change {
        Change {
            kind: Kind::Schedule,
            tenant: tenant.to_owned(),
            id: self.schedule.id.clone(),
            expected,
            to: Some(To {
                task: self.last_task,
                due_at_ms: self.due_at_ms(now_ms),
                body: serde_json::to_string(self).unwrap_or_default(),
            }),
        }
    }

    /// As people see it.
    pub fn shown(&self, tenant: &str) -> Value {
        let mut shown = serde_json::to_value(NewSchedule::of(&self.schedule)).unwrap_or_default();
        let after = self.schedule.last_due_ms.unwrap_or(self.created_at_ms);
        let next = upcoming(&self.schedule, after).filter(|_| self.schedule.enabled);
        let more = json!({
            "object": "schedule", "tenant": tenant, "key": self.caller.key,
            "created_by": self.caller.actor(), "created_at_ms": self.created_at_ms,
            "last_due_ms": self.schedule.last_due_ms, "failures": self.schedule.failures,
            "next_due_ms": next.map(|fire| fire.due_ms), "next_at_ms": next.map(|fire| fire.at_ms),
            "last_task": self.last_task, "open_tasks": self.open, "queued": self.queued,
            "spent_usd": self.spent, "paused_why": self.paused_why, "held_back": self.held_back,
        });
        if let (Some(shown), Some(more)) = (shown.as_object_mut(), more.as_object()) {
            shown.extend(more.clone());
        }
        shown
    }
}

/// How often the ends of open tasks are looked for, in milliseconds.
const LOOK_MS: i64 = 2_000;

/// What the register says of a schedule: its brief by its digest, since it can be long and private.
fn noted(kept: &Kept) -> Value {
    let mut noted = serde_json::to_value(NewSchedule::of(&kept.schedule)).unwrap_or_default();
    if let Some(fields) = noted.as_object_mut() {
        let brief = fields
            .get("brief")
            .map(Value::to_string)
            .unwrap_or_default();
        fields.insert("brief".to_owned(), json!(Digest::of(brief.as_bytes())));
    }
    noted
}

impl Desk {
    /// A record of the caller's tenant, or of any for the operator.
    pub(crate) async fn record(
        &self,
        caller: &Caller,
        kind: Kind,
        id: &str,
    ) -> Result<Option<Record>, Problem> {
        let (tenant, id) = (tenant_of(caller), id.to_owned());
        self.ask(move |log| {
            let tenants = match tenant {
                Some(tenant) => vec![tenant],
                None => log.tenants()?,
            };
            for tenant in tenants {
                if let Some(record) = log.record(kind, &tenant, &id)? {
                    return Ok(Some(record));
                }
            }
            Ok(None)
        })
        .await
    }

    /// Makes a schedule.
    ///
    /// # Errors
    /// 422 with the field that can not be taken, of the brief as well; 409 where there is one of its id.
    pub async fn schedule(&self, caller: &Caller, new: NewSchedule) -> Result<Value, Problem> {
        let now_ms = self.now_ms();
        let mut new = new;
        if new.id.is_empty() {
            new.id = format!("sched_{}", self.new_id().hex());
        }
        let schedule = new.schedule(now_ms);
        self.check(caller, &schedule).await?;
        let kept = Kept {
            schedule,
            caller: caller.clone(),
            created_at_ms: now_ms,
            last_task: None,
            open: Vec::new(),
            queued: Vec::new(),
            spent: Usd::ZERO,
            period_start_ms: 0,
            paused_why: None,
            held_back: None,
        };
        let change = kept.change(&caller.tenant, Expected::Absent, now_ms);
        let at = (&*caller.tenant, "schedule.made");
        let made = self.change_by(caller, at, &noted(&kept), change).await;
        made.map_err(|problem| match problem.code {
            "changed_meanwhile" => Problem {
                status: 409,
                ..Problem::field("id", "there is a schedule of this name already")
            },
            _ => problem,
        })?;
        Ok(kept.shown(&caller.tenant))
    }

    async fn check(&self, caller: &Caller, schedule: &Schedule) -> Result<(), Problem> {
        schedule.check().map_err(|error| {
            let field = match &error {
                CheckScheduleError::Id(_) => "id",
                CheckScheduleError::Cron(_) | CheckScheduleError::Never(_) => "cron",
                CheckScheduleError::Zone(_) => "zone",
                CheckScheduleError::Jitter(_) => "jitter_s",
                CheckScheduleError::Most(_) => "missed",
                CheckScheduleError::Spend(_) => "spend_per_period_usd",
                CheckScheduleError::Failures => "pause_after_failures",
                CheckScheduleError::Brief => "brief",
            };
            let told = error.to_string();
            let what = told
                .split_once(": ")
                .map_or(told.as_str(), |(_, what)| what);
            Problem::field(field, what)
        })?;
        let brief = self.brief(caller, &schedule.brief).await;
        let brief = brief.map_err(|problem| Problem {
            field: problem.field.map(|field| format!("brief.{field}")),
            ..problem
        })?;
        if brief.idempotency_key.is_some() {
            return Err(Problem::field(
                "brief.idempotency_key",
                "every fire is a task of its own; leave it out",
            ));
        }
        Ok(())
    }

    /// The schedules of the caller's tenant.
    ///
    /// # Errors
    /// When the log does not answer.
    pub async fn schedules(
        &self,
        caller: &Caller,
        after: String,
        limit: u32,
    ) -> Result<Vec<Value>, Problem> {
        let tenant = tenant_of(caller);
        let records = self
            .ask(move |log| log.records(Kind::Schedule, tenant.as_deref(), &after, limit))
            .await?;
        let shown = records
            .iter()
            .filter_map(|record| Some(Kept::read(record).ok()?.shown(&record.tenant)));
        Ok(shown.collect())
    }

    /// One schedule, with its record.
    ///
    /// # Errors
    /// 404 where the caller has none of this id.
    pub async fn scheduled(&self, caller: &Caller, id: &str) -> Result<(Record, Kept), Problem> {
        let missing = || Problem::missing("schedule", id);
        let record = self.record(caller, Kind::Schedule, id).await?;
        let record = record.ok_or_else(missing)?;
        let kept = Kept::read(&record).map_err(|error| {
            tracing::error!(id, %error, "a schedule can not be read");
            missing()
        })?;
        Ok((record, kept))
    }

    /// Changes what `change` names of a schedule (RFC 7386). Switched on again it goes on from now.
    ///
    /// # Errors
    /// 404, and as [`Desk::schedule`].
    pub async fn reschedule(
        &self,
        caller: &Caller,
        id: &str,
        change: &Value,
    ) -> Result<Value, Problem> {
        for _ in 0..TRIES {
            let (record, mut kept) = self.scheduled(caller, id).await?;
            let mut written =
                serde_json::to_value(NewSchedule::of(&kept.schedule)).unwrap_or_default();
            merge(&mut written, change);
            let new: NewSchedule = read(&written)?;
            if new.id != kept.schedule.id {
                return Err(Problem::field("id", "can not be changed"));
            }
            let now_ms = self.now_ms();
            let before = kept.schedule.clone();
            let again = new.enabled && !before.enabled;
            let retimed = new.cron != before.cron || new.zone != before.zone;
            let from = before.last_due_ms.filter(|_| !again && !retimed);
            kept.schedule = new.schedule(from.unwrap_or(now_ms));
            kept.schedule.failures = if again { 0 } else { before.failures };
            if kept.schedule.enabled {
                (kept.paused_why, kept.held_back) = (None, None);
            } else {
                kept.queued.clear();
            }
            self.check(&kept.caller, &kept.schedule).await?;
            let change = kept.change(&record.tenant, Expected::Version(record.version), now_ms);
            let at = (&*record.tenant, "schedule.changed");
            match self.change_by(caller, at, &noted(&kept), change).await {
                Ok(()) => return Ok(kept.shown(&record.tenant)),
                Err(problem) if problem.code == "changed_meanwhile" => {}
                Err(problem) => return Err(problem),
            }
        }
        Err(Problem::busy())
    }

    /// Removes a schedule. Its tasks go on.
    ///
    /// # Errors
    /// 404 where the caller has none of this id.
    pub async fn unschedule(&self, caller: &Caller, id: &str) -> Result<(), Problem> {
        let (record, _) = self.scheduled(caller, id).await?;
        self.remove_by(caller, "schedule.removed", record).await
    }

    /// Begins a schedule's task now, whatever its pattern says and whether or not it is switched on.
    ///
    /// # Errors
    /// 404, and as [`Desk::create`].
    pub async fn run_now(&self, caller: &Caller, id: &str) -> Result<Begun, Problem> {
        for _ in 0..TRIES {
            let (record, mut kept) = self.scheduled(caller, id).await?;
            let task = self.new_id();
            kept.last_task = Some(task);
            kept.open.push(task);
            let now_ms = self.now_ms();
            let change = kept.change(&record.tenant, Expected::Version(record.version), now_ms);
            let begun = self.create(Asked {
                origin: Origin::ByHand(id.to_owned()),
                changes: vec![change],
                id: Some(task),
                ..Asked::new(kept.caller.clone(), kept.schedule.brief.clone())
            });
            match begun.await {
                Err(problem) if problem.code == "changed_meanwhile" => {}
                done => return done,
            }
        }
        Err(Problem::busy())
    }
}

/// A merge patch: what is null goes, objects are merged, everything else takes its place.
fn merge(target: &mut Value, patch: &Value) {
    let (Some(fields), Some(changes)) = (target.as_object_mut(), patch.as_object()) else {
        target.clone_from(patch);
        return;
    };
    for (name, change) in changes {
        if change.is_null() {
            fields.shift_remove(name);
        } else if change.is_object() && fields.get(name).is_some_and(Value::is_object) {
            if let Some(field) = fields.get_mut(name) {
                merge(field, change);
            }
        } else {
            fields.insert(name.clone(), change.clone());
        }
    }
}
