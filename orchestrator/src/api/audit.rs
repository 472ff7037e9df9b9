//! What an auditor and an operator look at: every event of every task, whether the log is whole, tools and
//! what was accepted of them, skills, and all that waits for somebody to look.

use std::fmt::Write;
use std::sync::Arc;

use http::{Method, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::brief::fits;
use crate::desk::{Desk, Kept, Problem, may_see, tenant_of};
use crate::digest::Digest;
use crate::event::Caller;
use crate::id::TaskId;
use crate::log::{Filter, Kind, Record, Recorded, TaskLog, TaskLogError};
use crate::model::Body;
use crate::notices;
use crate::tool::host::{AcceptError, State};

use super::request::{Question, task};
use super::{answer, events};

/// Events that one page looks through, however few of them it shows.
const LOOKED_AT: usize = 20_000;
/// Events read at a time.
const PAGE: u32 = 500;
/// Entries of each list of what waits for somebody.
const MOST_SHOWN: u32 = 200;

/// The skills that a brief may name.
pub(super) fn skills(desk: &Desk, it: &Question) -> Response<Body> {
    let skills = desk.toolbox().skill_list(&it.caller.tenant);
    answer::json(
        200,
        &json!({ "object": "list", "data": skills, "has_more": false }),
    )
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Accept {
    /// The digest of the definition that was looked at.
    pin: Digest,
}

/// Tools: what there are, and accepting what has changed.
pub(super) async fn tools(
    desk: &Desk,
    it: &Question,
    rest: &[&str],
) -> Result<Response<Body>, Problem> {
    match rest {
        [] => {
            it.only(&[Method::GET])?;
            let known = desk.toolbox().known().await?;
            let own = desk.toolbox().builtins().definitions();
            let own = own.iter().map(|tool| {
                json!({
                    "tool": tool.definition.name, "server": "", "pin": tool.pin,
                    "state": State::Accepted, "verb": tool.manifest.verb,
                    "class": tool.manifest.class, "changed": [], "definition": tool.definition,
                })
            });
            let all: Vec<Value> = own.chain(known.iter().map(|tool| json!(tool))).collect();
            Ok(answer::json(
                200,
                &json!({ "object": "list", "data": all, "has_more": false }),
            ))
        }
        [name, "accept"] => {
            it.only(&[Method::POST])?;
            if !it.caller.is_operator {
                let message = "only the operator accepts tools; use the admin API";
                return Err(Problem::new(403, "operator_only", message));
            }
            let said: Accept = it.said()?;
            let by = it.caller.actor();
            let accepted = desk.toolbox().accept(name, said.pin, &by).await;
            accepted.map_err(|error| match error {
                AcceptError::Unknown(_) => Problem::missing("tool", name),
                AcceptError::Changed(_) => Problem::new(409, "tool_pin_changed", error.to_string()),
                AcceptError::Down(_) => Problem::new(503, "tool_down", error.to_string()),
                AcceptError::Log(error) => error.into(),
            })?;
            tracing::info!(tool = name, pin = %said.pin, by, "a tool was accepted");
            let accepted = json!({ "tool": name, "pin": said.pin, "state": State::Accepted });
            Ok(answer::json(200, &accepted))
        }
        _ => Err(it.no_such_path()),
    }
}

/// Whether the log is what was written.
pub(super) async fn verify(desk: &Desk, it: &Question) -> Result<Response<Body>, Problem> {
    let tenant = tenant_of(&it.caller);
    let reports = desk
        .ask(move |log| {
            let tenants = match tenant {
                Some(tenant) => vec![tenant],
                None => log.tenants()?,
            };
            let reports = tenants
                .iter()
                .map(|tenant| crate::audit::verify(log, tenant));
            reports.collect::<Result<Vec<_>, TaskLogError>>()
        })
        .await?;
    let ok = reports.iter().all(|report| report.ok);
    Ok(answer::json(
        200,
        &json!({ "object": "audit.report", "ok": ok, "tenants": reports }),
    ))
}

/// Which events of the log are shown.
#[derive(Debug, Clone)]
struct Wanted {
    tenant: Option<String>,
    task: Option<TaskId>,
    actor: Option<String>,
    types: Vec<String>,
    from_ms: i64,
    until_ms: i64,
    limit: usize,
    /// Where the last page ended: a task and an event of it.
    after: Option<(TaskId, u64)>,
}

impl Wanted {
    fn of(it: &Question) -> Result<Self, Problem> {
        let after = it.asked("after").map(|text| {
            let (id, seq) = text.split_once(':').unwrap_or((text, "0"));
            let seq = seq
                .parse()
                .map_err(|_| Problem::field("after", "is no place in the log"))?;
            Ok::<_, Problem>((task(id)?, seq))
        });
        let kinds = it.words("kind").into_iter().chain(it.words("types"));
        Ok(Self {
            tenant: tenant_of(&it.caller),
            task: it.asked("task").map(task).transpose()?,
            actor: it.asked("actor").map(str::to_owned),
            types: kinds.collect(),
            from_ms: it.time("from")?.unwrap_or(i64::MIN),
            until_ms: it.time("to")?.unwrap_or(i64::MAX),
            limit: usize::try_from(it.limit()?).unwrap_or(usize::MAX),
            after: after.transpose()?,
        })
    }

    fn fits(&self, event: &Recorded) -> bool {
        let actor = self.actor.as_deref();
        actor.is_none_or(|actor| fits(actor, &event.actor))
            && events::wanted(&self.types, &event.kind)
            && (self.from_ms..self.until_ms).contains(&event.at_ms)
    }
}

/// A page of the log.
#[derive(Debug, Default)]
struct Page {
    lines: Vec<Value>,
    looked_at: usize,
    /// Where it ended, unless the log did.
    next: Option<(TaskId, u64)>,
}

/// Events of all tasks, the newest task first, each task's in their order; at last what people changed beside
/// tasks.
pub(super) async fn lines(desk: &Desk, it: &Question) -> Result<Response<Body>, Problem> {
    let wanted = Wanted::of(it)?;
    let caller = it.caller.clone();
    let page = desk.ask(move |log| page(log, &caller, &wanted)).await?;
    let next = page.next.map(|(task, seq)| format!("{task}:{seq}"));
    if it.asked("format") == Some("jsonl") || it.accepts("application/jsonl") {
        let mut lines = String::new();
        for line in &page.lines {
            // Writing to a String can not fail.
            let _written = writeln!(lines, "{line}");
        }
        let mut response = answer::whole(200, "application/jsonl", lines);
        if let Some(next) = next {
            let name = http::HeaderName::from_static("x-pareto-next");
            answer::set(&mut response, name, &next);
        }
        return Ok(response);
    }
    Ok(answer::json(
        200,
        &json!({ "object": "list", "data": page.lines, "has_more": next.is_some(), "next": next }),
    ))
}

fn page(log: &dyn TaskLog, caller: &Caller, wanted: &Wanted) -> Result<Page, TaskLogError> {
    let mut page = Page::default();
    if let Some(task) = wanted.task {
        let row = log.task(task)?.filter(|row| may_see(caller, &row.tenant));
        let after = wanted.after.map_or(0, |(_, seq)| seq);
        if let Some(row) = row {
            read(log, wanted, (&row.tenant, row.id), after, &mut page)?;
        }
        return Ok(page);
    }
    let tenants = match &wanted.tenant {
        Some(tenant) => vec![tenant.clone()],
        None => log.tenants()?,
    };
    let registers = tenants.iter().map(|it| (&**it, TaskId::of_register(it)));
    let registers: Vec<(&str, TaskId)> = registers.collect();
    let reached = wanted.after.and_then(|(id, seq)| {
        let place = registers.iter().position(|it| it.1 == id)?;
        Some((place, seq))
    });
    if reached.is_none() && !tasks(log, caller, wanted, &mut page)? {
        return Ok(page);
    }
    let (first, mut after) = reached.unwrap_or_default();
    for register in registers.into_iter().skip(first) {
        if !read(log, wanted, register, after, &mut page)? {
            break;
        }
        after = 0;
    }
    Ok(page)
}

/// Reads events of tasks, from where the last page ended; false where the page is full.
fn tasks(
    log: &dyn TaskLog,
    caller: &Caller,
    wanted: &Wanted,
    page: &mut Page,
) -> Result<bool, TaskLogError> {
    if let Some((task, after)) = wanted.after {
        let row = log.task(task)?.filter(|row| may_see(caller, &row.tenant));
        if let Some(row) = row
            && !read(log, wanted, (&row.tenant, row.id), after, page)?
        {
            return Ok(false);
        }
    }
    let mut filter = Filter {
        tenant: wanted.tenant.clone(),
        before: wanted.after.map(|(task, _)| task),
        limit: PAGE,
        ..Filter::default()
    };
    loop {
        let rows = log.list(&filter)?;
        let Some(last) = rows.last() else {
            return Ok(true);
        };
        filter.before = Some(last.id);
        for row in &rows {
            // Nothing of it is in the time that is asked for.
            if row.updated_at_ms < wanted.from_ms || row.created_at_ms >= wanted.until_ms {
                continue;
            }
            if !read(log, wanted, (&row.tenant, row.id), 0, page)? {
                return Ok(false);
            }
        }
    }
}

/// Reads the events behind `after` of a task, or of a tenant's register, which has none; false where the
/// page is full.
fn read(
    log: &dyn TaskLog,
    wanted: &Wanted,
    (tenant, id): (&str, TaskId),
    mut after: u64,
    page: &mut Page,
) -> Result<bool, TaskLogError> {
    let is_register = id == TaskId::of_register(tenant);
    loop {
        let events = log.events(id, after, PAGE)?;
        if events.is_empty() {
            return Ok(true);
        }
        for event in &events {
            if page.lines.len() >= wanted.limit || page.looked_at >= LOOKED_AT {
                page.next = Some((id, after));
                return Ok(false);
            }
            after = event.seq;
            page.looked_at += 1;
            if wanted.fits(event) {
                let mut line = events::event(event);
                if let Some(fields) = line.as_object_mut() {
                    fields.insert("tenant".to_owned(), tenant.into());
                    let task = (!is_register).then(|| id.to_string());
                    fields.insert("task".to_owned(), task.into());
                }
                page.lines.push(line);
            }
        }
    }
}

/// What waits for somebody to look: acts nobody knows the end of, tools that have changed, schedules that
/// stopped, notices that nobody took.
pub(super) async fn exceptions(desk: &Arc<Desk>, it: &Question) -> Result<Response<Body>, Problem> {
    let tenant = tenant_of(&it.caller);
    let lists = desk
        .ask(move |log| {
            let of = |kind| all(log, kind, tenant.as_deref());
            Ok((of(Kind::Request)?, of(Kind::Schedule)?, of(Kind::Notice)?))
        })
        .await?;
    let (requests, schedules, told) = lists;
    let unknown = requests.iter().filter_map(|record| {
        let body: Value = serde_json::from_str(&record.body).ok()?;
        (body.get("asking")? == "unknown").then_some(body)
    });
    let unknown: Vec<Value> = shown(unknown);
    let paused = schedules.iter().filter_map(|record| {
        let kept = Kept::read(record).ok()?;
        let stopped = kept.paused_why.is_some() || kept.held_back.is_some();
        stopped.then(|| kept.shown(&record.tenant))
    });
    let paused = shown(paused);
    let dead = told.iter().filter(|record| notices::is_dead(record));
    let dead = shown(dead.filter_map(|record| serde_json::from_str(&record.body).ok()));
    let known = desk.toolbox().known().await?;
    let withheld = known.iter().filter(|tool| tool.state != State::Accepted);
    let withheld = shown(withheld.map(|tool| json!(tool)));
    let count = unknown.len() + paused.len() + dead.len() + withheld.len();
    Ok(answer::json(
        200,
        &json!({
            "object": "exceptions", "count": count, "unknown_effects": unknown,
            "withheld_tools": withheld, "paused_schedules": paused, "dead_notices": dead,
        }),
    ))
}

fn shown(all: impl Iterator<Item = Value>) -> Vec<Value> {
    all.take(usize::try_from(MOST_SHOWN).unwrap_or(usize::MAX))
        .collect()
}

/// All records of a kind, as far as anybody will read.
fn all(log: &dyn TaskLog, kind: Kind, tenant: Option<&str>) -> Result<Vec<Record>, TaskLogError> {
    let mut found: Vec<Record> = Vec::new();
    loop {
        let after = found.last().map(|record| record.id.clone());
        let page = log.records(kind, tenant, &after.unwrap_or_default(), PAGE)?;
        let is_last = page.len() < usize::try_from(PAGE).unwrap_or(usize::MAX);
        found.extend(page);
        if is_last || found.len() >= LOOKED_AT {
            return Ok(found);
        }
    }
}
