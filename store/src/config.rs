//! The store's part of the configuration.

use std::path::PathBuf;

use serde::Deserialize;

/// `[store]`: where and how safely things are written down.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The address of a PostgreSQL database that holds the ledger for many nodes; a file in `dir`
    /// holds it for this node alone if absent.
    pub postgres: Option<Address>,
    /// The folder of the ledger, the journal and generated secrets.
    pub dir: PathBuf,
    /// When a hold counts as durable.
    pub journal_sync: Sync,
    /// How often the disk is asked with `journal_sync = "interval"`, in milliseconds.
    pub journal_sync_ms: u32,
    /// Bytes after which the journal begins a new file.
    pub journal_segment_bytes: u64,
}

/// When the first byte of an answer may go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sync {
    /// Once the hold is on the disk; many calls share one sync. Survives power loss.
    Group,
    /// Once it is written to the file, which is synced every `journal_sync_ms`. Survives the death of the
    /// process; power loss may take that long of it.
    Interval,
    /// Once it is written to the file, which reaches the disk when the system thinks best, a second later
    /// at most. Survives the death of the process.
    Off,
}

/// An address with a password in it, which is never printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Address(pub String);

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            postgres: None,
            dir: PathBuf::from("pareto-data"),
            journal_sync: Sync::Group,
            journal_sync_ms: 10,
            journal_segment_bytes: 16 << 20,
        }
    }
}
