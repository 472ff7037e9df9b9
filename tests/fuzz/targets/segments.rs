//! Files of the journal are read up to where they are whole.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| fuzz::store::segments(bytes));
