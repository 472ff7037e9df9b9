//! A guardian between Pareto and a server of tools: a process whose only work is that nothing of the
//! server is left behind, not even when Pareto is killed. Linux only, as are its means.
//!
//! It adopts whatever its descendants orphan, and kills all of them when the server ends, when it is
//! told to (SIGTERM), or when its parent is gone.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, getppid, pidfd_open, pidfd_send_signal,
    set_child_subreaper, set_parent_process_death_signal, wait,
};
use tokio::signal::unix::{SignalKind, signal};

/// Between two looks for what is still alive.
const PAUSE: Duration = Duration::from_millis(2);
/// Looks before it gives up on what can not be killed, which is about four seconds.
const LOOKS: u32 = 2_000;

/// Runs a program with its arguments under guard and ends with its code; 127 where it could not be
/// started. `parent` is the process with which all of it ends; whoever started us, where it is not said.
pub fn run(parent: Option<u32>, command: Vec<OsString>) -> ExitCode {
    let done = Order::new(parent, command).and_then(|order| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.map_err(|error| GuardError::System("a runtime", error))?;
        runtime.block_on(order.carry_out())
    });
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // Nobody is left to tell when even standard error is gone.
            let _written = writeln!(std::io::stderr(), "pareto guard: {error}");
            ExitCode::from(127)
        }
    }
}

/// The words on the command line that make Pareto a guardian of `command`, for the process `parent`.
pub(super) fn words(parent: u32, command: &[String]) -> impl Iterator<Item = String> {
    let head = ["guard", "--parent", &parent.to_string(), "--"].map(str::to_owned);
    head.into_iter().chain(command.iter().cloned())
}

/// It could not be guarded.
#[derive(Debug, thiserror::Error)]
enum GuardError {
    #[error("there is no command to guard")]
    Nothing,
    #[error("starting `{0}`: {1}")]
    Start(String, std::io::Error),
    #[error("{0}: {1}")]
    System(&'static str, std::io::Error),
}

/// What is to be guarded.
struct Order {
    /// Who must live.
    parent: Option<Pid>,
    program: OsString,
    arguments: Vec<OsString>,
}

impl Order {
    fn new(parent: Option<u32>, command: Vec<OsString>) -> Result<Self, GuardError> {
        let named = parent.and_then(|id| Pid::from_raw(id.try_into().ok()?));
        let mut command = command.into_iter();
        Ok(Self {
            parent: named.or_else(getppid),
            program: command.next().ok_or(GuardError::Nothing)?,
            arguments: command.collect(),
        })
    }

    async fn carry_out(self) -> Result<u8, GuardError> {
        let listen = |kind| signal(kind).map_err(|error| GuardError::System("signals", error));
        let mut ended = listen(SignalKind::child())?;
        let mut told = listen(SignalKind::terminate())?;
        let mut bereft = listen(SignalKind::hangup())?;
        let system = |what| move |error: Errno| GuardError::System(what, error.into());
        set_child_subreaper(Some(getpid())).map_err(system("adopting orphans"))?;
        // The signal comes when the thread ends that started us, so it only makes us look.
        set_parent_process_death_signal(Some(Signal::HUP))
            .map_err(system("hearing of the parent's end"))?;
        if getppid() != self.parent {
            return Ok(0);
        }
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).process_group(0);
        let child = command
            .spawn()
            .map_err(|error| GuardError::Start(self.program.to_string_lossy().into(), error))?;
        let server = Pid::from_child(&child);
        let_go_of_pipes().map_err(|error| GuardError::System("standard streams", error))?;
        let mut code = None;
        loop {
            code = code.or(reap(server));
            if code.is_some() || getppid() != self.parent {
                break;
            }
            tokio::select! {
                _ = ended.recv() => {}
                _ = bereft.recv() => {}
                _ = told.recv() => break,
            }
        }
        for _ in 0..LOOKS {
            let left = kill_descendants();
            code = code.or(reap(server));
            if left == 0 && matches!(wait(WaitOptions::NOHANG), Err(Errno::CHILD)) {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(code.unwrap_or(128 + 9))
    }
}

/// Only the server is to hold the ends of the pipes, so that their closing tells of its end.
fn let_go_of_pipes() -> std::io::Result<()> {
    let nowhere = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&nowhere)?;
    rustix::stdio::dup2_stdout(&nowhere)?;
    Ok(())
}

/// Takes the ends of all that have ended, adopted ones too; the server's code if it is among them.
fn reap(server: Pid) -> Option<u8> {
    let mut code = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid == server {
            let signalled = || status.terminating_signal().map(|signal| 128 + signal);
            let number = status.exit_status().or_else(signalled);
            code = Some(number.and_then(|it| u8::try_from(it).ok()).unwrap_or(1));
        }
    }
    code
}

/// Kills every process below this one, and says how many there were. Parents go before their children,
/// so that none sees one die and starts another, or ends as if it were done.
fn kill_descendants() -> usize {
    let table = processes();
    let found = below(getpid(), &table);
    for pid in &found {
        // The descriptor stays with the process, so that a number that has been given to another one
        // since is not killed: who it is, is looked up once more behind it.
        let Ok(descriptor) = pidfd_open(*pid, PidfdFlags::empty()) else {
            continue;
        };
        let before = table.get(pid).map(|entry| entry.parent);
        let now = stat(*pid).map(|entry| entry.parent);
        let is_ours =
            now.is_some_and(|now| Some(now) == before || now == getpid() || found.contains(&now));
        if is_ours {
            // Whatever is gone by itself needs no signal.
            let _sent = pidfd_send_signal(&descriptor, Signal::KILL);
        }
    }
    found.len()
}

/// A process, as far as it matters here.
struct Entry {
    parent: Pid,
    /// It has ended and only waits to be reaped.
    is_zombie: bool,
}

/// Living processes below `root`, the nearest first.
fn below(root: Pid, table: &HashMap<Pid, Entry>) -> Vec<Pid> {
    let mut children: HashMap<Pid, Vec<Pid>> = HashMap::new();
    for (pid, entry) in table {
        children.entry(entry.parent).or_default().push(*pid);
    }
    let mut found = children.remove(&root).unwrap_or_default();
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        // Taken out, so that a table that was read while it changed has no circle.
        found.extend(children.remove(pid).unwrap_or_default());
        next += 1;
    }
    found.retain(|pid| *pid != root && table.get(pid).is_some_and(|entry| !entry.is_zombie));
    found
}

/// All processes that can be seen.
fn processes() -> HashMap<Pid, Entry> {
    let Ok(folder) = std::fs::read_dir("/proc") else {
        return HashMap::new();
    };
    let ids = folder.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    ids.filter_map(Pid::from_raw)
        .filter_map(|pid| Some((pid, stat(pid)?)))
        .collect()
}

fn stat(pid: Pid) -> Option<Entry> {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The name stands in brackets and may itself contain some.
    let (_, behind) = text.rsplit_once(')')?;
    let mut fields = behind.split_ascii_whitespace();
    let is_zombie = matches!(fields.next()?, "Z" | "X");
    let parent = Pid::from_raw(fields.next()?.parse().ok()?)?;
    Some(Entry { parent, is_zombie })
}
