//! One task: how it stands, what it does and costs, what it asks, and all that it did.

use maud::{Markup, html};

use crate::ask::Ask;
use crate::frame::{Page, tile};
use crate::number::{self, digits};
use crate::period;
use crate::table::{Cell, Table, count, money};

use super::inbox::{self, Whence};
use super::shape::{self, Effect, Event, Explained, List, Node, Task};
use super::words::{cut, plain, spoken, tone, took};
use super::{Api, EVERY, Refused, Shown, calls, effects, graph, history, renewed, timeline};

pub(super) fn page(ask: &Ask, api: Api<'_>, id: &str) -> Result<Shown, Refused> {
    let task: Task = shape::read(api(&format!("/v1/tasks/{id}"))?)?;
    if task.erased {
        return Ok(Shown::Page(Box::new(erased(ask, &task))));
    }
    let (waits, stands) = (
        inbox::seen(&task.required_actions, &task.status),
        task.last_seq.to_string(),
    );
    let seen = ask.param("seen");
    match ask.param("part") {
        Some("asks") if seen == Some(&waits) => return Ok(Shown::Unchanged),
        Some("now") if seen == Some(&stands) => return Ok(Shown::Unchanged),
        _ => {}
    }
    let did: List<Effect> = shape::read(api(&format!("/v1/tasks/{id}/effects"))?)?;
    if ask.param("part") == Some("asks") {
        return Ok(Shown::Part(asks(ask, &task, &did.data, &waits)));
    }
    let explained: Explained = shape::read(api(&format!("/v1/tasks/{id}/explain"))?)?;
    let after = task.last_seq.saturating_sub(history::LATEST);
    let path = format!(
        "/v1/tasks/{id}/events?limit={}&after={after}",
        history::LATEST
    );
    let events: List<Event> = shape::read(api(&path)?)?;
    let all = All {
        task: &task,
        effects: &did.data,
        explained: &explained,
        events: &events.data,
    };
    let (now, tables) = now(ask, &all, &stands);
    if ask.param("part") == Some("now") {
        return Ok(Shown::Part(now));
    }
    Ok(Shown::Page(Box::new(Page {
        title: cut(&task.objective, 80),
        lead: task.id.clone(),
        body: html! { (asks(ask, &task, &did.data, &waits)) (now) },
        tables,
        unfiltered: true,
        ..Page::default()
    })))
}

/// All that is known of a task.
struct All<'a> {
    task: &'a Task,
    effects: &'a [Effect],
    explained: &'a Explained,
    events: &'a [Event],
}

/// What is left of a task whose contents were erased.
fn erased(ask: &Ask, task: &Task) -> Page {
    Page {
        title: "An erased task".to_owned(),
        lead: task.id.clone(),
        body: html! {
            p.note { "Its contents were erased: the brief, what models said, arguments and results. What it cost stays." }
            (tiles(ask, task))
        },
        unfiltered: true,
        ..Page::default()
    }
}

/// What waits for a person, and what a person may do. It is renewed only when it changes, so that
/// nothing that somebody writes into it is lost.
fn asks(ask: &Ask, task: &Task, did: &[Effect], seen: &str) -> Markup {
    let goes_on = task.ended_at_ms.is_none();
    let every = goes_on.then_some(EVERY);
    let again = goes_on.then(|| renewed(ask, "asks", seen));
    html! {
        div #asks hx-get=[again] hx-target="#asks" hx-swap="outerMorph" hx-trigger=[every] {
            @if !task.required_actions.is_empty() {
                section {
                    h2 { (inbox::heading(&task.required_actions)) }
                    @for request in &task.required_actions { (inbox::card(ask, request, did, Whence::Task)) }
                }
            }
            @if goes_on { (controls(task)) }
        }
    }
}

