//! An answer that is kept while it comes, so that whoever asks for it later hears all of it as well.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::admission::Flight;
use crate::gateway::Body;

/// Bytes that are kept of answers that are complete.
const MOST: usize = 64 << 20;
/// And as many as each of them counts at least.
const LEAST: usize = 1 << 10;

/// An answer so far.
#[derive(Debug, Default)]
pub(crate) struct Recording(watch::Sender<Told>);

#[derive(Debug, Default)]
struct Told {
    pieces: Vec<Bytes>,
    bytes: usize,
    /// It has ended, or broken off, and when.
    end: Option<(Result<(), &'static str>, Instant)>,
}

impl Recording {
    /// All pieces from the one at `from` on, up to the end. Whoever listens holds `flight`.
    pub(crate) fn listen(&self, from: usize, flight: Option<Arc<Flight>>) -> Body {
        let told = self.0.subscribe();
        let pieces = stream::unfold(Some((told, from, flight)), |listener| async move {
            let (mut told, at, flight) = listener?;
            loop {
                {
                    let so_far = told.borrow_and_update();
                    if let Some(piece) = so_far.pieces.get(at).cloned() {
                        drop(so_far);
                        return Some((Ok(Frame::data(piece)), Some((told, at + 1, flight))));
                    }
                    match so_far.end {
                        Some((Ok(()), _)) => return None,
                        Some((Err(why), _)) => return Some((Err(why.into()), None)),
                        None => {}
                    }
                }
                told.changed().await.ok()?;
            }
        });
        StreamBody::new(pieces).boxed_unsync()
    }

    /// All of an answer that is complete and came in one piece.
    pub(crate) fn whole(&self) -> Option<Bytes> {
        let told = self.0.borrow();
        match (&told.end, &*told.pieces) {
            (Some((Ok(()), _)), []) => Some(Bytes::new()),
            (Some((Ok(()), _)), [piece]) => Some(piece.clone()),
            _ => None,
        }
    }

    /// The place of the first piece that `is_it`, or that of the next to come.
    pub(crate) fn place(&self, is_it: impl FnMut(&Bytes) -> bool) -> usize {
        let told = self.0.borrow();
        let found = told.pieces.iter().position(is_it);
        found.unwrap_or(told.pieces.len())
    }

    pub(crate) fn tell(&self, piece: Bytes) {
        self.0.send_modify(|told| {
            told.bytes += piece.len();
            told.pieces.push(piece);
        });
    }

    /// Bytes told so far.
    pub(crate) fn bytes(&self) -> usize {
        self.0.borrow().bytes
    }

    /// Nothing more will be told; the first to say so is right.
    pub(crate) fn end(&self, how: Result<(), &'static str>) {
        self.0.send_modify(|told| {
            told.end.get_or_insert_with(|| (how, Instant::now()));
        });
    }

    /// What is kept of an answer that is complete.
    pub(crate) fn lasting(&self) -> Option<Lasting> {
        let told = self.0.borrow();
        let (_, at) = told.end?;
        Some(Lasting {
            bytes: told.bytes.max(LEAST),
            since: at.elapsed(),
        })
    }
}

/// Bytes of an answer that is complete, and how long it has been that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lasting {
    bytes: usize,
    since: Duration,
}

/// Which of the answers that are complete to forget: those kept for `long`, and the longest where there is too
/// much, so that nobody's many words push out those of others.
pub(crate) fn to_forget<K: Ord>(mut kept: Vec<(Lasting, K)>, long: Duration) -> Vec<K> {
    kept.sort_unstable();
    let mut bytes = 0_usize;
    kept.retain(|(lasting, _)| {
        bytes = bytes.saturating_add(lasting.bytes);
        lasting.since >= long || bytes > MOST
    });
    kept.into_iter().map(|(_, key)| key).collect()
}
