//! Proves the selling rules: exact by the charge and by the month, with one rounding that is shown.

use proptest::prelude::*;

use super::*;
use crate::config::SellTier;

fn config(rule: SellRule) -> SellConfig {
    SellConfig {
        plan: "team".into(),
        tenants: Vec::new(),
        rule,
        pct: None,
        prices: std::collections::BTreeMap::new(),
        tiers: Vec::new(),
        measure: SellMeasure::Tokens,
        package_size: None,
        package_price: None,
        monthly_fee: None,
        included_credits: None,
        credit_value: None,
        overage: Overage::Bill,
    }
}

fn tier(up_to: &str, unit_price: &str, flat_fee: &str) -> SellTier {
    let maybe = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    SellTier {
        up_to: maybe(up_to),
        unit_price: unit_price.into(),
        flat_fee: maybe(flat_fee),
    }
}

fn tokens(input: u64) -> MonthUse {
    MonthUse {
        usage: Usage {
            input,
            ..Usage::default()
        },
        ..MonthUse::default()
    }
}

fn shown(book: &SellBook, used: &MonthUse) -> Vec<(SellLineKind, u64, i64)> {
    let lines = book.month("acme", used);
    lines
        .iter()
        .map(|line| (line.kind, line.quantity, line.amount.0))
        .collect()
}

#[test]
fn charges_are_sold_by_markup_or_by_class() {
    let markup = SellConfig {
        pct: Some("20".into()),
        tenants: vec!["acme".into()],
        ..config(SellRule::Markup)
    };
    let fixed = SellConfig {
        prices: [("input", "3"), ("output", "10"), ("web_search", "12")]
            .map(|(class, price)| (class.to_owned(), price.to_owned()))
            .into(),
        ..config(SellRule::Fixed)
    };
    let book = SellBook::read(&[markup, fixed]).expect("sound plans");
    let usage = Usage {
        input: 10,
        output: 2,
        web_searches: 1,
        ..Usage::default()
    };
    let unit = |tenant, cost| book.unit(tenant, &usage, NanoUsd(cost)).0;
    assert_eq!(unit("acme", 1_000), 1_200);
    // 2.4 and 3.6, rounded.
    assert_eq!((unit("acme", 2), unit("acme", 3)), (2, 4));
    assert_eq!(unit("somebody", 1_000), 30_000 + 20_000 + 12_000_000);
    assert_eq!(
        SellBook::default().unit("acme", &usage, NanoUsd(7)),
        NanoUsd(7)
    );
}

#[test]
fn a_month_has_fee_use_credits_and_overage() {
    let plan = |overage| {
        SellBook::read(&[SellConfig {
            pct: Some("20".into()),
            monthly_fee: Some("10".into()),
            included_credits: Some("5000".into()),
            credit_value: Some("0.01".into()),
            overage,
            ..config(SellRule::Markup)
        }])
        .expect("a sound plan")
    };
    let used = |sold| MonthUse {
        calls: 3,
        sold: NanoUsd(sold),
        ..MonthUse::default()
    };
    let (fee, usd) = ((SellLineKind::MonthlyFee, 1, 10_000_000_000), 1_000_000_000);
    let bill = plan(Overage::Bill);
    assert_eq!(
        shown(&bill, &used(20 * usd)),
        [
            fee,
            (SellLineKind::Usage, 3, 20 * usd),
            (SellLineKind::CreditsUsed, 2_000, -20 * usd)
        ]
    );
    assert_eq!(
        shown(&bill, &used(70 * usd)),
        [
            fee,
            (SellLineKind::Usage, 3, 70 * usd),
            (SellLineKind::CreditsUsed, 5_000, -50 * usd)
        ]
    );
    assert_eq!(
        shown(&plan(Overage::Block), &used(70 * usd)),
        [
            fee,
            (SellLineKind::Usage, 3, 70 * usd),
            (SellLineKind::CreditsUsed, 5_000, -50 * usd),
            (SellLineKind::Waived, 1, -20 * usd)
        ]
    );
    let left = bill.plan("acme").expect("on it").left(NanoUsd(20 * usd));
    assert_eq!(left, NanoUsd(30 * usd));
}

