//! The ports to storage. `store` implements them; the arrow points from there to here.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use serde::{Deserialize, Serialize};
use wire::{RequestId, Usage};

use crate::budget::Override;
use crate::hold::{Decision, Denied};
use crate::lease::{Leased, Want};
use crate::{Entry, Held, NanoUsd, Record};

/// A byte position in the journal. Positions grow for ever, over all segments of the file.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Position(pub u64);

/// The journal has not taken what it was given; what it says tells whether it ever will.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("journal {path}: {what}")]
pub struct JournalError {
    pub path: String,
    pub what: String,
}

/// A future that the journal hands out.
pub type Synced<'a> = Pin<Box<dyn Future<Output = Result<(), JournalError>> + Send + 'a>>;

/// An append-only, checksummed file of this node.
pub trait Journal: Send + Sync + std::fmt::Debug {
    /// Writes `record` to the file and returns the position just behind it. When this returns, the
    /// record survives the death of the process; it survives the death of the machine once
    /// [`Journal::synced`] of the returned position is done. Costs one short `write`.
    ///
    /// # Errors
    /// When the write failed, or an earlier write or sync did: a journal that failed once refuses.
    fn append(&self, record: &Record) -> Result<Position, JournalError>;

    /// As [`Journal::enter`], for a hold. A journal that another process keeps may deny it: that process
    /// knows what else is spent of its budgets.
    ///
    /// # Errors
    /// As [`Journal::enter`], and where the budgets of the other process have no room.
    fn hold(&self, record: &Record) -> Result<Position, Denied> {
        Ok(self.enter(record)?)
    }

    /// Takes `record` without writing it yet, so that records that come together share one `write`: it
    /// survives the death of the process once [`written`] of the returned position is done.
    ///
    /// # Errors
    /// As [`Journal::append`].
    fn enter(&self, record: &Record) -> Result<Position, JournalError> {
        self.append(record)
    }

    /// Whether everything before `position` is in the file.
    fn is_written(&self, _position: Position) -> bool {
        true
    }

    /// Writes what has been entered, unless everything before `position` is written by now.
    ///
    /// # Errors
    /// When the write failed: none of what was entered and not written counts.
    fn write(&self, _position: Position) -> Result<(), JournalError> {
        Ok(())
    }

    /// Waits until everything before `position` is on the disk.
    fn synced(&self, position: Position) -> Synced<'_>;

    /// Whether it takes nothing any more, whatever is freed or mended: only a start reads again what the disk
    /// has.
    fn is_over(&self) -> bool {
        false
    }
}

/// Waits until everything before `position` is in the file of `journal`. Whoever waits lets the other
/// tasks of its thread have their turn first; then the first to come round again writes for all of them.
///
/// # Errors
/// As [`Journal::write`].
pub async fn written(journal: &dyn Journal, position: Position) -> Result<(), JournalError> {
    let mut is_round = false;
    std::future::poll_fn(|context| {
        if journal.is_written(position) {
            return Poll::Ready(Ok(()));
        }
        if is_round {
            return Poll::Ready(journal.write(position));
        }
        is_round = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

/// The ledger failed to answer or to take what it was given.
#[derive(Debug, thiserror::Error)]
#[error("ledger {what}: {cause}")]
pub struct LedgerError {
    /// What was being done, for instance `read hourly rollups`.
    pub what: &'static str,
    pub cause: String,
}

/// Settled spend of one subject, summed over some hours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spent {
    pub tenant: Arc<str>,
    pub team: Arc<str>,
    pub project: Arc<str>,
    pub key: Arc<str>,
    pub user: Arc<str>,
    pub model: Arc<str>,
    pub cost: NanoUsd,
    /// The start of the hour it lies in, in milliseconds since 1970.
    pub start_ms: i64,
}

/// What the ledger knows of one node's part of a budget's window. Amounts are in the budget's unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The budget's id.
    pub budget: Arc<str>,
    pub start_ms: i64,
    /// Empty for what was there before the budget, and for corrections.
    pub node: Arc<str>,
    pub tenant: Arc<str>,
    /// What the node may spend in all, where budgets are shared by nodes.
    pub granted: i64,
    /// What it has spent.
    pub settled: i64,
}

/// Something to be told to whoever listens, at least once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tell {
    /// The same for the same event, however often it is noticed.
    pub id: String,
    /// What it is about, for instance `budget.threshold`.
    pub topic: String,
    /// A JSON document.
    pub payload: String,
    pub at_ms: i64,
}

/// What a usage table is grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dimension {
    Tenant,
    Team,
    Project,
    Key,
    User,
    Workflow,
    Model,
    Endpoint,
    Tier,
    Lane,
    /// What rated it: offer, period, lane.
    Price,
    /// Calendar day in UTC, written `2026-11-21`.
    Day,
    /// Hour in UTC, written `2026-11-21T14`.
    Hour,
}

/// A question about use. Times are milliseconds since 1970; `until_ms` is exclusive, and both are
/// rounded down to whole hours, because the answer comes from rollups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UsageQuery {
    pub from_ms: Option<i64>,
    pub until_ms: Option<i64>,
    pub tenant: Option<String>,
    /// Grouping, in the order of the answer's `group`.
    pub by: Vec<Dimension>,
}

