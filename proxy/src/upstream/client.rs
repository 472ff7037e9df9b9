//! An endpoint's connections: HTTP/1.1 ones that wait in a pool, HTTP/2 ones that calls share.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Method, Request, Response, Uri, Version};
use tokio::time::Instant;

use super::SendError;
use super::answer::Answer;
use super::dial::{Dial, Socket, Terms};
use super::fields::Fields;
use super::http1::{exchange, is_quiet, written};
use super::http2::{Connections, Place};
use super::names::Resolve;
use super::pieces::Pieces;
use super::pool::{Line, Pool};
use crate::config;
use crate::http1::Outbox;

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

/// The connections of an endpoint.
pub(super) struct Client {
    dial: Dial,
    pool: Arc<Pool>,
    /// HTTP/2 was asked for, or agreed on when a connection was made last.
    is_http2: AtomicBool,
    http2_only: bool,
    shared: Connections,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// Connections to the host of `uri`.
    pub(super) fn new(
        uri: &Uri,
        terms: Terms<'_>,
        patience: &config::Upstream,
        resolver: Arc<dyn Resolve>,
    ) -> Result<Self, String> {
        let connect = Duration::from_millis(patience.connect_timeout_ms);
        Ok(Self {
            dial: Dial::new(uri, terms, connect, resolver)?,
            pool: Arc::new(Pool::new(patience.idle_connections)),
            is_http2: AtomicBool::new(terms.http2_only),
            http2_only: terms.http2_only,
            shared: Connections::default(),
        })
    }

    /// Closes connections that waited for too long, and those to addresses that are gone; calls that are
    /// under way on them end first.
    pub(super) async fn sweep(&self) {
        self.dial.names.refresh(Instant::now()).await;
        let gone = self.dial.names.gone();
        self.pool.sweep(&gone);
        self.shared.sweep(&gone, Instant::now());
    }

    /// Sends a call. Ends when its answer has begun; dropping it cancels the call.
    pub(super) async fn send(&self, call: Call<'_>) -> Result<Response<Answer>, SendError> {
        let socket = if self.is_http2.load(Ordering::Relaxed) {
            match Box::pin(self.place()).await? {
                Ready::Http2(place) => return Box::pin(self.send_http2(place, call)).await,
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
            let place = Box::pin(self.share(socket)).await?;
            return Box::pin(self.send_http2(place, call)).await;
        }
        let answered = exchange(Line::new(socket), &mut outbox, &self.pool).await;
        answered.map_err(|it| it.error)
    }

    /// A place on an HTTP/2 connection of this worker, made anew where none has one left.
    async fn place(&self) -> Result<Ready, SendError> {
        let mut turn = self.shared.turn().await?;
        if let Some(place) = self.shared.take(&mut turn) {
            return Ok(Ready::Http2(place));
        }
        let dialled = match self.dial.connect().await {
            Ok(socket) if !self.http2_only && !socket.is_http2() => {
                self.is_http2.store(false, Ordering::Relaxed);
                return Ok(Ready::Http1(socket));
            }
            Ok(socket) => self.shared.open(&mut turn, socket).await,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = &dialled {
            self.shared.failed(&mut turn, error);
        }
        dialled.map(Ready::Http2)
    }

    /// Makes a new connection one that this worker's calls share.
    async fn share(&self, socket: Socket) -> Result<Place, SendError> {
        let mut turn = self.shared.any_turn().await;
        self.shared.open(&mut turn, socket).await
    }

    /// Sends a call over a shared connection. What the endpoint did not touch goes out once more, on another
    /// one.
    async fn send_http2(
        &self,
        mut place: Place,
        call: Call<'_>,
    ) -> Result<Response<Answer>, SendError> {
        let mut request = Request::new(call.body);
        *request.method_mut() = call.method;
        *request.uri_mut() = call.uri.clone();
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = call.fields.map();
        for is_last in [false, true] {
            let again = request.clone();
            let unanswered = match place.send(request).await {
                Ok(answer) => return Ok(answer.map(|body| Answer::Http2(body, place.into_hold()))),
                Err(unanswered) => unanswered,
            };
            if unanswered.is_untouched || unanswered.error.is_stale {
                self.shared.leave(place).await;
            }
            if is_last || !unanswered.is_untouched {
                return Err(unanswered.error);
            }
            request = again;
            let Ready::Http2(new) = self.place().await? else {
                break;
            };
            place = new;
        }
        Err(SendError::unconnected("the endpoint speaks HTTP/2 no more"))
    }
}

/// What a call can be sent on.
enum Ready {
    Http2(Place),
    Http1(Socket),
}
