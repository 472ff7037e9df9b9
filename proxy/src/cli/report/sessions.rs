//! `pareto report sessions`: conversations that changed their model, and what that cost or saved them.

use std::collections::HashMap;
use std::sync::Arc;

use clap::Args;
use comfy_table::{CellAlignment, Table};
use meter::books::{Balance, Span};
use meter::{NanoUsd, Outcome};
use serde::Serialize;
use wire::Usage;

use super::super::{load, plain, say};
use super::{Meant, percent};
use crate::assemble;
use crate::books::Desk;

#[derive(Debug, Args)]
pub(super) struct Sessions {
    #[command(flatten)]
    meant: Meant,
    /// How many conversations are shown, those first that cost the most.
    #[arg(long, default_value_t = 20)]
    limit: usize,
}

/// One conversation.
#[derive(Debug, Clone, Default, Serialize)]
struct Conversation {
    session: String,
    tenant: Arc<str>,
    calls: u64,
    /// Calls that went on at another model than the one before.
    switches: u64,
    /// Calls that would have changed the model, and stayed for the cache's sake.
    stayed: u64,
    models: Vec<Arc<str>>,
    cost: NanoUsd,
    prompt_tokens: u64,
    cached_tokens: u64,
    /// What the prompts cost more after changes, because they were read anew.
    lost: NanoUsd,
    /// What the calls after changes would have cost more at the model before, its cache warm.
    saved: NanoUsd,
}

/// Where a conversation stood after a call.
struct Stand {
    model: Arc<str>,
    price: String,
    tokens: u64,
}

impl Sessions {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let config = load(&self.meant.file.config)?;
        let desk = assemble::desk(&config)?;
        let span = self.meant.span()?;
        let mut all = conversations(&desk, &span)?;
        all.sort_by_key(|it| (std::cmp::Reverse(it.cost), it.session.clone()));
        if self.meant.json {
            return say(&serde_json::to_string_pretty(&all)?);
        }
        say(&table(&all, self.limit))
    }
}

/// Every conversation with a call in `span`, followed from call to call.
fn conversations(desk: &Desk, span: &Span) -> anyhow::Result<Vec<Conversation>> {
    let mut known: HashMap<(Arc<str>, u64), (Conversation, Option<Stand>)> = HashMap::new();
    desk.each_balance(span, |balance| {
        let held = &balance.entry.held;
        let key = (Arc::clone(&held.subject.tenant), held.session);
        let (conversation, stand) = known.entry(key).or_default();
        follow(desk, conversation, stand, balance);
    })?;
    Ok(known.into_values().map(|(it, _)| it).collect())
}

/// Takes one attempt up: its cost always, its model where it delivered the answer.
fn follow(
    desk: &Desk,
    conversation: &mut Conversation,
    stand: &mut Option<Stand>,
    balance: &Balance,
) {
    let (entry, held) = (&balance.entry, &balance.entry.held);
    conversation.cost += balance.now.cost;
    if conversation.session.is_empty() {
        conversation.session = format!("{:016x}", held.session);
        conversation.tenant = Arc::clone(&held.subject.tenant);
    }
    conversation.calls += u64::from(held.attempt == 0);
    conversation.stayed += u64::from(&*held.reason == router::Reason::Cache.as_str());
    if entry.outcome != Outcome::Completed {
        return;
    }
    let usage = entry.usage;
    conversation.prompt_tokens += usage.prompt();
    conversation.cached_tokens += usage.cache_read;
    if !conversation.models.contains(&held.model) {
        conversation.models.push(Arc::clone(&held.model));
    }
    if let Some(before) = stand.as_ref().filter(|it| it.model != held.model) {
        conversation.switches += 1;
        let prefix = before.tokens.min(usage.prompt());
        let anew = prefix.saturating_sub(usage.cache_read);
        let read = |cached: u64| Usage {
            input: anew - cached,
            cache_read: cached,
            ..Usage::default()
        };
        let prices = &desk.prices;
        let own = |usage| prices.at(&balance.price, &usage);
        if let (Some(cold), Some(warm)) = (own(read(0)), own(read(anew))) {
            conversation.lost += cold - warm;
        }
        let stayed = Usage {
            input: usage.prompt() - prefix,
            cache_read: prefix,
            cache_write_5m: 0,
            cache_write_1h: 0,
            ..usage
        };
        if let Some(stayed) = prices.at(&before.price, &stayed) {
            conversation.saved += stayed - balance.now.cost;
        }
    }
    *stand = Some(Stand {
        model: Arc::clone(&held.model),
        price: balance.price.clone(),
        tokens: usage.prompt().saturating_add(usage.answer()),
    });
}

fn table(all: &[Conversation], limit: usize) -> String {
    let mut table = Table::new();
    table.set_header([
        "session",
        "tenant",
        "calls",
        "changes",
        "stayed",
        "models",
        "cost USD",
        "cached %",
        "lost by changes USD",
        "saved by changes USD",
    ]);
    let mut line = |it: &Conversation| {
        let int = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        table.add_row([
            it.session.clone(),
            it.tenant.to_string(),
            it.calls.to_string(),
            it.switches.to_string(),
            it.stayed.to_string(),
            it.models.join(", "),
            it.cost.to_usd(),
            percent(int(it.cached_tokens), int(it.prompt_tokens)),
            it.lost.to_usd(),
            it.saved.to_usd(),
        ]);
    };
    let mut sum = Conversation {
        session: format!("all {}", all.len()),
        ..Conversation::default()
    };
    for it in all {
        sum.calls += it.calls;
        sum.switches += it.switches;
        sum.stayed += it.stayed;
        sum.cost += it.cost;
        sum.prompt_tokens += it.prompt_tokens;
        sum.cached_tokens += it.cached_tokens;
        sum.lost += it.lost;
        sum.saved += it.saved;
    }
    all.iter().take(limit).for_each(&mut line);
    line(&sum);
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    plain::table(&mut table)
}
