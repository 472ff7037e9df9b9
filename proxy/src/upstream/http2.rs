//! An endpoint's HTTP/2 connections: calls share them, as many on each as the endpoint allows.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::Instant;

use super::dial::Socket;
use super::pieces::Pieces;
use super::pool;
use super::{SendError, chain};
use crate::workers;

/// Calls on one connection, even if the endpoint allows more: what RFC 9113 (6.5.2) has endpoints allow at
/// least. The first calls to an endpoint, of which it is not known what it allows, go by it too.
const MOST: usize = 100;
/// Bytes of an answer that a caller may be behind. A connection has room for as many of each of its calls, so
/// that those of callers who do not read never stop the others.
const WINDOW: u32 = 256 << 10;
const ALL_WINDOWS: u32 = 100 * WINDOW;
/// Sets of connections; workers beyond share them.
const SEATS: usize = 64;
/// How often an endpoint that is silent while calls are open is asked whether it is there, and how long it
/// may take to say so.
const PING: Duration = Duration::from_secs(30);
const PONG: Duration = Duration::from_secs(10);

type Connection = http2::Connection<TokioIo<Socket>, Pieces, TokioExecutor>;

/// The connections to an endpoint, each worker's by themselves.
pub(super) struct Connections {
    seats: Vec<Seat>,
    /// Calls that the endpoint allows on a connection, as it said last.
    allowed: AtomicUsize,
}

/// The connections of a worker.
#[derive(Default)]
struct Seat {
    /// Whoever makes a connection keeps the others waiting, who then share it.
    lines: tokio::sync::Mutex<Lines>,
    /// Times that there was none to be had.
    failures: AtomicUsize,
}

#[derive(Default)]
pub(super) struct Lines {
    shared: Vec<Shared>,
    /// Why there was no connection the last time.
    failed: Option<SendError>,
}

/// The connections of a worker, while nobody else can take or make one.
pub(super) type Turn<'a> = tokio::sync::MutexGuard<'a, Lines>;

/// A connection that calls share.
struct Shared {
    sender: SendRequest<Pieces>,
    /// Gone when the connection is.
    connection: Weak<Mutex<Connection>>,
    peer: Option<SocketAddr>,
    calls: Arc<Calls>,
    /// When it was last seen with a call.
    used: Instant,
}

/// What the calls on a connection share: each holds it once.
#[derive(Debug, Default)]
struct Calls {
    /// The connection waited for a call, and no answer has come since: it may be gone without a word.
    waited: AtomicBool,
}

/// A call's place on a connection, up to the end of its answer.
#[derive(Debug)]
pub(super) struct Place {
    sender: SendRequest<Pieces>,
    call: Hold,
}

/// Keeps a call's place.
#[derive(Debug)]
pub(crate) struct Hold(Arc<Calls>);

/// A call that got no answer on a connection.
#[derive(Debug)]
pub(super) struct Unanswered {
    /// The endpoint did nothing for it: it never got there, or the endpoint says so (RFC 9113, 8.7).
    pub(super) is_untouched: bool,
    pub(super) error: SendError,
}

impl Place {
    /// Sends a call.
    pub(super) async fn send(
        &mut self,
        request: Request<Pieces>,
    ) -> Result<Response<Incoming>, Unanswered> {
        let waited = &self.call.0.waited;
        let sent = self.sender.send_request(request).await;
        sent.inspect(|_| waited.store(false, Ordering::Relaxed))
            .map_err(|error| Unanswered::new(&error, waited.load(Ordering::Relaxed)))
    }

    /// Lets go of the connection, but for the place on it.
    pub(super) fn into_hold(self) -> Hold {
        self.call
    }
}

impl Unanswered {
    fn new(error: &hyper::Error, waited: bool) -> Self {
        let told = std::error::Error::source(error).and_then(|it| it.downcast_ref::<h2::Error>());
        let told = told.filter(|it| it.is_remote());
        let is_refused = told.is_some_and(|it| {
            // Calls that the endpoint still answers go on after a GOAWAY.
            it.is_go_away() || it.reason() == Some(h2::Reason::REFUSED_STREAM)
        });
        let is_untouched = error.is_canceled() || error.is_closed() || is_refused;
        let error = if is_untouched {
            SendError::unconnected(chain(error))
        } else {
            SendError {
                is_stale: waited && told.is_none(),
                ..SendError::cut(chain(error))
            }
        };
        Self {
            is_untouched,
            error,
        }
    }
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            seats: (0..SEATS).map(|_| Seat::default()).collect(),
            allowed: AtomicUsize::new(MOST),
        }
    }
}

