//! Amounts and prices are read as they are written.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| fuzz::money::amounts(text));
