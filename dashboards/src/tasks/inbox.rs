//! What waits for a person: each request with all that there is to know before one says yes.

use std::collections::BTreeMap;

use maud::{Markup, html};
use serde_json::Value;

use crate::ask::{Ask, encode};
use crate::frame::Page;
use crate::number::digits;
use crate::table::money;

use super::shape::{self, Effect, Item, List, Request};
use super::words::{cut, plain, pretty, spoken, took};
use super::{Api, EVERY, Refused, Shown, diff, history, is_name, mark, renewed};

/// Requests on a page.
const SHOWN: usize = 25;
/// Arguments that hold a whole text.
const TEXTS: [&str; 3] = ["content", "markdown", "text"];
/// The longest arguments shown on a page, in letters.
const LONGEST: usize = 60_000;

/// The inbox over all tasks, the oldest request first.
pub(super) fn page(ask: &Ask, api: Api<'_>) -> Result<Shown, Refused> {
    let mut path = "/v1/approvals?limit=200".to_owned();
    if let Some(after) = ask.param("after") {
        path.push_str("&after=");
        path.push_str(&encode(after));
    }
    let list: List<Request> = shape::read(api(&path)?)?;
    let mut requests = list.data;
    let tenant = ask.param("tenant");
    requests.retain(|it| tenant.is_none_or(|tenant| it.tenant.as_deref() == Some(tenant)));
    requests.sort_by_key(|it| it.created_at_ms);
    let open = requests.len();
    let seen = seen(&requests, "");
    let is_part = ask.param("part") == Some("asks");
    if is_part && ask.param("seen") == Some(&seen) {
        return Ok(Shown::Unchanged);
    }
    requests.truncate(SHOWN);
    let past = past(&requests, api)?;
    let part = html! {
        div #asks hx-get=(renewed(ask, "asks", &seen)) hx-target="#asks" hx-swap="outerMorph" hx-trigger=(EVERY) {
            h2 { (heading(&requests)) }
            p.note { (open) " open" @if list.next.is_some() { ", and more" } @if open > SHOWN { "; the oldest " (SHOWN) " are shown" } "." }
            @for request in &requests {
                (card(ask, request, past.get(&request.task).map_or(&[], Vec::as_slice), Whence::Inbox))
            }
            @if let Some(next) = &list.next {
                p.leaves { a href=(ask.link("/approvals", &[("after", next)])) { "More" } }
            }
        }
    };
    if is_part {
        return Ok(Shown::Part(part));
    }
    Ok(Shown::Page(Box::new(Page {
        title: "Approvals".to_owned(),
        lead: "What waits for a person?".to_owned(),
        body: part,
        unfiltered: true,
        ..Page::default()
    })))
}

/// A sign that changes with the requests that are shown.
pub(super) fn seen(requests: &[Request], more: &str) -> String {
    let of = requests
        .iter()
        .map(|it| (&it.id, &it.digest, &it.approved_by));
    mark(&(of.collect::<Vec<_>>(), more))
}

/// What the tasks of these requests did before, where an act writes a text that may be there already.
fn past(requests: &[Request], api: Api<'_>) -> Result<BTreeMap<String, Vec<Effect>>, Refused> {
    let mut past = BTreeMap::new();
    for request in requests {
        let writes = request
            .items
            .iter()
            .any(|item| written(&item.arguments).is_some());
        if writes && is_name(&request.task) && !past.contains_key(&request.task) {
            let list: List<Effect> =
                shape::read(api(&format!("/v1/tasks/{}/effects", request.task))?)?;
            past.insert(request.task.clone(), list.data);
        }
    }
    Ok(past)
}

/// From where one decides: that is where one comes back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whence {
    Inbox,
    Task,
}

