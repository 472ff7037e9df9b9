//! One file of the journal: its header, its frames, and what is left of them after a crash.
//!
//! A frame is `length u32 | checksum u32 | payload`. The checksum is that of the payload, and of the
//! frame's position: a file is used again when its records are in the ledger, and what it held before
//! must not pass for what stands there now. A length of nothing ends the records.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::FallocateFlags;

use super::damage;

const MAGIC: [u8; 4] = *b"PARJ";
/// The version with JSON payloads, checksums of the payload alone, and nothing allocated ahead.
const JSON: u32 = 1;
const VERSION: u32 = 2;
pub(super) const HEADER: u64 = 16;
/// Length and checksum in front of each payload.
pub(crate) const FRAME: usize = 8;
/// What stands behind the last record.
pub(super) const END: [u8; FRAME] = [0; FRAME];
/// No record comes near this; a longer length is a torn or foreign file.
pub(super) const LONGEST: usize = 1 << 20;
/// Files that wait for their turn are named so, with a number of their own.
const SPARE: &str = "spare-";
static SPARES: AtomicU64 = AtomicU64::new(0);

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
    pub(super) file: Arc<File>,
    /// Position of its first record.
    pub(super) start: u64,
    /// Records end here at the latest: what lies before has its place on the disk.
    pub(super) room: u64,
}

/// What was found of the last segment.
pub(super) struct Found {
    pub(super) segment: Segment,
    /// Just behind its last record.
    pub(super) end: u64,
    /// Bytes of a torn record that were cut.
    pub(super) cut: u64,
}

impl Found {
    /// Writes records again that lay behind damage, where the journal ends now. What the file still has behind them,
    /// up to `last`, would be found once more.
    fn put_back(&mut self, payloads: &[&[u8]], last: u64) -> io::Result<()> {
        let (mut frames, mut one, begin) = (Vec::new(), Vec::new(), self.end);
        for payload in payloads {
            frame(&mut one, |to| to.extend_from_slice(payload))?;
            seal(&mut one, self.end);
            frames.extend_from_slice(&one);
            self.end = self.end.saturating_add(count(one.len()));
        }
        self.segment.write(&frames, begin)?;
        self.segment.file.sync_all()?;
        let length = usize::try_from(last.saturating_sub(self.end)).unwrap_or(0);
        self.segment.write(&vec![0; length], self.end)?;
        self.segment.file.sync_all()
    }
}

/// Whether the segment that is written to can be found again: what is in a file without a name ends with the process.
pub(super) fn is_there(segment: &Arc<File>) -> io::Result<()> {
    match segment.metadata()?.nlink() {
        0 => Err(io::Error::other("the file has been removed")),
        _ => Ok(()),
    }
}

