//! What each phase of a 1 KB call costs with no network, no other call and no scrape beside it: the same laps as
//! `pareto_phase_seconds`, over the calls that `pareto bench` makes. `bench/phases/run` holds both against each other.
//!
//! A sample is the median over its calls, as production's figure is: a mean would tell of the calls that the
//! machine has interrupted. Each call goes the whole way, so that a phase finds the caches as the others leave them.

use std::time::Duration;

use bench::load::{Ask, Dialect, Shape};
use bytes::Bytes;
use criterion::Criterion;
use proxy::Config;
use proxy::apart::{Apart, Phases};
use tikv_jemallocator::Jemalloc;
use tokio::runtime::{Builder, Runtime};

/// As the program has it.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

const MEASURED: [&str; 5] = ["parse", "decide", "hold", "journal", "relay"];
/// Different bodies, as a load has them.
const BODIES: usize = 64;

/// As long as the answers of `bench fixed`.
fn reply() -> Bytes {
    let words = "It follows from the second line, where the sum is taken over all rows. ";
    let text: String = words.chars().cycle().take(906).collect();
    let reply = format!(
        "{{\"id\":\"chatcmpl-fixed\",\"object\":\"chat.completion\",\"created\":1795000000,\"model\":\"fixed\",\
         \"choices\":[{{\"index\":0,\"message\":{{\"role\":\"assistant\",\"content\":\"{text}\"}},\"logprobs\":null,\
         \"finish_reason\":\"stop\"}}],\"usage\":{{\"prompt_tokens\":250,\"completion_tokens\":64,\"total_tokens\":314}}}}"
    );
    Bytes::from(reply)
}

fn bodies() -> Vec<Bytes> {
    let prompts = bench::conversation::prompts();
    let shape = Shape {
        body_bytes: 1_024,
        stream: false,
        max_tokens: 64,
        model_last: false,
        ask: Ask::default(),
    };
    let body = |number| shape.body(&prompts, number, Dialect::Chat, "auto");
    (0..BODIES)
        .map(|number| Bytes::from(body(number)))
        .collect()
}

/// Calls in turn, and what one of their phases takes.
struct Calls {
    runtime: Runtime,
    apart: Apart,
    bodies: Vec<Bytes>,
    reply: Bytes,
    next: usize,
}

impl Calls {
    fn one(&mut self) -> anyhow::Result<Phases> {
        self.next += 1;
        let body = self
            .bodies
            .get(self.next % BODIES)
            .cloned()
            .unwrap_or_default();
        self.runtime.block_on(self.apart.call(&body, &self.reply))
    }

    /// As if each of `calls` had taken as long in `phase` as half of them at most.
    fn all(&mut self, phase: &str, calls: u64) -> Duration {
        let mut took = Vec::new();
        for _ in 0..calls {
            let phases = self.one().unwrap_or_default();
            took.extend(
                phases
                    .iter()
                    .find(|(name, _)| *name == phase)
                    .map(|it| it.1),
            );
        }
        took.sort_unstable();
        let median = took.get(took.len() / 2).copied().unwrap_or_default();
        median.saturating_mul(u32::try_from(calls).unwrap_or(u32::MAX))
    }
}

fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let dir = folder.path().display().to_string();
    // The endpoint is never asked.
    let marks = [
        ("@DIR@", dir.as_str()),
        ("@PORT@", "0"),
        ("@ADMIN@", "0"),
        ("@ENDPOINT@", "9"),
        ("@SYNC@", "group"),
    ];
    let text = include_str!("../../bench/peers/pareto.toml").to_owned();
    let text = marks
        .iter()
        .fold(text, |text, (mark, value)| text.replace(mark, value));
    let config = Config::parse(&text).map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let apart = {
        let _inside = runtime.enter();
        Apart::open(&config, "bench")?
    };
    let mut calls = Calls {
        runtime,
        apart,
        bodies: bodies(),
        reply: reply(),
        next: 0,
    };
    calls.one()?;
    let mut criterion = Criterion::default()
        .measurement_time(Duration::from_secs(3))
        .warm_up_time(Duration::from_secs(1))
        .sample_size(30)
        .configure_from_args();
    let mut group = criterion.benchmark_group("phases");
    for phase in MEASURED {
        group.bench_function(phase, |bencher| {
            bencher.iter_custom(|count| calls.all(phase, count));
        });
    }
    group.finish();
    criterion.final_summary();
    Ok(())
}
