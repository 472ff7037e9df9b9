//! The life of the process: configuration, parts, listeners, signals, drain.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{self, Admin};
use crate::assemble::{self, Parts};
use crate::config::{Config, Log, LogFormat};
use crate::gateway::gateway;
use crate::serve::{self, Listener};
use crate::telemetry;
use crate::workers::Workers;

/// A gateway that runs.
#[derive(Debug)]
pub struct Running {
    /// Where callers come in.
    pub address: SocketAddr,
    /// Where operators come in.
    pub admin_address: SocketAddr,
    pub parts: Arc<Parts>,
    reloads: Arc<Reloads>,
    tasks: TaskTracker,
    drain: CancellationToken,
    stop: CancellationToken,
    patience: Duration,
    workers: Arc<Workers>,
}

/// The configuration's file and how its last reload went.
#[derive(Debug)]
pub(crate) struct Reloads {
    path: Option<PathBuf>,
    parts: Arc<Parts>,
    last: Mutex<Option<String>>,
}

impl Reloads {
    /// Reads the file again. What is wrong with it is kept, logged and returned, and the
    /// configuration in force stays.
    pub(crate) fn reload(&self) -> Result<(), String> {
        let outcome = self.take();
        telemetry::reloaded(outcome.is_ok());
        match &outcome {
            Ok(()) => tracing::info!("took the new configuration"),
            Err(error) => {
                tracing::error!(
                    error,
                    "refused the new configuration; the last good one stays"
                );
            }
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = outcome.clone().err();
        outcome
    }

    fn take(&self) -> Result<(), String> {
        let path = self
            .path
            .as_ref()
            .ok_or("this gateway was started without a file")?;
        let config = Config::load(path).map_err(|invalid| invalid.to_string())?;
        self.parts
            .reload(&config)
            .map_err(|error| format!("{error:#}"))
    }

    /// Why the last reload was refused; `None` while the file is in force.
    pub(crate) fn last_error(&self) -> Option<String> {
        self.last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Starts a gateway: everything that can fail does so before a port is bound.
pub async fn start(config: Config, path: Option<PathBuf>) -> anyhow::Result<Running> {
    begin(config, path, None).await
}

/// The same with a program that guards servers of tools.
pub(crate) async fn begin(
    config: Config,
    path: Option<PathBuf>,
    guard: Option<PathBuf>,
) -> anyhow::Result<Running> {
    let metrics = telemetry::install();
    let tls = acceptor(&config)?;
    let opened = config.clone();
    let parts = tokio::task::spawn_blocking(move || assemble::parts(&opened, guard)).await??;
    let parts = Arc::new(parts);
    let tcp = bind(config.server.listen).await?;
    let admin_tcp = bind(config.admin.listen).await?;
    let (address, admin_address) = (tcp.local_addr()?, admin_tcp.local_addr()?);
    let (tasks, drain, stop) = (
        TaskTracker::new(),
        CancellationToken::new(),
        CancellationToken::new(),
    );
    tasks.spawn(upkeep(metrics.clone(), Arc::clone(&parts), stop.clone()));
    let reloads = Arc::new(Reloads {
        path,
        parts: Arc::clone(&parts),
        last: Mutex::new(None),
    });
    let admin = Admin {
        parts: Arc::clone(&parts),
        metrics,
        reloads: Arc::clone(&reloads),
        draining: drain.clone(),
    };
    let app = admin::router(admin);
    let admin_stop = stop.clone();
    tasks.spawn(async move {
        let serving =
            axum::serve(admin_tcp, app).with_graceful_shutdown(admin_stop.cancelled_owned());
        if let Err(error) = serving.await {
            tracing::error!(%error, "the admin listener ended");
        }
    });
    parts.start_chores(&tasks, &stop);
    if let Some(delegated) = &parts.tasks {
        delegated.start(&tasks, &drain);
    }
    let workers = Arc::new(Workers::start(config.server.workers).context("starting workers")?);
    let listener = Listener {
        tls,
        limits: config.limits.clone(),
        gateway: gateway(Arc::clone(&parts.shared)),
        tasks: tasks.clone(),
        drain: drain.clone(),
        workers: Arc::clone(&workers),
    };
    tasks.spawn(serve::accept(tcp, listener));
    tracing::info!(%address, admin = %admin_address, "listening");
    let patience = Duration::from_secs(config.server.drain_s);
    Ok(Running {
        address,
        admin_address,
        parts,
        reloads,
        tasks,
        drain,
        stop,
        patience,
        workers,
    })
}

impl Running {
    /// Stops taking calls, waits for those under way up to the drain's deadline or until `hurry`,
    /// and writes everything down. Returns how many calls were cut.
    pub async fn shut_down(self, hurry: impl Future<Output = ()>) -> usize {
        self.drain.cancel();
        let delegated = self.parts.tasks.as_ref();
        if let Some(delegated) = delegated {
            delegated.drain();
        }
        let at_work = || delegated.is_some_and(|it| it.working() > 0);
        let deadline = tokio::time::sleep(self.patience);
        let calls = async {
            while self.parts.shared.calls_in_flight() > 0 || at_work() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            () = calls => {}
            () = deadline => tracing::warn!("calls outlasted the drain and are cut"),
            () = hurry => tracing::warn!("told to hurry; calls under way are cut"),
        }
        let cut = self.parts.shared.calls_in_flight();
        self.stop.cancel();
        self.tasks.close();
        // Idle connections end at once; whatever else is still open is dropped with its worker, which
        // settles the calls that are cut.
        let ended = tokio::time::timeout(Duration::from_secs(2), self.tasks.wait()).await;
        tracing::debug!(all = ended.is_ok(), "connections ended");
        let workers = Arc::clone(&self.workers);
        let _ended = tokio::task::spawn_blocking(move || workers.end()).await;
        if let Some(delegated) = delegated {
            delegated.stop().await;
        }
        let parts = Arc::clone(&self.parts);
        let closed = tokio::task::spawn_blocking(move || parts.close()).await;
        tracing::info!(cut, written = closed.is_ok(), "stopped");
        cut
    }

    /// Reads the configuration file again; see [`Reloads::reload`].
    pub fn reload(&self) -> Result<(), String> {
        self.reloads.reload()
    }
}

/// What callers' connections are encrypted with, if they are.
fn acceptor(config: &Config) -> anyhow::Result<Option<TlsAcceptor>> {
    let (Some(certificate), Some(key)) = (&config.server.tls_cert, &config.server.tls_key) else {
        return Ok(None);
    };
    let made = serve::tls(certificate, key);
    made.map(Some)
        .map_err(|error| anyhow::anyhow!("TLS: {error}"))
}

/// Sorts what histograms were told into their buckets: between two scrapes it takes memory. And closes
/// connections to endpoints that nobody needed for a while.
async fn upkeep(metrics: PrometheusHandle, parts: Arc<Parts>, stop: CancellationToken) {
    let pause = || tokio::time::sleep(Duration::from_secs(5));
    while stop.run_until_cancelled(pause()).await.is_some() {
        metrics.run_upkeep();
        for target in &parts.shared.runtime.load().targets {
            target.endpoint.sweep();
        }
    }
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {address}; is another process there?"))
}

/// Runs until SIGTERM or SIGINT; a second one hurries. SIGHUP reloads.
pub async fn run(config: Config, path: PathBuf) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    // This program is its own guard of what it starts.
    let guard = std::env::current_exe().ok();
    let running = begin(config, Some(path), guard).await?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => {
                let reloads = Arc::clone(&running.reloads);
                // The outcome is logged and kept for the admin API.
                let _told = tokio::task::spawn_blocking(move || reloads.reload()).await;
            }
        }
    }
    tracing::info!("draining");
    let hurry = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    running.shut_down(hurry).await;
    Ok(())
}

/// Starts logging to standard error. A second call in one process changes nothing.
pub fn start_log(log: &Log) {
    use tracing_subscriber::EnvFilter;
    // The library that speaks to tool servers writes whole messages at its lower levels.
    let quiet = |level: &str| format!("rmcp=error,{level}");
    let filter =
        EnvFilter::try_new(quiet(&log.level)).unwrap_or_else(|_| EnvFilter::new(quiet("info")));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = match log.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    drop(started);
}

/// A runtime with one worker a core.
pub fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().build().context("starting the runtime")
}
