//! Tasks behind the Responses dialect: a response that is made in the background by model `task` is a
//! task. One that waits for a person is complete with what is asked as its last items, and the response
//! that goes on from it answers.

mod stand;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use http::{Method, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use wire::dialect::OPENAI_RESPONSES;
use wire::dialect::openai_responses::item_id;
use wire::dialect::openai_responses::made::{Answer, Order, order};
use wire::{Fault, Losses, Refusal, RequestId};

use crate::actor::read_from;
use crate::desk::{self, About, Asked, Decision, Desk, Listening, Problem};
use crate::event::Caller;
use crate::id::TaskId;
use crate::log::{Change, Expected, Kind, Record, To};
use crate::model::{Body, BodyError};
use crate::news::Listener;
use crate::view;

use super::answer;
use super::request::Question;

use stand::{Stand, approval, input};

/// How the ids of these responses begin.
const PREFIX: &str = "resp_task_";
const LOOK: Duration = Duration::from_millis(500);
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Whether a model's name asks for a task.
pub fn is_task_model(model: &str) -> bool {
    model == "task" || model.starts_with("task/")
}

/// Whether an id is that of a response that a task makes.
pub fn is_task_response(id: &str) -> bool {
    id.starts_with(PREFIX)
}

/// What is kept of such a response: the rest stands in the task's log.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Link {
    task: TaskId,
    model: String,
    created_s: i64,
    own: Map<String, Value>,
    input: Vec<Value>,
    /// It tells of what is behind this event.
    from_seq: u64,
}

impl Link {
    fn id(&self) -> String {
        let hex = self.task.hex();
        match self.from_seq {
            0 => format!("{PREFIX}{hex}"),
            seq => format!("{PREFIX}{hex}_{seq}"),
        }
    }

    fn change(&self, tenant: &str) -> Change {
        Change {
            kind: Kind::Response,
            tenant: tenant.to_owned(),
            id: self.id(),
            expected: Expected::Any,
            to: Some(To {
                task: Some(self.task),
                due_at_ms: None,
                body: serde_json::to_string(self).unwrap_or_default(),
            }),
        }
    }
}

/// A problem in the dialect's own shape.
pub(super) fn refused(problem: Problem) -> Response<Body> {
    let fault = if problem.status < 500 {
        Fault::Caller
    } else {
        Fault::Gateway
    };
    let refusal = Refusal {
        fault,
        status: problem.status,
        code: problem.code,
        message: problem.message,
        retry_after_s: None,
        is_final: problem.status < 500,
        allow: "",
    };
    let text = OPENAI_RESPONSES.refuse(&refusal, RequestId::new(0, [0; 10]));
    answer::whole(refusal.status, "application/json", text)
}

/// Answers a request behind `/v1/responses`.
pub(super) async fn route(
    desk: &Arc<Desk>,
    it: &Question,
    rest: &[&str],
) -> Result<Response<Body>, Problem> {
    match rest {
        [] => {
            it.only(&[Method::POST])?;
            begin(desk, it).await
        }
        [id] if it.method == Method::DELETE => {
            let (record, _) = link(desk, &it.caller, id).await?;
            let gone = Change {
                kind: Kind::Response,
                tenant: record.tenant,
                id: record.id,
                expected: Expected::Any,
                to: None,
            };
            desk.change_records(vec![gone]).await?;
            let gone = json!({ "id": id, "object": "response", "deleted": true });
            Ok(answer::json(200, &gone))
        }
        [id] => {
            it.only(&[Method::GET, Method::DELETE])?;
            let (_, link) = link(desk, &it.caller, id).await?;
            if it.says("stream") {
                let after = it.number("starting_after")?;
                return listen(desk, it, link, after);
            }
            shown(desk, &it.caller, &link).await
        }
        [id, "cancel"] => {
            it.only(&[Method::POST])?;
            let (_, link) = link(desk, &it.caller, id).await?;
            let about = About::task(link.task);
            match desk
                .cancel(&it.caller, about, "its response was cancelled")
                .await
            {
                // A response that is complete stays as it is.
                Err(problem) if problem.code != "task_ended" => return Err(problem),
                _ => {}
            }
            shown(desk, &it.caller, &link).await
        }
        [id, "input_items"] => {
            it.only(&[Method::GET])?;
            let (_, link) = link(desk, &it.caller, id).await?;
            let items = link.input.into_iter().enumerate();
            let items: Vec<Value> = items.map(|(at, item)| named(item, id, at)).collect();
            Ok(answer::json(
                200,
                &json!({ "object": "list", "data": items, "has_more": false }),
            ))
        }
        _ => Err(it.no_such_path()),
    }
}

fn named(mut item: Value, owner: &str, place: usize) -> Value {
    let id = item_id(&item, owner, place);
    if let Some(fields) = item.as_object_mut() {
        fields.insert("id".to_owned(), id.into());
    }
    item
}

/// What is kept of a response of the caller's.
async fn link(desk: &Desk, caller: &Caller, id: &str) -> Result<(Record, Link), Problem> {
    let missing = || Problem::missing("response", id);
    let record = desk.record(caller, Kind::Response, id).await?;
    let record = record.ok_or_else(missing)?;
    let link = serde_json::from_str(&record.body).map_err(|_| missing())?;
    Ok((record, link))
}

