//! Proves that the committed price book is read exactly and that bounds are never below costs.

use proptest::prelude::*;
use wire::Usage;

use super::*;
use crate::config::PriceConfig;
use crate::money::{NanoUsd, PicoSum};

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
        .offers()
        .iter()
        .filter(|it| it.check == "differ")
        .count();
    assert_eq!(conflicts, 7);
    let own = PriceConfig::flat("x/y", "0.5", "1");
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

/// A small book: an offer with tiers, regions, fees and a peak, and others with one trouble each.
const SMALL: &str = r#"{"format":"pricebook/1","schedules":[
  {"id":"peak","from":"2026-02-01T00:00:00Z","multiplier":"2","windows_utc":["01:00-04:00","06:00-10:00"],
   "days":"mon-fri except holidays","except":["2026-03-04"]}],
 "models":[
  {"id":"a/full","provider":"a","check":"agree","tools":{"web_search_per_1k":"10"},
   "multipliers":{"region_us":"1.1","fast":"3"},"rates":[
   {"from":"2026-01-01T00:00:00Z","to":"2026-03-01T00:00:00Z","lanes":{"standard":{"input":"1","output":"2"},
     "flex":{"input":"0.5","output":"1"}}},
   {"from":"2026-03-01T00:00:00Z","lanes":{"standard":{"input":"2","output":"4","cache_read":"0.2",
     "cache_write_5m":"2.5","cache_write_1h":"4"}},
    "tiers":[{"above_input_tokens":1000,"lanes":{"standard":{"input":"4","output":"6","cache_read":"0.4"}}}]}]},
  {"id":"a/peak","check":"agree","schedule":"peak","rates":[
   {"from":null,"lanes":{"standard":{"input":"1","output":"1"}}}]},
  {"id":"a/differ","check":"differ","conflict":{"input":{"used":"1","other":"3"},"output":{"used":"5","other":"4"}},
   "rates":[{"from":null,"lanes":{"standard":{"input":"1","output":"5"},"batch":{"input":"1","output":"1"}}}]},
  {"id":"a/zero","check":"agree","rates":[{"from":null,"lanes":{"standard":{"input":"0","output":"0"}}}]},
  {"id":"a/table","check":"one_source","tools":{"web_search_per_1k":{"low":"5","high":"12"},
   "web_search_free":{"count":10},"maps_grounding_per_1k":"25"},
   "rates":[{"from":null,"lanes":{"standard":{"input":"1","output":"1","cache_write_12h":"3","cache_write_30m":"2"}}}]}]}"#;

fn small() -> PriceBook {
    PriceBook::read(SMALL).expect("a sound book")
}

fn input(tokens: u64) -> Usage {
    Usage {
        input: tokens,
        ..Usage::default()
    }
}

#[test]
fn a_price_changes_at_midnight_for_calls_held_after_it() {
    let book = small();
    let cost = |held: &str, completed: &str| {
        let rates = book.rates("a/full", STANDARD, ms(held)).expect("priced");
        rates.rate(&input(1_000), ms(completed)).cost
    };
    // The hold decides, however long the call takes.
    let (before, after) = ("2026-02-28T23:59:59.999Z", "2026-03-01T00:00:00Z");
    assert_eq!(cost(before, after), NanoUsd(1_000_000));
    assert_eq!(cost(before, "2026-03-01T01:00:00Z"), NanoUsd(1_000_000));
    assert_eq!(cost(after, after), NanoUsd(2_000_000));
    // A lane may end with its period.
    assert!(book.rates("a/full", "flex", ms(before)).is_ok());
    let gone = book.rates("a/full", "flex", ms(after));
    assert_eq!(gone.map_err(|it| it.as_str()), Err("no_lane"));
}

#[test]
fn leap_days_are_days() {
    let json = SMALL.replace("2026-03-01T", "2028-02-29T");
    let book = PriceBook::read(&json).expect("a sound book");
    let cost = |at: &str| {
        book.rates("a/full", STANDARD, ms(at))
            .map(|it| it.cost(&input(1_000)))
    };
    assert_eq!(cost("2028-02-28T23:59:59Z"), Ok(NanoUsd(1_000_000)));
    assert_eq!(cost("2028-02-29T00:00:00Z"), Ok(NanoUsd(2_000_000)));
    let wrong = SMALL.replace("2026-03-01T", "2026-02-29T");
    assert!(matches!(
        PriceBook::read(&wrong),
        Err(ReadBookError::Time(..))
    ));
}

