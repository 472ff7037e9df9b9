//! What a decision costs on a prompt of 4 KB.

use criterion::{Criterion, criterion_group, criterion_main};
use router::learn::Head;
use router::switch::Stakes;
use router::{
    Asked, Config, Features, Model, Outlook, Policy, Quote, Rules, Ruling, Split, Step, Wanted,
    decide,
};
use wire::{Shape, Tier};

fn decide_4kb(criterion: &mut Criterion) {
    let text: String = "Prove that every finite integral domain is a field; give an example. "
        .chars()
        .cycle()
        .take(4_096)
        .collect();
    let models = vec![
        Model::new("f", Tier::Fast, "d"),
        Model::new("d", Tier::Deep, "d"),
    ];
    let Ok(policy) = Policy::new(models, Rules::default()) else {
        return;
    };
    let (config, ruling) = (Config::default(), Ruling::default());
    let head = Head::default();
    let outlook = Outlook {
        usable: &|_| true,
        quote: &|_| Quote::default(),
        stakes: &|_, _| Stakes::default(),
    };
    let mut split = Split::new(200);
    let shape = Shape::default();
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
        head: &head,
        ruling: &ruling,
        prompt_tokens: 1_000,
        luck: 999,
    };
    criterion.bench_function("decide_4kb", |bencher| {
        bencher.iter(|| {
            let features = Features {
                text: std::hint::black_box(&text),
                shape: &shape,
            };
            decide(&features, &asked, &policy, &config, &outlook, &mut split)
        });
    });
}

criterion_group!(benches, decide_4kb);
criterion_main!(benches);
