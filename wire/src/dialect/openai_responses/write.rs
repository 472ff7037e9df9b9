//! Canonical answers as OpenAI Responses: whole and as events.

use serde_json::{Map, Value, json};

use crate::Usage;
use crate::call::{Citation, Seal};
use crate::dialect::fields::put;
use crate::dialect::{Asked, Writer};
use crate::loss::Losses;
use crate::reply::{Event, Opening, Reply, Stop};
use crate::sse;

use super::NAME;
use super::items::{annotations, response_id};

/// What a response repeats of its call, and what stands there where the call says nothing.
pub(super) fn echoed() -> [(&'static str, Value); 19] {
    [
        ("background", false.into()),
        ("conversation", Value::Null),
        ("instructions", Value::Null),
        ("max_output_tokens", Value::Null),
        ("max_tool_calls", Value::Null),
        ("metadata", json!({})),
        ("parallel_tool_calls", true.into()),
        ("previous_response_id", Value::Null),
        ("prompt_cache_key", Value::Null),
        ("reasoning", json!({ "effort": null, "summary": null })),
        ("safety_identifier", Value::Null),
        ("store", true.into()),
        ("temperature", json!(1.0)),
        ("text", json!({ "format": { "type": "text" } })),
        ("tool_choice", "auto".into()),
        ("tools", json!([])),
        ("top_p", json!(1.0)),
        ("truncation", "disabled".into()),
        ("user", Value::Null),
    ]
}

/// A response that has not begun to answer: `queued` or `in_progress`.
pub fn pending(asked: &Asked, status: &str) -> Value {
    object(asked, &asked.call.model, status, Vec::new(), None)
}

fn object(
    asked: &Asked,
    model: &str,
    status: &str,
    output: Vec<Value>,
    usage: Option<&Usage>,
) -> Value {
    let mut fields = Map::new();
    put(&mut fields, "id", Some(response_id(asked.request)));
    put(&mut fields, "object", Some("response"));
    put(&mut fields, "created_at", Some(asked.created_s));
    put(&mut fields, "status", Some(status));
    put(&mut fields, "error", Some(Value::Null));
    put(&mut fields, "incomplete_details", Some(Value::Null));
    put(&mut fields, "model", Some(model));
    put(&mut fields, "output", Some(output));
    let own = if asked.call.dialect == NAME {
        Some(&asked.call.own)
    } else {
        None
    };
    for (name, otherwise) in echoed() {
        let said = own
            .and_then(|own| own.get(name))
            .filter(|value| !value.is_null());
        let said = said.map(|said| match said {
            // Callers may name it by its id alone.
            Value::String(id) if name == "conversation" => json!({ "id": id }),
            said => said.clone(),
        });
        put(&mut fields, name, Some(said.unwrap_or(otherwise)));
    }
    put(
        &mut fields,
        "usage",
        Some(usage.map_or(Value::Null, usage_value)),
    );
    Value::Object(fields)
}

fn usage_value(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.prompt(),
        "input_tokens_details": { "cached_tokens": usage.cache_read },
        "output_tokens": usage.answer(),
        "output_tokens_details": { "reasoning_tokens": usage.reasoning },
        "total_tokens": usage.prompt().saturating_add(usage.answer()),
    })
}

/// Writes a whole answer for the caller: what its stream would have ended with.
pub(super) fn encode(reply: &Reply, asked: &Asked, losses: &mut Losses) -> Value {
    let mut writer = ResponsesWriter::new(asked.clone());
    let mut unsent = String::new();
    for event in reply.clone().events() {
        writer.event(event, &mut unsent);
        unsent.clear();
    }
    losses.append(writer.losses);
    writer.whole.unwrap_or_default()
}

/// An event about the open item: its name, the index it carries, and its fields.
type Closing = (&'static str, Option<&'static str>, Value);

/// Writes a stream of this dialect.
#[derive(Debug)]
pub(super) struct ResponsesWriter {
    asked: Asked,
    model: String,
    sequence: u64,
    output: Vec<Value>,
    open: Option<Opening>,
    /// The last item, of which it is not known yet whether the answer was cut in it.
    last: Option<Value>,
    grown: String,
    logprobs: Vec<Value>,
    /// A part inside the open item has been announced.
    has_part: bool,
    refused: bool,
    stop: Option<Stop>,
    usage: Option<Usage>,
    whole: Option<Value>,
    losses: Losses,
}

