//! Streamable HTTP through the one connector that everything goes out by. Headers of the operator's are
//! put in here and nowhere else, so that no error or log line of the layers above can carry them.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use rmcp::model::{ClientJsonRpcMessage, ClientRequest, ErrorData, ServerJsonRpcMessage};
use rmcp::transport::streamable_http_client::{
    SseError, StreamableHttpClient, StreamableHttpError, StreamableHttpPostResponse,
};
use sse_stream::{Sse, SseStream};
use tower::ServiceExt;

use super::lease;
use crate::outbound::{Body, NotConnected, Outbound, RanOut, Sent};

const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");
const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";
/// Bytes of an answer in one piece. Results are cut further up; this only bounds what is read.
const LONGEST: usize = 64 << 20;
/// Bytes of an answer that is no success.
const LONGEST_REFUSAL: usize = 64 << 10;

/// A request over HTTP came to nothing.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(super) struct HttpFailed {
    what: String,
    /// Nobody has acted on it: there was no connection, or the server turned it away.
    pub(super) is_harmless: bool,
}

type Failed = StreamableHttpError<HttpFailed>;

fn failed(what: impl Into<String>) -> Failed {
    StreamableHttpError::Client(HttpFailed {
        what: what.into(),
        is_harmless: false,
    })
}

/// The client of one server.
#[derive(Debug, Clone)]
pub(super) struct Web {
    outbound: Outbound,
    headers: HeaderMap,
}

impl Web {
    pub(super) fn new(outbound: Outbound, headers: HeaderMap) -> Self {
        Self { outbound, headers }
    }

    async fn send(
        &self,
        method: Method,
        uri: &str,
        session: Option<&str>,
        custom: HashMap<HeaderName, HeaderValue>,
        body: Option<Sent>,
    ) -> Result<Response<Body>, Failed> {
        let has_body = body.is_some();
        let mut request = Request::new(body.unwrap_or_default());
        *request.method_mut() = method;
        *request.uri_mut() = uri
            .parse()
            .map_err(|error| failed(format!("the url is no address: {error}")))?;
        let headers = request.headers_mut();
        headers.extend(self.headers.clone());
        headers.extend(custom);
        headers.insert(
            ACCEPT,
            HeaderValue::from_static("application/json, text/event-stream"),
        );
        if has_body {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
        } else {
            headers.insert(ACCEPT, HeaderValue::from_static(EVENTS));
        }
        if let Some(session) = session {
            let session = HeaderValue::from_str(session)
                .map_err(|_| failed("the session's id can not be a header"))?;
            headers.insert(SESSION, session);
        }
        let answer = self.outbound.clone().oneshot(request).await;
        answer.map_err(|error| {
            if error.is::<RanOut>() {
                return StreamableHttpError::Io(io::Error::other(RanOut));
            }
            StreamableHttpError::Client(HttpFailed {
                is_harmless: error.is::<NotConnected>(),
                what: error.to_string(),
            })
        })
    }
}

