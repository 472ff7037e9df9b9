//! One call on an HTTP/1.1 connection: the request goes out, and the head of its answer comes in, which may
//! be before all of the request is out.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use http::{Method, Response, StatusCode, Uri, Version};
use http_body::Body as _;

use super::SendError;
use super::answer::{Answer, Reading};
use super::client::Call;
use super::pool::{Line, Pool};
use crate::http1::head::{self, BadHead, Bounds, Framing, ResponseHead, Search, connection_says};
use crate::http1::{Outbox, scratch};

/// What is taken of an answer's head: vendors send a few kilobytes, proxies before them more.
const BOUNDS: Bounds = Bounds {
    bytes: 64 << 10,
    fields: 128,
    line: 8 << 10,
};
/// Words like `100 Continue` before an answer.
const INTERIM: usize = 8;

/// A call that got no answer on a connection.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) error: SendError,
    /// Nothing of it left, because a connection that had been used before was gone: it can go out on another.
    pub(super) is_unsent: bool,
}

impl Unanswered {
    fn broken(what: impl fmt::Display) -> Self {
        Self {
            error: SendError::cut(what),
            is_unsent: false,
        }
    }
}

/// The head of a request as it goes out.
pub(super) fn written(call: &Call<'_>) -> Vec<u8> {
    let mut head = Vec::with_capacity(1_000);
    let path = call.uri.path_and_query().map_or("/", |path| path.as_str());
    let host = host(call.uri);
    let mut put = |texts: &[&str]| {
        for text in texts {
            head.extend_from_slice(text.as_bytes());
        }
    };
    let method = call.method.as_str();
    put(&[method, " ", path, " HTTP/1.1\r\nhost: ", host, "\r\n"]);
    call.fields.write(&mut head);
    let length = call.body.size_hint().exact().unwrap_or(0);
    if length > 0 || call.method == Method::POST {
        let mut digits = itoa::Buffer::new();
        head.extend_from_slice(b"content-length: ");
        head.extend_from_slice(digits.format(length).as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// The host of `uri` with its port, unless that goes without saying.
fn host(uri: &Uri) -> &str {
    let authority = uri.authority().map_or("", |it| it.as_str());
    let usual = if uri.scheme_str() == Some("https") {
        ":443"
    } else {
        ":80"
    };
    authority.strip_suffix(usual).unwrap_or(authority)
}

/// Whether a connection that waited is still good for a call: the endpoint has neither closed it nor said
/// anything on it.
pub(super) fn is_quiet(line: &mut Line) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    scratch::poll_read(&mut line.socket, &mut context, |_| ()).is_pending()
}

/// Sends a request. Ends when its answer has begun.
pub(super) async fn exchange(
    mut line: Line,
    outbox: &mut Outbox,
    home: &Arc<Pool>,
) -> Result<Response<Answer>, Unanswered> {
    let mut inbox = BytesMut::new();
    let mut failed = None;
    let mut is_open = true;
    let mut is_first = true;
    for _ in 0..=INTERIM {
        let mut search = Search::default();
        let begun = poll_fn(|context| {
            let turn = Turn {
                line: &mut line,
                outbox,
                inbox: &mut inbox,
                failed: &mut failed,
            };
            turn.poll(&mut search, context)
        });
        let found = match begun.await {
            Ok(found) => found,
            Err(what) => {
                let is_stale = line.is_used && is_first && inbox.is_empty();
                return Err(Unanswered {
                    error: SendError {
                        is_stale,
                        ..SendError::cut(what)
                    },
                    is_unsent: !outbox.moved && line.is_used,
                });
            }
        };
        is_first = false;
        let head = head::cut(&mut inbox, found);
        let read = head::response(&head).map_err(|bad| Unanswered::broken(malformed(bad)))?;
        if read.status.is_informational() {
            if read.status == StatusCode::SWITCHING_PROTOCOLS {
                break;
            }
            continue;
        }
        let framing = framing(&read).map_err(|bad| Unanswered::broken(malformed(bad)))?;
        // What is not out will never be, so the connection is at nobody's disposal.
        is_open &= outbox.is_empty() && failed.is_none();
        is_open &= read.version == Version::HTTP_11 && !connection_says(&read.headers, "close");
        let home = is_open.then(|| Arc::clone(home));
        outbox.clear();
        let reading = Reading::new(line, framing, &mut inbox, home);
        let mut response = Response::new(Answer::Http1(reading));
        *response.status_mut() = read.status;
        *response.headers_mut() = read.headers;
        return Ok(response);
    }
    Err(Unanswered::broken(
        "the endpoint said everything but an answer",
    ))
}

fn malformed(bad: BadHead) -> String {
    format!("the head of its answer is malformed: {bad}")
}

/// How long the body behind `read` is.
fn framing(read: &ResponseHead) -> Result<Framing, BadHead> {
    let framing = head::framing(read.version, &read.headers)?;
    if matches!(
        read.status,
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
    ) {
        return Ok(Framing::Length(0));
    }
    Ok(framing)
}

/// What one look at the connection needs.
struct Turn<'a> {
    line: &'a mut Line,
    outbox: &'a mut Outbox,
    inbox: &'a mut BytesMut,
    failed: &'a mut Option<io::Error>,
}

impl Turn<'_> {
    /// Writes what can be written, and reads until a head is there.
    fn poll(
        self,
        search: &mut Search,
        context: &mut Context<'_>,
    ) -> Poll<Result<Range<usize>, String>> {
        if self.failed.is_none() && !self.outbox.is_empty() {
            // An endpoint that refuses may stop reading, and have said why.
            if let Poll::Ready(Err(error)) = self.outbox.poll(&mut self.line.socket, context) {
                *self.failed = Some(error);
            }
        }
        loop {
            match search.find(self.inbox, BOUNDS) {
                Ok(Some(found)) => return Poll::Ready(Ok(found)),
                Ok(None) => {}
                Err(bad) => return Poll::Ready(Err(malformed(bad))),
            }
            let inbox = &mut *self.inbox;
            let read = scratch::poll_read(&mut self.line.socket, context, |came| {
                inbox.extend_from_slice(came);
                came.len()
            });
            let what = match read {
                Poll::Ready(Ok(0)) => match self.failed.take() {
                    Some(error) => error.to_string(),
                    None => "the connection ended before an answer".to_owned(),
                },
                Poll::Ready(Ok(_)) => continue,
                Poll::Ready(Err(error)) => self.failed.take().unwrap_or(error).to_string(),
                Poll::Pending if self.failed.is_some() => self
                    .failed
                    .take()
                    .map(|it| it.to_string())
                    .unwrap_or_default(),
                Poll::Pending => return Poll::Pending,
            };
            return Poll::Ready(Err(what));
        }
    }
}
