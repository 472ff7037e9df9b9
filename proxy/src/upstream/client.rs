//! An endpoint's connections: HTTP/1.1 ones that wait in a pool, HTTP/2 ones that calls share.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Method, Request, Response, Uri, Version};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::answer::Answer;
use super::dial::{Dial, Socket};
use super::fields::Fields;
use super::http1::{exchange, is_quiet, written};
use super::names::Resolve;
use super::pieces::Pieces;
use super::pool::{Line, Pool};
use super::{SendError, chain};
use crate::config;
use crate::http1::Outbox;
use crate::workers;

/// HTTP/2 connections; workers beyond share them.
const SEATS: usize = 64;
/// How often an endpoint that is silent while calls are open is asked whether it is there, and how long it
/// may take to say so.
const PING: Duration = Duration::from_secs(30);
const PONG: Duration = Duration::from_secs(10);

/// A call on its way to an endpoint.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) uri: &'a Uri,
    pub(super) fields: Fields<'a>,
    pub(super) body: Pieces,
}

impl<'a> Call<'a> {
    pub(super) fn post(uri: &'a Uri, fields: Fields<'a>, body: Pieces) -> Self {
        Self {
            method: Method::POST,
            uri,
            fields,
            body,
        }
    }
}

/// An HTTP/2 connection, and where it leads.
type Shared = (SendRequest<Pieces>, SocketAddr);

/// The connections of an endpoint.
pub(super) struct Client {
    dial: Dial,
    pool: Arc<Pool>,
    /// HTTP/2 was asked for, or agreed on when a connection was made last.
    is_http2: AtomicBool,
    http2_only: bool,
    /// With the addresses that they lead to.
    shared: Vec<Mutex<Option<Shared>>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// Connections to the host of `uri`; `http2_only` from the first byte.
    pub(super) fn new(
        uri: &Uri,
        http2_only: bool,
        patience: &config::Upstream,
        resolver: Arc<dyn Resolve>,
    ) -> Result<Self, String> {
        let connect = Duration::from_millis(patience.connect_timeout_ms);
        Ok(Self {
            dial: Dial::new(uri, http2_only, connect, resolver)?,
            pool: Arc::new(Pool::new(patience.idle_connections)),
            is_http2: AtomicBool::new(http2_only),
            http2_only,
            shared: (0..SEATS).map(|_| Mutex::default()).collect(),
        })
    }

    /// Closes connections that waited for too long, and those to addresses that are gone; calls that are
    /// under way on them end first.
    pub(super) async fn sweep(&self) {
        self.dial.names.refresh(Instant::now()).await;
        let gone = self.dial.names.gone();
        self.pool.sweep(&gone);
        if gone.is_empty() {
            return;
        }
        for place in &self.shared {
            let mut place = place.lock().await;
            if place.as_ref().is_some_and(|(_, peer)| gone.contains(peer)) {
                *place = None;
            }
        }
    }

    /// Sends a call. Ends when its answer has begun; dropping it cancels the call.
    pub(super) async fn send(&self, call: Call<'_>) -> Result<Response<Answer>, SendError> {
        let socket = if self.is_http2.load(Ordering::Relaxed) {
            match Box::pin(self.sender()).await? {
                Ready::Http2(sender) => return Box::pin(self.send_http2(sender, call)).await,
                Ready::Http1(socket) => Some(socket),
            }
        } else {
            None
        };
        let mut outbox = Outbox::new(written(&call), call.body.clone().into_queue());
        if socket.is_none() {
            while let Some(mut line) = self.pool.take() {
                if !is_quiet(&mut line) {
                    continue;
                }
                match exchange(line, &mut outbox, &self.pool).await {
                    Err(unanswered) if unanswered.is_unsent => {}
                    answered => return answered.map_err(|it| it.error),
                }
            }
        }
        let socket = match socket {
            Some(socket) => socket,
            None => Box::pin(self.dial.connect()).await?,
        };
        if socket.is_http2() {
            self.is_http2.store(true, Ordering::Relaxed);
            let sender = Box::pin(self.share(socket)).await?;
            return Box::pin(self.send_http2(sender, call)).await;
        }
        let answered = exchange(Line::new(socket), &mut outbox, &self.pool).await;
        answered.map_err(|it| it.error)
    }

    /// The HTTP/2 connection of this worker, made anew where there is none that lives.
    async fn sender(&self) -> Result<Ready, SendError> {
        let mut place = self.seat().lock().await;
        if let Some((sender, _)) = place.as_ref().filter(|(it, _)| !it.is_closed()) {
            return Ok(Ready::Http2(sender.clone()));
        }
        let socket = self.dial.connect().await?;
        if !self.http2_only && !socket.is_http2() {
            self.is_http2.store(false, Ordering::Relaxed);
            return Ok(Ready::Http1(socket));
        }
        let peer = socket.peer();
        let sender = shake(socket).await?;
        *place = peer.map(|peer| (sender.clone(), peer));
        Ok(Ready::Http2(sender))
    }

    /// Makes a new connection the one that this worker's calls share.
    async fn share(&self, socket: Socket) -> Result<SendRequest<Pieces>, SendError> {
        let peer = socket.peer();
        let sender = shake(socket).await?;
        *self.seat().lock().await = peer.map(|peer| (sender.clone(), peer));
        Ok(sender)
    }

    fn seat(&self) -> &Mutex<Option<Shared>> {
        // There are always as many.
        static NONE: Mutex<Option<Shared>> = Mutex::const_new(None);
        self.shared.get(workers::seat() % SEATS).unwrap_or(&NONE)
    }

    /// Sends a call over a shared connection. What the connection did not take any more goes out on a new
    /// one.
    async fn send_http2(
        &self,
        mut sender: SendRequest<Pieces>,
        call: Call<'_>,
    ) -> Result<Response<Answer>, SendError> {
        let mut request = Request::new(call.body);
        *request.method_mut() = call.method;
        *request.uri_mut() = call.uri.clone();
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = call.fields.map();
        for is_last in [false, true] {
            let again = request.clone();
            let sent = match sender.ready().await {
                Ok(()) => sender.send_request(request).await,
                Err(error) => Err(error),
            };
            match sent {
                Ok(answer) => return Ok(answer.map(Answer::Http2)),
                Err(error) if is_last || !(error.is_canceled() || error.is_closed()) => {
                    return Err(SendError::cut(chain(&error)));
                }
                Err(_) => {}
            }
            request = again;
            let Ready::Http2(new) = self.sender().await? else {
                break;
            };
            sender = new;
        }
        Err(SendError::unconnected("the endpoint speaks HTTP/2 no more"))
    }
}

/// What a call can be sent on.
enum Ready {
    Http2(SendRequest<Pieces>),
    Http1(Socket),
}

/// Begins to speak HTTP/2.
async fn shake(socket: Socket) -> Result<SendRequest<Pieces>, SendError> {
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(PING))
        .keep_alive_timeout(PONG)
        .handshake(TokioIo::new(socket))
        .await
        .map_err(|error| SendError::unconnected(chain(&error)))?;
    TokioExecutor::new().execute(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to an endpoint ended");
        }
    });
    Ok(sender)
}
