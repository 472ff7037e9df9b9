//! Connections to an endpoint that wait for their next call: kept by the worker that made them, the last
//! one used first, so that those that are not needed grow old and are closed.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::dial::Socket;
use crate::workers;

/// How long a connection waits.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);
/// Shelves; workers beyond share them.
const SHELVES: usize = 64;

/// A connection that can take a call.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) socket: Socket,
    /// It had a call before, so that the endpoint may be about to close it.
    pub(super) is_used: bool,
    /// Where it leads.
    peer: Option<SocketAddr>,
    seat: usize,
}

impl Line {
    /// A connection that was just made.
    pub(super) fn new(socket: Socket) -> Self {
        Self {
            peer: socket.peer(),
            socket,
            is_used: false,
            seat: workers::seat(),
        }
    }
}

/// Idle connections.
#[derive(Debug)]
pub(super) struct Pool {
    shelves: Vec<Mutex<Vec<(Line, Instant)>>>,
    /// On all shelves, and how many there may be.
    count: AtomicUsize,
    most: usize,
    /// Addresses that the endpoint has no more: nothing to them is kept.
    gone: Mutex<Vec<SocketAddr>>,
    is_any_gone: AtomicBool,
}

impl Pool {
    pub(super) fn new(most: usize) -> Self {
        Self {
            shelves: (0..SHELVES).map(|_| Mutex::default()).collect(),
            count: AtomicUsize::new(0),
            most,
            gone: Mutex::default(),
            is_any_gone: AtomicBool::new(false),
        }
    }

    /// The connection that this worker put back last.
    pub(super) fn take(&self) -> Option<Line> {
        let line = self.shelf(workers::seat())?.pop();
        line.map(|(line, _)| {
            self.count.fetch_sub(1, Ordering::Relaxed);
            line
        })
    }

    /// Keeps a connection whose last call ended cleanly, unless there are enough.
    pub(super) fn put(&self, mut line: Line) {
        line.is_used = true;
        if self.is_any_gone.load(Ordering::Relaxed) && leads_to(&line, &self.gone()) {
            return;
        }
        if self.count.fetch_add(1, Ordering::Relaxed) >= self.most {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        if let Some(mut shelf) = self.shelf(line.seat) {
            shelf.push((line, Instant::now()));
        }
    }

    /// Closes connections that have waited for too long, and those to addresses that are `gone`: as long as
    /// they are, none to them is kept.
    pub(super) fn sweep(&self, gone: &[SocketAddr]) {
        *self.gone() = gone.to_vec();
        self.is_any_gone.store(!gone.is_empty(), Ordering::Relaxed);
        for seat in 0..SHELVES {
            let Some(mut shelf) = self.shelf(seat) else {
                continue;
            };
            // The oldest stand in front.
            let old = shelf.partition_point(|(_, since)| since.elapsed() > PATIENCE);
            self.count.fetch_sub(old, Ordering::Relaxed);
            let mut closed: Vec<_> = shelf.drain(..old).collect();
            if !gone.is_empty() {
                let before = shelf.len();
                closed.extend(shelf.extract_if(.., |(line, _)| leads_to(line, gone)));
                self.count
                    .fetch_sub(before - shelf.len(), Ordering::Relaxed);
            }
            drop(shelf);
            drop(closed);
        }
    }

    fn gone(&self) -> MutexGuard<'_, Vec<SocketAddr>> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shelf(&self, seat: usize) -> Option<MutexGuard<'_, Vec<(Line, Instant)>>> {
        let shelf = self.shelves.get(seat % SHELVES)?;
        Some(shelf.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether a connection leads to one of some addresses, as far as is known.
fn leads_to(line: &Line, addresses: &[SocketAddr]) -> bool {
    line.peer.is_none_or(|peer| addresses.contains(&peer))
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn connections_to_addresses_that_are_gone_are_not_kept_until_these_are_back() {
        let (first, second) = (listening().await, listening().await);
        let addresses = [&first, &second].map(|it| it.local_addr().unwrap());
        let pool = Pool::new(8);
        for address in addresses {
            pool.put(line(address).await);
        }
        pool.sweep(&[]);
        assert_eq!(pool.count.load(Ordering::Relaxed), 2);
        // A call is under way on this one.
        let busy = line(addresses[0]).await;
        pool.sweep(&addresses[..1]);
        pool.put(busy);
        assert_eq!(pool.count.load(Ordering::Relaxed), 1);
        let kept = pool.take().unwrap();
        assert_eq!(kept.peer, Some(addresses[1]));
        assert!(pool.take().is_none());
        pool.sweep(&[]);
        pool.put(line(addresses[0]).await);
        assert_eq!(pool.take().unwrap().peer, Some(addresses[0]));
    }

    async fn listening() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").await.unwrap()
    }

    async fn line(address: SocketAddr) -> Line {
        Line::new(Socket::Plain(TcpStream::connect(address).await.unwrap()))
    }
}