/// One request.
pub(super) fn card(ask: &Ask, it: &Request, past: &[Effect], whence: Whence) -> Markup {
    let (title, says) = words(&it.asking);
    let left_ms = it.expires_at_ms - ask.now_ms;
    html! {
        article.ask id={ "r-" (it.id) } aria-label={ (title) ": " (cut(&it.objective, 60)) } {
            h3 { (title) }
            @if whence == Whence::Inbox {
                p.of { a href=(ask.link(&format!("/tasks/{}", it.task), &[])) { (cut(&it.objective, 140)) }
                    @if let Some(tenant) = &it.tenant { " \u{b7} " (cut(tenant, 40)) } }
            }
            p { (says) }
            @if !it.why.is_empty() { p.why { (plain(&it.why)) } }
            @if !it.question.is_empty() { p.question { (plain(&it.question)) } }
            @for (n, item) in it.items.iter().enumerate() { (act(item, past, &format!("{} of {}", n + 1, it.id))) }
            dl.facts {
                dt { "Asked" } dd { (history::second(it.created_at_ms, &ask.period.zone)) ", " (took(ask.now_ms - it.created_at_ms)) " ago" }
                dt { "Expires" } dd { (history::second(it.expires_at_ms, &ask.period.zone))
                    @if left_ms > 0 { ", in " (took(left_ms)) } @else { ", now" } }
                dt { "May decide" } dd { (who(it)) }
                dt { "Spent so far" } dd { (money(it.spent_usd, digits(it.spent_usd), None)) }
                @if !it.digest.is_empty() { dt { "Digest" } dd { code { (cut(&it.digest, 64)) } } }
            }
            (form(it, whence))
        }
    }
}

fn words(asking: &str) -> (&'static str, &'static str) {
    match asking {
        "acts" => (
            "May this happen?",
            "A step wants to act. It happens only as it stands here.",
        ),
        "plan" => (
            "May these happen, when their time comes?",
            "The plan names acts. Each happens only as it stands here.",
        ),
        "unknown" => (
            "Did this happen?",
            "It left, and nobody here saw its end. Look where it went, and say what is so.",
        ),
        "budget" => ("More money?", "The task has used up its budget."),
        _ => ("A question", "A step needs an answer to go on."),
    }
}

fn who(it: &Request) -> Markup {
    html! {
        @if it.approvers.is_empty() { "whoever may use the tenant\u{2019}s keys, and the operator" }
        @else { (plain(&it.approvers.join(", "))) }
        @if it.quorum > 1 { "; " (it.quorum) " of them" }
        @if !it.approved_by.is_empty() { "; approved so far by " (plain(&it.approved_by.join(", "))) }
    }
}

/// One act, with everything that is known of it; `place` tells it from all others on the page.
fn act(item: &Item, past: &[Effect], place: &str) -> Markup {
    let arguments = pretty(&item.arguments);
    let is_long = arguments.chars().count() > LONGEST;
    let before = written(&item.arguments).and_then(|new| earlier(item, new, past));
    html! {
        div.act {
            h4 { (plain(&item.tool))
                @if let Some(verb) = &item.verb { " " span.mark.calm { (verb) } }
                @if let Some(class) = &item.class { " " span.mark.calm { (class) } }
                @if let Some(node) = &item.node { " in step " (plain(node)) } }
            @if item.tainted {
                p.alert role="note" { "Careful: this step has read text from outside, which may have told it to do this. Look at where it goes." }
            }
            p.preview { (plain(&item.preview)) }
            dl.facts {
                dt { "Goes to" } dd {
                    @match item.destinations.as_deref() {
                        Some([]) | None => "nowhere outside",
                        Some(all) => ul.plain { @for to in all { li { code { (plain(to)) } } } },
                    }
                }
                @if item.cost_usd > 0 { dt { "Costs" } dd { (money(item.cost_usd, digits(item.cost_usd), None)) } }
                @if let Some(tries) = item.attempts.filter(|tries| *tries > 0) { dt { "Tries" } dd { (tries) } }
            }
            @if let Some((old, new)) = before {
                h5 { "What changes of the text that this task wrote before" }
                (diff::html(old, new, place))
            }
            details open[arguments.len() < 2_000] {
                summary { "Arguments" span.hidden { " of " (cut(&item.tool, 40)) } }
                div.scroll.tall tabindex="0" role="region" aria-label={ "Arguments of act " (place) } {
                    pre { @if is_long { (arguments.chars().take(LONGEST).collect::<String>()) } @else { (arguments) } }
                }
                @if is_long { p.alert { "Not all of it is shown: the arguments are longer than a page takes. Read the request as JSON before you say yes." } }
            }
        }
    }
}

