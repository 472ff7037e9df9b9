//! Events say the same, wherever the frames are cut; the first byte says how.
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
    let cut = events(bytes, usize::from(*size).max(1));
    assert_eq!(said(&cut), said(&whole));
    assert_eq!(whole.concat(), bytes, "nothing is lost");
    assert_eq!(cut.concat(), bytes, "nothing is lost");
});

/// What events say. Where lines end now so and now so, the second half of an ending may stand at the head of the
/// next event.
fn said(events: &[Bytes]) -> Vec<(Option<&[u8]>, Option<Vec<u8>>)> {
    let said = events.iter().map(|event| {
        let data = wire::sse::data(event).map(|data| data.into_owned());
        (wire::sse::name(event), data)
    });
    said.filter(|(name, data)| name.is_some() || data.is_some())
        .collect()
}
