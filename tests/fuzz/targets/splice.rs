//! What was authorised is what is sent: the call behind an edit says what the edit says, to whoever reads it.
#![no_main]

use bytes::Bytes;
use fuzz::CHANGE;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    for dialect in wire::dialect::ALL {
        let Ok(scan) = dialect.scan(bytes) else {
            continue;
        };
        let edits = dialect.edits(&scan, &CHANGE);
        let sent = wire::splice::apply(&Bytes::copy_from_slice(bytes), edits).concat();
        let again = dialect.scan(&sent).expect("what is sent is a call");
        assert_eq!(again.model, CHANGE.model);
        assert_eq!(again.stream, scan.stream);
        // Escapes of half a character pass, which not everybody reads.
        if serde_json::from_slice::<Value>(bytes).is_err() {
            continue;
        }
        // Whoever reads it takes the first or the last of equal names: there must be one.
        let read: Value = serde_json::from_slice(&sent).expect("what is sent is JSON");
        assert_eq!(read["model"], CHANGE.model);
    }
});
