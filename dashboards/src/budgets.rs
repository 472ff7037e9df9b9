//! Budgets: who will run out, and when?

use maud::html;
use meter::finance::{Allowance, Decided};
use meter::{Standing, Unit};

use crate::ask::{Ask, encode};
use crate::desk::Sources;
use crate::frame::Page;
use crate::number;
use crate::period;
use crate::table::{Cell, Table};

pub(crate) fn page(ask: &Ask, sources: Sources<'_>) -> Page {
    let kept = |one: &&Allowance| {
        ask.filter
            .tenant
            .as_ref()
            .is_none_or(|tenant| *tenant == one.standing.tenant)
    };
    let all: Vec<&Allowance> = sources.budgets.iter().filter(kept).collect();
    let mut table = Table::new(
        "budgets",
        "Each below the one it is part of",
        &[
            "Budget", "Window", "Kind", "Limit", "Settled", "Held", "Left", "Used", "Resets",
            "State",
        ],
    );
    if is_shared(&all) {
        table.columns.insert(6, "With other nodes".to_owned());
    }
    table.empty = "No budget is configured. A [[budget]] in the configuration makes one.";
    let here = |id: &str| all.iter().any(|one| one.standing.id == id);
    let roots = all
        .iter()
        .filter(|one| one.standing.parent.as_deref().is_none_or(|id| !here(id)));
    for root in roots {
        branch(ask, &all, root, 0, &mut table);
    }
    Page {
        title: "Budgets".to_owned(),
        lead: "Who will run out, and when?".to_owned(),
        body: html! {
            section { h2 { "Budgets now" } (table.html(ask)) }
            p.note { "A hard budget is never overspent: a call first holds the most it can cost. "
                "Settled and held belong to each budget\u{2019}s own window; of the filters, only the tenant is heard." }
        },
        tables: vec![table],
        ..Page::default()
    }
}

/// Whether other nodes may spend from any of these.
fn is_shared(all: &[&Allowance]) -> bool {
    all.iter().any(|one| one.standing.leased != 0)
}

fn branch(ask: &Ask, all: &[&Allowance], one: &Allowance, depth: usize, table: &mut Table) {
    let standing = &one.standing;
    let indent = "\u{2003}".repeat(depth);
    let mut row = vec![Cell::Link(
        format!("{indent}{}", standing.name),
        href(ask, standing),
    )];
    row.push(Cell::text(&standing.window));
    row.push(Cell::text(if standing.hard { "hard" } else { "soft" }));
    row.push(figure(
        standing.unit,
        standing.limit.saturating_add(standing.extra),
    ));
    row.push(match standing.unit {
        Unit::Usd => Cell::Money(standing.settled, settled(standing)),
        unit => figure(unit, standing.settled),
    });
    row.push(figure(standing.unit, standing.held));
    if is_shared(all) {
        row.push(figure(standing.unit, standing.leased));
    }
    row.push(figure(standing.unit, standing.left()));
    row.push(Cell::Bar(used(standing)));
    row.push(standing.resets_at_ms.map_or(Cell::text("never"), |at| {
        Cell::text(period::moment(at, &ask.period.zone))
    }));
    row.push(Cell::Mark(mark(standing), standing.state.to_owned()));
    table.rows.push(row);
    // A tree that a mistake has tied into a ring ends all the same.
    if depth < 6 {
        let below = all
            .iter()
            .filter(|other| other.standing.parent.as_ref() == Some(&standing.id));
        for other in below {
            branch(ask, all, other, depth + 1, table);
        }
    }
}

fn href(ask: &Ask, standing: &Standing) -> String {
    ask.link(&format!("/budgets/{}", encode(&standing.id)), &[])
}

/// The name of what is settled in a budget's window; a rolling one has many.
pub(crate) fn settled(standing: &Standing) -> Option<String> {
    let is_rolling = standing.window.starts_with("rolling");
    (standing.unit == Unit::Usd && !is_rolling).then(|| window(&standing.id, standing.start_ms))
}

/// The name of what is settled in the window that begins at `start_ms`.
pub(crate) fn window(budget: &str, start_ms: i64) -> String {
    format!("window?budget={}&start={start_ms}", encode(budget))
}

pub(crate) fn figure(unit: Unit, amount: i64) -> Cell {
    match unit {
        Unit::Usd => Cell::Money(amount, None),
        Unit::Requests | Unit::Tokens | Unit::Concurrency => Cell::Count(amount, None),
    }
}

fn mark(standing: &Standing) -> &'static str {
    match standing.state {
        "allow" => "good",
        "deny" => "bad",
        _ => "fair",
    }
}

/// What is used or held of a limit, in thousandths.
pub(crate) fn used(standing: &Standing) -> i64 {
    let limit = standing.limit.saturating_add(standing.extra);
    let taken = standing.settled.saturating_add(standing.held);
    number::permille(taken, limit).unwrap_or(if taken > 0 { 1_000 } else { 0 })
}

/// The budgets that are used up most.
pub(crate) fn nearest(ask: &Ask, budgets: &[Allowance], most: usize) -> Table {
    let mut all: Vec<&Standing> = budgets.iter().map(|one| &one.standing).collect();
    all.retain(|one| {
        ask.filter
            .tenant
            .as_ref()
            .is_none_or(|tenant| *tenant == one.tenant)
    });
    all.sort_by_key(|one| (std::cmp::Reverse(used(one)), one.name.clone()));
    let mut table = Table::new(
        "nearest",
        "Budgets by use of their limit",
        &["Budget", "Left", "Used"],
    );
    table.empty = "No budget is configured.";
    for one in all.into_iter().take(most) {
        table.rows.push(vec![
            Cell::Link(one.name.clone(), href(ask, one)),
            figure(one.unit, one.left()),
            Cell::Bar(used(one)),
        ]);
    }
    table
}

/// What budgets decided.
pub(crate) fn log(id: &'static str, caption: &str, decided: &[Decided], ask: &Ask) -> Table {
    let mut table = Table::new(
        id,
        caption,
        &["Hour", "Tenant", "Budget", "Decision", "Calls"],
    );
    table.empty = "No call was made to wait, degraded or denied.";
    for one in decided {
        table.rows.push(vec![
            Cell::text(period::moment(one.at_ms, &ask.period.zone)),
            Cell::text(&one.tenant),
            Cell::text(&one.budget),
            Cell::Mark(
                if one.decision == "deny" {
                    "bad"
                } else {
                    "fair"
                },
                one.decision.clone(),
            ),
            Cell::Count(one.calls, None),
        ]);
    }
    table
}
