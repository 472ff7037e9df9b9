//! What a call costs where money is written down: its hold and its settlement in the journal, and both in
//! the ledger, for each way of syncing, with calls on one thread and on four.
//!
//! Criterion tells the time of two appends. Behind it stand runs at a steady rate, with the processor
//! time of a call by thread: what the callers spend beyond making the records, the syncs, the batcher.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a measurement stops where it can not go on, and its table is what it is for"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group};
use meter::ledger::written;
use meter::{Charge, Entry, Held, Journal, NanoUsd, Outcome, Position, Record, Routing, Subject};
use store::config::Sync;
use store::{Config, Store};
use wire::{RequestId, Tier, Usage, UsageSource};

const NOW: i64 = 1_795_000_000_000;
const MODES: [(&str, Sync); 3] = [
    ("group", Sync::Group),
    ("interval", Sync::Interval),
    ("off", Sync::Off),
];
/// Whether each record has a `write` of its own, or those of one turn of a thread share one.
#[derive(Debug, Clone, Copy)]
enum Writing {
    Each,
    Together,
}

/// Calls a second, over all threads, and for how long.
const RATE: u64 = 12_000;
const LASTS: Duration = Duration::from_secs(4);
/// Calls begin in bursts, as a relay finds them at each look at its sockets.
const BURST: Duration = Duration::from_millis(1);

fn text(text: &str) -> Arc<str> {
    Arc::from(text)
}

fn charge(budget: &str) -> Charge {
    Charge {
        budget: text(budget),
        start_ms: NOW,
    }
}

/// A hold as a gateway with everything on makes it.
fn held() -> Held {
    Held {
        request: RequestId::new(0, [0; 10]),
        attempt: 0,
        subject: Subject::of_key("acme", "search", "p1", "k1a2b3c4"),
        dialect: text("openai_chat"),
        requested: text("auto"),
        model: text("gpt-5-mini"),
        endpoint: text("openai"),
        tier: Tier::Fast,
        reason: text("auto"),
        score_milli: Some(412),
        stream: true,
        held_at_ms: NOW,
        bound: NanoUsd(9_000_000),
        bound_usage: Usage {
            input: 1_024,
            output: 512,
            ..Usage::default()
        },
        price: text("openai/gpt-5-mini@2026-10-01T01:47:31Z"),
        losses: text(""),
        session: 0x1234_5678_9abc_def0,
        lane: text("standard"),
        book: text("0123456789ab"),
        charges: vec![
            charge("tenant/acme/usd/month"),
            charge("team/acme/search/usd/day"),
            charge("key/acme/k1a2b3c4/usd/day"),
        ],
        escalated: text(""),
        routing: Some(Box::new(Routing {
            class: text("general"),
            step: text("plan"),
            score_ppm: Some(412_345),
            threshold_ppm: Some(783_211),
            propensity_ppm: 1_000_000,
            layers: vec![1_200, -340, 77, 12_021, -9_999, 4, 0, 310],
            weights: text("2026-11-01"),
            prompt_tokens: 250,
            ..Routing::default()
        })),
    }
}

fn settled(held: Held) -> Entry {
    Entry {
        outcome: Outcome::Completed,
        status: 200,
        settled_at_ms: held.held_at_ms + 900,
        usage: held.bound_usage,
        source: UsageSource::Provider,
        cost: NanoUsd(1_234_567),
        baseline: NanoUsd(6_000_000),
        list: NanoUsd(1_234_567),
        sell: NanoUsd(1_300_000),
        cache_saved: NanoUsd(10_000),
        suspense: NanoUsd::ZERO,
        context_tier: 0,
        first_byte_ms: Some(200),
        held,
    }
}

/// The records of calls that no ledger has seen.
struct Calls {
    held: Held,
    number: u64,
}

impl Calls {
    fn of_thread(thread: u64) -> Self {
        Self {
            held: held(),
            number: thread << 40,
        }
    }

    fn next(&mut self) -> (Record, Record) {
        self.number += 1;
        let mut bytes = [0; 10];
        bytes[2..].copy_from_slice(&self.number.to_be_bytes());
        let mut held = self.held.clone();
        let since = i64::try_from((self.number & 0xff_ffff_ffff) / 10).expect("small");
        held.held_at_ms = NOW + since;
        held.request = RequestId::new(u64::try_from(held.held_at_ms).expect("after 1970"), bytes);
        let entry = settled(held.clone());
        (
            Record::Hold(Box::new(held)),
            Record::Settle(Box::new(entry)),
        )
    }
}

fn open(dir: &Path, sync: Sync) -> Store {
    let config = Config {
        dir: dir.to_owned(),
        journal_sync: sync,
        ..Config::default()
    };
    store::open(&config).expect("opens")
}

fn appends(c: &mut Criterion) {
    let mut group = c.benchmark_group("hold and settle");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    for (name, sync) in MODES {
        let dir = tempfile::tempdir().expect("a folder");
        let store = open(dir.path(), sync);
        let mut calls = Calls::of_thread(0);
        group.bench_function(name, |b| {
            b.iter_batched(
                || calls.next(),
                |(hold, settle)| {
                    store.journal.append(&hold).expect("appends");
                    store.journal.append(&settle).expect("appends");
                },
                criterion::BatchSize::SmallInput,
            );
        });
        store.close();
    }
    group.finish();
    for threads in [1, 4] {
        let idle = run(threads, None, Writing::Each);
        for (name, sync) in MODES {
            for writing in [Writing::Each, Writing::Together] {
                let dir = tempfile::tempdir().expect("a folder");
                let store = open(dir.path(), sync);
                let spent = run(threads, Some(&store), writing);
                let name = format!("{name}, {threads} thread(s), {writing:?}");
                report(&name, &spent, &idle);
                store.close();
            }
        }
    }
}