impl Connections {
    /// This worker's turn. Fails if whoever had it in the meantime found that there is no connection to be
    /// had.
    pub(super) async fn turn(&self) -> Result<Turn<'_>, SendError> {
        let seat = self.own();
        let failures = seat.failures.load(Ordering::Relaxed);
        let lines = seat.lines.lock().await;
        match &lines.failed {
            Some(error) if seat.failures.load(Ordering::Relaxed) != failures => Err(error.clone()),
            _ => Ok(lines),
        }
    }

    /// The turn of someone who has a connection already.
    pub(super) async fn any_turn(&self) -> Turn<'_> {
        self.own().lines.lock().await
    }

    /// A place on a connection that is there.
    pub(super) fn take(&self, lines: &mut Lines) -> Option<Place> {
        lines.shared.retain(|it| !it.sender.is_closed());
        let has_room = |it: &&mut Shared| it.calls() < self.most(it);
        let free = lines.shared.iter_mut().find(has_room)?;
        if free.calls() == 0 {
            free.calls.waited.store(true, Ordering::Relaxed);
        }
        free.used = Instant::now();
        Some(free.place())
    }

    /// Adds a connection, and takes a place on it.
    pub(super) async fn open(&self, lines: &mut Lines, socket: Socket) -> Result<Place, SendError> {
        let peer = socket.peer();
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(Some(PING))
            .keep_alive_timeout(PONG)
            .initial_max_send_streams(self.allowed.load(Ordering::Relaxed))
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(ALL_WINDOWS)
            .handshake(TokioIo::new(socket))
            .await
            .map_err(|error| SendError::unconnected(chain(&error)))?;
        let connection = Arc::new(Mutex::new(connection));
        let shared = Shared {
            sender,
            connection: Arc::downgrade(&connection),
            peer,
            calls: Arc::default(),
            used: Instant::now(),
        };
        let place = shared.place();
        lines.failed = None;
        lines.shared.push(shared);
        TokioExecutor::new().execute(async move {
            let ended = std::future::poll_fn(|context| {
                let mut connection = locked(&connection);
                Future::poll(Pin::new(&mut *connection), context)
            });
            if let Err(error) = ended.await {
                tracing::debug!(%error, "a connection to an endpoint ended");
            }
        });
        Ok(place)
    }

    /// Has those who wait for a connection learn why there is none.
    pub(super) fn failed(&self, lines: &mut Lines, error: &SendError) {
        lines.failed = Some(error.clone());
        self.own().failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Sends no more calls over the connection of a place; those that are under way on it go on.
    pub(super) async fn leave(&self, place: Place) {
        let mut lines = self.any_turn().await;
        let is_it = |it: &&Shared| Arc::ptr_eq(&it.calls, &place.call.0);
        // What it allows counts for the next one.
        let _most = lines.shared.iter().find(is_it).map(|it| self.most(it));
        lines.shared.retain(|it| !is_it(&it));
    }

    /// Closes connections that have waited for too long, and those to addresses that are `gone`; calls that are
    /// under way end first. Where one is just being made, the next sweep looks.
    pub(super) fn sweep(&self, gone: &[SocketAddr], now: Instant) {
        for seat in &self.seats {
            let Ok(mut lines) = seat.lines.try_lock() else {
                continue;
            };
            lines.shared.retain_mut(|it| {
                if it.calls() > 0 {
                    it.used = now;
                }
                let is_gone = it.peer.is_some_and(|peer| gone.contains(&peer));
                !is_gone && !it.sender.is_closed() && now.duration_since(it.used) <= pool::PATIENCE
            });
        }
    }

    /// Calls that a connection may have.
    fn most(&self, shared: &Shared) -> usize {
        if let Some(connection) = shared.connection.upgrade() {
            let allowed = locked(&connection).current_max_send_streams();
            self.allowed
                .store(allowed.clamp(1, MOST), Ordering::Relaxed);
        }
        self.allowed.load(Ordering::Relaxed)
    }

    fn own(&self) -> &Seat {
        // There are always as many.
        static NONE: Seat = Seat {
            lines: tokio::sync::Mutex::const_new(Lines {
                shared: Vec::new(),
                failed: None,
            }),
            failures: AtomicUsize::new(0),
        };
        self.seats.get(workers::seat() % SEATS).unwrap_or(&NONE)
    }
}

impl Shared {
    fn place(&self) -> Place {
        Place {
            sender: self.sender.clone(),
            call: Hold(Arc::clone(&self.calls)),
        }
    }

    /// Calls that are under way on it.
    fn calls(&self) -> usize {
        Arc::strong_count(&self.calls) - 1
    }
}

fn locked(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_is_kept_as_long_as_it_has_calls_and_a_minute_more() {
        let connections = Connections::default();
        let (near, _far) = tokio::io::duplex(1 << 16);
        let mut turn = connections.any_turn().await;
        let opened = connections.open(&mut turn, Socket::Played(Box::new(near)));
        let place = opened.await.unwrap();
        drop(turn);
        let began = Instant::now();
        let kept = async |seconds| {
            let now = began + Duration::from_secs(seconds);
            connections.sweep(&[], now);
            connections.any_turn().await.shared.len()
        };
        assert_eq!(kept(100).await, 1);
        drop(place);
        assert_eq!(kept(155).await, 1);
        assert_eq!(kept(165).await, 0);
    }
}
