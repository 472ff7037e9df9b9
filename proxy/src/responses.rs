//! What is kept of conversations and can be asked for: responses, their items, conversations, whole
//! tool results. Also calls whose answer is fetched later.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use meter::Subject;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use wire::Refusal;
use wire::archive::{Place, Shelf};
use wire::dialect::Asked;
use wire::dialect::openai_responses::{input_items, item_id, pending, response_id, written_out};

use crate::clock::now_ms;
use crate::context::{KeptConversation, KeptResponse, memory, place};
use crate::gateway::{self, Body, Shared};
use crate::intake::{self, Inbound};
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
    trace.flight = Some(shared.admit(&runtime)?);
    let subject = shared.caller(request.headers(), trace)?;
    let limits = &runtime.limits;
    let (head, body) = request.into_parts();
    let bytes = intake::read_body(body, limits)
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
        subject,
        query,
        body,
    };
    let segments: Vec<&str> = rest
        .split('/')
        .filter(|segment| !segment.is_empty())
        .collect();
    let answer = match (head.method, segments.as_slice()) {
        (Method::GET, ["responses", id]) => question.response(id).await?.response,
        (Method::DELETE, ["responses", id]) => question.delete_response(id).await?,
        (Method::POST, ["responses", id, "cancel"]) => question.cancel(id).await?,
        (Method::GET, ["responses", id, "input_items"]) => question.input_items(id).await?,
        (Method::POST, ["conversations"]) => question.new_conversation(),
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
        _ => return Err(refusal::no_such_path(&format!("/v1/{rest}"))),
    };
    Ok(refusal::json(200, answer.to_string()))
}