/// The forms with which one steers.
fn controls(task: &Task) -> Markup {
    let to = |verb: &str| format!("/tasks/{}/{verb}", task.id);
    html! {
        details.controls {
            summary { "Steer, pause or cancel" }
            div.row {
                @if task.status == "paused" {
                    form.decide method="post" action=(to("resume")) { button.yes type="submit" { "Resume" } }
                } @else {
                    form.decide method="post" action=(to("pause")) {
                        label { "Why" input type="text" name="reason" maxlength="2000" autocomplete="off"; }
                        button.no type="submit" { "Pause" }
                    }
                }
                form.decide method="post" action=(to("steer")) {
                    label { "Say to the task" input type="text" name="text" maxlength="8000" required autocomplete="off"; }
                    button.no type="submit" { "Steer" }
                }
                @if task.usage.budget_usd.is_some() {
                    form.decide method="post" action=(to("raise")) {
                        label { "USD more" input type="text" name="usd" inputmode="decimal" pattern="[0-9]+([.][0-9]{1,9})?" required autocomplete="off"; }
                        button.no type="submit" { "Raise the budget" }
                    }
                }
                form.decide method="post" action=(to("cancel")) {
                    label { "Why it is to end" input type="text" name="reason" maxlength="2000" autocomplete="off"; }
                    button.no type="submit" { "Cancel the task" }
                }
            }
        }
    }
}

/// What changes as the task goes on.
fn now(ask: &Ask, all: &All<'_>, seen: &str) -> (Markup, Vec<Table>) {
    let task = all.task;
    let goes_on = task.ended_at_ms.is_none();
    let every = goes_on.then_some(EVERY);
    let again = goes_on.then(|| renewed(ask, "now", seen));
    let tiers = tiers(task);
    let steps = steps(ask, &task.plan.nodes);
    let (drawing, times) = timeline::parts(ask, task, &all.explained.calls, all.effects);
    let (did, acts) = effects::section(ask, all.effects);
    let (why, routes) = calls::section(ask, all.explained);
    let markup = html! {
        div #now hx-get=[again] hx-target="#now" hx-swap="outerMorph" hx-trigger=[every] {
            (tiles(ask, task))
            (facts(ask, task))
            @if let Some(result) = &task.result { (outcome(task, &result.why, &result.not_done, result.summary.as_deref())) }
            section { h2 { "Spend" } (meter(task)) (tiers.html(ask)) }
            section {
                h2 { "Plan" @if task.plan.rev > 0 { ", revision " (task.plan.rev) } }
                @if task.plan.nodes.is_empty() { p.empty { "There is no plan yet." } } @else {
                    (graph::svg(&task.plan))
                    (steps.html(ask))
                    (step(ask, &task.plan.nodes))
                }
            }
            section { h2 { "Over time" } (drawing) (times.html(ask)) }
            (checks(task))
            (files(task))
            (did)
            (why)
            (history::section(ask, task, all.events))
        }
    };
    (markup, vec![steps, tiers, times, acts, routes])
}

fn tiles(ask: &Ask, task: &Task) -> Markup {
    let usage = &task.usage;
    let progress = &task.progress;
    let until = task.ended_at_ms.unwrap_or(ask.now_ms);
    let status = html! { (super::state(&task.status)) };
    let below = html! {
        (spoken(&task.phase)) ", " (spoken(&task.activity))
        @if let Some(what) = &task.waiting_on { "; waits for " (what) }
    };
    let of_budget = html! {
        @match usage.budget_usd { Some(all) => { "of " (money(all, digits(all), None)) }, None => "no budget of its own" }
    };
    html! {
        dl.tiles {
            (tile("Status", &status, &below))
            (tile("Spent", &money(usage.cost_usd, digits(usage.cost_usd), None), &of_budget))
            (tile("Reserved", &money(usage.reserved_usd, digits(usage.reserved_usd), None), &html! { "for what is under way" }))
            (tile("Checks", &html! { (progress.checks_passed) "/" (progress.checks_total) }, &html! { "passed" }))
            (tile("Steps", &html! { (progress.nodes_done) "/" (progress.nodes_total) }, &html! { "over" }))
            (tile(if task.ended_at_ms.is_some() { "Took" } else { "For" }, &html! { (took(until - task.created_at_ms)) }, &html! { "since " (period::moment(task.created_at_ms, &ask.period.zone)) }))
        }
    }
}

