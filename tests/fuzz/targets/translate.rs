//! Any stream can be translated, the same wherever it is cut, and what ends as a whole is one again.
//! Its length says from where to where, so that golden streams are seeds as they are.
#![no_main]

use bytes::Bytes;
use fuzz::{ORIGIN, asked, conversing};
use libfuzzer_sys::fuzz_target;
use wire::Dialect;
use wire::reply::Assembler;
use wire::sse::Splitter;
use wire::translate::Translator;

fn translated(from: &dyn Dialect, to: &dyn Dialect, bytes: &[u8], size: usize) -> (String, bool) {
    let mut translator = Translator::new(from, ORIGIN, to, asked());
    let mut splitter = Splitter::default();
    let mut text = String::new();
    for frame in bytes.chunks(size) {
        splitter
            .push(Bytes::copy_from_slice(frame))
            .expect("inputs are short");
        while let Some(event) = splitter.next_event() {
            translator.event(&event, &mut text);
        }
    }
    translator.finish(&mut text);
    let whole = translator.assembler().whole().is_some();
    assert!(
        !whole || translator.failed().is_none(),
        "a failure is no end"
    );
    (text, whole)
}

fuzz_target!(|bytes: &[u8]| {
    let pick = |number: usize| conversing().nth(number % 3).expect("there are three");
    let (from, to) = (pick(bytes.len()), pick(bytes.len() / 3));
    let (text, whole) = translated(from, to, bytes, bytes.len().max(1));
    assert_eq!(translated(from, to, bytes, 3).0, text);
    let mut reader = to.reader(ORIGIN);
    let (mut events, mut assembler) = (Vec::new(), Assembler::default());
    for event in text.split_inclusive("\n\n") {
        reader.event(event.as_bytes(), &mut events);
    }
    events.iter().for_each(|event| assembler.take(event));
    assert_eq!(
        assembler.whole().is_some(),
        whole,
        "{} to {}",
        from.name(),
        to.name()
    );
});
