//! Any stream can be watched and read to its end: parts are opened and closed one behind the other.
#![no_main]

use bytes::Bytes;
use fuzz::{ORIGIN, conversing};
use libfuzzer_sys::fuzz_target;
use wire::reply::{Assembler, Event};
use wire::sse::Splitter;

fuzz_target!(|bytes: &[u8]| {
    for from in conversing() {
        let mut splitter = Splitter::default();
        splitter
            .push(Bytes::copy_from_slice(bytes))
            .expect("inputs are short");
        let (mut watch, mut reader) = (from.watch(), from.reader(ORIGIN));
        let mut events = Vec::new();
        while let Some(event) = splitter.next_event() {
            watch.event(&event);
            reader.event(&event, &mut events);
        }
        reader.finish(&mut events);
        let mut assembler = Assembler::default();
        let (mut begun, mut open) = (false, false);
        for event in events {
            match &event {
                Event::Begin { .. } => begun = true,
                Event::Open(_) => {
                    assert!(begun && !open, "{}: opened inside another", from.name());
                    open = true;
                }
                Event::Piece(_) => assert!(open, "{}: a piece of nothing", from.name()),
                Event::Close { .. } => {
                    assert!(open, "{}: closed twice", from.name());
                    open = false;
                }
                Event::End => assert!(begun && !open, "{}: ended inside a part", from.name()),
                _ => {}
            }
            assembler.take(&event);
        }
        assembler.seen();
    }
});
