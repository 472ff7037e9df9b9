//! One task under one lease: asks [`next()`] what to do, writes it down, does it, and writes down what came
//! of it. It may be dropped at any await; the next lease goes on from the log.

mod jobs;
mod ports;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use wire::RequestId;

use crate::check::{self, Files};
use crate::commit::{Commit, commit};
use crate::context;
use crate::event::Event;
use crate::id::TaskId;
use crate::log::{Append, AppendError, Change, Expected, Kind, TaskLogError, To};
use crate::model::{self};
use crate::next::{Act, Ask, Command, Next, Rules, next};
use crate::standing::Standing;
use crate::state::{Impossible, State};
use crate::tool::Outcome;
use crate::{TaskLog, Usd};

use jobs::{Done, Job, Name};

pub use ports::{LoadError, Ports, Settled, Threads, read_from};

/// How long rules are taken to be as they were; acts are looked at again when they are done.
const RULES_MS: i64 = 500;
/// How long a task that waits for something near stays in memory, in milliseconds.
const LINGER_MS: i64 = 3_000;

/// Why an actor stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    Ended,
    /// It waits for something from outside, or for a time that is far; the lease is given back.
    Waits,
    /// Another node has it.
    Fenced,
    /// The log does not answer, or holds what can not be.
    Broken(String),
    /// The program stops.
    Told,
}

/// What the holder of the lease tells an actor.
#[derive(Debug, Clone)]
pub struct Lease {
    pub epoch: u64,
    /// By the clock of [`Ports`].
    pub until_ms: Arc<AtomicI64>,
    /// Something came from outside.
    pub news: Arc<Notify>,
    pub stop: CancellationToken,
}

/// One task at work.
struct Actor {
    ports: Arc<Ports>,
    node: String,
    lease: Lease,
    state: State,
    jobs: FuturesUnordered<Job>,
    running: BTreeSet<Name>,
    rules: Option<(i64, Arc<Rules>)>,
    files: Files,
}

impl std::fmt::Debug for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Actor")
            .field("task", &self.state.id)
            .finish_non_exhaustive()
    }
}

/// Carries on a task until nothing is to be done, under `lease`.
pub async fn run(ports: Arc<Ports>, node: String, task: TaskId, lease: Lease) -> Stopped {
    let state = match ports.load(task).await {
        Ok(Some(state)) => state,
        Ok(None) => return Stopped::Broken("it has no events".to_owned()),
        Err(error) => {
            tracing::error!(%task, %error, "a task can not be read");
            return Stopped::Broken(error.to_string());
        }
    };
    let mut actor = Actor {
        ports,
        node,
        lease,
        state,
        jobs: FuturesUnordered::new(),
        running: BTreeSet::new(),
        rules: None,
        files: Files::new(),
    };
    match actor.work().await {
        Ok(stopped) => stopped,
        Err(Halt::Fenced) => {
            tracing::warn!(%task, "another node has taken the task over");
            Stopped::Fenced
        }
        Err(Halt::Broken(why)) => {
            tracing::error!(%task, why, "a task can not go on here");
            Stopped::Broken(why)
        }
        Err(Halt::Wrong(why)) => {
            tracing::error!(%task, why, "a task can not go on at all");
            let ended = Event::Ended {
                status: crate::event::Status::Failed,
                why: format!("a defect of the runtime: {why}"),
            };
            match actor.append(&[ended], Vec::new()).await {
                Ok(true) => Stopped::Ended,
                _ => Stopped::Broken(why),
            }
        }
    }
}

/// Why an actor can not go on.
#[derive(Debug)]
enum Halt {
    Fenced,
    Broken(String),
    /// A defect of ours: the task can not go on here or anywhere else.
    Wrong(String),
}

impl From<TaskLogError> for Halt {
    fn from(error: TaskLogError) -> Self {
        Self::Broken(error.to_string())
    }
}

impl From<Impossible> for Halt {
    fn from(error: Impossible) -> Self {
        Self::Wrong(error.to_string())
    }
}

impl Actor {
    async fn work(&mut self) -> Result<Stopped, Halt> {
        if self.state.ended.is_some() {
            return Ok(Stopped::Ended);
        }
        // The epoch of the fold is that of its last event; from here on it is ours.
        self.state.epoch = self.lease.epoch;
        let taken = Event::Taken {
            node: self.node.clone(),
        };
        while !self
            .append(std::slice::from_ref(&taken), Vec::new())
            .await?
        {}
        loop {
            if self.lease.stop.is_cancelled() && self.jobs.is_empty() {
                return self
                    .give_back(Some((self.ports.clock)()))
                    .await
                    .map(|_| Stopped::Told);
            }
            let rules = self.rules().await?;
            let now_ms = (self.ports.clock)();
            let coming = next(&self.state, &rules, now_ms);
            if !coming.record.is_empty() {
                let (state, node) = (&self.state, &self.node);
                let record = self.ports.set_right(state, node, coming.record).await;
                self.append(&record, Vec::new()).await?;
                if self.state.ended.is_some() {
                    return Ok(Stopped::Ended);
                }
                continue;
            }
            if !self.lease.stop.is_cancelled() && self.start(&coming, &rules).await? {
                continue;
            }
            if let Some(stopped) = self.wait(&coming, now_ms).await? {
                return Ok(stopped);
            }
        }
    }

