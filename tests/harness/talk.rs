//! A conversation as a client of one dialect holds it: what it was told it sends back, and nothing more.

use serde_json::{Value, json};

use crate::{Client, Reply};

/// The dialect that a conversation is held in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tongue {
    Chat,
    Responses,
    Messages,
}

impl Tongue {
    pub const ALL: [Self; 3] = [Self::Chat, Self::Responses, Self::Messages];

    pub fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Responses => "/v1/responses",
            Self::Messages => "/v1/messages",
        }
    }

    /// The field that bounds the answer.
    pub fn cap_field(self) -> &'static str {
        match self {
            Self::Chat => "max_completion_tokens",
            Self::Responses => "max_output_tokens",
            Self::Messages => "max_tokens",
        }
    }
}

/// A conversation under way.
#[derive(Debug, Clone)]
pub struct Talk {
    pub tongue: Tongue,
    /// The transcript, in the dialect's own form.
    pub items: Vec<Value>,
    pub system: String,
    /// Offer the tool `note`, and ask for thinking.
    pub works: bool,
    /// Send plain reasoning back, as some clients of the chat dialect do.
    pub echoes: bool,
}

/// A call of a tool: id, name, arguments.
pub type Called = (String, String, Value);

impl Talk {
    /// A conversation with a tool and thinking.
    pub fn working(tongue: Tongue, system: &str) -> Self {
        Self {
            tongue,
            items: Vec::new(),
            system: system.to_owned(),
            works: true,
            echoes: false,
        }
    }

    /// A conversation of words.
    pub fn plain(tongue: Tongue, system: &str) -> Self {
        Self {
            works: false,
            ..Self::working(tongue, system)
        }
    }

    /// Adds what somebody said.
    pub fn say(&mut self, role: &str, text: &str) {
        self.items.push(json!({ "role": role, "content": text }));
    }

    /// Adds the results of tools.
    pub fn results(&mut self, results: &[(String, String)]) {
        let blocks = results.iter().map(|(id, text)| match self.tongue {
            Tongue::Chat => json!({ "role": "tool", "tool_call_id": id, "content": text }),
            Tongue::Responses => {
                json!({ "type": "function_call_output", "call_id": id, "output": text })
            }
            Tongue::Messages => {
                json!({ "type": "tool_result", "tool_use_id": id, "content": text })
            }
        });
        let blocks: Vec<Value> = blocks.collect();
        if self.tongue == Tongue::Messages {
            self.items
                .push(json!({ "role": "user", "content": blocks }));
        } else {
            self.items.extend(blocks);
        }
    }

    /// The body that asks `model` to go on.
    pub fn body(&self, model: &str) -> Value {
        let schema = json!({ "type": "object", "properties": { "text": { "type": "string" } }, "required": ["text"] });
        let mut body = json!({ "model": model });
        match self.tongue {
            Tongue::Chat => {
                let mut messages = vec![json!({ "role": "system", "content": self.system })];
                messages.extend(self.items.iter().cloned());
                body["messages"] = messages.into();
                if self.works {
                    body["reasoning_effort"] = "low".into();
                    body["tools"] = json!([{ "type": "function", "function": { "name": "note", "parameters": schema } }]);
                }
            }
            Tongue::Responses => {
                body["instructions"] = self.system.clone().into();
                body["input"] = self.items.clone().into();
                body["store"] = false.into();
                if self.works {
                    body["reasoning"] = json!({ "effort": "low", "summary": "auto" });
                    body["include"] = json!(["reasoning.encrypted_content"]);
                    body["tools"] =
                        json!([{ "type": "function", "name": "note", "parameters": schema }]);
                }
            }
            Tongue::Messages => {
                body["system"] = self.system.clone().into();
                body["messages"] = self.items.clone().into();
                body["max_tokens"] = 4_096.into();
                if self.works {
                    body["thinking"] = json!({ "type": "enabled", "budget_tokens": 1_024 });
                    body["tools"] = json!([{ "name": "note", "input_schema": schema }]);
                }
            }
        }
        body
    }

    /// Asks `model`, takes its answer into the transcript, and returns its words and calls.
    pub async fn ask(&mut self, client: &Client, model: &str) -> (Reply, String, Vec<Called>) {
        let reply = client
            .post(self.tongue.path(), self.body(model).to_string())
            .await;
        assert_eq!(reply.status, 200, "{model}: {}", reply.text());
        let answer = reply.json();
        let (mut said, mut calls) = (String::new(), Vec::new());
        let mut take = |id: &Value, name: &Value, arguments: Value| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            calls.push((text(id), text(name), arguments));
        };
        let parsed = |value: &Value| serde_json::from_str(value.as_str().unwrap()).unwrap();
        match self.tongue {
            Tongue::Chat => {
                let message = &answer["choices"][0]["message"];
                said.push_str(message["content"].as_str().unwrap_or_default());
                for call in message["tool_calls"].as_array().into_iter().flatten() {
                    take(
                        &call["id"],
                        &call["function"]["name"],
                        parsed(&call["function"]["arguments"]),
                    );
                }
                let mut kept = json!({ "role": "assistant", "content": message["content"] });
                if !message["tool_calls"].is_null() {
                    kept["tool_calls"] = message["tool_calls"].clone();
                }
                if self.echoes && !message["reasoning_content"].is_null() {
                    kept["reasoning_content"] = message["reasoning_content"].clone();
                }
                self.items.push(kept);
            }
            Tongue::Responses => {
                for item in answer["output"].as_array().unwrap() {
                    match item["type"].as_str().unwrap() {
                        "function_call" => {
                            take(&item["call_id"], &item["name"], parsed(&item["arguments"]))
                        }
                        "message" => said.push_str(item["content"][0]["text"].as_str().unwrap()),
                        _ => {}
                    }
                    self.items.push(item.clone());
                }
            }
            Tongue::Messages => {
                for block in answer["content"].as_array().unwrap() {
                    match block["type"].as_str().unwrap() {
                        "tool_use" => take(&block["id"], &block["name"], block["input"].clone()),
                        "text" => said.push_str(block["text"].as_str().unwrap()),
                        _ => {}
                    }
                }
                self.items
                    .push(json!({ "role": "assistant", "content": answer["content"] }));
            }
        }
        (reply, said, calls)
    }
}
