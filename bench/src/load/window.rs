//! One window of load against one target: workers send, this thread watches the server's processes.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use super::call::{Dialect, Shape};
use super::clock;
use super::feed::Share;
use super::process::{self, Server, Usage};
use super::tally::Tally;
pub use super::wire::Tls;
use super::worker::Worker;
use crate::conversation::Prompt;
use crate::trace::Arrival;

/// Different calls made ahead.
const VARIANTS: usize = 16;
/// How often memory is looked at, and progress told.
const LOOK: Duration = Duration::from_millis(100);

/// What is sent when.
#[derive(Debug, Clone)]
pub enum Workload {
    /// Open loop: calls at a rate, each at its time by lot.
    Rate { per_second: f64 },
    /// Closed loop: so many connections, each with its next call when the last has ended.
    Saturation { connections: usize },
    /// So many streams open at once, begun over the ramp; each that ends is followed by another.
    Streams { open: usize, ramp: Duration },
    /// Open loop: arrivals and sizes of a trace, faster by `speed`.
    Trace {
        arrivals: Arc<[Arrival]>,
        speed: f64,
    },
    /// Conversations that begin at a rate, each with so many turns; a turn comes after the answer to
    /// the last and a pause by lot around `think`.
    Agent {
        per_second: f64,
        turns: u32,
        think: Duration,
    },
}

impl Workload {
    /// Whether calls come at planned times, whatever the answers do.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Rate { .. } | Self::Trace { .. })
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Rate { .. } => "rate",
            Self::Saturation { .. } => "saturation",
            Self::Streams { .. } => "streams",
            Self::Trace { .. } => "trace",
            Self::Agent { .. } => "agent",
        }
    }

    fn ramp(&self) -> Duration {
        match self {
            Self::Streams { ramp, .. } => *ramp,
            _ => Duration::ZERO,
        }
    }
}

/// A window of load.
#[derive(Debug, Clone)]
pub struct Plan {
    pub workload: Workload,
    pub shape: Shape,
    /// Before the window, with load.
    pub warmup: Duration,
    pub window: Duration,
    /// A call that takes longer has failed.
    pub timeout: Duration,
    /// How long calls may take to end behind the window.
    pub drain: Duration,
    /// After that, before the server's memory is looked at for the last time.
    pub settle: Duration,
    pub threads: usize,
    /// Connections at most; further calls wait, and their wait counts.
    pub at_once: usize,
    pub seed: u64,
}

/// Where calls go.
#[derive(Debug, Clone)]
pub struct Target {
    pub name: String,
    pub address: SocketAddr,
    /// The value of the header `host`.
    pub host: String,
    /// What stands before `/chat/completions`.
    pub base: String,
    pub tls: Option<Tls>,
    pub dialect: Dialect,
    pub model: String,
    pub key: Option<String>,
    pub headers: Vec<(String, String)>,
    pub server: Option<Server>,
}

/// Calls made ahead for a target.
#[derive(Debug)]
pub struct Prepared {
    pub(super) prompts: Arc<[Prompt]>,
    pub(super) requests: Vec<Arc<[u8]>>,
}

impl Target {
    /// Makes the calls of a shape ahead.
    pub fn prepare(&self, shape: &Shape, prompts: &Arc<[Prompt]>) -> Prepared {
        let made = (0..VARIANTS).map(|number| self.request(shape, prompts, number));
        Prepared {
            requests: made.collect(),
            prompts: Arc::clone(prompts),
        }
    }

    /// The bytes of one call.
    pub(super) fn request(&self, shape: &Shape, prompts: &[Prompt], number: usize) -> Arc<[u8]> {
        self.with_head(&shape.body(prompts, number, self.dialect, &self.model))
    }

    /// A body behind its head.
    pub(super) fn with_head(&self, body: &str) -> Arc<[u8]> {
        let (path, mut lines) = match self.dialect {
            Dialect::Chat => ("/chat/completions", String::new()),
            Dialect::Messages => ("/messages", "anthropic-version: 2023-06-01\r\n".to_owned()),
        };
        if let Some(key) = &self.key {
            let line = match self.dialect {
                Dialect::Chat => format!("authorization: Bearer {key}\r\n"),
                Dialect::Messages => format!("x-api-key: {key}\r\n"),
            };
            lines.push_str(&line);
        }
        for (name, value) in &self.headers {
            // Writing to a String can not fail.
            let _written = write!(lines, "{name}: {value}\r\n");
        }
        let (base, host, length) = (&self.base, &self.host, body.len());
        let call = format!(
            "POST {base}{path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: pareto-bench\r\naccept: */*\r\n\
             content-type: application/json\r\n{lines}content-length: {length}\r\n\r\n{body}"
        );
        Arc::from(call.into_bytes())
    }
}

