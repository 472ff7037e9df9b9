//! Where money and work are written down: the journal of this node, the ledger in SQLite or PostgreSQL
//! behind it, and the log of tasks. The only place with SQL. [`open`] replays what an earlier process left before it returns.

pub mod archive;
mod books;
pub mod config;
mod finance;
pub mod journal;
pub mod ledger;
mod record;
pub mod recorder;
pub mod sql;
pub mod tasks;
mod verdicts;

pub use archive::SqliteArchive;
pub use config::Config;
pub use journal::FileJournal;
pub use ledger::SqlLedger;
pub use recorder::{Commit, Lag, OpenError, Report, Store, open};
pub use tasks::{SqlTaskLog, open_task_log};
