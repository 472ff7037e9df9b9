//! The process before, as the one that has taken over sees it: its last calls hold and settle here.

use std::sync::Arc;

use meter::{Denied, Held, Journal};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::mpsc;

use super::{FromNew, FromOld, Predecessor, line};
use crate::clock::now_ms;
use crate::gateway::Shared;
use crate::telemetry;

/// Answers that may wait for the process before to read them.
const WAITING: usize = 1_024;
/// How often a hold is tried again that the journal has refused.
const TRIES: u8 = 2;

/// Serves the process before until it ends; then charges what it has not settled.
pub(crate) async fn serve(predecessor: Predecessor, shared: &Arc<Shared>) {
    let Predecessor { stream, said } = predecessor;
    match stream
        .set_nonblocking(true)
        .and_then(|()| UnixStream::from_std(stream))
    {
        Ok(stream) => listen(stream, &said, shared).await,
        Err(error) => tracing::error!(%error, "the process before can not be heard"),
    }
    let left = shared.meter.abandon(now_ms());
    telemetry::orphaned(left);
    tracing::info!(left, "the process before has ended");
    let shared = Arc::clone(shared);
    let looked = tokio::task::spawn_blocking(move || {
        let is_made_here = |id: &str| shared.background.contains_key(id);
        shared.memory.be_alone(is_made_here)
    });
    if let Ok(Err(error)) = looked.await {
        tracing::warn!(%error, "what the process before has written last could not be read");
    }
}

/// Answers what it says, which begins with what it `has_said`, until it ends.
async fn listen(stream: UnixStream, has_said: &[u8], shared: &Arc<Shared>) {
    let (reading, writing) = stream.into_split();
    let (say, said) = mpsc::channel(WAITING);
    let writer = shared.tasks.spawn(write(writing, said));
    let mut lines = BufReader::new(has_said.chain(reading)).lines();
    while let Ok(Some(text)) = lines.next_line().await {
        let answer = match serde_json::from_str(&text) {
            Ok(FromOld::Hold(held)) => hold(shared, *held, &say).await,
            Ok(FromOld::Settle(entry)) => match shared.meter.settle_for(*entry) {
                // What is not carried any more has been charged.
                Some(Ok(_)) | None => FromNew::Settled,
                Some(Err(error)) => FromNew::Unsettled(error),
            },
            Ok(_) | Err(_) => break,
        };
        if say.send(answer).await.is_err() {
            break;
        }
    }
    drop(say);
    writer.abort();
}

/// Holds for a call of the process before, and tells it once the hold is on the disk.
async fn hold(shared: &Arc<Shared>, held: Held, say: &mpsc::Sender<FromNew>) -> FromNew {
    let journal = &shared.journal;
    let mut tries = TRIES;
    let position = loop {
        match shared.meter.hold_for(held.clone(), now_ms()) {
            Ok(position) => break position,
            // This process may itself be handing over.
            Err(Denied::Journal(_)) if tries > 0 => {
                tries -= 1;
                journal.moved().await;
            }
            Err(denied) => return FromNew::Denied(denied),
        }
    };
    let (journal, say) = (Arc::clone(journal), say.clone());
    shared.tasks.spawn(async move {
        if journal.synced(position).await.is_ok() {
            // A process that is gone need not know.
            let _told = say.send(FromNew::Synced(position)).await;
        }
    });
    FromNew::Held(position)
}

async fn write(mut writing: OwnedWriteHalf, mut said: mpsc::Receiver<FromNew>) {
    while let Some(message) = said.recv().await {
        let Ok(text) = line(&message) else { return };
        if writing.write_all(&text).await.is_err() {
            return;
        }
    }
}
