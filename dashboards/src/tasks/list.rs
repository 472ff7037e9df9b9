//! All tasks: what is under way, what waits, what has ended, and what it cost.

use maud::{Markup, html};

use crate::ask::{Ask, encode};
use crate::frame::{Page, tile};
use crate::number;
use crate::table::{Cell, Table, count};

use super::shape::{self, List, Request, Task};
use super::words::{cut, spoken, tone, took};
use super::{Api, EVERY, Refused, Shown, renewed};

/// The words that tasks can be looked for by.
const STATUSES: [&str; 9] = [
    "queued",
    "in_progress",
    "requires_action",
    "paused",
    "completed",
    "incomplete",
    "failed",
    "cancelled",
    "rejected",
];
/// Tasks on a page.
const SHOWN: usize = 50;
/// Asked for at a time, and how often, where a text is looked for.
const PAGE: usize = 200;
const PAGES: usize = 5;

/// What was found.
struct Found {
    tasks: Vec<Task>,
    /// Where the next page begins.
    next: Option<String>,
    by_status: Vec<(String, i64)>,
    /// The search gave up before the last task.
    gave_up: bool,
    approvals: usize,
    more_approvals: bool,
}

pub(super) fn page(ask: &Ask, api: Api<'_>) -> Result<Shown, Refused> {
    let found = find(ask, api)?;
    let table = table(ask, &found.tasks);
    if ask.param("part") == Some("now") {
        return Ok(Shown::Part(now(ask, &found, &table)));
    }
    let body = html! {
        (filters(ask))
        (now(ask, &found, &table))
    };
    Ok(Shown::Page(Box::new(Page {
        title: "Tasks".to_owned(),
        lead: "What is under way, and what waits for whom?".to_owned(),
        body,
        tables: vec![table],
        unfiltered: true,
        ..Page::default()
    })))
}

fn find(ask: &Ask, api: Api<'_>) -> Result<Found, Refused> {
    let text = ask.param("text").map(str::to_lowercase);
    let limit = if text.is_some() { PAGE } else { SHOWN };
    let mut before = ask.param("before").map(str::to_owned);
    let mut found = Found {
        tasks: Vec::new(),
        next: None,
        by_status: Vec::new(),
        gave_up: false,
        approvals: 0,
        more_approvals: false,
    };
    for page in 0..PAGES {
        let mut path = format!("/v1/tasks?counts=true&limit={limit}");
        for (name, value) in [
            ("status", ask.param("status")),
            ("tenant", ask.param("tenant")),
            ("before", before.as_deref()),
        ] {
            if let Some(value) = value {
                path.extend(["&", name, "=", &encode(value)]);
            }
        }
        let list: List<Task> = shape::read(api(&path)?)?;
        if page == 0 {
            found.by_status = list.by_status.into_iter().collect();
        }
        for task in list.data {
            if fits(&task, text.as_deref()) {
                if found.tasks.len() == SHOWN {
                    found.next = found.tasks.last().map(|task| task.id.clone());
                    break;
                }
                found.tasks.push(task);
            }
        }
        before = list.next;
        if text.is_none() {
            found.next.clone_from(&before);
        }
        if text.is_none() || before.is_none() || found.next.is_some() {
            break;
        }
        if page + 1 == PAGES {
            found.next.clone_from(&before);
            found.gave_up = true;
        }
    }
    let open: List<Request> = shape::read(api("/v1/approvals?limit=200")?)?;
    found.more_approvals = open.next.is_some();
    found.approvals = open.data.len();
    Ok(found)
}

fn fits(task: &Task, text: Option<&str>) -> bool {
    let Some(text) = text else {
        return true;
    };
    let labels = task.labels.values().map(String::as_str);
    let mut words = [task.id.as_str(), &task.objective, &task.owner, &task.tenant]
        .into_iter()
        .chain(labels);
    words.any(|word| word.to_lowercase().contains(text))
}

