//! A caller's connection: what came and was not read yet, what is to go out, and one timer.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;

use super::alarm::Alarm;
use super::head::{self, BadHead, Bounds, Search};
use super::outbox::Outbox;
use super::scratch;
use super::upload::Receiver;

/// Bytes that are read at once: a head and a short body. What is longer is read to where it stays.
const AT_ONCE: usize = 16 << 10;
/// Bytes of requests to come that are kept while one is answered.
const AHEAD: usize = 32 << 10;
/// How long a caller is listened to after the last answer, so that a reset does not overtake it.
const LINGER: Duration = Duration::from_secs(2);

/// What a caller is connected by.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Unpin + Send {
    /// Makes the end of the connection a visible failure.
    fn spoil(&mut self);
}

impl Socket for TcpStream {
    fn spoil(&mut self) {
        // Where it fails the connection is gone already.
        let _set = self.set_zero_linger();
    }
}

impl Socket for TlsStream<TcpStream> {
    fn spoil(&mut self) {
        self.get_mut().0.spoil();
    }
}

/// Why there is no next request.
#[derive(Debug)]
pub(super) enum NoHead {
    /// The caller closed, or said nothing for too long, or the gateway ends.
    Quiet,
    /// It began one and did not end it in time.
    Slow,
    Bad(BadHead),
}

/// A connection.
pub(super) struct Line<S> {
    socket: S,
    pub(super) inbox: BytesMut,
    pub(super) outbox: Outbox,
    alarm: Alarm,
}

impl<S: Socket> Line<S> {
    pub(super) fn new(socket: S, inbox: BytesMut, due: Instant) -> Self {
        Self {
            socket,
            inbox,
            outbox: Outbox::default(),
            alarm: Alarm::at(due),
        }
    }

    /// Reads once into the inbox; 0 at the end.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let inbox = &mut self.inbox;
        scratch::poll_read_up_to(AT_ONCE, &mut self.socket, context, |came| {
            inbox.extend_from_slice(came);
            came.len()
        })
    }

    /// Waits for a request's head: for its first byte as long as `idle`, from then on as long as `patience`.
    pub(super) async fn head(
        &mut self,
        bounds: Bounds,
        idle: Duration,
        patience: Duration,
        is_closing: impl Fn() -> bool,
    ) -> Result<Bytes, NoHead> {
        let mut search = Search::default();
        let mut due: Option<(bool, Instant)> = None;
        std::future::poll_fn(|context| {
            loop {
                match search.find(&self.inbox, bounds) {
                    Ok(Some(found)) => {
                        let head = head::cut(&mut self.inbox, found);
                        return Poll::Ready(Ok(head));
                    }
                    Ok(None) => {}
                    Err(bad) => return Poll::Ready(Err(NoHead::Bad(bad))),
                }
                let has_begun = !self.inbox.is_empty();
                if !has_begun && is_closing() {
                    return Poll::Ready(Err(NoHead::Quiet));
                }
                match self.poll_read(context) {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(NoHead::Quiet)),
                    Poll::Ready(Ok(_)) => continue,
                    Poll::Pending => {}
                }
                let until = match due {
                    Some((begun, until)) if begun == has_begun => until,
                    _ => Instant::now() + if has_begun { patience } else { idle },
                };
                due = Some((has_begun, until));
                ready!(self.alarm.poll(until, context));
                return Poll::Ready(Err(if has_begun {
                    NoHead::Slow
                } else {
                    NoHead::Quiet
                }));
            }
        })
        .await
    }

    /// Gives what came of a request's body to `receiver`. `Ready` when there was something.
    pub(super) fn poll_body(
        &mut self,
        receiver: &mut Receiver,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        if receiver.expects {
            receiver.expects = false;
            if self.inbox.is_empty() {
                let word = b"HTTP/1.1 100 Continue\r\n\r\n";
                self.outbox.head().extend_from_slice(word);
            }
        }
        if !self.outbox.is_empty() && ready!(self.poll_out(context)).is_err() {
            receiver.break_off(context);
            return Poll::Ready(());
        }
        let mut came = false;
        while !receiver.is_done() {
            if !self.inbox.is_empty() {
                came = true;
                // What is wrong with it is in the receiver too.
                let _taken = receiver.take(&mut self.inbox, context);
                continue;
            }
            let read = match receiver.room() {
                Some((room, left)) => {
                    let mut room = room.limit(left);
                    let reading = pin!(self.socket.read_buf(&mut room));
                    reading.poll(context)
                }
                None => self.poll_read(context),
            };
            match read {
                Poll::Ready(Ok(0) | Err(_)) => {
                    receiver.break_off(context);
                    came = true;
                }
                Poll::Ready(Ok(length)) if self.inbox.is_empty() => {
                    came = true;
                    receiver.came(length, context);
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Pending if came => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }

    /// `Ready` once the caller has left. What it sends meanwhile is kept, up to a bound.
    pub(super) fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.inbox.len() < AHEAD {
            if let Ok(0) | Err(_) = ready!(self.poll_read(context)) {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }

    /// Writes what is in the outbox.
    pub(super) fn poll_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outbox.poll(&mut self.socket, context)
    }

    /// `Ready` once it is `due`.
    pub(super) fn poll_alarm(&mut self, due: Instant, context: &mut Context<'_>) -> Poll<()> {
        self.alarm.poll(due, context)
    }

    /// Ends the connection so that what was written still reaches the caller: it hears the end, and is
    /// listened to for a while, up to `most` bytes.
    pub(super) async fn close(mut self, most: usize) {
        let due = Instant::now() + LINGER;
        let (mut is_shut, mut heard) = (false, 0);
        std::future::poll_fn(|context| {
            if !is_shut {
                match Pin::new(&mut self.socket).poll_shutdown(context) {
                    Poll::Ready(Ok(())) => is_shut = true,
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => {}
                }
            }
            loop {
                let read = scratch::poll_read(&mut self.socket, context, |came| came.len());
                match read {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                    Poll::Ready(Ok(length)) => heard += length,
                    Poll::Pending => break,
                }
                if heard > most {
                    return Poll::Ready(());
                }
            }
            self.alarm.poll(due, context)
        })
        .await;
    }

    /// Ends the connection so that the caller sees that something is missing.
    pub(super) fn spoil(mut self) {
        self.socket.spoil();
    }
}
