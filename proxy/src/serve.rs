//! Listening: connections within their limits, TLS, protocol detection with a deadline, and an orderly end; for
//! callers and for operators alike.

mod crowd;
pub(crate) mod descriptors;
mod http2;
mod tls;

use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Limits;
use crate::gateway::Application;
use crate::http1::{self, Caller, Refuse, scratch};
use crate::workers::Workers;

use crowd::Crowd;
pub(crate) use tls::{TlsError, crypto, ending, tls, trusted};

/// How an HTTP/2 connection begins, and how much is read of it: the head of its first frame as well.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const GREETING: usize = PREFACE.len() + 9;
/// What a caller hears that has agreed on HTTP/2 and does not speak it: settings, and GOAWAY with `PROTOCOL_ERROR`.
const GOAWAY: [u8; 26] = [
    0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
];

/// What of a listener a reload changes: each connection takes it as it is when it comes.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) tls: ArcSwapOption<rustls::ServerConfig>,
    pub(crate) limits: ArcSwap<Limits>,
}

/// A listener with what its connections need.
pub(crate) struct Listener {
    pub(crate) settings: Arc<Settings>,
    /// Makes what answers the requests of one address.
    pub(crate) application: Box<dyn Fn(IpAddr) -> Application + Send + Sync>,
    /// How requests are answered that do not get so far.
    pub(crate) refuse: Refuse,
    pub(crate) most: Most,
    /// Every connection runs in here, so that shutdown can wait for it.
    pub(crate) tasks: TaskTracker,
    pub(crate) doors: Doors,
    /// Where connections are served; where they are accepted, if nowhere else.
    pub(crate) workers: Option<Arc<Workers>>,
}

/// Connections that a listener has at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Most {
    all: usize,
    /// Of one address.
    alone: usize,
}

impl Most {
    /// Those of callers, whose calls `share` connections to their endpoints or do not.
    pub(crate) fn of_callers(limits: &Limits, share: bool) -> Self {
        let all = descriptors::allowed(limits.connections, share);
        let alone = limits.connections_per_ip.unwrap_or(all / 4).max(1);
        Self { all, alone }
    }

    /// On loopback and behind a proxy all operators have one address, so one may take most of them.
    pub(crate) fn of_operators() -> Self {
        let all = descriptors::for_operators();
        let alone = all - all / 4;
        Self { all, alone }
    }
}

/// How far whoever connects may come in, from when the gateway begins to end.
#[derive(Debug, Clone)]
pub(crate) struct Doors {
    /// Connections end after their call, and say so.
    pub(crate) draining: CancellationToken,
    /// No new connections, and those end that wait for a request.
    pub(crate) closed: CancellationToken,
    /// Streams end now: whoever waits for their next piece looks at once.
    pub(crate) cut: CancellationToken,
    /// While it is true, new connections wait in the kernel: another process is about to take over.
    pub(crate) pause: watch::Receiver<bool>,
    /// Connections open.
    pub(crate) open: Arc<AtomicUsize>,
}

impl Doors {
    /// Ends once connections are to end after their call: at the latest when no new ones come.
    async fn draining(&self) {
        let draining = self.draining.cancelled();
        self.closed.run_until_cancelled(draining).await;
    }
}

/// What the connections of a listener share.
struct Shared {
    listener: Listener,
    crowd: Crowd,
    /// Looked at before each answer; the token wakes connections that wait.
    is_draining: AtomicBool,
    is_closed: AtomicBool,
    closing: CancellationToken,
}

