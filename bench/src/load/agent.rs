//! Conversations of agents: each turn sends the whole past again, with the last answer's tool call and
//! the tool's result behind it.

use std::fmt::Write;

use super::call::{Dialect, Shape, text};
use crate::conversation::Prompt;

/// A conversation under way: its messages as JSON, without the brackets.
#[derive(Debug)]
pub(super) struct Talk {
    messages: String,
    turn: u32,
    number: usize,
}

/// Length of a tool's result.
const RESULT: usize = 1_500;

impl Talk {
    /// Conversation `number`, before its first turn.
    pub(super) fn new(prompts: &[Prompt], number: usize, shape: &Shape) -> Self {
        // The first message is as long as a body is asked to be; every turn adds to it.
        let first = text(
            prompts,
            number,
            shape.body_bytes.saturating_sub(200).max(200),
        );
        Self {
            messages: format!("{{\"role\":\"user\",\"content\":\"{first}\"}}"),
            turn: 0,
            number,
        }
    }

    /// The body of the next turn.
    pub(super) fn next(
        &mut self,
        prompts: &[Prompt],
        shape: &Shape,
        dialect: Dialect,
        model: &str,
    ) -> String {
        if self.turn > 0 {
            let result = text(prompts, self.number + 31 * turn_of(self.turn), RESULT);
            self.append(&result, &shape.ask.text(), dialect);
        }
        self.turn += 1;
        let body = shape.close(&self.messages, dialect, model);
        let tool = match dialect {
            Dialect::Chat => {
                "{\"type\":\"function\",\"function\":{\"name\":\"read_file\",\"description\":\"Read a file\",\
                 \"parameters\":{\"type\":\"object\",\"properties\":{\"path\":{\"type\":\"string\"}}}}}"
            }
            Dialect::Messages => {
                "{\"name\":\"read_file\",\"description\":\"Read a file\",\
                 \"input_schema\":{\"type\":\"object\",\"properties\":{\"path\":{\"type\":\"string\"}}}}"
            }
        };
        // The same bytes at the same place in every turn, or no cache of prompts could serve them.
        format!(
            "{{\"tools\":[{tool}],{}",
            body.strip_prefix('{').unwrap_or_default()
        )
    }

    /// How many turns have begun.
    pub(super) fn turns(&self) -> u32 {
        self.turn
    }

    fn append(&mut self, result: &str, ask: &str, dialect: Dialect) {
        let id = format!("call_{}_{}", self.number, self.turn);
        let path = format!("src/part_{}.rs", self.turn);
        // Writing to a String can not fail.
        let _written = match dialect {
            Dialect::Chat => write!(
                self.messages,
                ",{{\"role\":\"assistant\",\"content\":\"I read on.\",\"tool_calls\":[{{\"id\":\"{id}\",\"type\":\"function\",\
                 \"function\":{{\"name\":\"read_file\",\"arguments\":\"{{\\\"path\\\":\\\"{path}\\\"}}\"}}}}]}},\
                 {{\"role\":\"tool\",\"tool_call_id\":\"{id}\",\"content\":\"{result}{ask}\"}}"
            ),
            Dialect::Messages => write!(
                self.messages,
                ",{{\"role\":\"assistant\",\"content\":[{{\"type\":\"text\",\"text\":\"I read on.\"}},{{\"type\":\"tool_use\",\
                 \"id\":\"{id}\",\"name\":\"read_file\",\"input\":{{\"path\":\"{path}\"}}}}]}},\
                 {{\"role\":\"user\",\"content\":[{{\"type\":\"tool_result\",\"tool_use_id\":\"{id}\",\
                 \"content\":\"{result}{ask}\"}}]}}"
            ),
        };
    }
}

fn turn_of(turn: u32) -> usize {
    usize::try_from(turn).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::conversation;
    use crate::load::Ask;

    #[test]
    fn each_turn_sends_the_past_again_and_adds_to_it() {
        let prompts = conversation::prompts();
        let shape = Shape {
            body_bytes: 1_000,
            stream: true,
            max_tokens: 9,
            model_last: false,
            ask: Ask::default(),
        };
        for dialect in [Dialect::Chat, Dialect::Messages] {
            let mut talk = Talk::new(&prompts, 3, &shape);
            let mut past: Vec<Value> = Vec::new();
            for turn in 0..5 {
                let body = talk.next(&prompts, &shape, dialect, "auto");
                let body: Value = serde_json::from_str(&body).unwrap();
                let messages = body["messages"].as_array().unwrap();
                assert_eq!(messages.len(), 1 + 2 * turn);
                assert_eq!(messages[..past.len()], past);
                assert_eq!(body["tools"].as_array().unwrap().len(), 1);
                past.clone_from(messages);
            }
        }
    }
}
