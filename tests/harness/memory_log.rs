//! A task log in memory, with a clock that the test sets: what the simulation runs on. It keeps to the
//! port's every rule, and the conformance suite (`tests/ledger/tasks.rs`) holds it against the real ones.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use orchestrator::digest::Digest;
use orchestrator::id::TaskId;
use orchestrator::log::{
    Append, AppendError, Change, Claim, Created, Expected, Filter, Head, Kind, Link, NewTask, Note,
    Record, Recorded, Renewed, RowChange, TaskLog, TaskLogError, TaskRow,
};

/// A task log that lives as long as this value.
#[derive(Debug, Default)]
pub struct MemoryLog(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    now_ms: i64,
    tasks: BTreeMap<TaskId, Task>,
    /// Tasks that have not ended and want to be worked on, by when they want it. Those on which a lease
    /// still runs stand in `leased`, by when it runs out, and come here at the first claim after that.
    idle: BTreeSet<(i64, TaskId)>,
    leased: BTreeSet<(i64, TaskId)>,
    blobs: BTreeMap<(TaskId, Digest), Vec<u8>>,
    keys: HashMap<(String, String), (TaskId, Digest)>,
    records: BTreeMap<Place, Record>,
    chains: BTreeMap<String, Vec<Link>>,
    registers: BTreeMap<TaskId, Vec<Recorded>>,
}

#[derive(Debug)]
struct Task {
    row: TaskRow,
    events: Vec<Recorded>,
}

type Place = (Kind, String, String);

/// No task has a lower id.
const FIRST: TaskId = TaskId::from_bytes([0; 16]);

impl MemoryLog {
    /// An empty log whose clock stands at `now_ms`, in milliseconds since 1970.
    pub fn new(now_ms: i64) -> Self {
        Self(Mutex::new(State {
            now_ms,
            ..State::default()
        }))
    }

    /// Sets the clock.
    pub fn set_ms(&self, now_ms: i64) {
        self.state().now_ms = now_ms;
    }

    /// Moves the clock on, and tells what it shows.
    pub fn advance_ms(&self, by_ms: i64) -> i64 {
        let mut state = self.state();
        state.now_ms += by_ms;
        state.now_ms
    }

