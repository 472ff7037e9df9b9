//! What the tests of translation share: who asks, how bodies and streams are carried over, and what
//! of an answer must arrive whatever the dialect.

pub(crate) mod grammar;

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use wire::call::{Choice, Kind, Part, Turn};
use wire::dialect::{self, Asked, Change};
use wire::reply::{Assembler, Reply, Stop};
use wire::sse::Splitter;
use wire::translate::Translator;
use wire::{Call, Dialect, Losses, RequestId};

/// The dialects that a conversation can be held in.
pub(crate) fn conversing() -> [&'static dyn Dialect; 3] {
    [
        dialect::OPENAI_CHAT,
        dialect::OPENAI_RESPONSES,
        dialect::ANTHROPIC_MESSAGES,
    ]
}

/// The origin that everything comes from and goes to, unless a test is about origins.
pub(crate) const ORIGIN: &str = "there";

/// A change that only names the model.
pub(crate) fn change(model: &str) -> Change<'_> {
    Change {
        model,
        ..Change::default()
    }
}

/// The caller who gets an answer, with fixed id and time.
pub(crate) fn asked(call: Call) -> Asked {
    Asked {
        request: RequestId::new(1_795_000_000_000, [7; 10]),
        created_s: 1_795_000_000,
        call: Arc::new(call),
        include_usage: true,
        prompt_tokens: 11,
        count: |text| u64::try_from(text.split_whitespace().count()).unwrap_or(0),
    }
}

/// A call as another upstream gets it, and what got lost.
pub(crate) fn carried(call: &Call, to: &dyn Dialect, origin: &str) -> (Value, Losses) {
    let mut call = call.clone();
    let mut losses = Losses::default();
    call.withhold(to.name(), origin, &mut losses);
    let body = to.encode(&call, &change("target"), &mut losses);
    (body, losses)
}

/// Forgets the shapes that parts and turns were read from.
pub(crate) fn forget(turns: &mut [Turn]) {
    fn bare(parts: &mut [Part]) {
        for part in parts {
            part.raw = None;
            if let Kind::ToolResult(result) = &mut part.kind {
                bare(&mut result.parts);
            }
        }
    }
    for turn in turns {
        turn.raw.clear();
        bare(&mut turn.parts);
    }
}

/// What a stream has become on the other side.
pub(crate) struct Carried {
    pub(crate) text: String,
    /// The answer as it was read from the upstream.
    pub(crate) reply: Reply,
    pub(crate) ended: bool,
    pub(crate) failed: Option<String>,
    pub(crate) losses: Losses,
}

/// Carries a stream over that comes in frames of `size` bytes.
pub(crate) fn stream(
    from: &dyn Dialect,
    to: &dyn Dialect,
    asked: Asked,
    bytes: &[u8],
    size: usize,
) -> Carried {
    let mut translator = Translator::new(from, ORIGIN, to, asked);
    let mut watch = from.watch();
    let mut splitter = Splitter::default();
    let mut text = String::new();
    for frame in bytes.chunks(size.max(1)) {
        splitter
            .push(Bytes::copy_from_slice(frame))
            .expect("events are short");
        while let Some(event) = splitter.next_event() {
            watch.event(&event);
            translator.event(&event, &mut text);
        }
    }
    let rest = splitter.rest();
    if !rest.is_empty() {
        watch.event(&rest);
        translator.event(&rest, &mut text);
    }
    // An answer that came to its end may lack only the last event.
    if watch.facts().finished {
        translator.finish(&mut text);
    }
    let mut reply = translator.assembler().so_far().clone();
    if !translator.assembler().is_reported() {
        reply.usage = None;
    }
    Carried {
        text,
        reply,
        ended: translator.assembler().whole().is_some(),
        failed: translator.failed().map(str::to_owned),
        losses: translator.losses().clone(),
    }
}

/// Reads a stream to its end.
pub(crate) fn read(of: &dyn Dialect, text: &str) -> Assembler {
    let mut reader = of.reader(ORIGIN);
    let mut assembler = Assembler::default();
    let mut events = Vec::new();
    for event in text.split_inclusive("\n\n") {
        reader.event(event.as_bytes(), &mut events);
        for event in events.drain(..) {
            assembler.take(&event);
        }
    }
    assembler
}

