//! Responses that no model makes but a task: what is asked in this dialect's words, and the answer, whole
//! and as events.

use serde_json::{Map, Value, json};

use crate::dialect::fields::{maybe, text};
use crate::loss::Losses;

use super::items::input_items;
use super::write::echoed;

/// Fields that mean something to a task; everything else is a loss.
const ANSWERED: [&str; 8] = [
    "model",
    "input",
    "instructions",
    "metadata",
    "previous_response_id",
    "stream",
    "background",
    "store",
];

/// What is asked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Order {
    pub model: String,
    /// The words of the user, and what was said before them.
    pub text: String,
    /// What holds throughout: instructions, and messages of the system and the developer.
    pub rules: Vec<String>,
    pub metadata: Map<String, Value>,
    /// The response that this one goes on from.
    pub previous: Option<String>,
    pub answers: Vec<Answer>,
    pub stream: bool,
    pub background: bool,
    pub unstored: bool,
    /// What a response repeats of its call.
    pub own: Map<String, Value>,
    pub input: Vec<Value>,
    /// What has no meaning here.
    pub losses: Losses,
}

/// An answer to what an earlier response asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To [`Item::Approval`].
    Approval {
        id: String,
        approve: bool,
        reason: String,
    },
    /// To [`Item::Call`].
    Output { id: String, output: String },
}

/// Reads what is asked. The body has been checked to be an object that says everything once.
pub fn order(body: &Value) -> Order {
    let input = input_items(body.get("input").unwrap_or(&Value::Null));
    let flag = |name: &str| body.get(name).and_then(Value::as_bool);
    let mut order = Order {
        model: text(body, "model").to_owned(),
        metadata: body
            .get("metadata")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default(),
        previous: maybe(body, "previous_response_id"),
        stream: flag("stream") == Some(true),
        background: flag("background") == Some(true),
        unstored: flag("store") == Some(false),
        ..Order::default()
    };
    order.rules.extend(maybe(body, "instructions"));
    for item in &input {
        order.item(item);
    }
    for (name, value) in body.as_object().into_iter().flatten() {
        let is_echoed = echoed().iter().any(|(known, _)| known == name);
        if is_echoed {
            order.own.insert(name.clone(), value.clone());
        }
        if !ANSWERED.contains(&name.as_str()) && !value.is_null() {
            order.losses.dropped(name.clone());
        }
    }
    order.input = input;
    order
}

impl Order {
    fn item(&mut self, item: &Value) {
        match text(item, "type") {
            "" | "message" => self.message(item),
            "mcp_approval_response" => self.answers.push(Answer::Approval {
                id: text(item, "approval_request_id").to_owned(),
                approve: item.get("approve").and_then(Value::as_bool) == Some(true),
                reason: text(item, "reason").to_owned(),
            }),
            "function_call_output" => {
                let output = item.get("output").cloned().unwrap_or_default();
                let output = output
                    .as_str()
                    .map_or_else(|| output.to_string(), str::to_owned);
                let id = text(item, "call_id").to_owned();
                self.answers.push(Answer::Output { id, output });
            }
            // What an earlier response said stands in its task's own log.
            "mcp_approval_request" | "function_call" | "item_reference" => {}
            other => self.losses.dropped(format!("input.{other}")),
        }
    }

    fn message(&mut self, item: &Value) {
        let mut said = String::new();
        match item.get("content") {
            Some(Value::String(text)) => said.push_str(text),
            Some(Value::Array(parts)) => {
                for part in parts {
                    match text(part, "type") {
                        "input_text" | "output_text" | "text" => said.push_str(text(part, "text")),
                        other => self.losses.dropped(format!("input.content.{other}")),
                    }
                }
            }
            _ => {}
        }
        match text(item, "role") {
            "system" | "developer" => self.rules.push(said),
            "assistant" => {
                let before = format!("(An assistant said before: {said})\n");
                self.text.push_str(&before);
            }
            _ => {
                if !self.text.is_empty() {
                    self.text.push('\n');
                }
                self.text.push_str(&said);
            }
        }
    }
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    Text(String),
    /// May this happen? Answered by yes or no.
    Approval {
        id: String,
        server: String,
        name: String,
        arguments: String,
    },
    /// A question whose answer is a text.
    Call {
        id: String,
        name: String,
        arguments: String,
    },
}

