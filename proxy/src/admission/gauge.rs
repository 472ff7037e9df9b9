//! How hard it goes: how late the threads that serve callers are, how much memory the process has, and what
//! gets done meanwhile. Looked at ten times a second, and read by every call.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Admission, Priority, Short};
use crate::config::Overload;
use crate::telemetry;
use crate::workers::{self, Workers};

/// How often it is looked at.
const WINDOW: Duration = Duration::from_millis(100);
/// How often a thread sees how late it is. The least of a window counts: a moment's burst is none.
const TICK: Duration = Duration::from_millis(20);
/// How often at least in a window: whoever stood still once, and goes on, has caught up at the second look.
const TICKS: u32 = 2;
/// Of the memory that the process may have, the part that calls of somebody who waits may fill.
const FILLED_PERCENT: u64 = 90;
/// Tenants that have not called for so many windows are forgotten.
const FORGOTTEN: u32 = 600;

/// What is known of the process.
#[derive(Debug)]
pub(super) struct Gauge {
    /// Counts windows.
    window: AtomicU32,
    /// Calls that ended in this one.
    ended: AtomicU32,
    /// Thousandths of calls that a tenant gets done in a window for each of its weight.
    part: AtomicU64,
    /// How late each worker is, in milliseconds.
    late_ms: Box<[AtomicU32]>,
    /// What the process has of the memory that it may have, as a percentage of what calls may fill.
    memory_percent: AtomicU32,
    memory: u64,
}

/// How hard it goes, and what is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pressure {
    /// Of what can be borne.
    pub(super) percent: usize,
    pub(super) of: Short,
}

/// The calls of a tenant in the last window in which one came: its number and their count.
#[derive(Debug, Default)]
pub(super) struct Came(AtomicU64);

impl Came {
    /// Counts a call in `window`, and tells how many there are with it.
    pub(super) fn count(&self, window: u32) -> u32 {
        let more = |known: u64| {
            let count = if window_of(known) == window {
                count_of(known).saturating_add(1)
            } else {
                1
            };
            Some(u64::from(window) << 32 | u64::from(count))
        };
        let (set, read) = (Ordering::Relaxed, Ordering::Relaxed);
        match self.0.fetch_update(set, read, more) {
            Ok(known) | Err(known) => more(known).map_or(1, count_of),
        }
    }

    /// How many windows ago the last call came.
    fn ago(&self, window: u32) -> u32 {
        window.wrapping_sub(window_of(self.0.load(Ordering::Relaxed)))
    }
}

fn window_of(known: u64) -> u32 {
    u32::try_from(known >> 32).unwrap_or(0)
}

fn count_of(known: u64) -> u32 {
    u32::try_from(known & u64::from(u32::MAX)).unwrap_or(0)
}

impl Gauge {
    pub(super) fn new(config: &Overload) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            window: AtomicU32::new(1),
            ended: AtomicU32::new(0),
            part: AtomicU64::new(u64::MAX),
            late_ms: (0..=cores.max(64)).map(|_| AtomicU32::new(0)).collect(),
            memory_percent: AtomicU32::new(0),
            memory: most(config),
        }
    }

    pub(super) fn window(&self) -> u32 {
        self.window.load(Ordering::Relaxed)
    }

    /// A call ended.
    pub(super) fn ended(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// How hard it goes on this thread.
    pub(super) fn pressure(&self, config: &Overload) -> Pressure {
        let late = self.late_ms.get(workers::seat());
        let late = late.map_or(0, |late| late.load(Ordering::Relaxed));
        let lag = u64::from(late) * 100 / config.lag_ms.max(1);
        let memory = self.memory_percent.load(Ordering::Relaxed);
        let (percent, of) = if u64::from(memory) > lag {
            (u64::from(memory), Short::Memory)
        } else {
            (lag, Short::Lag)
        };
        let percent = usize::try_from(percent).unwrap_or(usize::MAX);
        Pressure { percent, of }
    }

    /// How many calls of a tenant of `weight` are its part of what gets done in a window; at least one.
    pub(super) fn part(&self, weight: u32) -> u32 {
        let part = self.part.load(Ordering::Relaxed);
        let calls = part.saturating_mul(weight.into()) / 1_000;
        u32::try_from(calls).unwrap_or(u32::MAX).max(1)
    }

    /// Seconds after which somebody may try again, not the same for all.
    pub(super) fn jitter(&self) -> u64 {
        let any = self.window() ^ self.ended.load(Ordering::Relaxed);
        1 + u64::from(any % 3)
    }

    pub(super) fn late(&self, seat: usize, late: Duration) {
        if let Some(known) = self.late_ms.get(seat) {
            known.store(telemetry::elapsed_ms(late), Ordering::Relaxed);
        }
    }

    /// The latest worker, in milliseconds.
    fn latest_ms(&self) -> u32 {
        let all = self.late_ms.iter().map(|late| late.load(Ordering::Relaxed));
        all.max().unwrap_or(0)
    }
}

