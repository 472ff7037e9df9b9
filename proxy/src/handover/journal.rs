//! The journal as calls see it: this process's own file until another takes over, then the connection to it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use meter::ledger::Synced;
use meter::{Denied, Journal, JournalError, Position, Record};
use tokio::sync::watch;

use super::successor::Successor;

/// A journal that can move to another process. It costs nothing until it does: only what the file refuses
/// is looked at.
#[derive(Debug)]
pub(crate) struct MovingJournal {
    here: Arc<dyn Journal>,
    place: Mutex<Place>,
    /// Tells those who wait that the place has changed; true while it moves.
    moving: watch::Sender<bool>,
    /// Positions beyond are the successor's; all of them are here before it moves.
    end: AtomicU64,
}

#[derive(Debug)]
enum Place {
    Here,
    /// Settlements that have come meanwhile.
    Moving(Vec<Record>),
    There(Arc<Successor>),
}

impl MovingJournal {
    pub(crate) fn new(here: Arc<dyn Journal>) -> Self {
        Self {
            here,
            place: Mutex::new(Place::Here),
            moving: watch::Sender::new(false),
            end: AtomicU64::new(u64::MAX),
        }
    }

    /// Gathers settlements from here on. Call before the file is set aside.
    pub(super) fn leave(&self) {
        *self.place() = Place::Moving(Vec::new());
        self.moving.send_replace(true);
    }

    /// Goes on in the file, which takes records again.
    pub(super) fn stay(&self) {
        let before = std::mem::replace(&mut *self.place(), Place::Here);
        if let Place::Moving(gathered) = before {
            for record in gathered {
                if let Err(error) = self.here.append(&record) {
                    tracing::error!(%error, "a settlement is lost; the next start charges its bound");
                }
            }
        }
        self.moving.send_replace(false);
    }

    /// Goes on at `successor`, which writes behind `end`.
    pub(super) fn follow(&self, successor: Arc<Successor>, end: Position) {
        self.end.store(end.0, Ordering::Release);
        let mut place = self.place();
        if let Place::Moving(gathered) = &mut *place {
            for record in std::mem::take(gathered) {
                settle(&successor, &record);
            }
        }
        *place = Place::There(successor);
        drop(place);
        self.moving.send_replace(false);
    }

    /// Where it is on its way to another process, waits until it is there, or stays.
    pub(crate) async fn moved(&self) {
        let mut moving = self.moving.subscribe();
        // The sender lives as long as this.
        let _moved = moving.wait_for(|moving| !moving).await;
    }

    /// Waits until the successor has all that it was told; where there is none, not at all. Blocks.
    pub(crate) fn told(&self) {
        let successor = match &*self.place() {
            Place::There(successor) => Arc::clone(successor),
            Place::Here | Place::Moving(_) => return,
        };
        successor.told();
    }

    /// What becomes of a record that the file has refused.
    fn elsewhere(&self, record: &Record, error: JournalError) -> Result<Position, Denied> {
        let mut place = self.place();
        match (&mut *place, record) {
            (Place::Moving(gathered), Record::Settle(_)) => {
                gathered.push(record.clone());
                Ok(Position::default())
            }
            (Place::There(successor), _) => {
                let successor = Arc::clone(successor);
                drop(place);
                match record {
                    Record::Hold(held) => successor.hold(held),
                    Record::Settle(entry) => Ok(successor.settle(entry)?),
                }
            }
            (Place::Here | Place::Moving(_), _) => Err(error.into()),
        }
    }

    /// What became of a record in the file, or where that has refused it.
    fn or_elsewhere(
        &self,
        record: &Record,
        taken: Result<Position, JournalError>,
    ) -> Result<Position, JournalError> {
        let error = match taken {
            Ok(position) => return Ok(position),
            Err(error) => error,
        };
        let told = error.clone();
        self.elsewhere(record, error)
            .map_err(|denied| match denied {
                Denied::Journal(error) => error,
                _ => told,
            })
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells a settlement that was gathered.
fn settle(successor: &Successor, record: &Record) {
    if let Record::Settle(entry) = record
        && let Err(error) = successor.settle(entry)
    {
        tracing::error!(%error, "a settlement is lost; its bound is charged");
    }
}

impl Journal for MovingJournal {
    fn append(&self, record: &Record) -> Result<Position, JournalError> {
        self.or_elsewhere(record, self.here.append(record))
    }

    fn hold(&self, record: &Record) -> Result<Position, Denied> {
        match self.here.enter(record) {
            Ok(position) => Ok(position),
            Err(error) => self.elsewhere(record, error),
        }
    }

    fn enter(&self, record: &Record) -> Result<Position, JournalError> {
        self.or_elsewhere(record, self.here.enter(record))
    }

    fn is_written(&self, position: Position) -> bool {
        // What the successor has taken it has written, and before it moves all of the file is.
        position.0 > self.end.load(Ordering::Acquire) || self.here.is_written(position)
    }

    fn write(&self, position: Position) -> Result<(), JournalError> {
        if self.is_written(position) {
            return Ok(());
        }
        self.here.write(position)
    }

    fn synced(&self, position: Position) -> Synced<'_> {
        if position.0 <= self.end.load(Ordering::Acquire) {
            return self.here.synced(position);
        }
        let successor = match &*self.place() {
            Place::There(successor) => Arc::clone(successor),
            Place::Here | Place::Moving(_) => return self.here.synced(position),
        };
        Box::pin(async move { successor.synced(position).await })
    }

    fn is_over(&self) -> bool {
        matches!(*self.place(), Place::Here) && self.here.is_over()
    }
}
