//! Where tasks meet the gateway: their log and tools, the models they call, and what people ask of them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use http::header::HOST;
use http::{HeaderValue, Request, Response};
use meter::{Ledger, Subject};
use orchestrator::actor::{Ports, Settled, Threads};
use orchestrator::log::TaskLogError;
use orchestrator::news::{News, Told};
use orchestrator::next::Policy;
use orchestrator::skill::{Layer, Library};
use orchestrator::tool::builtin::{self, Builtins};
use orchestrator::tool::host;
use orchestrator::worker::Settings;
use orchestrator::{
    Caller, Desk, Digest, TaskLog, Toolbox, Tools, Usd, Worker, desk, notices, outcomes, schedules,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;
use tower::util::BoxCloneSyncService;
use wire::RequestId;

use crate::assemble::is_there;
use crate::clock::now_ms;
use crate::config::Config;
use crate::gateway::{self, Body, Gateway, Shared};
use crate::identify::{Stranger, Vouched};
use crate::kept;
use crate::outbound;
use crate::refusal;

use super::Asking;

pub(crate) use orchestrator::api::{PATHS, is_task_model, is_task_response};
pub(crate) use orchestrator::notices::Notice;

/// How often tasks are looked for that other nodes have made or given back.
const POLL: Duration = Duration::from_millis(500);
/// Ends of tasks that the ledger is told of at a time.
const OUTCOMES: u32 = 200;
/// Links of a chain that are read at a time.
const LINKS: u32 = 500;
/// How often, and how long apart, a hold is looked at that an earlier process left open.
const SETTLING_TRIES: u32 = 20;
const SETTLING: Duration = Duration::from_millis(100);
/// How long servers of tools get to end.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// Tasks, put together.
pub struct Tasks {
    pub log: Arc<dyn TaskLog>,
    pub desk: Arc<Desk>,
    pub worker: Arc<Worker>,
    toolbox: Arc<Toolbox>,
    policy: Arc<ArcSwap<Policy>>,
    /// Servers of tools run in here.
    servers: TaskTracker,
}

impl std::fmt::Debug for Tasks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tasks")
            .field("worker", &self.worker)
            .finish_non_exhaustive()
    }
}

/// Puts tasks together over the gateway; none where the configuration says so. `guard` is a program that
/// guards servers of tools. Where it is not alone, an earlier process gives back its tasks itself.
pub(crate) fn tasks(
    config: &Config,
    shared: &Arc<Shared>,
    guard: Option<PathBuf>,
    is_alone: bool,
) -> anyhow::Result<Option<Tasks>> {
    let own = &config.orchestrator;
    if !own.enabled {
        return Ok(None);
    }
    let log = store::open_task_log(&config.store).context("opening the log of tasks")?;
    let left = if is_alone {
        let left = log.take_back(shared.ledger.node());
        left.context("taking up the tasks of an earlier process")?
    } else {
        0
    };
    if left > 0 {
        tracing::info!(
            tasks = left,
            "took up tasks that an earlier process died with"
        );
    }
    let news = News::default();
    let log: Arc<dyn TaskLog> = Arc::new(Told::new(Arc::new(log), news.clone()));
    let servers = TaskTracker::new();
    let toolbox = Arc::new(toolbox(config, &log, &servers, guard)?);
    let policy = Arc::new(ArcSwap::from_pointee(own.policy(&config.policy.labels)));
    let in_force = Arc::clone(&policy);
    let secret = if let Some(secret) = &own.secret {
        secret.expose().as_bytes().to_vec()
    } else {
        let kept = kept::secret(&config.store.dir.join("tasks.secret"))?;
        kept.expose().as_bytes().to_vec()
    };
    let ports = Arc::new(Ports {
        log: Arc::clone(&log),
        tools: Arc::clone(&toolbox) as Arc<dyn Tools>,
        models: models(shared),
        settled: settled(shared),
        clock: Arc::new(now_ms),
        random: Arc::new(random),
        policy: Arc::new(move || Policy::clone(&in_force.load())),
        secret,
        threads: Threads::Pool,
        call_within: Duration::from_secs(own.tool_call_s),
    });
    let settings = Settings {
        node: shared.ledger.node().to_owned(),
        tasks: own.workers,
        lease: own.lease(),
        poll: POLL,
    };
    let worker = Worker::new(ports, settings);
    let webhooks = config.webhooks.iter().filter_map(|hook| hook.name.clone());
    let settings = desk::Settings {
        webhooks: webhooks.collect::<BTreeSet<_>>(),
    };
    let desk = Desk::new(Arc::clone(&worker), Arc::clone(&toolbox), news, settings);
    // There is one set of tasks for one gateway, so this is the first.
    let _first = shared.api.set(api(&desk));
    Ok(Some(Tasks {
        log,
        desk,
        worker,
        toolbox,
        policy,
        servers,
    }))
}

