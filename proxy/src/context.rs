//! What a call belongs to: its session, what came before it, and the private parts kept for it.

pub(crate) mod fit;
pub(crate) mod memory;
mod recent;
mod sessions;
pub(crate) mod summary;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use meter::Subject;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use wire::archive::{Place, Shelf};
use wire::call::{Call, Kind, Part, Role};
use wire::dialect::DecodeError;
use wire::dialect::openai_responses::{input_items, reference, total_tokens, with_input};
use wire::{Dialect, Refusal, Scan};

use crate::gateway::Shared;
use crate::intake::Inbound;
use crate::refusal;

pub(crate) use memory::Memory;
pub(crate) use sessions::{Session, Sessions};

/// Responses that one call may go back through; a chain longer than that is a loop.
const LONGEST_CHAIN: usize = 1_000;

/// What is known of a call beyond its own words.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) session: Session,
    /// What came before, where the caller sent an id instead of it.
    pub(crate) earlier: Earlier,
    /// Who made the private parts that came with the transcript; `None` for those nobody here has seen.
    origins: Vec<Option<Arc<str>>>,
    /// Items that the call names instead of writing them out.
    pub(crate) references: HashMap<String, Referred>,
    /// Bytes of prompt that do not stand in the call: what is named by id, as often as it is named.
    bytes_elsewhere: usize,
    /// It belongs to a conversation that is kept here.
    conversation: bool,
    /// Some of them travel in envelopes of ours, which no upstream can read.
    has_envelopes: bool,
}

/// An item that a call names, and who else has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Referred {
    pub(crate) item: Value,
    /// The upstream that knows it by this id; empty where none does.
    pub(crate) origin: String,
}

/// What came before a call that names an earlier response or a conversation.
#[derive(Debug, Default)]
pub(crate) struct Earlier {
    pub(crate) items: Vec<Value>,
    /// The origin that has all of it too, if it is one that keeps responses.
    origin: Option<String>,
    session: Option<u64>,
    bytes: usize,
    /// What its last response used in all: hidden reasoning that it kept is paid for again.
    tokens: usize,
}

/// A response as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct KeptResponse {
    pub(crate) response: Value,
    /// What was asked, without what came before.
    pub(crate) input: Vec<Value>,
    /// The response before it; empty where there is none.
    pub(crate) previous: String,
    /// The upstream that keeps it as well; empty where it was translated.
    pub(crate) origin: String,
    pub(crate) session: u64,
    /// The id its upstream gave it, where the caller was given another; empty where not.
    #[serde(default)]
    pub(crate) twin: String,
}

/// A conversation as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct KeptConversation {
    pub(crate) created_s: i64,
    pub(crate) metadata: Value,
    pub(crate) items: Vec<Value>,
}

/// Where a document of the tenant stands.
pub(crate) fn place(shelf: Shelf, tenant: &str, id: &str) -> Place {
    Place {
        shelf,
        tenant: tenant.to_owned(),
        id: id.to_owned(),
    }
}

impl Shared {
    /// Finds out what a call belongs to.
    pub(crate) async fn recall(
        &self,
        subject: &Subject,
        inbound: &Inbound,
    ) -> Result<Context, Refusal> {
        let scan = &inbound.scan;
        if !scan.previous.is_empty() && !scan.conversation.is_empty() {
            let message = "`conversation` and `previous_response_id` both say what came before; send one of them";
            return Err(refusal::invalid(message.to_owned()));
        }
        let earlier = if !scan.previous.is_empty() {
            self.chain(subject, &scan.previous).await?
        } else if !scan.conversation.is_empty() {
            let kept: KeptConversation = self
                .document(Shelf::Conversation, subject, &scan.conversation)
                .await?;
            Earlier {
                bytes: kept.items.iter().map(|item| item.to_string().len()).sum(),
                items: kept.items,
                ..Earlier::default()
            }
        } else {
            Earlier::default()
        };
        let text = |at: &std::ops::Range<usize>| {
            let raw = inbound
                .body
                .get(at.clone())
                .and_then(|raw| std::str::from_utf8(raw).ok());
            wire::json::unescaped(raw.unwrap_or_default())
        };
        let seals: Vec<_> = scan.seals_at.iter().map(text).collect();
        self.memory.look_up(&subject.tenant, &seals).await;
        let origins = seals
            .iter()
            .map(|seal| self.memory.origin_of(&subject.tenant, seal));
        let session = self.sessions.recognise(
            subject,
            &inbound.headers,
            scan,
            &inbound.body,
            earlier.session,
        );
        let limit = self.runtime.load().limits.body_bytes;
        let mut bytes_elsewhere = earlier.bytes;
        let names_more = earlier.items.iter().any(|item| reference(item).is_some());
        let references = if scan.has_references || names_more {
            self.references(subject, inbound, &earlier, limit, &mut bytes_elsewhere)
                .await?
        } else {
            HashMap::new()
        };
        if bytes_elsewhere > limit {
            return Err(refusal::too_much_context(limit));
        }
        Ok(Context {
            bytes_elsewhere,
            session,
            references,
            conversation: !scan.conversation.is_empty(),
            origins: origins.collect(),
            has_envelopes: seals
                .iter()
                .any(|seal| seal.starts_with(wire::seal::ENVELOPE)),
            earlier,
        })
    }