#[test]
fn steps_are_paid_apart_or_altogether() {
    let steps = vec![
        tier("1000", "2", ""),
        tier("5000", "1", "0.5"),
        tier("", "0.5", ""),
    ];
    let of = |rule| {
        SellBook::read(&[SellConfig {
            tiers: steps.clone(),
            ..config(rule)
        }])
        .expect("a sound plan")
    };
    let (graduated, volume) = (of(SellRule::Graduated), of(SellRule::Volume));
    assert_eq!(
        shown(&graduated, &tokens(1_000)),
        [(SellLineKind::Usage, 1_000, 2_000_000)]
    );
    assert_eq!(
        shown(&graduated, &tokens(6_000)),
        [
            (SellLineKind::Usage, 1_000, 2_000_000),
            (SellLineKind::Usage, 4_000, 4_000_000),
            (SellLineKind::StepFee, 1, 500_000_000),
            (SellLineKind::Usage, 1_000, 500_000)
        ]
    );
    assert_eq!(
        shown(&volume, &tokens(1_001)),
        [
            (SellLineKind::Usage, 1_001, 1_001_000),
            (SellLineKind::StepFee, 1, 500_000_000)
        ]
    );
    assert_eq!(
        shown(&volume, &tokens(6_000)),
        [(SellLineKind::Usage, 6_000, 3_000_000)]
    );
    assert_eq!(shown(&volume, &tokens(0)), []);
    let on_cost = SellBook::read(&[SellConfig {
        measure: SellMeasure::Cost,
        tiers: vec![tier("100", "30", ""), tier("", "10", "")],
        ..config(SellRule::Graduated)
    }])
    .expect("a sound plan");
    let used = MonthUse {
        cost: NanoUsd(150_000_000_000),
        ..MonthUse::default()
    };
    let amounts: Vec<i64> = shown(&on_cost, &used).iter().map(|line| line.2).collect();
    assert_eq!(amounts, [130_000_000_000, 55_000_000_000]);
}

#[test]
fn a_package_that_was_begun_is_paid() {
    let book = SellBook::read(&[SellConfig {
        package_size: Some(1_000),
        package_price: Some("0.25".into()),
        ..config(SellRule::Package)
    }])
    .expect("a sound plan");
    let packages = |used| {
        shown(&book, &tokens(used))
            .first()
            .map(|line| (line.1, line.2))
    };
    assert_eq!(packages(1), Some((1, 250_000_000)));
    assert_eq!(packages(1_000), Some((1, 250_000_000)));
    assert_eq!(packages(1_001), Some((2, 500_000_000)));
    assert_eq!(packages(0), Some((0, 0)));
}

#[test]
fn plans_that_say_too_little_are_refused() {
    let on = |tenant: &str| SellConfig {
        tenants: vec![tenant.into()],
        pct: Some("1".into()),
        ..config(SellRule::Markup)
    };
    let falling = SellConfig {
        tiers: vec![tier("10", "1", ""), tier("5", "1", ""), tier("", "1", "")],
        ..config(SellRule::Volume)
    };
    for wrong in [
        vec![config(SellRule::Markup)],
        vec![config(SellRule::Fixed)],
        vec![config(SellRule::Graduated)],
        vec![config(SellRule::Package)],
        vec![falling],
        vec![on("a"), on("a")],
        vec![
            SellConfig {
                tenants: vec![],
                ..on("a")
            },
            SellConfig {
                tenants: vec![],
                ..on("b")
            },
        ],
    ] {
        assert!(SellBook::read(&wrong).is_err(), "{wrong:?}");
    }
}

proptest! {
    #[test]
    fn graduated_equals_counting_unit_by_unit(
        first in 1_u64..400, second in 1_u64..400, units in 0_u64..1_500,
        prices in prop::array::uniform3(0_u32..5_000_000),
    ) {
        let text = |price: u32| format!("{}.{:06}", price.div_euclid(1_000_000), price % 1_000_000);
        let (a, b) = (first, first + second);
        let steps = vec![
            tier(&a.to_string(), &text(prices[0]), ""), tier(&b.to_string(), &text(prices[1]), ""),
            tier("", &text(prices[2]), ""),
        ];
        let book = SellBook::read(&[SellConfig { tiers: steps, ..config(SellRule::Graduated) }]).expect("sound");
        let pico: i128 = (1..=units)
            .map(|unit| i128::from(if unit <= a { prices[0] } else if unit <= b { prices[1] } else { prices[2] }))
            .sum();
        let lines = book.month("acme", &tokens(units));
        let total: NanoUsd = lines.iter().map(|line| line.amount).sum();
        // Within half a nano-USD of the exact sum.
        prop_assert!((i128::from(total.0) * 1_000 - pico).abs() <= 500);
        let rounding = lines.iter().filter(|line| line.kind == SellLineKind::Rounding);
        prop_assert!(rounding.clone().count() <= 1);
        for line in rounding {
            prop_assert!(line.amount.0.abs() <= 2);
        }
    }
}
