//! What each phase of a 1 KB call costs the gateway by itself: its own service with everything on, in this process and
//! on one thread. The same laps as `pareto_phase_seconds`, but each kept as it is, where production counts them in
//! buckets; `bench/phases/run` holds both against each other.
//!
//! A sample is the median over its calls, as production's figure is: a mean would tell of the calls that the machine has
//! interrupted. [`CALLERS`] call at once, as there, so that a phase finds the caches as the others leave them; their
//! connections are memory. Where `PARETO_DOOR` names a file, callers come from elsewhere: the port and the key that
//! are for them are written there.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use bench::fixed::{Endpoint, Fixed};
use bench::load::{Ask, Dialect, Shape};
use criterion::Criterion;
use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use proxy::Config;
use proxy::apart::Apart;
use tikv_jemallocator::Jemalloc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::task::{JoinSet, LocalSet};

/// As the program has it.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

const MEASURED: [&str; 5] = ["parse", "decide", "hold", "journal", "relay"];
/// As many as `bench/phases/run` has by default.
const CALLERS: usize = 32;
/// Different bodies, as a load has them.
const BODIES: usize = 64;
/// What fits into a connection at once.
const HOLDS: usize = 65_536;

/// Keeps the laps of each phase as they come, and nothing of other metrics.
#[derive(Debug, Clone, Default)]
struct Laps(Arc<Mutex<HashMap<String, Arc<Lap>>>>);

#[derive(Debug, Default)]
struct Lap(Mutex<Vec<f64>>);

impl HistogramFn for Lap {
    fn record(&self, seconds: f64) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(seconds);
    }
}

impl Laps {
    fn of(&self, phase: &str) -> Arc<Lap> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(phase.to_owned()).or_default())
    }

    /// How many of `phase` there are since the last time.
    fn count(&self, phase: &str) -> usize {
        let lap = self.of(phase);
        let laps = lap.0.lock().unwrap_or_else(PoisonError::into_inner);
        laps.len()
    }

    /// The median of `phase` since the last time, and forgets what there is of all phases.
    fn take(&self, phase: &str) -> Duration {
        let mut median = 0.0;
        for (name, lap) in &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            let mut laps =
                std::mem::take(&mut *lap.0.lock().unwrap_or_else(PoisonError::into_inner));
            if name == phase {
                laps.sort_unstable_by(f64::total_cmp);
                median = laps.get(laps.len() / 2).copied().unwrap_or_default();
            }
        }
        Duration::from_secs_f64(median)
    }
}

impl Recorder for Laps {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        match key.labels().find(|label| label.key() == "phase") {
            Some(label) if key.name() == "pareto_phase_seconds" => {
                Histogram::from_arc(self.of(label.value()))
            }
            _ => Histogram::noop(),
        }
    }
}

/// Calls as they go over a connection.
fn calls(key: &str) -> Vec<Vec<u8>> {
    let prompts = bench::conversation::prompts();
    let shape = Shape {
        body_bytes: 1_024,
        stream: false,
        max_tokens: 64,
        model_last: false,
        ask: Ask::default(),
    };
    let one = |number| {
        let body = shape.body(&prompts, number, Dialect::Chat, "auto");
        let length = body.len();
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {key}\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    };
    (0..BODIES).map(one).collect()
}

/// A caller's connection, and what has come over it.
struct Caller {
    stream: DuplexStream,
    inbox: Vec<u8>,
}

impl Caller {
    /// Calls, and waits for the whole answer.
    async fn call(&mut self, call: &[u8]) -> anyhow::Result<()> {
        self.stream.write_all(call).await?;
        self.inbox.clear();
        loop {
            let come = self.stream.read_buf(&mut self.inbox).await?;
            anyhow::ensure!(come > 0, "the gateway hangs up");
            let text = String::from_utf8_lossy(&self.inbox);
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            anyhow::ensure!(head.starts_with("HTTP/1.1 200"), "it answers {head}");
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .context("an answer of a length")?;
            if body.len() >= length.parse()? {
                return Ok(());
            }
        }
    }
}

/// Makes `count` calls, [`CALLERS`] at once; gives the callers back.
async fn all(
    callers: Vec<Caller>,
    calls: &Arc<Vec<Vec<u8>>>,
    count: u64,
) -> anyhow::Result<Vec<Caller>> {
    let left = Arc::new(Mutex::new(count));
    let mut at_work = JoinSet::new();
    for (number, mut caller) in callers.into_iter().enumerate() {
        let (left, calls) = (Arc::clone(&left), Arc::clone(calls));
        at_work.spawn_local(async move {
            let mut next = number;
            let one_more = || {
                let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
                *left = left.checked_sub(1)?;
                Some(())
            };
            while one_more().is_some() {
                let call = calls.get(next % BODIES).context("a call")?;
                caller.call(call).await?;
                next += CALLERS + 1;
            }
            anyhow::Ok(caller)
        });
    }
    at_work.join_all().await.into_iter().collect()
}

