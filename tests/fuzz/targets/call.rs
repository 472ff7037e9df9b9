//! Any body is a call or an error, and a call can be written in each dialect and read again.
#![no_main]

use fuzz::{CHANGE, ORIGIN, conversing};
use libfuzzer_sys::fuzz_target;
use wire::Losses;

fuzz_target!(|bytes: &[u8]| {
    for from in wire::dialect::ALL {
        let _scanned = from.scan(bytes);
    }
    for from in conversing() {
        let Ok(call) = from.decode(bytes) else {
            continue;
        };
        for to in conversing() {
            let mut losses = Losses::default();
            to.encode(&call, &CHANGE, &mut losses);
            let mut call = call.clone();
            call.withhold(to.name(), ORIGIN, &mut losses);
            let body = to.encode(&call, &CHANGE, &mut losses).to_string();
            // Of some calls, nothing at all can be carried; all else must be such as is taken.
            if let Err(why) = to.decode(body.as_bytes()) {
                assert!(why.to_string().ends_with("holds nothing to answer"), "{why}: {body}");
            }
            losses.header();
        }
    }
});