/// Begins a task, or answers what an earlier response asked.
async fn begin(desk: &Arc<Desk>, it: &Question) -> Result<Response<Body>, Problem> {
    if !it.body.is_object() {
        return Err(Problem::new(400, "invalid_json", "the body is no object"));
    }
    let order = order(&it.body);
    if !order.background || order.unstored {
        return Err(Problem::field(
            "background",
            "a task takes its time: write \"background\": true, and leave `store` out",
        ));
    }
    let link = match &order.previous {
        None => new_task(desk, it, &order).await?,
        Some(previous) => go_on(desk, it, &order, previous).await?,
    };
    let stream = order.stream;
    let mut response = if stream {
        listen(desk, it, link, None)?
    } else {
        shown(desk, &it.caller, &link).await?
    };
    lost(&mut response, &order.losses);
    Ok(response)
}

fn lost(response: &mut Response<Body>, losses: &Losses) {
    if !losses.is_empty() {
        let name = HeaderName::from_static("x-pareto-loss");
        answer::set(response, name, &losses.header());
    }
}

/// What a response says of its call, with the task that makes it.
fn own(order: &Order, task: TaskId) -> Map<String, Value> {
    let mut own = order.own.clone();
    let mut metadata = order.metadata.clone();
    metadata.insert("task_id".to_owned(), task.to_string().into());
    own.insert("metadata".to_owned(), metadata.into());
    own
}

/// The tenant whose records these are.
fn tenant(caller: &Caller) -> String {
    caller.tenant.clone()
}

async fn new_task(desk: &Arc<Desk>, it: &Question, order: &Order) -> Result<Link, Problem> {
    if order.text.trim().is_empty() {
        return Err(Problem::field("input", "must say what is wanted"));
    }
    let mut labels = Map::new();
    for (name, value) in &order.metadata {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        labels.insert(name.clone(), text.into());
    }
    if let Some((_, agent)) = order.model.split_once('/') {
        labels.insert("agent".to_owned(), agent.into());
    }
    let brief = json!({
        "objective": order.text,
        "constraints": order.rules,
        "labels": labels,
        "mode": "explore",
        // Looks and drafts with whatever the operator has put there; every act asks.
        "allowed_tools": ["*"],
    });
    let task = desk.new_id();
    let link = Link {
        task,
        model: order.model.clone(),
        created_s: desk.now_ms().div_euclid(1_000),
        own: own(order, task),
        input: order.input.clone(),
        from_seq: 0,
    };
    let begun = desk
        .create(Asked {
            key: it.header("idempotency-key").map(str::to_owned),
            changes: vec![link.change(&tenant(&it.caller))],
            id: Some(task),
            ..Asked::new(it.caller.clone(), brief)
        })
        .await?;
    if begun.is_new {
        return Ok(link);
    }
    let before = Link {
        task: begun.state.id,
        ..link
    };
    Ok(self::link(desk, &it.caller, &before.id()).await?.1)
}

/// Answers what an earlier response asked; words besides steer the task.
async fn go_on(
    desk: &Arc<Desk>,
    it: &Question,
    order: &Order,
    previous: &str,
) -> Result<Link, Problem> {
    let (record, before) = link(desk, &it.caller, previous).await?;
    let caller = &it.caller;
    let made = |seq: u64| Link {
        task: before.task,
        model: before.model.clone(),
        created_s: desk.now_ms().div_euclid(1_000),
        own: own(order, before.task),
        input: order.input.clone(),
        from_seq: seq,
    };
    let keep = |seq: u64| vec![made(seq).change(&record.tenant)];
    let nothing = |_: u64| Vec::new();
    let mut state = None;
    let steers = !order.text.trim().is_empty();
    if steers {
        let about = About::task(before.task);
        let also: desk::Also<'_> = if order.answers.is_empty() {
            &keep
        } else {
            &nothing
        };
        state = Some(desk.steer_and(caller, about, &order.text, also).await?);
    }
    for (place, said) in order.answers.iter().enumerate() {
        let last = place + 1 == order.answers.len();
        let also: desk::Also<'_> = if last { &keep } else { &nothing };
        state = Some(answered(desk, caller, before.task, said, also).await?);
    }
    let state = state
        .ok_or_else(|| Problem::field("input", "must answer what was asked, or say something"))?;
    let link = made(state.head.seq);
    // Where nothing was written because it had been said before, it is not kept yet.
    desk.change_records(keep(state.head.seq)).await?;
    Ok(link)
}

