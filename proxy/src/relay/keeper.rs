//! What is remembered of an answer once it is whole: who made its signatures, the turn that a caller
//! can not bring back, and the response that may be asked for later.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use wire::archive::Shelf;
use wire::call::{Kind, Turn};
use wire::dialect::openai_responses::{input_items, item_id};
use wire::reply::Reply;
use wire::{Call, Dialect};

use crate::attempt::Dispatch;
use crate::context::{self, KeptConversation, KeptResponse, Referred, Session, memory};
use crate::gateway::Shared;
use crate::runtime::Target;

/// The memory of one answer under way.
#[derive(Debug)]
pub(super) struct Keeper {
    shared: Arc<Shared>,
    tenant: Arc<str>,
    model: Arc<str>,
    origin: Arc<str>,
    session: Session,
    /// The caller's dialect.
    dialect: &'static dyn Dialect,
    asked: Option<Asked>,
    /// Plain reasoning so far.
    reasoning: String,
}

/// What was asked, where the answer is to be kept.
#[derive(Debug)]
struct Asked {
    body: Bytes,
    /// Items that it only named.
    references: HashMap<String, Referred>,
    previous: String,
    conversation: String,
}

/// A whole answer that is not remembered yet.
#[derive(Debug)]
pub(super) struct Unkept {
    keeper: Keeper,
    answer: Answer,
}

/// The answer as it is looked at.
#[derive(Debug)]
enum Answer {
    Passed(Bytes),
    Translated {
        call: Arc<Call>,
        reply: Box<Reply>,
        whole: Option<Value>,
    },
}

impl Unkept {
    /// An answer that goes to the caller as it came.
    pub(super) fn passed(keeper: Keeper, answer: Bytes) -> Self {
        Self {
            keeper,
            answer: Answer::Passed(answer),
        }
    }

    /// An answer that was translated; `whole` is its object, where the caller's dialect has one.
    pub(super) fn translated(
        keeper: Keeper,
        call: &Arc<Call>,
        reply: Reply,
        whole: Option<Value>,
    ) -> Self {
        Self {
            keeper,
            answer: Answer::Translated {
                call: Arc::clone(call),
                reply: Box::new(reply),
                whole,
            },
        }
    }

    /// Remembers it: it is given to the caller.
    pub(super) fn keep(mut self) {
        match &self.answer {
            Answer::Passed(answer) => self.keeper.passed(answer, true),
            Answer::Translated { call, reply, whole } => {
                self.keeper.translated(call, reply, whole.as_ref());
            }
        }
    }
}

impl Asked {
    /// What was asked, as items, those written out that it only named.
    fn input(&self) -> Vec<Value> {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let items = input_items(body.get("input").unwrap_or(&Value::Null));
        let written_out = |item: Value| context::written_out(item, &self.references);
        items.into_iter().map(written_out).collect()
    }
}

impl Keeper {
    pub(super) fn new(call: &Dispatch<'_>, target: &Target) -> Self {
        let inbound = call.inbound;
        let keeps = inbound.dialect.name() == wire::dialect::OPENAI_RESPONSES.name()
            && !inbound.scan.is_unstored;
        let asked = keeps.then(|| Asked {
            body: inbound.body.clone(),
            references: call.context.references.clone(),
            previous: inbound.scan.previous.clone(),
            conversation: inbound.scan.conversation.clone(),
        });
        Self {
            shared: Arc::clone(call.shared),
            tenant: Arc::clone(&call.subject.tenant),
            model: Arc::clone(&target.name),
            origin: Arc::clone(&target.endpoint.origin),
            session: call.context.session,
            dialect: inbound.dialect,
            reasoning: String::new(),
            asked,
        }
    }

    /// Looks at a piece of an answer that goes to the caller as it came: an event, or all of it.
    pub(super) fn passed(&mut self, piece: &[u8], is_last: bool) {
        for seal in self.dialect.seals(piece) {
            if self.dialect.carries_seals() {
                self.keep_seal(&seal, &self.origin);
            } else {
                // Plain reasoning comes in pieces, and goes back as one text.
                self.reasoning.push_str(&seal);
            }
        }
        if is_last {
            if !self.reasoning.is_empty() {
                self.keep_seal(&self.reasoning, &self.origin);
            }
            if self.asked.is_some()
                && let Some(response) = self.dialect.kept(piece)
            {
                let origin = self.origin.to_string();
                self.keep(response, origin);
            }
            self.answered();
        }
    }

