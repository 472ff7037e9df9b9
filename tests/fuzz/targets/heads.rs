//! Heads of requests and answers: the same wherever they are cut, and sound where they are taken.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| fuzz::http1::heads(bytes));
