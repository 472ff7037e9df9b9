//! Model endpoints: connections, and the call itself.

// Connections and what is said on them.
mod answer;
mod client;
mod dial;
mod fields;
mod http1;
mod http2;
mod names;
mod pool;

mod keys;
mod pieces;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, Method, Response, Uri};
use http_body::Body as _;
use http_body_util::BodyExt;
use wire::{Dialect, RequestId};

use crate::care::Limit;
use crate::clock::uptime_ms;
use crate::config;
use crate::http1::head::connection_says;
use crate::intake::Inbound;
use crate::joined::Joined;
use crate::otlp::context::Spot;

pub(crate) use answer::Answer;
use client::{Call, Client};
use dial::NoConnection;
pub(crate) use dial::reach;
use fields::Fields;
pub(crate) use keys::Key;
use names::System;
pub(crate) use pieces::Pieces;

/// An endpoint, with its pool of connections.
pub(crate) struct Endpoint {
    pub(crate) name: std::sync::Arc<str>,
    pub(crate) dialect: &'static dyn Dialect,
    pub(crate) cap_field: String,
    /// Who is behind it: private parts of its answers go back to this and to nobody else.
    pub(crate) origin: std::sync::Arc<str>,
    /// Where it is, as the price book names it.
    pub(crate) region: Option<String>,
    uri: Uri,
    beta_uri: Uri,
    count_uri: Uri,
    /// The header that tells it how many milliseconds the caller waits.
    deadline_header: Option<HeaderName>,
    /// It is told which trace a call belongs to.
    pub(crate) traceparent: bool,
    /// How many calls it gets at once, where that is bounded.
    pub(crate) limit: Option<Arc<Limit>>,
    /// At least one.
    pub(crate) keys: Vec<Arc<Key>>,
    client: Arc<Client>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("name", &self.name)
            .field("uri", &self.uri)
            .finish_non_exhaustive()
    }
}

/// What an endpoint is told of a call besides the call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About {
    pub(crate) request: RequestId,
    pub(crate) attempt: u16,
    /// The endpoint speaks the caller's dialect.
    pub(crate) at_home: bool,
    /// How long the caller waits for the first content.
    pub(crate) left: Option<Duration>,
    /// Where the attempt stands in its trace, if that is told.
    pub(crate) spot: Option<Spot>,
}

/// How long an endpoint may take to delete what it keeps.
const PATIENCE: Duration = Duration::from_secs(10);

/// Headers of the endpoint that go back to the caller, besides rate limits.
const RETURNED: [&str; 4] = [
    "content-type",
    "cache-control",
    "openai-processing-ms",
    "openai-version",
];

impl Endpoint {
    /// An endpoint with no connection yet; what `before` knows of its keys is kept.
    pub(crate) fn build(
        endpoint: &config::Endpoint,
        patience: &config::Upstream,
        before: Option<&Self>,
    ) -> Result<Self, String> {
        let dialect = wire::dialect::named(&endpoint.dialect)
            .ok_or_else(|| format!("unknown dialect `{}`", endpoint.dialect))?;
        let base = endpoint.url.trim_end_matches('/');
        let at = |path: &str| {
            let uri = format!("{base}{path}").parse::<Uri>();
            uri.map_err(|error| format!("url `{base}`: {error}"))
        };
        let uri = at(dialect.upstream_path())?;
        let host = uri.authority().map_or(base, |authority| authority.as_str());
        let client = Arc::new(Client::new(
            &uri,
            endpoint.into(),
            patience,
            Arc::new(System),
        )?);
        Ok(Self {
            name: std::sync::Arc::from(endpoint.name.as_str()),
            dialect,
            cap_field: endpoint.cap_field.clone().unwrap_or_default(),
            origin: std::sync::Arc::from(endpoint.origin.as_deref().unwrap_or(host)),
            region: endpoint.region.clone(),
            beta_uri: at(&format!("{}?beta=true", dialect.upstream_path()))?,
            count_uri: at(&format!("{}/count_tokens", dialect.upstream_path()))?,
            uri,
            deadline_header: match &endpoint.deadline_header {
                Some(name) => Some(
                    HeaderName::from_bytes(name.as_bytes())
                        .map_err(|_| format!("`{name}` is no name of a header"))?,
                ),
                None => None,
            },
            traceparent: endpoint.traceparent,
            limit: limit(endpoint, before),
            keys: keys(endpoint, dialect, before)?,
            client,
        })
    }

