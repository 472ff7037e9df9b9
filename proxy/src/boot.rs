//! The life of the process: configuration, parts, listeners, drain.

mod reload;
mod run;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use futures_util::future::join_all;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{self, Admin};
use crate::admission;
use crate::assemble::{self, Parts};
use crate::config::Config;
use crate::edge;
use crate::gateway::gateway_for;
use crate::handover::{self, Giver, Predecessor, Taking};
use crate::request_log;
use crate::runtime::Runtime;
use crate::serve::{self, Doors, Listener, Most, Settings};
use crate::telemetry;
use crate::upstream::Endpoint;
use crate::workers::Workers;

use reload::Both;
pub(crate) use reload::Reloads;
pub(crate) use run::run;
pub use run::{runtime, start_log};

/// How long connections on which nothing happens are kept for a last request when another process has taken
/// over: whoever is about to send one is answered.
const LAST_REQUEST: Duration = Duration::from_secs(5);

/// Connections that may wait to be accepted; the system has a limit of its own, which is no higher.
const BACKLOG: u32 = 4_096;

/// How long callers get to read that their streams are cut.
const TO_BE_READ: Duration = Duration::from_millis(500);

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
    doors: Doors,
    stop: CancellationToken,
    /// Another process has taken over; this one can not go on; the process before is gone.
    left: CancellationToken,
    lost: CancellationToken,
    alone: CancellationToken,
    /// The journal takes nothing any more.
    over: CancellationToken,
    workers: Arc<Workers>,
}

/// What a gateway starts from beside its configuration.
#[derive(Debug, Default)]
pub(crate) struct Origin {
    /// The file of the configuration.
    pub(crate) path: Option<PathBuf>,
    /// A program that guards servers of tools.
    pub(crate) guard: Option<PathBuf>,
    /// The callers' and the operators' listening sockets, where somebody else has made them.
    pub(crate) sockets: [Option<std::net::TcpListener>; 2],
    /// A process is at work, and is to be taken over from.
    pub(crate) take_over: bool,
}

/// Starts a gateway: everything that can fail does so before a port is bound.
pub async fn start(config: Config, path: Option<PathBuf>) -> anyhow::Result<Running> {
    let origin = Origin {
        path,
        ..Origin::default()
    };
    begin(config, origin).await
}

/// The same from elsewhere.
pub(crate) async fn begin(config: Config, origin: Origin) -> anyhow::Result<Running> {
    let metrics = telemetry::install();
    let log = request_log::open(&config.request_log).context("request_log")?;
    log.put();
    let settings = Both::new(&config).map_err(anyhow::Error::msg)?;
    let Origin {
        path,
        guard,
        sockets,
        take_over,
    } = origin;
    let opened = config.clone();
    let opening = move || open(&opened, guard, take_over);
    let (parts, taking) = tokio::task::spawn_blocking(opening).await??;
    let parts = Arc::new(parts);
    let collector = parts.shared.otlp.open(&config);
    let collector = collector.map_err(anyhow::Error::msg).context("otlp")?;
    parts.shared.otlp.put(collector);
    let (sockets, taking) = match taking {
        Some((sockets, taking)) => (sockets.map(Some), Some(taking)),
        None => (sockets, None),
    };
    let [callers, operators] = sockets;
    let callers = listening(callers, config.server.listen)?;
    let operators = listening(operators, config.admin.listen)?;
    let given = [callers.try_clone()?, operators.try_clone()?];
    let (pause, paused) = watch::channel(false);
    let reloads = Reloads::new(path, &parts, &settings, config.clone());
    let running = running(&config, reloads, &parts, [&callers, &operators], paused)?;
    let predecessor = match taking {
        // From here on this process has the store: nothing below may fail.
        Some(taking) => Some(tokio::task::spawn_blocking(move || taking.ready()).await??),
        None => None,
    };
    running.begin_work(predecessor);
    running.heed_the_journal();
    let operators = TcpListener::from_std(operators)?;
    running.serve_operators(operators, settings.operators, metrics);
    let callers = TcpListener::from_std(callers)?;
    running.serve_callers(callers, settings.callers, &config);
    running.wait_for_successors(&config.store.dir, given, pause);
    tracing::info!(address = %running.address, admin = %running.admin_address, take_over, "listening");
    Ok(running)
}

