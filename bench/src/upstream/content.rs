//! What an answer consists of, whatever the dialect: reasoning, text and calls, in tokens.

use serde_json::Value;

use super::play::Line;
use super::request::{Dialect, Tool, Turn, before_system, last_user_text, tool_results, tools};
use super::script::{Fault, Script, ScriptedCall, without_script};
use super::{Billed, fit, see};

/// What an answer consists of.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the script, none a state"
)]
pub(super) struct Content {
    /// Visible reasoning in pieces, one an event, each with its number of tokens.
    pub(super) thinking: Vec<(String, u64)>,
    /// Visible text in pieces, one an event, each with its number of tokens.
    pub(super) pieces: Vec<(String, u64)>,
    /// Calls of tools, behind the text.
    pub(super) calls: Vec<Call>,
    /// The text declines.
    pub(super) refuses: bool,
    /// The log probability of each piece of the text.
    pub(super) logprob: Option<f64>,
    /// The caller's cap cut the answer.
    pub(super) cut_by_cap: bool,
    pub(super) prompt_tokens: u64,
    pub(super) cached_tokens: u64,
    /// Reasoning that nobody sees.
    pub(super) silent_tokens: u64,
    /// All reasoning.
    pub(super) reasoning_tokens: u64,
    pub(super) output_tokens: u64,
    pub(super) model: String,
    pub(super) reports_usage: bool,
    pub(super) hostile_usage: bool,
    pub(super) has_end: bool,
    pub(super) wants_usage: bool,
    /// What the ids of this answer have in common, and no other answer of this endpoint has.
    pub(super) stem: String,
    /// Stands in the marks on reasoning.
    pub(super) origin: String,
}

/// The call of a tool.
#[derive(Debug)]
pub(super) struct Call {
    /// What makes its ids differ from those of the other calls of this answer.
    pub(super) suffix: String,
    pub(super) name: String,
    /// JSON, or the text for a custom tool.
    pub(super) arguments: String,
    pub(super) custom: bool,
    pub(super) namespace: Option<String>,
    pub(super) tokens: u64,
}

/// The schema of a tool that nobody offered.
static NOTHING: Value = Value::Null;
/// Tokens in the call of a tool.
const CALL_TOKENS: u64 = 8;
/// Longest repetition: an answer is made in memory as a whole.
const MOST_REPEATS: u64 = 100_000;

const WORDS: [&str; 16] = [
    "light", "river", "of", "the", "stone", "Grüße", "sum", "and", "🙂", "proof", "is", "a",
    "table", "seven", "naïve", "end",
];

/// What an answer is made from.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) script: &'a Script,
    pub(super) fault: Option<&'a Fault>,
    pub(super) dialect: Dialect,
    /// With all its context.
    pub(super) request: &'a Value,
    pub(super) turns: &'a [Turn<'a>],
    pub(super) billed: &'a Billed,
    /// Which call of this endpoint it is, from 0.
    pub(super) number: u64,
    /// What a play has for it.
    pub(super) line: Option<&'a Line>,
}

impl Content {
    /// The visible text as a whole.
    pub(super) fn text(&self) -> String {
        joined(&self.pieces)
    }

    /// The visible reasoning as a whole.
    pub(super) fn thought(&self) -> String {
        joined(&self.thinking)
    }

    /// There is a place for text: where there is text, or nothing else.
    pub(super) fn has_text(&self) -> bool {
        !self.pieces.is_empty() || (self.calls.is_empty() && self.thinking.is_empty())
    }

