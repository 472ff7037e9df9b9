//! Where money is written down: the journal of this node, and the ledger in SQLite behind it.
//! The only place with SQL. [`open`] replays what an earlier process left before it returns.

pub mod archive;
pub mod config;
pub mod journal;
pub mod recorder;
pub mod sqlite;

pub use archive::SqliteArchive;
pub use config::Config;
pub use journal::FileJournal;
pub use recorder::{Lag, OpenError, Report, Store, open};
pub use sqlite::SqliteLedger;
