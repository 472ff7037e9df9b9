//! The port to where tasks are kept: rows, append-only event logs, leases, blobs and records. `store`
//! implements it on SQLite and PostgreSQL; the arrow points from there to here. All methods block.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::TaskId;

/// An event as it stands in the log. Events are never changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Its place in the task's log, from 1, without gaps.
    pub seq: u64,
    /// Milliseconds since 1970.
    pub at_ms: i64,
    /// The last lease when it was written; 0 before the first.
    pub epoch: u64,
    /// Who did it: `task`, `user:<key or name>`, `operator`, `schedule:<id>`.
    pub actor: String,
    /// The word of the event, for instance `effect.committed`.
    pub kind: String,
    /// The version of its payload's format.
    pub v: u16,
    /// JSON text. `None` once it was erased; the chain holds all the same.
    pub payload: Option<String>,
    pub payload_hash: Digest,
    /// The digest of this event and all before it, see [`Recorded::chained`].
    pub hash: Digest,
}

impl Recorded {
    /// What `hash` must be behind an event whose hash is `before` (zeros at the beginning). The payload
    /// counts by its own hash, so that it can be erased.
    pub fn chained(&self, before: Digest) -> Digest {
        Digest::of_parts(&[
            before.bytes(),
            &self.seq.to_be_bytes(),
            &self.at_ms.to_be_bytes(),
            &self.epoch.to_be_bytes(),
            self.actor.as_bytes(),
            self.kind.as_bytes(),
            &self.v.to_be_bytes(),
            self.payload_hash.bytes(),
        ])
    }
}

/// The end of a task's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Head {
    pub seq: u64,
    pub hash: Digest,
}

impl Head {
    /// Where the log ends behind `events`, if they follow this end: numbered on, linked by their hashes,
    /// and each payload what its hash says. Logs refuse events that do not.
    ///
    /// # Errors
    /// The place of the first event that does not follow.
    pub fn behind(self, events: &[Recorded]) -> Result<Self, NotFollowing> {
        events.iter().try_fold(self, |head, event| {
            let numbered = event.seq == head.seq + 1;
            let kept = event.payload.as_ref();
            let is_its_own =
                kept.is_none_or(|text| Digest::of(text.as_bytes()) == event.payload_hash);
            if numbered && is_its_own && event.hash == event.chained(head.hash) {
                Ok(Self {
                    seq: event.seq,
                    hash: event.hash,
                })
            } else {
                Err(NotFollowing(head.seq + 1))
            }
        })
    }
}

/// An event is not the one that its place in the log asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("event {0} does not follow from the one before it")]
pub struct NotFollowing(pub u64);

/// A task as a list shows it; a projection of its log that is written with every append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskRow {
    pub id: TaskId,
    pub tenant: String,
    /// A word such as `in_progress`.
    pub status: String,
    /// It has ended, for ever.
    pub ended: bool,
    pub head: Head,
    /// When it wants to be worked on; `None`: when something comes from outside.
    pub wake_at_ms: Option<i64>,
    /// The last lease that was given on it, 0 for none.
    pub epoch: u64,
    /// Who holds that lease, and until when; empty and 0 where nobody does.
    pub leased_by: String,
    pub leased_until_ms: i64,
    pub created_at_ms: i64,
    pub updated_at_ms: i64,
    /// A JSON object: what lists show.
    pub summary: String,
}

/// What of a row an append sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowChange {
    pub status: String,
    pub ended: bool,
    pub wake_at_ms: Option<i64>,
    pub summary: String,
}

/// A task to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTask {
    pub id: TaskId,
    pub tenant: String,
    /// The caller's own key, unique for a tenant, and the digest of what was asked under it.
    pub idempotency: Option<(String, Digest)>,
    pub created_at_ms: i64,
    /// Its first events, numbered from 1.
    pub events: Vec<Recorded>,
    pub row: RowChange,
}

/// What became of a task to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    New,
    /// The same was asked before under the same key: this is the task.
    Before(TaskId),
    /// Something else was asked before under this key.
    Conflict(TaskId),
}

/// Events to append, with all that must happen together with them.
#[derive(Debug, Clone, Copy)]
pub struct Append<'a> {
    pub task: TaskId,
    /// The end of the log that the events follow.
    pub after: Head,
    /// Only while this lease is the last that was given; `None` for what comes from outside.
    pub epoch: Option<u64>,
    pub events: &'a [Recorded],
    pub row: &'a RowChange,
    pub changes: &'a [Change],
    /// Gives the lease back in the same transaction.
    pub release: bool,
}