    /// What `asked` is answered with.
    pub(super) fn of(asked: &Asked<'_>) -> Self {
        let Asked { script, billed, .. } = asked;
        let cap = asked.dialect.cap(asked.request);
        let heeds = asked.fault != Some(&Fault::IgnoresCap);
        let cap = cap.filter(|_| heeds).unwrap_or(u64::MAX);
        let cap = cap.min(script.most_tokens.unwrap_or(u64::MAX));
        let silent = script.reasoning_tokens.min(cap);
        let thought = script.thinking.as_deref().unwrap_or_default();
        let thought: Vec<String> = pieces(thought);
        let thinks = !thought.is_empty();
        let thinking: Vec<_> = first(thought, cap - silent);
        let thinking: Vec<_> = thinking.chunks(1).map(piece).collect();
        let reasoning = silent + count(&thinking);
        let left = cap - reasoning;
        let scripted = calls(asked);
        let (words, wanted) = words(asked, scripted.is_empty(), left);
        let wanted = wanted + CALL_TOKENS * count(&scripted);
        let visible = wanted.min(left);
        let words = first(words, visible);
        // A call alone is made whole, however small the cap.
        let whole = words.is_empty() && !thinks;
        let calls = paid(scripted, visible - count(&words), whole);
        let per_event = usize::try_from(script.tokens_per_event.max(1)).unwrap_or(1);
        Self {
            thinking,
            pieces: words.chunks(per_event).map(piece).collect(),
            calls,
            refuses: script.refuses,
            logprob: script.logprob,
            cut_by_cap: visible < wanted,
            prompt_tokens: billed.prompt_tokens,
            cached_tokens: billed.cached_tokens,
            silent_tokens: silent,
            reasoning_tokens: reasoning,
            output_tokens: visible + reasoning,
            model: billed.model.clone(),
            reports_usage: asked.fault != Some(&Fault::NoUsage),
            hostile_usage: asked.fault == Some(&Fault::HostileUsage),
            has_end: asked.fault != Some(&Fault::NoEnd),
            wants_usage: asked.request["stream_options"]["include_usage"]
                .as_bool()
                .unwrap_or(false),
            stem: stem(&script.origin, asked.number),
            origin: script.origin.clone(),
        }
    }
}

/// Two endpoints of different origin never make the same id.
fn stem(origin: &str, number: u64) -> String {
    let number = number + 1;
    if origin == Script::default().origin {
        return number.to_string();
    }
    let letters = origin.chars().filter(char::is_ascii_alphanumeric);
    // An id of a call has at most 40 characters in chat completions.
    let origin: String = letters.take(16).collect();
    format!("{origin}_{number}")
}

fn joined(pieces: &[(String, u64)]) -> String {
    pieces.iter().map(|(text, _)| text.as_str()).collect()
}

/// A text in pieces, cut behind its spaces.
fn pieces(text: &str) -> Vec<String> {
    text.split_inclusive(' ').map(str::to_owned).collect()
}

fn first(mut words: Vec<String>, most: u64) -> Vec<String> {
    words.truncate(usize::try_from(most).unwrap_or(usize::MAX));
    words
}

fn piece(words: &[String]) -> (String, u64) {
    (words.concat(), count(words))
}

fn count<T>(list: &[T]) -> u64 {
    u64::try_from(list.len()).unwrap_or(0)
}

/// The visible words, and how many were wanted where a cap of `most` leaves some out.
fn words(asked: &Asked<'_>, no_calls: bool, most: u64) -> (Vec<String>, u64) {
    let script = asked.script;
    let repeat = script.repeat.min(MOST_REPEATS);
    let told = if no_calls {
        text(asked)
    } else {
        Some(said(asked).unwrap_or_default())
    };
    if let Some(told) = told {
        let words = (0..repeat)
            .flat_map(|_| told.iter().cloned())
            .collect::<Vec<_>>();
        let wanted = count(&words);
        return (words, wanted);
    }
    let wanted = script.output_tokens.saturating_mul(repeat);
    let seed = asked.billed.prompt_tokens;
    let words = (0..wanted.min(most))
        .map(|n| n % script.output_tokens)
        .map(|n| usize::try_from((seed + n * n + n) % 16).unwrap_or(0))
        .map(|place| format!("{} ", WORDS.get(place).copied().unwrap_or("end")));
    (words.collect(), wanted)
}

/// What the script itself wants to be said.
fn said(asked: &Asked<'_>) -> Option<Vec<String>> {
    if let Some(line) = asked.line {
        return Some(match absent(line, &tools(asked.request)) {
            Some(name) => vec![format!("tool {name} is not offered")],
            None => pieces(line.say.as_deref().unwrap_or_default()),
        });
    }
    if asked.script.see {
        let line = see::line(asked.request, asked.turns, asked.dialect);
        return Some(pieces(&line));
    }
    asked.script.say.as_deref().map(pieces)
}