    /// The host and port of its address.
    pub(crate) fn address(&self) -> (&str, u16) {
        let is_plain = self.uri.scheme_str() == Some("http");
        let port = self
            .uri
            .port_u16()
            .unwrap_or(if is_plain { 80 } else { 443 });
        (self.uri.host().unwrap_or_default(), port)
    }

    /// Sends a call. Ends when the endpoint's answer has begun; dropping it cancels the call.
    pub(crate) async fn send(
        &self,
        inbound: &Inbound,
        key: &Key,
        body: Pieces,
        about: About,
    ) -> Result<Response<Answer>, SendError> {
        let is_beta = about.at_home && inbound.is_beta;
        let uri = if is_beta { &self.beta_uri } else { &self.uri };
        let left = |header| {
            let left = about.left?.as_millis();
            Some((header, u64::try_from(left).unwrap_or(u64::MAX)))
        };
        let fields = Fields {
            attempt: Some(about.attempt),
            left_ms: self.deadline_header.as_ref().and_then(left),
            spot: about.spot,
            ..fields(key, &inbound.headers, about.request, about.at_home)
        };
        let call = Call::post(uri, fields, body);
        self.client.send(call).await
    }

    /// Asks how many tokens a call's prompt has; providers bill nothing for that. `None` where the
    /// endpoint does not say.
    pub(crate) async fn count(
        &self,
        headers: &HeaderMap,
        body: Pieces,
        request: RequestId,
    ) -> Option<Bytes> {
        let now = uptime_ms();
        let taken = self.keys.iter().find(|key| key.is_taken(now));
        let key = taken.or_else(|| self.keys.first())?;
        let fields = fields(key, headers, request, true);
        let call = Call::post(&self.count_uri, fields, body);
        let answer = self.client.send(call).await.ok()?;
        if !answer.status().is_success() {
            return None;
        }
        read_all(answer.into_body(), 64 << 10).await
    }

    /// What the endpoint has said, without the keys that it may repeat there: callers are to see none of them.
    pub(crate) fn without_keys(&self, said: Bytes) -> Bytes {
        let keys = self.keys.iter();
        keys.fold(said, |said, key| key.own.without_key(said))
    }

    /// Has the endpoint delete the response that it keeps as `id`. What is not there, or can not be
    /// asked for, is deleted.
    ///
    /// # Errors
    /// What went wrong, for people.
    pub(crate) async fn delete(&self, id: &str, request: RequestId) -> Result<(), String> {
        let uri = format!("{}/{id}", self.uri).parse::<Uri>();
        let uri = uri.map_err(|error| error.to_string())?;
        let nothing = HeaderMap::new();
        let mut failed = Ok(());
        for key in &self.keys {
            let call = Call {
                method: Method::DELETE,
                uri: &uri,
                fields: fields(key, &nothing, request, true),
                body: Pieces::from(Vec::new()),
            };
            let answer = tokio::time::timeout(PATIENCE, self.client.send(call)).await;
            let answer = answer.map_err(|_| "it did not answer in time".to_owned())?;
            let status = answer.map_err(|error| error.to_string())?.status();
            if status.is_success() {
                return Ok(());
            }
            if !matches!(status.as_u16(), 404 | 405 | 410 | 501) {
                failed = Err(format!("it answered with status {status}"));
            }
        }
        failed
    }

    /// Closes connections that nobody needed for a while, and those to addresses that are gone.
    pub(crate) async fn sweep(&self) {
        self.client.sweep().await;
    }
}

