//! One timer for a connection, moved only when it fires or comes too late.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer that is seldom touched: a later deadline waits until the earlier one has fired.
#[derive(Debug)]
pub(super) struct Alarm(Pin<Box<Sleep>>);

impl Alarm {
    pub(super) fn at(due: Instant) -> Self {
        Self(Box::pin(sleep_until(due)))
    }

    /// `Ready` once it is `due`.
    pub(super) fn poll(&mut self, due: Instant, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.0.deadline() > due {
                self.0.as_mut().reset(due);
            }
            ready!(self.0.as_mut().poll(context));
            if Instant::now() >= due {
                return Poll::Ready(());
            }
            self.0.as_mut().reset(due);
        }
    }
}
