//! Making a conversation fit a smaller window: long tool results become handles, the oldest turns a
//! summary. System text, pinned lines and the present tool loop stay. Pure: what must be summarised or
//! kept is returned, and put in when it is there.
//!
//! How far a transcript was shortened is remembered by the caller, and it is never taken back: answer
//! caps and learned factors move the room there is from call to call, and the prefix must stand still.
//! Where more has to go, it goes in steps, so that it then stands still for a while.

use std::collections::HashSet;
use std::fmt::Write;

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

/// Summaries that a model with a context of `context` tokens gets at most: an eighth of it.
pub(crate) fn most_summaries(context: u64) -> usize {
    usize::try_from(context / 8 / SUMMARY)
        .unwrap_or(usize::MAX)
        .max(1)
}

/// The room there is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window<'a> {
    /// Prompt tokens at most, in the tokenizer's own count.
    pub(crate) limit: u64,
    /// A transcript that was never shortened is left alone up to this many tokens.
    pub(crate) untouched: u64,
    /// The model's whole context, by which steps are measured: unlike the limit it never moves.
    pub(crate) context: u64,
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

/// How far a transcript is shortened: the turns before `cut` are gone, and the long tool results before
/// `trimmed` are handles. `cut` is never the greater.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) cut: usize,
    pub(crate) trimmed: usize,
}

/// What went from a call.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Fitted {
    pub(crate) shape: Shape,
    /// Turns that go, as the texts to be summarised, oldest first.
    pub(crate) chunks: Vec<String>,
    /// Tool results that are handles from now on: handle and text.
    pub(crate) results: Vec<(String, String)>,
    pinned: Vec<String>,
    turns: usize,
}

/// Shortens `call` to `window`, at least as far as `before`. A tool result that is shortened goes by
/// the handle that `handle` makes of its text. The dropped turns are gone from the call when this returns.
///
/// # Errors
/// The tokens of what is left where even that does not fit.
pub(crate) fn fit(
    call: &mut Call,
    window: Window<'_>,
    before: Shape,
    handle: &dyn Fn(&str) -> String,
    losses: &mut Losses,
) -> Result<Fitted, u64> {
    let total = window.tokenizer.count_call(call);
    if before == Shape::default() && total <= window.untouched {
        return Ok(Fitted::default());
    }
    let plan = Plan::new(call, window, total, handle);
    let shape = plan.first_that_fits(before);
    let shape = shape.ok_or_else(|| plan.left(plan.longest_trim()))?;
    Ok(plan.carry_out(call, shape, before, losses))
}

/// A turn with its long tool results shortened, and the handles and texts of these.
struct Shortened {
    turn: Turn,
    results: Vec<(String, String)>,
}

/// Tokens of the turns before a place.
#[derive(Debug, Clone, Copy, Default)]
struct Before {
    /// That go where results are shortened.
    saved: u64,
    /// That go where the turns go as well.
    gone: u64,
    /// Of their pinned lines, which stay, and how many of these there are.
    pinned: u64,
    pins: usize,
}

/// How a call can be shortened, and what would be left of it.
struct Plan<'a> {
    window: Window<'a>,
    total: u64,
    /// The turns that can be shortened.
    shortened: Vec<Option<Shortened>>,
    /// One for each place before, between and behind the turns.
    sums: Vec<Before>,
    /// Lines that are kept word for word, each once.
    pins: Vec<String>,
    /// Where the present exchange begins: nothing behind it is cut.
    open: usize,
    /// Results behind this have not been answered to: they are never trimmed.
    recent: usize,
    /// Places before prompts of the user's, about a chunk apart.
    cuts: Vec<usize>,
    /// Places about a chunk apart, in the present exchange before any turn.
    trims: Vec<usize>,
}

