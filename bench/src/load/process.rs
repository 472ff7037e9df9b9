//! What a server's processes use, from /proc: processor time and memory, children included.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A server, by its first process or by the port on which it listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    Pid(u32),
    Port(u16),
}

/// Processes of a server at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Since their starts, by the scheduler's ticks: it knows threads that have ended.
    ticks: Duration,
    /// Since their starts, of the threads there are: to the nanosecond.
    threads: Duration,
    pub rss_kib: u64,
    pub processes: usize,
}

/// From this on ticks of a hundredth of a second are exact enough.
const BY_TICKS: Duration = Duration::from_millis(800);

impl Usage {
    /// Processor time from `earlier` to this.
    pub fn cpu_since(&self, earlier: &Self) -> Duration {
        let ticks = self.ticks.saturating_sub(earlier.ticks);
        if ticks >= BY_TICKS {
            return ticks;
        }
        let threads = self.threads.saturating_sub(earlier.threads);
        if threads.is_zero() { ticks } else { threads }
    }
}

impl Server {
    /// Its processes now; empty where there are none, or where this very process is among them.
    pub fn processes(self) -> Vec<u32> {
        let parents = parents();
        let roots = match self {
            Self::Pid(pid) => BTreeSet::from([pid]),
            Self::Port(port) => listeners(port, parents.keys().copied()),
        };
        let all = with_children(&roots, &parents);
        if all.contains(&std::process::id()) {
            return Vec::new();
        }
        all.into_iter().collect()
    }
}

/// What processes use now; those that have gone count as nothing.
pub fn usage(processes: &[u32]) -> Usage {
    let mut sum = Usage::default();
    for pid in processes {
        let Some(stat) = read(&format!("/proc/{pid}/stat")) else {
            continue;
        };
        sum.processes += 1;
        sum.ticks += ticks(&stat).unwrap_or_default();
        sum.threads += threads(*pid);
        let status = read(&format!("/proc/{pid}/status")).unwrap_or_default();
        sum.rss_kib += field(&status, "VmRSS:").unwrap_or(0);
    }
    sum
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// User and system time of a process; its name may hold blanks and brackets.
fn ticks(stat: &str) -> Option<Duration> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Some(Duration::from_nanos(
        (user + system) * (1_000_000_000 / per_second),
    ))
}

/// Time on a processor of all threads of a process.
fn threads(pid: u32) -> Duration {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return Duration::ZERO;
    };
    let each = tasks.flatten().filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(each.sum())
}

fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Every process with its parent.
fn parents() -> BTreeMap<u32, u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return BTreeMap::new();
    };
    let parent = |pid: u32| {
        let stat = read(&format!("/proc/{pid}/stat"))?;
        let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
        Some((pid, parent))
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(parent).collect()
}

fn with_children(roots: &BTreeSet<u32>, parents: &BTreeMap<u32, u32>) -> BTreeSet<u32> {
    let mut all = roots.clone();
    loop {
        let more = parents.iter().filter(|(_, parent)| all.contains(parent));
        let more: Vec<u32> = more.map(|(pid, _)| *pid).collect();
        let before = all.len();
        all.extend(more);
        if all.len() == before {
            return all;
        }
    }
}

/// Who holds a socket that listens on this port.
fn listeners(port: u16, pids: impl Iterator<Item = u32>) -> BTreeSet<u32> {
    let mut sockets = BTreeSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = read(table).unwrap_or_default();
        sockets.extend(text.lines().filter_map(|line| listening(line, port)));
    }
    if sockets.is_empty() {
        return BTreeSet::new();
    }
    let holds = |pid: &u32| {
        let Ok(files) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
            return false;
        };
        files.flatten().any(|file| {
            let link = std::fs::read_link(file.path()).unwrap_or_default();
            link.to_str().is_some_and(|link| sockets.contains(link))
        })
    };
    pids.filter(holds).collect()
}

/// The socket of a line of /proc/net/tcp that listens on `port`.
fn listening(line: &str, port: u16) -> Option<String> {
    let mut fields = line.split_whitespace();
    let local = fields.nth(1)?;
    let here = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
    let listens = fields.nth(1)? == "0A";
    let inode = fields.nth(5)?;
    (listens && here == port).then(|| format!("socket:[{inode}]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc_are_read_as_the_kernel_writes_them() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1 0 5 1 2 3";
        assert_eq!(ticks(stat), Some(Duration::from_secs(2)));
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0 100 0 0 10 0";
        assert_eq!(listening(line, 8_080).as_deref(), Some("socket:[4711]"));
        assert_eq!(listening(line, 8_081), None);
        assert_eq!(field("Name:\tx\nVmRSS:\t   123 kB\n", "VmRSS:"), Some(123));
    }

    #[test]
    fn a_server_is_its_first_process_and_all_below_it() {
        let parents = BTreeMap::from([(2, 1), (3, 2), (4, 3), (5, 1), (6, 5)]);
        let all = with_children(&BTreeSet::from([2]), &parents);
        assert_eq!(all, BTreeSet::from([2, 3, 4]));
    }

    #[test]
    fn a_child_that_works_is_seen_to_use_time_and_memory() {
        let mut child = std::process::Command::new("sh")
            .args([
                "-c",
                "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; read line",
            ])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let server = Server::Pid(child.id());
        let start = usage(&server.processes());
        assert!(start.rss_kib > 0 && start.processes == 1, "{start:?}");
        let mut now = start.clone();
        while now.cpu_since(&start) < Duration::from_millis(1) {
            assert_eq!(child.try_wait().unwrap(), None);
            now = usage(&server.processes());
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(usage(&[child.id()]).processes, 0);
    }

    #[test]
    fn a_port_of_this_process_is_no_server_to_measure() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let pids = parents().into_keys();
        assert_eq!(listeners(port, pids), BTreeSet::from([std::process::id()]));
        assert_eq!(Server::Port(port).processes(), Vec::<u32>::new());
    }
}