    /// Looks at an answer that was translated for the caller; `whole` is its object, where the
    /// caller's dialect has one.
    pub(super) fn translated(&mut self, call: &Call, reply: &Reply, whole: Option<&Value>) {
        let turn = reply.turn();
        // Only callers that bring nothing private back need this; the others carry envelopes.
        if turn.is_sealed() && !self.dialect.carries_seals() {
            let turns = call.turns.iter().chain([&turn]);
            let whole = turns.fold(memory::no_transcript(&self.tenant), memory::transcript);
            self.keep_reasoning(&turn);
            self.shared.memory.keep_turn(&self.tenant, whole, turn);
        }
        if let Some(response) = whole {
            self.keep(response.clone(), String::new());
        }
        self.answered();
    }

    /// The caller sees reasoning as plain text and may send it back to anybody: remembered by its
    /// text, it goes to its origin alone.
    fn keep_reasoning(&self, turn: &Turn) {
        let (mut text, mut origin) = (String::new(), None);
        for part in &turn.parts {
            if let Kind::Thinking(thinking) = &part.kind {
                text.push_str(&thinking.text);
                origin = thinking.seal.as_ref().and_then(|seal| seal.origin.clone());
            }
        }
        if let (false, Some(origin)) = (text.is_empty(), origin) {
            // As a seal of another dialect it fits no endpoint of this one, its own origin's neither.
            self.keep_seal(&text, &Arc::from(format!("{origin} in another dialect")));
        }
    }

    fn keep_seal(&self, seal: &str, origin: &Arc<str>) {
        self.shared.memory.keep_seal(&self.tenant, seal, origin);
    }

    fn answered(&self) {
        self.shared.sessions.answered(self.session, &self.model);
    }

    fn keep(&mut self, response: Value, origin: String) {
        let Some(asked) = self.asked.take() else {
            return;
        };
        let id = response
            .get("id")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        let output = response
            .get("output")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let input = asked.input();
        for (place, item) in output.iter().enumerate() {
            let referred = Referred {
                item: item.clone(),
                origin: origin.clone(),
            };
            self.put(Shelf::Item, &item_id(item, &id, place), &referred);
        }
        if !asked.conversation.is_empty() {
            self.append(&asked.conversation, input.iter().chain(&output), &id);
        }
        let session = self.session.key;
        let kept = KeptResponse {
            response,
            input,
            previous: asked.previous,
            origin,
            session,
            twin: String::new(),
        };
        self.put(Shelf::Response, &id, &kept);
    }

    /// Adds what was asked and answered to the conversation, which lies at hand, because the call was
    /// built on it: whoever has the answer finds it there.
    fn append<'a>(&self, id: &str, items: impl Iterator<Item = &'a Value>, owner: &str) {
        let mut items: Vec<Value> = items.cloned().collect();
        for (place, item) in items.iter_mut().enumerate() {
            let id = item_id(item, owner, place);
            if let Some(item) = item.as_object_mut() {
                item.insert("id".to_owned(), id.into());
            }
        }
        let place = context::place(Shelf::Conversation, &self.tenant, id);
        let add = move |text: &str| {
            let mut kept: KeptConversation = serde_json::from_str(text).ok()?;
            kept.items.extend(items.iter().cloned());
            serde_json::to_string(&kept).ok()
        };
        if self.shared.memory.update_at_hand(&place, &add).is_some() {
            return;
        }
        // Many other conversations went by meanwhile: it must be read again.
        let shared = Arc::clone(&self.shared);
        self.shared.tasks.spawn(async move {
            let id = place.id.clone();
            if !shared.memory.update(place, add).await {
                tracing::warn!(conversation = id, "a turn was not added: it was deleted");
            }
        });
    }

    fn put(&self, shelf: Shelf, id: &str, value: &impl serde::Serialize) {
        if let Ok(text) = serde_json::to_string(value) {
            self.shared
                .memory
                .put(context::place(shelf, &self.tenant, id), Some(text));
        }
    }
}