impl<'a> Plan<'a> {
    /// One pass over the turns; `total` is what the whole call has.
    fn new(call: &Call, window: Window<'a>, total: u64, handle: &dyn Fn(&str) -> String) -> Self {
        let open = open_from(&call.turns);
        let mut plan = Self {
            window,
            total,
            shortened: Vec::with_capacity(call.turns.len()),
            sums: vec![Before::default()],
            pins: Vec::new(),
            open,
            // A long loop is one exchange: at last, results that the model has answered to go too.
            recent: call.turns.len().saturating_sub(RECENT_TURNS).max(open),
            cuts: Vec::new(),
            trims: Vec::new(),
        };
        let chunk = (window.context / 4).clamp(1, LONGEST_CHUNK);
        let (mut since_cut, mut since_trim) = (0, 0);
        let (mut sum, mut seen) = (Before::default(), HashSet::new());
        for (at, turn) in call.turns.iter().enumerate() {
            if at <= open && is_prompt(turn) && since_cut >= chunk {
                plan.cuts.push(at);
                since_cut = 0;
            }
            let may_trim = is_prompt(turn) || at > open;
            if at <= plan.recent && may_trim && since_trim >= chunk {
                plan.trims.push(at);
                since_trim = 0;
            }
            let size = window.tokenizer.count_turn(turn);
            let may_shorten = at < plan.recent;
            let shortened = may_shorten.then(|| Shortened::new(turn, window, handle));
            let shortened = shortened.flatten();
            let short = shortened.as_ref();
            let short = short.map_or(size, |it| window.tokenizer.count_turn(&it.turn).min(size));
            sum.saved += size - short;
            if turn.role != Role::System {
                since_cut += short;
                since_trim += size;
                sum.gone += short;
                for line in pinned_lines(&turn.plain_text(), window.pins) {
                    if seen.insert(line.clone()) {
                        sum.pinned += window.tokenizer.count(&line) + 1;
                        plan.pins.push(line);
                    }
                }
            }
            sum.pins = plan.pins.len();
            plan.shortened.push(shortened);
            plan.sums.push(sum);
        }
        plan
    }

    /// From the shape that was there before to the shortest there is: first results become handles, then
    /// turns go, and at last the results of the present loop.
    fn first_that_fits(&self, before: Shape) -> Option<Shape> {
        let Self { open, recent, .. } = *self;
        // A transcript that was taken back to before its cut begins anew.
        let is_behind = before.cut <= open && before.trimmed <= recent;
        let before = if is_behind { before } else { Shape::default() };
        let trimmed = |at: usize| Shape {
            trimmed: at.max(before.trimmed),
            ..before
        };
        let cuts = |trimmed: usize| {
            let cuts = self.cuts.iter().copied().chain([open]);
            let further = cuts.filter(|at| *at > before.cut);
            further.map(move |cut| Shape {
                cut,
                trimmed: trimmed.max(before.trimmed),
            })
        };
        let results = self.trims.iter().copied().filter(|at| *at < open);
        let in_loop = self.trims.iter().copied().filter(|at| *at > open);
        let all = [before].into_iter();
        let all = all.chain(results.chain([open]).map(trimmed));
        let all = all.chain(cuts(open));
        let all = all.chain(in_loop.chain([recent]).map(trimmed));
        let mut all = all.chain(cuts(recent));
        all.find(|shape| self.left(*shape) <= self.window.limit)
    }

    fn longest_trim(&self) -> Shape {
        Shape {
            cut: 0,
            trimmed: self.recent,
        }
    }

    /// Tokens that stay.
    fn left(&self, shape: Shape) -> u64 {
        let before = |at: usize| self.sums.get(at).copied().unwrap_or_default();
        let (trimmed, cut) = (before(shape.trimmed), before(shape.cut));
        let left = self.total.saturating_sub(trimmed.saved + cut.gone);
        if shape.cut == 0 {
            return left;
        }
        let chunks = self.cuts.partition_point(|at| *at < shape.cut) + 1;
        let summaries = chunks.min(most_summaries(self.window.context));
        let summaries = SUMMARY.saturating_mul(u64::try_from(summaries).unwrap_or(u64::MAX));
        left + summaries + cut.pinned + HEADINGS
    }

