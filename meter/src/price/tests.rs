//! Proves that the committed price book is read exactly and that bounds are never below costs.

use proptest::prelude::*;
use wire::Usage;

use super::*;

fn book() -> PriceBook {
    PriceBook::read(include_str!("../../../config/prices.json")).expect("the committed book")
}

fn ms(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>()
        .expect("a time")
        .as_millisecond()
}

#[test]
fn a_call_is_rated_by_the_period_in_force() {
    let book = book();
    let usage = Usage {
        input: 1_000,
        cache_read: 2_000,
        output: 300,
        reasoning: 200,
        ..Usage::default()
    };
    let cost = |at: &str| {
        book.rates("openai/gpt-5-mini", STANDARD, ms(at))
            .map(|r| r.cost(&usage))
    };
    // 0.25 and 2 USD for a million; cached 0.025 from the second period on, before that as input.
    assert_eq!(
        cost("2025-08-08T00:00:00Z"),
        Ok(NanoUsd(250_000 + 500_000 + 1_000_000))
    );
    assert_eq!(
        cost("2025-08-09T00:00:00Z"),
        Ok(NanoUsd(250_000 + 50_000 + 1_000_000))
    );
    assert!(matches!(
        cost("2020-01-01T00:00:00Z"),
        Err(Unpriced::NoPeriod(_))
    ));
}

#[test]
fn a_long_prompt_is_rated_at_its_tier() {
    let book = book();
    let rates = book
        .rates("openai/gpt-6-astra", STANDARD, ms("2026-11-21T00:00:00Z"))
        .expect("priced");
    let cost = |input| {
        rates.cost(&Usage {
            input,
            ..Usage::default()
        })
    };
    assert_eq!(cost(272_000), NanoUsd(272_000 * 10_000));
    assert_eq!(cost(272_001), NanoUsd(272_001 * 20_000));
    assert!(
        rates.bound(272_000, 0) >= NanoUsd(272_000 * 20_000),
        "the edge is held at the dearer side"
    );
}

#[test]
fn what_has_no_sure_price_says_so() {
    let book = book();
    let at = ms("2026-11-21T00:00:00Z");
    assert_eq!(
        book.rates("x/y", STANDARD, at),
        Err(Unpriced::Unknown("x/y".into()))
    );
    let conflicts = book
        .offers
        .iter()
        .filter(|(_, offer)| offer.conflict)
        .count();
    assert_eq!(conflicts, 7);
    let own = PriceConfig {
        id: "x/y".into(),
        input: "0.5".into(),
        output: "1".into(),
        cache_read: None,
        cache_write: None,
    };
    let book = book.with_overrides(&[own]).expect("good amounts");
    let rates = book.rates("x/y", STANDARD, at).expect("priced now");
    assert_eq!(
        rates.cost(&Usage {
            input: 3,
            output: 1,
            ..Usage::default()
        }),
        NanoUsd(2_500)
    );
}

proptest! {
    #[test]
    fn no_usage_costs_more_than_its_bound(
        parts in prop::array::uniform8(0_u64..400_000),
        offer in 0_usize..195,
    ) {
        let book = book();
        let mut ids: Vec<_> = book.ids().map(str::to_owned).collect();
        ids.sort();
        let at = ms("2026-11-21T00:00:00Z");
        if let Ok(rates) = book.rates(&ids[offer], STANDARD, at) {
            let [input, cache_read, cache_write_5m, cache_write_1h, output, reasoning, audio_input, audio_output] = parts;
            let usage = Usage { input, cache_read, cache_write_5m, cache_write_1h, output, reasoning, audio_input, audio_output, web_searches: 0 };
            prop_assert!(rates.cost(&usage) <= rates.bound(usage.prompt(), usage.answer()));
            let room = NanoUsd(50_000_000_000);
            let fits = rates.affordable_answer(input, room);
            if rates.bound(input, 0) <= room && fits < u64::MAX {
                prop_assert!(rates.bound(input, fits) <= room);
            }
        }
    }
}