async fn answered(
    desk: &Desk,
    caller: &Caller,
    task: TaskId,
    said: &Answer,
    also: desk::Also<'_>,
) -> Result<Arc<crate::State>, Problem> {
    let (Answer::Approval { id, .. } | Answer::Output { id, .. }) = said;
    let foreign = || Problem::field("input", format!("nothing of the task is called `{id}`"));
    let key = approval(id).or_else(|| input(id)).ok_or_else(foreign)?;
    if !key.starts_with(&task.hex()) {
        return Err(foreign());
    }
    let (state, request) = desk.request(caller, key).await?;
    let asked = state.requests.get(&request).ok_or_else(foreign)?;
    // What a request asks never changes, so its name stands for what was seen.
    let digest = view::digest_of(asked).to_string();
    match said {
        Answer::Approval {
            approve, reason, ..
        } => {
            let decision = Decision {
                digest,
                approve: *approve,
                reason: reason.clone(),
                ..Decision::default()
            };
            desk.decide_and(caller, key, &decision, also).await
        }
        Answer::Output { output, .. } => {
            if matches!(asked.what, crate::state::Asked::Input { .. }) {
                let answer = desk::Answer {
                    answer: output.clone(),
                };
                return desk.answer_and(caller, key, &answer, also).await;
            }
            let mut decision: Value = serde_json::from_str(output).unwrap_or_default();
            if let Some(fields) = decision.as_object_mut() {
                fields.insert("digest".to_owned(), digest.into());
            }
            let decision: Decision = desk::read(&decision)?;
            desk.decide_and(caller, key, &decision, also).await
        }
    }
}

/// A response as it stands.
async fn shown(desk: &Desk, caller: &Caller, link: &Link) -> Result<Response<Body>, Problem> {
    let stand = look(desk, caller, link).await?;
    let id = link.id();
    Ok(answer::json(200, &stand.made(&id, link).whole()))
}

async fn look(desk: &Desk, caller: &Caller, link: &Link) -> Result<Stand, Problem> {
    // It tells nothing to who may not see the task, nor of one that was erased.
    let state = desk.state(caller, link.task).await?;
    let (task, from_seq) = (link.task, link.from_seq);
    if stand::is_simple(&state) {
        return Ok(stand::pending(&state));
    }
    let events = desk.ask(move |log| read_from(log, task, 0)).await?;
    Ok(stand::of(&events, from_seq)?)
}

/// A stream under way.
struct Telling {
    desk: Arc<Desk>,
    caller: Caller,
    link: Link,
    told: VecDeque<Bytes>,
    /// Events up to this number have been told elsewhere.
    after: Option<u64>,
    news: Listener,
    beat: Instant,
    is_over: bool,
    _counted: Listening,
}

/// The response as a stream, from the beginning or behind the event of a number.
fn listen(
    desk: &Arc<Desk>,
    it: &Question,
    link: Link,
    after: Option<u64>,
) -> Result<Response<Body>, Problem> {
    let mut telling = Telling {
        told: VecDeque::new(),
        after,
        news: desk.news().listen(),
        beat: Instant::now() + HEARTBEAT,
        is_over: false,
        _counted: desk.listen(&it.caller)?,
        desk: Arc::clone(desk),
        caller: it.caller.clone(),
        link,
    };
    let id = telling.link.id();
    let begun = Stand::default().made(&id, &telling.link).beginning();
    telling.tell(&begun);
    let pieces = stream::unfold(telling, |mut telling| async move {
        let piece = telling.next().await?;
        Some((piece.map(Frame::data), telling))
    });
    let mut response = answer::whole(200, "text/event-stream", "");
    *response.body_mut() = StreamBody::new(pieces).boxed_unsync();
    answer::set(&mut response, CONTENT_TYPE, "text/event-stream");
    answer::set(&mut response, CACHE_CONTROL, "no-cache");
    Ok(response)
}

impl Telling {
    fn tell(&mut self, events: &[Value]) {
        for event in events {
            let number = event.get("sequence_number").and_then(Value::as_u64);
            if number > self.after || self.after.is_none() {
                let name = event.get("type").and_then(Value::as_str);
                let name = name.unwrap_or_default();
                let text = format!("event: {name}\ndata: {event}\n\n");
                self.told.push_back(Bytes::from(text));
            }
        }
    }

    async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        loop {
            if let Some(piece) = self.told.pop_front() {
                return Some(Ok(piece));
            }
            if self.is_over {
                return None;
            }
            match look(&self.desk, &self.caller, &self.link).await {
                Ok(stand) if stand.is_over() => {
                    self.is_over = true;
                    let id = self.link.id();
                    let end = stand.made(&id, &self.link).end();
                    self.tell(&end);
                }
                Ok(_) => {
                    if let Err(why) = self.wait().await {
                        self.is_over = true;
                        return Some(Err(why.into()));
                    }
                }
                Err(problem) => {
                    self.is_over = true;
                    return Some(Err(problem.message.into()));
                }
            }
        }
    }

    /// Waits until something may have happened. Who listens while the gateway stops must not take the
    /// end of the stream for that of the response.
    async fn wait(&mut self) -> Result<(), &'static str> {
        tokio::select! {
            biased;
            () = self.desk.closed() => return Err("the gateway stops; take the stream up again"),
            () = tokio::time::sleep_until(self.beat) => {
                self.beat = Instant::now() + HEARTBEAT;
                self.told.push_back(Bytes::from_static(b": going on\n\n"));
            }
            () = self.news.of(self.link.task) => {}
            () = tokio::time::sleep(LOOK) => {}
        }
        Ok(())
    }
}
