//! Fires schedules: each due time becomes at most one task, on however many nodes this runs. The task and
//! the schedule's record are written in one transaction, under the fire's id as idempotency key.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::desk::{About, Asked, Desk, Kept, Origin, Problem};
use crate::id::TaskId;
use crate::log::{Expected, Kind, Record};
use crate::money::Usd;
use crate::schedule::{Missed, Overlap, fire_id, fires, upcoming};

/// How often schedules are looked at.
const EVERY: Duration = Duration::from_secs(1);
/// Schedules looked at in one round.
const BATCH: u32 = 200;
/// Steps of one schedule in one round: what it makes up for, and one on time.
const STEPS: usize = 128;
/// Due times that wait for the end of a task, at most; more come to nothing.
const MOST_QUEUED: usize = 100;

/// Fires what is due, until `stop`.
pub async fn run(desk: Arc<Desk>, stop: CancellationToken) {
    while stop
        .run_until_cancelled(tokio::time::sleep(EVERY))
        .await
        .is_some()
    {
        if let Err(problem) = round(&desk).await {
            tracing::warn!(why = problem.message, "schedules could not be looked at");
        }
    }
}

/// Fires all that is due now.
///
/// # Errors
/// When the log does not answer.
pub async fn round(desk: &Desk) -> Result<(), Problem> {
    let now_ms = desk.now_ms();
    let due = desk
        .ask(move |log| log.due(Kind::Schedule, now_ms, BATCH))
        .await?;
    for record in due {
        let mut record = Some(record);
        for _ in 0..STEPS {
            let Some(now) = record.take() else { break };
            // One that fails does not stand in the way of those behind it.
            record = step(desk, &now).await.unwrap_or_else(|problem| {
                tracing::warn!(
                    id = now.id,
                    why = problem.message,
                    "a schedule could not be looked at"
                );
                None
            });
        }
    }
    Ok(())
}

/// One look at a schedule. Gives its record again where more may be due.
async fn step(desk: &Desk, record: &Record) -> Result<Option<Record>, Problem> {
    let now_ms = desk.now_ms();
    let mut kept = match Kept::read(record) {
        Ok(kept) => kept,
        Err(error) => {
            tracing::error!(id = record.id, %error, "a schedule can not be read");
            return Ok(None);
        }
    };
    let running = count(desk, &mut kept, now_ms).await?;
    let last = kept.schedule.last_due_ms.unwrap_or(kept.created_at_ms);
    let coming = fires(&kept.schedule, last, now_ms);
    let enabled = kept.schedule.enabled;
    let fire = match coming.first() {
        Some(fire) => {
            kept.schedule.last_due_ms = Some(fire.due_ms);
            if kept.open.is_empty() && kept.queued.is_empty() {
                Some(fire.due_ms)
            } else {
                overlapping(desk, &mut kept, fire.due_ms).await?
            }
        }
        None if enabled && kept.open.is_empty() && !kept.queued.is_empty() => {
            Some(kept.queued.remove(0))
        }
        None => {
            pass_over(&mut kept, last, now_ms);
            keep(desk, record, &kept, now_ms).await?;
            return Ok(None);
        }
    };
    match fire {
        Some(_) if let Some(why) = spent_out(&kept, running) => {
            kept.held_back = Some(why);
            keep(desk, record, &kept, now_ms).await
        }
        Some(due_ms) => begin(desk, record, kept, due_ms).await,
        None => keep(desk, record, &kept, now_ms).await,
    }
}

/// A due time that comes while a task of the schedule goes on: the time to begin with now, if any.
async fn overlapping(desk: &Desk, kept: &mut Kept, due_ms: i64) -> Result<Option<i64>, Problem> {
    match kept.schedule.overlap {
        Overlap::Skip => {
            kept.held_back = Some("the last task had not ended".to_owned());
            Ok(None)
        }
        Overlap::Queue if kept.queued.len() < MOST_QUEUED => {
            kept.queued.push(due_ms);
            let free = kept.open.is_empty();
            Ok(free.then(|| kept.queued.remove(0)))
        }
        Overlap::Queue => {
            kept.held_back = Some(format!("{MOST_QUEUED} due times wait already"));
            Ok(None)
        }
        Overlap::Replace => {
            for task in kept.open.clone() {
                replace(desk, kept, task).await?;
            }
            Ok(Some(due_ms))
        }
    }
}

async fn replace(desk: &Desk, kept: &Kept, task: TaskId) -> Result<(), Problem> {
    let actor = format!("schedule:{}", kept.schedule.id);
    let why = "the schedule's next task takes its place";
    let about = About::task(task);
    let cancelled = desk.cancel_as(&kept.caller, about, why, Some(&actor)).await;
    match cancelled {
        Err(problem) if !matches!(problem.status, 404 | 409 | 410) => Err(problem),
        // It has ended meanwhile, or is gone.
        _ => Ok(()),
    }
}

