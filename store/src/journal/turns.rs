//! From one file of the journal to the next, and the spare one that waits for its turn.

use std::io;

use meter::{JournalError, point};

use super::segment::{self, Segment, Spare, count};
use super::{FileJournal, Shared, lock};

impl FileJournal {
    /// Why it takes no record, where that is so. Whatever the last one had no room for is tried again, so that who
    /// sends nobody here meanwhile learns when there is some; that may block.
    pub fn refusal(&self) -> Option<JournalError> {
        let refused = {
            let tail = lock(&self.shared.tail);
            if let Some(what) = &tail.failed {
                return Some(self.shared.error(what.clone()));
            }
            tail.refused?
        };
        self.shared.turn(refused).err()
    }
}

impl Shared {
    /// Begins the next segment, with room for a frame of `length`.
    pub(super) fn turn(&self, length: usize) -> Result<(), JournalError> {
        let mut pen = self.pen()?;
        let mut tail = lock(&self.tail);
        point::at("journal.turn");
        // Who comes back is told why.
        let is_over = tail.failed.is_some() || tail.aside;
        if is_over || tail.end + count(length) <= tail.room {
            tail.refused = None;
            return Ok(());
        }
        std::mem::swap(&mut tail.buffer, &mut pen.buffer);
        if let Err(error) = self.write(&mut pen) {
            drop(tail);
            return Err(self.fail(&error.to_string()));
        }
        let bytes = segment::size_for(length, self.keeping.segment_bytes);
        let spare = pen.spare.take_if(|spare| spare.bytes >= bytes);
        let made = match spare {
            Some(spare) => Segment::of(spare, &self.dir, tail.end),
            None => Segment::make(&self.dir, tail.end, bytes),
        };
        let next = match made {
            Ok(next) => next,
            Err(error) => {
                tail.refused = Some(length);
                let what = format!(
                    "{error}; it goes on by itself once a file of {bytes} bytes can be made"
                );
                return Err(self.error(what));
            }
        };
        tail.refused = None;
        tail.room = next.room;
        let before = std::mem::replace(&mut pen.segment, next);
        pen.earlier.push(before.start);
        pen.unsynced.push(before.file);
        pen.renamed = true;
        Ok(())
    }

    /// Makes a spare file when the segment is half full, so that no call waits for one.
    pub(super) fn prepare(&self, end: u64) {
        let is_due = {
            let pen = lock(&self.pen);
            pen.spare.is_none()
                && end > pen.segment.room - (pen.segment.room - pen.segment.start) / 2
        };
        if is_due {
            // Should it fail, the turn tries again and tells.
            let spare = Spare::make(&self.dir, self.keeping.segment_bytes);
            let _kept = spare.and_then(|spare| self.keep_spare(spare));
        }
    }

    /// Keeps one spare file; there may be one by now.
    pub(super) fn keep_spare(&self, spare: Spare) -> io::Result<()> {
        let other = lock(&self.pen).spare.replace(spare);
        other.map_or(Ok(()), Spare::remove)
    }
}
