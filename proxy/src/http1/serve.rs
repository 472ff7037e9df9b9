//! A connection from its first request to its last: read a head, have whoever answers here do so, write the
//! answer, and the same again while both sides want to.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, EXPECT, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::time::Instant;
use tower::Service;

use super::chunked::BadChunk;
use super::date;
use super::head::{self, BadHead, Bounds, RequestHead, connection_says};
use super::line::{Line, NoHead, Socket};
use super::upload::{self, Receiver};
use crate::config::Limits;
use crate::gateway::{Application, Body};

/// Bytes of an answer that are gathered before they are written: what came together leaves together.
const GATHER: usize = 64 << 10;
/// And pieces of it: as many as one write takes.
const PIECES: usize = 32;

/// Who answers, and within which limits.
pub(crate) struct Caller<'a> {
    pub(crate) application: Application,
    pub(crate) limits: &'a Limits,
    /// The gateway is about to end: connections close after their answer.
    pub(crate) draining: &'a AtomicBool,
    /// It takes no more requests: idle connections close.
    pub(crate) closed: &'a AtomicBool,
    /// Requests that this connection may make.
    pub(crate) requests: usize,
    pub(crate) refuse: Refuse,
}

/// How a request that can not be read is answered, by the path that it seems to have.
pub(crate) type Refuse = fn(&BadRequest, &str) -> Response<Body>;

/// A request that never reaches whoever answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadRequest {
    #[error(transparent)]
    Head(#[from] BadHead),
    #[error(transparent)]
    Body(#[from] BadChunk),
    #[error("nothing but `100-continue` can be expected here")]
    Expectation,
    #[error("the head did not come in time")]
    Slow,
}

impl BadRequest {
    /// The status of its answer.
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::Head(BadHead::LongTarget) => 414,
            Self::Head(BadHead::TooLarge(..)) => 431,
            Self::Head(BadHead::Method | BadHead::Coding(_)) => 501,
            Self::Head(BadHead::Version) => 505,
            Self::Head(BadHead::FirstLine | BadHead::Field | BadHead::Framing(_))
            | Self::Body(_) => 400,
            Self::Expectation => 417,
            Self::Slow => 408,
        }
    }
}

/// Serves a connection whose first bytes are in `first`, to its end.
pub(crate) async fn serve<S: Socket>(socket: S, first: BytesMut, mut caller: Caller<'_>) {
    let limits = caller.limits;
    let patience = Duration::from_millis(limits.head_timeout_ms);
    let bounds = Bounds {
        bytes: limits.head_bytes,
        fields: limits.headers,
        // What the standard recommends at least, and a word around it.
        line: limits.head_bytes.min(8_192 + 64),
    };
    let mut line = Line::new(socket, first, Instant::now() + patience);
    let mut idle = patience;
    let (draining, closed) = (caller.draining, caller.closed);
    let is_closed = || closed.load(Ordering::Relaxed);
    for left in (0..caller.requests).rev() {
        let found = line.head(bounds, idle, patience, is_closed).await;
        let (read, head) = match found {
            Ok(head) => (head::request(&head).map_err(BadRequest::from), head),
            Err(NoHead::Quiet) => break,
            Err(NoHead::Slow) => (Err(BadRequest::Slow), line.inbox.split().freeze()),
            Err(NoHead::Bad(bad)) => (Err(bad.into()), line.inbox.split().freeze()),
        };
        let begun = read.and_then(|read| begin(read, &mut line.inbox, limits));
        let (request, mut receiver, asked) = match begun {
            Ok(begun) => begun,
            Err(bad) => {
                let refused = (caller.refuse)(&bad, &path_of(&head));
                let asked = Asked::last(head.starts_with(b"HEAD "));
                drop(head);
                return match answer(&mut line, refused, &asked, limits).await {
                    End::Whole { .. } => line.close(limits.body_bytes).await,
                    End::Cut => {}
                    End::Spoilt => line.spoil(),
                };
            }
        };
        drop(head);
        let called = call(&mut line, &mut caller.application, request, &mut receiver).await;
        let Some(response) = called else { return };
        let stays = asked.stays
            && left > 0
            && !draining.load(Ordering::Relaxed)
            && receiver.is_none_or(|it| it.is_done() && !it.is_broken)
            && !connection_says(response.headers(), "close");
        let asked = Asked { stays, ..asked };
        match answer(&mut line, response, &asked, limits).await {
            End::Whole { stays: true } => {}
            End::Whole { stays: false } => return line.close(limits.body_bytes).await,
            End::Cut => return,
            End::Spoilt => return line.spoil(),
        }
        idle = Duration::from_millis(limits.idle_timeout_ms);
    }
}

/// What of a request its answer depends on.
#[derive(Debug, Clone, Copy)]
struct Asked {
    version: Version,
    is_head: bool,
    /// Another request may follow.
    stays: bool,
}