/// How a run stands, for whoever watches it.
#[derive(Debug, Default)]
pub struct Gauges {
    pub ended: AtomicU64,
    pub failed: AtomicU64,
    pub in_flight: AtomicU64,
}

/// The times of a window on the clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) start: u64,
    pub(super) from: u64,
    pub(super) to: u64,
    /// Whatever is still under way is given up.
    pub(super) end: u64,
}

/// Memory of a server's processes in KiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    pub before_kib: u64,
    /// The most seen in the window.
    pub peak_kib: u64,
    pub after_kib: u64,
}

/// What a window came to.
#[derive(Debug)]
pub struct Measured {
    /// The middle of the window on the clock, in seconds.
    pub at: f64,
    pub seconds: f64,
    pub tally: Tally,
    /// Processor time of the server in the window; `None` where its processes are not known.
    pub cpu: Option<Duration>,
    pub memory: Option<Memory>,
}

/// Runs one window; `watch` is called now and then.
///
/// # Errors
/// A worker can not run, for instance for want of files.
pub fn run(
    target: &Target,
    plan: &Plan,
    made: &Prepared,
    watch: &mut dyn FnMut(&Gauges),
) -> anyhow::Result<Measured> {
    let gauges = Gauges::default();
    let server = target
        .server
        .map(Server::processes)
        .filter(|it| !it.is_empty());
    let processes = server.unwrap_or_default();
    let before = process::usage(&processes);
    let start = clock::now() + 5_000_000;
    let from = start + nanos(plan.workload.ramp() + plan.warmup);
    let to = from + nanos(plan.window);
    let end = to + nanos(plan.drain.min(plan.timeout));
    let times = Times {
        start,
        from,
        to,
        end,
    };
    let threads = plan.threads.max(1);
    let mut tally = Tally::default();
    let mut seen = Seen::default();
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let spawn = |index| {
            let share = Share { index, of: threads };
            let gauges = &gauges;
            scope.spawn(move || Worker::new(target, plan, made, share, times, gauges)?.run())
        };
        let workers: Vec<_> = (0..threads).map(spawn).collect();
        seen = watch_window(&processes, times, &gauges, watch);
        for worker in workers {
            let part = worker
                .join()
                .map_err(|_| anyhow::anyhow!("a worker of the load stopped"))?;
            tally.merge(&part.with_context(|| format!("load on {}", target.name))?);
        }
        Ok(())
    })?;
    let known = !processes.is_empty();
    if known && !plan.settle.is_zero() {
        std::thread::sleep(plan.settle);
    }
    let after = process::usage(&processes);
    tally.open = seen.open;
    Ok(Measured {
        at: Duration::from_nanos(u64::midpoint(from, to)).as_secs_f64(),
        seconds: Duration::from_nanos(seen.to - seen.from).as_secs_f64(),
        tally,
        cpu: known.then(|| seen.last.cpu_since(&seen.first)),
        memory: known.then_some(Memory {
            before_kib: before.rss_kib,
            peak_kib: seen.peak_kib,
            after_kib: after.rss_kib,
        }),
    })
}

/// What was seen of the server between the window's ends.
#[derive(Debug, Default)]
struct Seen {
    from: u64,
    to: u64,
    first: Usage,
    last: Usage,
    peak_kib: u64,
    open: u64,
}

fn watch_window(
    processes: &[u32],
    times: Times,
    gauges: &Gauges,
    watch: &mut dyn FnMut(&Gauges),
) -> Seen {
    sleep_until(times.from, gauges, watch);
    let mut seen = Seen {
        from: clock::now(),
        first: process::usage(processes),
        ..Seen::default()
    };
    seen.peak_kib = seen.first.rss_kib;
    loop {
        let now = clock::now();
        seen.open = seen.open.max(gauges.in_flight.load(Ordering::Relaxed));
        if now >= times.to {
            break;
        }
        watch(gauges);
        std::thread::sleep(LOOK.min(Duration::from_nanos(times.to - now)));
        seen.last = process::usage(processes);
        seen.peak_kib = seen.peak_kib.max(seen.last.rss_kib);
    }
    seen.to = clock::now();
    seen
}

fn sleep_until(at: u64, gauges: &Gauges, watch: &mut dyn FnMut(&Gauges)) {
    loop {
        let now = clock::now();
        if now >= at {
            return;
        }
        watch(gauges);
        std::thread::sleep(LOOK.min(Duration::from_nanos(at - now)));
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4)
}

/// Lets this process have as many files open as it may: thousands of connections are.
pub fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where it fails, connections that fail will be counted.
    let _raised = setrlimit(Resource::Nofile, limit);
}
