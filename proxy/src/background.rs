//! Responses whose answer is fetched later. They are made whether or not anybody listens, and kept in
//! the end; what was asked for as a stream can be listened to as often as anybody likes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt;
use meter::Subject;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use wire::Refusal;
use wire::archive::{Place, Shelf};
use wire::dialect::openai_responses::{input_items, pending, response_id};
use wire::dialect::{Asked, OPENAI_RESPONSES};
use wire::sse::{self, Splitter};

use crate::admission::Flight;
use crate::clock::now_ms;
use crate::context::{KeptResponse, memory, place};
use crate::gateway::{self, Body, Shared};
use crate::intake::Inbound;
use crate::recording::{Recording, to_forget};
use crate::refusal;
use crate::trace::Trace;

/// How long the events of a response that is complete can still be listened to.
const HEARD_FOR: Duration = Duration::from_mins(10);

/// A response in the making.
#[derive(Debug)]
pub(crate) struct Making {
    stop: CancellationToken,
    /// The events told so far, where it was asked for as a stream.
    told: Option<Recording>,
}

impl Making {
    /// Stops making it.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// The events behind the one of number `behind`, or all of them, up to the end; `None` where it is no
    /// stream. Whoever listens holds `flight`.
    pub(crate) fn listen(&self, behind: Option<u64>, flight: Option<Arc<Flight>>) -> Option<Body> {
        let told = self.told.as_ref()?;
        let from = behind.map_or(0, |behind| {
            // Comments have no number.
            told.place(|event| numbered(event).is_some_and(|it| it > behind))
        });
        Some(told.listen(from, flight))
    }

    fn tell(&self, event: Bytes) {
        if let Some(told) = &self.told {
            told.tell(event);
        }
    }

    /// The number of the next event.
    fn next(&self) -> u64 {
        let mut last = None;
        if let Some(told) = &self.told {
            told.place(|event| {
                last = numbered(event).or(last);
                false
            });
        }
        last.map_or(0, |last| last.saturating_add(1))
    }

    fn told_bytes(&self) -> usize {
        self.told.as_ref().map_or(0, Recording::bytes)
    }

    fn end(&self, how: Result<(), &'static str>) {
        if let Some(told) = &self.told {
            told.end(how);
        }
    }
}

fn numbered(event: &[u8]) -> Option<u64> {
    let data: Value = serde_json::from_slice(&sse::data(event)?).ok()?;
    data.get("sequence_number")?.as_u64()
}

/// Work under way: whoever listens is not left waiting, even by a panic.
struct UnderWay(Arc<Making>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.end(Err("the gateway failed over this response"));
    }
}

/// Forgets the events of responses that have been complete for long, or are too much. It looks at all of them:
/// call it now and then.
pub(crate) fn forget_told(shared: &Shared) {
    let kept = shared.background.iter();
    let kept = kept.filter_map(|making| {
        let told = making.told.as_ref()?;
        Some((told.lasting()?, making.key().clone()))
    });
    for id in to_forget(kept.collect(), HEARD_FOR) {
        shared.background.remove(&id);
    }
}

pub(crate) fn is_pending(response: &Value) -> bool {
    let status = response.get("status").and_then(Value::as_str);
    matches!(status, Some("queued" | "in_progress"))
}

pub(crate) fn set(value: &mut Value, key: &str, to: Value) {
    if let Some(fields) = value.as_object_mut() {
        fields.insert(key.to_owned(), to);
    }
}

/// Begins a call whose answer is fetched later: it is kept from now on, first as queued. A stream is
/// answered as soon as its upstream delivers, and refused like any call where none does.
pub(crate) async fn begin(
    shared: &Arc<Shared>,
    subject: &Subject,
    inbound: Box<Inbound>,
    trace: &mut Trace,
) -> Result<Response<Body>, Refusal> {
    if inbound.scan.is_unstored {
        return Err(refusal::unstored());
    }
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
        twin: String::new(),
    };
    let streams = inbound.scan.stream;
    let inbound = in_foreground(inbound)?;
    let making = Arc::new(Making {
        stop: CancellationToken::new(),
        told: streams.then(Recording::default),
    });
    shared.background.insert(id.clone(), Arc::clone(&making));
    let job = Job {
        shared: Arc::clone(shared),
        subject: subject.clone(),
        id,
        kept,
        making,
    };
    job.put();
    let (begun, beginning) = oneshot::channel();
    shared.tasks.spawn(job.work(inbound, trace.clone(), begun));
    if !streams {
        return Ok(refusal::json(200, queued.to_string()));
    }
    let answer = beginning.await;
    answer.unwrap_or_else(|_| Err(refusal::panicked()))
}

/// The call as one that is answered at once, as upstreams have it.
fn in_foreground(mut inbound: Box<Inbound>) -> Result<Box<Inbound>, Refusal> {
    let undecodable = |error: String| refusal::undecodable(&error);
    let mut body: Value =
        serde_json::from_slice(&inbound.body).map_err(|error| undecodable(error.to_string()))?;
    if let Some(fields) = body.as_object_mut() {
        fields.shift_remove("background");
    }
    inbound.body = Bytes::from(body.to_string());
    let scan = inbound.dialect.scan(&inbound.body);
    inbound.scan = scan.map_err(|error| undecodable(error.to_string()))?;
    Ok(inbound)
}

/// How a stream began, for the caller who waits for it.
type Begun = oneshot::Sender<Result<Response<Body>, Refusal>>;

/// The work on one response.
struct Job {
    shared: Arc<Shared>,
    subject: Subject,
    id: String,
    kept: KeptResponse,
    making: Arc<Making>,
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

