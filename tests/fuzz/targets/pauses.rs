//! What an endpoint says of pauses is a number or nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| fuzz::pauses::read(bytes));
