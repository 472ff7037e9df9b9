//! The disk of a node: a journal whose records are entered, written and synced one after the other, the ledger behind
//! it, and what is left of both when the process or the whole machine dies.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use meter::ledger::Synced;
use meter::{Journal, JournalError, Position, Record};
use store::SqlLedger;
use tests::weather::Chance;
use tokio::time::sleep;

/// What outlives a process.
#[derive(Debug)]
pub struct Disk {
    books: Mutex<Books>,
    pub ledger: Arc<SqlLedger>,
}

/// Records, and how many of them have come how far.
#[derive(Debug, Default)]
struct Books {
    records: Vec<Record>,
    written: usize,
    synced: usize,
    /// The process that may write; those before it are dead.
    life: u64,
    /// Holds that were written and not synced when the machine died.
    lost: Vec<String>,
}

/// How a process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// What it has written stays.
    Process,
    /// What was synced stays, and of the rest as much as the disk happened to have.
    Machine,
}

/// The journal as one process sees it.
#[derive(Debug)]
pub struct SimJournal {
    disk: Arc<Disk>,
    life: u64,
}

pub fn id(record: &Record) -> String {
    let held = match record {
        Record::Hold(held) => held,
        Record::Settle(entry) => &entry.held,
    };
    format!("{}/{}", held.request, held.attempt)
}

impl Disk {
    pub fn new(ledger: SqlLedger) -> Arc<Self> {
        Arc::new(Self {
            books: Mutex::default(),
            ledger: Arc::new(ledger),
        })
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap()
    }

    /// Holds that the machine's death has taken.
    pub fn lost(&self) -> Vec<String> {
        self.books().lost.clone()
    }

    /// Ends the process that is at work: nothing that it still does reaches the disk.
    pub fn die(&self, death: Death, chance: &mut Chance) {
        let mut books = self.books();
        books.life += 1;
        let written = books.written;
        books.records.truncate(written);
        if death == Death::Machine {
            let more = u64::try_from(written - books.synced).unwrap();
            let kept = books.synced + usize::try_from(chance.below(more + 1)).unwrap();
            let gone = books.records.split_off(kept);
            let holds = gone.iter().filter(|it| matches!(it, Record::Hold(_)));
            books.lost.extend(holds.map(id));
            books.written = kept;
        }
        books.synced = books.written;
    }

    /// Opens the journal for a new process.
    pub fn open(self: &Arc<Self>) -> Arc<SimJournal> {
        let books = self.books();
        Arc::new(SimJournal {
            disk: Arc::clone(self),
            life: books.life,
        })
    }

    /// Brings at most `most` synced records into the ledger; returns how many there were.
    fn apply(&self, most: usize) -> usize {
        let applied = usize::try_from(self.ledger.cursor().unwrap().0).unwrap();
        let books = self.books();
        let until = books.synced.min(applied.saturating_add(most));
        let group = &books.records[applied..until];
        if !group.is_empty() {
            let cursor = Position(u64::try_from(until).unwrap());
            self.ledger.apply(group, cursor).unwrap();
        }
        group.len()
    }

    /// Brings everything into the ledger.
    pub fn flush(&self) {
        {
            let mut books = self.books();
            books.written = books.records.len();
            books.synced = books.written;
        }
        self.apply(usize::MAX);
    }
}

impl SimJournal {
    fn is_alive(&self) -> bool {
        self.disk.books().life == self.life
    }

    /// Syncs what is written, now and then.
    pub async fn sync(self: Arc<Self>, mut chance: Chance) {
        while self.is_alive() {
            sleep(Duration::from_millis(1 + chance.below(12))).await;
            let written = self.disk.books().written;
            // Records that come while the disk is at work wait for the next time.
            sleep(Duration::from_millis(chance.below(8))).await;
            let mut books = self.disk.books();
            if books.life == self.life {
                books.synced = books.synced.max(written);
            }
        }
    }

    /// Brings what is synced into the ledger, now and then.
    pub async fn follow(self: Arc<Self>, mut chance: Chance) {
        while self.is_alive() {
            sleep(Duration::from_millis(5 + chance.below(60))).await;
            if self.is_alive() {
                self.disk
                    .apply(1 + usize::try_from(chance.below(16)).unwrap());
            }
        }
    }

    fn dead(&self) -> JournalError {
        JournalError {
            path: "of a dead process".to_owned(),
            what: "it writes no more".to_owned(),
        }
    }
}

impl Journal for SimJournal {
    fn append(&self, record: &Record) -> Result<Position, JournalError> {
        let position = self.enter(record)?;
        self.write(position)?;
        Ok(position)
    }

    fn enter(&self, record: &Record) -> Result<Position, JournalError> {
        let mut books = self.disk.books();
        if books.life != self.life {
            return Err(self.dead());
        }
        books.records.push(record.clone());
        Ok(Position(u64::try_from(books.records.len()).unwrap()))
    }

    fn is_written(&self, position: Position) -> bool {
        let books = self.disk.books();
        books.life == self.life && u64::try_from(books.written).unwrap() >= position.0
    }

    fn write(&self, _position: Position) -> Result<(), JournalError> {
        let mut books = self.disk.books();
        if books.life != self.life {
            return Err(self.dead());
        }
        books.written = books.records.len();
        Ok(())
    }

    fn synced(&self, position: Position) -> Synced<'_> {
        Box::pin(async move {
            // Whoever waits looks by itself: channels wake in an order of their own, which no seed makes.
            while u64::try_from(self.disk.books().synced).unwrap() < position.0 {
                sleep(Duration::from_millis(1)).await;
            }
            Ok(())
        })
    }
}
