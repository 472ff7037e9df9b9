//! What became of a hold, and that it is written down.

use std::sync::Arc;

use super::Meter;
use crate::entry::{Entry, Record};
use crate::ledger::{JournalError, Position, written};
use crate::point;

/// A settled hold. The books in memory are right whether or not it can be written.
#[derive(Debug)]
pub struct Settled {
    pub entry: Entry,
    pub(super) meter: Arc<Meter>,
    /// Where it is in the journal.
    pub(super) written: Result<Position, JournalError>,
    /// Nobody has seen to it yet that it is.
    pub(super) is_pending: bool,
}

/// A settlement on its way into the journal. Dropped before it is there, it is given to it again later.
struct Entering<'a> {
    record: Option<Record>,
    meter: &'a Meter,
}

impl Drop for Entering<'_> {
    fn drop(&mut self) {
        self.meter.lock_unwritten().extend(self.record.take());
    }
}

impl Settled {
    /// Enters what became of a hold that is released.
    pub(super) fn enter(entry: Entry, meter: Arc<Meter>) -> Option<Self> {
        let mut entering = Entering {
            record: Some(Record::Settle(Box::new(entry))),
            meter: &meter,
        };
        point::at("settle.released");
        let written = meter.journal.enter(entering.record.as_ref()?);
        let record = match &written {
            Ok(_) => entering.record.take(),
            Err(_) => entering.record.clone(),
        };
        drop(entering);
        let Some(Record::Settle(entry)) = record else {
            return None;
        };
        Some(Self {
            entry: *entry,
            is_pending: written.is_ok(),
            written,
            meter,
        })
    }

    /// Whether it will never be written: the hold is charged at its bound by the next start.
    pub fn is_lost(&self) -> bool {
        self.written.is_err() && self.meter.journal.is_over()
    }

    /// Writes the settlement, unless it is written.
    ///
    /// # Errors
    /// When the journal does not take it; it is given to it again later.
    pub fn write(&mut self) -> Result<Position, JournalError> {
        if !self.is_pending {
            return self.written.clone();
        }
        if let Ok(position) = &self.written
            && let Err(error) = self.meter.journal.write(*position)
        {
            let record = Record::Settle(Box::new(self.entry.clone()));
            self.meter.lock_unwritten().push(record);
            self.written = Err(error);
        }
        self.is_pending = false;
        point::at("settle.written");
        self.written.clone()
    }

    /// The same, together with the records of other calls that come at the same time.
    ///
    /// # Errors
    /// As [`Settled::write`].
    pub async fn write_together(&mut self) -> Result<Position, JournalError> {
        if let Ok(position) = &self.written {
            // Whether it was written is asked again.
            let _written = written(&*self.meter.journal, *position).await;
        }
        self.write()
    }
}

impl Drop for Settled {
    fn drop(&mut self) {
        // What the journal does not take is given to it again.
        let _written = self.write();
    }
}
