//! The way of a request: check the edge, find the caller, read the call, decide, hold, send, relay,
//! settle. [`exchange`] is that list; everything it calls is one step.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use bytes::Bytes;
use dashmap::DashMap;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::{CONTENT_TYPE, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use meter::{Ledger, Meter, NanoUsd, Subject, Verdicts};
use percent_encoding::percent_decode_str;
use tokio_util::task::TaskTracker;
use tower::Service;
use tower::util::BoxCloneSyncService;
use wire::dialect::OPENAI_RESPONSES;
use wire::{Dialect, Refusal, RequestId, dialect};

use crate::admission::{Admission, Flight, Priority};
use crate::attempt::{Dispatch, deadline};
use crate::background::{self, Making};
use crate::clock::{now_ms, uptime_ms};
use crate::context::{Memory, Sessions};
use crate::economy::CacheHits;
use crate::guessing::{Guesses, Whom};
use crate::handover::MovingJournal;
use crate::idempotency::{self, Once};
use crate::identify::{self, Keys, Stranger, Vouched};
use crate::intake::{self, Inbound};
use crate::learning::Learned;
use crate::otlp::{Call, Otlp};
use crate::prepare::Canonical;
use crate::routing::{Deciding, Splits};
use crate::runtime::Runtime;
use crate::thrift::{self, Thrift};
use crate::trace::{Phase, Trace};
use crate::{
    calls, count, edge, machine, names, openapi, panics, refusal, request_log, responses, tasks,
    telemetry,
};

/// Why a body broke off.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;
/// Bodies of requests and answers.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;
/// Whoever answers the requests of a listener. Refusals are answers, so it never fails.
pub type Application = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;
/// The gateway; a caller inside the process sees exactly what one on the network sees.
pub type Gateway = Application;

/// What all calls share.
#[derive(Debug)]
pub struct Shared {
    pub(crate) runtime: ArcSwap<Runtime>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) journal: Arc<MovingJournal>,
    /// This process writes what only one of a node may; locked while it does.
    pub(crate) leads: Mutex<bool>,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) verdicts: Arc<dyn Verdicts>,
    pub(crate) keys: Keys,
    pub(crate) guesses: Guesses,
    pub(crate) splits: Splits,
    pub(crate) cache_hits: CacheHits,
    pub(crate) learned: Learned,
    pub(crate) admission: Arc<Admission>,
    /// Streams under way are to end now, visibly.
    pub(crate) cut: Arc<AtomicBool>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) sessions: Arc<Sessions>,
    /// Work that outlives the request that began it, and responses in the making by their id.
    pub(crate) tasks: TaskTracker,
    pub(crate) otlp: Otlp,
    pub(crate) background: DashMap<String, Arc<Making>>,
    pub(crate) once: Once,
    /// Who answers for tasks; empty where there are none.
    pub(crate) api: OnceLock<Gateway>,
}

/// The gateway over `shared`.
pub fn gateway(shared: Arc<Shared>) -> Gateway {
    BoxCloneSyncService::new(Exchanges(shared, None))
}

/// The same for the calls that come from `peer`.
pub(crate) fn gateway_for(shared: Arc<Shared>, peer: IpAddr) -> Gateway {
    BoxCloneSyncService::new(Exchanges(shared, Some(peer)))
}

/// The gateway as a service, with the address it serves. A call's future is some kilobytes, so it is made
/// where it stays.
#[derive(Debug, Clone)]
struct Exchanges(Arc<Shared>, Option<IpAddr>);

impl Service<Request<Body>> for Exchanges {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (shared, peer) = (Arc::clone(&self.0), self.1);
        Box::pin(async move { Ok(answer(shared, request, peer).await) })
    }
}

/// Answers one request, whatever it is, and wherever it comes from.
pub(crate) async fn answer(
    shared: Arc<Shared>,
    request: Request<Body>,
    peer: Option<IpAddr>,
) -> Response<Body> {
    let id = id_of(&request);
    let path = dialect::plain_path(request.uri().path()).into_owned();
    // No version of that API is demanded, and none is refused: an upstream judges it, where it gets it.
    let anthropic = names::find(request.headers(), "anthropic-version").is_some();
    let shown = dialect::shown_at(&path, anthropic);
    let mut trace = Trace::new(id, shown);
    trace.peer = peer;
    trace.call = shared.spanned(&request, id, &path);
    let work = AssertUnwindSafe(dispatch(&shared, request, &path, &mut trace)).catch_unwind();
    let outcome = work.await.unwrap_or_else(|_| {
        panics::caught(id);
        Err(refusal::panicked())
    });
    let mut response = outcome.unwrap_or_else(|refused| {
        told(&refused, &trace);
        refusal::response(&refused, shown, id)
    });
    billed(&mut response, &trace);
    if let Some(call) = &trace.call {
        call.answered(response.status());
    }
    if let Ok(id) = HeaderValue::from_bytes(&id.text()) {
        let headers = response.headers_mut();
        headers.insert(names::X_REQUEST_ID, id.clone());
        headers.insert(names::REQUEST_ID, id);
    }
    response
}

