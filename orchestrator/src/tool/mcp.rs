//! A server of tools that speaks MCP: started when it is first needed, shared by all calls, started
//! again when it has died, and left alone for a while when it keeps failing.

mod breaker;
mod handler;
mod http;
mod lease;
mod process;
mod request;
mod result;
mod session;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::breaker::Breaker;
use self::request::{Failed, Limits};
use self::session::{Connection, Session, Style};
use super::config::ServerConfig;
use super::{Definition, Manifest, Outcome, ToolCall, ToolResult};
use crate::outbound::Outbound;

/// How long a list of tools may take, which is also how a server shows that it is alive.
const LISTING: Duration = Duration::from_secs(5);

/// What servers need of the world.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) outbound: Outbound,
    pub(super) tracker: TaskTracker,
    pub(super) guard: Option<PathBuf>,
}

/// A server, running or not.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) config: ServerConfig,
    world: World,
    slots: Semaphore,
    link: Mutex<Link>,
    stop: CancellationToken,
}

#[derive(Debug, Default)]
struct Link {
    current: Option<Connecting>,
    breaker: Breaker,
    /// How it wants to be greeted, once that is known.
    style: Style,
    /// What it offered last, for those who only want to look.
    last: Option<Arc<Vec<Definition>>>,
}

/// A place for one call: the connection, and the tools as they are on it.
#[derive(Debug)]
pub(super) struct Place<'a> {
    connection: Arc<Connection>,
    tools: Arc<Vec<Definition>>,
    _slot: SemaphorePermit<'a>,
}

impl Place<'_> {
    pub(super) fn tools(&self) -> &[Definition] {
        &self.tools
    }
}

/// A connection that is there or on its way, for all who want it.
type Connecting = Shared<BoxFuture<'static, Result<Arc<Connection>, Arc<str>>>>;

