//! The journal: an append-only, checksummed file of this node, in segments.
//!
//! A segment `journal-<first position>.log` is a 16-byte header (magic, version, first position) and
//! frames (`segment.rs`), whose payloads are records (`record.rs`); all of its blocks are allocated when
//! it is made, so that a full disk is seen before anything is promised. A position counts bytes of frames
//! over all segments; headers do not count.
//!
//! A record is encoded outside any lock, copied into a buffer under one, and written with whatever else is
//! in the buffer by whoever comes first ([`FileJournal::write_to`]). One thread syncs (`syncs.rs`). What
//! was written is handed to the batcher in memory (`inbox.rs`).

mod damage;
mod inbox;
mod nowhere;
mod reader;
mod segment;
mod syncs;
mod turns;

use std::cell::RefCell;
use std::fs::{File, TryLockError};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use meter::ledger::Synced;
use meter::{Journal, JournalError, Position, Record, point};
use tokio::sync::watch;

use crate::config::Sync;
use crate::record;
use inbox::Inbox;
pub(crate) use inbox::Taken;
pub use nowhere::Nowhere;
pub use reader::Reader;
pub(crate) use reader::payloads;
pub(crate) use segment::FRAME;
pub use segment::ReadError;
use segment::{END, Segment, Spare, count};
use syncs::{Syncs, Work};

/// How far apart syncs begin that nobody waits for yet, where somebody will: most upstreams take longer to
/// answer, so that their calls find their holds on the disk.
const GROUP_REST: Duration = Duration::from_millis(10);
/// And where nobody ever waits.
const OFF_REST: Duration = Duration::from_secs(1);
/// How far the thread that syncs steps back behind the calls: where they share a core, it asks the disk when the
/// call that woke it is on its way to its upstream, not before.
const NICE: i32 = 5;

thread_local! {
    /// Where a thread encodes its records.
    static FRAME_OF_THREAD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// How a journal is kept.
#[derive(Debug, Clone, Copy)]
pub struct Keeping {
    pub sync: Sync,
    /// The longest between two syncs with [`Sync::Interval`].
    pub interval: Duration,
    /// The size of a file.
    pub segment_bytes: u64,
}

/// The journal of one folder; one process at a time.
#[derive(Debug)]
pub struct FileJournal {
    shared: Arc<Shared>,
    syncer: Mutex<Option<JoinHandle<()>>>,
    /// Held for as long as the journal is open and not set aside.
    lock: File,
}

/// Locks are taken in the order `pen`, `tail`.
#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    /// The folder itself, kept open: names must reach the disk where no more can be opened, too.
    names: File,
    keeping: Keeping,
    tail: Mutex<Tail>,
    pen: Mutex<Pen>,
    written: AtomicU64,
    syncs: Syncs,
    inbox: Inbox,
    /// A write or a sync has failed: nothing is taken any more.
    over: watch::Sender<bool>,
}

/// Records that are not written yet.
#[derive(Debug)]
struct Tail {
    buffer: Vec<u8>,
    /// Just behind the last of them.
    end: u64,
    /// Where the segment ends.
    room: u64,
    /// Another process is to keep the journal from here on.
    aside: bool,
    failed: Option<String>,
    /// The last record was of this length, and there was no room for it.
    refused: Option<usize>,
}