/// The id of a call: its own where it comes from inside, which writes it down before it calls.
fn id_of(request: &Request<Body>) -> RequestId {
    let given = request.extensions().get::<Vouched>();
    let given = given.and_then(|_| request.extensions().get::<RequestId>());
    given.copied().unwrap_or_else(new_id)
}

/// Says what the call has cost with all its attempts, those that failed and those that gave way as well. A
/// stream's cost is not known when its head goes out.
pub(crate) fn billed(response: &mut Response<Body>, trace: &Trace) {
    let kind = response.headers().get(CONTENT_TYPE);
    let is_stream = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    let cost = trace.charged();
    let is_told = response.headers().contains_key(names::COST);
    if (is_told || (!is_stream && cost != NanoUsd::ZERO))
        && let Ok(cost) = HeaderValue::from_str(&cost.to_usd())
    {
        response.headers_mut().insert(names::COST, cost);
    }
}

thread_local! {
    /// Random bytes that no id has used yet: the system is asked for many at a time.
    static RANDOM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// An id for a call that arrives now.
pub(crate) fn new_id() -> RequestId {
    let random = RANDOM.with_borrow_mut(|left| {
        if left.len() < 10 {
            left.resize(4_096, 0);
            // Without randomness ids would repeat, and with them ledger keys; the clock alone still differs.
            let _filled = machine::random(left);
        }
        let mut random = [0; 10];
        for (to, from) in random.iter_mut().zip(left.drain(left.len() - 10..)) {
            *to = from;
        }
        random
    });
    RequestId::new(u64::try_from(now_ms()).unwrap_or(0), random)
}

/// Counts and logs a refusal.
pub(crate) fn told(refused: &Refusal, trace: &Trace) {
    telemetry::refused(refused, trace.dialect.name());
    let tenant = trace.subject.as_ref().map(|subject| &subject.tenant);
    request_log::refused(refused, trace.request, tenant, trace.dialect.name());
    if let Some(call) = &trace.call {
        call.refused(refused, trace);
    }
    tracing::info!(
        target: "pareto::refusal",
        request = %trace.request,
        tenant = trace.subject.as_ref().map(|subject| &*subject.tenant),
        code = refused.code,
        fault = refused.fault.as_str(),
        status = refused.status,
    );
}

/// Finds what the path means.
async fn dispatch(
    shared: &Arc<Shared>,
    mut request: Request<Body>,
    path: &str,
    trace: &mut Trace,
) -> Result<Response<Body>, Refusal> {
    edge::admit(&request, path)?;
    if *request.method() == Method::HEAD {
        // Its connection leaves the body out.
        *request.method_mut() = Method::GET;
    }
    let is_post = *request.method() == Method::POST;
    match dialect::of_path(path) {
        Some(dialect) if is_post => {
            // Moved once, and not again in each of the futures around it.
            return Box::pin(exchange(shared, request, dialect, trace)).await;
        }
        Some(_) if *request.method() == Method::GET && request.headers().contains_key(UPGRADE) => {
            return Err(refusal::no_web_socket());
        }
        Some(_) => return Err(refusal::wrong_method(path, "POST")),
        None => {}
    }
    match count::counted_at(path) {
        Some(dialect) if is_post => {
            return Box::pin(count::tokens(shared, request, dialect, trace)).await;
        }
        Some(_) => return Err(refusal::wrong_method(path, "POST")),
        None => {}
    }
    if path == "/v1/feedback" {
        return if is_post {
            Box::pin(calls::judge(shared, request, trace)).await
        } else {
            Err(refusal::wrong_method(path, "POST"))
        };
    }
    if tasks::is_at(path) || tasks::is_response_at(path) {
        return Box::pin(tasks::answer(shared, request, path, trace)).await;
    }
    if let Some(rest) = responses::kept_at(path) {
        return Box::pin(responses::answer(shared, request, rest, trace)).await;
    }
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    if *request.method() != Method::GET {
        return match segments.as_slice() {
            ["*" | ""] | ["v1", "openapi.json"] | ["v1", "models", ..] | ["v1", "calls", _] => {
                Err(refusal::wrong_method(path, "GET, HEAD"))
            }
            _ => Err(refusal::no_such_path(request.uri().path())),
        };
    }
    match segments.as_slice() {
        // Clients look here to see whether anybody is at home.
        [""] => Ok(refusal::json(200, "{\"name\":\"pareto\"}".to_owned())),
        ["v1", "openapi.json"] => Ok(refusal::json(200, openapi::CALLERS.clone())),
        ["v1", "models"] => models(shared, &request, None, trace),
        ["v1", "models", model @ ..] => {
            // SDKs encode the stroke in a name.
            let model = model.join("/");
            let model = percent_decode_str(&model).decode_utf8_lossy();
            models(shared, &request, Some(&model), trace)
        }
        ["v1", "calls", id] => {
            let subject = shared.caller(&request, trace)?;
            Box::pin(calls::show(shared, &subject, id)).await
        }
        _ => Err(refusal::no_such_path(request.uri().path())),
    }
}

/// One call from request to answer.
async fn exchange(
    shared: &Arc<Shared>,
    request: Request<Body>,
    dialect: &'static dyn Dialect,
    trace: &mut Trace,
) -> Result<Response<Body>, Refusal> {
    let runtime = shared.runtime.load_full();
    let subject = shared.caller(&request, trace)?;
    trace.flight = Some(shared.admit(&subject, request.headers()).await?);
    let (limits, room) = (&runtime.limits, &shared.admission.room);
    let inbound = intake::read_call(request, dialect, limits, room).await;
    let inbound = inbound.map_err(|error| refusal::unreadable(&error))?;
    trace.lap(Phase::Parse);
    if tasks::is_task_model(&inbound.scan.model) && dialect.name() == OPENAI_RESPONSES.name() {
        return Box::pin(tasks::respond(shared, &subject, inbound)).await;
    }
    if let Some(key) = idempotency::key_of(&inbound.headers)? {
        let once = idempotency::answer(shared, runtime, key, inbound, trace, &subject);
        return Box::pin(once).await;
    }
    make(shared, &runtime, &subject, inbound, trace).await
}

/// A call that has been read, to its answer or to the promise of one.
pub(crate) async fn make(
    shared: &Arc<Shared>,
    runtime: &Runtime,
    subject: &Subject,
    inbound: Box<Inbound>,
    trace: &mut Trace,
) -> Result<Response<Body>, Refusal> {
    if inbound.scan.background {
        return Box::pin(background::begin(shared, subject, inbound, trace)).await;
    }
    converse(shared, runtime, subject, &inbound, trace).await
}

/// A call that has been read, from decision to answer.
pub(crate) async fn converse(
    shared: &Arc<Shared>,
    runtime: &Runtime,
    subject: &Subject,
    inbound: &Inbound,
    trace: &mut Trace,
) -> Result<Response<Body>, Refusal> {
    let deadline = deadline::of(&inbound.headers, trace.arrived)?;
    let context = shared.recall(subject, inbound).await?;
    let thrift = Thrift::of(shared, subject, trace.most, now_ms());
    let decided = shared.decide(&Deciding {
        runtime,
        subject,
        inbound,
        context: &context,
        thrift: &thrift,
        request: trace.request,
    })?;
    trace.remaining = thrift.remaining;
    trace.lap(Phase::Decide);
    let call = Dispatch {
        shared,
        runtime,
        subject,
        inbound,
        decided: &decided,
        context: &context,
        thrift: &thrift,
        request: trace.request,
        canonical: Canonical::new(),
        deadline,
        writes_out: AtomicBool::new(false),
    };
    let answer = call.run(trace).await;
    if answer.is_err() && trace.answered_by.is_none() {
        shared.forget(runtime, subject, &decided);
    }
    answer
}

/// A call that the gateway makes itself, on behalf of `subject`: routed, held and settled like any.
pub(crate) fn ask<'a>(
    shared: &'a Arc<Shared>,
    subject: &'a Subject,
    inbound: Inbound,
) -> BoxFuture<'a, Result<Response<Body>, Refusal>> {
    Box::pin(async move {
        let runtime = shared.runtime.load_full();
        let mut trace = Trace::new(new_id(), inbound.dialect);
        trace.subject = Some(subject.clone());
        trace.call = shared
            .otlp
            .begin(trace.request, inbound.dialect.name(), None);
        converse(shared, &runtime, subject, &inbound, &mut trace).await
    })
}