impl ResponsesWriter {
    pub(super) fn new(asked: Asked) -> Self {
        Self {
            asked,
            model: String::new(),
            sequence: 0,
            output: Vec::new(),
            open: None,
            last: None,
            grown: String::new(),
            logprobs: Vec::new(),
            has_part: false,
            refused: false,
            stop: None,
            usage: None,
            whole: None,
            losses: Losses::default(),
        }
    }

    fn put(&mut self, name: &str, fields: Value, out: &mut String) {
        let mut data = Map::from_iter([("type".to_owned(), Value::from(name))]);
        if let Value::Object(fields) = fields {
            data.extend(fields);
        }
        data.insert("sequence_number".to_owned(), self.sequence.into());
        self.sequence += 1;
        let data = Value::Object(data);
        sse::write(out, Some(name), &data);
    }

    /// The id of the open item.
    fn item_id(&self) -> String {
        let prefix = match self.open {
            Some(Opening::Thinking) => "rs_",
            Some(Opening::ToolCall { custom: true, .. }) => "ctc_",
            Some(Opening::ToolCall { .. }) => "fc_",
            _ => "msg_",
        };
        format!("{}{:02x}", self.asked.message_id(prefix), self.output.len())
    }

    /// An event about the open item: where it stands comes first.
    fn put_at(&mut self, name: &str, index: Option<&str>, fields: Value, out: &mut String) {
        let mut all = Map::new();
        put(&mut all, "item_id", Some(self.item_id()));
        put(&mut all, "output_index", Some(self.output.len()));
        put(&mut all, index.unwrap_or_default(), index.map(|_| 0));
        if let Value::Object(fields) = fields {
            all.extend(fields);
        }
        self.put(name, Value::Object(all), out);
    }

    fn opening(&mut self, opening: Opening, out: &mut String) {
        self.open = Some(opening);
        self.grown.clear();
        self.logprobs.clear();
        self.has_part = false;
        self.refused |= self.open == Some(Opening::Refusal);
        let (item, part) = match &self.open {
            Some(Opening::Text) => {
                let part =
                    json!({ "type": "output_text", "text": "", "annotations": [], "logprobs": [] });
                (
                    self.item("in_progress", None, &[]),
                    Some(("response.content_part.added", "content_index", part)),
                )
            }
            Some(Opening::Refusal) => {
                let part = json!({ "type": "refusal", "refusal": "" });
                (
                    self.item("in_progress", None, &[]),
                    Some(("response.content_part.added", "content_index", part)),
                )
            }
            Some(Opening::Own(own)) if own.dialect != NAME => {
                self.losses.dropped(own.name.clone());
                self.open = None;
                return;
            }
            _ => (self.item("in_progress", None, &[]), None),
        };
        let index = self.output.len();
        self.put(
            "response.output_item.added",
            json!({ "output_index": index, "item": item }),
            out,
        );
        if let Some((name, place, part)) = part {
            self.put_at(name, Some(place), json!({ "part": part }), out);
        }
    }

    /// The open item as it stands now.
    fn item(&self, status: &str, seal: Option<&Seal>, cited: &[Value]) -> Value {
        let begun = !self.grown.is_empty() || status == "completed";
        let content = |part: Value| if begun { vec![part] } else { Vec::new() };
        match &self.open {
            Some(Opening::ToolCall { id, name, custom }) => {
                let (group, name) = self.called(name);
                let (kind, input) = if *custom {
                    ("custom_tool_call", "input")
                } else {
                    ("function_call", "arguments")
                };
                let mut item = Map::new();
                put(&mut item, "type", Some(kind));
                put(&mut item, "id", Some(self.item_id()));
                put(&mut item, "call_id", Some(id.clone()));
                put(&mut item, "namespace", group);
                put(&mut item, "name", Some(name));
                put(&mut item, input, Some(self.grown.clone()));
                put(&mut item, "status", Some(status));
                Value::Object(item)
            }
            Some(Opening::Thinking) => {
                // Hidden reasoning has no summary.
                let part = json!({ "type": "summary_text", "text": self.grown });
                let summary = Some(part).filter(|_| !self.grown.is_empty());
                let summary: Vec<Value> = summary.into_iter().collect();
                let mut item =
                    json!({ "type": "reasoning", "id": self.item_id(), "summary": summary });
                if let (Some(seal), Some(item)) = (seal, item.as_object_mut()) {
                    item.insert("encrypted_content".to_owned(), seal.envelope().into());
                }
                item
            }
            Some(Opening::Own(own)) => own.value.clone(),
            Some(Opening::Refusal) => self.message(
                status,
                &content(json!({ "type": "refusal", "refusal": self.grown })),
            ),
            Some(Opening::Text) | None => self.message(status, &content(self.text_part(cited))),
        }
    }