/// What is needed to write: whoever has it, does.
#[derive(Debug)]
struct Pen {
    segment: Segment,
    /// Changes places with the tail's buffer.
    buffer: Vec<u8>,
    /// Earlier segments, oldest first, by their first positions.
    earlier: Vec<u64>,
    spare: Option<Spare>,
    /// Earlier segments that are not synced to their ends; names that are not.
    unsynced: Vec<Arc<File>>,
    renamed: bool,
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

/// Where the journal in `dir` ends, and bytes of a torn record behind that; changes nothing.
///
/// # Errors
/// When it can not be read, or is damaged before its end.
pub fn inspect(dir: &Path) -> Result<(Position, u64), ReadError> {
    if !dir.exists() {
        return Ok((Position(0), 0));
    }
    let (end, torn) = segment::look(dir)?;
    Ok((Position(end), torn))
}

/// Whether a process has the journal in `dir` open.
pub fn is_open(dir: &Path) -> bool {
    let Ok(lock) = File::open(dir.join("lock")) else {
        return false;
    };
    matches!(lock.try_lock(), Err(TryLockError::WouldBlock))
}

impl FileJournal {
    /// Opens or makes the journal in `dir`; also returns how many bytes of a torn tail were cut.
    /// `applied` is what the ledger has: positions never fall behind it, even if files were lost.
    ///
    /// # Errors
    /// When another process has it open, or it can not be read or written.
    pub fn open(
        dir: &Path,
        keeping: Keeping,
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
        Spare::clear(dir).map_err(io)?;
        let found = Segment::open_last(dir, applied.0, keeping.segment_bytes)?;
        let segments = segment::list(dir)?.into_iter().map(|(start, _)| start);
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            names: File::open(dir).map_err(io)?,
            keeping,
            tail: Mutex::new(Tail {
                buffer: Vec::new(),
                end: found.end,
                room: found.segment.room,
                aside: false,
                failed: None,
                refused: None,
            }),
            pen: Mutex::new(Pen {
                buffer: Vec::new(),
                earlier: segments.filter(|it| *it != found.segment.start).collect(),
                segment: found.segment,
                spare: None,
                unsynced: Vec::new(),
                renamed: false,
            }),
            written: AtomicU64::new(found.end),
            syncs: Syncs::new(found.end, keeping.rest()),
            inbox: Inbox::default(),
            over: watch::Sender::new(false),
        });
        let for_thread = Arc::clone(&shared);
        let syncer = std::thread::Builder::new()
            .name("journal-sync".to_owned())
            .spawn(move || for_thread.sync_to_the_end())
            .map_err(io)?;
        Ok((
            Self {
                shared,
                syncer: Mutex::new(Some(syncer)),
                lock,
            },
            found.cut,
        ))
    }

    /// Just behind the last record taken.
    pub fn written(&self) -> Position {
        Position(lock(&self.shared.tail).end)
    }

    /// Everything before this is on the disk.
    pub fn synced_to(&self) -> Position {
        Position(self.shared.syncs.synced())
    }

    /// Ends once a write or a sync has failed. Nothing is taken from then on, and nothing tried again: what of
    /// the file is on the disk only a start can tell, which reads it again.
    pub async fn over(&self) {
        let mut over = self.shared.over.subscribe();
        // The sender lives as long as this.
        let _over = over.wait_for(|over| *over).await;
    }

    /// Has it take nothing any more: whoever brings its records into the ledger can not go on.
    pub(crate) fn end(&self, what: &str) {
        let _told = self.shared.fail(what);
    }

    /// A reader of the records from `from` on.
    pub fn reader(&self, from: Position) -> Reader {
        Reader::new(&self.shared.dir, from)
    }

    /// Hands over in memory, through [`FileJournal::take`], what is written from the returned position on.
    pub(crate) fn hand_over(&self) -> Position {
        let _nobody_writes = lock(&self.shared.pen);
        let position = self.shared.written.load(Ordering::Acquire);
        self.shared.inbox.resume(position);
        Position(position)
    }

    /// Waits for frames of records, gathered for `linger` unless somebody waits; see [`Taken`].
    pub(crate) fn take(&self, frames: &mut Vec<u8>, linger: Duration) -> Taken {
        self.shared.inbox.take(frames, linger)
    }

    /// Has whoever waits in [`FileJournal::take`] get at once what there is.
    pub(crate) fn urge(&self) {
        // A failure is told to those whose records they are.
        let _written = self.shared.write_to(u64::MAX);
        self.shared.inbox.urge();
    }

    /// Waits, blocking, until `position` is as safe as the configuration asks for before the ledger may
    /// have it; `false` when it never will be.
    pub(crate) fn settle(&self, position: Position) -> bool {
        self.shared.keeping.sync != Sync::Group || self.shared.syncs.wait(position.0)
    }

    /// Lets go of segments that end before `position`; one is kept to be used again.
    ///
    /// # Errors
    /// When a file can not be removed or renamed.
    pub fn forget_before(&self, position: Position) -> io::Result<()> {
        let (old, mut wants_spare) = {
            let mut pen = lock(&self.shared.pen);
            let next = pen.earlier.iter().skip(1).chain([&pen.segment.start]);
            let ends = next.zip(&pen.earlier);
            let done = ends.take_while(|(end, _)| **end <= position.0).count();
            let kept = pen.earlier.split_off(done);
            let old = std::mem::replace(&mut pen.earlier, kept);
            (old, pen.spare.is_none())
        };
        for start in old {
            let path = segment::path(&self.shared.dir, start);
            if wants_spare {
                let bytes = self.shared.keeping.segment_bytes;
                let spare = Spare::reuse(&self.shared.dir, &path, bytes)?;
                wants_spare = spare.is_none();
                if let Some(spare) = spare {
                    self.shared.keep_spare(spare)?;
                }
            } else {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Refuses records from here on, brings those that were taken to the disk, and lets another process open
    /// the journal.
    ///
    /// # Errors
    /// When they do not reach the disk.
    pub fn set_aside(&self) -> Result<(), JournalError> {
        lock(&self.shared.tail).aside = true;
        self.shared.write_to(u64::MAX)?;
        let end = self.shared.written.load(Ordering::Acquire);
        if self.synced_to().0 < end && !self.shared.syncs.wait(end) {
            return Err(self.shared.error("sync failed".to_owned()));
        }
        self.lock
            .unlock()
            .map_err(|error| self.shared.error(error.to_string()))
    }

    /// Takes records again after [`FileJournal::set_aside`], where no other process has.
    ///
    /// # Errors
    /// When another process has it open, or has written to it.
    pub fn take_up(&self) -> Result<(), OpenJournalError> {
        let dir = &self.shared.dir;
        let io = |error| OpenJournalError::Io {
            path: dir.clone(),
            error,
        };
        self.lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => OpenJournalError::InUse(dir.clone()),
            TryLockError::Error(error) => io(error),
        })?;
        let mut pen = lock(&self.shared.pen);
        // Whoever opens a journal clears away what it finds of spare files.
        pen.spare = None;
        Spare::clear(dir).map_err(io)?;
        let segments = segment::list(dir)?;
        let is_last = segments
            .last()
            .is_some_and(|(start, _)| *start == pen.segment.start);
        let end = self.shared.written.load(Ordering::Acquire);
        if !is_last || !pen.segment.ends_at(end).map_err(io)? {
            let error = io::Error::other("another process has written to it");
            return Err(io(error));
        }
        lock(&self.shared.tail).aside = false;
        Ok(())
    }

    /// Syncs what is written and stops the thread.
    pub fn close(&self) {
        let _written = self.shared.write_to(u64::MAX);
        self.shared.syncs.stop();
        let thread = lock(&self.syncer).take();
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
        let position = self.shared.put(record)?;
        self.shared.write_to(position)?;
        Ok(Position(position))
    }

    fn enter(&self, record: &Record) -> Result<Position, JournalError> {
        self.shared.put(record).map(Position)
    }

    fn is_written(&self, position: Position) -> bool {
        self.shared.written.load(Ordering::Acquire) >= position.0
    }

    fn write(&self, position: Position) -> Result<(), JournalError> {
        self.shared.write_to(position.0)
    }

    fn synced(&self, position: Position) -> Synced<'_> {
        if self.shared.keeping.sync != Sync::Group || self.synced_to() >= position {
            return Box::pin(std::future::ready(Ok(())));
        }
        Box::pin(async move {
            self.shared.write_to(position.0)?;
            let reached = self.shared.syncs.until(position.0).await;
            reached.map_err(|what| self.shared.error(what))
        })
    }

    fn is_over(&self) -> bool {
        *self.shared.over.borrow()
    }
}

