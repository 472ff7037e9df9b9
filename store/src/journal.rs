//! The journal: an append-only, checksummed file of this node, in segments.
//!
//! A segment `journal-<first position>.log` is a 16-byte header (magic, version, first position) and
//! records `length u32 | crc32 u32 | payload`, little-endian, the payload a JSON [`Record`]. A
//! position counts record bytes over all segments; headers do not count. One mutex orders the
//! writes, one thread syncs: whoever waits shares the next `fdatasync` with all others.

mod segment;

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use meter::ledger::Synced;
use meter::{Journal, JournalError, Position, Record};
use tokio::sync::watch;

use crate::config::Sync;
use segment::Segment;
pub use segment::{ReadError, Reader};

/// The journal of one folder; one process at a time.
#[derive(Debug)]
pub struct FileJournal {
    shared: Arc<Shared>,
    syncer: Mutex<Option<JoinHandle<()>>>,
    sync: Sync,
    /// Held for as long as the journal is open.
    _lock: File,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    segment_bytes: u64,
    state: Mutex<State>,
    /// Tells the syncer that there is something to sync, or that it is to stop.
    work: Condvar,
    /// Tells a follower that more is on the disk.
    moved: Condvar,
    progress: watch::Sender<Progress>,
}

#[derive(Debug)]
struct State {
    segment: Segment,
    buffer: Vec<u8>,
    failed: Option<String>,
    stopping: bool,
}

/// How far the journal has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Progress {
    synced: u64,
    failed: Option<String>,
}

/// Why a journal can not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenJournalError {
    #[error("journal {0} is in use by another process; stop it, or give another store.dir")]
    InUse(PathBuf),
    #[error("journal {path}: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl FileJournal {
    /// Opens or makes the journal in `dir`; also returns how many bytes of a torn tail were cut.
    /// `applied` is what the ledger has: positions never fall behind it, even if files were lost.
    pub fn open(
        dir: &Path,
        sync: Sync,
        segment_bytes: u64,
        applied: Position,
    ) -> Result<(Self, u64), OpenJournalError> {
        let io = |error| OpenJournalError::Io {
            path: dir.to_owned(),
            error,
        };
        std::fs::create_dir_all(dir).map_err(io)?;
        let lock = File::create(dir.join("lock")).map_err(io)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => OpenJournalError::InUse(dir.to_owned()),
            TryLockError::Error(error) => io(error),
        })?;
        let (segment, cut) = Segment::open_last(dir, applied.0)?;
        let progress = Progress {
            synced: segment.end,
            failed: None,
        };
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            segment_bytes,
            state: Mutex::new(State {
                segment,
                buffer: Vec::new(),
                failed: None,
                stopping: false,
            }),
            work: Condvar::new(),
            moved: Condvar::new(),
            progress: watch::Sender::new(progress),
        });
        let for_thread = Arc::clone(&shared);
        let syncer = std::thread::Builder::new()
            .name("journal-sync".to_owned())
            .spawn(move || for_thread.sync_until_stopped())
            .map_err(io)?;
        Ok((
            Self {
                shared,
                syncer: Mutex::new(Some(syncer)),
                sync,
                _lock: lock,
            },
            cut,
        ))
    }

    /// Just behind the last record written.
    pub fn written(&self) -> Position {
        Position(self.shared.lock().segment.end)
    }

    /// Everything before this is on the disk.
    pub fn synced_to(&self) -> Position {
        Position(self.shared.progress.borrow().synced)
    }

    /// A reader of the records from `from` on.
    pub fn reader(&self, from: Position) -> Reader {
        Reader::new(&self.shared.dir, from)
    }

    /// Waits, blocking, until more than `position` is synced or `patience` is over.
    pub fn wait_beyond(&self, position: Position, patience: std::time::Duration) {
        let state = self.shared.lock();
        if self.shared.progress.borrow().synced > position.0 {
            return;
        }
        // A spurious wake costs the caller one look.
        let _woken = self.shared.moved.wait_timeout(state, patience);
    }

    /// Removes segments that end before `position`.
    pub fn forget_before(&self, position: Position) -> io::Result<()> {
        segment::remove_before(&self.shared.dir, position.0)
    }

    /// Syncs what is written and stops the thread.
    pub fn close(&self) {
        self.shared.lock().stopping = true;
        self.shared.work.notify_all();
        let thread = self
            .syncer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            // A panic of that thread has been told by the panic hook.
            let _ended = thread.join();
        }
    }
}

