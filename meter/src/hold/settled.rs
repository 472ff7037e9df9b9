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

impl Settled {
    /// Writes the settlement, unless it is written.
    ///
    /// # Errors
    /// When the journal does not take it; it is given to it again later.
    pub fn write(&mut self) -> Result<Position, JournalError> {
        if !std::mem::take(&mut self.is_pending) {
            return self.written.clone();
        }
        if let Ok(position) = &self.written
            && let Err(error) = self.meter.journal.write(*position)
        {
            let record = Record::Settle(Box::new(self.entry.clone()));
            self.meter.lock_unwritten().push(record);
            self.written = Err(error);
        }
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
