//! Any body is an answer or an error, and an answer can be written in each dialect and read again.
#![no_main]

use fuzz::{ORIGIN, asked, conversing};
use libfuzzer_sys::fuzz_target;
use wire::Losses;
use wire::call::Seal;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    Seal::open(&text);
    Seal::open(&format!("{}{text}", wire::seal::ENVELOPE));
    wire::dialect::told(bytes);
    for from in wire::dialect::ALL {
        from.usage(bytes);
        from.seals(bytes);
        from.kept(bytes);
    }
    for from in conversing() {
        if from.decode_reply(bytes, ORIGIN).is_err() {
            continue;
        }
        for to in conversing() {
            let mut losses = Losses::default();
            let (body, _) = wire::translate::reply(from, ORIGIN, to, &asked(), bytes, &mut losses)
                .expect("it is an answer");
            assert!(to.decode_reply(body.to_string().as_bytes(), ORIGIN).is_ok());
        }
    }
});