/// Takes in the ends of the schedule's tasks; says what those that go on have cost so far.
async fn count(desk: &Desk, kept: &mut Kept, now_ms: i64) -> Result<Usd, Problem> {
    let start_ms = kept.schedule.period_start_ms(now_ms).unwrap_or(0);
    if start_ms != kept.period_start_ms {
        (kept.period_start_ms, kept.spent) = (start_ms, Usd::ZERO);
    }
    let mut running = Usd::ZERO;
    let mut open = Vec::new();
    for task in std::mem::take(&mut kept.open) {
        let Some(row) = desk.ask(move |log| log.task(task)).await? else {
            continue;
        };
        let cost = cost(&row.summary);
        if !row.ended {
            running += cost;
            open.push(task);
            continue;
        }
        kept.spent += cost;
        // What was cancelled says nothing about the schedule.
        if row.status != "cancelled" && kept.schedule.ended(row.status == "completed") {
            let failures = kept.schedule.failures;
            kept.paused_why = Some(format!(
                "{failures} tasks in a row did not complete; the last was {task} ({})",
                row.status
            ));
            kept.queued.clear();
            tracing::warn!(
                schedule = kept.schedule.id,
                failures,
                "a schedule was paused"
            );
        }
    }
    kept.open = open;
    Ok(running)
}

/// What a task has cost, by its row.
fn cost(summary: &str) -> Usd {
    let summary: serde_json::Value = serde_json::from_str(summary).unwrap_or_default();
    let cost = summary.pointer("/usage/cost_usd");
    let cost = cost.and_then(serde_json::Value::as_str);
    cost.and_then(|text| Usd::parse(text).ok())
        .unwrap_or(Usd::ZERO)
}

/// Why nothing more may be begun in this period.
fn spent_out(kept: &Kept, running: Usd) -> Option<String> {
    let most = kept.schedule.spend_per_period_usd.as_deref()?;
    let most = Usd::parse(most).ok()?;
    let spent = kept.spent + running;
    (spent >= most).then(|| format!("{spent} of {most} USD of this period are spent"))
}

/// Goes on behind due times that come to nothing because nobody was there.
fn pass_over(kept: &mut Kept, last: i64, now_ms: i64) {
    let is_past = upcoming(&kept.schedule, last).is_some_and(|fire| fire.at_ms <= now_ms);
    if !is_past {
        return;
    }
    let mut all = kept.schedule.clone();
    (all.missed, all.enabled) = (Missed::All { most: 1 }, true);
    if let Some(fire) = fires(&all, last, now_ms).last() {
        kept.schedule.last_due_ms = Some(fire.due_ms);
    }
}

/// Writes down how the schedule stands, unless somebody else has changed it; gives it as it is then.
async fn keep(
    desk: &Desk,
    record: &Record,
    kept: &Kept,
    now_ms: i64,
) -> Result<Option<Record>, Problem> {
    let change = kept.change(&record.tenant, Expected::Version(record.version), now_ms);
    match desk.change_records(vec![change]).await {
        Ok(()) => again(desk, record).await,
        Err(problem) if problem.code == "changed_meanwhile" => Ok(None),
        Err(problem) => Err(problem),
    }
}

/// The record as it is now, if the schedule is still there.
async fn again(desk: &Desk, record: &Record) -> Result<Option<Record>, Problem> {
    let (tenant, id) = (record.tenant.clone(), record.id.clone());
    desk.ask(move |log| log.record(Kind::Schedule, &tenant, &id))
        .await
}

/// Begins the task of a due time, and keeps the schedule with it in one transaction.
async fn begin(
    desk: &Desk,
    record: &Record,
    before: Kept,
    due_ms: i64,
) -> Result<Option<Record>, Problem> {
    let now_ms = desk.now_ms();
    let id = before.schedule.id.clone();
    let task = desk.new_id();
    let begun = |task: TaskId| {
        let mut kept = before.clone();
        (kept.last_task, kept.held_back) = (Some(task), None);
        kept.open.push(task);
        kept
    };
    let change = begun(task).change(&record.tenant, Expected::Version(record.version), now_ms);
    let asked = Asked {
        key: Some(format!("fire:{}", fire_id(&id, due_ms))),
        origin: Origin::Schedule(id.clone()),
        changes: vec![change],
        id: Some(task),
        ..Asked::new(before.caller.clone(), before.schedule.brief.clone())
    };
    match desk.create(asked).await {
        Ok(made) if made.is_new => {
            tracing::info!(schedule = id, task = %made.state.id, "a schedule has fired");
            again(desk, record).await
        }
        // The record is older than the task, as after a restore.
        Ok(made) => keep(desk, record, &begun(made.state.id), now_ms).await,
        // It has fired, with the brief of then.
        Err(problem) if problem.code == "idempotency_conflict" => {
            keep(desk, record, &before, now_ms).await
        }
        // Another node was first.
        Err(problem) if problem.code == "changed_meanwhile" => Ok(None),
        Err(problem) if problem.status >= 500 => Err(problem),
        Err(problem) => {
            let mut kept = before.clone();
            kept.held_back = Some(problem.message.clone());
            if kept.schedule.ended(false) {
                kept.paused_why = Some(format!("its brief is not taken: {}", problem.message));
            }
            keep(desk, record, &kept, now_ms).await
        }
    }
}