    /// The ends of the chunks that a cut takes out.
    fn edges(&self, cut: usize) -> impl Iterator<Item = usize> {
        let whole = self.cuts.iter().copied().filter(move |at| *at < cut);
        whole.chain([cut])
    }

    /// Shortens the call to `shape`.
    fn carry_out(
        mut self,
        call: &mut Call,
        shape: Shape,
        before: Shape,
        losses: &mut Losses,
    ) -> Fitted {
        let mut fitted = Fitted {
            shape,
            ..Fitted::default()
        };
        let both = call.turns.iter_mut().zip(&mut self.shortened);
        for (at, (turn, shortened)) in both.enumerate().take(shape.trimmed) {
            let Some(shortened) = shortened.take() else {
                continue;
            };
            *turn = shortened.turn;
            for (handle, text) in shortened.results {
                losses.add(LossKind::Trimmed, handle.clone());
                if at >= before.trimmed {
                    fitted.results.push((handle, text));
                }
            }
        }
        if shape.cut == 0 {
            return fitted;
        }
        let mut start = 0;
        for end in self.edges(shape.cut) {
            let turns = call.turns.get(start..end).unwrap_or_default();
            fitted.chunks.push(transcript(turns));
            start = end;
        }
        let pins = self.sums.get(shape.cut).map_or(0, |before| before.pins);
        self.pins.truncate(pins);
        fitted.pinned = self.pins;
        let mut at = 0;
        call.turns.retain(|turn| {
            at += 1;
            let stays = at > shape.cut || turn.role == Role::System;
            fitted.turns += usize::from(!stays);
            stays
        });
        losses.add_first(LossKind::Trimmed, format!("turns.1-{}", fitted.turns));
        fitted
    }
}

impl Fitted {
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

impl Shortened {
    /// The turn with its long tool results shortened; `None` where it has none.
    fn new(turn: &Turn, window: Window<'_>, handle: &dyn Fn(&str) -> String) -> Option<Self> {
        let is_long = |piece: &Part| match &piece.kind {
            Kind::Text(text) => window.tokenizer.is_over(&text.text, LEAST_TRIMMED),
            _ => false,
        };
        let has_long = |part: &Part| match &part.kind {
            Kind::ToolResult(result) => result.parts.iter().any(is_long),
            _ => false,
        };
        if !turn.parts.iter().any(has_long) {
            return None;
        }
        let (mut turn, mut results) = (turn.clone(), Vec::new());
        turn.raw.clear();
        for part in turn.parts.iter_mut().filter(|part| has_long(part)) {
            part.raw = None;
            let Kind::ToolResult(result) = &mut part.kind else {
                continue;
            };
            for piece in result.parts.iter_mut().filter(|piece| is_long(piece)) {
                piece.raw = None;
                if let Kind::Text(text) = &mut piece.kind {
                    let name = handle(&text.text);
                    let left = shortened_text(&text.text, window.pins, &name);
                    results.push((name, std::mem::replace(&mut text.text, left)));
                }
            }
        }
        Some(Self { turn, results })
    }
}

/// The beginning of a tool result and the pinned lines in its rest, with the handle of the whole.
fn shortened_text(text: &str, pins: &[String], handle: &str) -> String {
    let end = text.char_indices().nth(KEPT_OF_RESULT * 4);
    let (kept, gone) = text.split_at(end.map_or(text.len(), |(at, _)| at));
    let mut left = kept.to_owned();
    for line in pinned_lines(gone, pins) {
        left.push('\n');
        left.push_str(&line);
    }
    let gone = gone.chars().count();
    // Writing to a String can not fail.
    let _written = write!(left, "\n[{gone} more characters are kept as {handle}]");
    left
}

fn pinned_lines(text: &str, pins: &[String]) -> Vec<String> {
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
