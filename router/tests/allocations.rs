//! Between a request and its score, and its route, nothing is allocated, whatever the text.

use router::learn::Head;
use router::switch::Stakes;
use router::{
    Asked, Config, Features, Model, Outlook, Policy, Quote, Rules, Ruling, Split, Step, Wanted,
    decide, layers, score,
};
use wire::{Shape, Tier};

#[test]
fn scoring_allocates_nothing() {
    let shape = Shape {
        tools: 3,
        tool_bytes: 900,
        ..Shape::default()
    };
    let prose = "Prove that every finite integral domain is a field. ".repeat(2_000);
    let long_word = "x".repeat(100_000);
    let wide = "数学の問題を解いてください。".repeat(300);
    let code = "def f(x):\n    return [y['a'] for y in x if y != 3.25]\n".repeat(90);
    let call = |text: &str| {
        let features = Features {
            text,
            shape: &shape,
        };
        (score(&features), layers(&features))
    };
    // The first call reads the weights' header.
    call("");
    for text in ["", "Hi", &prose, &long_word, &wide, &code] {
        let counted = allocation_counter::measure(|| {
            std::hint::black_box(call(std::hint::black_box(text)));
        });
        assert_eq!(counted.count_total, 0, "{text:.20}");
    }
}

#[test]
fn deciding_allocates_nothing() {
    let models = vec![
        Model::new("f", Tier::Fast, "d"),
        Model::new("d", Tier::Deep, "d"),
    ];
    let policy = Policy::new(models, Rules::default()).expect("a policy");
    let (config, ruling, head) = (Config::default(), Ruling::default(), Head::default());
    let outlook = Outlook {
        usable: &|_| true,
        quote: &|_| Quote::default(),
        stakes: &|_, _| Stakes::default(),
    };
    let asked = Asked {
        wanted: Wanted::Auto,
        dialect: "d",
        converses: true,
        stay: None,
        band: None,
        debt: 0,
        seat: None,
        step: Step::Chat,
        score: None,
        seen: None,
        head: &head,
        ruling: &ruling,
        prompt_tokens: 1_000,
        luck: 999,
    };
    let shape = Shape::default();
    let mut split = Split::new(200);
    let mut call = |text: &str| {
        let features = Features {
            text,
            shape: &shape,
        };
        decide(&features, &asked, &policy, &config, &outlook, &mut split).is_ok()
    };
    // The split's last scores fill up once; the first call reads the weights' header.
    for _ in 0..200 {
        call("");
    }
    let prose = "Prove that every finite integral domain is a field. ".repeat(2_000);
    for text in ["", "Hi", &prose] {
        let counted = allocation_counter::measure(|| {
            assert!(call(std::hint::black_box(text)));
        });
        assert_eq!(counted.count_total, 0, "{text:.20}");
    }
}
