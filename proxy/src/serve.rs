//! Listening: connections within their limits, TLS, protocol detection with a deadline, and an orderly end.

mod crowd;
mod http2;
mod tls;

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Limits;
use crate::edge;
use crate::gateway::Gateway;
use crate::http1::{self, Caller, scratch};
use crate::telemetry;
use crate::workers::Workers;

use crowd::Crowd;
pub(crate) use tls::{crypto, tls};

/// How an HTTP/2 connection begins, and how much is read of it: the head of its first frame as well.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const GREETING: usize = PREFACE.len() + 9;

/// A listener with what its connections need.
pub(crate) struct Listener {
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) limits: Limits,
    pub(crate) gateway: Gateway,
    /// Every connection runs in here, so that shutdown can wait for it.
    pub(crate) tasks: TaskTracker,
    /// Once cancelled: no new connections, and those open end after their call.
    pub(crate) drain: CancellationToken,
    /// Where connections are served.
    pub(crate) workers: Arc<Workers>,
}

/// What the connections of a listener share.
struct Shared {
    listener: Listener,
    crowd: Crowd,
    /// Looked at before each answer; the token wakes connections that wait.
    is_closing: AtomicBool,
    closing: CancellationToken,
}

/// Accepts connections until the drain begins.
pub(crate) async fn accept(tcp: TcpListener, listener: Listener) {
    let limits = &listener.limits;
    let most = limits.connections;
    let alone = limits.connections_per_ip.unwrap_or(most / 4).max(1);
    let free = Arc::new(Semaphore::new(most));
    let shared = Arc::new(Shared {
        crowd: Crowd::new(alone),
        listener,
        is_closing: AtomicBool::new(false),
        closing: CancellationToken::new(),
    });
    let drain = &shared.listener.drain;
    loop {
        // At the limit nothing is accepted: the backlog is the queue, and the kernel bounds it.
        let slot = drain.run_until_cancelled(Arc::clone(&free).acquire_owned());
        let Some(Ok(slot)) = slot.await else { break };
        let Some(accepted) = drain.run_until_cancelled(tcp.accept()).await else {
            break;
        };
        let stream = accepted.and_then(|(stream, peer)| Ok((stream.into_std()?, peer)));
        match stream {
            Ok((stream, peer)) => {
                let Some(place) = shared.crowd.enter(peer.ip()) else {
                    tracing::debug!(%peer, "too many connections of one address");
                    continue;
                };
                telemetry::connections(most - free.available_permits());
                let (served, free) = (Arc::clone(&shared), Arc::clone(&free));
                let task = async move {
                    connection(&served, stream, peer).await;
                    drop((slot, place));
                    telemetry::connections(most - free.available_permits());
                };
                let listener = &shared.listener;
                listener.workers.spawn(&listener.tasks, task);
            }
            Err(error) => {
                // Out of descriptors, most likely: those open will free some.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    shared.is_closing.store(true, Ordering::Relaxed);
    shared.closing.cancel();
}

async fn connection(shared: &Shared, stream: std::net::TcpStream, peer: SocketAddr) {
    let ended = match TcpStream::from_std(stream) {
        Ok(stream) => greet(shared, stream, peer).await,
        Err(error) => Err(error.to_string()),
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, error, "a connection ended early");
    }
}

async fn greet(shared: &Shared, stream: TcpStream, peer: SocketAddr) -> Result<(), String> {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "no TCP_NODELAY");
    }
    // Asked once: whenever it comes, it wakes this task, which then looks at the flag.
    let mut closing = pin!(shared.closing.cancelled());
    poll_fn(|context| Poll::Ready(closing.as_mut().poll(context).is_ready())).await;
    let Some(tls) = &shared.listener.tls else {
        return http(shared, stream, peer).await;
    };
    let patience = Duration::from_millis(shared.listener.limits.head_timeout_ms);
    let shaken = Box::pin(timeout(patience, tls.accept(stream))).await;
    let stream = shaken.map_err(|_| "no TLS handshake in time".to_owned())?;
    let stream = stream.map_err(|error| error.to_string())?;
    Box::pin(http(shared, stream, peer)).await
}

/// Speaks whichever protocol the first bytes announce. A connection that says nothing is closed.
async fn http<S>(shared: &Shared, mut stream: S, peer: SocketAddr) -> Result<(), String>
where
    S: http1::Socket + 'static,
{
    let limits = &shared.listener.limits;
    let patience = Duration::from_millis(limits.head_timeout_ms);
    let mut first = BytesMut::new();
    let detecting = timeout(patience, detect(&mut stream, &mut first));
    let detected = shared.closing.run_until_cancelled(detecting).await;
    let is_http2 = match detected {
        None => return Ok(()),
        Some(Err(_)) => return Err("nothing was said in time".to_owned()),
        Some(Ok(detected)) => detected.map_err(|error| error.to_string())?,
    };
    let gateway = shared.listener.gateway.clone();
    if is_http2 {
        let serving = http2::serve(stream, first.freeze(), gateway, limits, &shared.closing);
        return Box::pin(serving).await;
    }
    let caller = Caller {
        gateway,
        limits,
        closing: &shared.is_closing,
        // Not all of one client's connections end at once.
        requests: limits.requests - usize::from(peer.port()) % (limits.requests / 10 + 1),
        refuse: edge::refuse,
    };
    http1::serve(stream, first, caller).await;
    Ok(())
}

/// Reads until the bytes are the greeting of HTTP/2, which are the preface and a frame of settings, or can
/// not become it.
async fn detect<S: http1::Socket>(stream: &mut S, first: &mut BytesMut) -> io::Result<bool> {
    loop {
        let reading = poll_fn(|context| {
            scratch::poll_read(stream, context, |came| {
                first.extend_from_slice(came);
                came.len()
            })
        });
        if reading.await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let known = first.len().min(PREFACE.len());
        if first.get(..known) != PREFACE.get(..known) {
            return Ok(false);
        }
        if first.len() >= GREETING {
            // Type and flags; the library takes whatever comes first.
            return match first.get(PREFACE.len() + 3..PREFACE.len() + 5) {
                Some([4, flags]) if flags & 1 == 0 => Ok(true),
                _ => Err(io::Error::other("HTTP/2 that does not begin with settings")),
            };
        }
    }
}