#[test]
fn the_hour_of_completion_decides_about_the_peak() {
    let book = small();
    let rates = book
        .rates("a/peak", STANDARD, ms("2026-01-01T00:00:00Z"))
        .expect("priced");
    let doubled = |at: &str| match rates.rate(&input(1_000), ms(at)).cost {
        NanoUsd(1_000_000) => false,
        NanoUsd(2_000_000) => true,
        other => panic!("{other}"),
    };
    for (at, expected) in [
        ("2026-03-02T00:59:59.999Z", false),
        ("2026-03-02T01:00:00Z", true),
        ("2026-03-02T03:59:59.999Z", true),
        ("2026-03-02T04:00:00Z", false),
        ("2026-03-06T09:59:59.999Z", true),
        ("2026-03-06T10:00:00Z", false),
        // Saturday and Sunday, a day that is left out, and the time before it all.
        ("2026-03-07T02:00:00Z", false),
        ("2026-03-08T02:00:00Z", false),
        ("2026-03-09T02:00:00Z", true),
        ("2026-03-04T02:00:00Z", false),
        ("2026-01-30T02:00:00Z", false),
        ("1969-12-29T02:00:00Z", false),
    ] {
        assert_eq!(doubled(at), expected, "{at}");
    }
    assert_eq!(
        rates.bound(1_000, 0),
        NanoUsd(2_000_000),
        "held for the peak"
    );
    assert_eq!(rates.affordable_answer(0, NanoUsd(2_000_000)), 1_000);
}

#[test]
fn regions_and_lanes_multiply_tokens_and_leave_fees() {
    let book = small();
    let at = ms("2026-04-01T00:00:00Z");
    let usage = Usage {
        web_searches: 3,
        ..input(1_000)
    };
    let cost = |lane: &str, region| {
        let rates = book.rates_in("a/full", lane, region, at).expect("priced");
        (rates.id.to_string(), rates.cost(&usage).0)
    };
    let id = |tail: &str| format!("a/full@2026-03-01T00:00:00Z{tail}");
    assert_eq!(cost(STANDARD, None), (id(""), 2_000_000 + 30_000_000));
    assert_eq!(
        cost(STANDARD, Some("us")),
        (id("+us"), 2_200_000 + 30_000_000)
    );
    assert_eq!(
        cost(STANDARD, Some("moon")),
        (id(""), 2_000_000 + 30_000_000)
    );
    assert_eq!(
        cost("fast", Some("us")),
        (id("/fast+us"), 6_600_000 + 30_000_000)
    );
    for tail in ["", "+us", "/fast", "/fast+us"] {
        assert_eq!(*book.by_id(&id(tail)).expect("known").id, *id(tail));
    }
}

#[test]
fn fees_of_a_table_are_rated_at_the_dearest_and_nothing_is_free() {
    let book = small();
    let rates = book.rates("a/table", STANDARD, 0).expect("priced");
    let usage = Usage {
        web_searches: 2,
        cache_write_5m: 1,
        cache_write_1h: 1,
        ..Usage::default()
    };
    // Of the listed lives, half an hour covers five minutes, and twelve hours cover one.
    assert_eq!(rates.cost(&usage), NanoUsd(24_000_000 + 2_000 + 3_000));
    assert_eq!(rates.bound_searches(2), NanoUsd(24_000_000));
    assert_eq!(rates.rate(&usage, 0).unpriced_searches, 0);
    let unlisted = book.rates("a/peak", STANDARD, 0).expect("priced");
    assert_eq!(unlisted.rate(&usage, 0).unpriced_searches, 2);
    let view = book.offer("a/table").expect("known");
    let search = view.search.expect("a fee");
    assert!(search.is_dearest_of_table);
    assert_eq!(search.unused_allowance.as_deref(), Some("{\"count\":10}"));
    assert_eq!(view.unrated, ["maps_grounding_per_1k"]);
}