/// What of an answer every dialect can tell.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Essence {
    pub(crate) model: String,
    pub(crate) said: String,
    pub(crate) thought: String,
    pub(crate) refused: String,
    /// Id, name and arguments of each call.
    pub(crate) calls: Vec<(String, String, Value)>,
    pub(crate) stop: &'static str,
    /// Prompt and answer tokens, where they were reported.
    pub(crate) tokens: Option<(u64, u64)>,
    pub(crate) logprobs: Vec<Value>,
}

impl Essence {
    /// What arrives of `reply` in the dialect `to`.
    pub(crate) fn of(reply: &Reply, to: &dyn Dialect) -> Self {
        let messages = to.name() == "anthropic_messages";
        let mut essence = Self {
            model: reply.model.clone(),
            stop: class(reply.stop.as_ref()),
            tokens: reply.usage.map(|used| (used.prompt(), used.answer())),
            ..Self::default()
        };
        for part in &reply.parts {
            match &part.kind {
                Kind::Text(text) => essence.said.push_str(&text.text),
                // Messages has no place for a refusal but the text.
                Kind::Refusal(text) if messages => essence.said.push_str(text),
                Kind::Refusal(text) => essence.refused.push_str(text),
                Kind::Thinking(thinking) => essence.thought.push_str(&thinking.text),
                Kind::ToolCall(call) => {
                    let text = Value::from(call.arguments.clone());
                    let input = match serde_json::from_str(&call.arguments) {
                        _ if call.custom => serde_json::json!({ "input": text }),
                        Ok(value) => value,
                        Err(_) => text,
                    };
                    essence
                        .calls
                        .push((plain(&call.id), call.name.clone(), input));
                }
                _ => {}
            }
        }
        if !messages {
            essence.logprobs.clone_from(&reply.logprobs);
        }
        essence
    }
}

/// The id where every dialect takes it as it is.
fn plain(id: &str) -> String {
    let sound = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let fits = !id.is_empty() && id.len() <= 40 && id.chars().all(sound);
    if fits { id.to_owned() } else { "*".to_owned() }
}

/// The reasons that every dialect can tell apart.
fn class(stop: Option<&Stop>) -> &'static str {
    match stop {
        None | Some(Stop::End | Stop::Sequence(_) | Stop::Pause) => "end",
        Some(Stop::Length | Stop::Window) => "length",
        Some(Stop::Tools) => "tools",
        Some(Stop::Refusal | Stop::Filter) => "declined",
    }
}

impl Essence {
    /// Forgets what `told` does not know: ids that had to be changed, and tokens that nobody reported
    /// and were counted here.
    pub(crate) fn fit(&mut self, told: &Self) {
        if told.tokens.is_none() {
            self.tokens = None;
        }
        // No prompt is without tokens: what was counted at the start stands.
        if let (Some((prompt, _)), Some((0, _))) = (&mut self.tokens, told.tokens) {
            *prompt = 0;
        }
        for ((id, ..), (wanted, ..)) in self.calls.iter_mut().zip(&told.calls) {
            if wanted == "*" {
                wanted.clone_into(id);
            }
        }
        // At the cap, an empty input says that a call was cut, or that it needs none.
        if let (Some((.., input)), Some((.., wanted))) = (self.calls.last_mut(), told.calls.last())
            && told.stop == "length"
            && *wanted == serde_json::json!({})
            && *input == ""
        {
            input.clone_from(wanted);
        }
    }

    /// Leaves out what was reported as lost.
    pub(crate) fn without(&mut self, losses: &Losses) {
        for loss in losses.iter() {
            match loss.what.as_ref() {
                // A call that was cut.
                "tool_call" => self.calls.retain(|(_, _, input)| input.is_object()),
                "logprobs" => self.logprobs.clear(),
                _ => {}
            }
        }
    }
}

