//! The batcher: it follows the journal and applies it to the ledger, group by group. What was written lately
//! is handed over in memory; at the start, and where the batcher fell behind, it is read from the files.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use meter::{Journal, LedgerError, Position, point};

use crate::config::Config;
use crate::journal::{self, FRAME, FileJournal, Keeping, OpenJournalError, ReadError, Taken};
use crate::ledger::{OpenLedgerError, SqlLedger};
use crate::sql::Engine;
use crate::sql::postgres::Postgres;
use crate::tasks::OpenTaskLogError;

/// Records in one transaction at most: large enough that a commit, and each row of a sum, are shared by
/// thousands of calls, small enough to stay well below a second.
const GROUP: usize = 4_096;
/// How long records are gathered, unless somebody waits for them: pages that are looked at ask, see
/// [`Follower::flush`], so this is how old a ledger may be that another process reads.
const LINGER: Duration = Duration::from_millis(150);
/// How long a question waits for what is written.
const PATIENCE: Duration = Duration::from_secs(1);
/// How far the batcher steps back behind the calls. It needs a small part of a processor, and what it does
/// not get, the journal keeps.
const NICE: i32 = 5;
/// Commits remembered for [`Store::take_commits`]: a minute of them at the most that happens. Where nobody
/// asks, the oldest are forgotten.
const COMMITS: usize = 4_096;
/// Pauses between tries when the ledger fails.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Journal and ledger of one node, with the thread between them.
#[derive(Debug)]
pub struct Store {
    pub journal: Arc<FileJournal>,
    pub ledger: Arc<SqlLedger>,
    /// What was found at the start.
    pub report: Report,
    /// What the ledger is kept in: `sqlite` or `postgres`.
    pub engine: &'static str,
    follower: Arc<Follower>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What was found at the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Records that an earlier process had written but not applied.
    pub replayed: usize,
    /// Bytes of a torn last record, cut off.
    pub cut_bytes: u64,
}

/// How far each step has come, in journal positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lag {
    pub written: u64,
    pub synced: u64,
    pub applied: u64,
    /// When entries were last committed, or the store was opened, in milliseconds since 1970.
    pub committed_ms: i64,
}

/// One transaction that the ledger took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    pub rows: usize,
    pub took: Duration,
}

