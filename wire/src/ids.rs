//! Names that travel: the request id, which is also the first part of every ledger key.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A call's id: a UUIDv7, so that ids sort by time. Written as `req_` and 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct RequestId(uuid::Uuid);

impl RequestId {
    /// Makes the id of a call that arrived at `unix_ms` (milliseconds since 1970) from 10 random bytes.
    pub fn new(unix_ms: u64, random: [u8; 10]) -> Self {
        Self(uuid::Builder::from_unix_timestamp_millis(unix_ms, &random).into_uuid())
    }

    /// The 16 bytes of the id, as stored in the ledger.
    pub fn bytes(&self) -> [u8; 16] {
        self.0.into_bytes()
    }

    /// When the call arrived, in milliseconds since 1970: the first 48 bits.
    pub fn unix_ms(&self) -> i64 {
        i64::try_from(u128::from_be_bytes(self.bytes()) >> 80).unwrap_or(i64::MAX)
    }

    /// The id as it is written, for headers.
    pub fn text(&self) -> [u8; 36] {
        let mut text = *b"req_00000000000000000000000000000000";
        if let Some(hex) = text.get_mut(4..) {
            self.0.as_simple().encode_lower(hex);
        }
        text
    }

    /// The id stored as these 16 bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(uuid::Uuid::from_bytes(bytes))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "req_{}", self.0.simple())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a request id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a request id; one looks like req_ and 32 hex digits")]
pub struct ParseRequestIdError(String);

impl FromStr for RequestId {
    type Err = ParseRequestIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_prefix("req_")
            .and_then(|hex| uuid::Uuid::try_parse(hex).ok())
            .map(Self)
            .ok_or_else(|| ParseRequestIdError(text.to_owned()))
    }
}

impl From<RequestId> for String {
    fn from(id: RequestId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for RequestId {
    type Error = ParseRequestIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}
