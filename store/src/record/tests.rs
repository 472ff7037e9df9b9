//! Proves that a record comes back from its bytes as it was, that damage is noticed and not guessed at,
//! and that this format's bytes stay what they are.

use std::sync::Arc;

use meter::{Charge, Entry, Held, NanoUsd, Record, Routing};

use super::*;
use crate::recorder::tests::{held, settle};

/// Every field at something that is not its default.
fn full() -> Held {
    let mut full = held(7, 1_234_567_890_123);
    full.attempt = 300;
    full.subject.user = Arc::from("añn");
    full.subject.task = Arc::from("t");
    full.subject.workflow = Arc::from("w");
    full.losses = Arc::from("top_k,seed");
    full.session = u64::MAX - 1;
    full.book = Arc::from("0123456789ab");
    full.escalated = Arc::from("schema");
    full.bound_usage = Usage {
        input: u64::MAX,
        cache_read: 1,
        cache_write_5m: 127,
        cache_write_1h: 128,
        output: 1 << 40,
        reasoning: 5,
        audio_input: 6,
        audio_output: 7,
        web_searches: 8,
    };
    full.charges = vec![
        Charge {
            budget: Arc::from("a"),
            start_ms: -1,
        },
        Charge {
            budget: Arc::from("b"),
            start_ms: i64::MIN,
        },
    ];
    let pair = |a: &str, b: &str| (Arc::from(a), Arc::from(b));
    full.routing = Some(Box::new(Routing {
        class: Arc::from("c"),
        step: Arc::from("s"),
        score_ppm: Some(0),
        threshold_ppm: None,
        propensity_ppm: 1,
        layers: vec![0, -1, i32::MIN, i32::MAX],
        head: 2,
        weights: Arc::from("v"),
        rules: vec![Arc::from("r"), Arc::from("")],
        would: vec![Arc::from("q")],
        barred: vec![pair("m", "window")],
        label: Arc::from("l"),
        headers: vec![pair("x-a", "1"), pair("x-b", "")],
        needs: u32::MAX,
        prompt_tokens: 99,
        seat: Arc::from("m2"),
        lost: NanoUsd(-5),
    }));
    full
}

fn records() -> Vec<Record> {
    let done = |held: Held| {
        let Record::Settle(entry) = settle(held, 3) else {
            panic!("it is a settlement")
        };
        entry
    };
    let rich = Entry {
        cost: NanoUsd(i64::MAX),
        sell: NanoUsd(i64::MIN),
        suspense: NanoUsd(1),
        cache_saved: NanoUsd(-2),
        context_tier: 200_000,
        first_byte_ms: None,
        ..*done(full())
    };
    vec![
        Record::Hold(Box::new(held(1, 10))),
        Record::Hold(Box::new(full())),
        settle(held(2, 10), 0),
        Record::Settle(Box::new(rich)),
    ]
}

fn bytes(record: &Record) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(record, &mut bytes);
    bytes
}

#[test]
fn a_record_comes_back_as_it_was() {
    for record in records() {
        let bytes = bytes(&record);
        assert_eq!(decode(&bytes), Ok(record.clone()));
        let head = Head::of(&bytes).expect("reads");
        let (kind, held) = match &record {
            Record::Hold(held) => (Kind::Hold, &**held),
            Record::Settle(entry) => (Kind::Settle, &entry.held),
        };
        assert_eq!(
            (head.kind, head.request, head.attempt),
            (kind, held.request, held.attempt)
        );
        assert_eq!(id(&bytes), held.request.bytes());
    }
}

#[test]
fn records_that_were_json_are_read_and_renewed() {
    for record in records() {
        let json = serde_json::to_vec(&record).expect("writes");
        assert_eq!(decode(&json), Ok(record.clone()));
        let mut renewed = Vec::new();
        renew(&json, &mut renewed).expect("reads");
        assert_eq!(renewed, bytes(&record));
    }
    let hold = full();
    let json = serde_json::to_vec(&hold).expect("writes");
    assert_eq!(super::held(&json), Ok(hold), "as rows of open holds were");
}

#[test]
fn what_is_cut_short_or_of_a_later_format_is_an_error() {
    for record in records() {
        let whole = bytes(&record);
        for length in 0..whole.len() {
            assert_eq!(decode(&whole[..length]), Err(DecodeError), "{length}");
        }
        let mut later = whole;
        later[0] = FORMAT + 1;
        assert_eq!(decode(&later), Err(DecodeError));
    }
}

#[test]
fn no_bytes_make_it_panic() {
    let whole = bytes(&records()[3]);
    for place in 0..whole.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut damaged = whole.clone();
            damaged[place] = value;
            // Checksums find damage; this only has to end.
            let _read = decode(&damaged);
        }
    }
}

#[test]
fn the_bytes_of_this_format_stay_what_they_are() {
    // Rows of ledgers and journals of earlier programs are made of these: a change needs a new format.
    let sums: Vec<u32> = records()
        .iter()
        .map(|record| crc32fast::hash(&bytes(record)))
        .collect();
    assert_eq!(
        sums,
        [2_971_053_736, 708_894_754, 926_970_340, 1_834_664_505]
    );
}