impl Admission {
    /// Ends a window: what got done in it is shared out for the next.
    pub(super) fn turn(&self) {
        let gauge = &self.gauge;
        let window = gauge.window();
        let ended = u64::from(gauge.ended.swap(0, Ordering::Relaxed));
        let mut weights = 0;
        self.shares.retain(|_, share| {
            let ago = share.came.ago(window);
            weights += if ago == 0 { u64::from(share.weight) } else { 0 };
            ago < FORGOTTEN || share.taken.load(Ordering::Relaxed) > 0
        });
        // A tenth less than gets done, so that what has piled up is worked off.
        let part = ended * 900 / weights.max(1);
        gauge.part.store(part, Ordering::Relaxed);
        gauge
            .window
            .store(window.wrapping_add(1), Ordering::Relaxed);
        let percent = resident() * 100 * 100 / (gauge.memory.max(1) * FILLED_PERCENT);
        let percent = u32::try_from(percent).unwrap_or(u32::MAX);
        gauge.memory_percent.store(percent, Ordering::Relaxed);
    }

    /// How it stands at the door.
    pub(crate) fn standing(&self) -> Standing {
        Standing {
            waiting: Priority::ALL.map(|it| (it, self.line.length(it.rank()))),
            late_ms: self.gauge.latest_ms(),
            resident: resident(),
            memory: self.gauge.memory,
            bodies: self.room.taken(),
        }
    }
}

/// How it stands at the door, for those who watch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    /// How many wait for a place.
    pub(crate) waiting: [(Priority, usize); Priority::ALL.len()],
    /// How late the latest worker is, in milliseconds.
    pub(crate) late_ms: u32,
    /// Memory of the process, what it may have, and what bodies of calls have of it, in bytes.
    pub(crate) resident: u64,
    pub(crate) memory: u64,
    pub(crate) bodies: usize,
}

/// Keeps watch over the workers and the process until `stop`.
pub(crate) fn watch(
    admission: &Arc<Admission>,
    workers: &Workers,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    let (door, ended) = (Arc::clone(admission), stop.clone());
    tasks.spawn(async move {
        let pause = || tokio::time::sleep(WINDOW);
        while ended.run_until_cancelled(pause()).await.is_some() {
            door.turn();
        }
    });
    workers.on_each(tasks, |seat| {
        let (door, ended) = (Arc::clone(admission), stop.clone());
        async move {
            let _ended = ended.run_until_cancelled(lateness(&door.gauge, seat)).await;
        }
    });
}

/// Notes how late the thread is, over and over.
async fn lateness(gauge: &Gauge, seat: usize) {
    loop {
        let began = Instant::now();
        let (mut least, mut ticks) = (Duration::MAX, 0);
        while began.elapsed() < WINDOW || ticks < TICKS {
            let due = Instant::now() + TICK;
            sleep_until(due).await;
            least = least.min(due.elapsed());
            ticks += 1;
        }
        gauge.late(seat, least);
    }
}

/// Memory of the process's own, in bytes: pages of files that it has mapped can be had back.
fn resident() -> u64 {
    kib_of("/proc/self/status", "RssAnon:").unwrap_or(0) << 10
}

/// The machine's memory in bytes.
fn machine() -> u64 {
    kib_of("/proc/meminfo", "MemTotal:").map_or(u64::MAX, |kib| kib << 10)
}

/// A line of one of the system's tables, in KiB.
fn kib_of(table: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(table).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().trim_end_matches(" kB").parse().ok()
}

/// The memory that the process may have, in bytes: what is said, or else the least that its control groups
/// and the machine leave it.
pub(super) fn most(config: &Overload) -> u64 {
    if config.memory_mb > 0 {
        return config.memory_mb << 20;
    }
    let group = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let groups = group.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        Some(match controllers {
            "" => ("/sys/fs/cgroup", path, "memory.max"),
            it if it.split(',').any(|it| it == "memory") => {
                ("/sys/fs/cgroup/memory", path, "memory.limit_in_bytes")
            }
            _ => return None,
        })
    });
    let limits = groups.flat_map(|(root, path, file)| {
        // Inside a container the group's own folder may be the root.
        let own = Path::new(root)
            .join(path.trim_start_matches('/'))
            .join(file);
        [own, Path::new(root).join(file)]
    });
    let limits = limits.filter_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok());
    limits.chain([machine()]).min().unwrap_or(u64::MAX)
}