    /// Everything from the first response of a chain up to the one called `id`.
    async fn chain(&self, subject: &Subject, id: &str) -> Result<Earlier, Refusal> {
        let limit = self.runtime.load().limits.body_bytes;
        let mut earlier = Earlier::default();
        let (mut links, mut next) = (Vec::new(), id.to_owned());
        while !next.is_empty() && links.len() < LONGEST_CHAIN {
            let kept = self.document(Shelf::Response, subject, &next).await;
            let unknown = |error| refusal::no_such_previous(Shelf::Response, error);
            let kept: KeptResponse = kept.map_err(unknown)?;
            let status = kept.response.get("status").and_then(Value::as_str);
            if let Some(status @ ("queued" | "in_progress" | "failed" | "cancelled")) = status {
                return Err(refusal::unanswered(&next, status));
            }
            let output = kept.response.get("output").and_then(Value::as_array);
            let items = kept.input.iter().chain(output.into_iter().flatten());
            earlier.bytes += items.map(|item| item.to_string().len()).sum::<usize>();
            if earlier.bytes > limit {
                return Err(refusal::too_much_context(limit));
            }
            next.clone_from(&kept.previous);
            links.push(kept);
        }
        if !next.is_empty() {
            return Err(refusal::too_much_context(limit));
        }
        let last = links.first();
        earlier.tokens = last.map_or(0, |last| total_tokens(&last.response));
        earlier.origin = last
            .map(|last| last.origin.clone())
            .filter(|it| !it.is_empty());
        earlier.session = last.map(|last| last.session);
        for link in links.into_iter().rev() {
            earlier.items.extend(link.input);
            let output = link.response.get("output").and_then(Value::as_array);
            earlier.items.extend(output.into_iter().flatten().cloned());
        }
        Ok(earlier)
    }

    /// The item of the caller's tenant that is called `id`. An upstream may know what is unknown here, but it may be
    /// another tenant's.
    pub(crate) async fn referred(&self, subject: &Subject, id: &str) -> Result<Referred, Refusal> {
        let known = self.document(Shelf::Item, subject, id).await;
        known.map_err(|error| refusal::no_such_previous(Shelf::Item, error))
    }

    /// The items that a call names, or what came before it.
    async fn references(
        &self,
        subject: &Subject,
        inbound: &Inbound,
        earlier: &Earlier,
        limit: usize,
        bytes: &mut usize,
    ) -> Result<HashMap<String, Referred>, Refusal> {
        let body: Value = serde_json::from_slice(&inbound.body).unwrap_or_default();
        let items = input_items(body.get("input").unwrap_or(&Value::Null));
        let mut found: HashMap<String, Referred> = HashMap::new();
        for id in items.iter().chain(&earlier.items).filter_map(reference) {
            if !found.contains_key(id) {
                found.insert(id.to_owned(), self.referred(subject, id).await?);
            }
            let mentioned = found
                .get(id)
                .map_or(0, |referred| referred.item.to_string().len());
            *bytes += mentioned;
            if *bytes > limit {
                return Err(refusal::too_much_context(limit));
            }
        }
        Ok(found)
    }

    /// A document of the caller's tenant.
    pub(crate) async fn document<T: for<'a> Deserialize<'a>>(
        &self,
        shelf: Shelf,
        subject: &Subject,
        id: &str,
    ) -> Result<T, Refusal> {
        let found = self.memory.get(place(shelf, &subject.tenant, id)).await;
        let found = found.map_err(|error| refusal::archive_unavailable(&error))?;
        let parsed = found.and_then(|text| serde_json::from_str(&text).ok());
        parsed.ok_or_else(|| refusal::no_such_document(shelf, id))
    }

