//! Callers' connections that speak HTTP/2: hyper's, with our limits.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tower::Service;

use crate::config::Limits;
use crate::gateway::{Body, BodyError, Gateway};
use crate::serve::Doors;

/// Streams that one connection may have open.
const STREAMS: u32 = 100;
/// Bytes under way to us: of one stream, and of all.
const STREAM_WINDOW: u32 = 64 << 10;
const WINDOW: u32 = 1 << 20;
/// Bytes of one stream's answer that wait for the caller.
const SEND_BUFFER: usize = 64 << 10;
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
    gateway: Gateway,
    limits: &Limits,
    doors: &Doors,
) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(Begun { first, stream });
    let use_ = Arc::new(Use::default());
    let counted = Arc::clone(&use_);
    let service = hyper::service::service_fn(move |request| {
        let cut = doors.cut.clone();
        call(gateway.clone(), request, (Arc::clone(&counted), cut))
    });
    let mut builder = http2::Builder::new(TokioExecutor::new());
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
    let is_idle = tokio::select! {
        ended = connection.as_mut() => return told(ended),
        () = use_.ending(doors) => false,
        is_idle = use_.over(limits) => is_idle,
        () = use_.stuck(limits) => return Err("a caller does not read its answers".to_owned()),
    };
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        ended = connection.as_mut() => told(ended),
        () = use_.gone(), if is_idle => Ok(()),
        () = use_.stuck(limits) => Err("a caller does not read its answers".to_owned()),
    }
}

/// How much a connection is used.
#[derive(Debug, Default)]
struct Use {
    /// Requests so far.
    requests: AtomicUsize,
    /// Of them under way.
    open: AtomicUsize,
    /// Pieces of answers that were asked for, and answers whose last piece has not been taken over.
    asked: AtomicUsize,
    waiting: AtomicUsize,
}

impl Use {
    /// Ends once a connection has been idle for as long as it may, or has made as many requests as it may;
    /// whether it is idle.
    async fn over(&self, limits: &Limits) -> bool {
        let mut patience = Duration::from_millis(limits.head_timeout_ms);
        let mut before = (0, 0);
        loop {
            tokio::time::sleep(patience).await;
            let now = self.so_far();
            // No answer was read on either, so that nothing waits to be sent.
            if self.open.load(Ordering::Relaxed) == 0 && now == before {
                return true;
            }
            if now.0 >= limits.requests {
                return false;
            }
            before = now;
            patience = Duration::from_millis(limits.idle_timeout_ms);
        }
    }

    /// Requests, and pieces of answers that were asked for.
    fn so_far(&self) -> (usize, usize) {
        let so_far = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        (so_far(&self.requests), so_far(&self.asked))
    }

    /// Ends where an idle connection stays idle: whoever does not answer the farewell is not waited for.
    async fn gone(&self) {
        let mut before = (usize::MAX, 0);
        loop {
            tokio::time::sleep(FAREWELL).await;
            let now = self.so_far();
            if now == before && self.open.load(Ordering::Relaxed) == 0 {
                return;
            }
            before = now;
        }
    }

    /// Ends once the gateway is about to end, and a request has come: before, the library would close the
    /// connection on whoever has just opened it.
    async fn ending(&self, doors: &Doors) {
        doors.draining.cancelled().await;
        while self.requests.load(Ordering::Relaxed) == 0 && !doors.closed.is_cancelled() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends once answers wait to be read, and none was read on for as long as writing may take.
    async fn stuck(&self, limits: &Limits) {
        let patience = Duration::from_millis(limits.write_timeout_ms);
        let mut before = (usize::MAX, 0);
        loop {
            tokio::time::sleep(patience / 2).await;
            let asked = self.asked.load(Ordering::Relaxed);
            let times = if before.0 == asked { before.1 + 1 } else { 0 };
            if times >= 2 && self.waiting.load(Ordering::Relaxed) > 0 {
                return;
            }
            before = (asked, times);
        }
    }
}

/// Answers one request of a connection. The gateway is always ready: it sheds load by refusing.
async fn call(
    mut gateway: Gateway,
    request: Request<Incoming>,
    (counted, cut): (Arc<Use>, CancellationToken),
) -> Result<Response<Counted>, Infallible> {
    counted.requests.fetch_add(1, Ordering::Relaxed);
    counted.open.fetch_add(1, Ordering::Relaxed);
    let open = Open(counted, false);
    let mut request = request.map(|body| body.map_err(BodyError::from).boxed_unsync());
    // Who is vouched for inside stands here; nothing that came over the network may.
    request.extensions_mut().clear();
    let response = Service::call(&mut gateway, request).await?;
    Ok(response.map(|body| Counted {
        body,
        open,
        cut: Box::pin(cut.cancelled_owned()),
        is_awaited: false,
    }))
}

/// A request under way, with whether a piece of its answer waits for the caller.
#[derive(Debug)]
struct Open(Arc<Use>, bool);

impl Open {
    fn waits(&mut self, waits: bool) {
        if self.1 == waits {
            return;
        }
        self.1 = waits;
        if waits {
            self.0.waiting.fetch_add(1, Ordering::Relaxed);
        } else {
            self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.waits(false);
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer's body that is counted as long as it is there. It is asked for a piece only when the one
/// before could be sent.
#[derive(Debug)]
struct Counted {
    body: Body,
    open: Open,
    /// Wakes whoever waits for a piece when streams are to end.
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    is_awaited: bool,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        this.open.0.asked.fetch_add(1, Ordering::Relaxed);
        let polled = Pin::new(&mut this.body).poll_frame(context);
        if polled.is_pending() && !this.is_awaited {
            this.is_awaited = this.cut.as_mut().poll(context).is_pending();
        }
        this.open.waits(matches!(polled, Poll::Ready(Some(Ok(_)))));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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