impl StreamableHttpClient for Web {
    type Error = HttpFailed;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        _auth: Option<String>,
        custom: HashMap<HeaderName, HeaderValue>,
    ) -> Result<StreamableHttpPostResponse, Failed> {
        self.post_message_with_max_sse_event_size(uri, message, session, None, custom, LONGEST)
            .await
    }

    async fn post_message_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        _auth: Option<String>,
        custom: HashMap<HeaderName, HeaderValue>,
        longest: usize,
    ) -> Result<StreamableHttpPostResponse, Failed> {
        let body = Bytes::from(serde_json::to_vec(&message)?);
        let had_session = session.is_some();
        let answer = self
            .send(
                Method::POST,
                &uri,
                session.as_deref(),
                custom,
                Some(Sent::new(body, lease::until(&message))),
            )
            .await?;
        let status = answer.status();
        if matches!(status, StatusCode::ACCEPTED | StatusCode::NO_CONTENT) {
            return Ok(StreamableHttpPostResponse::Accepted);
        }
        if status == StatusCode::NOT_FOUND && had_session {
            return Err(StreamableHttpError::SessionExpired);
        }
        let kind = kind(answer.headers());
        let named = answer.headers().get(SESSION);
        let session = named.and_then(|id| Some(id.to_str().ok()?.to_owned()));
        if !status.is_success() {
            return refused(&message, had_session, answer).await;
        }
        if kind == Some(EVENTS) {
            let stream = events(answer.into_body(), longest);
            return Ok(StreamableHttpPostResponse::Sse(stream, session));
        }
        let is_request = matches!(message, ClientJsonRpcMessage::Request(_));
        let body = whole(answer.into_body(), LONGEST).await?;
        match serde_json::from_slice::<ServerJsonRpcMessage>(&body) {
            Ok(parsed) if kind == Some(JSON) => {
                Ok(StreamableHttpPostResponse::Json(parsed, session))
            }
            // Nothing waits for an answer to a notification, whatever it looks like.
            _ if !is_request => Ok(StreamableHttpPostResponse::Accepted),
            Ok(_) => Err(StreamableHttpError::UnexpectedContentType(None)),
            Err(error) => Err(failed(format!("the answer is no message: {error}"))),
        }
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session: Arc<str>,
        _auth: Option<String>,
        custom: HashMap<HeaderName, HeaderValue>,
    ) -> Result<(), Failed> {
        let answer = self
            .send(Method::DELETE, &uri, Some(&session), custom, None)
            .await?;
        // Servers without this answer 405; a session that is gone is deleted.
        match answer.status() {
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_FOUND => Ok(()),
            status if status.is_success() => Ok(()),
            status => Err(failed(format!(
                "the session's end was answered with {status}"
            ))),
        }
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last_event: Option<String>,
        _auth: Option<String>,
        custom: HashMap<HeaderName, HeaderValue>,
    ) -> Result<BoxStream<'static, Result<Sse, SseError>>, Failed> {
        self.get_stream_with_max_sse_event_size(uri, session, last_event, None, custom, LONGEST)
            .await
    }

    async fn get_stream_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last_event: Option<String>,
        _auth: Option<String>,
        mut custom: HashMap<HeaderName, HeaderValue>,
        longest: usize,
    ) -> Result<BoxStream<'static, Result<Sse, SseError>>, Failed> {
        if let Some(id) = last_event {
            let id = HeaderValue::from_str(&id)
                .map_err(|_| failed("an event's id can not be a header"))?;
            custom.insert(LAST_EVENT, id);
        }
        let answer = self
            .send(Method::GET, &uri, session.as_deref(), custom, None)
            .await?;
        match answer.status() {
            StatusCode::METHOD_NOT_ALLOWED => Err(StreamableHttpError::ServerDoesNotSupportSse),
            StatusCode::NOT_FOUND if session.is_some() => Err(StreamableHttpError::SessionExpired),
            status if !status.is_success() => {
                Err(failed(format!("a stream was answered with {status}")))
            }
            _ if kind(answer.headers()) != Some(EVENTS) => {
                Err(StreamableHttpError::UnexpectedContentType(None))
            }
            _ => Ok(events(answer.into_body(), longest)),
        }
    }
}

