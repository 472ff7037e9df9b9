//! What one pass over a request body costs, beside the libraries that build something from it.
//! The body is that of a long conversation, `model` stands last, so that nothing may stop early.
//! And what it costs to cut events out of frames: a long one that comes in small pieces must cost
//! little more than one that comes at once.

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn body(kilobytes: usize) -> Vec<u8> {
    let turn = "{\"role\":\"user\",\"content\":\"Grüße: what does \\\"x -> y\\\" mean here?\\nAnd why is that so, and \
                what follows from it for the rest of the proof that we looked at before?\"}";
    let turns = vec![turn; kilobytes * 1_024 / turn.len()].join(",");
    format!("{{\"messages\":[{turns}],\"stream\":true,\"max_tokens\":500,\"model\":\"auto\"}}")
        .into_bytes()
}

fn scan(criterion: &mut Criterion) {
    let Some(dialect) = wire::dialect::named("openai_chat") else {
        return;
    };
    let mut group = criterion.benchmark_group("scan");
    for kilobytes in [1, 100] {
        let body = body(kilobytes);
        group.throughput(Throughput::Bytes(u64::try_from(body.len()).unwrap_or(0)));
        group.bench_with_input(
            BenchmarkId::new("pareto", kilobytes),
            &body,
            |bencher, body| {
                bencher.iter(|| dialect.scan(std::hint::black_box(body)));
            },
        );
        group.bench_with_input(
            BenchmarkId::new("simd-json tape", kilobytes),
            &body,
            |bencher, body| {
                bencher.iter(|| {
                    // It unescapes in place, so the bytes to be forwarded must be kept apart.
                    let mut copy = body.clone();
                    simd_json::to_tape(std::hint::black_box(&mut copy)).map(|tape| tape.0.len())
                });
            },
        );
        group.bench_with_input(
            BenchmarkId::new("serde_json check", kilobytes),
            &body,
            |bencher, body| {
                bencher.iter(|| {
                    serde_json::from_slice::<serde::de::IgnoredAny>(std::hint::black_box(body))
                        .is_ok()
                });
            },
        );
        group.bench_with_input(
            BenchmarkId::new("serde_json value", kilobytes),
            &body,
            |bencher, body| {
                bencher.iter(|| {
                    serde_json::from_slice::<serde_json::Value>(std::hint::black_box(body)).is_ok()
                });
            },
        );
    }
    group.finish();
}

fn split(criterion: &mut Criterion) {
    let event = format!("data: {{\"b64\":\"{}\"}}\n\n", "QUJD".repeat(256 << 10));
    let mut group = criterion.benchmark_group("split 1 MB");
    group.throughput(Throughput::Bytes(u64::try_from(event.len()).unwrap_or(0)));
    let event = Bytes::from(event);
    for frame in [event.len(), 16 << 10, 1 << 10, 64] {
        group.bench_with_input(
            BenchmarkId::new("frames of bytes", frame),
            &event,
            |bencher, event| {
                bencher.iter(|| {
                    let mut splitter = wire::sse::Splitter::default();
                    let mut events = 0;
                    for at in (0..event.len()).step_by(frame) {
                        let end = event.len().min(at + frame);
                        events += usize::from(splitter.push(event.slice(at..end)).is_err());
                        while splitter.next_event().is_some() {
                            events += 1;
                        }
                    }
                    events
                });
            },
        );
    }
    group.finish();
}

criterion_group!(benches, scan, split);
criterion_main!(benches);