#[test]
fn conflicts_are_settled_by_the_rule() {
    let at = 0;
    let cost = |rule, lane: &str| {
        let book = small().with_conflicts(rule);
        let usage = Usage {
            output: 1_000,
            ..input(1_000)
        };
        let rates = book.rates("a/differ", lane, at).map_err(|it| it.as_str())?;
        Ok(rates.cost(&usage).0)
    };
    assert_eq!(cost(OnConflict::Refuse, STANDARD), Err("conflict"));
    assert_eq!(cost(OnConflict::First, STANDARD), Ok(6_000_000));
    assert_eq!(cost(OnConflict::First, "batch"), Ok(2_000_000));
    assert_eq!(cost(OnConflict::Higher, STANDARD), Ok(8_000_000));
    assert_eq!(cost(OnConflict::Higher, "batch"), Err("conflict"));
}

#[test]
fn a_zero_is_a_gap_until_somebody_confirms_it() {
    let rates = |overrides: &[PriceConfig]| {
        let book = small().with_overrides(overrides).expect("good");
        book.rates("a/zero", STANDARD, 0)
            .map(|it| it.cost(&input(9)))
            .map_err(|it| it.as_str())
    };
    assert_eq!(rates(&[]), Err("zero"));
    let confirmed = PriceConfig {
        id: "a/zero".into(),
        confirm_zero: true,
        ..PriceConfig::default()
    };
    assert_eq!(rates(&[confirmed]), Ok(NanoUsd::ZERO));
    assert_eq!(
        rates(&[PriceConfig::flat("a/zero", "0", "0")]),
        Ok(NanoUsd::ZERO)
    );
}

#[test]
fn overrides_hold_for_their_time_and_lane() {
    let discount = PriceConfig {
        id: "a/full".into(),
        from: Some("2026-02-01T00:00:00Z".into()),
        until: Some("2026-04-01T00:00:00Z".into()),
        discount: Some("0.12".into()),
        why: Some("agreement 4711".into()),
        ..PriceConfig::default()
    };
    let flex = PriceConfig {
        from: Some("2026-02-15T00:00:00Z".into()),
        lane: Some("flex".into()),
        ..PriceConfig::flat("a/full", "0.1", "0.1")
    };
    let book = small().with_overrides(&[discount, flex]).expect("good");
    let at = |lane: &str, at: &str| {
        let rates = book.rates("a/full", lane, ms(at)).expect("priced");
        let rated = rates.rate(&input(1_000), 0);
        (rates.id.to_string(), rated.cost.0, rated.list.0)
    };
    let id = |tail: &str| format!("a/full@{tail}");
    assert_eq!(
        at(STANDARD, "2026-01-31T00:00:00Z"),
        (id("2026-01-01T00:00:00Z"), 1_000_000, 1_000_000)
    );
    assert_eq!(
        at(STANDARD, "2026-02-01T00:00:00Z"),
        (id("override:2026-02-01T00:00:00Z"), 880_000, 1_000_000)
    );
    assert_eq!(
        at(STANDARD, "2026-03-01T00:00:00Z"),
        (id("override:2026-03-01T00:00:00Z"), 1_760_000, 2_000_000)
    );
    assert_eq!(
        at(STANDARD, "2026-04-01T00:00:00Z"),
        (id("2026-03-01T00:00:00Z"), 2_000_000, 2_000_000)
    );
    assert_eq!(
        at("flex", "2026-02-14T00:00:00Z"),
        (id("override:2026-02-01T00:00:00Z/flex"), 440_000, 500_000)
    );
    assert_eq!(
        at("flex", "2026-05-01T00:00:00Z"),
        (id("override:2026-02-15T00:00:00Z/flex"), 100_000, 100_000)
    );
    // Rows from before the discount find their prices, too.
    assert_eq!(
        book.by_id(&id("2026-03-01T00:00:00Z"))
            .expect("kept")
            .cost(&input(1_000))
            .0,
        2_000_000
    );
}

#[test]
fn overrides_that_say_nothing_sound_are_refused() {
    let discount = PriceConfig {
        id: "a/full".into(),
        discount: Some("0.12".into()),
        ..PriceConfig::default()
    };
    let unknown = PriceConfig {
        id: "a/none".into(),
        ..discount.clone()
    };
    let backwards = PriceConfig {
        from: Some("2026-02-01T00:00:00Z".into()),
        until: Some("2026-01-01T00:00:00Z".into()),
        ..discount.clone()
    };
    let beyond = PriceConfig {
        discount: Some("1.5".into()),
        ..discount
    };
    let silent = PriceConfig {
        id: "a/full".into(),
        ..PriceConfig::default()
    };
    for wrong in [unknown, backwards, beyond, silent] {
        assert!(small().with_overrides(&[wrong]).is_err());
    }
}

