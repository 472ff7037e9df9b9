//! An answer that failed a check: it is kept, and read on, until a better one has begun, and given to
//! the caller if none does.

use std::future::pending;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt, Full};
use tokio::time::Instant;

use super::keeper::Unkept;
use super::stream::Stream;
use crate::cascade::Cause;
use crate::gateway::Body;
use crate::telemetry;
use crate::trace::Trace;

/// What is read of a stream that waits for a better one: most that fail a check are short, and one that
/// has come to its end is settled at what its endpoint reports.
const READ_AHEAD: usize = 64 << 10;
/// Longer than any wait for a better answer.
const NEVER: Duration = Duration::from_hours(1);

/// A fast answer that failed a check.
#[derive(Debug)]
pub(crate) struct Doubted {
    pub(crate) cause: Cause,
    /// The head of the answer, as it would be given.
    pub(super) head: Response<()>,
    pub(super) trace: Trace,
    pub(super) kept: Kept,
}

/// The rest of it.
#[derive(Debug)]
pub(super) enum Kept {
    /// It is settled; nothing is remembered of it yet.
    Whole {
        body: Bytes,
        unkept: Box<Unkept>,
    },
    Stream(Box<Stream>),
}

impl Doubted {
    /// Reads on in a stream; ready once something came.
    pub(crate) async fn read_on(&mut self) {
        match &mut self.kept {
            Kept::Stream(stream) if stream.queued() < READ_AHEAD => {
                if !stream.read_on(Instant::now() + NEVER).await {
                    pending::<()>().await;
                }
            }
            Kept::Stream(_) | Kept::Whole { .. } => pending().await,
        }
    }

    /// Ends it, because a better answer has begun. What it cost counts for the call all the same.
    pub(crate) fn cut(self) {
        if let Kept::Stream(stream) = self.kept {
            stream.cut();
        }
    }

    /// The answer for the caller, with what is known of its way; `None` if it broke off meanwhile.
    pub(crate) fn give(self) -> Option<(Response<Body>, Trace)> {
        let Self {
            head, trace, kept, ..
        } = self;
        let body = match kept {
            Kept::Whole { body, unkept, .. } => {
                unkept.keep();
                telemetry::answered(&trace, meter::Outcome::Completed.as_str());
                Full::new(body)
                    .map_err(|never| match never {})
                    .boxed_unsync()
            }
            Kept::Stream(stream) if stream.is_broken() => return None,
            Kept::Stream(mut stream) => {
                stream.release();
                stream.boxed_unsync()
            }
        };
        telemetry::lost(&trace.losses);
        telemetry::first_byte(&trace);
        Some((head.map(|()| body), trace))
    }
}
