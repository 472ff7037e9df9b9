//! What metering costs: entries that are on the disk, a second, in groups as the batcher writes them and
//! one to a commit, on SQLite and on a real PostgreSQL server, and the processor time of each.
//!
//! Criterion tells the time of a group; behind it stands a table of a sustained run of each.

use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group};
use meter::{Entry, Held, NanoUsd, Outcome, Position, Record, Subject};
use store::SqlLedger;
use wire::{RequestId, Tier, Usage, UsageSource};

/// Entries in a group, as the batcher makes them under load.
const GROUP: usize = 512;
const NOW: i64 = 1_795_000_000_000;

/// Records of calls that no ledger has seen.
struct Calls(u64);

impl Calls {
    fn take(&mut self, count: usize) -> Vec<Record> {
        (0..count).map(|_| self.one()).collect()
    }

    fn one(&mut self) -> Record {
        self.0 += 1;
        let n = self.0;
        let at = NOW + i64::try_from(n / 100).unwrap();
        let mut bytes = [0; 10];
        bytes[2..].copy_from_slice(&n.to_be_bytes());
        let pick = |from: &[&str]| from[usize::try_from(n).unwrap() % from.len()].to_owned();
        let usage = Usage {
            input: 900 + n % 700,
            cache_read: n % 300,
            output: 120 + n % 400,
            ..Usage::default()
        };
        let held = Held {
            request: RequestId::new(u64::try_from(at).unwrap(), bytes),
            attempt: 0,
            subject: Subject::of_key(
                &pick(&["acme", "globex", "initech", "umbrella", "hooli"]),
                &pick(&["search", "ads", "ops"]),
                &pick(&["p1", "p2"]),
                &pick(&["k1", "k2", "k3", "k4"]),
            ),
            dialect: "openai_chat".into(),
            requested: "auto".into(),
            model: pick(&["gpt-5-mini", "gpt-5.4", "claude-haiku-4-5"]).into(),
            endpoint: "openai".into(),
            tier: Tier::Fast,
            reason: "score".into(),
            score_milli: Some(412),
            stream: true,
            held_at_ms: at,
            bound: NanoUsd(9_000_000),
            bound_usage: usage,
            price: "openai/gpt-5-mini@2026-10-01T01:47:31Z".into(),
            losses: "".into(),
            session: n,
            lane: "standard".into(),
            book: "0123456789ab".into(),
            escalated: std::sync::Arc::default(),
            routing: None,
            charges: vec![meter::Charge {
                budget: "acme/month".into(),
                start_ms: 0,
            }],
        };
        Record::Settle(Box::new(Entry {
            held,
            outcome: Outcome::Completed,
            status: 200,
            settled_at_ms: at + 900,
            usage,
            source: UsageSource::Provider,
            cost: NanoUsd(1_234_567),
            baseline: NanoUsd(6_000_000),
            list: NanoUsd(1_234_567),
            sell: NanoUsd(1_300_000),
            cache_saved: NanoUsd(10_000),
            suspense: NanoUsd::ZERO,
            context_tier: 0,
            first_byte_ms: Some(200),
        }))
    }
}

/// An engine under measurement.
struct Bed {
    name: &'static str,
    ledger: SqlLedger,
    /// The process whose children work for it, where that is not this one.
    server: Option<u32>,
    position: u64,
    calls: Calls,
}

impl Bed {
    fn apply(&mut self, count: usize) {
        let records = self.calls.take(count);
        self.apply_these(&records);
    }

    fn apply_these(&mut self, records: &[Record]) {
        self.position += 1;
        self.ledger.apply(records, Position(self.position)).unwrap();
    }
}

fn beds(folder: &std::path::Path, server: &tests::Postgres) -> Vec<Bed> {
    vec![
        Bed {
            name: "sqlite",
            ledger: SqlLedger::open_file(&folder.join("l.sqlite3")).unwrap(),
            server: None,
            position: 0,
            calls: Calls(0),
        },
        Bed {
            name: "postgres",
            ledger: SqlLedger::open_server(&server.url("postgres"), "bench").unwrap(),
            server: Some(server.process()),
            position: 0,
            calls: Calls(0),
        },
    ]
}

fn metering(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let server = tests::Postgres::start();
    for mut bed in beds(folder.path(), &server) {
        let mut group = c.benchmark_group(bed.name);
        group
            .sample_size(20)
            .measurement_time(Duration::from_secs(8));
        for count in [GROUP, 1] {
            let name = format!("{count} a commit");
            group.throughput(Throughput::Elements(count as u64));
            let mut calls = Calls(bed.position + (count as u64) * 1_000_000_000);
            group.bench_function(name, |b| {
                b.iter_batched(
                    || calls.take(count),
                    |records| bed.apply_these(&records),
                    BatchSize::PerIteration,
                );
            });
        }
        group.finish();
        bed.calls.0 = 900_000_000_000;
        sustained(&mut bed);
    }
}

/// A run of some seconds each way, with the processor time it took.
fn sustained(bed: &mut Bed) {
    let mut rates = Vec::new();
    for count in [GROUP, 1] {
        let (began, before, first) = (Instant::now(), processor(bed.server), bed.calls.0);
        while began.elapsed() < Duration::from_secs(5) {
            bed.apply(count);
        }
        let calls = bed.calls.0 - first;
        let spent = processor(bed.server) - before;
        let rate = calls as f64 / began.elapsed().as_secs_f64();
        println!(
            "{}: {count:>3} a commit: {rate:>8.0} durable entries a second, {:>7.1} us of processor time each",
            bed.name,
            spent.as_secs_f64() * 1e6 / calls as f64
        );
        rates.push(rate);
    }
    println!(
        "{}: groups write {:.0} times as many as single rows; at 500 calls a second metering takes {:.1} % of that",
        bed.name,
        rates[0] / rates[1],
        50_000.0 / rates[0]
    );
}

/// Processor time of this process and of a server's, from `/proc`.
fn processor(server: Option<u32>) -> Duration {
    let mut ticks = used("self").1;
    if let Some(server) = server {
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.bytes().all(|byte| byte.is_ascii_digit()) {
                let (parent, used) = used(&name);
                ticks += if parent == server { used } else { 0 };
            }
        }
    }
    // Linux counts in hundredths of a second.
    Duration::from_millis(ticks * 10)
}

/// Parent and ticks of a process.
fn used(process: &str) -> (u32, u64) {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields: Vec<&str> = text
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .collect();
    let at = |place: usize| {
        fields
            .get(place)
            .and_then(|it| it.parse().ok())
            .unwrap_or(0)
    };
    (u32::try_from(at(1)).unwrap_or(0), at(11) + at(12))
}

criterion_group!(benches, metering);

fn main() {
    benches();
    Criterion::default().configure_from_args().final_summary();
}
