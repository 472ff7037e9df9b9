//! Real prompts, and conversations of a given length around them.

use serde::Deserialize;
use serde_json::{Value, json};

/// A prompt with the outcomes of a weak and a strong model; see `data/README.md`.
#[derive(Debug, Clone, Deserialize)]
pub struct Prompt {
    pub id: String,
    pub source: String,
    pub prompt: String,
    /// Score of the weak model's answer, 0 to 1.
    pub weak: f64,
    /// Score of the strong model's answer, 0 to 1.
    pub strong: f64,
}

/// Longest history built, in bytes: two cores have to carry the endpoint and the load as well.
const LONGEST: usize = 16 << 10;

/// The committed sample of prompts, none of which the router was trained on.
pub fn prompts() -> Vec<Prompt> {
    include_str!("../data/prompts.jsonl")
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// A call whose last user text is that of prompt `number`, with earlier turns from other prompts up
/// to `context_tokens`. `dialect` is `openai_chat` or `anthropic_messages`.
pub fn call(
    prompts: &[Prompt],
    number: usize,
    context_tokens: u64,
    dialect: &str,
    cap: u64,
) -> Value {
    let pick = |n: usize| prompts.get(n % prompts.len().max(1));
    let text = pick(number).map_or("", |prompt| &prompt.prompt);
    let wanted = usize::try_from(context_tokens * 4)
        .unwrap_or(LONGEST)
        .min(LONGEST);
    let mut messages = Vec::new();
    let (mut length, mut other) = (text.len(), number);
    while length < wanted {
        other += 7;
        let Some(turn) = pick(other) else { break };
        let answer = "I see. Here is what follows from it, step by step, as asked.";
        messages.push(json!({ "role": "user", "content": turn.prompt }));
        messages.push(json!({ "role": "assistant", "content": answer }));
        length += turn.prompt.len() + answer.len();
    }
    messages.push(json!({ "role": "user", "content": text }));
    let cap_field = if dialect == "openai_chat" {
        "max_completion_tokens"
    } else {
        "max_tokens"
    };
    let mut call = json!({ "model": "auto", "stream": true, "messages": messages });
    call[cap_field] = Value::from(cap);
    call
}
