//! What is kept of conversations and can be asked for: responses, their items, conversations, whole
//! tool results.

use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response};
use meter::Subject;
use serde_json::{Value, json};
use wire::archive::Shelf;
use wire::dialect::openai_responses::{input_items, item_id, reference, written_out};
use wire::{Refusal, RequestId};

use crate::admission::Flight;
use crate::background::{is_pending, set};
use crate::clock::now_ms;
use crate::context::{KeptConversation, KeptResponse, place};
use crate::gateway::{self, Body, Shared};
use crate::intake;
use crate::refusal;
use crate::trace::Trace;

/// Items in one page of a list, unless the caller says otherwise; and at most.
const PAGE: usize = 20;
const LONGEST_PAGE: usize = 100;

/// The part of `path` behind `/v1/` if it names something that is kept.
pub(crate) fn kept_at(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("/v1/")?;
    let kept = ["responses/", "conversations", "results/"];
    kept.iter()
        .any(|head| rest.starts_with(head))
        .then_some(rest)
}

/// A caller's question about what is kept for its tenant.
struct Question<'a> {
    shared: &'a Arc<Shared>,
    request: RequestId,
    /// Whoever listens is counted until the end.
    flight: Option<Arc<Flight>>,
    subject: Subject,
    query: String,
    body: Value,
}

/// Answers a question about `rest`, the path behind `/v1/`.
pub(crate) async fn answer(
    shared: &Arc<Shared>,
    request: Request<Body>,
    rest: &str,
    trace: &mut Trace,
) -> Result<Response<Body>, Refusal> {
    let runtime = shared.runtime.load_full();
    let subject = shared.caller(&request, trace)?;
    trace.flight = Some(shared.admit(&subject, request.headers()).await?);
    let limits = &runtime.limits;
    let (head, body) = request.into_parts();
    let bytes = intake::read_body(body, limits, &shared.admission.room)
        .await
        .map_err(|error| refusal::unreadable(&error))?;
    let body = if bytes.is_empty() {
        Ok(Value::Null)
    } else {
        serde_json::from_slice(&bytes)
    };
    let body =
        body.map_err(|error| refusal::invalid(format!("the body is not valid JSON: {error}")))?;
    let query = head.uri.query().unwrap_or_default().to_owned();
    let question = Question {
        shared,
        request: trace.request,
        flight: trace.flight.clone(),
        subject,
        query,
        body,
    };
    let segments: Vec<&str> = rest
        .split('/')
        .filter(|segment| !segment.is_empty())
        .collect();
    let answer = match (head.method, segments.as_slice()) {
        (Method::GET, ["responses", id]) if question.asked("stream") == Some("true") => {
            return question.listen(id).await;
        }
        (Method::GET, ["responses", id]) => question.response(id).await?.response,
        (Method::DELETE, ["responses", id]) => question.delete_response(id).await?,
        (Method::POST, ["responses", id, "cancel"]) => question.cancel(id).await?,
        (Method::GET, ["responses", id, "input_items"]) => question.input_items(id).await?,
        (Method::POST, ["conversations"]) => question.new_conversation().await?,
        (Method::GET, ["conversations", id]) => conversation(id, &question.conversation(id).await?),
        (Method::POST, ["conversations", id]) => question.describe(id).await?,
        (Method::DELETE, ["conversations", id]) => question.delete_conversation(id).await?,
        (Method::GET, ["conversations", id, "items"]) => question.items(id).await?,
        (Method::POST, ["conversations", id, "items"]) => question.add_items(id).await?,
        (Method::GET, ["conversations", id, "items", item]) => question.item(id, item).await?,
        (Method::DELETE, ["conversations", id, "items", item]) => {
            question.delete_item(id, item).await?
        }
        (Method::GET, ["results", handle]) => question.result(handle).await?,
        (_, segments) => {
            let path = format!("/v1/{rest}");
            return Err(match methods(segments) {
                "" => refusal::no_such_path(&path),
                allow => refusal::wrong_method(&path, allow),
            });
        }
    };
    Ok(refusal::json(200, answer.to_string()))
}