impl Server {
    pub(super) fn new(config: ServerConfig, world: World, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            slots: Semaphore::new(config.concurrency.max(1)),
            config,
            world,
            link: Mutex::default(),
            stop,
        })
    }

    /// Its tools, listed no longer than `max_age` ago and not announced to have changed since. Starts
    /// the server where it does not run.
    ///
    /// # Errors
    /// Why they can not be had, for people.
    pub(super) async fn tools(
        self: &Arc<Self>,
        max_age: Duration,
        deadline: Instant,
    ) -> Result<Arc<Vec<Definition>>, String> {
        let ready = self.ready(max_age, deadline).await;
        ready.map(|(_, tools)| tools)
    }

    /// What it offered when it was last asked, without asking.
    pub(super) fn last(&self) -> Option<Arc<Vec<Definition>>> {
        self.link().last.clone()
    }

    /// The deadline of a start that begins now.
    pub(super) fn start_deadline(&self) -> Instant {
        after(self.config.start())
    }

    /// A place for a call, on a connection whose tools are known.
    ///
    /// # Errors
    /// Why there is none, for people.
    pub(super) async fn place(self: &Arc<Self>, deadline: Instant) -> Result<Place<'_>, String> {
        let waited = timeout_at(deadline, self.slots.acquire()).await;
        let Ok(Ok(slot)) = waited else {
            return Err(self.tell("all of its places are taken"));
        };
        let start = deadline.min(self.start_deadline());
        let (connection, tools) = self.ready(Duration::MAX, start).await?;
        Ok(Place {
            connection,
            tools,
            _slot: slot,
        })
    }

    /// Makes a call of one of its tools, whose name it knows, in a place that was looked at before.
    pub(super) async fn call(
        &self,
        place: &Place<'_>,
        tool: &str,
        manifest: &Manifest,
        call: &ToolCall,
        deadline: Instant,
    ) -> Outcome {
        let Some(arguments) = call.arguments.as_object() else {
            return Outcome::NotSent("the arguments are no object".to_owned());
        };
        let mut arguments = arguments.clone();
        if let Some(name) = &manifest.key_argument {
            arguments.insert(name.clone(), call.key.clone().into());
        }
        let hard = after(Duration::from_millis(self.config.hard_call_ms));
        let limits = Limits {
            idle: Duration::from_millis(self.config.call_ms),
            until: deadline.min(hard),
        };
        let connection = &place.connection;
        let outcome = connection
            .call(tool, arguments, &call.key, &call.until, limits)
            .await;
        self.judge(outcome, connection)
    }

    /// Counts a call, and puts what came of it into the words of tasks.
    fn judge(&self, outcome: Result<Outcome, Failed>, connection: &Connection) -> Outcome {
        let now = Instant::now();
        let mut link = self.link();
        match outcome {
            Ok(outcome) => {
                link.breaker.answered();
                outcome
            }
            Err(Failed::Refused(text)) => {
                link.breaker.answered();
                drop(link);
                Outcome::Done(ToolResult::error(self.tell(&text)))
            }
            Err(Failed::Fenced(text)) => Outcome::NotSent(text),
            Err(Failed::NotSent(text)) => {
                link.breaker.call_failed(now);
                drop(link);
                Outcome::NotSent(self.tell(&text))
            }
            Err(Failed::Late(text)) => {
                link.breaker.call_failed(now);
                drop(link);
                // It has to show that it is alive before it gets another call.
                connection.set_stale();
                Outcome::Lost(self.tell(&text))
            }
            Err(Failed::Lost(text)) => {
                link.breaker.call_failed(now);
                drop(link);
                Outcome::Lost(self.tell(&text))
            }
        }
    }

    /// A connection whose list of tools is good, and that list.
    async fn ready(
        self: &Arc<Self>,
        max_age: Duration,
        deadline: Instant,
    ) -> Result<(Arc<Connection>, Arc<Vec<Definition>>), String> {
        let mut why = String::new();
        // A server that has stopped to answer is started anew, once.
        for _ in 0..2 {
            let connection = self.connection(deadline).await?;
            let until = deadline.min(after(LISTING));
            match connection.tools(max_age, until).await {
                Ok(tools) => {
                    self.link().last = Some(Arc::clone(&tools));
                    return Ok((connection, tools));
                }
                Err(failed) => {
                    why = self.tell(&failed.into_text());
                    if !connection.retire_if_idle() {
                        return Err(why);
                    }
                }
            }
        }
        Err(why)
    }

    /// The connection, which is made where there is none.
    async fn connection(self: &Arc<Self>, deadline: Instant) -> Result<Arc<Connection>, String> {
        let connecting = self.connecting()?;
        match timeout_at(deadline, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(why)) => Err(why.as_ref().to_owned()),
            Err(_) => Err(self.tell("it has not started in time")),
        }
    }

    fn connecting(self: &Arc<Self>) -> Result<Connecting, String> {
        let mut link = self.link();
        if let Some(current) = &link.current {
            let is_good = match current.peek() {
                None => true,
                Some(Ok(connection)) => connection.is_alive(),
                Some(Err(_)) => false,
            };
            if is_good {
                return Ok(current.clone());
            }
        }
        if self.stop.is_cancelled() {
            return Err(self.tell("the host of servers has stopped"));
        }
        let now = Instant::now();
        if let Some(left) = link.breaker.refuses(now) {
            let seconds = left.as_secs().saturating_add(1);
            return Err(self.tell(&format!(
                "it has failed too often and is left alone for {seconds} s more"
            )));
        }
        let (ready, wait) = oneshot::channel();
        let pause = link.breaker.pause(now);
        let run = Arc::clone(self).run(pause, link.style, ready);
        self.world.tracker.spawn(run);
        let gone: Arc<str> = self.tell("its start was broken off").into();
        let connecting = wait
            .map(move |started| started.unwrap_or(Err(gone)))
            .boxed()
            .shared();
        link.current = Some(connecting.clone());
        Ok(connecting)
    }

    /// The life of one connection, from its start to its last process.
    async fn run(
        self: Arc<Self>,
        pause: Duration,
        style: Style,
        ready: oneshot::Sender<Result<Arc<Connection>, Arc<str>>>,
    ) {
        let start = async {
            sleep(pause).await;
            timeout(self.config.start(), self.greet(style)).await
        };
        let started = match self.stop.run_until_cancelled(start).await {
            Some(Ok(started)) => started,
            Some(Err(_)) => Err(format!(
                "it has not started within {} ms",
                self.config.start_ms
            )),
            None => Err("the host of servers has stopped".to_owned()),
        };
        match started {
            Ok((session, style)) => {
                {
                    let mut link = self.link();
                    link.breaker.started();
                    link.style = style;
                    link.last = Some(session.connection().listed());
                }
                tracing::info!(server = self.config.name, "a tool server has started");
                // Nobody may be waiting any more; whoever comes next finds it.
                let _told = ready.send(Ok(session.connection()));
                session.keep(&self.stop).await;
                tracing::info!(server = self.config.name, "a tool server has ended");
            }
            Err(why) => {
                self.link().breaker.start_failed(Instant::now());
                let why = self.tell(&why);
                tracing::warn!(why, "a tool server did not start");
                let _told = ready.send(Err(why.into()));
            }
        }
    }

    /// Starts it: in the newest way first, then as servers of old want it.
    async fn greet(&self, style: Style) -> Result<(Session, Style), String> {
        let first = Session::start(&self.config, &self.world, style).await;
        match (first, style) {
            (Ok(session), style) => Ok((session, style)),
            (Err(error), Style::Newest) if error.may_be_old => {
                let second = Session::start(&self.config, &self.world, Style::Initialize).await;
                // What was wrong at first is more telling where both fail.
                second
                    .map(|session| (session, Style::Initialize))
                    .map_err(|_| error.what)
            }
            (Err(error), _) => Err(error.what),
        }
    }

    /// What is said of it, with its name and without its secrets.
    fn tell(&self, what: &str) -> String {
        self.config
            .mask(&format!("tool server `{}`: {what}", self.config.name))
    }

    fn link(&self) -> std::sync::MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The instant after a time from now; the far future where that can not be said.
fn after(time: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(time)
        .or_else(|| now.checked_add(Duration::from_hours(24)))
        .unwrap_or(now)
}
