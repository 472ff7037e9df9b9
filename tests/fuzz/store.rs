//! The journal's bytes, compiled in here: the rest of the store brings databases with it.

#[path = "../../store/src/journal/damage.rs"]
mod damage;
#[expect(dead_code, reason = "only its readers are asked")]
#[path = "../../store/src/journal/segment.rs"]
mod segment;

use crate::record::{self, EntryView, HeldView};
use segment::{HEADER, Header};

/// Any bytes are a record or an error; a record is written and read again as the same, and takes no more room than
/// its bytes give reason to.
pub fn records(bytes: &[u8]) {
    let seen = (HeldView::of(bytes).is_ok(), EntryView::of(bytes).is_ok());
    let mut renewed = Vec::new();
    let renews = record::renew(bytes, &mut renewed).is_ok();
    let Ok(read) = record::decode(bytes) else {
        return;
    };
    assert!(renews && (bytes[0] == b'{' || seen.0 || seen.1));
    let mut written = Vec::new();
    record::encode(&read, &mut written);
    assert_eq!(record::decode(&written).as_ref(), Ok(&read));
    let mut again = Vec::new();
    record::encode(&record::decode(&written).expect("it was one before"), &mut again);
    assert_eq!(written, again);
}

/// Any file is a segment or none; what is whole of it lies within it, and so does what is torn.
pub fn segments(bytes: &[u8]) {
    if let Some(header) = Header::of(bytes) {
        let (whole, torn) = header.whole(bytes);
        assert!(whole + torn <= bytes.len() as u64 - HEADER);
    }
    if let Some((start, rest)) = bytes.split_first_chunk::<8>() {
        torn(u64::from_le_bytes(*start), rest);
    }
}

/// A segment that begins at `start` and is cut anywhere has the records before the cut, and no other.
fn torn(start: u64, bytes: &[u8]) {
    let Some((cut, bytes)) = bytes.split_first() else {
        return;
    };
    let pieces: Vec<&[u8]> = bytes.split(|byte| *byte == 0xff).filter(|it| !it.is_empty()).collect();
    let mut file = [&b"PARJ\x02\0\0\0"[..], &start.to_le_bytes()].concat();
    let (mut frame, mut at, mut ends) = (Vec::new(), start, vec![0]);
    for piece in &pieces {
        segment::frame(&mut frame, |to| to.extend_from_slice(piece)).expect("pieces are short");
        segment::seal(&mut frame, at);
        file.extend_from_slice(&frame);
        at = at.wrapping_add(frame.len() as u64);
        ends.push(ends[ends.len() - 1] + frame.len() as u64);
    }
    let records = file.len() - HEADER as usize;
    let kept = records * usize::from(*cut) / 255;
    file.truncate(HEADER as usize + kept);
    let header = Header::of(&file).expect("it has a header");
    let whole = ends.into_iter().filter(|end| *end <= kept as u64).max();
    assert_eq!(Some(header.whole(&file).0), whole);
}