/// The methods that what is kept at `segments` takes; `""` where nothing is.
fn methods(segments: &[&str]) -> &'static str {
    match segments {
        // Of the vendor, and not had here: no id.
        ["responses", "compact"] => "",
        ["responses", _] | ["conversations", _, "items", _] => "GET, DELETE",
        ["responses", _, "cancel"] | ["conversations"] => "POST",
        ["responses", _, "input_items"] | ["results", _] => "GET",
        ["conversations", _] => "GET, POST, DELETE",
        ["conversations", _, "items"] => "GET, POST",
        _ => "",
    }
}

impl Question<'_> {
    async fn response(&self, id: &str) -> Result<KeptResponse, Refusal> {
        self.shared
            .document(Shelf::Response, &self.subject, id)
            .await
    }

    /// The events of a response that is made in the background, from the beginning or behind the one
    /// whose number is in `starting_after`.
    async fn listen(&self, id: &str) -> Result<Response<Body>, Refusal> {
        self.response(id).await?;
        let behind = self.asked("starting_after").map(str::parse::<u64>);
        let behind = behind.transpose().map_err(|_| {
            refusal::invalid("`starting_after` must be the number of an event".to_owned())
        })?;
        let making = self.shared.background.get(id);
        let body = making.and_then(|making| making.listen(behind, self.flight.clone()));
        let body = body.ok_or_else(|| refusal::no_stream(id))?;
        let mut response = Response::new(body);
        let kind = HeaderValue::from_static("text/event-stream");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        Ok(response)
    }

    /// Removes a response, here and at the upstream that keeps it as well.
    async fn delete_response(&self, id: &str) -> Result<Value, Refusal> {
        let kept = self.response(id).await?;
        let twin = match kept.twin.as_str() {
            "" => None,
            twin => Some((twin, self.response(twin).await.ok())),
        };
        let twin = twin.and_then(|(id, kept)| Some((id.to_owned(), kept?)));
        let copies: Vec<_> = [(id.to_owned(), kept)].into_iter().chain(twin).collect();
        // Nothing is forgotten here before it is there: else nobody could ask again.
        for (copy, kept) in &copies {
            let deleted = self.delete_at_origin(copy, &kept.origin).await;
            deleted.map_err(|what| refusal::not_deleted(id, &kept.origin, &what))?;
        }
        for (copy, kept) in &copies {
            let output = kept.response.get("output").and_then(Value::as_array);
            for (place, item) in output.into_iter().flatten().enumerate() {
                self.put(Shelf::Item, &item_id(item, copy, place), None);
            }
            self.put(Shelf::Response, copy, None);
        }
        if let Some((_, making)) = self.shared.background.remove(id) {
            making.stop();
        }
        Ok(json!({ "id": id, "object": "response", "deleted": true }))
    }

    /// Has an upstream delete its own copy, under each key that the gateway has there: only one of them
    /// knows it. An upstream that is not configured any more can not be asked.
    async fn delete_at_origin(&self, id: &str, origin: &str) -> Result<(), String> {
        let runtime = self.shared.runtime.load_full();
        let speaks = wire::dialect::OPENAI_RESPONSES.name();
        let mut asked: Vec<&str> = Vec::new();
        for endpoint in runtime.everywhere().map(|target| &target.endpoint) {
            let keeps = *endpoint.origin == *origin && endpoint.dialect.name() == speaks;
            if keeps && !asked.contains(&&*endpoint.name) {
                asked.push(&endpoint.name);
                endpoint.delete(id, self.request).await?;
            }
        }
        Ok(())
    }

    /// Stops a response that is still being made; one that is complete stays as it is.
    async fn cancel(&self, id: &str) -> Result<Value, Refusal> {
        let kept = self.response(id).await?;
        if kept.response.get("background") != Some(&Value::Bool(true)) {
            let message = format!(
                "response `{id}` is not made in the background, so there is nothing to cancel"
            );
            return Err(refusal::invalid(message));
        }
        if is_pending(&kept.response) {
            let at = place(Shelf::Response, &self.subject.tenant, id);
            let cancelled = self.shared.memory.update(at, |text| {
                let mut kept: KeptResponse = serde_json::from_str(text).ok()?;
                if !is_pending(&kept.response) {
                    return None;
                }
                set(&mut kept.response, "status", "cancelled".into());
                serde_json::to_string(&kept).ok()
            });
            if cancelled.await
                && let Some(making) = self.shared.background.get(id)
            {
                making.stop();
            }
        }
        Ok(self.response(id).await?.response)
    }

    async fn input_items(&self, id: &str) -> Result<Value, Refusal> {
        let kept = self.response(id).await?;
        let items = kept
            .input
            .into_iter()
            .enumerate()
            .map(|(at, item)| identified(item, id, at));
        self.page(items.collect(), "desc")
    }

    async fn conversation(&self, id: &str) -> Result<KeptConversation, Refusal> {
        self.shared
            .document(Shelf::Conversation, &self.subject, id)
            .await
    }

    async fn new_conversation(&self) -> Result<Value, Refusal> {
        if !(self.body.is_object() || self.body.is_null()) {
            return Err(refusal::invalid("the body must be an object".to_owned()));
        }
        let id = gateway::new_id().to_string().replacen("req_", "conv_", 1);
        let kept = KeptConversation {
            created_s: now_ms() / 1_000,
            metadata: self.metadata()?.unwrap_or_else(|| json!({})),
            items: self.sent_items(&id, 0).await?.unwrap_or_default(),
        };
        self.put(Shelf::Conversation, &id, serde_json::to_string(&kept).ok());
        Ok(conversation(&id, &kept))
    }

    /// What is sent to be kept about a conversation: an object, whose values are texts.
    fn metadata(&self) -> Result<Option<Value>, Refusal> {
        let sent = self.body.get("metadata").filter(|value| !value.is_null());
        let is_sound = |sent: &Value| {
            let fields = sent.as_object();
            fields.is_some_and(|fields| fields.values().all(Value::is_string))
        };
        match sent {
            Some(sent) if !is_sound(sent) => Err(refusal::invalid(
                "`metadata` must be an object of texts".to_owned(),
            )),
            sent => Ok(sent.cloned()),
        }
    }

    async fn describe(&self, id: &str) -> Result<Value, Refusal> {
        let metadata = self
            .metadata()?
            .ok_or_else(|| refusal::invalid("`metadata` is missing".to_owned()))?;
        let kept = self
            .change(id, |kept| kept.metadata.clone_from(&metadata))
            .await?;
        Ok(conversation(id, &kept))
    }

    async fn delete_conversation(&self, id: &str) -> Result<Value, Refusal> {
        self.conversation(id).await?;
        self.put(Shelf::Conversation, id, None);
        Ok(json!({ "id": id, "object": "conversation.deleted", "deleted": true }))
    }

    async fn items(&self, id: &str) -> Result<Value, Refusal> {
        self.page(self.conversation(id).await?.items, "desc")
    }

    async fn add_items(&self, id: &str) -> Result<Value, Refusal> {
        let before = self.conversation(id).await?.items.len();
        let items = self
            .sent_items(id, before)
            .await?
            .ok_or_else(|| refusal::invalid("`items` is missing".to_owned()))?;
        let added = items.clone();
        self.change(id, |kept| kept.items.extend(added.iter().cloned()))
            .await?;
        Ok(list(&items, false))
    }

    async fn item(&self, id: &str, item: &str) -> Result<Value, Refusal> {
        let items = self.conversation(id).await?.items;
        let found = items.into_iter().find(|kept| is_called(kept, item));
        let found = found.map(written_out);
        found.ok_or_else(|| refusal::no_such_document(Shelf::Item, item))
    }

    async fn delete_item(&self, id: &str, item: &str) -> Result<Value, Refusal> {
        self.item(id, item).await?;
        let kept = self
            .change(id, |kept| kept.items.retain(|kept| !is_called(kept, item)))
            .await?;
        Ok(conversation(id, &kept))
    }

    async fn result(&self, handle: &str) -> Result<Value, Refusal> {
        let text = self
            .shared
            .memory
            .get(place(Shelf::Result, &self.subject.tenant, handle))
            .await;
        let text = text.map_err(|error| refusal::archive_unavailable(&error))?;
        let text = text.ok_or_else(|| refusal::no_such_document(Shelf::Result, handle))?;
        Ok(json!({ "id": handle, "object": "tool_result", "text": text }))
    }

    /// Changes a conversation in one step and returns it as it is now.
    async fn change(
        &self,
        id: &str,
        change: impl Fn(&mut KeptConversation),
    ) -> Result<KeptConversation, Refusal> {
        let at = place(Shelf::Conversation, &self.subject.tenant, id);
        let changed = self.shared.memory.update(at, |text| {
            let mut kept: KeptConversation = serde_json::from_str(text).ok()?;
            change(&mut kept);
            serde_json::to_string(&kept).ok()
        });
        if !changed.await {
            return Err(refusal::no_such_document(Shelf::Conversation, id));
        }
        self.conversation(id).await
    }

    /// The items that are sent, named as items of `owner` from number `first` on. In place of a reference stands
    /// what it names: an upstream may know what is unknown here, but it may be another tenant's.
    async fn sent_items(&self, owner: &str, first: usize) -> Result<Option<Vec<Value>>, Refusal> {
        let Some(sent) = self.body.get("items").filter(|sent| !sent.is_null()) else {
            return Ok(None);
        };
        let items = sent.as_array();
        if !items.is_some_and(|items| items.iter().all(Value::is_object)) {
            let message = "`items` must be a list of objects, as in the input of a response";
            return Err(refusal::invalid(message.to_owned()));
        }
        // What no call could be made with is not kept to spoil all that come. Nothing needs to be said yet.
        let call = json!({ "model": "auto", "conversation": owner, "input": sent }).to_string();
        let read = wire::dialect::OPENAI_RESPONSES.decode(call.as_bytes());
        read.map_err(|error| refusal::undecodable(&error.to_string()))?;
        let limit = self.shared.runtime.load().limits.body_bytes;
        let (mut named, mut bytes) = (Vec::new(), 0);
        for (at, item) in input_items(sent).into_iter().enumerate() {
            let item = match reference(&item) {
                Some(id) => self.shared.referred(&self.subject, id).await?.item,
                None => item,
            };
            bytes += item.to_string().len();
            if bytes > limit {
                return Err(refusal::too_much_context(limit));
            }
            named.push(identified(item, owner, first + at));
        }
        Ok(Some(named))
    }

    fn put(&self, shelf: Shelf, id: &str, value: Option<String>) {
        self.shared
            .memory
            .put(place(shelf, &self.subject.tenant, id), value);
    }

    /// The last value of a parameter of the query.
    fn asked(&self, name: &str) -> Option<&str> {
        let pairs = self
            .query
            .split('&')
            .filter_map(|pair| pair.split_once('='));
        let mut values = pairs
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| value);
        values.next_back()
    }

    /// One page of a list, as `limit`, `order` and `after` ask for.
    fn page(&self, mut items: Vec<Value>, usual: &str) -> Result<Value, Refusal> {
        let asked = |name: &str| self.asked(name);
        let limit = asked("limit").map_or(Ok(PAGE), str::parse).ok();
        let limit = limit.filter(|limit| (1..=LONGEST_PAGE).contains(limit));
        let limit = limit.ok_or_else(|| {
            refusal::invalid(format!(
                "`limit` must be a whole number from 1 to {LONGEST_PAGE}"
            ))
        })?;
        match asked("order").unwrap_or(usual) {
            "desc" => items.reverse(),
            "asc" => {}
            _ => {
                let message = "`order` must be asc or desc";
                return Err(refusal::invalid(message.to_owned()));
            }
        }
        if let Some(after) = asked("after") {
            let at = items.iter().position(|item| is_called(item, after));
            let at = at.ok_or_else(|| refusal::no_such_document(Shelf::Item, after))?;
            items.drain(..=at);
        }
        let has_more = items.len() > limit;
        let items: Vec<Value> = items.into_iter().take(limit).map(written_out).collect();
        Ok(list(&items, has_more))
    }
}

fn is_called(item: &Value, id: &str) -> bool {
    item.get("id").and_then(Value::as_str) == Some(id)
}

fn identified(item: Value, owner: &str, place: usize) -> Value {
    let id = item_id(&item, owner, place);
    let mut item = written_out(item);
    set(&mut item, "id", id.into());
    item
}

fn list(items: &[Value], has_more: bool) -> Value {
    let id = |item: Option<&Value>| item.and_then(|item| item.get("id").cloned());
    json!({ "object": "list", "data": items, "first_id": id(items.first()), "last_id": id(items.last()),
        "has_more": has_more })
}

fn conversation(id: &str, kept: &KeptConversation) -> Value {
    json!({ "id": id, "object": "conversation", "created_at": kept.created_s, "metadata": kept.metadata })
}