fn facts(ask: &Ask, task: &Task) -> Markup {
    let at = |ms: i64| history::second(ms, &ask.period.zone);
    html! {
        dl.facts.top {
            dt { "Objective" } dd { (plain(&task.brief.objective)) }
            @for constraint in &task.brief.constraints { dt { "Constraint" } dd { (plain(constraint)) } }
            dt { "Owner" } dd { (cut(&task.owner, 80)) }
            dt { "Tenant" } dd { (cut(&task.tenant, 80)) }
            dt { "Autonomy" } dd { (task.brief.autonomy) }
            @if let Some(deadline) = &task.brief.deadline { dt { "Deadline" } dd { (cut(deadline, 40)) } }
            @if let Some(started) = task.started_at_ms { dt { "Started" } dd { (at(started)) } }
            @if let Some(ended) = task.ended_at_ms { dt { "Ended" } dd { (at(ended)) } }
            @if let Some(centre) = &task.cost_centre { dt { "Cost centre" } dd { (cut(centre, 80)) } }
            @if let Some(schedule) = &task.schedule { dt { "Schedule" } dd { (cut(schedule, 80)) } }
            @for (name, value) in &task.labels { dt { "Label " (cut(name, 40)) } dd { (cut(value, 80)) } }
            @if !task.policy_version.is_empty() { dt { "Policy" } dd { (cut(&task.policy_version, 60)) } }
        }
    }
}

fn outcome(task: &Task, why: &str, not_done: &[String], summary: Option<&str>) -> Markup {
    html! {
        section {
            h2 { "How it ended" }
            p { (super::state(&task.status)) " " (plain(why)) }
            @if !not_done.is_empty() { p { "Not done: " (plain(&not_done.join(", "))) "." } }
            @if let Some(summary) = summary { div.scroll.tall tabindex="0" role="region" aria-label="Last words" { pre { (plain(summary)) } } }
        }
    }
}

/// Spent and reserved against the budget.
fn meter(task: &Task) -> Markup {
    let usage = &task.usage;
    let Some(all) = usage.budget_usd.filter(|all| *all > 0) else {
        return html! { p.note { "The task has no budget of its own; those above it hold." } };
    };
    let part = |nano: i64| number::permille(nano, all).unwrap_or(0).clamp(0, 1_000);
    let (spent, held) = (
        part(usage.cost_usd),
        part(usage.cost_usd + usage.reserved_usd),
    );
    html! {
        svg.meter viewBox="0 0 1000 14" width="100%" height="14" preserveAspectRatio="none" aria-hidden="true" {
            rect.track width="1000" height="14" {}
            rect.s6 width=(held) height="14" {}
            rect class=(if usage.cost_usd > all { "over" } else { "s0" }) width=(spent) height="14" {}
        }
        p.note { (number::percent(number::permille(usage.cost_usd, all).unwrap_or(0))) " spent, "
            (number::percent(held - spent)) " reserved for what is under way, of " (money(all, digits(all), None)) "." }
    }
}

fn tiers(task: &Task) -> Table {
    let names = [
        "Tier",
        "Calls",
        "Share of calls",
        "In",
        "Out",
        "Cost",
        "Share of cost",
    ];
    let mut table = Table::new("tiers", "What it cost, by tier", &names);
    let usage = &task.usage;
    let calls: i64 = usage.by_tier.values().map(|it| it.calls).sum();
    for (tier, it) in &usage.by_tier {
        table.rows.push(vec![
            Cell::text(spoken(tier)),
            Cell::Count(it.calls, None),
            Cell::Share(number::permille(it.calls, calls)),
            Cell::Count(it.input_tokens, None),
            Cell::Count(it.output_tokens, None),
            Cell::Money(it.cost_usd, None),
            Cell::Share(number::permille(it.cost_usd, usage.cost_usd)),
        ]);
    }
    let blank = || Cell::Blank;
    table.rows.push(vec![
        Cell::text("tools"),
        blank(),
        blank(),
        blank(),
        blank(),
        Cell::Money(usage.tools_usd, None),
        Cell::Share(number::permille(usage.tools_usd, usage.cost_usd)),
    ]);
    table
}