    /// Waits for whatever comes first, or gives the task back.
    async fn wait(&mut self, coming: &Next, now_ms: i64) -> Result<Option<Stopped>, Halt> {
        let idle = self.jobs.is_empty();
        let far = coming.wake_at_ms.is_none_or(|at| at > now_ms + LINGER_MS);
        if idle && self.is_stuck(coming) {
            let why = "nothing is to be done, and nothing is waited for".to_owned();
            let status = crate::event::Status::Failed;
            self.append(&[Event::Ended { status, why }], Vec::new())
                .await?;
            return Ok(Some(Stopped::Ended));
        }
        if idle && far && !self.lease.stop.is_cancelled() {
            return self
                .give_back(coming.wake_at_ms)
                .await
                .map(|given| given.then_some(Stopped::Waits));
        }
        let nap = coming
            .wake_at_ms
            .map(|at| u64::try_from(at - now_ms).unwrap_or(0));
        let nap = Duration::from_millis(nap.unwrap_or(60_000).clamp(1, 60_000));
        let (news, stop) = (Arc::clone(&self.lease.news), self.lease.stop.clone());
        let stopping = stop.is_cancelled();
        tokio::select! {
            biased;
            Some(done) = self.jobs.next(), if !idle => self.finish(done).await?,
            () = stop.cancelled(), if !stopping => {}
            () = news.notified() => self.catch_up().await?,
            () = tokio::time::sleep(nap) => {}
        }
        Ok(None)
    }

    /// Whether nothing can ever happen to the task again: a defect, which must be seen.
    fn is_stuck(&self, coming: &Next) -> bool {
        let waits =
            self.state.paused.is_some() || self.state.requests.values().any(|request| request.open);
        coming.commands.is_empty() && coming.wake_at_ms.is_none() && !waits
    }

    /// Gives the lease back; false when something has come meanwhile.
    async fn give_back(&mut self, wake_at_ms: Option<i64>) -> Result<bool, Halt> {
        let row = crate::commit::row(&self.state, wake_at_ms);
        let (task, after, epoch) = (self.state.id, self.state.head, self.lease.epoch);
        let given = self.ports.ask(move |log| {
            log.append(&Append {
                task,
                after,
                epoch: Some(epoch),
                events: &[],
                row: &row,
                changes: &[],
                release: true,
            })
        });
        match given.await? {
            Ok(()) => Ok(true),
            Err(AppendError::Behind) => {
                self.catch_up().await?;
                Ok(false)
            }
            Err(AppendError::Fenced) => Err(Halt::Fenced),
            Err(error) => Err(Halt::Broken(error.to_string())),
        }
    }

    /// Reads what came from outside.
    async fn catch_up(&mut self) -> Result<(), Halt> {
        let (task, after) = (self.state.id, self.state.head.seq);
        let events = self
            .ports
            .ask(move |log| read_from(log, task, after))
            .await??;
        for recorded in &events {
            if recorded.epoch > self.lease.epoch {
                return Err(Halt::Fenced);
            }
            self.state.take(recorded)?;
        }
        Ok(())
    }

    /// Appends events that follow from the state. False when others came first: then the state has them,
    /// and it must be thought again.
    async fn append(&mut self, events: &[Event], changes: Vec<Change>) -> Result<bool, Halt> {
        let now_ms = (self.ports.clock)();
        let mut made = match commit(&self.state, events, "task", now_ms, Some(now_ms)) {
            Ok(made) => made,
            Err(error) => return Err(error.into()),
        };
        made.changes.extend(changes);
        let mut wait = Duration::from_millis(50);
        loop {
            let (task, after, epoch, sent) = (
                self.state.id,
                self.state.head,
                self.lease.epoch,
                made.clone(),
            );
            let appended = self
                .ports
                .ask(move |log| append(log, task, after, Some(epoch), &sent))
                .await?;
            match appended {
                Ok(()) => {
                    self.state = made.after;
                    return Ok(true);
                }
                Err(AppendError::Behind) => {
                    self.catch_up().await?;
                    return Ok(false);
                }
                Err(AppendError::Fenced) => return Err(Halt::Fenced),
                Err(AppendError::Changed(..)) => {
                    self.rules = None;
                    return Ok(false);
                }
                Err(AppendError::Failed(error)) => {
                    // Whether it was written is not known: reading tells, and the lease bounds the wait.
                    tracing::warn!(task = %self.state.id, %error, "an event could not be written yet");
                    if (self.ports.clock)() > self.lease.until_ms.load(Ordering::Relaxed) {
                        return Err(error.into());
                    }
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(Duration::from_secs(2));
                    let before = self.state.head;
                    self.catch_up().await?;
                    if self.state.head == made.after.head {
                        // It was written, and only its answer was lost.
                        return Ok(true);
                    }
                    if self.state.head != before {
                        return Ok(false);
                    }
                }
            }
        }
    }

