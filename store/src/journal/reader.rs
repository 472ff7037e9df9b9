//! Reading records back from the files: at the start, and where memory did not hold them.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use meter::{Position, Record};

use super::segment::{FRAME, HEADER, Header, LONGEST, ReadError, count, frame, list};
use crate::record;

/// Read at once: more than the longest record.
const CHUNK: u64 = 2 << 20;

/// Reads records in order, over segments.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    at: u64,
    open: Option<Open>,
    /// Bytes read from the file and not yet given out; begin at `at`.
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Open {
    start: u64,
    header: Header,
    path: PathBuf,
    file: File,
}

impl Reader {
    pub(super) fn new(dir: &Path, from: Position) -> Self {
        Self {
            dir: dir.to_owned(),
            at: from.0,
            open: None,
            buffer: Vec::new(),
        }
    }

    /// Just behind the last record given out.
    pub fn position(&self) -> Position {
        Position(self.at)
    }

    /// Up to `most` records that lie wholly before `until`.
    ///
    /// # Errors
    /// When a file can not be read, or a record before `until` is damaged.
    pub fn read(&mut self, until: Position, most: usize) -> Result<Vec<Record>, ReadError> {
        let mut frames = Vec::new();
        self.frames(until, most, &mut frames)?;
        let records: Result<Vec<Record>, _> = payloads(&frames).map(record::decode).collect();
        records.map_err(|_| self.damaged("a record is of another format"))
    }

    /// Appends the same records to `frames`, as the journal hands them over; returns how many.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub(crate) fn frames(
        &mut self,
        until: Position,
        most: usize,
        frames: &mut Vec<u8>,
    ) -> Result<usize, ReadError> {
        let mut records = 0;
        let mut one = Vec::new();
        while self.at < until.0 && records < most {
            if self.buffer.is_empty() && !self.fill(until)? {
                break;
            }
            let Some(open) = &self.open else { break };
            let (mut used, mut other_format) = (0, false);
            while records < most {
                let rest = self.buffer.get(used..).unwrap_or_default();
                let Some(payload) = open.header.decode(rest, self.at) else {
                    break;
                };
                let renewed = frame(&mut one, |to| {
                    other_format = record::renew(payload, to).is_err();
                });
                if renewed.is_err() || other_format {
                    return Err(self.damaged("a record is of another format"));
                }
                frames.extend_from_slice(&one);
                records += 1;
                used += FRAME + payload.len();
                self.at += count(FRAME + payload.len());
            }
            if used == 0 {
                return Err(self.damaged("a record is not whole or its checksum is wrong"));
            }
            if records < most {
                // What is left is part of a record, and is read again with its rest.
                self.buffer.clear();
            } else {
                self.buffer.drain(..used);
            }
        }
        Ok(records)
    }

    /// Reads up to `until` or the segment's end; `false` when there is nothing.
    fn fill(&mut self, until: Position) -> Result<bool, ReadError> {
        let segments = list(&self.dir)?;
        let this = segments.iter().rposition(|(start, _)| *start <= self.at);
        let Some((place, (start, path))) =
            this.and_then(|place| Some((place, segments.get(place)?)))
        else {
            return Err(self.damaged("the segment of this position is gone"));
        };
        let next = segments.get(place + 1).map_or(u64::MAX, |(next, _)| *next);
        let io = |error| ReadError::Io {
            path: path.clone(),
            error,
        };
        if self.open.as_ref().is_none_or(|open| open.start != *start) {
            let mut file = File::open(path).map_err(io)?;
            let mut first = Vec::new();
            (&mut file)
                .take(HEADER)
                .read_to_end(&mut first)
                .map_err(io)?;
            let Some(header) = Header::of(&first) else {
                return Err(self.damaged("it does not begin as a journal does"));
            };
            self.open = Some(Open {
                start: *start,
                header,
                path: path.clone(),
                file,
            });
        }
        let Some(open) = &self.open else {
            return Ok(false);
        };
        let length = (until.0.min(next) - self.at).min(CHUNK);
        self.buffer
            .resize(usize::try_from(length).unwrap_or(LONGEST), 0);
        let mut filled = 0;
        while let Some(free) = self.buffer.get_mut(filled..)
            && !free.is_empty()
        {
            let read = open
                .file
                .read_at(free, HEADER + self.at - open.start + count(filled))
                .map_err(io)?;
            if read == 0 {
                break;
            }
            filled += read;
        }
        self.buffer.truncate(filled);
        Ok(!self.buffer.is_empty())
    }

    fn damaged(&self, what: &'static str) -> ReadError {
        let (path, offset) = match &self.open {
            Some(open) => (open.path.clone(), HEADER + self.at - open.start),
            None => (self.dir.clone(), self.at),
        };
        ReadError::Damaged { path, offset, what }
    }
}

/// The payloads of whole frames, one after the other.
pub(crate) fn payloads(mut frames: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = frames.split_first_chunk()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let payload = rest.get(4..4 + length)?;
        frames = rest.get(4 + length..)?;
        Some(payload)
    })
}