impl Segment {
    /// Opens the last segment of `dir`, cutting a torn tail, or makes one of `bytes` at `floor`.
    pub(super) fn open_last(dir: &Path, floor: u64, bytes: u64) -> Result<Found, ReadError> {
        let fresh = |start: u64, cut: u64| {
            Self::make(dir, start, bytes)
                .and_then(|segment| File::open(dir)?.sync_all().map(|()| segment))
                .map(|segment| Found {
                    segment,
                    end: start,
                    cut,
                })
                .map_err(|error| ReadError::Io {
                    path: dir.to_owned(),
                    error,
                })
        };
        loop {
            let Some((start, path)) = list(dir)?.pop() else {
                return fresh(floor, 0);
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
            let Some(header) = Header::of(&bytes) else {
                // The process died while it made the file: nothing can be in it.
                std::fs::remove_file(&path).map_err(io)?;
                if start > floor && list(dir)?.is_empty() {
                    return fresh(start, 0);
                }
                continue;
            };
            if header.start != start {
                // Its new name was not on the disk yet, so nothing in it was either; what it held under
                // the old one had been applied.
                std::fs::remove_file(&path).map_err(io)?;
                continue;
            }
            let (whole, torn) = header.whole(&bytes);
            let end = start.saturating_add(whole);
            let behind = damage::behind(&header, &bytes, whole, floor);
            let is_damaged = !behind.payloads.is_empty();
            if is_damaged {
                damage::tell((&path, &bytes), whole, &behind);
            }
            let (mut found, last) = if header.version == JSON {
                file.set_len(HEADER + whole).map_err(io)?;
                file.sync_all().map_err(io)?;
                (fresh(end.max(floor), torn)?, 0)
            } else if end < floor {
                (fresh(floor, torn)?, 0)
            } else {
                let last = start.saturating_add(room(count(bytes.len())));
                (
                    Self::going_on(file, (start, end), last, torn).map_err(io)?,
                    last,
                )
            };
            if is_damaged {
                found.put_back(&behind.payloads, last).map_err(io)?;
            }
            return Ok(found);
        }
    }

    /// A segment that is written on, from where its whole records end.
    fn going_on(file: File, (start, end): (u64, u64), room: u64, cut: u64) -> io::Result<Found> {
        file.write_all_at(&END, HEADER + end.saturating_sub(start))?;
        file.sync_all()?;
        let segment = Self {
            room,
            file: Arc::new(file),
            start,
        };
        Ok(Found { segment, end, cut })
    }

    /// Whether nothing was written behind `end`.
    pub(super) fn ends_at(&self, end: u64) -> io::Result<bool> {
        let mut behind = END;
        let place = HEADER + end.saturating_sub(self.start);
        // A file that ends there has nothing behind it.
        let read = self.file.read_at(&mut behind, place)?;
        Ok(read < FRAME || behind == END)
    }

    /// Makes a segment of `bytes` with its place on the disk. The folder is to be synced before anything
    /// in it counts as synced.
    pub(super) fn make(dir: &Path, start: u64, bytes: u64) -> io::Result<Self> {
        let spare = Spare::make(dir, bytes)?;
        Self::of(spare, dir, start)
    }

    /// Gives a spare file its turn.
    pub(super) fn of(spare: Spare, dir: &Path, start: u64) -> io::Result<Self> {
        let mut first = Vec::with_capacity(16 + FRAME);
        first.extend_from_slice(&MAGIC);
        first.extend_from_slice(&VERSION.to_le_bytes());
        first.extend_from_slice(&start.to_le_bytes());
        first.extend_from_slice(&END);
        spare.file.write_all_at(&first, 0)?;
        std::fs::rename(&spare.path, path(dir, start))?;
        Ok(Self {
            file: Arc::new(spare.file),
            start,
            room: start + room(spare.bytes),
        })
    }

    /// Writes encoded frames, with an end behind them, at `position`.
    pub(super) fn write(&self, frames: &[u8], position: u64) -> io::Result<()> {
        self.file
            .write_all_at(frames, HEADER + position - self.start)
    }
}

/// A file of the right size, in the folder under a name of its own.
#[derive(Debug)]
pub(super) struct Spare {
    file: File,
    path: PathBuf,
    pub(super) bytes: u64,
}

impl Spare {
    pub(super) fn make(dir: &Path, bytes: u64) -> io::Result<Self> {
        let path = spare_path(dir);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)?;
        let made = allocate(&file, bytes).and_then(|()| file.sync_all());
        if let Err(error) = made {
            // A full disk is told here, before anything is promised.
            let _half_made = std::fs::remove_file(&path);
            return Err(error);
        }
        Ok(Self { file, path, bytes })
    }

    /// Takes a segment whose records are all in the ledger, if it is of this size.
    pub(super) fn reuse(dir: &Path, old: &Path, bytes: u64) -> io::Result<Option<Self>> {
        let file = OpenOptions::new().read(true).write(true).open(old)?;
        if file.metadata()?.len() != bytes {
            std::fs::remove_file(old)?;
            return Ok(None);
        }
        let path = spare_path(dir);
        std::fs::rename(old, &path)?;
        Ok(Some(Self { file, path, bytes }))
    }

    /// Removes what an earlier process left.
    pub(super) fn clear(dir: &Path) -> io::Result<()> {
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(SPARE) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Removes it.
    pub(super) fn remove(self) -> io::Result<()> {
        std::fs::remove_file(self.path)
    }
}

/// Has the filesystem give the file its blocks, or writes them where it can not say so.
fn allocate(mut file: &File, bytes: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            io::copy(&mut io::repeat(0).take(bytes), &mut file).map(|_| ())?;
            file.flush()
        }
        done => Ok(done?),
    }
}

/// How many bytes of records fit a file of `bytes`.
fn room(bytes: u64) -> u64 {
    bytes.saturating_sub(HEADER + count(FRAME))
}

/// The size of a file for a record of `length`, where `usual` is not enough.
pub(super) fn size_for(length: usize, usual: u64) -> u64 {
    usual.max(HEADER + count(length) + count(FRAME))
}