/// The text that arguments write, if they name a file and its text.
fn written(arguments: &Value) -> Option<(&str, &str)> {
    let text = |name: &str| arguments.get(name).and_then(Value::as_str);
    let path = text("path")?;
    TEXTS
        .iter()
        .find_map(|name| text(name))
        .map(|text| (path, text))
}

/// The text that the task last wrote to the same place, and the new one.
fn earlier<'a>(
    item: &Item,
    (path, new): (&str, &'a str),
    past: &'a [Effect],
) -> Option<(&'a str, &'a str)> {
    let wrote = past
        .iter()
        .rev()
        .filter(|effect| effect.status == "succeeded" && Some(&effect.id) != item.effect.as_ref());
    // What only looks may name a file and a text, too.
    let wrote = wrote.filter(|effect| effect.verb != "retrieve");
    let mut wrote = wrote.filter_map(|effect| written(&effect.arguments));
    let (_, old) = wrote.find(|(at, _)| *at == path)?;
    Some((old, new))
}

/// The buttons. What they send is checked again by the API, the digest first. A yes and a no are forms of
/// their own: the enter key in the field of a reason must not press the first button of a yes.
fn form(it: &Request, whence: Whence) -> Markup {
    let button = |word: &str, tone: &'static str, text: &str| {
        html! { button class=(tone) type="submit" name="choice" value=(word) { (text) } }
    };
    let sent = |inside: &Markup| {
        html! {
            form.decide method="post" action={ "/approvals/" (it.id) } {
                @if whence == Whence::Task { input type="hidden" name="task" value=(it.task); }
                input type="hidden" name="digest" value=(it.digest);
                (inside)
            }
        }
    };
    let no = |inside: &Markup| {
        sent(&html! {
            label.wide { "Reason" input type="text" name="reason" maxlength="2000" autocomplete="off"; }
            (inside)
        })
    };
    html! {
        div.choices {
            @match it.asking.as_str() {
                "unknown" => (sent(&html! {
                    (button("happened", "yes", "It happened"))
                    (button("again", "no", "It did not: do it again"))
                    (button("give_up", "no", "Give it up"))
                })),
                "budget" => {
                    (sent(&html! {
                        label { "USD more" input type="text" name="more_usd" inputmode="decimal" pattern="[0-9]+([.][0-9]{1,9})?" placeholder="1.00" required; }
                        (button("more", "yes", "Give more"))
                    }))
                    (no(&button("deny", "no", "Give none")))
                },
                "input" => (sent(&answer(it))),
                _ => {
                    (sent(&html! { (button("once", "yes", "Approve")) (button("task", "no", "Approve for this task")) }))
                    (no(&html! { (button("deny", "no", "Deny")) (button("stop", "no", "Deny and stop the task")) }))
                },
            }
        }
    }
}

fn answer(it: &Request) -> Markup {
    let default = it.default.as_deref().unwrap_or_default();
    html! {
        @if it.choices.is_empty() {
            label.wide { "Answer" input type="text" name="answer" value=(default) required autocomplete="off"; }
        } @else {
            fieldset {
                legend { "Answer" }
                @for choice in &it.choices {
                    label.choice { input type="radio" name="answer" value=(choice) checked[choice == default] required; (plain(choice)) }
                }
            }
        }
        button.yes type="submit" name="choice" value="answer" { "Answer" }
    }
}

/// How many acts are asked about, in words for a heading.
pub(super) fn heading(requests: &[Request]) -> String {
    match requests {
        [] => "Nothing waits for a person".to_owned(),
        [one] => format!("Waits for a person: {}", spoken(&one.asking)),
        all => format!("{} requests wait for a person", all.len()),
    }
}
