//! A new process takes over from a running one, under load: listening sockets, budgets and journal change
//! hands while calls go on. The old one keeps the calls that it serves, and the new one keeps their money.
//!
//! They speak over a Unix socket in the store's folder, one JSON document a line:
//!
//! 1. The new process has read its configuration and built what needs no store. It says `hello`, and gets
//!    the listening sockets. Until here nothing has changed; whatever fails ends the new process alone.
//! 2. It says `take`. The old one stops accepting and takes no more records into its journal: calls that
//!    want a hold wait, settlements are gathered. It brings everything into the ledger, lets go of the
//!    journal, and says `yours` with what is written down nowhere.
//! 3. The new one opens the store. Open holds are those of the old one's calls: they count in its budgets.
//!    It says `ready`. Should it fail before, the old one takes its journal up again and goes on.
//! 4. The old one says `go`. From here on the new one accepts and writes. The old one's journal is the
//!    connection: it sends each settlement, and asks for the holds that its last calls still need. Where it
//!    ends, what is not settled is charged at its bound, as after a crash.

mod give;
mod journal;
mod predecessor;
mod successor;
mod take;

use std::path::{Path, PathBuf};

use meter::{Denied, Entry, Held, JournalError, Position, Rate};
use serde::{Deserialize, Serialize};

pub(crate) use give::{Giver, offer};
pub(crate) use journal::MovingJournal;
pub(crate) use predecessor::serve;
pub(crate) use take::{Predecessor, Taking, ask};

/// Which of these protocols it is: processes that speak another do not take over from each other.
const VERSION: u32 = 1;

/// Where a process waits for its successor.
fn path(dir: &Path) -> PathBuf {
    dir.join("hand-over.sock")
}

/// What the old process leaves beside what is written down.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Estate {
    /// What is used of rate limits in their present minutes.
    pub(crate) rates: Vec<Rate>,
}

/// What the new process says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FromNew {
    Hello {
        version: u32,
    },
    Take,
    Ready,
    Held(Position),
    Denied(Denied),
    Settled,
    Unsettled(JournalError),
    /// Everything before it is on the disk.
    Synced(Position),
}

/// What the old process says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FromOld {
    /// The listening sockets come with it: the callers', and the operators'.
    Listeners,
    Refused(String),
    Yours(Estate),
    Go,
    Hold(Box<Held>),
    Settle(Box<Entry>),
}

/// A message as a line.
fn line(message: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}
