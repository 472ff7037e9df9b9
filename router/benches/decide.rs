//! What a whole decision costs on prompts of 0.5, 4 and 100 KB: medians by the harness, then single calls
//! with their tails.

use std::hint::black_box;
use std::io::Write;
use std::time::Instant;

use criterion::{BenchmarkId, Criterion};
use router::learn::Head;
use router::switch::Stakes;
use router::{
    Asked, Config, Features, Model, Outlook, Policy, Quote, Rules, Ruling, Split, Step, Wanted,
    decide,
};
use wire::{Shape, Tier};

/// Single calls that are timed for each size.
const CALLS: usize = 50_000;

fn prompt(bytes: usize) -> String {
    "Prove that every finite integral domain is a field; give an example. "
        .chars()
        .cycle()
        .take(bytes)
        .collect()
}

/// Nanoseconds at the median and in the tail; reading the clock is some tens of them.
fn tails(mut call: impl FnMut()) -> [u128; 3] {
    let mut taken: Vec<u128> = (0..CALLS)
        .map(|_| {
            let start = Instant::now();
            call();
            start.elapsed().as_nanos()
        })
        .collect();
    taken.sort_unstable();
    [500, 990, 999].map(|at| taken.get(CALLS * at / 1_000).copied().unwrap_or(0))
}

fn main() {
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
        seen: None,
        head: &head,
        ruling: &ruling,
        prompt_tokens: 1_000,
        luck: 999,
    };
    let mut call = |text: &str| {
        let features = Features {
            text: black_box(text),
            shape: &shape,
        };
        black_box(decide(&features, &asked, &policy, &config, &outlook, &mut split).is_ok());
    };
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("decide");
    let sizes = [("0.5 KB", 512), ("4 KB", 4_096), ("100 KB", 102_400)];
    for (name, bytes) in sizes {
        let text = prompt(bytes);
        group.bench_with_input(BenchmarkId::from_parameter(name), &text, |bencher, text| {
            bencher.iter(|| call(text));
        });
    }
    group.finish();
    let mut out = std::io::stdout();
    for (name, bytes) in sizes {
        let text = prompt(bytes);
        let [half, p99, p999] = tails(|| call(&text));
        let line = format!("decide {name}: p50 {half} ns, p99 {p99} ns, p99.9 {p999} ns\n");
        if out.write_all(line.as_bytes()).is_err() {
            return;
        }
    }
}
