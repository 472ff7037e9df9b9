//! Making a conversation fit a smaller window: long tool results become handles, the oldest turns a
//! summary. System text, pinned lines and the present tool loop stay. Pure: what must be summarised is
//! returned, and put in when it is there.
//!
//! The cut moves in steps and depends on the transcript alone, so that the turns behind it are sent
//! with the same prefix again and again until the next step.

use std::collections::HashSet;
use std::ops::Range;

use meter::tokens::Tokenizer;
use wire::call::{Call, Kind, Part, Role, Turn};
use wire::loss::{LossKind, Losses};

/// Tokens of a tool result that stay when the rest becomes a handle.
const KEPT_OF_RESULT: usize = 120;
/// A tool result shorter than this is never trimmed.
const LEAST_TRIMMED: u64 = 240;
/// Tokens of turns that are summarised at a time: small enough for any fast model's window.
const LONGEST_CHUNK: u64 = 8_192;
/// The last turns of a tool loop, whose results the model has not answered to yet.
const RECENT_TURNS: usize = 4;
/// Tokens of the lines that say what stands there instead.
const HEADINGS: u64 = 64;
/// Tokens set aside for the summary of one chunk.
pub(crate) const SUMMARY: u64 = 256;

/// Summaries that a window of `limit` tokens has room for.
pub(crate) fn most_summaries(limit: u64) -> usize {
    usize::try_from(limit / 4 / SUMMARY)
        .unwrap_or(usize::MAX)
        .max(1)
}

/// The room there is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window<'a> {
    /// Prompt tokens at most, in the tokenizer's own count.
    pub(crate) limit: u64,
    pub(crate) tokenizer: &'a Tokenizer,
    /// Lines that begin with one of these are kept word for word.
    pub(crate) pins: &'a [String],
}

/// The conversation does not fit, whatever is left out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the prompt has about {tokens} tokens, and model `{model}` takes {limit}; shorten it or name a model with a longer window"
)]
pub(crate) struct DoesNotFit {
    pub(crate) tokens: u64,
    pub(crate) limit: u64,
    pub(crate) model: String,
}

/// Turns that go, as the texts to be summarised, oldest first.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Dropped {
    pub(crate) chunks: Vec<String>,
    pinned: Vec<String>,
    turns: usize,
}

/// Shortens `call` to `window`. Tool results that are shortened go to `keep`, which returns the handle
/// to write in their place. The dropped turns are gone from the call when this returns.
pub(crate) fn fit(
    call: &mut Call,
    window: Window<'_>,
    keep: &dyn Fn(&str) -> String,
    losses: &mut Losses,
) -> Result<Dropped, u64> {
    let count = |call: &Call| window.tokenizer.count_call(call);
    if count(call) <= window.limit {
        return Ok(Dropped::default());
    }
    let open = open_from(&call.turns);
    // A long loop is one exchange: at last, results that the model has answered to are shortened too.
    let recent = call.turns.len().saturating_sub(RECENT_TURNS).max(open);
    for among in [0..open, open..recent] {
        trim_results(call, among, window.tokenizer, keep, losses);
        let total = count(call);
        if total <= window.limit {
            return Ok(Dropped::default());
        }
        let plan = Plan::new(call, window, total);
        if let Some(index) = plan.first_that_fits(window) {
            let edges = plan.edges.get(..=index).unwrap_or_default();
            let dropped = cut(call, edges, plan.pinned_before(index));
            losses.add_first(LossKind::Trimmed, format!("turns.1-{}", dropped.turns));
            return Ok(dropped);
        }
    }
    Err(count(call))
}

/// Where a call could be cut, and what would be left of it.
struct Plan {
    edges: Vec<usize>,
    /// Tokens that would stay, for each edge.
    left: Vec<u64>,
    /// Lines that are kept word for word, and how many of them stand before each edge.
    pins: Vec<String>,
    pins_before: Vec<(usize, u64)>,
}

impl Plan {
    /// One pass over the turns; `total` is what the whole call has.
    fn new(call: &Call, window: Window<'_>, total: u64) -> Self {
        let count = |turn| window.tokenizer.count_turn(turn);
        let sizes: Vec<u64> = call.turns.iter().map(count).collect();
        let chunk = (window.limit / 4).clamp(1, LONGEST_CHUNK);
        let edges = edges(&call.turns, &sizes, chunk);
        let (mut left, mut pins, mut pins_before) = (Vec::new(), Vec::new(), Vec::new());
        let (mut seen, mut gone, mut pinned) = (HashSet::new(), 0_u64, 0_u64);
        let mut at = 0;
        for edge in &edges {
            let turns = call.turns.iter().zip(&sizes).take(*edge).skip(at);
            for (turn, size) in turns.filter(|(turn, _)| turn.role != Role::System) {
                gone += size;
                for line in pinned_lines(turn, window.pins) {
                    if seen.insert(line.clone()) {
                        pinned += window.tokenizer.count(&line) + 1;
                        pins.push(line);
                    }
                }
            }
            at = *edge;
            left.push(total.saturating_sub(gone));
            pins_before.push((pins.len(), pinned));
        }
        Self {
            edges,
            left,
            pins,
            pins_before,
        }
    }

