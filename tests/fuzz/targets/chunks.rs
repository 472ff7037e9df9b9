//! The chunked coding is read the same wherever it is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| fuzz::http1::chunks(bytes));
