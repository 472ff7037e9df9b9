//! Model endpoints: connections, the call itself, and what is known of their health.

// Connections and what is said on them.
mod answer;
mod client;
mod dial;
mod fields;
mod http1;
mod pool;

mod health;
mod pieces;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Response, Uri};
use http_body::Body as _;
use http_body_util::BodyExt;
use wire::{Dialect, RequestId};

use crate::config;
use crate::intake::Inbound;
use crate::joined::Joined;
use crate::names;

pub(crate) use answer::Answer;
use client::{Call, Client};
pub(crate) use dial::reach;
use fields::{Fields, Own};
pub(crate) use health::Health;
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
    own: Own,
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
    /// An endpoint with no connection yet.
    pub(crate) fn build(
        endpoint: &config::Endpoint,
        patience: &config::Upstream,
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
        let key = endpoint.key.as_ref().map(config::Secret::expose);
        let client = Arc::new(Client::new(&uri, endpoint.http2, patience)?);
        Ok(Self {
            name: std::sync::Arc::from(endpoint.name.as_str()),
            dialect,
            cap_field: endpoint.cap_field.clone().unwrap_or_default(),
            origin: std::sync::Arc::from(endpoint.origin.as_deref().unwrap_or(host)),
            region: endpoint.region.clone(),
            beta_uri: at(&format!("{}?beta=true", dialect.upstream_path()))?,
            count_uri: at(&format!("{}/count_tokens", dialect.upstream_path()))?,
            uri,
            own: Own::new(dialect, key)?,
            client,
        })
    }

    /// Sends a call. Ends when the endpoint's answer has begun; dropping it cancels the call.
    pub(crate) async fn send(
        &self,
        inbound: &Inbound,
        body: Pieces,
        request: RequestId,
        attempt: u16,
        at_home: bool,
    ) -> Result<Response<Answer>, SendError> {
        let is_beta = at_home && inbound.is_beta;
        let uri = if is_beta { &self.beta_uri } else { &self.uri };
        let fields = Fields {
            attempt: Some(attempt),
            ..self.fields(&inbound.headers, request, at_home)
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
        let fields = self.fields(headers, request, true);
        let call = Call::post(&self.count_uri, fields, body);
        let answer = self.client.send(call).await.ok()?;
        if !answer.status().is_success() {
            return None;
        }
        read_all(answer.into_body(), 64 << 10).await
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
        let call = Call {
            method: Method::DELETE,
            uri: &uri,
            fields: self.fields(&nothing, request, true),
            body: Pieces::from(Vec::new()),
        };
        let answer = tokio::time::timeout(PATIENCE, self.client.send(call)).await;
        let answer = answer.map_err(|_| "it did not answer in time".to_owned())?;
        let status = answer.map_err(|error| error.to_string())?.status();
        if status.is_success() || matches!(status.as_u16(), 404 | 405 | 410 | 501) {
            Ok(())
        } else {
            Err(format!("it answered with status {status}"))
        }
    }

    /// Closes connections that nobody needed for a while.
    pub(crate) fn sweep(&self) {
        self.client.sweep();
    }

    fn fields<'a>(
        &'a self,
        caller: &'a HeaderMap,
        request: RequestId,
        at_home: bool,
    ) -> Fields<'a> {
        Fields {
            own: &self.own,
            caller,
            at_home,
            request,
            attempt: None,
        }
    }
}

/// The call got no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub(crate) struct SendError {
    /// A connection was there, so the endpoint may have seen the call.
    pub(crate) connected: bool,
    what: String,
}

impl SendError {
    /// There was no connection.
    fn unconnected(what: impl fmt::Display) -> Self {
        Self {
            connected: false,
            what: what.to_string(),
        }
    }

    /// There was one, and then not.
    fn cut(what: impl fmt::Display) -> Self {
        Self {
            connected: true,
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

/// Copies the headers that a caller may see.
pub(crate) fn returned(from: &HeaderMap, to: &mut HeaderMap) {
    for (name, value) in from {
        let text = name.as_str();
        let is_known = name == CONTENT_TYPE && to.contains_key(CONTENT_TYPE);
        if is_known {
            continue;
        }
        if RETURNED.contains(&text)
            || text.starts_with("x-ratelimit-")
            || text.starts_with("anthropic-ratelimit-")
        {
            to.append(name.clone(), value.clone());
        }
    }
    if let Some(id) = from.get("request-id").or_else(|| from.get("x-request-id")) {
        to.insert(names::UPSTREAM_ID, id.clone());
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