impl Asked {
    /// Of a request that was not understood.
    fn last(is_head: bool) -> Self {
        Self {
            version: Version::HTTP_11,
            is_head,
            stays: false,
        }
    }
}

/// A request whose body begins in `inbox`.
fn begin(
    mut head: RequestHead,
    inbox: &mut BytesMut,
    limits: &Limits,
) -> Result<(Request<Body>, Option<Receiver>, Asked), BadRequest> {
    let framing = head::framing(head.version, &head.headers)?;
    let is_new = head.version == Version::HTTP_11;
    let mut expects = false;
    for expected in head.headers.get_all(EXPECT) {
        if !expected.as_bytes().eq_ignore_ascii_case(b"100-continue") {
            return Err(BadRequest::Expectation);
        }
        expects = is_new;
    }
    let says = |option| connection_says(&head.headers, option);
    let has_options = head.headers.contains_key(CONNECTION);
    let asked = Asked {
        version: head.version,
        is_head: head.method == Method::HEAD,
        // What follows CONNECT would be no request.
        stays: head.method != Method::CONNECT
            && if is_new {
                !(has_options && says("close"))
            } else {
                has_options && says("keep-alive") && !says("close")
            },
    };
    if has_options {
        drop_nominated(&mut head.headers);
    }
    let (upload, mut receiver) = upload::begin(framing, inbox, limits.body_bytes)?;
    if inbox.is_empty() {
        // What was read is the request's now; an idle connection keeps nothing.
        *inbox = BytesMut::new();
    }
    if let Some(receiver) = &mut receiver {
        receiver.expects = expects;
    }
    let mut request = Request::new(upload.boxed_unsync());
    *request.method_mut() = head.method;
    *request.uri_mut() = head.uri;
    *request.version_mut() = head.version;
    *request.headers_mut() = head.headers;
    Ok((request, receiver, asked))
}

/// Drops fields that `Connection` says are for this connection alone. Those that say what the request is and
/// where it ends are not its to take away.
fn drop_nominated(headers: &mut HeaderMap) {
    let kept = [HOST, CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, UPGRADE];
    let named = headers.get_all(CONNECTION).iter();
    let named = named.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let named = named.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok());
    let named: Vec<_> = named.filter(|name| !kept.contains(name)).collect();
    for name in named {
        headers.remove(name);
    }
}

/// The path that a request seems to have; `/` where it has none.
fn path_of(head: &[u8]) -> String {
    let line = head
        .split(|byte| matches!(byte, b'\r' | b'\n'))
        .find(|it| !it.is_empty());
    let mut words = line
        .into_iter()
        .flat_map(|line| line.split(|byte| *byte == b' '));
    let target = words.by_ref().skip(1).find(|word| !word.is_empty());
    let path = target.and_then(|it| it.split(|byte| *byte == b'?').next());
    // In absolute form the path stands behind the host.
    let path = path.map(|it| match it.windows(3).position(|three| three == b"://") {
        Some(at) => {
            let rest = it.get(at + 3..).unwrap_or_default();
            let slash = rest.iter().position(|byte| *byte == b'/');
            rest.get(slash.unwrap_or(rest.len())..).unwrap_or_default()
        }
        None => it,
    });
    let path = path.filter(|path| path.first() == Some(&b'/') && path.is_ascii());
    path.map_or_else(
        || "/".to_owned(),
        |path| String::from_utf8_lossy(path).into_owned(),
    )
}

/// Has the request answered. `None` when the caller left before; that ends the call.
async fn call<S: Socket>(
    line: &mut Line<S>,
    application: &mut Application,
    request: Request<Body>,
    receiver: &mut Option<Receiver>,
) -> Option<Response<Body>> {
    let mut calling = Service::call(application, request);
    poll_fn(|context| {
        loop {
            if let Poll::Ready(answered) = calling.as_mut().poll(context) {
                return Poll::Ready(match answered {
                    Ok(response) => Some(response),
                    Err(never) => match never {},
                });
            }
            match receiver {
                Some(receiver) if receiver.is_wanted(context) => {
                    ready!(line.poll_body(receiver, context));
                }
                Some(receiver) if !receiver.is_done() => return Poll::Pending,
                _ => return line.poll_gone(context).map(|()| None),
            }
        }
    })
    .await
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// All of it is out; another request may follow.
    Whole { stays: bool },
    /// The caller left, or the body broke off where its coding shows that.
    Cut,
    /// The connection must not end as if all were well, or the caller does not read at all.
    Spoilt,
}