/// An append that did not happen; nothing of it did.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The log has other events at its end by now: read them and think again.
    #[error("the log has gone on")]
    Behind,
    /// Another node holds the task.
    #[error("the lease on the task is lost")]
    Fenced,
    /// A record is not what the change expected.
    #[error("{kind} `{id}` has changed", kind = .0.as_str(), id = .1)]
    Changed(Kind, String),
    #[error(transparent)]
    Failed(#[from] TaskLogError),
}

/// The log failed to answer or to take what it was given.
#[derive(Debug, Clone, thiserror::Error)]
#[error("task log: {what}: {cause}")]
pub struct TaskLogError {
    /// What was being done, for instance `claim tasks`.
    pub what: &'static str,
    pub cause: String,
}

/// A task that this node may work on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    pub task: TaskId,
    pub epoch: u64,
    /// By the log's clock, which is [`TaskLog::now_ms`].
    pub until_ms: i64,
}

/// What became of a lease that was to be renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewed {
    pub task: TaskId,
    /// Until when it is held now; `None` when it is lost.
    pub until_ms: Option<i64>,
    /// The end of the log, so that the holder sees what came from outside.
    pub head: Head,
}

/// Which tasks a list shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// `None`: of all tenants.
    pub tenant: Option<String>,
    /// One of these; empty: any.
    pub statuses: Vec<String>,
    /// Only tasks made before this one (lists go from the newest to the oldest).
    pub before: Option<TaskId>,
    pub limit: u32,
}

/// A kind of record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An approval or an input that a task waits for; it stands while it is open.
    Request,
    /// A standing approval.
    Standing,
    /// A schedule.
    Schedule,
    /// The definition of a tool that was accepted.
    Pin,
    /// A notice that is to be posted to a webhook.
    Notice,
    /// A response of the Responses dialect that a task makes.
    Response,
    /// How a task ended, until the ledger knows it.
    Outcome,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Request,
        Self::Standing,
        Self::Schedule,
        Self::Pin,
        Self::Notice,
        Self::Response,
        Self::Outcome,
    ];

    /// The word it goes by in storage.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Standing => "standing",
            Self::Schedule => "schedule",
            Self::Pin => "pin",
            Self::Notice => "notice",
            Self::Response => "response",
            Self::Outcome => "outcome",
        }
    }
}

/// A small document beside the logs, with a version that counts its changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub kind: Kind,
    /// Empty for what belongs to no tenant.
    pub tenant: String,
    pub id: String,
    /// From 1.
    pub version: u64,
    /// The task it belongs to, where it belongs to one.
    pub task: Option<TaskId>,
    /// When somebody must look at it.
    pub due_at_ms: Option<i64>,
    /// A JSON object.
    pub body: String,
}

/// A change of a record, which happens only if the record is as expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub kind: Kind,
    pub tenant: String,
    pub id: String,
    pub expected: Expected,
    /// `None` removes it.
    pub to: Option<To>,
}

/// What a record becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct To {
    pub task: Option<TaskId>,
    pub due_at_ms: Option<i64>,
    pub body: String,
}

/// What a change expects of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// There is none.
    Absent,
    /// It has this version.
    Version(u64),
    /// Whatever there is, or nothing.
    Any,
}

/// Something that a person changed beside tasks: a standing approval, a schedule, what a tool may be. It
/// becomes the next event of the tenant's register, a log without a task, under
/// [`TaskId::of_register`]; the audit chain holds it as it holds events of tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Empty for what belongs to no tenant.
    pub tenant: String,
    pub actor: String,
    /// A word such as `standing.granted`.
    pub kind: String,
    pub at_ms: i64,
    /// A JSON object.
    pub payload: String,
}

impl Note {
    /// The event that it is behind a register's end, whose last event was written at `after_ms`.
    pub fn event(&self, head: Head, after_ms: i64) -> Recorded {
        let mut event = Recorded {
            seq: head.seq + 1,
            at_ms: self.at_ms.max(after_ms),
            epoch: 0,
            actor: self.actor.clone(),
            kind: self.kind.clone(),
            v: 1,
            payload_hash: Digest::of(self.payload.as_bytes()),
            payload: Some(self.payload.clone()),
            hash: Digest::default(),
        };
        event.hash = event.chained(head.hash);
        event
    }
}

/// A link of a tenant's audit chain: one for each append, over all tasks, in the order of commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub tenant: String,
    /// From 1, without gaps.
    pub n: u64,
    /// The task, or the tenant's register.
    pub task: TaskId,
    /// The end of the task's log after the append.
    pub head: Head,
    pub at_ms: i64,
    /// See [`Link::chained`].
    pub hash: Digest,
}