/// What a call says, without how it was written: neighbours of one role are one turn, arguments are
/// JSON, and what means the same is the same.
pub(crate) fn normal(call: &Call) -> Value {
    let mut turns: Vec<Turn> = Vec::new();
    let mut bare = call.turns.clone();
    forget(&mut bare);
    let mut ids = Vec::new();
    for mut turn in bare {
        turn.parts
            .iter_mut()
            .for_each(|part| plain_part(part, &mut ids));
        turn.parts.retain(|part| part.as_text() != Some(""));
        match turns.last_mut() {
            _ if turn.parts.is_empty() => {}
            Some(last) if last.role == turn.role => last.parts.append(&mut turn.parts),
            _ => turns.push(turn),
        }
    }
    for turn in &mut turns {
        // Where something stood between results, it stands behind them.
        turn.parts
            .sort_by_key(|part| !matches!(part.kind, Kind::ToolResult(_)));
    }
    let reasoning = &call.reasoning;
    let off =
        reasoning.enabled == Some(false) || reasoning.effort == Some(wire::call::Effort::None);
    let reasoning = if off {
        "off".to_owned()
    } else {
        format!("{reasoning:?}")
    };
    // Where there are tools, nothing said means that the model decides.
    let choice = call.choice.as_ref();
    let default = Some(&Choice::Auto).filter(|_| !call.tools.is_empty());
    let parallel = call.parallel.filter(|parallel| !parallel);
    let parallel = parallel.filter(|_| choice != Some(&Choice::None));
    let lane = match call.lane.as_deref() {
        Some("standard_only") => Some("default"),
        lane => lane,
    };
    let tools = call.tools.iter().map(|tool| {
        let empty = || serde_json::json!({ "type": "object", "properties": {} });
        let mut schema = tool.schema.clone();
        if !tool.custom && tool.own.is_none() {
            let fields = schema.get_or_insert_with(empty).as_object_mut();
            fields
                .expect("an object")
                .entry("properties")
                .or_insert(serde_json::json!({}));
        }
        let strict = tool.strict.filter(|strict| *strict);
        let name = plain_name(&tool.name);
        serde_json::json!([
            name,
            tool.description,
            schema,
            strict,
            tool.custom,
            tool.own
        ])
    });
    serde_json::json!({
        "model": call.model, "turns": turns, "tools": tools.collect::<Vec<_>>(),
        "choice": format!("{:?}", choice.or(default)), "parallel": parallel,
        "format": format!("{:?}", call.format), "verbosity": call.verbosity,
        "reasoning": reasoning, "sampling": format!("{:?}", call.sampling),
        "max_output": call.max_output, "stream": call.stream, "lane": lane, "user": call.user,
        "metadata": call.metadata, "cache_key": call.cache_key,
    })
}

/// Ids are their own business, but that results find their calls by them.
fn plain_id(id: &mut String, ids: &mut Vec<String>) {
    let place = ids.iter().position(|known| known == id);
    let place = place.unwrap_or(ids.len());
    if place == ids.len() {
        ids.push(id.clone());
    }
    *id = place.to_string();
}

/// What is left of a name where it has to be shortened.
fn plain_name(name: &str) -> String {
    let kept = if name.len() < 64 { name.len() } else { 47 };
    name.chars().take(kept).collect()
}

fn plain_part(part: &mut Part, ids: &mut Vec<String>) {
    match &mut part.kind {
        Kind::ToolCall(call) => {
            plain_id(&mut call.id, ids);
            call.name = plain_name(&call.name);
            if call.custom {
                return;
            }
            let text = if call.arguments.is_empty() {
                "{}"
            } else {
                &call.arguments
            };
            if let Ok(value) = serde_json::from_str::<Value>(text) {
                call.arguments = value.to_string();
            }
        }
        Kind::Thinking(thinking) => {
            // A caller who sends it back does not say who made it.
            if let Some(seal) = &mut thinking.seal {
                seal.origin = None;
            }
        }
        Kind::ToolResult(result) => {
            plain_id(&mut result.id, ids);
            result
                .parts
                .iter_mut()
                .for_each(|part| plain_part(part, ids));
            result.parts.retain(|part| part.as_text() != Some(""));
        }
        _ => {}
    }
}
