//! What a score costs on prompts of 0.5, 4 and 100 KB: medians by the harness, then single calls with their
//! tails. `classify N` alone makes N calls on 4 KB, for counting instructions (`callgrind.sh`).

use std::hint::black_box;
use std::io::Write;
use std::time::Instant;

use criterion::{BenchmarkId, Criterion};
use router::{Features, score};
use wire::Shape;

/// Single calls that are timed for each size.
const CALLS: usize = 50_000;
const PROSE: &str = "A train leaves the station at 9:40 and travels 320 km at 80 km/h; how long does \
    it take? Prove that your answer, \"4 hours\", is right.\nA. 3\nB. 4\nC. None of these (explain)\n";

fn prompt(bytes: usize) -> String {
    // Different words throughout, so that the buckets are spread as in traffic.
    let mut text = String::new();
    for number in 0.. {
        text.push_str(PROSE);
        text.push_str(&format!("word{} ", number * 7_919 % 10_007).replace(['1', '4', '7'], "qu"));
        if text.len() >= bytes {
            break;
        }
    }
    text.chars().take(bytes).collect()
}

fn call(text: &str, shape: &Shape) {
    let features = Features {
        text: black_box(text),
        shape,
    };
    black_box(score(&features));
}

/// Nanoseconds at the median and in the tail, less what reading the clock takes.
fn tails(text: &str, mut call: impl FnMut(&str)) -> [u128; 3] {
    let mut clock: Vec<u128> = (0..1_000)
        .map(|_| Instant::now().elapsed().as_nanos())
        .collect();
    clock.sort_unstable();
    let overhead = clock.get(500).copied().unwrap_or(0);
    let mut taken: Vec<u128> = (0..CALLS)
        .map(|_| {
            let start = Instant::now();
            call(black_box(text));
            start.elapsed().as_nanos().saturating_sub(overhead)
        })
        .collect();
    taken.sort_unstable();
    [500, 990, 999].map(|at| taken.get(CALLS * at / 1_000).copied().unwrap_or(0))
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds to print")]
fn per(nanoseconds: u128, bytes: usize) -> f64 {
    nanoseconds as f64 / bytes as f64
}

/// A table of byte kinds, for the plain pass that a score is held against.
#[expect(clippy::indexing_slicing, reason = "evaluated when compiled")]
static KINDS: [u8; 256] = {
    let mut kinds = [0; 256];
    let mut letter = b'a' as usize;
    while letter <= b'z' as usize {
        kinds[letter] = 1;
        letter += 1;
    }
    kinds
};

fn main() {
    let shape = Shape::default();
    let sizes = [("0.5 KB", 512), ("4 KB", 4_096), ("100 KB", 102_400)];
    if let Some(calls) = std::env::args().nth(1).and_then(|n| n.parse::<u32>().ok()) {
        let text = prompt(4_096);
        for _ in 0..calls {
            call(&text, &shape);
        }
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("classify");
    for (name, bytes) in sizes {
        let text = prompt(bytes);
        group.bench_with_input(BenchmarkId::from_parameter(name), &text, |bencher, text| {
            bencher.iter(|| call(text, &shape));
        });
    }
    group.finish();
    let mut out = std::io::stdout();
    for (name, bytes) in sizes {
        // Beyond 2 KB nothing is read.
        let text = prompt(bytes.min(4_096));
        let whole = prompt(bytes);
        let [half, p99, p999] = tails(&whole, |text| call(text, &shape));
        let [plain, ..] = tails(&text, |text| {
            black_box(
                text.bytes()
                    .map(|byte| KINDS.get(usize::from(byte)).copied().map_or(0, u32::from))
                    .sum::<u32>(),
            );
        });
        let line = format!(
            "classify {name}: p50 {half} ns, p99 {p99} ns, p99.9 {p999} ns; {:.2} ns a byte read, {:.1} times \
             a plain pass over as many\n",
            per(half, text.len()),
            per(half, 1) / per(plain.max(1), 1),
        );
        if out.write_all(line.as_bytes()).is_err() {
            return;
        }
    }
}