impl Keeping {
    /// How far apart syncs begin that nobody waits for.
    fn rest(&self) -> Duration {
        match self.sync {
            Sync::Group => GROUP_REST,
            Sync::Interval => self.interval,
            Sync::Off => OFF_REST,
        }
    }
}

impl Shared {
    /// Adds `record` to the buffer; the position is just behind it.
    fn put(&self, record: &Record) -> Result<u64, JournalError> {
        FRAME_OF_THREAD.with_borrow_mut(|frame| {
            segment::frame(frame, |to| record::encode(record, to))
                .map_err(|error| self.error(error.to_string()))?;
            point::at("journal.room");
            loop {
                {
                    let mut tail = lock(&self.tail);
                    if let Some(what) = &tail.failed {
                        return Err(self.error(what.clone()));
                    }
                    if tail.aside {
                        return Err(self.error("another process keeps it".to_owned()));
                    }
                    let end = tail.end + count(frame.len());
                    if end <= tail.room {
                        segment::seal(frame, tail.end);
                        tail.buffer.extend_from_slice(frame);
                        tail.end = end;
                        tail.refused = None;
                        return Ok(end);
                    }
                }
                self.turn(frame.len())?;
            }
        })
    }

    /// Writes what is in the buffer, unless what lies before `position` has been written meanwhile.
    fn write_to(&self, position: u64) -> Result<(), JournalError> {
        point::at("journal.put");
        let mut pen = self.pen()?;
        if self.written.load(Ordering::Acquire) >= position {
            return Ok(());
        }
        let mut tail = lock(&self.tail);
        if let Some(what) = &tail.failed {
            return Err(self.error(what.clone()));
        }
        std::mem::swap(&mut tail.buffer, &mut pen.buffer);
        drop(tail);
        self.write(&mut pen)
            .map_err(|error| self.fail(&error.to_string()))
    }

