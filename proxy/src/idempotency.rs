//! Calls that are made once, however often they are asked for: those with an `Idempotency-Key`, as
//! draft-ietf-httpapi-idempotency-key-header has it. Such a call is made to its end whoever listens; whoever sends
//! it again gets the same answer, or hears the rest of it. What this process remembers of them ends with it.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt, Full};
use meter::Subject;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use wire::{Refusal, RequestId};

use crate::admission::Taken;
use crate::gateway::{self, Body, Shared};
use crate::intake::Inbound;
use crate::names;
use crate::recording::{Recording, to_forget};
use crate::refusal;
use crate::runtime::Runtime;
use crate::trace::Trace;

/// The header, as it is looked for in those of a call.
const HEADER: &str = "idempotency-key";
/// Characters of a key.
const MOST: usize = 255;
/// Room for an answer is asked for in steps of so many bytes.
const STEP: usize = 64 << 10;

/// The calls that are made, or were lately, with their answers.
#[derive(Debug, Default)]
pub(crate) struct Once(DashMap<Name, Arc<Call>>);

/// Whose call it is, and the key it came with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Name {
    owner: Box<str>,
    key: Box<str>,
}

#[derive(Debug)]
struct Call {
    /// Under which it is in the ledger.
    request: RequestId,
    /// What was asked: the digest of dialect and body.
    asked: [u8; 32],
    head: watch::Sender<Option<Head>>,
    body: Recording,
}

/// How an answer begins.
type Head = Result<(StatusCode, HeaderMap), Refusal>;

/// The key that a call came with.
///
/// # Errors
/// When it is none that can be kept, or there are two.
pub(crate) fn key_of(headers: &HeaderMap) -> Result<Option<Box<str>>, Refusal> {
    let Some(key) = names::find(headers, HEADER) else {
        return Ok(None);
    };
    let is_alone = headers.get_all(HEADER).iter().nth(1).is_none();
    let key = key
        .to_str()
        .ok()
        .filter(|key| (1..=MOST).contains(&key.len()));
    match key {
        Some(key) if is_alone => Ok(Some(key.into())),
        _ => Err(refusal::bad_idempotency_key(MOST)),
    }
}

/// Answers a call that came with `key`: makes it where nobody has yet.
pub(crate) async fn answer(
    shared: &Arc<Shared>,
    runtime: Arc<Runtime>,
    key: Box<str>,
    inbound: Box<Inbound>,
    trace: &Trace,
    subject: &Subject,
) -> Result<Response<Body>, Refusal> {
    let name = Name {
        owner: (*subject.key).into(),
        key,
    };
    let mut digest = Sha256::new();
    digest.update(inbound.dialect.name());
    digest.update(&inbound.body);
    let asked = digest.finalize().into();
    let (call, is_repeat) = match shared.once.0.entry(name.clone()) {
        Entry::Occupied(known) => (Arc::clone(known.get()), true),
        Entry::Vacant(free) => {
            let call = Arc::new(Call {
                request: trace.request,
                asked,
                head: watch::Sender::default(),
                body: Recording::default(),
            });
            (Arc::clone(&free.insert(call)), false)
        }
    };
    if call.asked != asked {
        return Err(refusal::reused_idempotency_key(call.request));
    }
    let mut head = call.head.subscribe();
    if !is_repeat {
        let work = UnderWay {
            shared: Arc::clone(shared),
            name,
            call: Arc::clone(&call),
            is_kept: false,
        };
        let making = work.make(runtime, inbound, subject.clone(), trace.clone());
        shared.tasks.spawn(making);
    }
    // Whoever makes it says something, whatever becomes of it.
    let head = head.wait_for(Option::is_some).await;
    let head = head.ok().and_then(|head| head.clone());
    let (status, headers) = head.unwrap_or_else(|| Err(refusal::panicked()))?;
    let body = match call.body.whole() {
        Some(whole) => Full::new(whole)
            .map_err(|never| match never {})
            .boxed_unsync(),
        None => call.body.listen(0, trace.flight.clone()),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    if is_repeat {
        tracing::info!(target: "pareto::replay", request = %trace.request, first = %call.request);
        if let Ok(first) = HeaderValue::from_str(&call.request.to_string()) {
            response.headers_mut().insert(names::REPLAY_OF, first);
        }
    }
    Ok(response)
}

/// A call while it is made: whoever waits for it is not left waiting, even by a panic, and an answer that is none
/// is not kept, so that the next try is a call of its own.
struct UnderWay {
    shared: Arc<Shared>,
    name: Name,
    call: Arc<Call>,
    is_kept: bool,
}

impl UnderWay {
    /// Makes the call, to its end.
    async fn make(
        mut self,
        runtime: Arc<Runtime>,
        inbound: Box<Inbound>,
        subject: Subject,
        mut trace: Trace,
    ) {
        let made = gateway::make(&self.shared, &runtime, &subject, inbound, &mut trace).await;
        let (head, mut body) = match made {
            Ok(mut response) => {
                gateway::billed(&mut response, &trace);
                response.into_parts()
            }
            Err(refused) => return self.begin(Err(refused)),
        };
        let is_good = head.status.is_success();
        if !is_good {
            self.forget();
        }
        // What does not stream is there at once, and goes out with its length.
        let is_whole = body.size_hint().exact().is_some();
        let head = Ok((head.status, head.headers));
        if !is_whole {
            self.begin(head.clone());
        }
        let ended = self.keep(&mut body).await;
        self.is_kept = is_good && ended.is_ok();
        self.call.body.end(ended);
        if is_whole {
            self.begin(head);
        }
    }

    fn begin(&self, head: Head) {
        self.call.head.send_replace(Some(head));
    }

    /// Keeps the body's pieces as they come, for as long as there is room for them.
    async fn keep(&self, body: &mut Body) -> Result<(), &'static str> {
        let mut taken = Taken::default();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| "the answer broke off")?;
            let Ok(piece) = frame.into_data() else {
                continue;
            };
            let bytes = (self.call.body.bytes() + piece.len()).next_multiple_of(STEP);
            if !self.shared.admission.room.fits(&mut taken, bytes).await {
                return Err("no room came free for an answer that is kept for its Idempotency-Key");
            }
            self.call.body.tell(piece);
        }
        Ok(())
    }

    /// Has the next call with this key be one of its own.
    fn forget(&self) {
        let is_this = |_: &Name, call: &Arc<Call>| Arc::ptr_eq(call, &self.call);
        self.shared.once.0.remove_if(&self.name, is_this);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if !self.is_kept {
            self.forget();
        }
        self.call.head.send_if_modified(|head| {
            let is_silent = head.is_none();
            if is_silent {
                *head = Some(Err(refusal::panicked()));
            }
            is_silent
        });
        self.call.body.end(Err("the gateway failed over this call"));
    }
}

impl Once {
    /// Forgets answers that have been kept for `long`, or are too much. It looks at all of them: call it now and
    /// then.
    pub(crate) fn forget(&self, long: Duration) {
        let kept = self.0.iter();
        let kept = kept.filter_map(|call| Some((call.body.lasting()?, call.key().clone())));
        for name in to_forget(kept.collect(), long) {
            self.0.remove(&name);
        }
    }
}
