//! Acts and looks: what tools were called, what decided over it, and what came of it.

use maud::{Markup, html};

use crate::ask::Ask;
use crate::table::{Cell, Table, money};

use super::shape::Effect;
use super::words::{cut, plain, pretty, spoken, tone, took};
use super::{history, leaf};

pub(super) fn section(ask: &Ask, effects: &[Effect]) -> (Markup, Table) {
    let looks = effects.iter().filter(|it| it.verb != "execute").count();
    // The whole of one stands above the list, under an address of its own.
    let named = ask.param("effect");
    let chosen = named.and_then(|id| effects.iter().find(|it| it.id == id));
    let (rows, leaves) = leaf(ask, "acts", effects);
    let table = table(ask, rows);
    let markup = html! {
        section {
            h2 { "Acts and looks" }
            p.note { (effects.len() - looks) " acts on the world, " (looks) " looks and drafts. A name leads to all of it." }
            @if let Some(effect) = chosen { (whole(ask, effect)) }
            (table.html(ask))
            (leaves)
        }
    };
    (markup, table)
}

fn table(ask: &Ask, effects: &[Effect]) -> Table {
    let names = [
        "Tool",
        "Step",
        "Verb",
        "Class",
        "Destinations",
        "Status",
        "Tries",
        "Decision",
        "Why",
        "Took",
        "Cost",
        "Key",
    ];
    let mut table = Table::new("acts", "Calls of tools, in their order", &names);
    table.empty = "No tool was called yet.";
    for it in effects {
        let to = ask.link(&ask.path, &[("effect", &it.id)]);
        let took_ms = it.ended_at_ms.filter(|_| it.committed_at_ms > 0);
        let decision = it.decided.clone().unwrap_or_else(|| it.decision.reason());
        table.rows.push(vec![
            Cell::Link(cut(&it.tool, 40), format!("{to}#effect")),
            Cell::text(cut(&it.node, 16)),
            Cell::text(it.verb.clone()),
            Cell::text(it.class.clone()),
            Cell::text(cut(&it.destinations.join(", "), 60)),
            Cell::Mark(tone(&it.status), spoken(&it.status)),
            Cell::Count(it.attempts, None),
            Cell::Mark(tone(&it.decision.gate), spoken(&it.decision.gate)),
            Cell::text(cut(&decision, 60)),
            Cell::text(took_ms.map_or(String::new(), |at| took(at - it.committed_at_ms))),
            Cell::Money(it.cost_usd, None),
            Cell::text(cut(&it.idempotency_key, 12)),
        ]);
    }
    table
}

/// All of one.
fn whole(ask: &Ask, it: &Effect) -> Markup {
    let at = |ms: i64| history::second(ms, &ask.period.zone);
    html! {
        article.whole #effect {
            h3 { (plain(&it.tool)) " " (super::state(&it.status)) }
            dl.facts {
                dt { "Effect" } dd { code { (it.id) } }
                dt { "Step" } dd { (plain(&it.node)) }
                dt { "Verb and class" } dd { (it.verb) ", " (it.class) }
                dt { "Destinations" } dd { @if it.destinations.is_empty() { "none" } @else { (plain(&it.destinations.join(", "))) } }
                dt { "Decision" } dd { (spoken(&it.decision.gate)) " \u{2013} " (plain(&it.decision.reason())) }
                @if let Some(decided) = &it.decided { dt { "Decided" } dd { (plain(decided)) } }
                dt { "Tries" } dd { (it.attempts) }
                dt { "Wanted, left, ended" } dd {
                    (at(it.at_ms))
                    ", " @if it.committed_at_ms > 0 { (at(it.committed_at_ms)) } @else { "never" }
                    ", " @if let Some(ended) = it.ended_at_ms { (at(ended)) } @else { "not yet" }
                }
                dt { "Cost" } dd { (money(it.cost_usd, crate::number::digits(it.cost_usd), None)) }
                dt { "Idempotency key" } dd { code { (it.idempotency_key) } }
                dt { "Digest" } dd { code { (it.digest) } }
                dt { "Pin of the tool" } dd { code { (it.pin) } }
                @if it.tainted { dt { "Taint" } dd { "What it returned comes from outside." } }
            }
            h4 { "Arguments" }
            div.scroll.tall tabindex="0" role="region" aria-label={ "Arguments of " (it.id) } { pre { (pretty(&it.arguments)) } }
            @if let Some(result) = &it.result {
                h4 { "Result" @if result.is_error { " (an error)" } ", " (result.bytes) " bytes" }
                div.scroll.tall tabindex="0" role="region" aria-label={ "Result of " (it.id) } { pre { (plain(&result.text)) } }
            }
        }
    }
}
