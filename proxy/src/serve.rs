//! Listening: TLS, protocol detection with a deadline, HTTP/1.1 and HTTP/2, and an orderly end.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use crate::config::Limits;
use crate::gateway::{Body, BodyError, Gateway};
use crate::telemetry;

/// How an HTTP/2 connection begins.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Streams that one HTTP/2 connection may have open.
const STREAMS: u32 = 100;

/// A listener with what its connections need.
pub(crate) struct Listener {
    pub(crate) tcp: TcpListener,
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) limits: Limits,
    pub(crate) gateway: Gateway,
    /// Every connection runs in here, so that shutdown can wait for it.
    pub(crate) tasks: TaskTracker,
    /// Once cancelled: no new connections, and those open end after their call.
    pub(crate) drain: CancellationToken,
}

/// Accepts connections until the drain begins.
pub(crate) async fn accept(listener: Listener) {
    let listener = Arc::new(listener);
    let free = Arc::new(Semaphore::new(listener.limits.connections));
    loop {
        // At the limit nothing is accepted: the backlog is the queue, and the kernel bounds it.
        let slot = tokio::select! {
            slot = Arc::clone(&free).acquire_owned() => slot,
            () = listener.drain.cancelled() => return,
        };
        let Ok(slot) = slot else { return };
        let accepted = tokio::select! {
            accepted = listener.tcp.accept() => accepted,
            () = listener.drain.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let for_task = Arc::clone(&listener);
                let most = listener.limits.connections;
                telemetry::connections(most - free.available_permits());
                let free = Arc::clone(&free);
                listener.tasks.spawn(async move {
                    connection(&for_task, stream, peer).await;
                    drop(slot);
                    telemetry::connections(most - free.available_permits());
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: those open will free some.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(listener: &Listener, stream: TcpStream, peer: SocketAddr) {
    let patience = Duration::from_millis(listener.limits.head_timeout_ms);
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "no TCP_NODELAY");
    }
    let ended = match &listener.tls {
        None => http(listener, stream, patience).await,
        Some(tls) => match timeout(patience, tls.accept(stream)).await {
            Ok(Ok(stream)) => http(listener, stream, patience).await,
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no TLS handshake in time".to_owned()),
        },
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, error, "a connection ended early");
    }
}

/// Speaks whichever protocol the first bytes announce. A connection that says nothing is closed.
async fn http<S>(listener: &Listener, mut stream: S, patience: Duration) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut first = BytesMut::with_capacity(1_024);
    let is_http2 = timeout(patience, detect(&mut stream, &mut first))
        .await
        .map_err(|_| "nothing was said in time".to_owned())?
        .map_err(|error| error.to_string())?;
    let io = TokioIo::new(Begun {
        first: first.freeze(),
        stream,
    });
    let gateway = listener.gateway.clone();
    let service = hyper::service::service_fn(move |request| call(gateway.clone(), request));
    if is_http2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .initial_stream_window_size(64 << 10)
            .initial_connection_window_size(1 << 20)
            .max_header_list_size(u32::try_from(listener.limits.head_bytes).unwrap_or(u32::MAX))
            .keep_alive_interval(Some(Duration::from_secs(30)));
        let connection = builder.serve_connection(io, service);
        return drive(listener, connection, http2::Connection::graceful_shutdown).await;
    }
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .max_buf_size(listener.limits.head_bytes.max(8_192))
        .serve_connection(io, service);
    drive(listener, connection, http1::Connection::graceful_shutdown).await
}

/// Answers one request of a connection. The gateway is always ready: it sheds load by refusing.
fn call(
    mut gateway: Gateway,
    request: Request<Incoming>,
) -> BoxFuture<'static, Result<Response<Body>, Infallible>> {
    let mut request = request.map(|body| body.map_err(BodyError::from).boxed_unsync());
    // Who is vouched for inside stands here; nothing that came over the network may.
    request.extensions_mut().clear();
    Service::call(&mut gateway, request)
}

/// Runs a connection; when the drain begins it may finish what it has begun.
async fn drive<C>(
    listener: &Listener,
    connection: C,
    end: impl FnOnce(Pin<&mut C>),
) -> Result<(), String>
where
    C: Future<Output = Result<(), hyper::Error>>,
{
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended.map_err(|error| error.to_string()),
        () = listener.drain.cancelled() => {}
    }
    end(connection.as_mut());
    connection.await.map_err(|error| error.to_string())
}

/// Reads until the bytes are the HTTP/2 preface or can not become it.
async fn detect<S: AsyncRead + Unpin>(stream: &mut S, first: &mut BytesMut) -> io::Result<bool> {
    loop {
        if stream.read_buf(first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let known = first.len().min(PREFACE.len());
        if first.get(..known) != PREFACE.get(..known) {
            return Ok(false);
        }
        if known == PREFACE.len() {
            return Ok(true);
        }
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

/// The cryptography that all TLS here uses.
pub(crate) fn crypto() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Certificate and key as an acceptor that offers HTTP/2 and HTTP/1.1.
pub(crate) fn tls(certificate: &Path, key: &Path) -> Result<TlsAcceptor, String> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let told = |path: &Path, error: String| format!("{}: {error}", path.display());
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| told(certificate, error.to_string()))?;
    let key_der =
        PrivateKeyDer::from_pem_file(key).map_err(|error| told(key, error.to_string()))?;
    let mut config = rustls::ServerConfig::builder_with_provider(crypto())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, key_der)
        .map_err(|error| told(certificate, error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