impl Drop for FileJournal {
    fn drop(&mut self) {
        self.close();
    }
}

impl Journal for FileJournal {
    fn append(&self, record: &Record) -> Result<Position, JournalError> {
        let mut state = self.shared.lock();
        let State {
            segment,
            buffer,
            failed,
            ..
        } = &mut *state;
        if let Some(what) = failed {
            return Err(self.shared.error(what.clone()));
        }
        buffer.clear();
        segment::encode(record, buffer).map_err(|e| self.shared.error(e.to_string()))?;
        if segment.end - segment.start >= self.shared.segment_bytes {
            match segment.next(&self.shared.dir) {
                Ok(next) => *segment = next,
                Err(error) => return Err(self.shared.poison(failed, &error)),
            }
        }
        if let Err(error) = segment.append(buffer) {
            // The disk may be full: give back the half record, and refuse until there is room.
            return match segment.give_back() {
                Ok(()) => Err(self.shared.error(error.to_string())),
                Err(worse) => Err(self.shared.poison(failed, &worse)),
            };
        }
        let end = segment.end;
        drop(state);
        self.shared.work.notify_one();
        Ok(Position(end))
    }

    fn synced(&self, position: Position) -> Synced<'_> {
        if self.sync == Sync::Off {
            return Box::pin(std::future::ready(Ok(())));
        }
        let mut progress = self.shared.progress.subscribe();
        Box::pin(async move {
            let reached = |p: &Progress| p.synced >= position.0 || p.failed.is_some();
            let found = progress
                .wait_for(reached)
                .await
                .map(|p| p.clone())
                .unwrap_or_default();
            if found.synced >= position.0 {
                return Ok(());
            }
            Err(self
                .shared
                .error(found.failed.unwrap_or_else(|| "closed".to_owned())))
        })
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, what: String) -> JournalError {
        JournalError {
            path: self.dir.display().to_string(),
            what,
        }
    }

    fn poison(&self, failed: &mut Option<String>, error: &io::Error) -> JournalError {
        *failed = Some(error.to_string());
        self.error(error.to_string())
    }

    /// The syncer's life: take the file and its end, sync outside the lock, tell everyone.
    fn sync_until_stopped(&self) {
        loop {
            let mut state = self.lock();
            while !state.stopping && state.segment.end <= self.progress.borrow().synced {
                state = self
                    .work
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            let end = state.segment.end;
            if end <= self.progress.borrow().synced {
                return;
            }
            let file = state.segment.file.try_clone();
            drop(state);
            let synced = file.and_then(|file| file.sync_data());
            if let Err(error) = synced {
                // After a failed sync the kernel may have dropped the pages: never try again.
                let what = format!("sync failed: {error}");
                self.lock().failed = Some(what.clone());
                self.progress
                    .send_modify(|progress| progress.failed = Some(what));
                return;
            }
            self.progress
                .send_modify(|progress| progress.synced = progress.synced.max(end));
            self.moved.notify_all();
        }
    }
}

/// A journal that takes nothing: for commands that only look.
#[derive(Debug)]
pub struct Nowhere;

impl Journal for Nowhere {
    fn append(&self, _: &Record) -> Result<Position, JournalError> {
        Err(JournalError {
            path: "none".to_owned(),
            what: "this command only looks".to_owned(),
        })
    }

    fn synced(&self, _: Position) -> Synced<'_> {
        Box::pin(std::future::ready(Ok(())))
    }
}

#[cfg(test)]
mod tests;