impl Shared {
    /// Begins the spans of a request for a model, where a collector gets them.
    fn spanned(&self, request: &Request<Body>, id: RequestId, path: &str) -> Option<Arc<Call>> {
        if !self.otlp.is_on() {
            return None;
        }
        let dialect = dialect::of_path(path)?.name();
        self.otlp.begin(id, dialect, Some(request.headers()))
    }

    /// Lets a call of `subject` in; see [`Admission::admit`].
    ///
    /// # Errors
    /// Why it is turned away.
    pub(crate) async fn admit(
        &self,
        subject: &Subject,
        headers: &HeaderMap,
    ) -> Result<Arc<Flight>, Refusal> {
        let asked = Priority::asked(headers)?;
        self.admission.admit(&subject.tenant, asked).await
    }

    /// Whose key the request bears, or who was vouched for inside.
    pub(crate) fn caller(
        &self,
        request: &Request<Body>,
        trace: &mut Trace,
    ) -> Result<Subject, Refusal> {
        let headers = request.headers();
        let mut subject = match request.extensions().get::<Vouched>() {
            Some(vouched) => vouched.0.clone().map_err(refusal::stranger),
            None => identify::subject(headers, &self.keys)
                .map_err(|stranger| self.strange(stranger, headers, trace)),
        }?;
        thrift::name(&mut subject, headers)?;
        trace.most = thrift::most(headers)?;
        trace.subject = Some(subject.clone());
        Ok(subject)
    }

