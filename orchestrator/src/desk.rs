//! What people do to tasks: begin them, steer and stop them, decide over their acts. Everything is worked
//! out from how a task stands and appended behind that; where others came first it is worked out anew.

mod control;
mod create;
mod decide;
mod problem;
mod schedules;
mod standing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::Tools;
use crate::actor::{self, LoadError, Ports, read_from};
use crate::commit::commit;
use crate::event::{Caller, Event};
use crate::id::TaskId;
use crate::log::{AppendError, Change, Expected, Note, Record, TaskLog, TaskLogError, TaskRow};
use crate::news::News;
use crate::state::State;
use crate::toolbox::Toolbox;
use crate::worker::Worker;

pub use control::About;
pub use create::{Asked, Begun, Origin, read};
pub use decide::{Answer, Decision};
pub use problem::Problem;
pub use schedules::{Kept, NewSchedule};
pub use standing::NewStanding;

/// Tries of a change against others who change the same task.
const TRIES: usize = 16;
/// States that are kept for those who ask again; a long task has some megabytes.
const STATES: usize = 32;
/// Streams of events that one caller may listen to at a time.
pub const STREAMS: usize = 32;

/// What the desk must know besides its ports.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Names of webhooks that briefs may name.
    pub webhooks: BTreeSet<String>,
}

/// The desk.
pub struct Desk {
    worker: Arc<Worker>,
    toolbox: Arc<Toolbox>,
    news: News,
    settings: Settings,
    /// The last used stands last.
    states: Mutex<VecDeque<Arc<State>>>,
    streams: Arc<Mutex<BTreeMap<String, usize>>>,
    closing: CancellationToken,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk")
            .field("worker", &self.worker)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// A task that a caller may see.
#[derive(Debug, Clone)]
pub enum Seen {
    Whole(Arc<State>),
    /// Its payloads were erased: only its row is left.
    Erased(Box<TaskRow>),
}

impl Desk {
    /// A desk over `worker`'s log, where `news` tells of what is written to it.
    pub fn new(
        worker: Arc<Worker>,
        toolbox: Arc<Toolbox>,
        news: News,
        settings: Settings,
    ) -> Arc<Self> {
        Arc::new(Self {
            worker,
            toolbox,
            news,
            settings,
            states: Mutex::default(),
            streams: Arc::default(),
            closing: CancellationToken::new(),
        })
    }

    /// What its tasks reach.
    pub fn ports(&self) -> &Arc<Ports> {
        self.worker.ports()
    }

    /// Where tools and skills come from.
    pub fn toolbox(&self) -> &Toolbox {
        &self.toolbox
    }

    /// Tells of tasks that go on.
    pub fn news(&self) -> &News {
        &self.news
    }

    /// Ends the streams of events: whoever listens comes back to another node.
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// Waits until streams are to end.
    pub async fn closed(&self) {
        self.closing.cancelled().await;
    }

    /// Milliseconds since 1970.
    pub fn now_ms(&self) -> i64 {
        (self.ports().clock)()
    }

    /// Asks the log.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn TaskLog) -> Result<T, TaskLogError> + Send + 'static,
    ) -> Result<T, Problem> {
        Ok(self.ports().ask(question).await??)
    }

    /// Makes changes of records.
    ///
    /// # Errors
    /// When a record is not as expected, or the log does not answer.
    pub async fn change_records(&self, changes: Vec<Change>) -> Result<(), Problem> {
        Ok(self.ports().ask(move |log| log.change(&changes)).await??)
    }

    /// Changes a record as a person wants it, and notes in the tenant's register who did what.
    ///
    /// # Errors
    /// 409 `changed_meanwhile` where the record is not as it is expected.
    pub(crate) async fn change_by(
        &self,
        caller: &Caller,
        (tenant, kind): (&str, &str),
        what: &Value,
        change: Change,
    ) -> Result<(), Problem> {
        let note = Note {
            tenant: tenant.to_owned(),
            actor: caller.actor(),
            kind: kind.to_owned(),
            at_ms: self.now_ms(),
            payload: what.to_string(),
        };
        let noted = self.ports().ask(move |log| log.note(&note, &[change]));
        Ok(noted.await??)
    }