/// What a run spent by thread, in microseconds a call, and how many calls it made a second.
struct Spent {
    by_thread: BTreeMap<String, f64>,
    rate: f64,
}

fn report(name: &str, spent: &Spent, idle: &Spent) {
    let of = |spent: &Spent, thread: &str| spent.by_thread.get(thread).copied().unwrap_or(0.0);
    let callers = of(spent, "caller") - of(idle, "caller");
    let (sync, batcher) = (of(spent, "journal-sync"), of(spent, "ledger-batcher"));
    println!(
        "{name:>32}: {:>6.1} us of processor time a call (appends {callers:.1}, sync {sync:.1}, ledger {batcher:.1}) at {:.0} calls/s",
        callers + sync + batcher,
        spent.rate
    );
}

/// Makes calls at the rate for a while, and waits until all of them are in the ledger.
fn run(threads: u64, store: Option<&Store>, writing: Writing) -> Spent {
    let before = processor();
    let began = Instant::now();
    let callers: Vec<_> = std::thread::scope(|scope| {
        let spawned: Vec<_> = (0..threads)
            .map(|thread| {
                let journal = store.map(|store| Arc::clone(&store.journal));
                std::thread::Builder::new()
                    .name("caller".to_owned())
                    .spawn_scoped(scope, move || {
                        caller(thread, threads, journal.as_ref(), writing)
                    })
                    .expect("a thread")
            })
            .collect();
        spawned
            .into_iter()
            .map(|it| it.join().expect("no panic"))
            .collect()
    });
    let took = began.elapsed();
    if let Some(store) = store {
        assert!(store.flush(Duration::from_mins(1)), "all is in the ledger");
    }
    let calls: u64 = callers.iter().map(|(calls, _)| calls).sum();
    let spent: Duration = callers.iter().map(|(_, spent)| *spent).sum();
    let mut by_thread: BTreeMap<String, f64> = processor()
        .into_iter()
        .map(|(name, now)| {
            let then = before.get(&name).copied().unwrap_or_default();
            (name, now.saturating_sub(then))
        })
        .chain([("caller".to_owned(), spent)])
        .map(|(name, spent)| (name, spent.as_secs_f64() * 1e6 / calls as f64))
        .collect();
    by_thread.retain(|_, spent| *spent > 0.0);
    Spent {
        by_thread,
        rate: calls as f64 / took.as_secs_f64(),
    }
}

/// One thread's calls, and the processor time that it spent.
fn caller(
    thread: u64,
    threads: u64,
    journal: Option<&Arc<store::FileJournal>>,
    writing: Writing,
) -> (u64, Duration) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let mut calls = Calls::of_thread(thread);
    let a_burst = RATE * u64::try_from(BURST.as_micros()).expect("small") / 1_000_000 / threads;
    let mut made = 0;
    runtime.block_on(async {
        let mut tick = tokio::time::interval(BURST);
        let mut under_way = tokio::task::JoinSet::new();
        let began = Instant::now();
        while began.elapsed() < LASTS {
            tick.tick().await;
            for _ in 0..a_burst {
                let (hold, settle) = calls.next();
                let journal = journal.cloned();
                under_way.spawn(async move { one(journal, &hold, &settle, writing).await });
                made += 1;
            }
            while under_way.try_join_next().is_some() {}
        }
        while under_way.join_next().await.is_some() {}
    });
    let own = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    (made, on_processor(&own))
}

async fn one(
    journal: Option<Arc<store::FileJournal>>,
    hold: &Record,
    settle: &Record,
    writing: Writing,
) {
    let Some(journal) = journal else { return };
    let position = take(&journal, hold, writing).await;
    journal.synced(position).await.expect("syncs");
    take(&journal, settle, writing).await;
}

async fn take(journal: &store::FileJournal, record: &Record, writing: Writing) -> Position {
    match writing {
        Writing::Each => journal.append(record).expect("appends"),
        Writing::Together => {
            let position = journal.enter(record).expect("enters");
            written(journal, position).await.expect("writes");
            position
        }
    }
}

/// Processor time of this process's living threads, by name.
fn processor() -> BTreeMap<String, Duration> {
    let mut found: BTreeMap<String, Duration> = BTreeMap::new();
    for entry in std::fs::read_dir("/proc/self/task")
        .expect("Linux")
        .flatten()
    {
        let read =
            |file: &str| std::fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        *found.entry(read("comm").trim().to_owned()).or_default() +=
            on_processor(&read("schedstat"));
    }
    found
}

/// The first of a thread's figures: nanoseconds on a processor.
fn on_processor(schedstat: &str) -> Duration {
    let first = schedstat.split_whitespace().next();
    Duration::from_nanos(first.and_then(|text| text.parse().ok()).unwrap_or(0))
}

criterion_group!(benches, appends);

fn main() {
    benches();
    Criterion::default().configure_from_args().final_summary();
}
