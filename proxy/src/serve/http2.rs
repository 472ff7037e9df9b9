//! Connections that speak HTTP/2: hyper's, with our limits.

mod used;

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::{Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tower::Service;

use crate::config::Limits;
use crate::gateway::{Application, Body, BodyError};
use crate::http1::head::BadHead;
use crate::http1::{BadRequest, Refuse};
use crate::serve::Doors;
use used::{End, Piece, Stream, Use};

/// Streams that one connection may have open.
const STREAMS: u32 = 100;
/// Bytes under way to us: of one stream, and of all.
const STREAM_WINDOW: u32 = 64 << 10;
const WINDOW: u32 = 1 << 20;
/// Bytes of one stream's answer that wait for the caller.
const SEND_BUFFER: usize = 64 << 10;
/// Bytes of an answer that are given to the library at once: as many as a frame has unless its caller wants more.
const PIECE: usize = 16 << 10;
/// Streams that a caller opened and reset before anybody looked at them, and streams that were reset here
/// for its mistakes, until the connection ends.
const RESETS: usize = 20;
const ERRORS: usize = 128;
/// How often a silent caller is asked whether it is there, and how long it may take to say so.
const PING: Duration = Duration::from_secs(30);
const PONG: Duration = Duration::from_secs(10);
/// How long a caller has to take its leave of a connection that it does not use: once to hear of it, once to
/// say so.
const FAREWELL: Duration = Duration::from_secs(1);

/// Serves a connection whose first bytes were read before.
pub(super) async fn serve<S>(
    stream: S,
    first: Bytes,
    (application, refuse): (Application, Refuse),
    limits: &Limits,
    doors: &Doors,
) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(Begun { first, stream });
    let used = Arc::new(Use::new(limits));
    let counted = Arc::clone(&used);
    let (most, too_large) = (
        limits.headers,
        BadRequest::from(BadHead::TooLarge(limits.head_bytes, limits.headers)),
    );
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let is_large = request.headers().len() > most;
        let refused = is_large.then(|| refuse(&too_large, request.uri().path()));
        let parts = (Stream::begin(&counted), doors.cut.clone());
        call(application.clone(), request, refused, parts)
    });
    let tasks = Tasks {
        used: Arc::clone(&used),
        patience: Duration::from_millis(limits.write_timeout_ms),
    };
    let mut builder = http2::Builder::new(tasks);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(ERRORS)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(Some(PING))
        .keep_alive_timeout(PONG);
    let mut connection = pin!(builder.serve_connection(io, service));
    let told = |ended: hyper::Result<()>| ended.map_err(|error| error.to_string());
    let end = tokio::select! {
        ended = connection.as_mut() => return told(ended),
        end = used.end(limits, doors) => end,
    };
    connection.as_mut().graceful_shutdown();
    let end = tokio::select! {
        ended = connection.as_mut() => return told(ended),
        end = used.farewell(end, limits) => end,
    };
    match end {
        End::Due | End::Idle => Ok(()),
        End::Stuck => Err("a caller does not read its answers".to_owned()),
        End::Flood => Err("a caller resets its calls, or does not stop making them".to_owned()),
    }
}

/// Runs the library's tasks. A stream whose caller does not read is reset by dropping its task: the answer's body
/// can not do it, since nobody asks it for more then.
#[derive(Clone)]
struct Tasks {
    used: Arc<Use>,
    /// How long an answer may wait without a byte of it taken.
    patience: Duration,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        let patience = self.patience;
        // The library begins a stream's task right after the call.
        let Some(stream) = self.used.newest() else {
            return TokioExecutor::new().execute(task);
        };
        TokioExecutor::new().execute(async move {
            tokio::select! {
                () = task => stream.over(),
                () = stream.stalled(patience) => {}
            }
        });
    }
}

/// Answers one request of a connection, unless it is `refused` already. Who answers is always ready: the gateway
/// sheds load by refusing.
async fn call(
    mut application: Application,
    request: Request<Incoming>,
    refused: Option<Response<Body>>,
    (stream, cut): (Arc<Stream>, CancellationToken),
) -> Result<Response<Counted>, Infallible> {
    let response = if let Some(refused) = refused {
        refused
    } else {
        let mut request = request.map(|body| Coming(body).boxed_unsync());
        // Who is vouched for inside stands here; nothing that came over the network may.
        request.extensions_mut().clear();
        Service::call(&mut application, request).await?
    };
    Ok(response.map(|body| {
        let is_empty = body.is_end_stream();
        if is_empty {
            stream.ended();
        }
        Counted {
            body,
            rest: Bytes::new(),
            stream,
            cut: Box::pin(cut.cancelled_owned()),
            is_awaited: false,
            is_empty,
            is_over: is_empty,
        }
    }))
}

/// A request's body without its empty frames, which cost their sender nothing and are no progress.
struct Coming(Incoming);

impl http_body::Body for Coming {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            let polled = ready!(Pin::new(&mut self.0).poll_frame(context));
            let is_none = |frame: &Frame<Bytes>| frame.data_ref().is_some_and(Bytes::is_empty);
            if !matches!(&polled, Some(Ok(frame)) if is_none(frame)) {
                return Poll::Ready(polled.map(|frame| frame.map_err(BodyError::from)));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// An answer's body, in pieces that are counted until they are taken. It ends only then, so that its stream has a
/// task that can be dropped for as long as bytes wait.
#[derive(Debug)]
struct Counted {
    body: Body,
    /// What of its last frame was not given yet.
    rest: Bytes,
    stream: Arc<Stream>,
    /// Wakes whoever waits for a piece when streams are to end.
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    is_awaited: bool,
    /// There is nothing in it at all.
    is_empty: bool,
    /// The body behind it has ended.
    is_over: bool,
}

impl http_body::Body for Counted {
    type Data = Piece;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, BodyError>>> {
        let this = &mut *self;
        loop {
            if !this.rest.is_empty() {
                let bytes = this.rest.split_to(this.rest.len().min(PIECE));
                return Poll::Ready(Some(Ok(Frame::data(this.stream.piece(bytes)))));
            }
            if this.is_over {
                return this.stream.poll_taken(context).map(|()| None);
            }
            let polled = Pin::new(&mut this.body).poll_frame(context);
            if polled.is_pending() && !this.is_awaited {
                this.is_awaited = this.cut.as_mut().poll(context).is_pending();
            }
            match ready!(polled) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    // No answer has any trailers.
                    Err(_trailers) => {}
                },
                Some(Err(error)) => {
                    this.stream.ended();
                    return Poll::Ready(Some(Err(error)));
                }
                None => {
                    this.stream.ended();
                    this.is_over = true;
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_empty
    }

    fn size_hint(&self) -> SizeHint {
        let rest = u64::try_from(self.rest.len()).unwrap_or(u64::MAX);
        let exact = self.body.size_hint().exact();
        exact.map_or_else(SizeHint::default, |left| {
            SizeHint::with_exact(left.saturating_add(rest))
        })
    }
}

/// A stream whose first bytes were read before.
struct Begun<S> {
    first: Bytes,
    stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Begun<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let length = self.first.len().min(buffer.remaining());
        buffer.put_slice(self.first.get(..length).unwrap_or_default());
        self.first.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Begun<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