fn fields<'a>(
    key: &'a Key,
    caller: &'a HeaderMap,
    request: RequestId,
    at_home: bool,
) -> Fields<'a> {
    Fields {
        own: &key.own,
        caller,
        at_home,
        request,
        attempt: None,
        left_ms: None,
        spot: None,
    }
}

/// The limit of an endpoint, with what `before` has learned of it.
fn limit(endpoint: &config::Endpoint, before: Option<&Endpoint>) -> Option<Arc<Limit>> {
    let config = endpoint.concurrency?;
    let known = before.and_then(|it| it.limit.clone());
    let known = known.filter(|it| it.config() == config);
    Some(known.unwrap_or_else(|| Arc::new(Limit::new(config))))
}

/// The keys of an endpoint; of those that `before` has, what it knows is kept.
fn keys(
    endpoint: &config::Endpoint,
    dialect: &'static dyn Dialect,
    before: Option<&Endpoint>,
) -> Result<Vec<Arc<Key>>, String> {
    let mut made = Vec::new();
    for secret in endpoint.key.iter().chain(&endpoint.keys) {
        made.push(Key::new(dialect, Some(secret.expose()))?);
    }
    if made.is_empty() {
        made.push(Key::new(dialect, None)?);
    }
    let known = |key: Key| {
        let known = before.and_then(|it| it.keys.iter().find(|it| it.own == key.own));
        known.map_or_else(|| Arc::new(key), Arc::clone)
    };
    Ok(made.into_iter().map(known).collect())
}

/// The call got no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub(crate) struct SendError {
    /// A connection was there, so the endpoint may have seen the call.
    pub(crate) connected: bool,
    /// That connection had waited for its call, and ended with not a byte of an answer: the endpoint was most
    /// likely about to close it.
    pub(crate) is_stale: bool,
    /// The process can open no more connections.
    pub(crate) is_ours: bool,
    what: String,
}

impl From<NoConnection> for SendError {
    fn from(error: NoConnection) -> Self {
        Self {
            is_ours: error.is_ours,
            ..Self::unconnected(error)
        }
    }
}

impl SendError {
    /// There was no connection.
    fn unconnected(what: impl fmt::Display) -> Self {
        Self {
            connected: false,
            is_stale: false,
            is_ours: false,
            what: what.to_string(),
        }
    }

    /// There was one, and then not.
    fn cut(what: impl fmt::Display) -> Self {
        Self {
            connected: true,
            is_stale: false,
            is_ours: false,
            what: what.to_string(),
        }
    }
}

/// An error with its causes; HTTP clients hide the telling part at the bottom.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// Bytes of a value that is passed on to a caller.
const LONGEST: usize = 1_024;

/// Copies the headers that a caller may see.
pub(crate) fn returned(from: &HeaderMap, to: &mut HeaderMap) {
    for (name, value) in from {
        let text = name.as_str();
        let is_known = name == CONTENT_TYPE && to.contains_key(CONTENT_TYPE);
        // What is said to the connection alone, and what would not fit a caller's bounds, ends here.
        if is_known || value.len() > LONGEST || connection_says(from, text) {
            continue;
        }
        if RETURNED.contains(&text)
            || text.starts_with("x-ratelimit-")
            || text.starts_with("anthropic-ratelimit-")
        {
            to.append(name.clone(), value.clone());
        }
    }
    let named = |name| crate::names::find(from, name);
    let id = named("request-id").or_else(|| named("x-request-id"));
    if let Some(id) = id {
        to.insert(crate::names::UPSTREAM_ID, id.clone());
    }
}

/// Everything of a body up to `limit` bytes; `None` when it is longer or breaks off.
pub(crate) async fn read_all(mut body: Answer, limit: usize) -> Option<Bytes> {
    let expected = body.size_hint().exact().unwrap_or(0);
    let expected = usize::try_from(expected).ok()?;
    if expected > limit {
        return None;
    }
    let mut joined = Joined::default();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.ok()?.into_data() else {
            continue;
        };
        if !joined.push(data, expected, limit) {
            return None;
        }
    }
    Some(joined.finish())
}