pub(super) fn path(dir: &Path, start: u64) -> PathBuf {
    dir.join(format!("journal-{start:020}.log"))
}

fn spare_path(dir: &Path) -> PathBuf {
    let number = SPARES.fetch_add(1, Ordering::Relaxed);
    dir.join(format!("{SPARE}{number}.log"))
}

pub(super) fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// Makes a frame of what `write` appends, in `frame`. It is sealed when its position is known.
pub(super) fn frame(frame: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
    frame.clear();
    frame.extend_from_slice(&END);
    write(frame);
    let payload = frame.get(FRAME..).unwrap_or_default();
    if payload.len() > LONGEST {
        return Err(io::Error::other("a record is too long"));
    }
    let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
    let checksum = crc32fast::hash(payload);
    if let Some(head) = frame.first_chunk_mut() {
        *head = (u64::from(length) | u64::from(checksum) << 32).to_le_bytes();
    }
    Ok(())
}

/// Ties a frame to its position.
pub(super) fn seal(frame: &mut [u8], position: u64) {
    if let Some(head) = frame.first_chunk_mut::<FRAME>() {
        let sealed = u64::from_le_bytes(*head) ^ u64::from(place(position)) << 32;
        *head = sealed.to_le_bytes();
    }
}

fn place(position: u64) -> u32 {
    crc32fast::hash(&position.to_le_bytes())
}

/// What the first bytes of a segment say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    version: u32,
    start: u64,
}

impl Header {
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<4>()?;
        let (version, rest) = rest.split_first_chunk()?;
        let (start, _) = rest.split_first_chunk()?;
        let version = u32::from_le_bytes(*version);
        (*magic == MAGIC && (version == JSON || version == VERSION)).then_some(Self {
            version,
            start: u64::from_le_bytes(*start),
        })
    }

    /// The position of the first record.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// The first payload of `bytes`, which begin at `position`, if it is whole.
    pub(super) fn decode<'a>(&self, bytes: &'a [u8], position: u64) -> Option<&'a [u8]> {
        self.decode_up_to(bytes, position, LONGEST)
    }

    /// The same for a payload of at most `longest` bytes.
    pub(super) fn decode_up_to<'a>(
        &self,
        bytes: &'a [u8],
        position: u64,
        longest: usize,
    ) -> Option<&'a [u8]> {
        let (head, rest) = bytes.split_first_chunk::<FRAME>()?;
        let head = u64::from_le_bytes(*head);
        let length = usize::try_from(head & u64::from(u32::MAX)).ok()?;
        let payload = rest
            .get(..length)
            .filter(|_| (1..=longest).contains(&length))?;
        let place = if self.version == JSON {
            0
        } else {
            place(position)
        };
        let is_sound = u64::from(crc32fast::hash(payload) ^ place) == head >> 32;
        is_sound.then_some(payload)
    }

    /// Bytes of whole records in a file, and of a torn one behind them. Whatever the header says, it is told.
    pub(super) fn whole(&self, file: &[u8]) -> (u64, u64) {
        let mut rest = file.get(16..).unwrap_or_default();
        let mut whole = 0;
        while let Some(payload) = self.decode(rest, self.start.wrapping_add(whole)) {
            let length = FRAME + payload.len();
            rest = rest.get(length..).unwrap_or_default();
            whole += count(length);
        }
        if self.version == JSON {
            return (whole, count(rest.len()));
        }
        // Behind the last record stands an end, or the beginning of one that was not written whole.
        let torn = match rest.first_chunk::<4>() {
            Some([0, 0, 0, 0]) => 0,
            Some(length) => u32::from_le_bytes(*length).saturating_add(8).into(),
            None => count(rest.len()),
        };
        (whole, torn.min(count(rest.len())))
    }
}

/// Where the records of the last segment of `dir` end, and bytes of a torn one behind them.
pub(super) fn look(dir: &Path) -> Result<(u64, u64), ReadError> {
    let Some((start, path)) = list(dir)?.pop() else {
        return Ok((0, 0));
    };
    let bytes = std::fs::read(&path).map_err(|error| ReadError::Io {
        path: path.clone(),
        error,
    })?;
    let Some(header) = Header::of(&bytes) else {
        return Ok((start, 0));
    };
    let (whole, torn) = header.whole(&bytes);
    Ok((start.saturating_add(whole), torn))
}

/// Segments of `dir` with their first positions, in order.
pub(super) fn list(dir: &Path) -> Result<Vec<(u64, PathBuf)>, ReadError> {
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