fn steps(ask: &Ask, nodes: &[Node]) -> Table {
    let names = [
        "Step",
        "Title",
        "Kind",
        "Status",
        "Waits for",
        "Asks for",
        "Models",
        "Calls",
        "Acts",
        "Cost",
        "Problem",
    ];
    let mut table = Table::new("steps", "Steps of the plan", &names);
    for node in nodes {
        let tries = if node.attempt > 1 {
            format!(", try {}", node.attempt)
        } else {
            String::new()
        };
        let taint = if node.tainted { ", tainted" } else { "" };
        table.rows.push(vec![
            Cell::Link(
                cut(&node.id, 24),
                format!("{}#step", ask.link(&ask.path, &[("step", &node.id)])),
            ),
            Cell::text(cut(&node.title, 80)),
            Cell::text(cut(&node.kind, 16)),
            Cell::Mark(
                tone(&node.status),
                format!("{}{tries}{taint}", spoken(&node.status)),
            ),
            Cell::text(cut(&node.depends_on.join(", "), 60)),
            Cell::text(cut(&node.asks_for, 24)),
            Cell::text(cut(&node.models.join(", "), 60)),
            Cell::Count(node.calls, None),
            Cell::Count(node.tool_calls, None),
            Cell::Money(node.cost_usd, None),
            Cell::text(cut(node.problem.as_deref().unwrap_or_default(), 80)),
        ]);
    }
    table
}

/// The step that is asked for, with what it said.
fn step(ask: &Ask, nodes: &[Node]) -> Markup {
    let named = ask.param("step");
    let Some(node) = named.and_then(|id| nodes.iter().find(|node| node.id == id)) else {
        return html! {};
    };
    html! {
        article.whole #step {
            h3 { (plain(&node.id)) " \u{b7} " (plain(&node.title)) " " (super::state(&node.status)) }
            @if let Some(problem) = &node.problem { p.alert { (plain(problem)) } }
            @match &node.output {
                Some(output) => {
                    h4 { "What it said" }
                    div.scroll.tall tabindex="0" role="region" aria-label="Output of the step" { pre { (plain(output)) } }
                },
                None => p.empty { "It has said nothing yet." },
            }
        }
    }
}

fn checks(task: &Task) -> Markup {
    let wanted = &task.brief.definition_of_done;
    html! {
        section {
            h2 { "Checks" }
            @if wanted.is_empty() { p.empty { "The brief says nothing of when it is done." } } @else {
                div.scroll tabindex="0" role="region" aria-label="Checks" { table {
                    caption { "What must hold in the end" }
                    thead { tr { th scope="col" { "Check" } th scope="col" { "What" } th scope="col" { "Stands" } th scope="col" { "Evidence" } } }
                    tbody { @for check in wanted {
                        @let id = check.get("id").and_then(|id| id.as_str()).unwrap_or_default();
                        @let at = task.checks.iter().find(|it| it.id == id);
                        tr {
                            th scope="row" { (cut(id, 24)) }
                            td { (cut(&said(check), 200)) }
                            td { @match at.and_then(|it| it.passed) { Some(true) => (super::state("passed")), Some(false) => (super::state("failed")), None => "not looked at yet" } }
                            td { (cut(at.and_then(|it| it.evidence.as_deref()).unwrap_or_default(), 400)) }
                        }
                    } }
                } }
            }
        }
    }
}

/// A check in words: its kind and what it names.
fn said(check: &serde_json::Value) -> String {
    let mut line = String::new();
    for (name, value) in check.as_object().into_iter().flatten() {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        match name.as_str() {
            "id" | "schema" => {}
            "check" => line.insert_str(0, &format!("{} ", spoken(&text))),
            _ => line.extend([text.as_str(), " "]),
        }
    }
    line
}

fn files(task: &Task) -> Markup {
    html! {
        section {
            h2 { "Artefacts" }
            @if task.artifacts.is_empty() { p.empty { "None yet." } } @else {
                div.scroll tabindex="0" role="region" aria-label="Artefacts" { table {
                    caption { "Files that the task made; a name loads the file" }
                    thead { tr { th scope="col" { "Name" } th.n scope="col" { "Bytes" } th scope="col" { "Made by" } th scope="col" { "SHA-256" } } }
                    tbody { @for it in &task.artifacts { tr {
                        th scope="row" { a href=(format!("/api/v1/tasks/{}/artifacts/{}", task.id, crate::ask::encode(&it.name))) download="" { (cut(&it.name, 80)) } }
                        td.n { (count(it.bytes, None)) }
                        td { (cut(it.made_by.as_deref().unwrap_or("the task"), 24)) }
                        td { code { (it.sha256) } }
                    } } }
                } }
            }
        }
    }
}
