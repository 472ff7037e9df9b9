//! The names of tasks.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// A task's id: a UUIDv7, so that ids sort by time. Written as `task_` and 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct TaskId(uuid::Uuid);

impl TaskId {
    /// The id of a task made at `unix_ms` (milliseconds since 1970), from 10 random bytes.
    pub fn new(unix_ms: i64, random: [u8; 10]) -> Self {
        let at = u64::try_from(unix_ms).unwrap_or(0);
        Self(uuid::Builder::from_unix_timestamp_millis(at, &random).into_uuid())
    }

    /// The id with these bytes, as [`TaskId::bytes`] gave them.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(uuid::Uuid::from_bytes(bytes))
    }

    /// The id under which a tenant's register stands among the logs of tasks, see [`crate::log::Note`].
    pub fn of_register(tenant: &str) -> Self {
        let digest = Digest::of_parts(&[b"register", tenant.as_bytes()]);
        let first = digest.bytes().first_chunk();
        Self::from_bytes(first.copied().unwrap_or_default())
    }

    /// Its 16 bytes, which sort as ids do.
    pub fn bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// Its 32 hex digits.
    pub fn hex(&self) -> String {
        self.0.simple().to_string()
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task_{}", self.0.simple())
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is no task's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a task id; one looks like task_ and 32 hex digits")]
pub struct ParseTaskIdError(String);

impl FromStr for TaskId {
    type Err = ParseTaskIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_prefix("task_")
            .and_then(|hex| uuid::Uuid::try_parse(hex).ok())
            .map(Self)
            .ok_or_else(|| ParseTaskIdError(text.chars().take(80).collect()))
    }
}

impl From<TaskId> for String {
    fn from(id: TaskId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for TaskId {
    type Error = ParseTaskIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}
