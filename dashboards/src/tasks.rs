//! Pages of tasks: what there is, how one stands and why, and what waits for a person. They get the JSON
//! of the API of tasks, as the operator sees it, and what their forms say goes back to it.

mod calls;
mod diff;
mod effects;
mod forms;
mod graph;
mod history;
mod inbox;
mod list;
mod one;
mod shape;
mod timeline;
mod words;

use maud::{Markup, html};
use meter::finance::Choices;
use serde_json::Value;

use crate::Asked;
use crate::ask::{self, Ask};
use crate::desk::{Answer, csv};
use crate::frame::{self, Page};

pub use forms::{Act, act};

/// Asks the API of tasks: a path below `/v1` with its query. Blocks.
pub type Api<'a> = &'a dyn Fn(&str) -> Result<Value, Refused>;

/// The API refused, or did not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// As in HTTP.
    pub status: u16,
    pub code: String,
    pub message: String,
}

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    Answer(Answer),
    /// What the reader has already.
    Unchanged,
}

/// A page, or the part of it that is renewed.
enum Shown {
    Page(Box<Page>),
    Part(Markup),
    Unchanged,
}

/// How often what changes is renewed, where scripts run.
const EVERY: &str = "every 2s";
/// Rows of a long table on one page.
const ROWS: usize = 30;

/// The page of tasks at `asked`; `None` where there is none.
///
/// # Errors
/// What the API says, where it is not that there is no such task.
pub fn answer(asked: Asked<'_>, api: Api<'_>) -> Result<Option<Told>, Refused> {
    let ask = Ask::read(asked);
    let shown = match page(&ask, api) {
        Ok(Some(shown)) => shown,
        Ok(None) => return Ok(None),
        Err(refused) if refused.status == 404 => return Ok(None),
        Err(refused) => return Err(refused),
    };
    Ok(match shown {
        Shown::Unchanged => Some(Told::Unchanged),
        Shown::Part(part) => Some(Told::Answer(html_answer(part.into_string()))),
        Shown::Page(page) if ask.param("format") == Some("csv") => {
            csv(&ask, &page).map(Told::Answer)
        }
        Shown::Page(page) => Some(Told::Answer(html_answer(frame::document(
            &ask,
            &page,
            &Choices::default(),
        )))),
    })
}

/// The page that says that something was not done, and why.
pub fn refused(asked: Asked<'_>, refused: &Refused, back: &str) -> Answer {
    let ask = Ask::read(asked);
    let page = Page {
        title: "Not done".to_owned(),
        lead: "Nothing has changed.".to_owned(),
        body: html! {
            p.alert role="alert" { (words::plain(&refused.message)) }
            p.note { "Status " (refused.status) ", code " code { (refused.code) } "." }
            p { a href=(back) { "Back, to see how it stands now" } }
        },
        unfiltered: true,
        ..Page::default()
    };
    html_answer(frame::document(&ask, &page, &Choices::default()))
}

fn html_answer(body: String) -> Answer {
    Answer {
        kind: "text/html; charset=utf-8",
        body,
        file: None,
    }
}

fn page(ask: &Ask, api: Api<'_>) -> Result<Option<Shown>, Refused> {
    match ask.path.as_str() {
        "/tasks" => list::page(ask, api).map(Some),
        "/approvals" => inbox::page(ask, api).map(Some),
        other => match other.strip_prefix("/tasks/").map(ask::decoded_path) {
            Some(id) if is_name(&id) => one::page(ask, api, &id).map(Some),
            _ => Ok(None),
        },
    }
}

/// Whether this can be the id of a task or a request: then it means itself in a path.
fn is_name(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    !id.is_empty() && id.len() <= 200 && id.bytes().all(plain) && !id.contains("..")
}

/// What is asked of the server again and again, unless it is over: `seen` tells what the reader has.
fn renewed(ask: &Ask, part: &str, seen: &str) -> String {
    ask.link(&ask.path, &[("part", part), ("seen", seen)])
}

/// A number for what something is made of, to tell whether it has changed.
fn mark(of: &impl std::hash::Hash) -> String {
    use std::hash::Hasher;
    let mut hasher = std::hash::DefaultHasher::new();
    of.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// The rows of one page of a long table, and links to the others under the parameter `name`.
fn leaf<'a, T>(ask: &Ask, name: &'static str, all: &'a [T]) -> (&'a [T], Markup) {
    let pages = all.len().div_ceil(ROWS).max(1);
    let asked = ask.param(name).and_then(|text| text.parse::<usize>().ok());
    // Without a word it is the last page: what has happened last.
    let at = asked.unwrap_or(pages).clamp(1, pages);
    let rows = all.chunks(ROWS).nth(at - 1).unwrap_or_default();
    let link = |page: usize| {
        let address = ask.link(
            &ask.path,
            &[(name, &page.to_string()), ("part", ""), ("seen", "")],
        );
        format!("{address}#{name}")
    };
    let links = html! {
        @if pages > 1 {
            p.leaves {
                "Page " (at) " of " (pages) " (" (all.len()) " rows). "
                @if at > 1 { a href=(link(at - 1)) { "Earlier" span.hidden { " " (name) } } " " }
                @if at < pages { a href=(link(at + 1)) { "Later" span.hidden { " " (name) } } }
            }
        }
    };
    (rows, links)
}

/// A state as a word with its colour.
fn state(word: &str) -> Markup {
    html! { span class={ "mark " (words::tone(word)) } { (words::spoken(word)) } }
}