/// Servers of tools, workspaces and skills. Nothing is started before a task needs it.
fn toolbox(
    config: &Config,
    log: &Arc<dyn TaskLog>,
    servers: &TaskTracker,
    guard: Option<PathBuf>,
) -> anyhow::Result<Toolbox> {
    let own = &config.orchestrator;
    let wrong = |error: String| anyhow::anyhow!("the way out to tools: {error}");
    let parts = host::Parts {
        log: Arc::clone(log),
        outbound: outbound::any(&config.upstream).map_err(wrong)?,
        tracker: servers.clone(),
        guard,
    };
    let host = Arc::new(host::Host::new(config.mcps.clone(), parts));
    let workspace = own.workspace.clone();
    let builtins = Builtins::new(
        workspace.unwrap_or_else(|| config.store.dir.join("work")),
        builtin::Limits::default(),
        own.fetch.clone(),
        outbound::public_only(&config.upstream).map_err(wrong)?,
    );
    let dirs = own.skills.iter().map(|dir| (Layer::Tenant, dir.clone()));
    let library = Library::open(&dirs.collect::<Vec<_>>());
    for problem in &library.problems {
        tracing::warn!(path = %problem.path.display(), what = problem.what, "a skill is not taken");
    }
    Ok(Toolbox::new(host, builtins, library))
}

fn random() -> [u8; 10] {
    let mut random = [0; 10];
    // Without randomness ids of one millisecond would be the same; the log refuses the second.
    let _filled = getrandom::fill(&mut random);
    random
}

/// The gateway for tasks: a call bears no key but the caller that was known when its task began, who is
/// looked up anew each time.
fn models(shared: &Arc<Shared>) -> Gateway {
    // The gateway owns the tasks; they must not keep it alive.
    let shared: Weak<Shared> = Arc::downgrade(shared);
    BoxCloneSyncService::new(tower::service_fn(move |mut request: Request<Body>| {
        let shared = shared.upgrade();
        async move {
            let Some(shared) = shared else {
                return Ok(refusal::json(503, "{}".to_owned()));
            };
            let caller = request.extensions_mut().remove::<Caller>();
            let vouched = Vouched(subject(&shared, caller.as_ref()));
            request.extensions_mut().insert(vouched);
            let host = HeaderValue::from_static("localhost");
            request.headers_mut().insert(HOST, host);
            Ok(gateway::answer(shared, request, None).await)
        }
    }))
}

/// What a call cost that an earlier process of this node has made; its journal was read before this one began
/// to work. A hold of it that is still open is about to be settled.
fn settled(shared: &Arc<Shared>) -> Settled {
    let (ledger, began_ms) = (Arc::clone(&shared.ledger), now_ms());
    Arc::new(move |request| {
        let ledger = Arc::clone(&ledger);
        let known = async move {
            let request: RequestId = request.parse().ok()?;
            if request.unix_ms() >= began_ms {
                return None;
            }
            for _ in 0..SETTLING_TRIES {
                let ledger = Arc::clone(&ledger);
                let asked = tokio::task::spawn_blocking(move || ledger.call(request));
                let (entries, open) = asked.await.ok()?.ok()?;
                if open.is_empty() {
                    return Some(Usd(entries.iter().map(|entry| entry.cost.0).sum()));
                }
                tokio::time::sleep(SETTLING).await;
            }
            None
        };
        Box::pin(known)
    })
}

/// Who pays for a task's call: its caller's key as it is now. What the operator begins for a tenant has no
/// key.
fn subject(shared: &Shared, caller: Option<&Caller>) -> Result<Subject, Stranger> {
    let caller = caller.ok_or(Stranger::NoKey)?;
    if caller.is_operator && caller.key.is_empty() && !caller.tenant.is_empty() {
        let it = caller;
        return Ok(Subject::of_key(&it.tenant, &it.team, &it.project, ""));
    }
    let subject = shared.keys.known(&caller.key)?;
    if *subject.tenant == *caller.tenant {
        Ok(subject)
    } else {
        Err(Stranger::WrongKey)
    }
}

/// The surface of tasks, for callers whom the gateway knows.
fn api(desk: &Arc<Desk>) -> Gateway {
    let inner = orchestrator::api::service(Arc::clone(desk));
    BoxCloneSyncService::new(tower::service_fn(move |mut request: Request<Body>| {
        let mut inner = inner.clone();
        if let Some(asking) = request.extensions_mut().remove::<Asking>() {
            request.extensions_mut().insert(caller(&asking));
        }
        async move {
            let answer: Result<Response<Body>, _> = inner.call(request).await;
            answer
        }
    }))
}

fn caller(asking: &Asking) -> Caller {
    let subject = &asking.subject;
    Caller {
        tenant: subject.tenant.to_string(),
        team: subject.team.to_string(),
        project: subject.project.to_string(),
        key: subject.key.to_string(),
        user: subject.user.to_string(),
        is_operator: asking.is_operator,
    }
}

impl Tasks {
    /// Begins to work on tasks and to fire schedules, until `drain`.
    pub(crate) fn start(&self, tracker: &TaskTracker, drain: &CancellationToken) {
        self.worker.start(tracker, drain);
        tracker.spawn(schedules::run(Arc::clone(&self.desk), drain.clone()));
    }