    /// Makes the response, unless it is stopped.
    async fn work(self, inbound: Box<Inbound>, trace: Trace, begun: Begun) {
        let (shared, id) = (Arc::clone(&self.shared), self.id.clone());
        let making = Arc::clone(&self.making);
        let _under_way = UnderWay(Arc::clone(&making));
        let request = trace.request;
        let work = Box::pin(self.run(inbound, trace, begun));
        let is_heard = making.stop.run_until_cancelled(work).await;
        if is_heard.is_none() {
            tracing::info!(%request, "a response was stopped while it was made");
            let stopped = refusal::upstream(499, "cancelled", "the response was cancelled".into());
            let event = OPENAI_RESPONSES.refuse_in_stream(&stopped, request, making.next());
            making.tell(Bytes::from(event));
            making.end(Ok(()));
        }
        if making.told.is_none() || is_heard == Some(false) {
            shared.background.remove(&id);
        }
    }

    /// Makes the response; `false` where a stream was refused, and nobody has anything to listen to.
    async fn run(mut self, inbound: Box<Inbound>, mut trace: Trace, begun: Begun) -> bool {
        set(&mut self.kept.response, "status", "in_progress".into());
        self.keep().await;
        let runtime = self.shared.runtime.load_full();
        let answer =
            gateway::converse(&self.shared, &runtime, &self.subject, &inbound, &mut trace).await;
        let told = self.making.listen(None, trace.flight.clone());
        match (answer, told) {
            (Ok(answer), Some(told)) if answer.status().is_success() => {
                let (head, body) = answer.into_parts();
                // The caller may have left meanwhile.
                let _heard = begun.send(Ok(Response::from_parts(head, told)));
                let how = self.follow(body, runtime.upstream.reply_bytes).await;
                if let Err(why) = how {
                    self.fail("upstream_interrupted", why);
                }
                self.making.end(how);
            }
            // Who asked for a stream is told at once, and nothing is kept.
            (refused, Some(_)) => {
                self.shared.memory.put(self.place(), None);
                let _heard = begun.send(refused);
                self.making.end(Ok(()));
                return false;
            }
            (Ok(answer), None) => self.take(answer).await,
            (Err(refused), None) => {
                gateway::told(&refused, &trace);
                self.fail(refused.code, &refused.message);
            }
        }
        self.keep().await;
        true
    }

    /// Takes a stream to its end.
    async fn follow(&mut self, mut body: Body, longest: usize) -> Result<(), &'static str> {
        let mut splitter = Splitter::default();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| "the upstream's answer is incomplete")?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let too_long = "the answer is too long to be kept";
            splitter.push(data).map_err(|_| too_long)?;
            while let Some(event) = splitter.next_event() {
                let was_known = !self.kept.twin.is_empty();
                self.hear(event);
                if !was_known && !self.kept.twin.is_empty() {
                    // Whoever deletes it half made must find its other copy.
                    self.keep().await;
                }
            }
            if self.making.told_bytes() > longest {
                return Err(too_long);
            }
        }
        let rest = splitter.rest();
        if let Some(whole) = OPENAI_RESPONSES.kept(&rest) {
            // It does not stream: its answer came in one piece.
            self.complete(whole);
            self.making
                .tell(Bytes::from(self.kept.response.to_string()));
        } else if !rest.is_empty() {
            self.hear(rest);
        }
        if is_pending(&self.kept.response) {
            return Err("the upstream's stream ended before its answer did");
        }
        Ok(())
    }

    /// Passes an event on. One with the response in it tells it as the caller knows it.
    fn hear(&mut self, event: Bytes) {
        let text = std::str::from_utf8(&event).unwrap_or_default();
        let told: Option<Value> = sse::data(&event)
            .filter(|_| text.contains("\"response\""))
            .and_then(|data| serde_json::from_slice(&data).ok());
        let Some(mut told) = told.filter(|told| told.get("response").is_some()) else {
            self.making.tell(event);
            return;
        };
        if let Some(response) = told.get_mut("response") {
            if self.kept.twin.is_empty() {
                let id = response.get("id").and_then(Value::as_str);
                id.unwrap_or_default().clone_into(&mut self.kept.twin);
            }
            self.known_as(response);
        }
        let name = told.get("type").and_then(Value::as_str).unwrap_or_default();
        let event = Bytes::from(format!("event: {name}\ndata: {told}\n\n"));
        if let Some(response) = OPENAI_RESPONSES.kept(&event) {
            self.kept.response = response;
        }
        self.making.tell(event);
    }

    async fn take(&mut self, answer: Response<Body>) {
        let status = answer.status();
        let body = answer.into_body().collect().await;
        let body = body
            .map(http_body_util::Collected::to_bytes)
            .unwrap_or_default();
        let told: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status.is_success() && told.is_object() {
            let id = told.get("id").and_then(Value::as_str).unwrap_or_default();
            id.clone_into(&mut self.kept.twin);
            self.complete(told);
        } else {
            self.fail("upstream_rejected", &wire::dialect::told(&body));
        }
    }

    /// Takes over the answer.
    fn complete(&mut self, mut response: Value) {
        self.known_as(&mut response);
        self.kept.response = response;
    }

    /// Writes into the response what the caller was told of it at first.
    fn known_as(&self, response: &mut Value) {
        for name in [
            "id",
            "created_at",
            "background",
            "store",
            "previous_response_id",
        ] {
            if let Some(known) = self.kept.response.get(name).cloned() {
                set(response, name, known);
            }
        }
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