#[test]
fn flat_costs_are_shared_out_to_the_last_nano() {
    let own = PriceConfig {
        fixed_per_hour: Some("2.10".into()),
        from: Some("2026-11-01T00:00:00Z".into()),
        ..PriceConfig::flat("own/gpu", "0", "0")
    };
    let book = PriceBook::default().with_overrides(&[own]).expect("good");
    let [fixed] = book.fixed_costs() else {
        panic!("one cost")
    };
    let (from, until) = (ms("2026-10-01T00:00:00Z"), ms("2026-12-01T00:00:00Z"));
    let total = NanoUsd(2_100_000_000 * 24 * 30);
    assert_eq!(fixed.over(from, until), total);
    let shares = fixed.shared(from, until, &[1, 1, 1, 0]);
    assert_eq!(shares.iter().copied().sum::<NanoUsd>(), total);
    assert_eq!(shares[3], NanoUsd::ZERO);
    assert_eq!(fixed.over(ms("2026-01-01T00:00:00Z"), from), NanoUsd::ZERO);
}

#[test]
fn the_version_is_of_contents_not_of_their_layout() {
    let value: serde_json::Value = serde_json::from_str(SMALL).expect("json");
    let pretty = serde_json::to_string_pretty(&value).expect("json");
    let version = small().version().to_owned();
    assert_eq!(version.len(), 64);
    assert_eq!(PriceBook::read(&pretty).expect("same").version(), version);
    let dearer = SMALL.replace("\"12\"", "\"13\"");
    assert_ne!(PriceBook::read(&dearer).expect("other").version(), version);
    let own = [PriceConfig::flat("x", "1", "1")];
    assert_ne!(
        small().with_overrides(&own).expect("good").version(),
        version
    );
    assert_ne!(
        small().with_conflicts(OnConflict::Higher).version(),
        version
    );
}

#[test]
fn the_cache_may_cost_more_than_it_saves() {
    let book = small();
    let rates = book
        .rates("a/full", STANDARD, ms("2026-04-01T00:00:00Z"))
        .expect("priced");
    let rated = rates.rate(
        &Usage {
            cache_read: 100,
            cache_write_5m: 40,
            cache_write_1h: 10,
            ..input(1)
        },
        0,
    );
    // 100 x 1.8 less 40 x 0.5 less 10 x 2, in micro-USD for a million.
    assert_eq!(rated.cache_saved, NanoUsd(180_000 - 20_000 - 20_000));
    let written = rates.rate(
        &Usage {
            cache_write_1h: 10,
            ..input(1)
        },
        0,
    );
    assert_eq!(written.cache_saved, NanoUsd(-20_000));
    assert_eq!(written.context_tier, 0);
    let long = rates.rate(&input(1_001), 0);
    assert_eq!((long.cost.0, long.context_tier), (4_004_000, 1_000));
}

#[test]
fn the_committed_book_survives_reading_and_writing() {
    let text = include_str!("../../../config/prices.json");
    let document = Document::read(text).expect("the committed book");
    let again = Document::read(&document.canonical()).expect("its own copy");
    assert_eq!(document, again);
    let value: serde_json::Value = serde_json::from_str(text).expect("json");
    assert_eq!(
        document::canonical(&value),
        document.canonical(),
        "nothing is lost or added"
    );
}

/// Any price of the committed book, in any lane, region and hour.
fn any_rates(offer: usize, region: usize) -> Option<Arc<Rates>> {
    let mut ids: Vec<Arc<str>> = BOOK.by_id.keys().map(Arc::clone).collect();
    ids.sort();
    let id = ids.get((offer * 31 + region) % ids.len())?;
    BOOK.by_id(id)
}

static BOOK: std::sync::LazyLock<PriceBook> = std::sync::LazyLock::new(|| {
    let discounts = [
        "openai/gpt-5.6-sol",
        "deepseek/deepseek-v4-pro",
        "alibaba/qwen3-max",
    ];
    let own = discounts.map(|id| PriceConfig {
        id: id.to_owned(),
        discount: Some("0.123457".into()),
        ..PriceConfig::default()
    });
    book().with_overrides(&own).expect("known offers")
});

