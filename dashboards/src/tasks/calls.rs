//! Why each call to a model went where it went, and what it cost.

use maud::{Markup, html};

use crate::ask::Ask;
use crate::table::{Cell, Table};

use super::shape::{Call, Explained};
use super::words::{cut, spoken, took};
use super::{history, leaf};

pub(super) fn section(ask: &Ask, explained: &Explained) -> (Markup, Table) {
    let (rows, leaves) = leaf(ask, "calls", &explained.calls);
    let table = table(ask, rows);
    let markup = html! {
        section {
            h2 { "Calls" }
            (table.html(ask))
            (leaves)
            @for notice in &explained.notices { p.note { (super::words::plain(notice)) } }
            p.note { "The request id leads to the call in the ledger: its attempts, prices, and what was lost in translation." }
        }
    };
    (markup, table)
}

fn table(ask: &Ask, calls: &[Call]) -> Table {
    let names = [
        "No.", "At", "For", "Asked", "Model", "Tier", "Route", "Took", "In", "Out", "Cost",
        "Request", "Problem",
    ];
    let mut table = Table::new(
        "calls",
        "Calls to models, and why they went where they went",
        &names,
    );
    table.empty = "No call yet.";
    for call in calls {
        let text = |text: &Option<String>, most| {
            Cell::text(cut(text.as_deref().unwrap_or_default(), most))
        };
        let problem = match (&call.problem, call.lost) {
            (_, true) => "its end was never seen".to_owned(),
            (Some(why), false) => why.clone(),
            (None, false) => String::new(),
        };
        table.rows.push(vec![
            Cell::Count(call.number, None),
            Cell::text(history::second(call.at_ms, &ask.period.zone)),
            Cell::text(purpose(call)),
            Cell::text(cut(&call.asked, 24)),
            text(&call.model, 32),
            text(&call.tier, 8),
            text(&call.route, 40),
            Cell::text(call.ms.map_or("under way".to_owned(), took)),
            call.input_tokens
                .map_or(Cell::Blank, |n| Cell::Count(n, None)),
            call.output_tokens
                .map_or(Cell::Blank, |n| Cell::Count(n, None)),
            // Until it has ended, what is held for it.
            Cell::Money(call.cost_usd.unwrap_or(call.reserved_usd), None),
            Cell::Link(
                cut(&call.request, 40),
                format!("/api/calls/{}", crate::ask::encode(&call.request)),
            ),
            Cell::text(cut(&problem, 80)),
        ]);
    }
    table
}

fn purpose(call: &Call) -> String {
    let purpose = &call.purpose;
    let of = purpose.node.as_ref().or(purpose.check.as_ref());
    match of {
        Some(of) => format!("{} {}", spoken(&purpose.word), cut(of, 24)),
        None => spoken(&purpose.word),
    }
}