/// What [`begin`] makes before anything goes in or out.
fn running(
    config: &Config,
    reloads: Reloads,
    parts: &Arc<Parts>,
    [callers, operators]: [&std::net::TcpListener; 2],
    pause: watch::Receiver<bool>,
) -> anyhow::Result<Running> {
    let doors = Doors {
        draining: CancellationToken::new(),
        closed: CancellationToken::new(),
        cut: CancellationToken::new(),
        pause,
        open: Arc::new(AtomicUsize::new(0)),
    };
    let workers = Arc::new(Workers::start(config.server.workers).context("starting workers")?);
    Ok(Running {
        address: callers.local_addr()?,
        admin_address: operators.local_addr()?,
        parts: Arc::clone(parts),
        reloads: Arc::new(reloads),
        tasks: TaskTracker::new(),
        doors,
        stop: CancellationToken::new(),
        left: CancellationToken::new(),
        lost: CancellationToken::new(),
        alone: CancellationToken::new(),
        over: CancellationToken::new(),
        workers,
    })
}

/// The sockets of the process before, and what is left of taking over from it.
type TakenOver = ([std::net::TcpListener; 2], Taking);

/// Builds the parts; where a process is to be taken over from, in the moment in which it has let go of the
/// store, with all that needs no store done before.
fn open(
    config: &Config,
    guard: Option<PathBuf>,
    take_over: bool,
) -> anyhow::Result<(Parts, Option<TakenOver>)> {
    let runtime = Runtime::build(config, None)?;
    if !take_over {
        return Ok((assemble::parts(config, runtime, guard, None)?, None));
    }
    for target in &runtime.targets {
        // Reading an encoding takes some 50 ms.
        target.tokenizer.count("");
    }
    let (sockets, mut taking) = handover::ask(&config.store.dir)?;
    let estate = taking.take()?;
    let parts = assemble::parts(config, runtime, guard, Some(&estate))?;
    Ok((parts, Some((sockets, taking))))
}

/// A socket that listens: one that was given, or a new one at `address`.
fn listening(
    given: Option<std::net::TcpListener>,
    address: SocketAddr,
) -> anyhow::Result<std::net::TcpListener> {
    if let Some(socket) = given {
        let has = socket.local_addr().context("a socket that was given")?;
        if has != address && address.port() != 0 {
            tracing::warn!(%has, configured = %address, "the listening socket was given, and is kept");
        }
        socket.set_nonblocking(true)?;
        return Ok(socket);
    }
    let bound = bound(address);
    bound.with_context(|| format!("listening on {address}; is another process there?"))
}