fn usage_of(parts: [u64; 8], web_searches: u64) -> Usage {
    let [
        input,
        cache_read,
        cache_write_5m,
        cache_write_1h,
        output,
        reasoning,
        audio_input,
        audio_output,
    ] = parts;
    Usage {
        input,
        cache_read,
        cache_write_5m,
        cache_write_1h,
        output,
        reasoning,
        audio_input,
        audio_output,
        web_searches,
    }
}

proptest! {
    #[test]
    fn no_usage_costs_more_than_its_bound(
        parts in prop::array::uniform8(0_u64..400_000),
        searches in 0_u64..20,
        (offer, region) in (0_usize..2_000, 0_usize..31),
        minute in 0_i64..20_160,
    ) {
        let rates = any_rates(offer, region).expect("a price");
        let usage = usage_of(parts, searches);
        let rated = rates.rate(&usage, ms("2026-11-16T00:00:00Z") + minute * 60_000);
        let bound = rates.bound(usage.prompt(), usage.answer()) + rates.bound_searches(searches);
        prop_assert!(rated.cost <= bound, "{}: {} > {}", rates.id, rated.cost, bound);
        prop_assert!(rates.cost(&usage) <= bound);
        prop_assert!(rated.cost <= rated.list);
        let room = NanoUsd(50_000_000_000);
        let fits = rates.affordable_answer(parts[0], room);
        if rates.bound(parts[0], 0) <= room && fits < u64::MAX {
            prop_assert!(rates.bound(parts[0], fits) <= room);
            prop_assert!(rates.bound(parts[0], fits + 1_000_000) > room);
        }
    }

    #[test]
    fn lines_add_up_to_the_cost(
        parts in prop::array::uniform8(0_u64..400_000),
        searches in 0_u64..20,
        (offer, region) in (0_usize..2_000, 0_usize..31),
        minute in 0_i64..20_160,
    ) {
        let rates = any_rates(offer, region).expect("a price");
        let usage = usage_of(parts, searches);
        let at = ms("2026-11-16T00:00:00Z") + minute * 60_000;
        let (rated, lines) = (rates.rate(&usage, at), rates.lines(&usage, at));
        let sum = |of: fn(&Line) -> PicoSum| lines.iter().fold(PicoSum::default(), |sum, line| sum.plus(of(line)));
        prop_assert_eq!(sum(|line| line.amount).round(), rated.cost);
        prop_assert_eq!(sum(|line| line.list).round(), rated.list);
        let units: u64 = lines.iter().map(|line| line.units).sum();
        prop_assert_eq!(units, usage.prompt() + usage.answer() + searches);
    }

    #[test]
    fn the_parts_of_a_usage_sum_to_the_whole_before_rounding(
        parts in prop::array::uniform8(0_u64..100_000),
        cut in prop::array::uniform8(0_u64..=100),
        offer in 0_usize..2_000,
    ) {
        let rates = any_rates(offer, 0).expect("a price");
        let mut flat = Rates::clone(&rates);
        flat.tiers.clear();
        let first: Vec<u64> = parts.iter().zip(cut).map(|(part, cut)| (part * cut).div_euclid(100)).collect();
        let first: [u64; 8] = first.try_into().expect("eight");
        let second: Vec<u64> = parts.iter().zip(first).map(|(part, first)| part - first).collect();
        let exact = |parts: [u64; 8]| flat.lines(&usage_of(parts, 0), 0).iter()
            .fold(PicoSum::default(), |sum, line| sum.plus(line.amount));
        let (whole, split) = (exact(parts), exact(first).plus(exact(second.try_into().expect("eight"))));
        prop_assert_eq!(whole.minus(split).round(), NanoUsd::ZERO);
        prop_assert_eq!(whole.minus(split).ceil(), NanoUsd::ZERO);
        // Rounded, it is off by half a nano-USD at most.
        let off = PicoSum::of(whole.round()).minus(whole).parts(2, 1);
        prop_assert!(off.ceil() <= NanoUsd(1) && off.ceil() >= NanoUsd(-1));
    }
}
