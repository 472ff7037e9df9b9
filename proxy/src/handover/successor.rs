//! The process that has taken over, as the one before sees it: a journal behind a socket. Threads of calls
//! write to it; a thread of its own reads what it answers.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use meter::{Denied, Entry, Held, JournalError, Position};
use serde::Serialize;
use tokio::sync::watch;

use super::{FromNew, FromOld, line};

/// How long a hold is waited for, which takes some tens of microseconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the last settlements are waited for.
const LAST: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Successor {
    line: Mutex<Line>,
    /// What it has on its disk; `None` once it is gone.
    synced: watch::Sender<Option<u64>>,
    gone: AtomicBool,
}

#[derive(Debug)]
struct Line {
    stream: UnixStream,
    /// What is to be answered, in the order of the questions.
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
enum Waiting {
    Hold(SyncSender<Result<Position, Denied>>),
    Settle,
}

impl Successor {
    /// Speaks to it over `stream`.
    pub(super) fn new(stream: UnixStream) -> std::io::Result<Arc<Self>> {
        let reading = stream.try_clone()?;
        let successor = Arc::new(Self {
            line: Mutex::new(Line {
                stream,
                waiting: VecDeque::new(),
            }),
            synced: watch::Sender::new(Some(0)),
            gone: AtomicBool::new(false),
        });
        let for_thread = Arc::clone(&successor);
        std::thread::Builder::new()
            .name("successor".to_owned())
            .spawn(move || for_thread.listen(reading))?;
        Ok(successor)
    }

    /// Asks for a hold by the budgets there.
    pub(super) fn hold(&self, held: &Held) -> Result<Position, Denied> {
        let (answer, answered) = mpsc::sync_channel(1);
        let message = FromOld::Hold(Box::new(held.clone()));
        self.say(&message, Waiting::Hold(answer))?;
        let answered = answered.recv_timeout(PATIENCE);
        answered.map_err(|_| self.error("it does not answer"))?
    }

    /// Tells how a call ended.
    pub(super) fn settle(&self, entry: &Entry) -> Result<Position, JournalError> {
        let message = FromOld::Settle(Box::new(entry.clone()));
        self.say(&message, Waiting::Settle)?;
        Ok(Position::default())
    }

    /// Waits until everything before `position` is on its disk.
    pub(super) async fn synced(&self, position: Position) -> Result<(), JournalError> {
        let mut synced = self.synced.subscribe();
        let reached = synced
            .wait_for(|synced| synced.is_none_or(|synced| synced >= position.0))
            .await;
        match reached.as_deref() {
            Ok(Some(_)) => Ok(()),
            _ => Err(self.error("it is gone")),
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        !self.gone.load(Ordering::Acquire)
    }

    /// Waits until it has answered everything. Blocks.
    pub(super) fn told(&self) {
        let until = Instant::now() + LAST;
        while self.is_alive() && Instant::now() < until && !self.line().waiting.is_empty() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn say(&self, message: &impl Serialize, waiting: Waiting) -> Result<(), JournalError> {
        let text = line(message).map_err(|error| self.error(&error.to_string()))?;
        let mut line = self.line();
        if !self.is_alive() {
            return Err(self.error("it is gone"));
        }
        line.waiting.push_back(waiting);
        let written = line.stream.write_all(&text);
        written.map_err(|error| self.error(&error.to_string()))
    }

    /// Takes its answers until it is gone.
    fn listen(&self, stream: UnixStream) {
        for text in BufReader::new(stream).lines() {
            let Ok(text) = text else { break };
            match serde_json::from_str(&text) {
                Ok(FromNew::Held(position)) => self.answer(Ok(position)),
                Ok(FromNew::Denied(denied)) => self.answer(Err(denied)),
                Ok(FromNew::Settled) => drop(self.line().waiting.pop_front()),
                Ok(FromNew::Unsettled(error)) => {
                    tracing::warn!(%error, "a settlement waits for the journal of the new process");
                    self.line().waiting.pop_front();
                }
                Ok(FromNew::Synced(position)) => {
                    self.synced.send_modify(|synced| {
                        *synced = synced.map(|known| known.max(position.0));
                    });
                }
                Ok(FromNew::Hello { .. } | FromNew::Take | FromNew::Ready) | Err(_) => break,
            }
        }
        self.gone.store(true, Ordering::Release);
        self.synced.send_replace(None);
        let left = std::mem::take(&mut self.line().waiting);
        if !left.is_empty() {
            tracing::error!(
                unanswered = left.len(),
                "the process that has taken over is gone"
            );
        }
    }

    fn answer(&self, answer: Result<Position, Denied>) {
        if let Some(Waiting::Hold(asked)) = self.line().waiting.pop_front() {
            // Who has stopped waiting has told its caller; the hold there ends with this process.
            let _told = asked.send(answer);
        }
    }

    #[expect(clippy::unused_self, reason = "the error is of this journal")]
    fn error(&self, what: &str) -> JournalError {
        JournalError {
            path: "of the process that has taken over".to_owned(),
            what: what.to_owned(),
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