impl Question<'_> {
    async fn response(&self, id: &str) -> Result<KeptResponse, Refusal> {
        self.shared
            .document(Shelf::Response, &self.subject, id)
            .await
    }

    async fn delete_response(&self, id: &str) -> Result<Value, Refusal> {
        self.response(id).await?;
        self.put(Shelf::Response, id, None);
        Ok(json!({ "id": id, "object": "response", "deleted": true }))
    }

    /// Stops a response that is still being made; one that is complete stays as it is.
    async fn cancel(&self, id: &str) -> Result<Value, Refusal> {
        if is_pending(&self.response(id).await?.response) {
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
                && let Some((_, stop)) = self.shared.background.remove(id)
            {
                stop.cancel();
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

    fn new_conversation(&self) -> Value {
        let id = gateway::new_id().to_string().replacen("req_", "conv_", 1);
        let metadata = self.body.get("metadata").filter(|value| value.is_object());
        let kept = KeptConversation {
            created_s: now_ms() / 1_000,
            metadata: metadata.cloned().unwrap_or_else(|| json!({})),
            items: self.sent_items(&id, 0),
        };
        self.put(Shelf::Conversation, &id, serde_json::to_string(&kept).ok());
        conversation(&id, &kept)
    }

    async fn describe(&self, id: &str) -> Result<Value, Refusal> {
        let metadata = self.body.get("metadata").cloned().filter(Value::is_object);
        let metadata =
            metadata.ok_or_else(|| refusal::invalid("`metadata` must be an object".to_owned()))?;
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
        let items = self.sent_items(id, before);
        let added = items.clone();
        self.change(id, |kept| kept.items.extend(added.iter().cloned()))
            .await?;
        Ok(list(&items, false))
    }

    async fn item(&self, id: &str, item: &str) -> Result<Value, Refusal> {
        let items = self.conversation(id).await?.items;
        let found = items.into_iter().find(|kept| is_called(kept, item));
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

    fn sent_items(&self, owner: &str, first: usize) -> Vec<Value> {
        let items = input_items(self.body.get("items").unwrap_or(&Value::Null));
        items
            .into_iter()
            .enumerate()
            .map(|(at, item)| identified(item, owner, first + at))
            .collect()
    }

    fn put(&self, shelf: Shelf, id: &str, value: Option<String>) {
        self.shared
            .memory
            .put(place(shelf, &self.subject.tenant, id), value);
    }

    /// One page of a list, as `limit`, `order` and `after` ask for.
    fn page(&self, mut items: Vec<Value>, usual: &str) -> Result<Value, Refusal> {
        let asked = |name: &str| {
            let pairs = self
                .query
                .split('&')
                .filter_map(|pair| pair.split_once('='));
            pairs
                .filter(|(key, _)| *key == name)
                .map(|(_, value)| value)
                .next_back()
        };
        let limit = asked("limit").map_or(Ok(PAGE), str::parse);
        let limit = limit.map_err(|_| refusal::invalid("`limit` must be a number".to_owned()))?;
        let limit = limit.clamp(1, LONGEST_PAGE);
        if asked("order").unwrap_or(usual) == "desc" {
            items.reverse();
        }
        if let Some(after) = asked("after") {
            let at = items.iter().position(|item| is_called(item, after));
            items.drain(..at.map_or(0, |at| at + 1));
        }
        let has_more = items.len() > limit;
        items.truncate(limit);
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

fn set(value: &mut Value, key: &str, to: Value) {
    if let Some(fields) = value.as_object_mut() {
        fields.insert(key.to_owned(), to);
    }
}

fn list(items: &[Value], has_more: bool) -> Value {
    let id = |item: Option<&Value>| item.and_then(|item| item.get("id").cloned());
    json!({ "object": "list", "data": items, "first_id": id(items.first()), "last_id": id(items.last()),
        "has_more": has_more })
}

fn conversation(id: &str, kept: &KeptConversation) -> Value {
    json!({ "id": id, "object": "conversation", "created_at": kept.created_s, "metadata": kept.metadata })
}

fn is_pending(response: &Value) -> bool {
    let status = response.get("status").and_then(Value::as_str);
    matches!(status, Some("queued" | "in_progress"))
}

/// Begins a call whose answer is fetched later: it is kept from now on, first as queued.
pub(crate) fn begin(
    shared: &Arc<Shared>,
    subject: &Subject,
    inbound: Inbound,
    trace: &mut Trace,
) -> Result<Response<Body>, Refusal> {
    let call = inbound.dialect.decode(&inbound.body);
    let call = call.map_err(|error| refusal::undecodable(&error.to_string()))?;
    let input = input_items(call.own.get("input").unwrap_or(&Value::Null));
    let asked = Asked {
        request: trace.request,
        created_s: now_ms() / 1_000,
        call: Arc::new(call),
        include_usage: true,
        prompt_tokens: 0,
        count: crate::runtime::count,
    };
    let id = response_id(trace.request);
    let queued = pending(&asked, "queued");
    let kept = KeptResponse {
        response: queued.clone(),
        input,
        previous: inbound.scan.previous.clone(),
        origin: String::new(),
        session: memory::digest(&[&subject.tenant, &id]),
    };
    let job = Job {
        shared: Arc::clone(shared),
        subject: subject.clone(),
        id: id.clone(),
        kept,
    };
    job.put();
    let inbound = in_foreground(inbound)?;
    let stop = CancellationToken::new();
    shared.background.insert(id, stop.clone());
    let trace = trace.clone();
    shared.tasks.spawn(async move {
        let work = Box::pin(job.run(inbound, trace));
        let stopped = stop.run_until_cancelled(work).await;
        if stopped.is_none() {
            tracing::info!("a response was cancelled while it was made");
        }
    });
    Ok(refusal::json(200, queued.to_string()))
}

/// The call as one that is answered at once, as upstreams and streams have it.
pub(crate) fn in_foreground(inbound: Inbound) -> Result<Inbound, Refusal> {
    if !inbound.scan.background {
        return Ok(inbound);
    }
    let undecodable = |error: String| refusal::undecodable(&error);
    let mut body: Value =
        serde_json::from_slice(&inbound.body).map_err(|error| undecodable(error.to_string()))?;
    if let Some(fields) = body.as_object_mut() {
        fields.shift_remove("background");
    }
    let body = Bytes::from(body.to_string());
    let scan = inbound
        .dialect
        .scan(&body)
        .map_err(|error| undecodable(error.to_string()))?;
    Ok(Inbound {
        body,
        scan,
        ..inbound
    })
}

/// A response in the making.
struct Job {
    shared: Arc<Shared>,
    subject: Subject,
    id: String,
    kept: KeptResponse,
}

impl Job {
    fn place(&self) -> Place {
        place(Shelf::Response, &self.subject.tenant, &self.id)
    }

    fn put(&self) {
        let text = serde_json::to_string(&self.kept).ok();
        self.shared.memory.put(self.place(), text);
    }

    /// Keeps what has become of the response, unless it was cancelled or deleted meanwhile.
    async fn keep(&self) {
        let after = serde_json::to_string(&self.kept).ok();
        let change = |before: &str| {
            let before: KeptResponse = serde_json::from_str(before).ok()?;
            is_pending(&before.response)
                .then(|| after.clone())
                .flatten()
        };
        self.shared.memory.update(self.place(), change).await;
    }

    async fn run(mut self, inbound: Inbound, mut trace: Trace) {
        set(&mut self.kept.response, "status", "in_progress".into());
        self.keep().await;
        let runtime = self.shared.runtime.load_full();
        let answer =
            gateway::converse(&self.shared, &runtime, &self.subject, &inbound, &mut trace).await;
        match answer {
            Ok(answer) => self.take(answer).await,
            Err(refused) => {
                gateway::told(&refused, &trace);
                self.fail(refused.code, &refused.message);
            }
        }
        self.keep().await;
        self.shared.background.remove(&self.id);
    }

    async fn take(&mut self, answer: Response<Body>) {
        let status = answer.status();
        let body = answer.into_body().collect().await;
        let body = body
            .map(http_body_util::Collected::to_bytes)
            .unwrap_or_default();
        let told: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status.is_success() && told.is_object() {
            self.complete(told);
        } else {
            self.fail("upstream_rejected", &wire::dialect::told(&body));
        }
    }

    /// Takes over the answer; its id is the one that the caller was given.
    fn complete(&mut self, mut response: Value) {
        for name in [
            "id",
            "created_at",
            "background",
            "store",
            "previous_response_id",
        ] {
            if let Some(known) = self.kept.response.get(name).cloned() {
                set(&mut response, name, known);
            }
        }
        self.kept.response = response;
    }

    fn fail(&mut self, code: &str, message: &str) {
        set(&mut self.kept.response, "status", "failed".into());
        set(
            &mut self.kept.response,
            "error",
            json!({ "code": code, "message": message }),
        );
    }
}