    /// When the next task can be claimed that can not be now: where a simulation with nothing to do may
    /// set the clock to.
    pub fn next_ms(&self) -> Option<i64> {
        let state = self.state();
        let later = state.idle.range((state.now_ms + 1, FIRST)..);
        let mut soonest = later.map(|(at, _)| *at).next();
        for (until, id) in &state.leased {
            if soonest.is_some_and(|soonest| soonest <= *until) {
                break;
            }
            let free = state.tasks[id].row.wake_at_ms.map(|at| at.max(*until));
            let free = free.filter(|at| *at > state.now_ms);
            soonest = soonest.into_iter().chain(free).min();
        }
        soonest
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn create(&mut self, new: &NewTask, changes: &[Change]) -> Result<Created, AppendError> {
        let key = new
            .idempotency
            .as_ref()
            .map(|(key, digest)| ((new.tenant.clone(), key.clone()), *digest));
        if let Some((key, digest)) = &key
            && let Some((before, asked)) = self.keys.get(key)
        {
            let is_same = asked == digest;
            return Ok(if is_same {
                Created::Before(*before)
            } else {
                Created::Conflict(*before)
            });
        }
        if self.tasks.contains_key(&new.id) {
            return Err(failed("create a task", "its id is taken"));
        }
        let head = followed(Head::default(), &new.events)?;
        self.changed(changes)?;
        let at = last_ms(&new.events, new.created_at_ms);
        let task = Task {
            row: TaskRow {
                id: new.id,
                tenant: new.tenant.clone(),
                status: String::new(),
                ended: false,
                head,
                wake_at_ms: None,
                epoch: 0,
                leased_by: String::new(),
                leased_until_ms: 0,
                created_at_ms: new.created_at_ms,
                updated_at_ms: at,
                summary: String::new(),
            },
            events: new.events.clone(),
        };
        self.tasks.insert(new.id, task);
        if let Some((key, digest)) = key {
            self.keys.insert(key, (new.id, digest));
        }
        self.set_row(new.id, &new.row);
        self.link(new.id, head, at);
        Ok(Created::New)
    }

    fn append(&mut self, append: &Append<'_>) -> Result<(), AppendError> {
        let Some(task) = self.tasks.get(&append.task) else {
            return Err(failed("append events", "there is no such task"));
        };
        if append.epoch.is_some_and(|epoch| epoch != task.row.epoch) {
            return Err(AppendError::Fenced);
        }
        if task.row.head != append.after {
            return Err(AppendError::Behind);
        }
        let head = followed(append.after, append.events)?;
        let at = last_ms(append.events, task.row.updated_at_ms);
        self.changed(append.changes)?;
        self.set_row(append.task, append.row);
        self.edit(append.task, |row| {
            row.head = head;
            row.updated_at_ms = at;
            if append.release {
                give_back(row);
            }
        });
        if let Some(task) = self.tasks.get_mut(&append.task) {
            task.events.extend_from_slice(append.events);
        }
        self.link(append.task, head, at);
        Ok(())
    }

    fn set_row(&mut self, id: TaskId, to: &RowChange) {
        self.edit(id, |row| {
            row.status.clone_from(&to.status);
            row.ended = to.ended;
            row.wake_at_ms = to.wake_at_ms;
            row.summary.clone_from(&to.summary);
        });
    }

    /// Changes a row, and when its task can be claimed with it.
    fn edit(&mut self, id: TaskId, change: impl FnOnce(&mut TaskRow)) {
        let Some(Task { row, .. }) = self.tasks.get_mut(&id) else {
            return;
        };
        if let Some(at) = wish_ms(row) {
            self.idle.remove(&(at, id));
            self.leased.remove(&(row.leased_until_ms, id));
        }
        change(row);
        if let Some(at) = wish_ms(row) {
            if row.leased_until_ms > self.now_ms {
                self.leased.insert((row.leased_until_ms, id));
            } else {
                self.idle.insert((at, id));
            }
        }
    }

    fn link(&mut self, task: TaskId, head: Head, at_ms: i64) {
        let tenant = self.tasks[&task].row.tenant.clone();
        self.link_of(tenant, task, head, at_ms);
    }

    fn link_of(&mut self, tenant: String, task: TaskId, head: Head, at_ms: i64) {
        let chain = self.chains.entry(tenant.clone()).or_default();
        let before = chain.last().map_or_else(Digest::default, |link| link.hash);
        let mut link = Link {
            tenant,
            n: chain.len() as u64 + 1,
            task,
            head,
            at_ms,
            hash: Digest::default(),
        };
        link.hash = link.chained(before);
        chain.push(link);
    }

    fn note(&mut self, note: &Note, changes: &[Change]) -> Result<(), AppendError> {
        self.changed(changes)?;
        let register = TaskId::of_register(&note.tenant);
        let events = self.registers.entry(register).or_default();
        let last = events.last();
        let head = last.map_or_else(Head::default, |it| Head {
            seq: it.seq,
            hash: it.hash,
        });
        let event = note.event(head, last.map_or(i64::MIN, |it| it.at_ms));
        let (seq, hash, at_ms) = (event.seq, event.hash, event.at_ms);
        events.push(event);
        self.link_of(note.tenant.clone(), register, Head { seq, hash }, at_ms);
        Ok(())
    }

    /// Makes all changes, in the order of their places, or none.
    fn changed(&mut self, changes: &[Change]) -> Result<(), AppendError> {
        let mut in_order: Vec<(Place, &Change)> = changes
            .iter()
            .map(|change| (place(change.kind, &change.tenant, &change.id), change))
            .collect();
        in_order.sort_by(|one, other| one.0.cmp(&other.0));
        let mut undo: Vec<(Place, Option<Record>)> = Vec::new();
        for (place, change) in in_order {
            let before = self.records.get(&place).cloned();
            let version = before.as_ref().map(|record| record.version);
            let as_expected = match change.expected {
                Expected::Absent => version.is_none(),
                Expected::Version(expected) => version == Some(expected),
                Expected::Any => true,
            };
            if !as_expected {
                for (place, before) in undo.into_iter().rev() {
                    self.put(place, before);
                }
                return Err(AppendError::Changed(change.kind, change.id.clone()));
            }
            let after = change.to.as_ref().map(|to| Record {
                kind: change.kind,
                tenant: change.tenant.clone(),
                id: change.id.clone(),
                version: version.unwrap_or(0) + 1,
                task: to.task,
                due_at_ms: to.due_at_ms,
                body: to.body.clone(),
            });
            self.put(place.clone(), after);
            undo.push((place, before));
        }
        Ok(())
    }

    fn put(&mut self, place: Place, record: Option<Record>) {
        match record {
            Some(record) => self.records.insert(place, record),
            None => self.records.remove(&place),
        };
    }

    fn claim(&mut self, node: &str, lease_ms: i64, limit: u32) -> Vec<Claim> {
        let (now, until_ms) = (self.now_ms, self.now_ms.saturating_add(lease_ms));
        while let Some((until, id)) = self.leased.first().copied()
            && until <= now
        {
            self.leased.pop_first();
            let wish = self.tasks.get(&id).and_then(|task| wish_ms(&task.row));
            self.idle.extend(wish.map(|at| (at, id)));
        }
        let wanting = self.idle.range(..(now + 1, FIRST)).map(|(_, id)| *id);
        // The clock of a test may go backwards, and then a lease that had run out runs again.
        let free = wanting.filter(|id| self.tasks[id].row.leased_until_ms <= now);
        let free: Vec<TaskId> = free.take(limit as usize).collect();
        let mut claims = Vec::with_capacity(free.len());
        for task in free {
            self.edit(task, |row| {
                row.epoch += 1;
                node.clone_into(&mut row.leased_by);
                row.leased_until_ms = until_ms;
                claims.push(Claim {
                    task,
                    epoch: row.epoch,
                    until_ms,
                });
            });
        }
        claims
    }

    fn renew(&mut self, node: &str, id: TaskId, epoch: u64, lease_ms: i64) -> Renewed {
        let until = self.now_ms.saturating_add(lease_ms);
        let mut renewed = Renewed {
            task: id,
            until_ms: None,
            head: Head::default(),
        };
        self.edit(id, |row| {
            renewed.head = row.head;
            if row.epoch == epoch && row.leased_by == node {
                row.leased_until_ms = until;
                renewed.until_ms = Some(until);
            }
        });
        renewed
    }
}

impl TaskLog for MemoryLog {
    fn now_ms(&self) -> Result<i64, TaskLogError> {
        Ok(self.state().now_ms)
    }