    /// Removes a record as a person wants it, whatever became of it meanwhile, and notes it.
    ///
    /// # Errors
    /// When the log does not answer.
    pub(crate) async fn remove_by(
        &self,
        caller: &Caller,
        kind: &str,
        record: Record,
    ) -> Result<(), Problem> {
        let what = json!({ "id": record.id });
        let tenant = record.tenant.clone();
        let change = Change {
            kind: record.kind,
            tenant: record.tenant,
            id: record.id,
            expected: Expected::Any,
            to: None,
        };
        self.change_by(caller, (&tenant, kind), &what, change).await
    }

    /// The task, if `caller` may see it.
    ///
    /// # Errors
    /// 404 where there is none for this caller.
    pub async fn seen(&self, caller: &Caller, task: TaskId) -> Result<Seen, Problem> {
        let row = self.ask(move |log| log.task(task)).await?;
        let row = row.filter(|row| may_see(caller, &row.tenant));
        let row = row.ok_or_else(|| Problem::missing("task", &task.to_string()))?;
        match self.load(&row).await? {
            Some(state) => Ok(Seen::Whole(state)),
            None => Ok(Seen::Erased(Box::new(row))),
        }
    }

    /// How the task stands, if `caller` may see it.
    ///
    /// # Errors
    /// 404 where there is none for this caller, 410 where it was erased.
    pub async fn state(&self, caller: &Caller, task: TaskId) -> Result<Arc<State>, Problem> {
        match self.seen(caller, task).await? {
            Seen::Whole(state) => Ok(state),
            Seen::Erased(_) => Err(Problem::new(
                410,
                "task_erased",
                format!("the contents of task `{task}` were erased; only its row is left"),
            )),
        }
    }

    /// The state of a row; `None` where its payloads were erased.
    pub(crate) async fn load(&self, row: &TaskRow) -> Result<Option<Arc<State>>, Problem> {
        let known = self.known(row.id);
        if let Some(known) = known.as_ref().filter(|known| known.head == row.head) {
            return Ok(Some(Arc::clone(known)));
        }
        let task = row.id;
        let known = known.filter(|known| known.head.seq < row.head.seq);
        let folded = self
            .ports()
            .ask(move |log| fold(log, task, known.as_deref()))
            .await??;
        Ok(folded.map(|state| self.remember(state)))
    }

    fn states(&self) -> MutexGuard<'_, VecDeque<Arc<State>>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, task: TaskId) -> Option<Arc<State>> {
        let mut states = self.states();
        let place = states.iter().position(|state| state.id == task)?;
        let found = states.remove(place)?;
        states.push_back(Arc::clone(&found));
        Some(found)
    }

    fn remember(&self, state: State) -> Arc<State> {
        let state = Arc::new(state);
        let mut states = self.states();
        states.retain(|other| other.id != state.id);
        if states.len() >= STATES {
            states.pop_front();
        }
        states.push_back(Arc::clone(&state));
        state
    }

    fn forget(&self, task: TaskId) {
        self.states().retain(|state| state.id != task);
    }

    /// Appends what `think` makes of how the task stands, as something that came from outside. Where it
    /// makes nothing, nothing happens. `think` is asked again whenever others came first.
    ///
    /// # Errors
    /// What `think` says; 404 and 410 as [`Desk::state`]; 412 where the task has another etag.
    async fn change(
        &self,
        caller: &Caller,
        task: TaskId,
        etag: Option<&str>,
        think: impl Fn(&State, i64) -> Result<Thought, Problem>,
    ) -> Result<Arc<State>, Problem> {
        for _ in 0..TRIES {
            let state = self.state(caller, task).await?;
            check_etag(&state, etag)?;
            let now_ms = self.now_ms();
            let thought = think(&state, now_ms)?;
            if thought.events.is_empty() {
                return Ok(state);
            }
            let actor = thought.actor.unwrap_or_else(|| caller.actor());
            let mut made = commit(&state, &thought.events, &actor, now_ms, Some(now_ms))?;
            made.changes.extend(thought.changes);
            let (after, sent) = (state.head, made.clone());
            let appended = self
                .ports()
                .ask(move |log| actor::append(log, task, after, None, &sent))
                .await?;
            match appended {
                Ok(()) => {
                    let state = self.remember(made.after);
                    self.worker.nudge(task);
                    return Ok(state);
                }
                Err(AppendError::Behind | AppendError::Fenced) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Problem::busy())
    }

    /// Counts a stream of events of `caller` in.
    ///
    /// # Errors
    /// 429 where the caller listens to too many.
    pub fn listen(&self, caller: &Caller) -> Result<Listening, Problem> {
        let who = format!("{}/{}/{}", caller.tenant, caller.key, caller.user);
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let count = streams.entry(who.clone()).or_default();
        if *count >= STREAMS {
            let message = format!("you listen to {STREAMS} streams already; close one");
            return Err(Problem::new(429, "too_many_streams", message));
        }
        *count += 1;
        drop(streams);
        let streams = Arc::clone(&self.streams);
        Ok(Listening { streams, who })
    }

    fn tools(&self) -> &Arc<dyn Tools> {
        &self.ports().tools
    }
}

