//! Events are the same, wherever the frames are cut; the first byte says how.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use wire::sse::Splitter;

fn events(bytes: &[u8], size: usize) -> Vec<Bytes> {
    let mut splitter = Splitter::default();
    let mut events = Vec::new();
    for frame in bytes.chunks(size) {
        splitter
            .push(Bytes::copy_from_slice(frame))
            .expect("inputs are short");
        while let Some(event) = splitter.next_event() {
            events.push(event);
        }
    }
    events.push(splitter.rest());
    assert!(splitter.pending().is_empty());
    events
}

fuzz_target!(|bytes: &[u8]| {
    let Some((size, bytes)) = bytes.split_first() else {
        return;
    };
    let whole = events(bytes, bytes.len().max(1));
    assert_eq!(events(bytes, usize::from(*size).max(1)), whole);
    assert_eq!(whole.concat(), bytes, "nothing is lost");
    for event in &whole {
        wire::sse::data(event);
        wire::sse::name(event);
    }
});