    /// The group of the tool called `name`, and its name there.
    fn called<'a>(&'a self, name: &'a str) -> (Option<&'a str>, &'a str) {
        let tool = self.asked.call.tool(name);
        let group = tool.and_then(|tool| tool.group.as_deref());
        match group.and_then(|group| name.strip_prefix(group)?.strip_prefix("__")) {
            Some(bare) => (group, bare),
            None => (None, name),
        }
    }

    fn message(&self, status: &str, content: &[Value]) -> Value {
        json!({ "type": "message", "id": self.item_id(), "status": status, "role": "assistant", "content": content })
    }

    fn text_part(&self, cited: &[Value]) -> Value {
        json!({ "type": "output_text", "text": self.grown, "annotations": cited, "logprobs": self.logprobs })
    }

    fn piece(&mut self, piece: &str, out: &mut String) {
        self.grown.push_str(piece);
        if self.open == Some(Opening::Thinking) && !self.has_part {
            self.has_part = true;
            let part = json!({ "part": { "type": "summary_text", "text": "" } });
            let name = "response.reasoning_summary_part.added";
            self.put_at(name, Some("summary_index"), part, out);
        }
        let (name, place) = match self.open {
            Some(Opening::Text) => {
                let delta = json!({ "delta": piece, "logprobs": [] });
                return self.put_at(
                    "response.output_text.delta",
                    Some("content_index"),
                    delta,
                    out,
                );
            }
            Some(Opening::Refusal) => ("response.refusal.delta", Some("content_index")),
            Some(Opening::Thinking) => (
                "response.reasoning_summary_text.delta",
                Some("summary_index"),
            ),
            Some(Opening::ToolCall { custom: true, .. }) => {
                ("response.custom_tool_call_input.delta", None)
            }
            Some(Opening::ToolCall { .. }) => ("response.function_call_arguments.delta", None),
            Some(Opening::Own(_)) | None => return,
        };
        self.put_at(name, place, json!({ "delta": piece }), out);
    }

    fn close(&mut self, seal: Option<&Seal>, citations: &[Citation], out: &mut String) {
        let Some(open) = self.open.clone() else {
            return;
        };
        // A call that the token limit cut must not pass for a whole one.
        let is_json_call = matches!(open, Opening::ToolCall { custom: false, .. });
        let is_cut = is_json_call && serde_json::from_str::<Value>(&self.grown).is_err();
        let status = if is_cut { "incomplete" } else { "completed" };
        let cited = annotations(citations, &self.grown, &mut self.losses);
        for (name, place, fields) in self.closing(&open, &cited) {
            self.put_at(name, place, fields, out);
        }
        let item = self.item(status, seal, &cited);
        let may_be_cut = !is_json_call && item.get("status").is_some();
        self.last = Some(item);
        self.open = None;
        if !may_be_cut {
            self.settle(None, out);
        }
    }

    /// The last item is done, with another status where there is one.
    fn settle(&mut self, status: Option<&str>, out: &mut String) {
        let Some(mut item) = self.last.take() else {
            return;
        };
        if let (Some(status), Some(item)) = (status, item.as_object_mut()) {
            item.insert("status".to_owned(), status.into());
        }
        let done = json!({ "output_index": self.output.len(), "item": item });
        self.put("response.output_item.done", done, out);
        self.output.push(item);
    }

    /// Why the answer is not whole, where it is not.
    fn reason(&self) -> Option<&'static str> {
        match self.stop {
            Some(Stop::Length | Stop::Window) => Some("max_output_tokens"),
            Some(Stop::Filter) => Some("content_filter"),
            // Without a refusal in so many words, only this tells that the answer is none.
            Some(Stop::Refusal) if !self.refused => Some("content_filter"),
            _ => None,
        }
    }

    /// The events that close the open part, before its item is done.
    fn closing(&self, open: &Opening, cited: &[Value]) -> Vec<Closing> {
        const CONTENT: Option<&str> = Some("content_index");
        const SUMMARY: Option<&str> = Some("summary_index");
        let whole = &self.grown;
        match open {
            Opening::Text => {
                let text = json!({ "text": whole, "logprobs": self.logprobs });
                let mut events = vec![("response.output_text.done", CONTENT, text)];
                for (index, annotation) in cited.iter().enumerate() {
                    let fields = json!({ "annotation_index": index, "annotation": annotation });
                    events.push(("response.output_text.annotation.added", CONTENT, fields));
                }
                let part = json!({ "part": self.text_part(cited) });
                events.push(("response.content_part.done", CONTENT, part));
                events
            }
            Opening::Refusal => {
                let part = json!({ "part": { "type": "refusal", "refusal": whole } });
                vec![
                    (
                        "response.refusal.done",
                        CONTENT,
                        json!({ "refusal": whole }),
                    ),
                    ("response.content_part.done", CONTENT, part),
                ]
            }
            Opening::Thinking if whole.is_empty() => Vec::new(),
            Opening::Thinking => {
                let part = json!({ "part": { "type": "summary_text", "text": whole } });
                vec![
                    (
                        "response.reasoning_summary_text.done",
                        SUMMARY,
                        json!({ "text": whole }),
                    ),
                    ("response.reasoning_summary_part.done", SUMMARY, part),
                ]
            }
            Opening::ToolCall { custom: true, .. } => {
                vec![(
                    "response.custom_tool_call_input.done",
                    None,
                    json!({ "input": whole }),
                )]
            }
            Opening::ToolCall { name, .. } => {
                let (_, name) = self.called(name);
                let fields = json!({ "name": name, "arguments": whole });
                vec![("response.function_call_arguments.done", None, fields)]
            }
            Opening::Own(_) => Vec::new(),
        }
    }

    fn end(&mut self, out: &mut String) {
        self.settle(None, out);
        let reason = self.reason();
        let status = if reason.is_some() {
            "incomplete"
        } else {
            "completed"
        };
        let usage = self.usage.unwrap_or_default();
        let mut response = object(
            &self.asked,
            &self.model,
            status,
            self.output.clone(),
            Some(&usage),
        );
        if let (Some(reason), Some(response)) = (reason, response.as_object_mut()) {
            response.insert("incomplete_details".to_owned(), json!({ "reason": reason }));
        }
        self.put(
            &format!("response.{status}"),
            json!({ "response": response }),
            out,
        );
        self.whole = Some(response);
    }
}

impl Writer for ResponsesWriter {
    fn event(&mut self, event: Event, out: &mut String) {
        match event {
            Event::Begin { model, .. } => {
                self.model = model;
                let response = object(&self.asked, &self.model, "in_progress", Vec::new(), None);
                self.put("response.created", json!({ "response": response }), out);
                self.put("response.in_progress", json!({ "response": response }), out);
            }
            Event::Open(opening) => {
                self.settle(None, out);
                self.opening(opening, out);
            }
            Event::Piece(piece) => self.piece(&piece, out),
            Event::Logprobs(more) => self.logprobs.extend(more),
            Event::Close { seal, citations } => self.close(seal.as_ref(), &citations, out),
            Event::Stop(stop) => {
                self.stop = Some(stop);
                self.settle(self.reason().map(|_| "incomplete"), out);
            }
            Event::Usage(usage) => self.usage = Some(usage),
            Event::End => self.end(out),
            Event::Failed(_) => self.settle(None, out),
        }
    }

    fn losses(&self) -> &Losses {
        &self.losses
    }

    fn whole(&self) -> Option<&Value> {
        self.whole.as_ref()
    }
}