    /// Ends streams of events. Actors end what they have under way and give their tasks back.
    pub(crate) fn drain(&self) {
        self.desk.close();
    }

    /// How many tasks are worked on here.
    pub(crate) fn working(&self) -> usize {
        self.worker.working()
    }

    /// Stops the servers of tools, and waits for their ends for a while.
    pub(crate) async fn stop(&self) {
        self.toolbox.stop();
        self.servers.close();
        let ended = tokio::time::timeout(ENDS_WITHIN, self.servers.wait()).await;
        if ended.is_err() {
            tracing::warn!("servers of tools have not ended in time");
        }
    }

    /// Takes what a new configuration says of tasks.
    pub(crate) fn reload(&self, config: &Config) {
        let policy = config.orchestrator.policy(&config.policy.labels);
        self.policy.store(Arc::new(policy));
    }

    /// How tasks ended, for the ledger.
    pub(crate) fn outcomes(&self) -> Outcomes {
        Outcomes(Arc::clone(&self.log))
    }

    /// Notices for whoever posts them.
    pub(crate) fn notices(&self) -> Notices {
        Notices(Arc::clone(&self.log))
    }
}

/// Looks through the log of tasks of every tenant, without a gateway. Where a `head` is given, the answer
/// says whether it is still a link of a chain. Blocks.
pub(crate) fn audit(config: &Config, head: Option<&str>) -> anyhow::Result<Value> {
    let head: Option<Digest> = match head {
        Some(text) => Some(text.parse().map_err(|_| {
            anyhow::anyhow!("`{text}` is no digest; give a head as `audit verify` printed it")
        })?),
        None => None,
    };
    is_there(config)?;
    let log = store::open_task_log(&config.store).context("opening the log of tasks")?;
    let mut reports = Vec::new();
    let mut is_known = false;
    for tenant in log.tenants()? {
        reports.push(orchestrator::audit::verify(&log, &tenant)?);
        if let Some(head) = head {
            is_known |= has_link(&log, &tenant, head)?;
        }
    }
    let ok = reports.iter().all(|report| report.ok);
    Ok(json!({
        "object": "audit.report", "ok": ok, "tenants": reports,
        "head_is_known": head.map(|_| is_known),
    }))
}

/// Whether a tenant's chain has a link with this digest.
fn has_link(log: &dyn TaskLog, tenant: &str, wanted: Digest) -> Result<bool, TaskLogError> {
    let mut after = 0;
    loop {
        let links = log.links(tenant, after, LINKS)?;
        let Some(last) = links.last() else {
            return Ok(false);
        };
        if links.iter().any(|link| link.hash == wanted) {
            return Ok(true);
        }
        after = last.n;
    }
}

/// What a gateway would make of a folder of skills.
#[derive(Debug)]
pub(crate) struct CheckedSkills {
    /// Names of those that it takes.
    pub(crate) taken: Vec<String>,
    /// What is wrong with others, or with parts of them.
    pub(crate) problems: Vec<String>,
}

/// Reads a folder of skills as a gateway does.
pub(crate) fn check_skills(dir: PathBuf) -> CheckedSkills {
    let library = Library::open(&[(Layer::Tenant, dir)]);
    let taken = library.list("").into_iter();
    let taken = taken.filter(|skill| skill.layer != Layer::Builtin);
    let problems = library.problems.iter();
    CheckedSkills {
        taken: taken.map(|skill| skill.name).collect(),
        problems: problems
            .map(|problem| format!("{}: {}", problem.path.display(), problem.what))
            .collect(),
    }
}

/// Notices about tasks. All methods block.
#[derive(Debug, Clone)]
pub(crate) struct Notices(Arc<dyn TaskLog>);

impl Notices {
    /// Takes what is due; for `lease_ms` it is nobody else's.
    pub(crate) fn due(&self, lease_ms: i64, limit: u32) -> Result<Vec<Notice>, String> {
        let due = notices::due(&*self.0, now_ms(), lease_ms, limit);
        due.map_err(|error| error.to_string())
    }

    /// Notes what came of posting one.
    pub(crate) fn told(&self, notice: &Notice, outcome: Result<(), &str>) -> Result<(), String> {
        let told = notices::told(&*self.0, notice, outcome, now_ms());
        told.map_err(|error| error.to_string())
    }
}

/// How tasks ended. All methods block.
#[derive(Debug, Clone)]
pub(crate) struct Outcomes(Arc<dyn TaskLog>);

impl Outcomes {
    /// Tells the ledger of what ended. Who comes twice says the same, so nodes need not agree.
    pub(crate) fn tell(&self, ledger: &dyn Ledger) -> anyhow::Result<()> {
        let now_ms = now_ms();
        for outcome in outcomes::due(&*self.0, now_ms, OUTCOMES)? {
            let is_noted = ledger.end_task(&outcome.tenant, &outcome.task, &outcome.status)?;
            outcomes::told(&*self.0, &outcome, is_noted, now_ms)?;
        }
        Ok(())
    }
}