    async fn rules(&mut self) -> Result<Arc<Rules>, Halt> {
        let now_ms = (self.ports.clock)();
        if let Some((at, rules)) = &self.rules
            && now_ms < at + RULES_MS
        {
            return Ok(Arc::clone(rules));
        }
        let tenant = self.state.caller.tenant.clone();
        let mut rules = Rules {
            now_ms,
            offer: self.ports.tools.offer(&tenant).await,
            standing: Vec::new(),
            policy: (self.ports.policy)(),
            secret: self.ports.secret.clone(),
            skills: Vec::new(),
        };
        let asked = tenant.clone();
        let records = self
            .ports
            .ask(move |log| log.records(Kind::Standing, Some(&asked), "", 500))
            .await??;
        rules.standing = records
            .into_iter()
            .filter_map(|record| {
                let mut standing: Standing = serde_json::from_str(&record.body).ok()?;
                standing.version = record.version;
                standing.stands(now_ms).then_some(standing)
            })
            .collect();
        let skills = self.ports.tools.skills(&tenant, &self.state.brief.skills);
        // A skill that has changed since the task began is another skill.
        rules.skills = skills
            .into_iter()
            .filter_map(|(skill, pin)| {
                (self.state.skills.get(&skill.name) == Some(&pin)).then_some(skill)
            })
            .collect();
        let rules = Arc::new(rules);
        self.rules = Some((now_ms, Arc::clone(&rules)));
        Ok(rules)
    }

