//! When a step's transcript is shortened, and to what.

use crate::event::{Event, Purpose};
use crate::state::{NodeState, State};

use super::Rules;

/// Whether older turns should become notes: whole turns with their results, and never the last two.
pub(super) fn wants_compacting(state: &State, rules: &Rules, at: &NodeState, node: &str) -> bool {
    let from = at.notes.as_ref().map_or(0, |(through, _)| *through);
    if at.turns.len() < from + 4 {
        return false;
    }
    let failed = state.calls.values().filter(|call| {
        call.end.as_ref().is_some_and(|end| !end.ok)
            && matches!(&call.purpose, Purpose::Compact { node: of } if of == node)
    });
    failed.count() < 2 && bytes_from(state, at, from) > rules.policy.limits.transcript_bytes
}

/// Bytes of a step's transcript from a turn on.
fn bytes_from(state: &State, at: &NodeState, from: usize) -> usize {
    let turns = at.turns.iter().skip(from);
    turns
        .map(|turn| {
            let uses: usize = turn.uses.iter().map(|it| it.arguments.len()).sum();
            let results = turn
                .effects
                .iter()
                .filter_map(|id| state.effects.get(id)?.result.as_ref());
            turn.text.len() + uses + results.map(|it| it.shown.len()).sum::<usize>()
        })
        .sum()
}

/// Notes that have come and are not taken yet.
pub(super) fn compacted(state: &State, at: &NodeState, node: &str) -> Option<Event> {
    let mut calls = state.calls.iter().rev();
    let (number, call) = calls.find(|(_, call)| call.purpose.node() == Some(node))?;
    if !matches!(call.purpose, Purpose::Compact { .. }) {
        return None;
    }
    let end = call.end.as_ref().filter(|end| end.ok)?;
    let made = at
        .turns
        .iter()
        .take_while(|turn| turn.call < *number)
        .count();
    let through = made.saturating_sub(2);
    let known = at.notes.as_ref().map_or(0, |(through, _)| *through);
    (through > known).then(|| Event::ContextCompacted {
        node: node.to_owned(),
        through,
        notes: end.text.clone(),
    })
}