/// A response as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Made<'a> {
    pub id: &'a str,
    pub created_s: i64,
    pub model: &'a str,
    /// `queued`, `in_progress`, `completed`, `incomplete`, `failed` or `cancelled`.
    pub status: &'static str,
    /// What it repeats of its call.
    pub own: &'a Map<String, Value>,
    pub items: Vec<Item>,
    /// Why it failed, as a word and in words.
    pub error: Option<(&'static str, String)>,
    /// Why it is incomplete.
    pub reason: Option<String>,
    /// Tokens of prompts and of answers.
    pub tokens: (u64, u64),
}

impl Made<'_> {
    /// The response.
    pub fn whole(&self) -> Value {
        let items = self.items.iter().enumerate();
        let output = items.map(|(place, item)| self.item(place, item));
        self.object(self.status, output.collect())
    }

    fn object(&self, status: &str, output: Vec<Value>) -> Value {
        let is_over = !matches!(status, "queued" | "in_progress");
        let error = self.error.as_ref().filter(|_| is_over);
        let error = error.map(|(code, message)| json!({ "code": code, "message": message }));
        let reason = self.reason.as_ref().filter(|_| is_over);
        let mut fields = Map::from_iter([
            ("id".to_owned(), self.id.into()),
            ("object".to_owned(), "response".into()),
            ("created_at".to_owned(), self.created_s.into()),
            ("status".to_owned(), status.into()),
            ("error".to_owned(), json!(error)),
            (
                "incomplete_details".to_owned(),
                json!(reason.map(|reason| json!({ "reason": reason }))),
            ),
            ("model".to_owned(), self.model.into()),
            ("output".to_owned(), output.into()),
        ]);
        for (name, otherwise) in echoed() {
            let said = self.own.get(name).filter(|value| !value.is_null());
            fields.insert(name.to_owned(), said.cloned().unwrap_or(otherwise));
        }
        let (prompt, answer) = self.tokens;
        let usage = json!({
            "input_tokens": prompt,
            "input_tokens_details": { "cached_tokens": 0 },
            "output_tokens": answer,
            "output_tokens_details": { "reasoning_tokens": 0 },
            "total_tokens": prompt.saturating_add(answer),
        });
        let usage = if is_over { usage } else { Value::Null };
        fields.insert("usage".to_owned(), usage);
        Value::Object(fields)
    }

    fn item_id(&self, place: usize) -> String {
        let bare = self.id.trim_start_matches("resp_");
        format!("msg_{bare}_{place}")
    }

    fn item(&self, place: usize, item: &Item) -> Value {
        match item {
            Item::Text(text) => json!({
                "type": "message", "id": self.item_id(place), "status": "completed",
                "role": "assistant", "content": [text_part(text)],
            }),
            Item::Approval {
                id,
                server,
                name,
                arguments,
            } => json!({
                "type": "mcp_approval_request", "id": id, "server_label": server, "name": name,
                "arguments": arguments,
            }),
            Item::Call {
                id,
                name,
                arguments,
            } => json!({
                "type": "function_call", "id": format!("fc_{id}"), "call_id": id, "name": name,
                "arguments": arguments, "status": "completed",
            }),
        }
    }

    /// The events of a response that has just begun, with their numbers from 0.
    pub fn beginning(&self) -> Vec<Value> {
        let begun = |name: &str, status: &str, number: u64| {
            json!({
                "type": name, "response": self.object(status, Vec::new()),
                "sequence_number": number,
            })
        };
        vec![
            begun("response.created", "queued", 0),
            begun("response.in_progress", "in_progress", 1),
        ]
    }

    /// The events behind those, when it is over.
    pub fn end(&self) -> Vec<Value> {
        let mut events = Vec::new();
        for (place, item) in self.items.iter().enumerate() {
            self.events_of(place, item, &mut events);
        }
        if self.status == "cancelled" {
            events.push(json!({
                "type": "error", "code": "cancelled", "param": null,
                "message": "the response was cancelled",
            }));
        } else {
            let name = format!("response.{}", self.status);
            events.push(json!({ "type": name, "response": self.whole() }));
        }
        for (number, event) in (2_u64..).zip(&mut events) {
            if let Some(fields) = event.as_object_mut() {
                fields.insert("sequence_number".to_owned(), number.into());
            }
        }
        events
    }

    fn events_of(&self, place: usize, item: &Item, events: &mut Vec<Value>) {
        let whole = self.item(place, item);
        let Item::Text(text) = item else {
            for name in ["response.output_item.added", "response.output_item.done"] {
                events.push(json!({ "type": name, "output_index": place, "item": whole }));
            }
            return;
        };
        let at = |name: &str, more: Value| {
            let mut fields = json!({
                "type": name, "item_id": self.item_id(place), "output_index": place,
                "content_index": 0,
            });
            if let (Some(fields), Value::Object(more)) = (fields.as_object_mut(), more) {
                fields.extend(more);
            }
            fields
        };
        let mut empty = whole.clone();
        if let Some(fields) = empty.as_object_mut() {
            fields.insert("status".to_owned(), "in_progress".into());
            fields.insert("content".to_owned(), json!([]));
        }
        events.extend([
            json!({ "type": "response.output_item.added", "output_index": place, "item": empty }),
            at(
                "response.content_part.added",
                json!({ "part": text_part("") }),
            ),
            at(
                "response.output_text.delta",
                json!({ "delta": text, "logprobs": [] }),
            ),
            at(
                "response.output_text.done",
                json!({ "text": text, "logprobs": [] }),
            ),
            at(
                "response.content_part.done",
                json!({ "part": text_part(text) }),
            ),
            json!({ "type": "response.output_item.done", "output_index": place, "item": whole }),
        ]);
    }
}