    /// Begins what is not under way; true when something was begun or the state has changed.
    async fn start(&mut self, coming: &Next, rules: &Rules) -> Result<bool, Halt> {
        for command in &coming.commands {
            let name = Name::of(command);
            if self.running.contains(&name) {
                continue;
            }
            let begun = match command {
                Command::Ask(ask) => self.ask_model(ask, rules, name).await?,
                Command::Act(act) => self.act(act, rules, name).await?,
                Command::Probe(effect) => self.probe(effect, rules, name),
                Command::Check => self.look(name),
            };
            if begun {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn begin(&mut self, name: Name, job: Job) {
        self.running.insert(name);
        self.jobs.push(job);
    }

    async fn ask_model(&mut self, ask: &Ask, rules: &Rules, name: Name) -> Result<bool, Halt> {
        if matches!(ask.purpose, crate::event::Purpose::Judge { .. }) {
            let files = self
                .ports
                .tools
                .files(&self.state.caller.tenant, self.state.id);
            self.files = files.await;
        }
        let call = context::call(&self.state, rules, ask, &self.files);
        let call =
            call.map_err(|broken| Halt::Wrong(format!("a transcript can not be sent: {broken}")))?;
        let now_ms = (self.ports.clock)();
        let id = RequestId::new(u64::try_from(now_ms).unwrap_or(0), (self.ports.random)());
        let sent = model::write(&self.state, ask, &call, id);
        let requested = Event::ModelRequested {
            call: ask.call,
            purpose: ask.purpose.clone(),
            asked: ask.asked.clone(),
            request: id.to_string(),
            reserved: ask.reserve.unwrap_or(Usd::ZERO),
            prompt: sent.prompt,
        };
        if !self.append(&[requested], Vec::new()).await? {
            return Ok(true);
        }
        let node = ask
            .purpose
            .node()
            .and_then(|node| self.state.nodes.get(node));
        let failures = node.map_or(0, |node| node.failures);
        let (models, number) = (self.ports.models.clone(), ask.call);
        self.begin(
            name.clone(),
            Box::pin(async move {
                let answer = model::send(models, sent.request, failures).await;
                (name, Done::Answered(number, Box::new(answer)))
            }),
        );
        Ok(true)
    }

    /// Commits an act, durably, and only then calls its tool.
    async fn act(&mut self, act: &Act, rules: &Rules, name: Name) -> Result<bool, Halt> {
        let Some(effect) = self.state.effects.get(&act.effect).cloned() else {
            return Ok(false);
        };
        let used = act
            .standing
            .as_ref()
            .and_then(|id| rules.standing.iter().find(|it| it.id == *id));
        let changes = used
            .map(|standing| use_up(&self.state, standing))
            .into_iter()
            .collect();
        let committed = Event::EffectCommitted {
            effect: act.effect.clone(),
            attempt: act.attempt,
            approval: act.approval.clone().or_else(|| act.standing.clone()),
        };
        if !self.append(&[committed], changes).await? {
            return Ok(true);
        }
        // Frozen since then? Whoever has the lease now has found the act in doubt.
        if (self.ports.clock)() >= self.lease.until_ms.load(Ordering::Relaxed) {
            return Err(Halt::Fenced);
        }
        let job = jobs::act(
            &self.ports,
            &self.lease,
            &self.state,
            act.effect.clone(),
            &effect,
            name.clone(),
        );
        self.begin(name, job);
        Ok(true)
    }

    fn probe(&mut self, id: &str, rules: &Rules, name: Name) -> bool {
        let Some(effect) = self.state.effects.get(id) else {
            return false;
        };
        let job = jobs::probe(&self.ports, &self.state, rules, id, effect, name.clone());
        self.begin(name, job);
        true
    }

    fn look(&mut self, name: Name) -> bool {
        let ports = Arc::clone(&self.ports);
        let (tenant, task) = (self.state.caller.tenant.clone(), self.state.id);
        self.begin(
            name.clone(),
            Box::pin(async move {
                let files = ports.tools.files(&tenant, task).await;
                (name, Done::Looked(files))
            }),
        );
        true
    }

    /// Writes down what came of a job.
    async fn finish(&mut self, (name, done): (Name, Done)) -> Result<(), Halt> {
        self.running.remove(&name);
        match done {
            Done::Answered(call, answer) => {
                let now_ms = (self.ports.clock)();
                let short = matches!(&*answer, model::Answer::Failed { class, .. } if class == crate::next::NO_MONEY);
                let mut events = vec![answer.event(call, now_ms)];
                if short && self.state.exhausted.is_none() {
                    events.push(Event::BudgetExhausted {
                        what: crate::next::NO_MONEY.to_owned(),
                    });
                }
                self.told(events).await
            }
            Done::Acted(effect, outcome) => {
                let most = (self.ports.policy)().limits.result_bytes;
                let doubtful = self
                    .state
                    .effects
                    .get(&effect)
                    .is_some_and(|it| it.doubtful);
                let (event, whole) = match outcome {
                    // This attempt was not made; whether an earlier one was is not known.
                    Outcome::Drifted(why) if doubtful => {
                        (Event::EffectUnknown { effect, why }, None)
                    }
                    outcome => jobs::event(&effect, outcome, most),
                };
                if let Some(whole) = whole {
                    let task = self.state.id;
                    self.ports
                        .ask(move |log| log.put_blob(task, whole.as_bytes()))
                        .await??;
                }
                self.told(vec![event]).await
            }
            Done::Probed(event) => self.told(vec![*event]).await,
            Done::Looked(files) => {
                let events = check::look(&self.state, &files);
                self.files = files;
                if events.is_empty() {
                    Ok(())
                } else {
                    self.told(events).await
                }
            }
        }
    }

    /// Appends results: what came first is taken up, and they follow it, unless they no longer can: the
    /// task may have ended meanwhile, or a person settled what was in doubt.
    async fn told(&mut self, events: Vec<Event>) -> Result<(), Halt> {
        for _ in 0..20 {
            let follows = commit(&self.state, &events, "task", self.state.updated_ms, None);
            if let Err(error) = follows {
                tracing::warn!(task = %self.state.id, %error, "a result came too late to count");
                return Ok(());
            }
            if self.append(&events, Vec::new()).await? {
                return Ok(());
            }
        }
        Err(Halt::Broken("others always came first".to_owned()))
    }
}

/// The change that counts a use of a standing approval, if nobody else has used it meanwhile.
fn use_up(state: &State, standing: &Standing) -> Change {
    let body = serde_json::to_string(&standing.once_more()).unwrap_or_default();
    Change {
        kind: Kind::Standing,
        tenant: state.caller.tenant.clone(),
        id: standing.id.clone(),
        expected: Expected::Version(standing.version),
        to: Some(To {
            task: None,
            due_at_ms: Some(standing.expires_at_ms),
            body,
        }),
    }
}

/// Appends what was made of a state.
pub fn append(
    log: &dyn TaskLog,
    task: TaskId,
    after: crate::log::Head,
    epoch: Option<u64>,
    made: &Commit,
) -> Result<(), AppendError> {
    log.append(&Append {
        task,
        after,
        epoch,
        events: &made.events,
        row: &made.row,
        changes: &made.changes,
        release: made.after.ended.is_some(),
    })
}
