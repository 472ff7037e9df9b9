//! What a decision costs on a prompt of 4 KB.

use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use router::{Asked, Features, Model, Policy, Split, Wanted, decide};
use wire::{Shape, Tier};

fn decide_4kb(criterion: &mut Criterion) {
    let text: String = "Prove that every finite integral domain is a field; give an example. "
        .chars()
        .cycle()
        .take(4_096)
        .collect();
    let model = |name: &str, tier| Model {
        name: Arc::from(name),
        tier,
        dialect: "d",
        converses: true,
        context: None,
    };
    let Ok(policy) = Policy::new(vec![model("f", Tier::Fast), model("d", Tier::Deep)]) else {
        return;
    };
    let mut split = Split::new(200);
    let shape = Shape::default();
    let asked = Asked {
        wanted: Wanted::Auto,
        dialect: "d",
        converses: true,
        stay: None,
        band: None,
    };
    criterion.bench_function("decide_4kb", |bencher| {
        bencher.iter(|| {
            let features = Features {
                text: std::hint::black_box(&text),
                shape: &shape,
            };
            decide(&features, &asked, &policy, &|_| true, &mut split)
        });
    });
}

criterion_group!(benches, decide_4kb);
criterion_main!(benches);
