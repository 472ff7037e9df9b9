//! Memory for what callers send: a body that has no room is not read, so that its caller waits, and is
//! refused where none comes free.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::gauge;
use crate::config::Overload;

/// Up to so many bytes a body is no more than what its connection takes anyway.
const SMALL: usize = 16 << 10;
/// Bodies share an eighth of the memory: a call may need several times its body, where it is written anew.
const PART: u64 = 8;

/// Room for bodies, counted in KiB.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    free: Arc<Semaphore>,
    all: usize,
    patience: Duration,
}

/// Room that a body has, given back when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    permit: Option<OwnedSemaphorePermit>,
    kib: usize,
}

impl Room {
    pub(super) fn new(config: &Overload) -> Self {
        let all = match config.bodies_mb {
            0 => gauge::most(config) / PART,
            said => said << 20,
        };
        let all = usize::try_from(all >> 10)
            .unwrap_or(usize::MAX)
            .min(Semaphore::MAX_PERMITS);
        Self {
            free: Arc::new(Semaphore::new(all)),
            all,
            patience: config.queue(),
        }
    }

    /// What bodies have taken, in bytes.
    pub(super) fn taken(&self) -> usize {
        (self.all - self.free.available_permits().min(self.all)) << 10
    }

    /// Sees to it that `taken` has room for a body of `bytes`; `false` where there is none in time. A body
    /// that is larger than all there is gets all of it.
    pub(crate) async fn fits(&self, taken: &mut Taken, bytes: usize) -> bool {
        if bytes <= SMALL {
            return true;
        }
        let wanted = bytes.div_ceil(1 << 10).min(self.all);
        let more = wanted.saturating_sub(taken.kib);
        let Ok(asked @ 1..) = u32::try_from(more) else {
            return true;
        };
        let permit = if let Ok(permit) = Arc::clone(&self.free).try_acquire_many_owned(asked) {
            permit
        } else {
            let waiting = Arc::clone(&self.free).acquire_many_owned(asked);
            let Ok(Ok(permit)) = Box::pin(timeout(self.patience, waiting)).await else {
                return false;
            };
            permit
        };
        taken.kib = wanted;
        match &mut taken.permit {
            Some(known) => known.merge(permit),
            none => *none = Some(permit),
        }
        true
    }
}