    fn create(&self, new: &NewTask, changes: &[Change]) -> Result<Created, AppendError> {
        self.state().create(new, changes)
    }

    fn append(&self, append: &Append<'_>) -> Result<(), AppendError> {
        self.state().append(append)
    }

    fn events(&self, task: TaskId, after: u64, limit: u32) -> Result<Vec<Recorded>, TaskLogError> {
        let state = self.state();
        let of_task = state.tasks.get(&task).map(|task| &task.events);
        let events = of_task.or_else(|| state.registers.get(&task));
        let behind = events.into_iter().flatten().skip(after as usize);
        Ok(behind.take(limit as usize).cloned().collect())
    }

    fn task(&self, task: TaskId) -> Result<Option<TaskRow>, TaskLogError> {
        Ok(self.state().tasks.get(&task).map(|task| task.row.clone()))
    }

    fn list(&self, filter: &Filter) -> Result<Vec<TaskRow>, TaskLogError> {
        let state = self.state();
        let before = filter.before.map_or(Bound::Unbounded, Bound::Excluded);
        let rows = state.tasks.range((Bound::Unbounded, before)).rev();
        let found = rows.map(|(_, task)| &task.row).filter(|row| {
            filter.tenant.as_ref().is_none_or(|it| *it == row.tenant)
                && (filter.statuses.is_empty() || filter.statuses.contains(&row.status))
        });
        Ok(found.take(filter.limit as usize).cloned().collect())
    }

    fn counts(&self, tenant: Option<&str>) -> Result<Vec<(String, u64)>, TaskLogError> {
        let state = self.state();
        let rows = state.tasks.values().map(|task| &task.row);
        let mut counts = BTreeMap::<String, u64>::new();
        for row in rows.filter(|row| tenant.is_none_or(|it| it == row.tenant)) {
            *counts.entry(row.status.clone()).or_default() += 1;
        }
        Ok(counts.into_iter().collect())
    }

    fn claim(&self, node: &str, lease_ms: i64, limit: u32) -> Result<Vec<Claim>, TaskLogError> {
        Ok(self.state().claim(node, lease_ms, limit))
    }

    fn renew(
        &self,
        node: &str,
        held: &[(TaskId, u64)],
        lease_ms: i64,
    ) -> Result<Vec<Renewed>, TaskLogError> {
        let mut state = self.state();
        let renewed = held
            .iter()
            .map(|(id, epoch)| state.renew(node, *id, *epoch, lease_ms));
        Ok(renewed.collect())
    }

