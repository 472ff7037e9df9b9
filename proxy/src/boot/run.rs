//! The program's run: signals, service managers, and the process that takes over.

use std::ffi::OsString;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::layer::{Layer, Layered, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

use super::{Origin, begin};
use crate::config::{Config, Log, LogFormat};
use crate::serve::descriptors;
use crate::{panics, request_log};

/// The word on the command line by which a new process takes over.
const TAKE_OVER: &str = "--take-over";

/// The signals that the program listens to.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    /// Somebody has renamed the request log.
    rotated: Signal,
    /// A new process of the program at this one's path is to take over.
    upgrade: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            rotated: signal(SignalKind::user_defined1())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }
}

/// Runs until SIGTERM or SIGINT; a second one hurries. SIGHUP reloads, SIGUSR1 opens the request log anew,
/// SIGUSR2 has a new process take over.
pub(crate) async fn run(config: Config, origin: Origin) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    descriptors::raise();
    // What is kept of conversations is for this user alone, in a folder as wide as somebody has made it.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    // Before somebody puts another program in its place.
    let program = program();
    let is_take_over = origin.take_over;
    let running = begin(config, origin).await?;
    let (left, lost) = (running.left.clone(), running.lost.clone());
    let over = running.over.clone();
    let process = std::process::id();
    notify(&if is_take_over {
        format!("MAINPID={process}\nREADY=1")
    } else {
        "READY=1".to_owned()
    });
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => break notify("STOPPING=1"),
            _ = signals.interrupt.recv() => break notify("STOPPING=1"),
            () = left.cancelled() => break,
            () = lost.cancelled() => anyhow::bail!("a take-over has failed half-way; start again"),
            () = over.cancelled() => {
                running.give_up().await;
                anyhow::bail!("the journal has failed; mend the disk and start again: a start reads what is there");
            }
            _ = signals.rotated.recv() => request_log::reopen(),
            _ = signals.upgrade.recv() => upgrade(program.as_deref()),
            _ = signals.hang_up.recv() => {
                let reloads = Arc::clone(&running.reloads);
                // The outcome is logged and kept for the admin API.
                let _told = tokio::task::spawn_blocking(move || reloads.reload()).await;
            }
        }
    }
    tracing::info!("draining");
    let hurry = async {
        tokio::select! {
            _ = signals.terminate.recv() => {}
            _ = signals.interrupt.recv() => {}
        }
    };
    running.shut_down(hurry).await;
    Ok(())
}

/// Where this program was started from: links in the path are not followed, so that they may lead to another
/// program by the time a new process is started.
fn program() -> Option<PathBuf> {
    let called = PathBuf::from(std::env::args_os().next()?);
    if called.components().count() > 1 {
        return std::path::absolute(called).ok();
    }
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path).map(|folder| folder.join(&called));
    found
        .filter(|path| path.is_file())
        .find_map(|path| std::path::absolute(path).ok())
        .or_else(|| std::env::current_exe().ok())
}

/// Starts `program` with the arguments of this process, to take over. How it goes is told by the one that is
/// left.
fn upgrade(program: Option<&Path>) {
    let Some(program) = program else {
        return tracing::error!("where this program was started from is not known");
    };
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if !arguments.iter().any(|it| it == TAKE_OVER) {
        arguments.push(TAKE_OVER.into());
    }
    let started = Command::new(program).args(arguments).spawn();
    let mut child = match started.with_context(|| format!("starting {}", program.display())) {
        Ok(child) => child,
        Err(error) => {
            return tracing::error!(error = %format!("{error:#}"), "no new process; this one goes on");
        }
    };
    tracing::info!(process = child.id(), program = %program.display(), "started a new process");
    // A thread that this process does not wait for when it ends: the new one outlives it.
    let watching = std::thread::Builder::new().spawn(move || match child.wait() {
        Ok(status) if status.success() => {}
        Ok(status) => tracing::error!(%status, "the new process has ended; this one goes on"),
        Err(error) => {
            tracing::error!(%error, "the end of the new process was not seen; this one goes on");
        }
    });
    if let Err(error) = watching {
        tracing::warn!(%error, "the end of the new process will not be seen");
    }
}

/// Tells the service manager, where there is one that wants to know.
fn notify(state: &str) {
    let Some(address) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    if let Err(error) = tell(&address, state) {
        tracing::warn!(%error, "the service manager can not be told");
    }
}

fn tell(address: &std::ffi::OsStr, state: &str) -> std::io::Result<()> {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::SocketAddr;
    let address = match address.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(address)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.send_to_addr(state.as_bytes(), &address).map(drop)
}

/// Lines as one of the formats makes them.
type Lines = Box<dyn Layer<Registry> + Send + Sync>;

/// What of the log can be changed.
struct Logging {
    filter: reload::Handle<EnvFilter, Layered<reload::Layer<Lines, Registry>, Registry>>,
    lines: reload::Handle<Lines, Registry>,
}

static LOGGING: OnceLock<Logging> = OnceLock::new();

/// Starts logging to standard error. A second call in one process changes nothing.
pub fn start_log(log: &Log) {
    let (lines, lines_handle) = reload::Layer::new(lines(log.format));
    let (filter, filter_handle) = reload::Layer::new(filter(log));
    let started = tracing_subscriber::registry().with(lines).with(filter);
    if started.try_init().is_ok() {
        let logging = Logging {
            filter: filter_handle,
            lines: lines_handle,
        };
        // It is the first that was started.
        drop(LOGGING.set(logging));
        panics::tell();
    }
}

/// Takes another level and format.
pub(super) fn set_log(log: &Log) {
    let Some(logging) = LOGGING.get() else { return };
    let changed = logging.lines.reload(lines(log.format));
    if let Err(error) = changed.and_then(|()| logging.filter.reload(filter(log))) {
        tracing::warn!(%error, "the log stays as it is");
    }
}

fn filter(log: &Log) -> EnvFilter {
    // The library that speaks to tool servers writes whole messages at its lower levels.
    let quiet = |level: &str| format!("rmcp=error,{level}");
    EnvFilter::try_new(quiet(&log.level)).unwrap_or_else(|_| EnvFilter::new(quiet("info")))
}

fn lines(format: LogFormat) -> Lines {
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    }
}

/// A runtime with one worker a core.
pub fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().build().context("starting the runtime")
}