    /// The first edge behind which the rest fits with pins and summaries of what went.
    fn first_that_fits(&self, window: Window<'_>) -> Option<usize> {
        let kept = self.left.iter().zip(&self.pins_before).enumerate();
        let fits = |(index, (left, (_, pins))): (usize, (&u64, &(usize, u64)))| {
            let summaries = SUMMARY.saturating_mul(u64::try_from(index + 1).unwrap_or(u64::MAX));
            let needed = left + summaries.min(window.limit / 4) + pins + HEADINGS;
            (needed <= window.limit).then_some(index)
        };
        kept.into_iter().find_map(fits)
    }

    fn pinned_before(&self, index: usize) -> Vec<String> {
        let count = self.pins_before.get(index).map_or(0, |(count, _)| *count);
        self.pins.iter().take(count).cloned().collect()
    }
}

/// Takes out the turns before the last of `edges`, a chunk for each of them.
fn cut(call: &mut Call, edges: &[usize], pinned: Vec<String>) -> Dropped {
    let mut dropped = Dropped {
        pinned,
        ..Dropped::default()
    };
    let (mut start, mut at) = (0, 0);
    for end in edges {
        let turns = call.turns.get(start..*end).unwrap_or_default();
        dropped.chunks.push(transcript(turns));
        start = *end;
    }
    call.turns.retain(|turn| {
        at += 1;
        let stays = at > start || turn.role == Role::System;
        dropped.turns += usize::from(!stays);
        stays
    });
    dropped
}

impl Dropped {
    /// Puts what is left of the dropped turns in their place.
    pub(crate) fn put_into(self, call: &mut Call, summaries: &[String]) {
        if self.turns == 0 {
            return;
        }
        let mut text = format!(
            "[Earlier part of this conversation, {} messages, summarised]\n",
            self.turns
        );
        text.push_str(&summaries.join("\n"));
        if !self.pinned.is_empty() {
            text.push_str("\n[Kept word for word]\n");
            text.push_str(&self.pinned.join("\n"));
        }
        let head = call
            .turns
            .iter()
            .take_while(|turn| turn.role == Role::System)
            .count();
        call.turns
            .insert(head, Turn::new(Role::User, vec![Part::text(text)]));
    }
}

/// Where the present exchange begins: the last turn in which the user says something. It is never cut,
/// and neither are the tool calls behind it.
fn open_from(turns: &[Turn]) -> usize {
    turns.iter().rposition(is_prompt).unwrap_or(0)
}

fn is_prompt(turn: &Turn) -> bool {
    turn.role == Role::User && !turn.answers_tools()
}

/// Places before which turns may be dropped, about a chunk apart. A cut stands before a prompt of the
/// user's, so that no tool call is parted from its result.
fn edges(turns: &[Turn], sizes: &[u64], chunk: u64) -> Vec<usize> {
    let last = open_from(turns);
    let (mut edges, mut since) = (Vec::new(), 0_u64);
    for (at, (turn, size)) in turns.iter().zip(sizes).enumerate() {
        if at > 0 && at <= last && is_prompt(turn) && (since >= chunk || at == last) {
            edges.push(at);
            since = 0;
        }
        if turn.role != Role::System {
            since += size;
        }
    }
    edges
}

/// Shortens the long tool results of these turns.
fn trim_results(
    call: &mut Call,
    among: Range<usize>,
    tokenizer: &Tokenizer,
    keep: &dyn Fn(&str) -> String,
    losses: &mut Losses,
) {
    for turn in call.turns.iter_mut().take(among.end).skip(among.start) {
        let mut changed = false;
        for part in &mut turn.parts {
            let Kind::ToolResult(result) = &mut part.kind else {
                continue;
            };
            for piece in &mut result.parts {
                let Kind::Text(text) = &mut piece.kind else {
                    continue;
                };
                if !tokenizer.is_over(&text.text, LEAST_TRIMMED) {
                    continue;
                }
                let handle = keep(&text.text);
                let left: String = text.text.chars().take(KEPT_OF_RESULT * 4).collect();
                let gone = text.text.chars().count() - left.chars().count();
                text.text = format!("{left}\n[{gone} more characters are kept as {handle}]");
                piece.raw = None;
                changed = true;
                losses.add(LossKind::Trimmed, handle);
            }
            if changed {
                part.raw = None;
            }
        }
        if changed {
            turn.raw.clear();
        }
    }
}

fn pinned_lines(turn: &Turn, pins: &[String]) -> Vec<String> {
    let text = turn.plain_text();
    let lines = text.lines().map(str::trim);
    let pinned = lines.filter(|line| pins.iter().any(|pin| line.starts_with(pin.as_str())));
    pinned.map(str::to_owned).collect()
}

/// Turns as a text that a model can summarise.
fn transcript(turns: &[Turn]) -> String {
    let mut text = String::new();
    for turn in turns {
        let who = match turn.role {
            Role::System => continue,
            Role::User if turn.answers_tools() => "tool result",
            Role::User => "user",
            Role::Assistant => "assistant",
        };
        text.push_str(who);
        text.push_str(": ");
        text.push_str(&turn.plain_text());
        text.push('\n');
    }
    text
}

/// What stands in for a summary when no model makes one: the first words of each line.
pub(crate) fn extract(chunk: &str) -> String {
    let most = usize::try_from(SUMMARY * 4).unwrap_or(usize::MAX);
    let mut text = String::new();
    let lines: Vec<&str> = chunk
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let each = (most / lines.len().max(1)).clamp(40, 400);
    for line in lines {
        if text.len() + each > most {
            break;
        }
        text.extend(line.chars().take(each));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests;
