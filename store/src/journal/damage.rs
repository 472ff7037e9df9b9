//! Telling a torn tail from damage in the middle. Behind the record that a crash tore stands nothing. Where whole
//! records stand behind one that is not whole, something else has happened to the file, or the power went while the
//! disk had later pages and not earlier ones: they are written again where the journal ends, and nothing but what
//! was damaged is lost.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::segment::{FRAME, HEADER, Header, count};
use crate::record;

/// So far behind damage, and behind each record found there, the next one is looked for.
const WINDOW: u64 = 1 << 20;
/// Records near a kilobyte: longer ones are not looked for, since each byte might begin one.
const LONGEST: usize = 64 << 10;

/// What lies behind damage.
#[derive(Debug)]
pub(super) struct Behind<'a> {
    /// Whole records, in their order.
    pub(super) payloads: Vec<&'a [u8]>,
    /// From the damage to the end of the last of them.
    bytes: u64,
}

/// Whole records behind the first `whole` bytes of records, which begin at the position `floor` or later: the ledger
/// has those before. Each is tied to its place in the journal, so what the file held before its present turn is not
/// taken for one.
pub(super) fn behind<'a>(header: &Header, file: &'a [u8], whole: u64, floor: u64) -> Behind<'a> {
    let (mut payloads, mut bytes) = (Vec::new(), 0);
    let (mut at, mut until) = (whole, whole.saturating_add(WINDOW));
    while let Some(rest) = rest(file, at).filter(|_| at < until) {
        // A frame begins with its length, of whose bytes one of the first three is not zero.
        let zeros = rest.iter().position(|byte| *byte != 0);
        let Some(zeros) = zeros else { break };
        if zeros > 2 {
            at = at.saturating_add(count(zeros - 2));
            continue;
        }
        let position = header.start().saturating_add(at);
        let found = header.decode_up_to(rest, position, LONGEST);
        let Some(payload) = found.filter(|payload| record::decode(payload).is_ok()) else {
            at = at.saturating_add(1);
            continue;
        };
        at = at.saturating_add(count(FRAME + payload.len()));
        until = at.saturating_add(WINDOW);
        if position >= floor {
            payloads.push(payload);
            bytes = at.saturating_sub(whole);
        }
    }
    Behind { payloads, bytes }
}

/// Tells of the damage to a segment, and keeps a copy of the file as it was found. `whole` bytes of records stand
/// before it.
pub(super) fn tell((path, file): (&Path, &[u8]), whole: u64, behind: &Behind<'_>) {
    let offset = HEADER.saturating_add(whole);
    let copy = copy(path, offset);
    // Room for it may be what is missing; the start needs none.
    let kept = keep(&copy, file);
    tracing::error!(
        segment = %path.display(),
        offset,
        bytes = behind.bytes,
        records = behind.payloads.len(),
        copy = %copy.display(),
        not_copied = kept.err().map(tracing::field::display),
        "the journal is damaged in its middle: so many whole records behind the damage are kept, and what was in it is \
         lost; check the disk, and hold the provider's bill against the ledger with `pareto reconcile`"
    );
}

fn keep(path: &Path, file: &[u8]) -> io::Result<()> {
    let mut copy = File::create(path)?;
    copy.write_all(file)?;
    copy.sync_all()
}

fn copy(path: &Path, offset: u64) -> PathBuf {
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("damaged-{name}-{offset}.log"))
}

/// What stands behind the first `at` bytes of records, where a frame has room there.
fn rest(file: &[u8], at: u64) -> Option<&[u8]> {
    let place = usize::try_from(HEADER.saturating_add(at)).ok()?;
    file.get(place..).filter(|rest| rest.len() > FRAME)
}