fn filters(ask: &Ask) -> Markup {
    let value = |name: &str| ask.param(name).unwrap_or_default().to_owned();
    let set = ["status", "tenant", "text"]
        .iter()
        .any(|name| ask.param(name).is_some());
    html! {
        form.filters method="get" action="/tasks" aria-label="Filters" {
            div.row {
                label { "Status" select name="status" {
                    option value="" { "All" }
                    @for word in STATUSES {
                        option value=(word) selected[ask.param("status") == Some(word)] { (spoken(word)) }
                    }
                } }
                label { "Tenant" input type="text" name="tenant" value=(value("tenant")) autocomplete="off" spellcheck="false"; }
                label { "Text" input type="search" name="text" value=(value("text")); }
                button type="submit" { "Show" }
                @if set { a.clear href="/tasks" { "Clear" } }
            }
        }
    }
}

/// What changes.
fn now(ask: &Ask, found: &Found, table: &Table) -> Markup {
    let all: i64 = found.by_status.iter().map(|(_, n)| n).sum();
    let of = |word: &str| {
        let known = found.by_status.iter().find(|(known, _)| known == word);
        known.map_or(0, |(_, n)| *n)
    };
    let waiting = i64::try_from(found.approvals).unwrap_or(0);
    html! {
        div #now hx-get=(renewed(ask, "now", "")) hx-target="#now" hx-swap="outerMorph" hx-trigger=(EVERY) {
            dl.tiles {
                (tile("Waiting for a person", &html! { a href="/approvals" { (count(waiting, None)) @if found.more_approvals { "+" } } },
                    &html! { a href="/approvals" { "open requests" } }))
                (tile("Tasks", &count(all, None), &html! { @if ask.param("tenant").is_some() { "of the tenant" } @else { "of all tenants" } }))
                @for word in STATUSES {
                    @if of(word) > 0 || matches!(word, "in_progress" | "completed") {
                        (tile(&capital(word), &html! { a href=(ask.link("/tasks", &[("status", word), ("before", ""), ("part", "")])) { (count(of(word), None)) } },
                            &html! { (super::state(word)) }))
                    }
                }
            }
            section {
                h2 { @match ask.param("status") { Some(word) => { "Tasks: " (spoken(word)) }, None => "Latest tasks" } }
                (table.html(ask))
                @if let Some(next) = &found.next {
                    p.leaves { a href=(ask.link("/tasks", &[("before", next), ("part", "")])) { "Earlier tasks" } }
                }
                @if found.gave_up {
                    p.note { "The latest " (PAGE * PAGES) " tasks were looked through; go on with earlier ones." }
                }
            }
        }
    }
}

fn capital(word: &str) -> String {
    let spoken = spoken(word);
    let mut letters = spoken.chars();
    letters.next().map_or(String::new(), |first| {
        first.to_uppercase().collect::<String>() + letters.as_str()
    })
}

fn table(ask: &Ask, tasks: &[Task]) -> Table {
    let names = [
        "Objective",
        "Status",
        "Steps",
        "Checks",
        "Spent",
        "Budget",
        "Used",
        "Owner",
        "Tenant",
        "Age",
    ];
    let mut table = Table::new("tasks", "Tasks, newest first", &names);
    table.empty = "No such task.";
    for task in tasks {
        let usage = &task.usage;
        let status = match &task.waiting_on {
            Some(what) => format!("{} ({what})", spoken(&task.status)),
            None => spoken(&task.status),
        };
        let objective = if task.erased {
            "(erased)"
        } else {
            &task.objective
        };
        let used = usage
            .budget_usd
            .and_then(|all| number::permille(usage.cost_usd, all));
        let done = |done: i64, all: i64| Cell::text(format!("{done}/{all}"));
        table.rows.push(vec![
            Cell::Link(
                cut(objective, 110),
                ask.link(&format!("/tasks/{}", task.id), &[]),
            ),
            Cell::Mark(tone(&task.status), status),
            done(task.progress.nodes_done, task.progress.nodes_total),
            done(task.progress.checks_passed, task.progress.checks_total),
            Cell::Money(usage.cost_usd, None),
            usage
                .budget_usd
                .map_or(Cell::Blank, |all| Cell::Money(all, None)),
            used.map_or(Cell::text("no budget"), Cell::Bar),
            Cell::text(cut(&task.owner, 40)),
            Cell::name(&cut(&task.tenant, 40)),
            Cell::text(took(ask.now_ms - task.created_at_ms)),
        ]);
    }
    table
}
