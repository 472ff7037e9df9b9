//! Connections to an endpoint that wait for their next call: kept by the worker that made them, the last
//! one used first, so that those that are not needed grow old and are closed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::dial::Socket;
use crate::workers;

/// How long a connection waits.
const PATIENCE: Duration = Duration::from_mins(1);
/// Shelves; workers beyond share them.
const SHELVES: usize = 64;

/// A connection that can take a call.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) socket: Socket,
    /// It had a call before, so that the endpoint may be about to close it.
    pub(super) is_used: bool,
    seat: usize,
}

impl Line {
    /// A connection that was just made.
    pub(super) fn new(socket: Socket) -> Self {
        Self {
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
}

impl Pool {
    pub(super) fn new(most: usize) -> Self {
        Self {
            shelves: (0..SHELVES).map(|_| Mutex::default()).collect(),
            count: AtomicUsize::new(0),
            most,
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
        if self.count.fetch_add(1, Ordering::Relaxed) >= self.most {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        if let Some(mut shelf) = self.shelf(line.seat) {
            shelf.push((line, Instant::now()));
        }
    }

    /// Closes connections that have waited for too long.
    pub(super) fn sweep(&self) {
        for seat in 0..SHELVES {
            let Some(mut shelf) = self.shelf(seat) else {
                continue;
            };
            // The oldest stand in front.
            let old = shelf.partition_point(|(_, since)| since.elapsed() > PATIENCE);
            self.count.fetch_sub(old, Ordering::Relaxed);
            let closed: Vec<_> = shelf.drain(..old).collect();
            drop(shelf);
            drop(closed);
        }
    }

    fn shelf(&self, seat: usize) -> Option<MutexGuard<'_, Vec<(Line, Instant)>>> {
        let shelf = self.shelves.get(seat % SHELVES)?;
        Some(shelf.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
