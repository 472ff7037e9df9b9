//! What every page has around its content: head, navigation, filters.

use maud::{DOCTYPE, Markup, html};
use meter::finance::{Choices, FILTERED, View};
use meter::ledger::Dimension;

use crate::ask::{Ask, NONE, view_word, word};
use crate::assets;
use crate::period::{self, PRESETS};
use crate::table::{Table, named};

/// A page's content, and its tables in the order in which they can be had as CSV.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) title: String,
    /// One sentence under the title: what the page answers.
    pub(crate) lead: String,
    pub(crate) body: Markup,
    pub(crate) tables: Vec<Table>,
    /// Selects of the page's own: parameter, label, choices with their words.
    pub(crate) selects: Vec<Select>,
    /// Whether it has a chart that can be zoomed.
    pub(crate) zoom: bool,
    /// Whether the filters mean anything on it.
    pub(crate) unfiltered: bool,
}

/// A choice that belongs to one page.
#[derive(Debug)]
pub(crate) struct Select {
    pub(crate) name: &'static str,
    pub(crate) label: &'static str,
    pub(crate) options: Vec<(String, String)>,
    pub(crate) chosen: String,
}

/// The pages, in the order of the navigation.
pub(crate) const PAGES: [(&str, &str); 10] = [
    ("/", "Overview"),
    ("/explore", "Explore"),
    ("/budgets", "Budgets"),
    ("/units", "Unit economics"),
    ("/savings", "Savings"),
    ("/routing", "Routing"),
    ("/chargeback", "Chargeback"),
    ("/quality", "Data quality"),
    ("/prices", "Prices"),
    ("/live", "Live"),
];
/// Those that only the operator sees.
const OPERATOR_PAGES: [(&str, &str); 2] = [("/tasks", "Tasks"), ("/approvals", "Approvals")];
/// How many names a filter offers; with more, people write the URL.
const MOST_OPTIONS: usize = 200;
/// Zones that are offered; any other of the IANA's can be written.
const ZONES: [&str; 9] = [
    "UTC",
    "America/Los_Angeles",
    "America/New_York",
    "America/Sao_Paulo",
    "Europe/London",
    "Europe/Berlin",
    "Asia/Kolkata",
    "Asia/Singapore",
    "Asia/Tokyo",
];

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// The whole document.
pub(crate) fn document(ask: &Ask, page: &Page, choices: &Choices) -> String {
    let whole: Markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="htmx-config" content="includeIndicatorCSS:false";
                title { (page.title) " \u{2013} Pareto" }
                link rel="icon" type="image/svg+xml" href=(assets::path("icon", "svg"));
                @if page.zoom {
                    link rel="stylesheet" href=(assets::path("uplot", "css"));
                    script defer src=(assets::path("uplot", "js")) {}
                }
                link rel="stylesheet" href=(assets::path("style", "css"));
                script defer src=(assets::path("htmx", "js")) {}
                script defer src=(assets::path("pareto", "js")) {}
            }
            body {
                a.skip href="#main" { "Skip to content" }
                div #page { (inside(ask, page, choices)) }
            }
        }
    };
    whole.into_string()
}

fn inside(ask: &Ask, page: &Page, choices: &Choices) -> Markup {
    html! {
        header {
            div.band {
                span.brand { "Pareto" }
                nav aria-label="Pages" { ul {
                    @for (path, name) in pages(ask) {
                        @let here = path == ask.path || (path.len() > 1 && ask.path.starts_with(path));
                        li { a href=(ask.link(path, &[])) aria-current=[here.then_some("page")] { (name) } }
                    }
                } }
            }
        }
        main #main tabindex="-1" {
            div.heading {
                h1 { (page.title) }
                p.lead { (page.lead) }
                @if !page.unfiltered {
                    p.period { (ask.period.title()) " \u{b7} " (ask.period.zone_name) }
                }
            }
            @if !page.unfiltered {
                @for notice in &ask.notices { p.alert role="status" { (notice) } }
                (filters(ask, page, choices))
            }
            (page.body)
        }
        footer {
            p { "Amounts are exact to a billionth of a dollar: point at one to see all nine places. "
                "Days are those of " (ask.period.zone_name)
                @if ask.period.is_between_hours() { ", from the full hour before their midnight, because sums are kept by the hour" } "." }
        }
    }
}