/// A socket that listens at `address`. Libraries let 128 connections wait, and whoever comes when as many do is
/// dropped, and tries again only seconds later.
fn bound(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // Connections of the process before may still be on their way out.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

impl Running {
    /// Starts what runs beside the calls, and serves the calls' books of the process before.
    fn begin_work(&self, predecessor: Option<Predecessor>) {
        let parts = &self.parts;
        parts.start_chores(&self.tasks, &self.stop);
        let door = &parts.shared.admission;
        admission::watch(door, &self.workers, &self.tasks, &self.stop);
        if let Some(delegated) = &parts.tasks {
            delegated.start(&self.tasks, &self.doors.draining);
        }
        let shared = Arc::clone(&parts.shared);
        let alone = self.alone.clone();
        let Some(predecessor) = predecessor else {
            return alone.cancel();
        };
        self.tasks.spawn(async move {
            handover::serve(predecessor, &shared).await;
            alone.cancel();
        });
    }

    /// Lets nobody in once the journal takes nothing any more, and has streams end: what they cost would be
    /// written down by nobody.
    fn heed_the_journal(&self) {
        let (parts, doors) = (Arc::clone(&self.parts), self.doors.clone());
        let (over, stop) = (self.over.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            if stop
                .run_until_cancelled(parts.journal_over())
                .await
                .is_none()
            {
                return;
            }
            doors.draining.cancel();
            doors.closed.cancel();
            parts.shared.cut.store(true, Ordering::Relaxed);
            doors.cut.cancel();
            over.cancel();
        });
    }

    fn serve_callers(&self, callers: TcpListener, settings: Arc<Settings>, config: &Config) {
        let shared = Arc::clone(&self.parts.shared);
        let share = config.endpoints.iter().all(|it| it.http2);
        let listener = Listener {
            settings,
            application: Box::new(move |peer| gateway_for(Arc::clone(&shared), peer)),
            refuse: edge::refuse,
            most: Most::of_callers(&config.limits, share),
            tasks: self.tasks.clone(),
            doors: self.doors.clone(),
            workers: Some(Arc::clone(&self.workers)),
        };
        self.tasks.spawn(serve::accept(callers, listener));
    }

    fn serve_operators(
        &self,
        operators: TcpListener,
        settings: Arc<Settings>,
        metrics: PrometheusHandle,
    ) {
        let upkeep = upkeep(metrics.clone(), Arc::clone(&self.parts), self.stop.clone());
        self.tasks.spawn(upkeep);
        let router = admin::router(Admin {
            parts: Arc::clone(&self.parts),
            metrics,
            reloads: Arc::clone(&self.reloads),
            callers: self.doors.clone(),
        });
        let listener = Listener {
            settings,
            application: Box::new(move |peer| admin::application(router.clone(), peer)),
            refuse: admin::refuse,
            most: Most::of_operators(),
            tasks: self.tasks.clone(),
            doors: Doors {
                // Operators look on while calls end. Those who keep their connections make new ones once another
                // process has taken over.
                draining: self.left.clone(),
                closed: self.stop.clone(),
                open: Arc::default(),
                ..self.doors.clone()
            },
            // Beside the workers: what blocks here delays no call.
            workers: None,
        };
        self.tasks.spawn(serve::accept(operators, listener));
    }

    fn wait_for_successors(
        &self,
        dir: &Path,
        sockets: [std::net::TcpListener; 2],
        pause: watch::Sender<bool>,
    ) {
        let giver = Giver {
            parts: Arc::clone(&self.parts),
            sockets,
            pause,
            left: self.left.clone(),
            lost: self.lost.clone(),
        };
        let (dir, stop) = (dir.to_owned(), self.stop.clone());
        self.tasks
            .spawn(async move { handover::offer(&dir, giver, stop).await });
    }

    /// Stops taking calls, waits for those under way up to the drain's deadline or until `hurry`,
    /// and writes everything down. Returns how many calls were cut.
    pub async fn shut_down(self, hurry: impl Future<Output = ()>) -> usize {
        self.doors.draining.cancel();
        let delegated = self.parts.tasks.as_ref();
        if let Some(delegated) = delegated {
            delegated.drain();
        }
        let server = self.reloads.server();
        let deadline = tokio::time::sleep(Duration::from_secs(server.drain_s));
        tokio::select! {
            () = self.calm(Duration::from_millis(server.drain_lag_ms)) => {}
            () = deadline => tracing::warn!("calls outlasted the drain and are cut"),
            () = hurry => tracing::warn!("told to hurry; calls under way are cut"),
        }
        self.doors.closed.cancel();
        let cut = self.parts.shared.calls_in_flight();
        if cut > 0 {
            self.cut_streams().await;
        }
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
        // Nothing more is settled from here on.
        self.parts.shared.otlp.close().await;
        let parts = Arc::clone(&self.parts);
        let closed = tokio::task::spawn_blocking(move || parts.close()).await;
        tracing::info!(cut, written = closed.is_ok(), "stopped");
        cut
    }

    /// Ends once nothing is under way any more, here or in the process before.
    async fn calm(&self, lag: Duration) {
        if self.left.is_cancelled() {
            // Nobody new comes; who is here may have a request on the way.
            let until = tokio::time::Instant::now() + LAST_REQUEST;
            while self.doors.open.load(Ordering::Relaxed) > 0 && tokio::time::Instant::now() < until
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        } else {
            tokio::time::sleep(lag).await;
        }
        self.doors.closed.cancel();
        let delegated = self.parts.tasks.as_ref();
        let at_work = || delegated.is_some_and(|it| it.working() > 0);
        while self.parts.shared.calls_in_flight() > 0 || at_work() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.alone.cancelled().await;
    }

    /// Gives callers time to read that their calls have failed, once the journal is over.
    async fn give_up(&self) {
        tracing::error!(
            "the journal takes nothing any more: no call is taken, and the program ends"
        );
        self.cut_streams().await;
    }

    /// Has streams end with an error event, and gives their callers time to read it.
    async fn cut_streams(&self) {
        self.parts.shared.cut.store(true, Ordering::Relaxed);
        self.doors.cut.cancel();
        let until = tokio::time::Instant::now() + TO_BE_READ;
        while self.parts.shared.calls_in_flight() > 0 && tokio::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Reads the configuration file again; see [`Reloads::reload`].
    pub fn reload(&self) -> Result<(), String> {
        self.reloads.reload().map(drop)
    }
}

/// Sorts what histograms were told into their buckets: between two scrapes it takes memory. And closes
/// connections to endpoints that nobody needed for a while.
async fn upkeep(metrics: PrometheusHandle, parts: Arc<Parts>, stop: CancellationToken) {
    let pause = || tokio::time::sleep(Duration::from_secs(5));
    while stop.run_until_cancelled(pause()).await.is_some() {
        metrics.run_upkeep();
        let runtime = parts.shared.runtime.load_full();
        join_all(runtime.endpoints().map(Endpoint::sweep)).await;
    }
}