/// What an answer means that is no success.
async fn refused(
    message: &ClientJsonRpcMessage,
    had_session: bool,
    answer: Response<Body>,
) -> Result<StreamableHttpPostResponse, Failed> {
    let status = answer.status();
    let is_json = kind(answer.headers()) == Some(JSON);
    let body = whole(answer.into_body(), LONGEST_REFUSAL).await;
    let told = body.ok().filter(|_| is_json);
    let told = told.and_then(|body| serde_json::from_slice::<ServerJsonRpcMessage>(&body).ok());
    let told = match told {
        Some(ServerJsonRpcMessage::Error(error)) => Some(error.error),
        _ => None,
    };
    let is_closed = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
    if let ClientJsonRpcMessage::Request(request) = message {
        let is_probe = matches!(request.request, ClientRequest::DiscoverRequest(_));
        // A server of before the discovery turns it away in whatever way it has; that it did is the
        // answer. Its error can not name the request, so it is named here.
        let answers_probe = is_probe && !had_session && status.is_client_error() && !is_closed;
        let error = match told {
            Some(error) if !is_closed => Some(error),
            _ if answers_probe => Some(ErrorData::invalid_request(
                format!("the discovery was answered with {status}"),
                None,
            )),
            _ => None,
        };
        if let Some(error) = error {
            let error = ServerJsonRpcMessage::error(error, Some(request.id.clone()));
            return Ok(StreamableHttpPostResponse::Json(error, None));
        }
    }
    let is_harmless = matches!(status.as_u16(), 300..=399 | 401 | 403..=406 | 413 | 415 | 429);
    Err(StreamableHttpError::Client(HttpFailed {
        what: format!("the server answered with {status}"),
        is_harmless,
    }))
}

/// Which of the two kinds of content it is.
fn kind(headers: &HeaderMap) -> Option<&'static str> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let plain = text.split(';').next().unwrap_or_default().trim();
    [JSON, EVENTS]
        .into_iter()
        .find(|kind| plain.eq_ignore_ascii_case(kind))
}

async fn whole(mut body: Body, limit: usize) -> Result<Bytes, Failed> {
    let mut joined = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| failed(format!("the answer broke off: {error}")))?;
        if let Ok(data) = frame.into_data() {
            if data.len() > limit.saturating_sub(joined.len()) {
                return Err(StreamableHttpError::ResponseBodyTooLarge { max_size: limit });
            }
            joined.extend_from_slice(&data);
        }
    }
    Ok(joined.into())
}

/// The events of a body, none longer than `longest`.
fn events(body: Body, longest: usize) -> BoxStream<'static, Result<Sse, SseError>> {
    let mut size = EventSize::default();
    let bytes = body.into_data_stream().map(move |piece| {
        let piece = piece.map_err(|error| HttpFailed {
            what: format!("the stream broke off: {error}"),
            is_harmless: false,
        })?;
        if size.grow(&piece) > longest {
            return Err(HttpFailed {
                what: format!("an event is longer than {longest} bytes"),
                is_harmless: false,
            });
        }
        Ok(piece)
    });
    SseStream::from_bytes_stream(bytes).boxed()
}

/// How long the event is by now whose end has not come.
#[derive(Debug, Default)]
struct EventSize {
    bytes: usize,
    at_line_start: bool,
}

impl EventSize {
    /// The longest that it was while `piece` came.
    fn grow(&mut self, piece: &[u8]) -> usize {
        let mut longest = self.bytes;
        for byte in piece {
            match byte {
                b'\n' if self.at_line_start => self.bytes = 0,
                b'\n' => self.at_line_start = true,
                b'\r' => {}
                _ => self.at_line_start = false,
            }
            self.bytes = self.bytes.saturating_add(1);
            longest = longest.max(self.bytes);
        }
        longest
    }
}

/// What an error of the transport says of the request: whether nobody can have acted on it.
pub(super) fn is_harmless(error: &(dyn std::error::Error + 'static)) -> bool {
    matches!(
        error.downcast_ref::<Failed>(),
        Some(StreamableHttpError::Client(HttpFailed {
            is_harmless: true,
            ..
        }))
    )
}

/// Whether an error of the transport is that a lease ran out.
pub(super) fn ran_out(error: &(dyn std::error::Error + 'static)) -> bool {
    let Some(StreamableHttpError::Io(error)) = error.downcast_ref::<Failed>() else {
        return false;
    };
    lease::ran_out(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_measured_one_by_one() {
        let mut size = EventSize::default();
        assert!(size.grow(b"data: 1234\n\n") <= 12);
        assert!(size.grow(b"data: 1234\r\n\r\n") <= 15);
        size.grow(b"data: ");
        assert!(size.grow(&[b'x'; 100]) > 100);
    }
}