/// Writes an answer.
async fn answer<S: Socket>(
    line: &mut Line<S>,
    response: Response<Body>,
    asked: &Asked,
    limits: &Limits,
) -> End {
    let (parts, body) = response.into_parts();
    let exact = body.size_hint().exact();
    let status = parts.status;
    let has_none = status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
        || status.is_informational();
    let is_open = exact.is_none() && !has_none && !asked.is_head;
    let is_chunked = is_open && asked.version == Version::HTTP_11;
    // HTTP/1.0 knows no other end of such a body than that of the connection.
    let stays = asked.stays && (is_chunked || !is_open);
    let head = line.outbox.head();
    head.reserve(1_000);
    write_head(head, status, &parts.headers);
    // Whoever answers HEAD may leave the body out, and says then how long it would be.
    let said = (asked.is_head && !has_none).then(|| parts.headers.get(CONTENT_LENGTH));
    if let Some(length) = said.flatten() {
        field(head, "content-length", length.as_bytes());
    } else if let Some(length) = exact.filter(|_| !has_none) {
        field(head, "content-length", length.to_string().as_bytes());
    } else if is_chunked {
        head.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    if status == StatusCode::UPGRADE_REQUIRED {
        head.extend_from_slice(b"connection: upgrade\r\n");
    }
    if !stays {
        head.extend_from_slice(b"connection: close\r\n");
    } else if asked.version == Version::HTTP_10 {
        head.extend_from_slice(b"connection: keep-alive\r\n");
    }
    head.extend_from_slice(b"\r\n");
    drop(parts);
    let mut answer = Answer {
        body: (!asked.is_head && !has_none).then_some(body),
        is_chunked,
        is_broken: false,
        waits: false,
        stuck: None,
        patience: Duration::from_millis(limits.write_timeout_ms),
    };
    match poll_fn(|context| answer.poll(line, context)).await {
        Ok(()) if !answer.is_broken => End::Whole { stays },
        Ok(()) if is_open && !is_chunked => End::Spoilt,
        Err(error) if error.kind() == io::ErrorKind::TimedOut => End::Spoilt,
        Ok(()) | Err(_) => End::Cut,
    }
}

/// Where an answer stands.
struct Answer {
    body: Option<Body>,
    is_chunked: bool,
    /// The body broke off: what is there goes out, and then the connection ends visibly.
    is_broken: bool,
    /// The body has nothing more at the moment, and will say when it has.
    waits: bool,
    /// Since when nothing could be written.
    stuck: Option<Instant>,
    patience: Duration,
}

impl Answer {
    /// Brings the body out. It is asked for more only when what it gave is out.
    fn poll<S: Socket>(
        &mut self,
        line: &mut Line<S>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        self.waits = false;
        loop {
            if self.stuck.is_none() && !self.waits {
                self.gather(line, context);
            }
            if !line.outbox.is_empty() {
                match line.poll_out(context) {
                    Poll::Ready(written) => written?,
                    Poll::Pending => return self.poll_stuck(line, context),
                }
                self.stuck = None;
                line.outbox.moved = false;
            }
            if self.body.is_none() {
                return Poll::Ready(Ok(()));
            }
            if self.waits {
                ready!(line.poll_gone(context));
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
        }
    }

    /// Takes from the body what is there.
    fn gather<S: Socket>(&mut self, line: &mut Line<S>, context: &mut Context<'_>) {
        let Some(body) = &mut self.body else { return };
        let (mut length, mut is_whole) = (0, false);
        while length < GATHER && line.outbox.pieces() < PIECES {
            match Pin::new(&mut *body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        length += data.len();
                        line.outbox.push(data);
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    tracing::debug!(%error, "an answer broke off");
                    self.is_broken = true;
                    break;
                }
                Poll::Ready(None) => {
                    is_whole = true;
                    break;
                }
                Poll::Pending => {
                    self.waits = true;
                    break;
                }
            }
        }
        if is_whole || self.is_broken {
            self.body = None;
        }
        if self.is_chunked {
            line.outbox.chunk(length, is_whole);
        }
    }

    /// Nothing can be written: the caller does not read, and gets some time to.
    fn poll_stuck<S: Socket>(
        &mut self,
        line: &mut Line<S>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let since = match self.stuck {
            Some(since) if !line.outbox.moved => since,
            _ => Instant::now(),
        };
        line.outbox.moved = false;
        self.stuck = Some(since);
        ready!(line.poll_alarm(since + self.patience, context));
        tracing::debug!("a caller does not read its answer");
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Writes a status line and the fields that are not about the connection.
fn write_head(head: &mut Vec<u8>, status: StatusCode, headers: &HeaderMap) {
    head.extend_from_slice(b"HTTP/1.1 ");
    head.extend_from_slice(status.as_str().as_bytes());
    head.push(b' ');
    head.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    head.extend_from_slice(b"\r\n");
    for (name, value) in headers {
        if name == CONNECTION || name == TRANSFER_ENCODING || name == CONTENT_LENGTH {
            continue;
        }
        field(head, name.as_str(), value.as_bytes());
    }
    if !headers.contains_key(DATE) {
        head.extend_from_slice(b"date: ");
        date::write(head);
        head.extend_from_slice(b"\r\n");
    }
}

fn field(head: &mut Vec<u8>, name: &str, value: &[u8]) {
    head.extend_from_slice(name.as_bytes());
    head.extend_from_slice(b": ");
    head.extend_from_slice(value);
    head.extend_from_slice(b"\r\n");
}
