//! Being told to stop: Ctrl-C, SIGTERM, a terminal that is closed.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens for whoever wants the program to stop.
pub(super) struct Stop {
    signals: [Signal; 3],
}

impl Stop {
    /// Listens from now on: signals do not end the program by themselves any more.
    pub(super) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            signals: [
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
                signal(SignalKind::hangup())?,
            ],
        })
    }

    /// Waits until somebody wants it.
    pub(super) async fn asked(&mut self) {
        let [interrupt, terminate, hang_up] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
        }
    }

    /// What comes of `work`, unless somebody wants it to stop before.
    pub(super) async fn within<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            () = self.asked() => None,
            done = work => Some(done),
        }
    }
}
