//! The responses that this endpoint made and keeps, so that later calls can name them and their items.

use std::borrow::Cow;
use std::collections::VecDeque;

use serde_json::{Value, json};

use super::request::items;

/// As many as a test can need; the oldest go first.
const MOST: usize = 1_000;

/// The responses kept, the latest last.
#[derive(Debug, Default)]
pub(super) struct Kept {
    responses: VecDeque<Response>,
}

#[derive(Debug)]
struct Response {
    id: String,
    /// All that went before it.
    input: Vec<Value>,
    output: Vec<Value>,
}

/// A request that refers to what is kept, with that in its place.
#[derive(Debug)]
pub(super) struct Expanded {
    pub(super) request: Value,
    /// Something it names that is not kept.
    pub(super) missing: Option<String>,
}

impl Kept {
    pub(super) fn keep(&mut self, id: String, input: &Value, output: Vec<Value>) {
        if self.responses.len() == MOST {
            self.responses.pop_front();
        }
        let input = listed(input).map(Cow::into_owned).collect();
        self.responses.push_back(Response { id, input, output });
    }

    pub(super) fn len(&self) -> usize {
        self.responses.len()
    }

    /// Deletes a response; `false` where it is not kept.
    pub(super) fn delete(&mut self, id: &str) -> bool {
        let before = self.responses.len();
        self.responses.retain(|kept| kept.id != id);
        self.responses.len() < before
    }

    /// An item that this endpoint made.
    pub(super) fn item(&self, id: &str) -> Option<&Value> {
        let mut outputs = self.responses.iter().rev().flat_map(|kept| &kept.output);
        outputs.find(|item| item["id"] == id)
    }

    /// `request` with its context before its own input; nothing where it refers to none.
    pub(super) fn expand(&self, request: &Value) -> Option<Expanded> {
        let previous = request["previous_response_id"].as_str();
        if previous.is_none() && !items(&request["input"]).iter().any(refers) {
            return None;
        }
        let mut missing = None;
        let mut input = Vec::new();
        if let Some(id) = previous {
            match self.responses.iter().rev().find(|kept| kept.id == id) {
                Some(kept) => input.extend(kept.input.iter().chain(&kept.output).cloned()),
                None => missing = Some(format!("the response `{id}` is not from here")),
            }
        }
        for item in listed(&request["input"]) {
            let id = item["id"].as_str().unwrap_or_default();
            if !refers(&item) {
                input.push(item.into_owned());
            } else if let Some(made) = self.item(id) {
                input.push(made.clone());
            } else {
                missing = Some(format!("the item `{id}` is not from here"));
            }
        }
        let mut request = request.clone();
        request["input"] = input.into();
        Some(Expanded { request, missing })
    }
}

/// An input as a list of items: a text is a message of the user.
fn listed(input: &Value) -> impl Iterator<Item = Cow<'_, Value>> {
    let said = input.as_str().map(|text| {
        let message = json!({ "type": "message", "role": "user", "content": text });
        Cow::Owned(message)
    });
    said.into_iter()
        .chain(items(input).iter().map(Cow::Borrowed))
}

/// The item only names another; its type may be left out.
fn refers(item: &Value) -> bool {
    let only_names = item["type"].is_null() && item["role"].is_null() && item["id"].is_string();
    item["type"] == "item_reference" || only_names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_context_of_a_kept_response_comes_before_the_input() {
        let mut kept = Kept::default();
        let told = json!({ "id": "msg_1" });
        kept.keep("resp_1".into(), &json!("Hello"), vec![told.clone()]);
        let says = |text: &str| json!({ "type": "message", "role": "user", "content": text });
        let request = json!({ "previous_response_id": "resp_1", "input": "Hi" });
        let expanded = kept.expand(&request).unwrap();
        let wanted = json!([says("Hello"), told, says("Hi")]);
        assert_eq!(expanded.request["input"], wanted);
        assert_eq!(expanded.missing, None);
        let named = json!({ "input": [{ "type": "item_reference", "id": "msg_1" }] });
        let expanded = kept.expand(&named).unwrap();
        assert_eq!(expanded.request["input"], json!([told]));
    }

    #[test]
    fn what_is_not_kept_is_told() {
        let kept = Kept::default();
        let request = json!({ "previous_response_id": "resp_9", "input": "Hi" });
        assert!(kept.expand(&request).unwrap().missing.is_some());
        let named = json!({ "input": [{ "type": "item_reference", "id": "msg_9" }] });
        assert!(kept.expand(&named).unwrap().missing.is_some());
        let plain = json!({ "input": [{ "role": "user", "content": "Hi" }] });
        assert!(kept.expand(&plain).is_none(), "it refers to nothing");
    }

    #[test]
    fn the_oldest_goes_first() {
        let mut kept = Kept::default();
        for number in 0..=MOST {
            kept.keep(format!("resp_{number}"), &Value::Null, Vec::new());
        }
        assert_eq!(kept.responses.len(), MOST);
        assert_eq!(kept.responses[0].id, "resp_1");
    }
}