/// Counts a connection as open for as long as it is kept.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Accepts connections until the doors close.
pub(crate) async fn accept(tcp: TcpListener, listener: Listener) {
    let free = Arc::new(Semaphore::new(listener.most.all));
    let mut doors = listener.doors.clone();
    let mut is_short = false;
    let shared = Arc::new(Shared {
        crowd: Crowd::new(listener.most.alone),
        is_draining: AtomicBool::new(false),
        is_closed: AtomicBool::new(false),
        closing: CancellationToken::new(),
        listener,
    });
    let (marked, ends) = (Arc::clone(&shared), doors.clone());
    let tasks = &shared.listener.tasks;
    tasks.spawn(async move {
        ends.draining().await;
        marked.is_draining.store(true, Ordering::Relaxed);
    });
    let closed = doors.closed.clone();
    loop {
        // At the limit nothing is accepted: the backlog is the queue, and the kernel bounds it.
        let slot = closed.run_until_cancelled(Arc::clone(&free).acquire_owned());
        let Some(Ok(slot)) = slot.await else { break };
        let Some(accepted) = closed.run_until_cancelled(next(&tcp, &mut doors)).await else {
            break;
        };
        let stream = accepted.and_then(|(stream, peer)| Ok((stream.into_std()?, peer)));
        match stream {
            Ok((stream, peer)) => {
                is_short = false;
                let Some(place) = shared.crowd.enter(peer.ip()) else {
                    tracing::debug!(%peer, "too many connections of one address");
                    continue;
                };
                doors.open.fetch_add(1, Ordering::Relaxed);
                let open = Open(Arc::clone(&doors.open));
                let served = Arc::clone(&shared);
                let task = async move {
                    connection(&served, stream, peer).await;
                    drop((slot, place, open));
                };
                match &shared.listener.workers {
                    Some(workers) => workers.spawn(tasks, task),
                    None => drop(tasks.spawn(task)),
                }
            }
            Err(error) => {
                // Out of descriptors, most likely: those open will free some.
                if !std::mem::replace(&mut is_short, true) {
                    tracing::warn!(%error, "connections can not be accepted at the moment");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    shared.is_closed.store(true, Ordering::Relaxed);
    shared.closing.cancel();
}

/// The next connection; none comes while accepting pauses.
async fn next(tcp: &TcpListener, doors: &mut Doors) -> io::Result<(TcpStream, SocketAddr)> {
    let mut pauses = doors.pause.clone();
    loop {
        if doors.pause.wait_for(|pause| !pause).await.is_err() {
            // Whoever has paused it has left for good: the new process accepts.
            std::future::pending::<()>().await;
        }
        let paused = async {
            if pauses.wait_for(|pause| *pause).await.is_err() {
                // Nobody can: no process can take over from this one.
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            accepted = tcp.accept() => return accepted,
            () = paused => {}
        }
    }
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
    // Asked once: whenever they come, they wake this task, which then looks at the flags.
    let mut closing = pin!(shared.closing.cancelled());
    let mut cut = pin!(shared.listener.doors.cut.cancelled());
    poll_fn(|context| {
        let _later = (closing.as_mut().poll(context), cut.as_mut().poll(context));
        Poll::Ready(())
    })
    .await;
    let settings = &shared.listener.settings;
    let limits = settings.limits.load_full();
    let Some(tls) = settings.tls.load_full() else {
        return http(shared, &limits, stream, peer, None).await;
    };
    let patience = Duration::from_millis(limits.head_timeout_ms);
    let accepting = TlsAcceptor::from(tls).accept(stream);
    let shaken = Box::pin(timeout(patience, accepting)).await;
    let stream = shaken.map_err(|_| "no TLS handshake in time".to_owned())?;
    let stream = stream.map_err(|error| error.to_string())?;
    let agreed = stream.get_ref().1.alpn_protocol().map(|it| it == b"h2");
    Box::pin(http(shared, &limits, stream, peer, agreed)).await
}

/// Speaks whichever protocol the first bytes announce, unless another one was agreed on: whether that is HTTP/2. A
/// connection that says nothing is closed.
async fn http<S>(
    shared: &Shared,
    limits: &Limits,
    mut stream: S,
    peer: SocketAddr,
    agreed: Option<bool>,
) -> Result<(), String>
where
    S: http1::Socket + 'static,
{
    let patience = Duration::from_millis(limits.head_timeout_ms);
    let mut first = BytesMut::new();
    let detecting = timeout(patience, detect(&mut stream, &mut first));
    let detected = shared.closing.run_until_cancelled(detecting).await;
    let is_http2 = match detected {
        None => return Ok(()),
        Some(Err(_)) => return Err("nothing was said in time".to_owned()),
        Some(Ok(detected)) => detected.map_err(|error| error.to_string())?,
    };
    if agreed == Some(true) && !is_http2 {
        let ending = async {
            stream.write_all(&GOAWAY).await?;
            stream.shutdown().await
        };
        // Whoever does not read it does not hear of it.
        let _told = timeout(patience, ending).await;
        return Err("no HTTP/2 where it was agreed on".to_owned());
    }
    let refuse = shared.listener.refuse;
    let application = (shared.listener.application)(peer.ip());
    // Where HTTP/1.1 was agreed on, the other's preface is a bad first line.
    if is_http2 && agreed != Some(false) {
        let answering = (application, refuse);
        let doors = &shared.listener.doors;
        let serving = http2::serve(stream, first.freeze(), answering, limits, doors);
        return Box::pin(serving).await;
    }
    let caller = Caller {
        application,
        limits,
        draining: &shared.is_draining,
        closed: &shared.is_closed,
        // Not all of one client's connections end at once.
        requests: limits.requests - usize::from(peer.port()) % (limits.requests / 10 + 1),
        refuse,
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