    /// What a stranger is told. Who has sent too many wrong keys is told to wait.
    fn strange(&self, stranger: Stranger, headers: &HeaderMap, trace: &Trace) -> Refusal {
        if stranger != Stranger::WrongKey {
            return refusal::stranger(stranger);
        }
        let peer = trace.peer.map(Whom::Caller);
        let key = identify::claimed(headers).map(Whom::Key);
        let all: Vec<_> = peer.into_iter().chain(key).collect();
        match self.guessed("callers", &all) {
            Some(seconds) => refusal::guessing(seconds),
            None => refusal::stranger(stranger),
        }
    }

    /// Counts a wrong key at a door against `all`; for how many seconds to wait where it is one too many.
    pub(crate) fn guessed(&self, door: &'static str, all: &[Whom<'_>]) -> Option<u64> {
        let most = self.runtime.load().limits.wrong_keys;
        let wait = self.guesses.count(all, most, uptime_ms());
        telemetry::wrong_key(door, wait.is_some());
        wait
    }

    /// Does `work` unless another process has taken over, which then does it; and makes whoever takes over wait
    /// for its end.
    pub(crate) fn if_leading<T: Default>(&self, work: impl FnOnce() -> T) -> T {
        let leads = self.leads.lock().unwrap_or_else(PoisonError::into_inner);
        if *leads { work() } else { T::default() }
    }

    /// Says whether this process leads, once nobody is at what only the leading one does.
    pub(crate) fn lead(&self, leads: bool) {
        *self.leads.lock().unwrap_or_else(PoisonError::into_inner) = leads;
    }

    /// How many calls are under way.
    pub(crate) fn calls_in_flight(&self) -> usize {
        self.admission.taken()
    }
}

/// Lists the router's words and the models that can be named, or shows one of them, in the caller's
/// own shape.
fn models(
    shared: &Shared,
    request: &Request<Body>,
    one: Option<&str>,
    trace: &mut Trace,
) -> Result<Response<Body>, Refusal> {
    shared.caller(request, trace)?;
    let runtime = shared.runtime.load();
    let mut names = vec!["auto", "fast", "deep"];
    names.extend(runtime.targets.iter().map(|target| &*target.name));
    names.dedup();
    let Some(one) = one else {
        return Ok(refusal::json(200, trace.dialect.list_models(&names)));
    };
    if !names.contains(&one) {
        let known = names.join(", ");
        let name = one.to_owned();
        return Err(refusal::no_model(&router::NoModel::Unknown { name, known }));
    }
    Ok(refusal::json(200, trace.dialect.show_model(one)))
}
