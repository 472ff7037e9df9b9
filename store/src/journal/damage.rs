//! Telling a torn tail from damage in the middle. Behind the record that a crash tore stands nothing; where whole
//! records stand behind one that is not whole, something else has happened to the file, and they are lost with it.
//! The start goes on all the same: after a power loss the disk may have later pages and not earlier ones, of
//! records that nobody was told are safe, and that needs no repair.

use std::path::{Path, PathBuf};

use super::segment::{FRAME, HEADER, Header, LOOKED_FOR, ReadError, count};
use crate::record;

/// Tells of records of the last segment that lie behind its damage and that the ledger does not have, and keeps
/// a copy of the file as it was found. `whole` bytes of records stand before the damage.
pub(super) fn tell(
    (path, file): (&Path, &[u8]),
    header: &Header,
    whole: u64,
    floor: u64,
) -> Result<(), ReadError> {
    let lost = behind(header, file, whole, floor);
    if lost.records == 0 {
        return Ok(());
    }
    let offset = HEADER.saturating_add(whole);
    let copy = kept(path, offset);
    std::fs::write(&copy, file).map_err(|error| ReadError::Io {
        path: copy.clone(),
        error,
    })?;
    tracing::error!(
        segment = %path.display(),
        offset,
        bytes = lost.bytes,
        records = lost.records,
        copy = %copy.display(),
        "the journal is damaged in its middle, and the whole records behind it are lost; check the disk, and hold \
         the provider's bill against the ledger with `pareto reconcile`"
    );
    Ok(())
}

fn kept(path: &Path, offset: u64) -> PathBuf {
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("damaged-{name}-{offset}.log"))
}

/// What lies behind damage.
#[derive(Debug, PartialEq, Eq)]
struct Lost {
    /// From the damage to the end of the last whole record.
    bytes: u64,
    records: u64,
}

/// Whole records behind `whole` that begin at `floor` or later. Each is tied to its place in the journal, so what
/// the file held before its present turn is not taken for one.
fn behind(header: &Header, file: &[u8], whole: u64, floor: u64) -> Lost {
    let mut lost = Lost {
        bytes: 0,
        records: 0,
    };
    let mut at = whole.saturating_add(1);
    while let Some(rest) = rest(file, at) {
        let position = header.start().saturating_add(at);
        let found = header
            .decode_up_to(rest, position, LOOKED_FOR)
            .filter(|payload| record::decode(payload).is_ok());
        let Some(payload) = found else {
            at = at.saturating_add(1);
            continue;
        };
        at = at.saturating_add(count(FRAME + payload.len()));
        if position >= floor {
            lost.records += 1;
            lost.bytes = at.saturating_sub(whole);
        }
    }
    lost
}

/// What stands behind the first `at` bytes of records, where a frame has room there.
fn rest(file: &[u8], at: u64) -> Option<&[u8]> {
    let place = usize::try_from(HEADER.saturating_add(at)).ok()?;
    file.get(place..).filter(|rest| rest.len() > FRAME)
}
