//! Proves that amounts are exact: parsing, rounding and printing lose nothing they may keep.

use super::{NanoUsd, PicoPerUnit, PicoSum, step, step_end};

#[test]
fn decimals_are_read_exactly() {
    assert_eq!(NanoUsd::from_usd("12.50"), Ok(NanoUsd(12_500_000_000)));
    assert_eq!(NanoUsd::from_usd("-0.000000001"), Ok(NanoUsd(-1)));
    assert_eq!(PicoPerUnit::per_million("0.0025"), Ok(PicoPerUnit(2_500)));
    assert_eq!(
        PicoPerUnit::per_thousand("10"),
        Ok(PicoPerUnit(10_000_000_000))
    );
    for wrong in [
        "",
        ".",
        ".5",
        "1e3",
        "1,5",
        "0.0000000001",
        " 1",
        "+1",
        "9999999999999999999",
    ] {
        assert!(NanoUsd::from_usd(wrong).is_err(), "{wrong}");
    }
    assert!(PicoPerUnit::per_million("-1").is_err());
}

#[test]
fn halves_round_to_even_and_bounds_round_up() {
    let sum = |pico: u64| {
        let mut sum = PicoSum::default();
        sum.add(pico, PicoPerUnit(1));
        (sum.round().0, sum.ceil().0)
    };
    assert_eq!(sum(500), (0, 1));
    assert_eq!(sum(1_500), (2, 2));
    assert_eq!(sum(2_500), (2, 3));
    assert_eq!(sum(2_501), (3, 3));
    assert_eq!(sum(3_000), (3, 3));
}

#[test]
fn amounts_print_all_nine_places() {
    assert_eq!(NanoUsd(1_250_000).to_usd(), "0.001250000");
    assert_eq!(NanoUsd(-1).to_usd(), "-0.000000001");
    assert_eq!(
        NanoUsd(9_000_000_000_000_000_001).to_usd(),
        "9000000000.000000001"
    );
}

#[test]
fn steps_of_a_histogram_hold_what_falls_into_them() {
    let mut before = -1;
    for nano in (0..5_000).chain([1 << 40, (1 << 40) + 12_345, i64::MAX]) {
        let at = step(NanoUsd(nano));
        assert!(at >= before, "{nano}");
        before = at;
        let end = step_end(at).0;
        assert!(
            nano <= end && step(NanoUsd(end)) == at,
            "{nano} in {at}, to {end}"
        );
        assert!((end - nano) <= nano >> 3, "{nano} to {end}");
    }
}