/// The store can not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("folder {path}: {error}")]
    Folder { path: String, error: std::io::Error },
    #[error(transparent)]
    Journal(#[from] OpenJournalError),
    #[error(transparent)]
    Ledger(#[from] OpenLedgerError),
    #[error(transparent)]
    Tasks(#[from] OpenTaskLogError),
    #[error("replaying the journal: {0}")]
    Replay(#[from] ReplayError),
}

/// The store can not be left to another process.
#[derive(Debug, thiserror::Error)]
pub enum SetAsideError {
    #[error(transparent)]
    Journal(#[from] meter::JournalError),
    #[error("the ledger lags behind")]
    Lags,
}

/// The journal can not be brought into the ledger.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("the journal does not reach the disk")]
    Unsynced,
}

/// Applies what the journal takes; shared by the batcher's thread and those who wait for it.
#[derive(Debug)]
pub(crate) struct Follower {
    journal: Arc<FileJournal>,
    ledger: Arc<SqlLedger>,
    applied: AtomicU64,
    /// Tells those who wait that more is applied.
    moved: (Mutex<()>, Condvar),
    committed_ms: AtomicI64,
    commits: Mutex<VecDeque<Commit>>,
    /// The ledger did not take the last group.
    failing: AtomicBool,
    stopping: AtomicBool,
}

/// What the batcher has in its hands.
#[derive(Debug, Default)]
struct Batch {
    /// The files are to be read up to here.
    files_until: u64,
    /// What was handed over, and how much of it is applied.
    frames: Vec<u8>,
    used: usize,
}

/// The ledger's file in the store's folder.
pub fn ledger_path(dir: &Path) -> std::path::PathBuf {
    dir.join("ledger.sqlite3")
}

/// The ledger that `config` asks for: shared where a server is named, else in the store's folder.
pub fn open_ledger(config: &Config) -> Result<SqlLedger, OpenError> {
    Ok(match &config.postgres {
        Some(url) => SqlLedger::open_server(&url.0, &node(&config.dir)?)?,
        None => SqlLedger::open_file(&ledger_path(&config.dir))?,
    })
}

/// Whether a start has made this node's part of the store.
///
/// # Errors
/// When the folder can not be looked into.
pub fn is_made(config: &Config) -> std::io::Result<bool> {
    match &config.postgres {
        Some(_) => node_path(&config.dir).try_exists(),
        None => ledger_path(&config.dir).try_exists(),
    }
}

/// Asks the server at `url` for its time, and changes nothing.
///
/// # Errors
/// When it can not be reached or refuses.
pub fn reach(url: &str) -> Result<(), OpenError> {
    let server = Postgres::new(url).map_err(OpenLedgerError::Server)?;
    let told = server.clock().map_err(OpenLedgerError::Server)?;
    debug_assert!(told.is_some());
    Ok(())
}

fn node_path(dir: &Path) -> std::path::PathBuf {
    dir.join("node.id")
}

/// The name of this node, made at the first start and kept in the store's folder beside the journal
/// that goes by it.
fn node(dir: &Path) -> Result<String, OpenError> {
    let path = node_path(dir);
    let told = |error| OpenError::Folder {
        path: path.display().to_string(),
        error,
    };
    match std::fs::read_to_string(&path) {
        Ok(name) if !name.trim().is_empty() => return Ok(name.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(told(error)),
    }
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| told(std::io::Error::other(error)))?;
    let name = format!("{:016x}", u64::from_le_bytes(random));
    std::fs::write(&path, &name).map_err(told)?;
    Ok(name)
}

/// Opens journal and ledger, applies what is left of the former, and starts the batcher.
pub fn open(config: &Config) -> Result<Store, OpenError> {
    std::fs::create_dir_all(&config.dir).map_err(|error| OpenError::Folder {
        path: config.dir.display().to_string(),
        error,
    })?;
    let ledger = Arc::new(open_ledger(config)?);
    let applied = ledger.cursor().map_err(ReplayError::from)?;
    let (journal, cut_bytes) = FileJournal::open(
        &config.dir.join("journal"),
        Keeping {
            sync: config.journal_sync,
            interval: Duration::from_millis(config.journal_sync_ms.into()),
            segment_bytes: config.journal_segment_bytes,
        },
        applied,
    )?;
    let journal = Arc::new(journal);
    let follower = Arc::new(Follower {
        journal: Arc::clone(&journal),
        ledger: Arc::clone(&ledger),
        applied: AtomicU64::new(applied.0),
        moved: (Mutex::default(), Condvar::new()),
        committed_ms: AtomicI64::new(now_ms()),
        commits: Mutex::default(),
        failing: AtomicBool::new(false),
        stopping: AtomicBool::new(false),
    });
    let mut batch = Batch {
        files_until: journal.hand_over().0,
        ..Batch::default()
    };
    let mut replayed = 0;
    while follower.lags(batch.files_until) {
        replayed += follower.apply_files(&batch)?;
    }
    ledger.follow(&follower);
    let for_thread = Arc::clone(&follower);
    let thread = std::thread::Builder::new()
        .name("ledger-batcher".to_owned())
        .spawn(move || for_thread.follow_to_the_end(&mut batch))
        .map_err(|error| OpenError::Folder {
            path: "a thread".to_owned(),
            error,
        })?;
    let report = Report {
        replayed,
        cut_bytes,
    };
    Ok(Store {
        journal,
        ledger,
        report,
        engine: match config.postgres {
            Some(_) => "postgres",
            None => "sqlite",
        },
        follower,
        thread: Mutex::new(Some(thread)),
    })
}

impl Store {
    /// How far each step has come.
    pub fn lag(&self) -> Lag {
        Lag {
            written: self.journal.written().0,
            synced: self.journal.synced_to().0,
            applied: self.follower.applied.load(Ordering::Acquire),
            committed_ms: self.follower.committed_ms.load(Ordering::Relaxed),
        }
    }

    /// The transactions since this was last asked, as far as they are remembered.
    pub fn take_commits(&self) -> Vec<Commit> {
        self.follower.commits().drain(..).collect()
    }

    /// Waits, blocking, until all that is written now is applied; `false` when `patience` is over.
    pub fn flush(&self, patience: Duration) -> bool {
        self.follower.flush(patience)
    }

    /// Brings everything into the ledger and lets another process open the journal; from here on this one
    /// takes no record.
    ///
    /// # Errors
    /// When the ledger or the disk does not take what there is; [`Store::take_up`] makes it go on.
    pub fn set_aside(&self, patience: Duration) -> Result<(), SetAsideError> {
        // Most of it beforehand, while calls go on.
        let _most = self.flush(patience);
        self.journal.set_aside()?;
        if self.flush(patience) {
            Ok(())
        } else {
            Err(SetAsideError::Lags)
        }
    }

    /// Goes on after [`Store::set_aside`].
    ///
    /// # Errors
    /// When another process has taken over.
    pub fn take_up(&self) -> Result<(), OpenJournalError> {
        self.journal.take_up()
    }

    /// Applies what is left and stops the threads.
    pub fn close(&self) {
        if !self.journal.is_over() {
            let _applied = self.flush(Duration::from_secs(30));
        }
        self.follower.stop();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            // A panic of that thread has been told by the panic hook.
            let _ended = thread.join();
        }
        self.journal.close();
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // No flush: a drop must not wait for a ledger that fails. The journal has it all.
        self.follower.stop();
    }
}

impl Follower {
    /// As [`Follower::follow`]. Should it panic, the journal would grow and nobody see what is in it.
    fn follow_to_the_end(&self, batch: &mut Batch) {
        if catch_unwind(AssertUnwindSafe(|| self.follow(batch))).is_err() {
            self.journal.end("the ledger's batcher panicked");
        }
    }

    fn follow(&self, batch: &mut Batch) {
        // Where the system does not let it, it competes with the calls as before.
        let _stepped_back = rustix::process::nice(NICE);
        let mut pause = FIRST_PAUSE;
        while !self.stopping.load(Ordering::Acquire) {
            let done = self.step(batch);
            self.failing.store(done.is_err(), Ordering::Release);
            match done {
                Ok(()) => pause = FIRST_PAUSE,
                Err(error) => {
                    tracing::warn!(%error, "the ledger does not take entries; the journal keeps them");
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Applies one group, or waits for one.
    fn step(&self, batch: &mut Batch) -> Result<(), ReplayError> {
        if self.lags(batch.files_until) {
            return self.apply_files(batch).map(|_| ());
        }
        if batch.used == batch.frames.len() {
            batch.used = 0;
            match self.journal.take(&mut batch.frames, LINGER) {
                Taken::Nothing => return Ok(()),
                Taken::Missed => {
                    batch.files_until = self.journal.hand_over().0;
                    return Ok(());
                }
                Taken::From(start) => debug_assert_eq!(start, self.applied()),
            }
        }
        point::at("batch.taken");
        let rest = batch.frames.get(batch.used..).unwrap_or_default();
        let group = journal::payloads(rest).take(GROUP);
        let (count, bytes) = group.fold((0, 0), |(count, bytes), payload| {
            (count + 1, bytes + FRAME + payload.len())
        });
        let group = rest.get(..bytes).unwrap_or_default();
        let cursor = self.applied() + u64::try_from(bytes).unwrap_or(0);
        if !self.journal.settle(Position(cursor)) {
            return Err(ReplayError::Unsynced);
        }
        point::at("batch.settled");
        self.apply(group, count, Position(cursor))?;
        batch.used += bytes;
        Ok(())
    }

    /// Applies one group from the files and returns its size.
    fn apply_files(&self, batch: &Batch) -> Result<usize, ReplayError> {
        let until = Position(batch.files_until);
        if !self.journal.settle(until) {
            return Err(ReplayError::Unsynced);
        }
        let mut reader = self.journal.reader(Position(self.applied()));
        let mut frames = Vec::new();
        let count = reader.frames(until, GROUP, &mut frames)?;
        self.apply(&frames, count, reader.position())?;
        Ok(count)
    }

    /// Applies `count` records and goes on to `cursor`.
    fn apply(&self, frames: &[u8], count: usize, cursor: Position) -> Result<(), ReplayError> {
        let began = Instant::now();
        self.ledger.apply_frames(frames, cursor)?;
        point::at("batch.committed");
        self.committed(Commit {
            rows: count,
            took: began.elapsed(),
        });
        let (lock, moved) = &self.moved;
        {
            let _nobody_looks = lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.applied.store(cursor.0, Ordering::Release);
        }
        moved.notify_all();
        point::at("batch.moved");
        if let Err(error) = self.journal.forget_before(cursor) {
            tracing::warn!(%error, "an old journal segment can not be removed");
        }
        Ok(())
    }

    /// Waits, blocking, until all that is written now is applied; `false` when `patience` is over.
    pub(crate) fn flush(&self, patience: Duration) -> bool {
        let goal = self.journal.written().0;
        if !self.lags(goal) {
            return true;
        }
        self.journal.urge();
        let (lock, moved) = &self.moved;
        let looking = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = moved.wait_timeout_while(looking, patience, |()| self.lags(goal));
        drop(waited);
        !self.lags(goal)
    }

    /// Brings in what is written now, for a question; it is not kept waiting while the ledger fails.
    pub(crate) fn catch_up(&self) {
        if !self.failing.load(Ordering::Acquire) {
            let _all = self.flush(PATIENCE);
        }
    }

    fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    fn lags(&self, position: u64) -> bool {
        self.applied() < position
    }

    fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.journal.urge();
    }

    fn committed(&self, commit: Commit) {
        self.committed_ms.store(now_ms(), Ordering::Relaxed);
        let mut commits = self.commits();
        if commits.len() >= COMMITS {
            commits.pop_front();
        }
        commits.push_back(commit);
    }

    fn commits(&self) -> MutexGuard<'_, VecDeque<Commit>> {
        self.commits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
pub(crate) mod tests;
