//! Bills of each format, as vendors write them.

use super::*;

/// Model, tokens, requests and cost of a day.
type Shown = (String, Option<[i64; 3]>, i64, Option<i64>);

fn days(format: Format, text: &str) -> Vec<Shown> {
    let model = |name: &str| name.trim_end_matches("-2025-08-07").to_owned();
    let bill = read(format, text, &["openai".to_owned()], &model).unwrap();
    assert!(
        bill.days
            .iter()
            .all(|day| day.endpoint == "openai" && day.day_ms % DAY_MS == 0)
    );
    let shown = bill.days.into_iter();
    shown
        .map(|day| {
            (
                day.model,
                day.tokens,
                day.requests,
                day.cost.map(|cost| cost.0),
            )
        })
        .collect()
}

#[test]
fn numbers_that_no_account_can_hold_are_refused() {
    let openai = |start: &str| {
        format!("{{\"data\":[{{\"start_time\":{start},\"results\":[{{\"input_tokens\":1}}]}}]}}")
    };
    for start in [
        "9223372036854775807",
        "-9223372036854775808",
        "9223372036854775",
    ] {
        let read = read(
            Format::OpenaiUsage,
            &openai(start),
            &["there".to_owned()],
            &str::to_owned,
        );
        assert!(read.is_err(), "{start}");
    }
    for (amount, value) in [
        ("1e2147483647", None),
        ("1e-2147483648", Some(0)),
        ("0.5e-2147483648", Some(0)),
    ] {
        assert_eq!(decimal(amount, 12), value, "{amount}");
    }
}

#[test]
fn pages_of_vendors_are_read_as_they_write_them() {
    assert_eq!(
        days(
            Format::OpenaiUsage,
            include_str!("../../../../tests/bills/openai_usage.json")
        ),
        [("gpt-5-mini".into(), Some([1_500, 900, 700]), 8, None)]
    );
    assert_eq!(
        days(
            Format::OpenaiCosts,
            include_str!("../../../../tests/bills/openai_costs.json")
        ),
        [("gpt-5-mini".into(), None, 0, Some(1_497_500))]
    );
    assert_eq!(
        days(
            Format::AnthropicUsage,
            include_str!("../../../../tests/bills/anthropic_usage.json")
        ),
        [("claude-haiku-4-5".into(), Some([3_200, 200, 500]), 0, None)]
    );
    assert_eq!(
        days(
            Format::AnthropicCost,
            include_str!("../../../../tests/bills/anthropic_cost.json")
        ),
        [("claude-haiku-4-5".into(), None, 0, Some(1_237_891_234))]
    );
}

#[test]
fn amounts_are_decimals_of_any_shape() {
    let of = |text: &str| decimal(text, 12);
    assert_eq!(of("0.06"), Some(60_000_000_000));
    assert_eq!(of("6e-2"), Some(60_000_000_000));
    assert_eq!(of("-1.5"), Some(-1_500_000_000_000));
    assert_eq!(of("0.0000000000015"), Some(2), "halves to even");
    assert_eq!(of("1e-40"), Some(0));
    assert_eq!([of(""), of("1,5"), of("abc"), of("1e99")], [None; 4]);
}

#[test]
fn lines_by_request_and_by_day() {
    let text = "request,attempt,model,prompt_tokens,cached_tokens,output_tokens,cost_pico\n\
                req_019ab1c2d3e47f5a8b6c7d8e9f0a1b2c,1,\"m, \"\"x\"\"\",10,2,5,123456\n";
    let bill = read(Format::Csv, text, &["e".to_owned()], &|name| {
        name.to_owned()
    })
    .unwrap();
    assert_eq!((bill.rows[0].attempt, bill.rows[0].cost), (1, NanoUsd(123)));
    assert_eq!(bill.rows[0].model, "m, \"x\"");
    assert_eq!(bill.days[0].tokens, Some([10, 2, 5]));
    let text = "day,model,requests,cost_usd\n2026-11-21,m,3,0.000000125\n2026-11-21,m,1,1\n";
    assert_eq!(
        days(Format::Csv, text),
        [("m".into(), None, 4, Some(1_000_000_125))]
    );
    let wrong = read(Format::Csv, "a,b\n1,2\n", &["e".to_owned()], &|name| {
        name.to_owned()
    });
    assert!(
        wrong
            .unwrap_err()
            .to_string()
            .contains("neither `request` nor `day`")
    );
}