impl Link {
    /// What `hash` must be behind a link whose hash is `before` (zeros at the beginning).
    pub fn chained(&self, before: Digest) -> Digest {
        Digest::of_parts(&[
            before.bytes(),
            self.tenant.as_bytes(),
            &self.n.to_be_bytes(),
            self.task.to_string().as_bytes(),
            &self.head.seq.to_be_bytes(),
            self.head.hash.bytes(),
            &self.at_ms.to_be_bytes(),
        ])
    }
}

/// Where tasks are kept. Several nodes may share one. All methods block; call them off the reactor.
pub trait TaskLog: Send + Sync + fmt::Debug {
    /// The clock that leases and wake-ups go by: the engine's own where it has one, in milliseconds
    /// since 1970.
    fn now_ms(&self) -> Result<i64, TaskLogError>;

    /// Begins a task and makes `changes`, or nothing: one transaction, with a link of the audit chain.
    ///
    /// # Errors
    /// [`AppendError::Changed`] where a record is not as expected; never `Behind` or `Fenced`.
    fn create(&self, new: &NewTask, changes: &[Change]) -> Result<Created, AppendError>;

    /// Appends events, changes the row and the records, and adds a link to the tenant's audit chain: all
    /// of it in one transaction, or nothing. Durable when it returns.
    fn append(&self, append: &Append<'_>) -> Result<(), AppendError>;

    /// Events of a task behind `after`, at most `limit`, in order.
    fn events(&self, task: TaskId, after: u64, limit: u32) -> Result<Vec<Recorded>, TaskLogError>;

    /// The row of a task.
    fn task(&self, task: TaskId) -> Result<Option<TaskRow>, TaskLogError>;

    /// Rows, newest first.
    fn list(&self, filter: &Filter) -> Result<Vec<TaskRow>, TaskLogError>;

    /// How many tasks have each status, of one tenant or of all.
    fn counts(&self, tenant: Option<&str>) -> Result<Vec<(String, u64)>, TaskLogError>;

    /// Takes up to `limit` tasks that have not ended, want to be worked on by now, and are leased by
    /// nobody; each gets the next epoch. Nodes that claim at once get different tasks.
    fn claim(&self, node: &str, lease_ms: i64, limit: u32) -> Result<Vec<Claim>, TaskLogError>;

    /// Prolongs leases that are still held under these epochs, and tells how the logs stand.
    fn renew(
        &self,
        node: &str,
        held: &[(TaskId, u64)],
        lease_ms: i64,
    ) -> Result<Vec<Renewed>, TaskLogError>;

    /// Gives a lease back, if it is still held under this epoch. The row stays as it is.
    fn release(&self, task: TaskId, epoch: u64) -> Result<(), TaskLogError>;

    /// Forgets the payloads of an ended task's events and its blobs; hashes stay. False where it has
    /// not ended.
    fn erase(&self, task: TaskId) -> Result<bool, TaskLogError>;

    /// Keeps bytes under their digest, for a task.
    fn put_blob(&self, task: TaskId, bytes: &[u8]) -> Result<Digest, TaskLogError>;

    /// The bytes of a digest that were kept for a task.
    fn blob(&self, task: TaskId, digest: Digest) -> Result<Option<Vec<u8>>, TaskLogError>;

    /// One record.
    fn record(&self, kind: Kind, tenant: &str, id: &str) -> Result<Option<Record>, TaskLogError>;

    /// Records of a kind in the order of their ids, behind `after`; `tenant` `None`: of all.
    fn records(
        &self,
        kind: Kind,
        tenant: Option<&str>,
        after: &str,
        limit: u32,
    ) -> Result<Vec<Record>, TaskLogError>;

    /// Records that are due at `now_ms`, the longest due first.
    fn due(&self, kind: Kind, now_ms: i64, limit: u32) -> Result<Vec<Record>, TaskLogError>;

    /// Makes all changes, or none.
    fn change(&self, changes: &[Change]) -> Result<(), AppendError>;

    /// Changes records and notes it in the tenant's register, all of it or nothing.
    fn note(&self, note: &Note, changes: &[Change]) -> Result<(), AppendError>;

    /// Links of a tenant's audit chain behind `after`, in order; `tenant` `None`: names of all tenants
    /// are those of [`TaskLog::tenants`].
    fn links(&self, tenant: &str, after: u64, limit: u32) -> Result<Vec<Link>, TaskLogError>;

    /// Tenants that have an audit chain.
    fn tenants(&self) -> Result<Vec<String>, TaskLogError>;
}