/// One line of a usage table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UsageRow {
    /// The value of each dimension asked for, in order.
    pub group: Vec<String>,
    /// Attempts that reached an upstream.
    pub calls: u64,
    /// Attempts among them that cost nothing because the upstream refused or failed.
    pub failed: u64,
    pub usage: Usage,
    pub cost: NanoUsd,
    pub baseline: NanoUsd,
    pub list: NanoUsd,
    pub sell: NanoUsd,
}

/// A process that shares the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Node {
    pub name: String,
    /// `live` or `retired`.
    pub state: String,
    pub seen_at_ms: i64,
    /// Until when it may spend from its slices.
    pub lease_until_ms: i64,
    /// Granted to it in windows still open, and not settled, in nano-USD.
    pub unsettled: NanoUsd,
}

/// A key as stored: never its secret, only a keyed hash of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRow {
    /// The public id, the middle part of `sk-par-<id>-<secret>`.
    pub id: String,
    /// HMAC-SHA-256 of the secret under the pepper.
    pub hmac: [u8; 32],
    pub tenant: String,
    pub team: String,
    pub project: String,
    /// What people call it.
    pub label: String,
    pub created_at_ms: i64,
    pub revoked_at_ms: Option<i64>,
}

/// What was spent before: what budgets are taken up with. All methods block.
pub trait Past {
    /// Settled spend in the hours from `from_ms` on, summed by subject (from the rollups).
    fn spent(&self, from_ms: i64) -> Result<Vec<Spent>, LedgerError>;

    /// What is known of budgets' windows that begin at `from_ms` or later, and of those without end.
    fn windows(&self, from_ms: i64) -> Result<Vec<Known>, LedgerError>;

    /// Writes down windows as they begin; those that were there stay as they are.
    fn begin_windows(&self, begun: &[Known]) -> Result<(), LedgerError>;
}

/// The shared, durable book. All methods block; call them off the reactor.
pub trait Ledger: Past + Send + Sync + std::fmt::Debug {
    /// Holds of this node that nothing has settled.
    fn open_holds(&self) -> Result<Vec<Held>, LedgerError>;

    /// Answers a usage question from the rollups, rows in order of their group.
    fn usage(&self, query: &UsageQuery) -> Result<Vec<UsageRow>, LedgerError>;

    /// Every entry of one call, by attempt; holds still open come back in the second list.
    fn call(&self, request: RequestId) -> Result<(Vec<Entry>, Vec<Held>), LedgerError>;

    /// The latest entries, newest first, at most `limit`.
    fn latest(&self, limit: u32) -> Result<Vec<Entry>, LedgerError>;

    /// The latest moment at which a hold was made, in milliseconds since 1970; 0 in an empty ledger.
    fn latest_ms(&self) -> Result<i64, LedgerError>;

    /// A number that changes when keys, limits' changes or corrections have.
    fn version(&self) -> Result<u64, LedgerError>;

    /// Notes how a task ended; `false` where no call of it has been settled yet. What was noted before is
    /// overwritten, so it may be told any number of times.
    fn end_task(&self, tenant: &str, task: &str, outcome: &str) -> Result<bool, LedgerError>;

    /// Writes events to the outbox; those whose id is there change nothing. Returns how many are new.
    fn tell(&self, events: &[Tell]) -> Result<usize, LedgerError>;

    /// One round of leasing for this node; see [`crate::lease`].
    ///
    /// # Errors
    /// When the ledger does not answer, or a person has retired this node.
    fn lease(&self, wants: &[Want], now_ms: i64) -> Result<Leased, LedgerError>;

    /// Forgets slices of minutes before `before_ms`: rates are not accounts. Returns how many.
    fn forget_minutes(&self, before_ms: i64) -> Result<u64, LedgerError>;

    /// Who this process is among the nodes that share the ledger.
    fn node(&self) -> &str;

    /// Dated changes of limits.
    fn overrides(&self) -> Result<Vec<Override>, LedgerError>;

    /// Writes down a dated change of a limit.
    fn add_override(&self, change: &Override) -> Result<(), LedgerError>;

    /// Adds what budgets decided.
    fn decided(&self, decisions: &[Decision]) -> Result<(), LedgerError>;

    /// Every node that ever shared the ledger.
    fn nodes(&self) -> Result<Vec<Node>, LedgerError>;

    /// Takes a dead node out: its open holds are charged at their bound, and what was granted to it
    /// beyond that is free for others. `false` where the node still holds a lease at `now_ms`.
    fn retire(&self, node: &str, now_ms: i64) -> Result<bool, LedgerError>;

    /// Adds a key.
    fn add_key(&self, key: &KeyRow) -> Result<(), LedgerError>;

    /// Revokes a key; `false` where there is no such key or it was revoked before.
    fn revoke_key(&self, id: &str, at_ms: i64) -> Result<bool, LedgerError>;

    /// All keys, oldest first.
    fn keys(&self) -> Result<Vec<KeyRow>, LedgerError>;

    /// Loads small named state (the routers' split counters), by name.
    fn state(&self) -> Result<Vec<(String, String)>, LedgerError>;

    /// Saves small named state, replacing what was there.
    fn save_state(&self, state: &[(String, String)]) -> Result<(), LedgerError>;
}