    /// What is needed to write. Whoever had it and panicked has left half a thing.
    fn pen(&self) -> Result<MutexGuard<'_, Pen>, JournalError> {
        let pen = self.pen.lock();
        pen.map_err(|_| self.fail("a writer panicked"))
    }

    /// Writes the pen's buffer, with an end behind it, and hands it over.
    fn write(&self, pen: &mut Pen) -> io::Result<()> {
        if pen.buffer.is_empty() {
            return Ok(());
        }
        let position = self.written.load(Ordering::Acquire);
        let length = pen.buffer.len();
        pen.buffer.extend_from_slice(&END);
        point::at("journal.write");
        let done = pen.segment.write(&pen.buffer, position);
        point::at("journal.written");
        pen.buffer.truncate(length);
        if let Err(error) = done {
            // Nobody will be told that these records were taken, so they must not be found again.
            let _ended = pen.segment.write(&END, position);
            return Err(error);
        }
        self.inbox.put(&pen.buffer, position);
        pen.buffer.clear();
        self.written
            .store(position + count(length), Ordering::SeqCst);
        self.syncs.written();
        Ok(())
    }

    /// The syncer's life to its end, whatever that is: those who wait would wait for ever.
    fn sync_to_the_end(&self) {
        if catch_unwind(AssertUnwindSafe(|| self.sync_until_stopped())).is_err() {
            let _told = self.fail("the thread that syncs panicked");
        }
    }

    /// The syncer's life: take the files and their end, sync outside the locks, tell everyone.
    fn sync_until_stopped(&self) {
        // Where the system does not let it, it competes with the calls as before.
        let _stepped_back = rustix::process::nice(NICE);
        let written = || self.written.load(Ordering::SeqCst);
        while matches!(self.syncs.next(written), Work::Sync) {
            let (end, files, renamed) = {
                let mut pen = lock(&self.pen);
                let mut files = std::mem::take(&mut pen.unsynced);
                files.push(Arc::clone(&pen.segment.file));
                (written(), files, std::mem::take(&mut pen.renamed))
            };
            point::at("journal.sync");
            let mut synced = files.iter().try_for_each(|file| file.sync_data());
            if renamed {
                synced = synced.and_then(|()| self.names.sync_all());
            }
            synced = synced.and_then(|()| files.last().map_or(Ok(()), segment::is_there));
            if point::fails("journal.sync") {
                synced = Err(io::Error::other("a test has it fail"));
            }
            if let Err(error) = synced {
                // After a failed sync the kernel may have dropped the pages: never try again.
                let _told = self.fail(&format!("sync failed: {error}"));
                return;
            }
            point::at("journal.synced");
            self.syncs.reached(end);
            self.prepare(end);
        }
        self.syncs.stopped();
    }

    fn error(&self, what: String) -> JournalError {
        JournalError {
            path: self.dir.display().to_string(),
            what,
        }
    }

    /// Takes nothing any more, and tells everyone who waits.
    fn fail(&self, what: &str) -> JournalError {
        let what = format!("{what}; free the disk or mend the device, then restart");
        lock(&self.tail).failed.get_or_insert_with(|| what.clone());
        self.over.send_replace(true);
        self.syncs.fail(what.clone());
        self.error(what)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