/// The port of an endpoint, and the endpoint itself where it is our own. One that runs already may be on a core of
/// its own.
fn endpoint() -> anyhow::Result<(Option<Endpoint>, String)> {
    if let Ok(port) = std::env::var("PARETO_ENDPOINT_PORT") {
        return Ok((None, port));
    }
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let endpoint = Endpoint::start(anywhere, Fixed::default(), 1)?;
    let port = endpoint.address.port().to_string();
    Ok((Some(endpoint), port))
}

/// Everything on, with its store in `dir`, before the endpoint at `port`.
fn config(dir: &Path, port: &str) -> anyhow::Result<Config> {
    let dir = dir.display().to_string();
    let marks = [
        ("@DIR@", dir.as_str()),
        ("@PORT@", "0"),
        ("@ADMIN@", "0"),
        ("@ENDPOINT@", port),
        ("@SYNC@", "group"),
        // No connection is closed for having served many.
        ("[limits]", "[limits]\nrequests = 1000000000"),
    ];
    let text = include_str!("../../bench/peers/pareto.toml").to_owned();
    let text = marks
        .iter()
        .fold(text, |text, (mark, value)| text.replace(mark, value));
    Config::parse(&text).map_err(|problems| anyhow::anyhow!("{problems:?}"))
}

/// Serves whoever comes.
async fn open(listener: TcpListener, apart: Arc<Apart>) {
    while let Ok((stream, _)) = listener.accept().await {
        let apart = Arc::clone(&apart);
        tokio::task::spawn_local(async move {
            // Without it answers would only be later.
            let _at_once = stream.set_nodelay(true);
            apart.serve(Box::new(stream)).await;
        });
    }
}

#[expect(
    clippy::panic,
    reason = "a call that fails must not look like a quick one"
)]
fn main() -> anyhow::Result<()> {
    let laps = Laps::default();
    metrics::set_global_recorder(laps.clone()).map_err(|error| anyhow::anyhow!("{error}"))?;
    let (_own, port) = endpoint()?;
    let folder = tempfile::tempdir()?;
    let config = config(folder.path(), &port)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    let (apart, key) = {
        let _inside = runtime.enter();
        Apart::open(&config, "bench")?
    };
    let calls = Arc::new(calls(&key));
    let apart = Arc::new(apart);
    let elsewhere = std::env::var_os("PARETO_DOOR");
    let mut callers = Vec::new();
    if let Some(file) = &elsewhere {
        let listener = local.block_on(&runtime, TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let port = listener.local_addr()?.port();
        std::fs::write(file, format!("{port} {key}\n"))?;
        local.spawn_local(open(listener, Arc::clone(&apart)));
    } else {
        let connect = |_| {
            let (stream, there) = duplex(HOLDS);
            let apart = Arc::clone(&apart);
            local.spawn_local(async move { apart.serve(Box::new(there)).await });
            Caller {
                stream,
                inbox: Vec::with_capacity(HOLDS),
            }
        };
        callers.extend((0..CALLERS).map(connect));
    }
    let mut run = |phase: &str, count: u64| {
        if elsewhere.is_some() {
            // What came while nobody looked.
            laps.take(phase);
            let wanted = usize::try_from(count).unwrap_or(usize::MAX);
            local.block_on(&runtime, async {
                while laps.count(phase) < wanted {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            });
        } else {
            let done = all(std::mem::take(&mut callers), &calls, count);
            callers = local
                .block_on(&runtime, done)
                .unwrap_or_else(|error| panic!("{error:#}"));
        }
        laps.take(phase)
            .saturating_mul(u32::try_from(count).unwrap_or(u32::MAX))
    };
    run("parse", 1_000);
    let mut criterion = Criterion::default()
        .measurement_time(Duration::from_secs(3))
        .warm_up_time(Duration::from_secs(1))
        .sample_size(30)
        .configure_from_args();
    let mut group = criterion.benchmark_group("phases");
    for phase in MEASURED {
        group.bench_function(phase, |bencher| {
            bencher.iter_custom(|count| run(phase, count));
        });
    }
    group.finish();
    criterion.final_summary();
    Ok(())
}