/// A stream of events that counts until it is dropped.
#[derive(Debug)]
pub struct Listening {
    streams: Arc<Mutex<BTreeMap<String, usize>>>,
    who: String,
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = streams.get_mut(&self.who) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                streams.remove(&self.who);
            }
        }
    }
}

/// What is to be written about a task.
#[derive(Debug, Default)]
struct Thought {
    events: Vec<Event>,
    changes: Vec<Change>,
    /// Who does it, where that is not the caller.
    actor: Option<String>,
}

/// Changes of records that depend on the number of the last event that is written with them.
pub(crate) type Also<'a> = &'a (dyn Fn(u64) -> Vec<Change> + Send + Sync);

impl Thought {
    /// With such changes, where anything is written.
    fn and(mut self, state: &State, also: Also<'_>) -> Self {
        if !self.events.is_empty() {
            let written = u64::try_from(self.events.len()).unwrap_or(u64::MAX);
            self.changes.extend(also(state.head.seq + written));
        }
        self
    }
}

impl From<Vec<Event>> for Thought {
    fn from(events: Vec<Event>) -> Self {
        Self {
            events,
            ..Self::default()
        }
    }
}

/// Whether `caller` may see what belongs to `tenant`.
pub fn may_see(caller: &Caller, tenant: &str) -> bool {
    caller.is_operator || caller.tenant == tenant
}

/// The tenant whose things `caller` sees; `None`: those of all.
pub fn tenant_of(caller: &Caller) -> Option<String> {
    let all = caller.is_operator && caller.tenant.is_empty();
    (!all).then(|| caller.tenant.clone())
}

fn check_etag(state: &State, etag: Option<&str>) -> Result<(), Problem> {
    let Some(etag) = etag else {
        return Ok(());
    };
    let mut wanted = etag.split(',').map(|it| it.trim().trim_matches('"'));
    let now = state.head.hash.short();
    if wanted.any(|it| it == "*" || it == now) {
        return Ok(());
    }
    let message = format!("the task has gone on; its etag is \"{now}\" now");
    Err(Problem::new(412, "etag_mismatch", message))
}

/// Folds a task, from what is `known` of it where that still holds. `None` where it was erased.
fn fold(
    log: &dyn TaskLog,
    task: TaskId,
    known: Option<&State>,
) -> Result<Option<State>, LoadError> {
    if let Some(known) = known {
        let rest = read_from(log, task, known.head.seq)?;
        let mut state = known.clone();
        if rest.iter().try_for_each(|event| state.take(event)).is_ok() {
            return Ok(Some(state));
        }
    }
    let events = read_from(log, task, 0)?;
    if events.first().is_some_and(|event| event.payload.is_none()) {
        return Ok(None);
    }
    Ok(Some(State::fold(&events)?))
}
