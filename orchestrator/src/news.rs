//! A log that tells who listens in this process of every append: whoever shows a task live need not ask
//! again and again. Appends of other nodes are not told; for those one still has to look.

use std::sync::Arc;

use tokio::sync::broadcast;

use crate::digest::Digest;
use crate::id::TaskId;
use crate::log::{
    Append, AppendError, Change, Claim, Created, Filter, Kind, Link, NewTask, Note, Record,
    Recorded, Renewed, TaskLog, TaskLogError, TaskRow,
};

/// Appends that a slow listener may lag behind before it has to look by itself.
const BACKLOG: usize = 1_024;

/// Tells of tasks that went on.
#[derive(Debug, Clone)]
pub struct News(broadcast::Sender<TaskId>);

impl Default for News {
    fn default() -> Self {
        Self(broadcast::Sender::new(BACKLOG))
    }
}

impl News {
    /// Hears of every task from now on.
    pub fn listen(&self) -> Listener {
        Listener(self.0.subscribe())
    }
}

/// Hears of tasks that went on.
#[derive(Debug)]
pub struct Listener(broadcast::Receiver<TaskId>);

impl Listener {
    /// Waits until `task` has gone on, or may have.
    pub async fn of(&mut self, task: TaskId) {
        loop {
            match self.0.recv().await {
                Ok(told) if told == task => return,
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => return,
                // Nobody tells any more.
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

/// A log whose appends are told.
#[derive(Debug)]
pub struct Told {
    log: Arc<dyn TaskLog>,
    news: News,
}

impl Told {
    /// `log`, with `news` of what is written through this value.
    pub fn new(log: Arc<dyn TaskLog>, news: News) -> Self {
        Self { log, news }
    }

    fn tell(&self, task: TaskId) {
        // Nobody may be listening.
        let _heard: Result<usize, _> = self.news.0.send(task);
    }
}

impl TaskLog for Told {
    fn now_ms(&self) -> Result<i64, TaskLogError> {
        self.log.now_ms()
    }

    fn create(&self, new: &NewTask, changes: &[Change]) -> Result<Created, AppendError> {
        let created = self.log.create(new, changes)?;
        self.tell(new.id);
        Ok(created)
    }

    fn append(&self, append: &Append<'_>) -> Result<(), AppendError> {
        self.log.append(append)?;
        if !append.events.is_empty() {
            self.tell(append.task);
        }
        Ok(())
    }

    fn events(&self, task: TaskId, after: u64, limit: u32) -> Result<Vec<Recorded>, TaskLogError> {
        self.log.events(task, after, limit)
    }

    fn task(&self, task: TaskId) -> Result<Option<TaskRow>, TaskLogError> {
        self.log.task(task)
    }

    fn list(&self, filter: &Filter) -> Result<Vec<TaskRow>, TaskLogError> {
        self.log.list(filter)
    }

    fn counts(&self, tenant: Option<&str>) -> Result<Vec<(String, u64)>, TaskLogError> {
        self.log.counts(tenant)
    }

    fn claim(&self, node: &str, lease_ms: i64, limit: u32) -> Result<Vec<Claim>, TaskLogError> {
        self.log.claim(node, lease_ms, limit)
    }

    fn renew(
        &self,
        node: &str,
        held: &[(TaskId, u64)],
        lease_ms: i64,
    ) -> Result<Vec<Renewed>, TaskLogError> {
        self.log.renew(node, held, lease_ms)
    }

    fn release(&self, task: TaskId, epoch: u64) -> Result<(), TaskLogError> {
        self.log.release(task, epoch)
    }

    fn erase(&self, task: TaskId) -> Result<bool, TaskLogError> {
        self.log.erase(task)
    }

    fn put_blob(&self, task: TaskId, bytes: &[u8]) -> Result<Digest, TaskLogError> {
        self.log.put_blob(task, bytes)
    }

    fn blob(&self, task: TaskId, digest: Digest) -> Result<Option<Vec<u8>>, TaskLogError> {
        self.log.blob(task, digest)
    }

    fn record(&self, kind: Kind, tenant: &str, id: &str) -> Result<Option<Record>, TaskLogError> {
        self.log.record(kind, tenant, id)
    }

    fn records(
        &self,
        kind: Kind,
        tenant: Option<&str>,
        after: &str,
        limit: u32,
    ) -> Result<Vec<Record>, TaskLogError> {
        self.log.records(kind, tenant, after, limit)
    }

    fn due(&self, kind: Kind, now_ms: i64, limit: u32) -> Result<Vec<Record>, TaskLogError> {
        self.log.due(kind, now_ms, limit)
    }

    fn note(&self, note: &Note, changes: &[Change]) -> Result<(), AppendError> {
        self.log.note(note, changes)
    }

    fn change(&self, changes: &[Change]) -> Result<(), AppendError> {
        self.log.change(changes)
    }

    fn links(&self, tenant: &str, after: u64, limit: u32) -> Result<Vec<Link>, TaskLogError> {
        self.log.links(tenant, after, limit)
    }

    fn tenants(&self) -> Result<Vec<String>, TaskLogError> {
        self.log.tenants()
    }
}
