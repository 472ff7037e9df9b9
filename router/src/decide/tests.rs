//! Where calls go: orders, rules, filters, the control group, conversations that stay.

use std::sync::LazyLock;

use wire::Shape;

use super::*;
use crate::policy::Model;
use crate::rules::{Caller, Rule, Rules};

fn policy(models: &[(&str, Tier, &'static str)]) -> Policy {
    let models = models.iter().map(|(name, tier, dialect)| Model {
        converses: *dialect != "alone",
        ..Model::new(name, *tier, dialect)
    });
    Policy::new(models.collect(), Rules::default()).expect("a policy")
}

static HEAD: LazyLock<Head> = LazyLock::new(Head::default);

fn asked<'a>(model: &'a str, ruling: &'a Ruling) -> Asked<'a> {
    Asked {
        wanted: Wanted::parse(model),
        dialect: "a",
        converses: true,
        stay: None,
        seat: None,
        step: Step::Chat,
        score: None,
        seen: None,
        head: &HEAD,
        ruling,
        prompt_tokens: 100,
        luck: 999,
        band: None,
        debt: 0,
    }
}

/// What is known of models in a test: which are sick, what they cost, what a change loses.
#[derive(Default)]
struct Known {
    sick: Vec<usize>,
    costs: Vec<i64>,
    stakes: Stakes,
    first_byte_ms: Option<u32>,
}

impl Known {
    fn decide(
        &self,
        asked: &Asked<'_>,
        policy: &Policy,
        config: &Config,
        split: &mut Split,
    ) -> Result<Route, NoModel> {
        let features = Features {
            text: "Hello",
            shape: &Shape::default(),
        };
        let quote = |place: usize| Quote {
            cost_nano_usd: self.costs.get(place).copied(),
            first_byte_ms: self.first_byte_ms,
        };
        let outlook = Outlook {
            usable: &|place| !self.sick.contains(&place),
            quote: &quote,
            stakes: &|_, _| self.stakes,
        };
        decide(&features, asked, policy, config, &outlook, split)
    }
}

fn route(policy: &Policy, model: &str, sick: &[usize]) -> Result<Route, NoModel> {
    let known = Known {
        sick: sick.to_vec(),
        ..Known::default()
    };
    let ruling = Ruling::default();
    let asked = asked(model, &ruling);
    known.decide(&asked, policy, &Config::default(), &mut Split::new(200))
}

#[test]
fn it_is_the_same_whoever_looks_at_the_text() {
    let both = policy(&[("f1", Tier::Fast, "a"), ("d1", Tier::Deep, "a")]);
    let ruling = Ruling::default();
    let (known, config) = (Known::default(), Config::default());
    let shape = Shape::default();
    let of = |text| {
        let features = Features {
            text,
            shape: &shape,
        };
        Some(layers(&features))
    };
    let decided = |seen| {
        let asked = Asked {
            seen,
            ..asked("auto", &ruling)
        };
        known.decide(&asked, &both, &config, &mut Split::new(200))
    };
    assert_eq!(decided(of("Hello")), decided(None));
    let other = decided(of("Prove that there are infinitely many primes.")).map(|it| it.score);
    assert_ne!(other, decided(None).map(|it| it.score), "it is looked at");
    for (model, policy, reads) in [
        ("auto", &both, true),
        ("fast", &both, false),
        ("f1", &both, false),
        ("auto", &policy(&[("f1", Tier::Fast, "a")]), false),
    ] {
        assert_eq!(asked(model, &ruling).reads_text(policy), reads, "{model}");
    }
}

#[test]
fn the_order_is_the_tier_then_the_other_then_the_sick() {
    let policy = policy(&[
        ("f1", Tier::Fast, "a"),
        ("d1", Tier::Deep, "a"),
        ("f2", Tier::Fast, "a"),
        ("other", Tier::Fast, "b"),
        ("vectors", Tier::Fast, "alone"),
        ("f2", Tier::Fast, "b"),
    ]);
    let places = |model: &str, sick: &[usize]| {
        let route = route(&policy, model, sick).expect("a route");
        (route.order.iter().collect::<Vec<_>>(), route.reason)
    };
    assert_eq!(places("fast", &[]), (vec![0, 2, 3, 1], Reason::Pinned));
    assert_eq!(places("fast", &[0]), (vec![2, 3, 1, 0], Reason::Pinned));
    assert_eq!(places("deep", &[1]), (vec![0, 2, 3, 1], Reason::Pinned));
    assert_eq!(places("d1", &[]), (vec![1], Reason::Named));
    assert_eq!(places("f2", &[]), (vec![2, 5], Reason::Named));
    assert_eq!(places("fast", &[2]), (vec![0, 3, 5, 1], Reason::Pinned));
    assert!(matches!(
        route(&policy, "vectors", &[]),
        Err(NoModel::OtherDialect { .. })
    ));
    let unknown = route(&policy, "gpt", &[]).expect_err("no such model");
    assert!(unknown.to_string().contains("f1, d1, f2"), "{unknown}");
}

#[test]
fn a_tool_loop_stays_with_its_model_while_the_count_allows() {
    let policy = policy(&[("f", Tier::Fast, "a"), ("d", Tier::Deep, "b")]);
    let ruling = Ruling::default();
    let asked = Asked {
        stay: Some(1),
        ..asked("auto", &ruling)
    };
    let (mut split, known) = (Split::new(200), Known::default());
    let mut stays = || {
        let route = known.decide(&asked, &policy, &Config::default(), &mut split);
        route.expect("a route").reason == Reason::Session
    };
    assert!((0..6).all(|_| stays()));
    assert!(!stays(), "five calls beyond the target of one in five");
}

#[test]
fn one_tier_alone_takes_everything_and_is_not_counted() {
    let policy = policy(&[("d", Tier::Deep, "a")]);
    let route = route(&policy, "auto", &[]).expect("a route");
    assert_eq!(
        (route.tier, route.reason, route.is_counted()),
        (Tier::Deep, Reason::OnlyTier, false)
    );
}

#[test]
fn rules_decide_before_the_score() {
    let rule = Rule {
        name: "eu".to_owned(),
        regions: vec!["eu".to_owned()],
        ..Rule::default()
    };
    let fast = Rule {
        name: "fast".to_owned(),
        asked: vec!["auto".to_owned()],
        tier: Some(Tier::Fast),
        ..Rule::default()
    };
    let model = |name: &str, tier, region: &str| Model {
        region: Some(region.into()),
        ..Model::new(name, tier, "a")
    };
    let models = vec![
        model("us", Tier::Fast, "us"),
        model("eu", Tier::Fast, "eu"),
        model("deep", Tier::Deep, "eu"),
    ];
    let policy = Policy::new(models, Rules::new(vec![rule, fast], Vec::new())).expect("a policy");
    let caller = |asked| Caller {
        tenant: "t",
        team: "",
        project: "",
        user: "",
        workflow: "",
        label: "",
        regions: &[],
        step: Step::Chat,
        asked,
        header: &|_| None,
    };
    let decided = |model| {
        let ruling = policy.rules().judge(&caller(model)).expect("a ruling");
        let asked = asked(model, &ruling);
        let (config, mut split) = (Config::default(), Split::new(200));
        Known::default().decide(&asked, &policy, &config, &mut split)
    };
    let auto = decided("auto").expect("a route");
    assert_eq!((auto.reason, auto.tier), (Reason::Rule, Tier::Fast));
    assert_eq!(auto.order.iter().collect::<Vec<_>>(), [1, 2]);
    let named = decided("us").expect_err("not in the region");
    assert!(named.to_string().contains("us (region)"), "{named}");
}

/// What a rule says of latency is waived for a model that is named; what stands behind it is not.
#[test]
fn a_slow_model_that_is_named_is_still_kept_from_what_it_may_not_see() {
    let quick = Rule {
        name: "quick".to_owned(),
        max_first_byte_ms: Some(100),
        ..Rule::default()
    };
    let eu = Rule {
        name: "eu".to_owned(),
        regions: vec!["eu".to_owned()],
        ..Rule::default()
    };
    let policy = Policy::new(
        vec![Model::new("us", Tier::Fast, "a")],
        Rules::new(vec![quick, eu], Vec::new()),
    )
    .expect("a policy");
    let of = |applied: &[usize]| {
        let ruling = Ruling {
            applied: applied.to_vec(),
            ..Ruling::default()
        };
        let known = Known {
            first_byte_ms: Some(900),
            ..Known::default()
        };
        let (config, mut split) = (Config::default(), Split::new(200));
        known.decide(&asked("us", &ruling), &policy, &config, &mut split)
    };
    assert!(of(&[0]).is_ok(), "slow, but asked for by name");
    let barred = of(&[0, 1]).expect_err("not in the region");
    assert!(barred.to_string().contains("us (region)"), "{barred}");
}

#[test]
fn capability_and_window_bar_only_where_others_can() {
    let lacks = [crate::policy::Need::Tools].into_iter().collect();
    let models = vec![
        Model {
            lacks,
            ..Model::new("blunt", Tier::Fast, "a")
        },
        Model {
            context: Some(50),
            ..Model::new("short", Tier::Fast, "a")
        },
        Model::new("deep", Tier::Deep, "a"),
    ];
    let of = |models: &[Model]| Policy::new(models.to_vec(), Rules::default()).expect("a policy");
    let (config, ruling) = (Config::default(), Ruling::default());
    let (asked, known) = (asked("fast", &ruling), Known::default());
    let shape = Shape {
        tools: 1,
        ..Shape::default()
    };
    let features = Features {
        text: "Hello",
        shape: &shape,
    };
    let outlook = Outlook {
        usable: &|_| true,
        quote: &|_| Quote::default(),
        stakes: &|_, _| Stakes::default(),
    };
    let all = of(&models);
    let kept = barred(&features, &asked, &all, &config, &outlook);
    assert_eq!(kept, [(0, Barred::Capability), (1, Barred::Window)]);
    let alone = of(&models[1..2]);
    let route = known.decide(&asked, &alone, &config, &mut Split::new(200));
    assert_eq!(
        route.expect("a route").reason,
        Reason::OnlyTier,
        "it is shortened"
    );
}

#[test]
fn a_conversation_stays_where_its_cache_is_worth_more() {
    let policy = policy(&[("f", Tier::Fast, "a"), ("d", Tier::Deep, "a")]);
    let (config, ruling) = (Config::default(), Ruling::default());
    let at = |lost| Known {
        stakes: Stakes {
            lost_nano_usd: lost,
            premium_nano_usd: 1_000_000,
        },
        ..Known::default()
    };
    let seated = |known: &Known, score| {
        let asked = Asked {
            seat: Some(0),
            score: Some(Score(score)),
            ..asked("auto", &ruling)
        };
        let route = known.decide(&asked, &policy, &config, &mut Split::new(200));
        let route = route.expect("a route");
        (route.tier, route.reason, route.lost_nano_usd)
    };
    let dear = 100_000_000;
    assert_eq!(seated(&at(dear), 1.0), (Tier::Fast, Reason::Cache, 0));
    assert_eq!(seated(&at(10), 1.0), (Tier::Deep, Reason::Score, 10));
    assert_eq!(seated(&at(dear), 0.0), (Tier::Fast, Reason::Score, 0));
}

#[test]
fn one_in_a_hundred_is_drawn_and_its_odds_are_written_down() {
    let policy = policy(&[("f", Tier::Fast, "a"), ("d", Tier::Deep, "a")]);
    let (config, ruling) = (Config::default(), Ruling::default());
    let (mut split, known) = (Split::new(200), Known::default());
    let (mut drawn, mut deep) = (0, 0);
    for n in 0..100_000_u64 {
        let asked = Asked {
            score: Some(Score(0.0)),
            luck: n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11,
            band: None,
            debt: 0,
            ..asked("auto", &ruling)
        };
        let route = known.decide(&asked, &policy, &config, &mut split);
        let route = route.expect("a route");
        assert!(route.propensity > 0.0 && route.propensity <= 1.0);
        if route.reason == Reason::Control {
            drawn += 1;
            deep += u32::from(route.tier == Tier::Deep);
        }
    }
    assert!((900..1_100).contains(&drawn), "{drawn} of 100,000");
    assert!((150..260).contains(&deep), "{deep} of them deep");
}

/// What is written down of a drawn call is how likely its tier was for a call like it: one that would be
/// tried fast first, or stay with its model, goes deep by lot alone, whatever its score.
#[test]
fn the_odds_of_a_drawn_call_are_those_of_its_whole_decision() {
    let policy = policy(&[("f", Tier::Fast, "a"), ("d", Tier::Deep, "a")]);
    let (config, ruling) = (Config::default(), Ruling::default());
    let known = Known {
        stakes: Stakes {
            lost_nano_usd: 100_000_000,
            premium_nano_usd: 1_000,
        },
        ..Known::default()
    };
    let odds = |luck, seat, band| {
        let asked = Asked {
            score: Some(Score(1.0)),
            luck,
            seat,
            band,
            ..asked("auto", &ruling)
        };
        let route = known.decide(&asked, &policy, &config, &mut Split::new(200));
        let route = route.expect("a route");
        assert_eq!(route.reason, Reason::Control);
        (route.tier, (route.propensity * 1_000.0).round())
    };
    // Both numbers drawn are below their shares, and then the second is not.
    let (to_deep, to_fast) = (0, 500_000);
    let all = Some(Band { margin: 1.0 });
    assert_eq!(odds(to_deep, None, None), (Tier::Deep, 992.0));
    assert_eq!(odds(to_fast, None, None), (Tier::Fast, 8.0));
    for (seat, band) in [(Some(0), None), (None, all)] {
        assert_eq!(odds(to_deep, seat, band), (Tier::Deep, 2.0), "{seat:?}");
        assert_eq!(odds(to_fast, seat, band), (Tier::Fast, 998.0), "{seat:?}");
    }
}

#[test]
fn the_terms_order_a_tier() {
    let policy = policy(&[
        ("dear", Tier::Fast, "a"),
        ("cheap", Tier::Fast, "a"),
        ("deep", Tier::Deep, "a"),
    ]);
    let mut config = Config::default();
    config.terms.price = 1.0;
    let ruling = Ruling::default();
    let known = Known {
        costs: vec![900, 100, 5_000],
        ..Known::default()
    };
    let route = known.decide(
        &asked("fast", &ruling),
        &policy,
        &config,
        &mut Split::new(200),
    );
    let order: Vec<_> = route.expect("a route").order.iter().collect();
    assert_eq!(order, [1, 0, 2]);
}

#[test]
fn a_call_near_the_threshold_is_tried_fast_first_and_counted_so() {
    let policy = policy(&[
        ("f", Tier::Fast, "a"),
        ("d", Tier::Deep, "b"),
        ("e", Tier::Deep, "a"),
    ]);
    let (known, ruling) = (Known::default(), Ruling::default());
    let config = Config {
        control_per_thousand: 0,
        ..Config::default()
    };
    let all = Some(Band { margin: 1.0 });
    let mut split = Split::new(200);
    let mut route = |model: &str, band: Option<Band>| {
        let asked = Asked {
            band,
            ..asked(model, &ruling)
        };
        let route = known.decide(&asked, &policy, &config, &mut split);
        (route.expect("a route"), split.counts())
    };
    let (near, counts) = route("auto", all);
    assert_eq!((near.tier, near.cascade), (Tier::Fast, true));
    assert_eq!((near.reason, near.is_counted()), (Reason::Cascade, true));
    assert_eq!(near.deeper.iter().collect::<Vec<_>>(), [2, 1, 0]);
    assert_eq!(counts, (1, 0));
    for (model, band) in [("fast", all), ("f", all), ("auto", None)] {
        assert!(!route(model, band).0.cascade, "{model}");
    }
    assert!(split.escalate());
    let (_, deep) = split.counts();
    assert_eq!(deep, 1);
}
