//! One file of the journal: its header, its records, and what is left of them after a crash.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use meter::{Position, Record};

const MAGIC: &[u8; 4] = b"PARJ";
const VERSION: u32 = 1;
const HEADER: u64 = 16;
/// Length and checksum in front of each payload.
const FRAME: usize = 8;
/// No record comes near this; a longer length is a torn or foreign file.
const LONGEST: usize = 1 << 20;

/// The journal can not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("journal segment {path}: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error("journal segment {path} is damaged at byte {offset}: {what}; restore it from a backup")]
    Damaged {
        path: PathBuf,
        offset: u64,
        what: &'static str,
    },
}

/// The segment that is written to.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) file: File,
    /// Position of its first record, and just behind its last.
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Segment {
    /// Opens the last segment of `dir`, cutting a torn tail, or makes one at `floor`.
    pub(super) fn open_last(dir: &Path, floor: u64) -> Result<(Self, u64), ReadError> {
        let fresh = || {
            Self::make(dir, floor).map_err(|error| ReadError::Io {
                path: dir.to_owned(),
                error,
            })
        };
        let Some((start, path)) = list(dir)?.pop() else {
            return Ok((fresh()?, 0));
        };
        let io = |error| ReadError::Io {
            path: path.clone(),
            error,
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(io)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() < usize::try_from(HEADER).unwrap_or(16) {
            // The process died while it made the file: nothing can be in it.
            drop(file);
            std::fs::remove_file(&path).map_err(io)?;
            return Ok((Self::make(dir, start.max(floor)).map_err(io)?, 0));
        }
        let whole = whole_records(&bytes);
        let cut = u64::try_from(bytes.len()).unwrap_or(0) - HEADER - whole;
        file.set_len(HEADER + whole).map_err(io)?;
        file.seek(SeekFrom::End(0)).map_err(io)?;
        file.sync_all().map_err(io)?;
        if start + whole < floor {
            return Ok((fresh()?, cut));
        }
        Ok((
            Self {
                file,
                start,
                end: start + whole,
            },
            cut,
        ))
    }

    fn make(dir: &Path, start: u64) -> io::Result<Self> {
        let path = dir.join(format!("journal-{start:020}.log"));
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)?;
        let mut header = Vec::with_capacity(16);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&start.to_le_bytes());
        file.write_all(&header)?;
        file.sync_all()?;
        // The name itself must survive, or the records in it would be lost with it.
        File::open(dir)?.sync_all()?;
        Ok(Self {
            file,
            start,
            end: start,
        })
    }

    /// Syncs this segment for good and makes the one behind it.
    pub(super) fn next(&mut self, dir: &Path) -> io::Result<Self> {
        self.file.sync_all()?;
        Self::make(dir, self.end)
    }

    /// Writes one encoded record.
    pub(super) fn append(&mut self, frame: &[u8]) -> io::Result<()> {
        self.file.write_all(frame)?;
        self.end += u64::try_from(frame.len()).unwrap_or(0);
        Ok(())
    }

    /// Cuts off what a failed write may have left.
    pub(super) fn give_back(&mut self) -> io::Result<()> {
        self.file.set_len(HEADER + self.end - self.start)?;
        self.file.seek(SeekFrom::End(0)).map(|_| ())
    }
}

/// Appends the frame of `record` to `buffer`.
pub(super) fn encode(record: &Record, buffer: &mut Vec<u8>) -> io::Result<()> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; FRAME]);
    serde_json::to_writer(&mut *buffer, record)?;
    let payload = buffer.get(start + FRAME..).unwrap_or_default();
    let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
    let checksum = crc32fast::hash(payload);
    if let Some(frame) = buffer.get_mut(start..start + FRAME) {
        frame.copy_from_slice(&(u64::from(length) | u64::from(checksum) << 32).to_le_bytes());
    }
    Ok(())
}

/// The first record of `bytes`, and its length with its frame. `None` for one that is not whole.
fn decode(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let frame: [u8; FRAME] = bytes.get(..FRAME)?.try_into().ok()?;
    let frame = u64::from_le_bytes(frame);
    let length = usize::try_from(frame & u64::from(u32::MAX)).ok()?;
    let payload = bytes.get(FRAME..FRAME + length)?;
    let sound = length <= LONGEST && u64::from(crc32fast::hash(payload)) == frame >> 32;
    sound.then_some((payload, FRAME + length))
}

/// Bytes of whole records behind the header.
fn whole_records(bytes: &[u8]) -> u64 {
    let mut rest = bytes.get(16..).unwrap_or_default();
    let all = rest.len();
    while let Some((_, length)) = decode(rest) {
        rest = rest.get(length..).unwrap_or_default();
    }
    u64::try_from(all - rest.len()).unwrap_or(0)
}

/// Segments of `dir` with their first positions, in order.
fn list(dir: &Path) -> Result<Vec<(u64, PathBuf)>, ReadError> {
    let io = |error| ReadError::Io {
        path: dir.to_owned(),
        error,
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let start = name
            .strip_prefix("journal-")
            .and_then(|rest| rest.strip_suffix(".log"));
        if let Some(start) = start.and_then(|digits| digits.parse().ok()) {
            found.push((start, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Removes segments whose records all lie before `position`.
pub(super) fn remove_before(dir: &Path, position: u64) -> io::Result<()> {
    let segments = list(dir).map_err(io::Error::other)?;
    for pair in segments.windows(2) {
        if let [(_, path), (next, _)] = pair
            && *next <= position
        {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Reads records in order, over segments.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    at: u64,
    open: Option<(u64, PathBuf, File)>,
    /// Bytes read from the file and not yet given out; begin at `at`.
    buffer: Vec<u8>,
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
        let mut records = Vec::new();
        while self.at < until.0 && records.len() < most {
            if self.buffer.is_empty() && !self.fill(until)? {
                break;
            }
            let mut used = 0;
            while records.len() < most {
                let rest = self.buffer.get(used..).unwrap_or_default();
                let Some((payload, length)) = decode(rest) else {
                    break;
                };
                let record = serde_json::from_slice(payload)
                    .map_err(|_| self.damaged("a record of another format"))?;
                records.push(record);
                used += length;
                self.at += u64::try_from(length).unwrap_or(0);
            }
            if used == 0 {
                return Err(self.damaged("a record is not whole or its checksum is wrong"));
            }
            self.buffer.drain(..used);
        }
        Ok(records)
    }

    /// Reads up to `until` or the segment's end; `false` when there is nothing.
    fn fill(&mut self, until: Position) -> Result<bool, ReadError> {
        let segments = list(&self.dir)?;
        let Some((start, path)) = segments.iter().rev().find(|(start, _)| *start <= self.at) else {
            return Err(self.damaged("the segment of this position is gone"));
        };
        let io = |error| ReadError::Io {
            path: path.clone(),
            error,
        };
        if self.open.as_ref().is_none_or(|(open, ..)| open != start) {
            self.open = Some((*start, path.clone(), File::open(path).map_err(io)?));
        }
        let Some((start, _, file)) = &mut self.open else {
            return Ok(false);
        };
        file.seek(SeekFrom::Start(HEADER + self.at - *start))
            .map_err(io)?;
        file.take(until.0 - self.at)
            .read_to_end(&mut self.buffer)
            .map_err(io)?;
        Ok(!self.buffer.is_empty())
    }

    fn damaged(&self, what: &'static str) -> ReadError {
        let (path, offset) = match &self.open {
            Some((start, path, _)) => (path.clone(), HEADER + self.at - start),
            None => (self.dir.clone(), self.at),
        };
        ReadError::Damaged { path, offset, what }
    }
}
