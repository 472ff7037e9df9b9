//! Tables: one form for the page and for its CSV.

use maud::{Markup, html};

use crate::ask::Ask;
use crate::number;

/// One figure or text of a table.
#[derive(Debug, Clone)]
pub(crate) enum Cell {
    Blank,
    /// A decimal amount of USD that is shown as it is written, all digits of it.
    Price(String),
    Text(String),
    /// A text that leads on.
    Link(String, String),
    /// Nano-USD, and the name of the sum where it is one.
    Money(i64, Option<String>),
    Count(i64, Option<String>),
    /// Thousandths.
    Share(Option<i64>),
    /// Thousandths by which something grew.
    Change(Option<i64>),
    /// Thousandths as a bar.
    Bar(i64),
    /// A short word that stands out.
    Mark(&'static str, String),
}

impl Cell {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A name; what names nothing is said to.
    pub(crate) fn name(text: &str) -> Self {
        Self::Text(named(text).to_owned())
    }

    fn numeric(&self) -> bool {
        !matches!(
            self,
            Self::Text(_) | Self::Link(..) | Self::Bar(_) | Self::Mark(..)
        )
    }

    fn nano(&self) -> i64 {
        match self {
            Self::Money(nano, _) => *nano,
            _ => 0,
        }
    }

    fn csv(&self) -> String {
        match self {
            Self::Blank | Self::Share(None) | Self::Change(None) => String::new(),
            Self::Text(text) | Self::Price(text) | Self::Link(text, _) | Self::Mark(_, text) => {
                text.clone()
            }
            Self::Money(nano, _) => meter::NanoUsd(*nano).to_usd(),
            Self::Count(count, _) => count.to_string(),
            Self::Bar(share) | Self::Share(Some(share)) | Self::Change(Some(share)) => {
                let sign = if *share < 0 { "-" } else { "" };
                let share = share.unsigned_abs();
                format!("{sign}{}.{}", share / 10, share % 10)
            }
        }
    }
}

/// A name as shown, also where it is empty.
pub(crate) fn named(text: &str) -> &str {
    if text.is_empty() { "(none)" } else { text }
}

/// A table with its name in URLs, what it shows, its columns, rows, and a line of totals.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) id: &'static str,
    pub(crate) caption: String,
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<Cell>>,
    pub(crate) total: Option<Vec<Cell>>,
    /// What is said where there is no row.
    pub(crate) empty: &'static str,
}

impl Table {
    pub(crate) fn new(id: &'static str, caption: impl Into<String>, columns: &[&str]) -> Self {
        Self {
            id,
            caption: caption.into(),
            columns: columns.iter().map(|&name| name.to_owned()).collect(),
            empty: "Nothing in this period.",
            ..Self::default()
        }
    }

    /// The table with a link to the same as CSV.
    pub(crate) fn html(&self, ask: &Ask) -> Markup {
        if self.rows.is_empty() {
            return html! { p.empty { (self.empty) } };
        }
        let places: Vec<Place> = (0..self.columns.len()).map(|n| self.place(n)).collect();
        let csv = ask.link(&ask.path, &[("format", "csv"), ("table", self.id)]);
        html! {
            div.sheet {
                div.scroll tabindex="0" role="region" aria-label=(self.caption) {
                    table id=(self.id) {
                        caption { (self.caption) }
                        thead { tr {
                            @for (name, place) in self.columns.iter().zip(&places) {
                                th scope="col" class=[place.numeric.then_some("n")] { (name) }
                            }
                        } }
                        tbody { @for row in &self.rows { (line(row, &places)) } }
                        @if let Some(total) = &self.total { tfoot { (line(total, &places)) } }
                    }
                }
                a.csv href=(csv) { "CSV" span.hidden { " of " (self.caption) } }
            }
        }
    }

    /// How a column is set: amounts of one column have the same digits.
    fn place(&self, column: usize) -> Place {
        let cells = self.rows.iter().filter_map(|row| row.get(column));
        let largest = cells.clone().map(|cell| cell.nano().saturating_abs()).max();
        Place {
            numeric: cells.clone().any(Cell::numeric),
            digits: number::digits(largest.unwrap_or(0)),
        }
    }