fn text_part(text: &str) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_task_can_not_follow_is_named() {
        let order = order(&json!({
            "model": "task/review", "background": true, "temperature": 0.1, "tools": [],
            "instructions": "Be brief.", "metadata": { "project": "q4" },
            "input": [
                { "role": "developer", "content": "EU only." },
                { "role": "user", "content": [
                    { "type": "input_text", "text": "Review it." },
                    { "type": "input_image", "image_url": "x" },
                ] },
                { "type": "mcp_approval_response", "approval_request_id": "a", "approve": true },
                { "type": "function_call_output", "call_id": "b", "output": "blue" },
            ],
        }));
        assert_eq!(order.text, "Review it.");
        assert_eq!(order.rules, ["Be brief.", "EU only."]);
        let losses = order.losses.header();
        assert!(losses.contains("temperature") && losses.contains("tools"));
        assert!(losses.contains("input.content.input_image"));
        assert_eq!(
            order.answers,
            [
                Answer::Approval {
                    id: "a".into(),
                    approve: true,
                    reason: String::new()
                },
                Answer::Output {
                    id: "b".into(),
                    output: "blue".into()
                },
            ]
        );
    }

    #[test]
    fn events_are_numbered_and_end_with_the_whole() {
        let own = Map::new();
        let made = Made {
            id: "resp_1",
            created_s: 1,
            model: "task",
            status: "completed",
            own: &own,
            items: vec![Item::Text("Done.".into())],
            error: None,
            reason: None,
            tokens: (3, 4),
        };
        let mut events = made.beginning();
        events.extend(made.end());
        for (number, event) in events.iter().enumerate() {
            assert_eq!(event["sequence_number"], number);
        }
        let last = events.last().expect("events");
        assert_eq!(last["type"], "response.completed");
        assert_eq!(last["response"], made.whole());
        assert_eq!(last["response"]["usage"]["total_tokens"], 7);
        assert_eq!(events[0]["response"]["usage"], Value::Null);
    }
}