/// The text of an answer without calls; nothing where made-up words will do. What a tool said goes
/// before what the script says, because the script of the first call stands in the second, too.
fn text(asked: &Asked<'_>) -> Option<Vec<String>> {
    let result = || tool_results(asked.turns).map(told);
    if asked.script.see || asked.line.is_some() {
        return said(asked);
    }
    if let Some(schema) = asked.dialect.schema(asked.request) {
        let made = || {
            let json = fit::fit(schema).to_string();
            json.split_inclusive(',').map(str::to_owned).collect()
        };
        return said(asked).or_else(|| Some(made()));
    }
    if let Some(word) = &asked.script.digest {
        let text = last_user_text(asked.turns);
        let lines: Vec<&str> = text.lines().filter(|line| line.contains(word)).collect();
        return Some(pieces(&format!("In short. {}", lines.join(" "))));
    }
    if asked.script.echo && asked.script.say.is_none() {
        return Some(pieces(&last_user_text(asked.turns)));
    }
    result().or_else(|| said(asked))
}

fn told(result: String) -> Vec<String> {
    vec!["The ".into(), "tool ".into(), "said: ".into(), result]
}

/// The calls to make: those that the script names, or one because the user asks about the weather.
fn calls(asked: &Asked<'_>) -> Vec<Call> {
    if let Some(line) = asked.line {
        return played(line, &tools(asked.request));
    }
    if tool_results(asked.turns).is_some() {
        return Vec::new();
    }
    let offered = tools(asked.request);
    let script = asked.script;
    let mut wanted: Vec<_> = script
        .call
        .iter()
        .filter_map(|call| find(call, &offered))
        .collect();
    if script.call.is_empty() && script.say.is_none() && !script.see {
        wanted.extend(weather(asked.turns, &offered));
    }
    wanted.into_iter().enumerate().map(call).collect()
}

/// The calls of a play's line: all of them, or none where one is not offered.
fn played(line: &Line, offered: &[Tool<'_>]) -> Vec<Call> {
    if absent(line, offered).is_some() {
        return Vec::new();
    }
    let wanted = line.call.iter().filter_map(|call| find(call, offered));
    wanted.enumerate().map(call).collect()
}

/// The first tool that a line calls and nobody offers.
fn absent<'a>(line: &'a Line, offered: &[Tool<'_>]) -> Option<&'a str> {
    let mut calls = line.call.iter();
    let call = calls.find(|call| find(call, offered).is_none())?;
    Some(&call.name)
}

/// A call that the script names, with its input; nothing where no such tool is offered.
fn find<'a>(call: &'a ScriptedCall, offered: &[Tool<'a>]) -> Option<(Tool<'a>, String)> {
    let invented = Tool {
        name: &call.name,
        schema: &NOTHING,
        custom: false,
        namespace: None,
    };
    let tool = offered.iter().find(|tool| tool.name == call.name);
    let tool = tool.copied().or(call.invented.then_some(invented))?;
    let arguments = match &call.arguments {
        Value::String(text) => text.clone(),
        Value::Null => "{}".to_owned(),
        json => json.to_string(),
    };
    Some((tool, arguments))
}

fn call((place, (tool, arguments)): (usize, (Tool<'_>, String))) -> Call {
    let suffix = match place {
        0 => String::new(),
        place => format!("_{}", place + 1),
    };
    Call {
        suffix,
        name: tool.name.to_owned(),
        arguments,
        custom: tool.custom,
        namespace: tool.namespace.map(str::to_owned),
        tokens: 0,
    }
}

/// A call of the first tool offered, when the last user text asks about the weather.
fn weather<'a>(turns: &[Turn<'_>], offered: &[Tool<'a>]) -> Option<(Tool<'a>, String)> {
    let tool = offered.first()?;
    let last = before_system(turns).last()?;
    let text = without_script(last_user_text(turns));
    if last.role != "user" || !text.to_lowercase().contains("weather") {
        return None;
    }
    let mut arguments = serde_json::Map::new();
    for name in tool.schema["required"]
        .as_array()?
        .iter()
        .filter_map(Value::as_str)
    {
        let first = tool.schema["properties"][name]["enum"].get(0).cloned();
        arguments.insert(
            name.to_owned(),
            first.unwrap_or_else(|| Value::from("Paris")),
        );
    }
    Some((*tool, Value::Object(arguments).to_string()))
}

/// The calls with the tokens in them, as far as `left` reaches.
fn paid(mut calls: Vec<Call>, mut left: u64, first_is_whole: bool) -> Vec<Call> {
    for call in &mut calls {
        call.tokens = CALL_TOKENS.min(left);
        left -= call.tokens;
    }
    let made = |(place, call): &(usize, Call)| call.tokens > 0 || (*place == 0 && first_is_whole);
    let kept = calls.into_iter().enumerate().filter(made);
    kept.map(|(_, call)| call).collect()
}