fn pages(ask: &Ask) -> impl Iterator<Item = (&'static str, &'static str)> {
    let more = ask.is_operator.then_some(OPERATOR_PAGES);
    PAGES.into_iter().chain(more.into_iter().flatten())
}

fn filters(ask: &Ask, page: &Page, choices: &Choices) -> Markup {
    let last = period::shift(ask.period.end, -1).to_string();
    let set = FILTERED
        .iter()
        .filter(|one| ask.filter.named(**one).is_some())
        .count();
    html! {
        form.filters method="get" action=(ask.path) aria-label="Filters" hx-get=(ask.path) hx-target="#page"
            hx-select="#page" hx-swap="outerMorph" hx-push-url="true" hx-trigger="change, submit" {
            div.row {
                label { "Period" select name="period" {
                    @for (word, name) in PRESETS {
                        option value=(word) selected[word == ask.period.preset] { (name) }
                    }
                } }
                label { "From" input type="date" name="from" value=(ask.period.first); }
                label { "Until" input type="date" name="until" value=(last); }
                label { "Time zone" input type="text" name="zone" list="zones" value=(ask.period.zone_name) autocomplete="off" spellcheck="false"; }
                datalist id="zones" { @for zone in ZONES { option value=(zone) {} } }
                label { "Amounts" select name="view" {
                    @for (view, name) in [(View::Cost, "Cost"), (View::Sell, "Sell"), (View::Margin, "Margin")] {
                        option value=(view_word(view)) selected[view == ask.view] { (name) }
                    }
                } }
                @for select in &page.selects {
                    label { (select.label) select name=(select.name) {
                        @for (word, name) in &select.options {
                            option value=(word) selected[*word == select.chosen] { (name) }
                        }
                    } }
                }
                button type="submit" { "Show" }
            }
            details.more open[set > 0] {
                summary { "Narrow down" @if set > 0 { " (" (set) ")" } }
                div.row {
                    label { "Fiscal year from" select name="fiscal_start" {
                        @for (place, name) in MONTHS.iter().enumerate() {
                            option value=(place + 1) selected[usize::try_from(ask.period.fiscal) == Ok(place + 1)] { (name) }
                        }
                    } }
                    @for (dimension, values) in FILTERED.iter().zip(choices) { (one(ask, *dimension, values)) }
                    @if set > 0 { a.clear href=(cleared(ask)) { "Clear" } }
                }
            }
        }
    }
}

/// The select of one dimension.
fn one(ask: &Ask, dimension: Dimension, values: &[String]) -> Markup {
    let chosen = ask.filter.named(dimension);
    let listed = chosen.is_none_or(|name| values.iter().any(|value| value == name));
    html! {
        label { (title(dimension)) select name=(word(dimension)) {
            option value="" { "All" }
            @if let (false, Some(name)) = (listed, chosen) { option value=(written(name)) selected { (named(name)) } }
            @for value in values.iter().take(MOST_OPTIONS) {
                option value=(written(value)) selected[chosen == Some(value)] { (named(value)) }
            }
        } }
    }
}

fn written(value: &str) -> &str {
    if value.is_empty() { NONE } else { value }
}

fn cleared(ask: &Ask) -> String {
    let changes: Vec<(&str, &str)> = FILTERED.iter().map(|one| (word(*one), "")).collect();
    ask.link(&ask.path, &changes)
}

/// What a dimension is called on pages.
pub(crate) fn title(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::Tenant => "Tenant",
        Dimension::Team => "Team",
        Dimension::Project => "Project",
        Dimension::Key => "Key",
        Dimension::User => "User",
        Dimension::Workflow => "Workflow",
        Dimension::Model => "Model",
        Dimension::Endpoint => "Provider",
        Dimension::Tier => "Tier",
        Dimension::Lane => "Lane",
        Dimension::Price => "Price",
        Dimension::Day => "Day",
        Dimension::Hour => "Hour",
    }
}

/// A large figure with its name and a line below.
pub(crate) fn tile(name: &str, value: &Markup, below: &Markup) -> Markup {
    html! { div.tile { dt { (name) } dd.value { (value) } dd.below { (below) } } }
}