    fn release(&self, task: TaskId, epoch: u64) -> Result<(), TaskLogError> {
        self.state().edit(task, |row| {
            if row.epoch == epoch {
                give_back(row);
            }
        });
        Ok(())
    }

    fn erase(&self, task: TaskId) -> Result<bool, TaskLogError> {
        let mut state = self.state();
        let ended = state.tasks.get_mut(&task).filter(|task| task.row.ended);
        let Some(found) = ended else {
            return Ok(false);
        };
        for event in &mut found.events {
            event.payload = None;
        }
        state.blobs.retain(|(of, _), _| *of != task);
        let goes = |kind| matches!(kind, Kind::Request | Kind::Notice | Kind::Response);
        state
            .records
            .retain(|_, it| it.task != Some(task) || !goes(it.kind));
        Ok(true)
    }

    fn put_blob(&self, task: TaskId, bytes: &[u8]) -> Result<Digest, TaskLogError> {
        let digest = Digest::of(bytes);
        self.state().blobs.insert((task, digest), bytes.to_vec());
        Ok(digest)
    }

    fn blob(&self, task: TaskId, digest: Digest) -> Result<Option<Vec<u8>>, TaskLogError> {
        Ok(self.state().blobs.get(&(task, digest)).cloned())
    }

    fn record(&self, kind: Kind, tenant: &str, id: &str) -> Result<Option<Record>, TaskLogError> {
        Ok(self.state().records.get(&place(kind, tenant, id)).cloned())
    }

    fn records(
        &self,
        kind: Kind,
        tenant: Option<&str>,
        after: &str,
        limit: u32,
    ) -> Result<Vec<Record>, TaskLogError> {
        let state = self.state();
        let mut found: Vec<&Record> = of(&state, kind)
            .filter(|it| tenant.is_none_or(|tenant| it.tenant == tenant) && it.id.as_str() > after)
            .collect();
        found.sort_by(|one, other| (&one.id, &one.tenant).cmp(&(&other.id, &other.tenant)));
        Ok(found.into_iter().take(limit as usize).cloned().collect())
    }

    fn due(&self, kind: Kind, now_ms: i64, limit: u32) -> Result<Vec<Record>, TaskLogError> {
        let state = self.state();
        let mut found: Vec<&Record> = of(&state, kind)
            .filter(|it| it.due_at_ms.is_some_and(|due| due <= now_ms))
            .collect();
        found.sort_by_key(|it| (it.due_at_ms, &it.tenant, &it.id));
        Ok(found.into_iter().take(limit as usize).cloned().collect())
    }

    fn note(&self, note: &Note, changes: &[Change]) -> Result<(), AppendError> {
        self.state().note(note, changes)
    }

    fn change(&self, changes: &[Change]) -> Result<(), AppendError> {
        self.state().changed(changes)
    }

    fn links(&self, tenant: &str, after: u64, limit: u32) -> Result<Vec<Link>, TaskLogError> {
        let state = self.state();
        let links = state.chains.get(tenant).map(|chain| chain.iter());
        let behind = links.into_iter().flatten().skip(after as usize);
        Ok(behind.take(limit as usize).cloned().collect())
    }

    fn tenants(&self) -> Result<Vec<String>, TaskLogError> {
        Ok(self.state().chains.keys().cloned().collect())
    }
}

fn place(kind: Kind, tenant: &str, id: &str) -> Place {
    (kind, tenant.to_owned(), id.to_owned())
}

/// The records of one kind, without a look at those of others.
fn of(state: &State, kind: Kind) -> impl Iterator<Item = &Record> {
    let records = state.records.range(place(kind, "", "")..);
    records
        .map(|(_, record)| record)
        .take_while(move |record| record.kind == kind)
}

/// When a task wants to be worked on, if it has not ended.
fn wish_ms(row: &TaskRow) -> Option<i64> {
    row.wake_at_ms.filter(|_| !row.ended)
}

fn give_back(row: &mut TaskRow) {
    row.leased_by.clear();
    row.leased_until_ms = 0;
}

/// When the last of `events` happened; `otherwise` where there is none.
fn last_ms(events: &[Recorded], otherwise: i64) -> i64 {
    events.last().map_or(otherwise, |event| event.at_ms)
}

fn followed(after: Head, events: &[Recorded]) -> Result<Head, AppendError> {
    after
        .behind(events)
        .map_err(|error| failed("append events", &error.to_string()))
}

fn failed(what: &'static str, cause: &str) -> AppendError {
    AppendError::Failed(TaskLogError {
        what,
        cause: cause.to_owned(),
    })
}
