//! The store's part of the configuration.

use std::path::PathBuf;

use serde::Deserialize;

/// `[store]`: where and how safely things are written down.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The folder of the ledger, the journal and generated secrets.
    pub dir: PathBuf,
    /// When a hold counts as durable.
    pub journal_sync: Sync,
    /// Bytes after which the journal begins a new file.
    pub journal_segment_bytes: u64,
}

/// When the first byte of an answer may go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sync {
    /// Once the hold is on the disk; many calls share one sync. Survives power loss.
    Group,
    /// Once it is written to the file. Survives the death of the process.
    Off,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("pareto-data"),
            journal_sync: Sync::Group,
            journal_segment_bytes: 64 << 20,
        }
    }
}