    /// The call in canonical form, whole: with what came before it, and with the private parts that
    /// its caller could not bring back.
    pub(crate) fn canonical(
        &self,
        subject: &Subject,
        inbound: &Inbound,
        context: &Context,
    ) -> Result<Call, DecodeError> {
        let body = context.whole_body(inbound);
        let mut call = inbound.dialect.decode(&body)?;
        for seal in call.seals_mut().filter(|seal| seal.origin.is_none()) {
            let words = inbound.dialect.seals(seal.value.to_string().as_bytes());
            let made = words
                .iter()
                .find_map(|word| self.memory.origin_of(&subject.tenant, word));
            seal.origin = made.map(|origin| origin.to_string());
        }
        if inbound.dialect.carries_seals() {
            return Ok(call);
        }
        let mut so_far = memory::no_transcript(&subject.tenant);
        for turn in &mut call.turns {
            so_far = memory::transcript(so_far, turn);
            if turn.role == Role::Assistant
                && let Some(kept) = self.memory.turn(so_far)
            {
                turn.parts.clone_from(&kept.parts);
                turn.raw.clear();
            }
        }
        Ok(call)
    }
}

impl Context {
    /// The caller's body with everything that came before it in its place.
    fn whole_body(&self, inbound: &Inbound) -> Bytes {
        if self.earlier.items.is_empty() && self.references.is_empty() {
            return inbound.body.clone();
        }
        let written_out = |item: Value| written_out(item, &self.references);
        let whole = with_input(&inbound.body, |input| {
            let earlier = self.earlier.items.iter().cloned();
            let items = earlier.chain(input_items(input));
            items.map(written_out).collect()
        });
        whole.map_or_else(|| inbound.body.clone(), Bytes::from)
    }

    /// Whether the caller's bytes can not go to `origin` as they are: they name what it does not have,
    /// or hold private parts of another.
    pub(crate) fn must_rewrite(&self, origin: &str) -> bool {
        let elsewhere =
            |made: &Option<Arc<str>>| made.as_ref().is_some_and(|made| **made != *origin);
        let unknown_there =
            !self.earlier.items.is_empty() && self.earlier.origin.as_deref() != Some(origin);
        let referred = self
            .references
            .values()
            .any(|referred| referred.origin != origin);
        self.has_envelopes
            // Nobody else knows the conversations kept here.
            || self.conversation
            || unknown_there
            || referred
            || self.origins.iter().any(elsewhere)
    }

    /// Tokens that an upstream's own copy of what came before may have beyond its bytes.
    pub(crate) fn tokens_elsewhere(&self) -> usize {
        self.earlier.tokens
    }

    /// The scan of the call with what an upstream has kept of it, where it has: images and files there
    /// are billed again.
    pub(crate) fn seen_elsewhere(&self, inbound: &Inbound) -> Option<Scan> {
        if self.bytes_elsewhere == 0 {
            return None;
        }
        inbound.dialect.scan(&self.whole_body(inbound)).ok()
    }

    /// Bytes of prompt that do not stand in the call: what an upstream has kept of it.
    pub(crate) fn bytes_elsewhere(&self) -> usize {
        self.bytes_elsewhere
    }
}

/// An item in place of its mere name.
pub(crate) fn written_out(item: Value, references: &HashMap<String, Referred>) -> Value {
    let referred = reference(&item).and_then(|id| references.get(id));
    referred.map_or(item, |referred| referred.item.clone())
}

/// A kept response that an earlier process left in the making, as failed; `None` for any other.
fn given_up(text: &str) -> Option<String> {
    let mut kept: KeptResponse = serde_json::from_str(text).ok()?;
    let status = kept.response.get("status").and_then(Value::as_str);
    if !matches!(status, Some("queued" | "in_progress")) {
        return None;
    }
    let fields = kept.response.as_object_mut()?;
    let error = serde_json::json!({ "code": "interrupted", "message": "the gateway was restarted; ask again" });
    fields.insert("status".to_owned(), "failed".into());
    fields.insert("error".to_owned(), error);
    serde_json::to_string(&kept).ok()
}

/// A call that asks for one text, as the gateway itself makes it.
pub(crate) fn own_call(model: &str, system: &str, prompt: String, max_output: u64) -> Call {
    use wire::call::Turn;
    Call {
        model: model.to_owned(),
        turns: vec![
            Turn::new(Role::System, vec![Part::text(system)]),
            Turn::new(Role::User, vec![Part::text(prompt)]),
        ],
        max_output: Some(max_output),
        ..Call::default()
    }
}

/// The text of an answer in `dialect`.
pub(crate) fn answer_text(dialect: &dyn Dialect, body: &[u8]) -> Option<String> {
    let reply = dialect.decode_reply(body, "").ok()?;
    let texts = reply.parts.iter().filter_map(|part| match &part.kind {
        Kind::Text(text) => Some(text.text.as_str()),
        _ => None,
    });
    let text: String = texts.collect();
    (!text.trim().is_empty()).then_some(text)
}