    /// The same as CSV (RFC 4180), money with nine places.
    pub(crate) fn csv(&self) -> String {
        let mut text = String::new();
        let names = self.columns.iter().map(|name| quoted(name));
        text.push_str(&names.collect::<Vec<_>>().join(","));
        text.push_str("\r\n");
        for row in self.rows.iter().chain(&self.total) {
            let cells = row.iter().map(|cell| match cell {
                Cell::Text(_) | Cell::Link(..) | Cell::Mark(..) => quoted(&cell.csv()),
                _ => cell.csv(),
            });
            text.push_str(&cells.collect::<Vec<_>>().join(","));
            text.push_str("\r\n");
        }
        text
    }
}

struct Place {
    numeric: bool,
    digits: u32,
}

fn line(row: &[Cell], places: &[Place]) -> Markup {
    html! { tr {
        @for (n, (cell, place)) in row.iter().zip(places).enumerate() {
            @if n == 0 {
                th scope="row" class=[place.numeric.then_some("n")] { (shown(cell, place.digits)) }
            } @else {
                td class=[place.numeric.then_some("n")] { (shown(cell, place.digits)) }
            }
        }
    } }
}

fn shown(cell: &Cell, digits: u32) -> Markup {
    html! {
        @match cell {
            Cell::Blank => {},
            Cell::Text(text) => (text),
            Cell::Price(text) => { "$" (text) },
            Cell::Link(text, href) => {
                // What stands below another is moved in, without a line under the room.
                @let name = text.trim_start_matches('\u{2003}');
                (text.get(..text.len() - name.len()).unwrap_or_default())
                a href=(href) { (name) }
            },
            Cell::Money(nano, sum) => (money(*nano, digits, sum.as_deref())),
            Cell::Count(n, sum) => (count(*n, sum.as_deref())),
            Cell::Share(Some(share)) => (number::percent(*share)),
            Cell::Change(Some(share)) => (number::change(*share)),
            Cell::Share(None) | Cell::Change(None) => span aria-label="not known" { "\u{2013}" },
            Cell::Bar(share) => (bar(*share)),
            Cell::Mark(kind, text) => span class={ "mark " (kind) } { (text) },
        }
    }
}

/// An amount with its exact value beside it.
pub(crate) fn money(nano: i64, digits: u32, sum: Option<&str>) -> Markup {
    html! {
        span data-nano=(nano) data-sum=[sum] title={ (meter::NanoUsd(nano)) " USD" } {
            (number::usd(nano, digits))
        }
    }
}

/// A count with its value beside it.
pub(crate) fn count(n: i64, sum: Option<&str>) -> Markup {
    html! { span data-count=(n) data-sum=[sum] { (number::count(n)) } }
}

/// A share as a thin bar with its number.
fn bar(share: i64) -> Markup {
    let width = share.clamp(0, 1_000) / 10;
    let over = share > 1_000;
    html! {
        span.bar {
            svg viewBox="0 0 100 6" width="100" height="6" preserveAspectRatio="none" aria-hidden="true" {
                rect.track width="100" height="6" {}
                rect class=(if over { "over" } else { "s0" }) width=(width) height="6" {}
            }
            span { (number::percent(share)) }
        }
    }
}

/// A text in quotes; what a spreadsheet would take for a formula gets an apostrophe.
fn quoted(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let mark = if formula { "'" } else { "" };
    format!("\"{mark}{}\"", text.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_is_exact_and_no_formula() {
        let mut table = Table::new("t", "T", &["Name", "Cost"]);
        table
            .rows
            .push(vec![Cell::name("=1+\"2"), Cell::Money(-1_500, None)]);
        table
            .rows
            .push(vec![Cell::name(""), Cell::Share(Some(-15))]);
        assert_eq!(
            table.csv(),
            "\"Name\",\"Cost\"\r\n\"'=1+\"\"2\",-0.000001500\r\n\"(none)\",-1.5\r\n"
        );
    }
}
