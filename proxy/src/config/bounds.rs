//! Numbers that nothing can be made of: each has a least and a most, so that none wraps around, outgrows what the
//! system takes, or stands for nothing at all.

use super::Config;

/// A year in milliseconds: what is waited for longer is not waited for.
const YEAR_MS: u64 = 31_536_000_000;
/// More than any process has connections, calls or lines that wait.
const MANY: u64 = 1_000_000;
/// The largest message that is taken into memory at once, and as many as anybody counts.
const LARGEST: u64 = 4 << 30;
/// In MiB: sixteen tebibytes of memory.
const MEMORY: u64 = 16 << 20;

/// A key with its value and the least and the most that it may be.
type Bound = (&'static str, u64, u64, u64);

/// What is out of bounds.
pub(super) fn problems(config: &Config) -> Vec<(String, String)> {
    let all = [
        doors(config),
        overload(config),
        upstream(config),
        records(config),
        work(config),
    ];
    let all = all.into_iter().flatten();
    let beyond = all.filter(|(_, value, least, most)| !(least..=most).contains(&value));
    beyond
        .map(|(key, value, least, most)| {
            let message = if value == 0 && least == 1 {
                "must be above 0".to_owned()
            } else {
                format!("{value} is out of bounds; write {least} to {most}")
            };
            (key.to_owned(), message)
        })
        .collect()
}

fn wide(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

fn doors(config: &Config) -> Vec<Bound> {
    let (server, limits) = (&config.server, &config.limits);
    let each = limits.connections_per_ip.map_or(1, wide);
    vec![
        // Each is a thread with two descriptors of its own.
        ("server.workers", wide(server.workers), 0, 1_024),
        ("server.drain_s", server.drain_s, 0, YEAR_MS / 1_000),
        ("server.drain_lag_ms", server.drain_lag_ms, 0, YEAR_MS),
        ("limits.body_bytes", wide(limits.body_bytes), 1, LARGEST),
        // Real clients send heads of some kilobytes.
        (
            "limits.head_bytes",
            wide(limits.head_bytes),
            8_192,
            16 << 20,
        ),
        // What the table of a head's fields can hold.
        ("limits.headers", wide(limits.headers), 1, 24_000),
        ("limits.connections", wide(limits.connections), 1, MANY),
        ("limits.connections_per_ip", each, 1, MANY),
        ("limits.requests", wide(limits.requests), 1, LARGEST),
        ("limits.in_flight", wide(limits.in_flight), 1, MANY),
        ("limits.head_timeout_ms", limits.head_timeout_ms, 1, YEAR_MS),
        ("limits.body_timeout_ms", limits.body_timeout_ms, 1, YEAR_MS),
        ("limits.idle_timeout_ms", limits.idle_timeout_ms, 1, YEAR_MS),
        (
            "limits.write_timeout_ms",
            limits.write_timeout_ms,
            1,
            YEAR_MS,
        ),
        (
            "limits.idempotency_s",
            limits.idempotency_s,
            0,
            YEAR_MS / 1_000,
        ),
    ]
}

fn overload(config: &Config) -> Vec<Bound> {
    let own = &config.overload;
    vec![
        ("overload.queue_ms", own.queue_ms, 0, YEAR_MS),
        ("overload.queue", own.queue.map_or(0, wide), 0, MANY),
        ("overload.lag_ms", own.lag_ms, 1, YEAR_MS),
        ("overload.memory_mb", own.memory_mb, 0, MEMORY),
        ("overload.bodies_mb", own.bodies_mb, 0, MEMORY),
    ]
}

fn upstream(config: &Config) -> Vec<Bound> {
    let own = &config.upstream;
    let first = own.first_byte_timeout_ms;
    let idle = wide(own.idle_connections);
    let per_second = u64::from(own.retries.per_second);
    vec![
        (
            "upstream.connect_timeout_ms",
            own.connect_timeout_ms,
            1,
            YEAR_MS,
        ),
        ("upstream.first_byte_timeout_ms", first, 1, YEAR_MS),
        (
            "upstream.reply_timeout_ms",
            own.reply_timeout_ms,
            1,
            YEAR_MS,
        ),
        ("upstream.idle_timeout_ms", own.idle_timeout_ms, 1, YEAR_MS),
        ("upstream.reply_bytes", wide(own.reply_bytes), 1, LARGEST),
        ("upstream.idle_connections", idle, 0, MANY),
        (
            "upstream.breaker.most_rest_ms",
            own.breaker.most_rest_ms,
            1,
            YEAR_MS,
        ),
        ("upstream.retries.per_second", per_second, 0, MANY),
    ]
}

fn records(config: &Config) -> Vec<Bound> {
    let (log, otlp, store) = (&config.request_log, &config.otlp, &config.store);
    let sync_ms = u64::from(store.journal_sync_ms);
    let segment = store.journal_segment_bytes;
    vec![
        ("request_log.max_mb", log.max_mb, 1, MEMORY),
        // Each of them is renamed when one is full.
        ("request_log.keep", u64::from(log.keep), 0, 10_000),
        ("otlp.interval_ms", otlp.interval_ms, 1, YEAR_MS),
        (
            "otlp.metrics_interval_ms",
            otlp.metrics_interval_ms,
            1,
            YEAR_MS,
        ),
        ("otlp.timeout_ms", otlp.timeout_ms, 1, YEAR_MS),
        (
            "context.keep_days",
            u64::from(config.context.keep_days),
            0,
            36_500,
        ),
        ("context.max_mb", config.context.max_mb, 0, MEMORY << 10),
        ("store.journal_sync_ms", sync_ms, 1, 60_000),
        // Room for some records, and two of them are made ready at the start.
        ("store.journal_segment_bytes", segment, 16 << 10, 1 << 30),
    ]
}

fn work(config: &Config) -> Vec<Bound> {
    let (meter, cascade) = (&config.meter, &config.routing.cascade);
    let (fetch, limits) = (&config.orchestrator.fetch, &config.orchestrator.limits);
    vec![
        ("meter.hold_wait_ms", meter.hold_wait_ms, 0, YEAR_MS),
        // More than any model writes.
        (
            "meter.default_max_output",
            meter.default_max_output,
            1,
            100 * MANY,
        ),
        ("routing.cascade.hold_ms", cascade.hold_ms, 0, YEAR_MS),
        (
            "routing.cascade.hold_whole_ms",
            cascade.hold_whole_ms,
            0,
            YEAR_MS,
        ),
        (
            "orchestrator.limits.stalled_calls",
            limits.stalled_calls,
            1,
            MANY,
        ),
        (
            "orchestrator.fetch.most_bytes",
            wide(fetch.most_bytes),
            1,
            LARGEST,
        ),
        (
            "orchestrator.fetch.text_bytes",
            wide(fetch.text_bytes),
            1,
            LARGEST,
        ),
        (
            "orchestrator.fetch.timeout_ms",
            fetch.timeout_ms,
            1,
            YEAR_MS,
        ),
    ]
}
