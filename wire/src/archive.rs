//! The port to what the gateway keeps of conversations: responses, conversations, turns with private
//! parts, origins of signatures, summaries. `store` implements it; the arrow points from there to here.

use std::fmt;

/// A kind of document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shelf {
    /// Answers of the Responses dialect, with what was asked.
    Response,
    /// Conversations of the Responses dialect.
    Conversation,
    /// Turns whose private parts the caller's dialect can not carry.
    Turn,
    /// Which origin made a signature.
    Seal,
    /// Summaries of turns that did not fit a window.
    Summary,
    /// Tool results that were shortened to fit one, whole.
    Result,
    /// How far a transcript was shortened for a model.
    Shape,
    /// Single items of the Responses dialect, which calls may name by their id.
    Item,
}

impl Shelf {
    /// Every shelf.
    pub const ALL: [Self; 8] = [
        Self::Response,
        Self::Conversation,
        Self::Turn,
        Self::Seal,
        Self::Summary,
        Self::Result,
        Self::Shape,
        Self::Item,
    ];

    /// The word it goes by in storage.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Response => "response",
            Self::Conversation => "conversation",
            Self::Turn => "turn",
            Self::Seal => "seal",
            Self::Summary => "summary",
            Self::Result => "result",
            Self::Shape => "shape",
            Self::Item => "item",
        }
    }
}

/// Where a document stands. Tenants never see each other's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    pub shelf: Shelf,
    pub tenant: String,
    pub id: String,
}

/// The archive failed to answer or to take what it was given.
#[derive(Debug, thiserror::Error)]
#[error("archive {what}: {cause}")]
pub struct ArchiveError {
    /// What was being done, for instance `read a document`.
    pub what: &'static str,
    pub cause: String,
}

/// Durable documents by place. All methods block; call them off the reactor.
pub trait Archive: Send + Sync + fmt::Debug {
    /// Puts documents, replacing those at the same places; `None` removes. All or nothing.
    fn put(&self, changes: &[(Place, Option<String>)], at_ms: i64) -> Result<(), ArchiveError>;

    /// The document at `place`.
    fn get(&self, place: &Place) -> Result<Option<String>, ArchiveError>;

    /// The latest documents of a shelf, at most `limit`.
    fn latest(&self, shelf: Shelf, limit: u32) -> Result<Vec<(Place, String)>, ArchiveError>;

    /// Removes what was put before `before_ms`; returns how many documents.
    fn prune(&self, before_ms: i64) -> Result<u64, ArchiveError>;

    /// Bytes of all documents.
    fn bytes(&self) -> Result<u64, ArchiveError>;

    /// Removes the oldest documents until what is left takes at most `most` bytes; returns how many
    /// went. In steps, so that others are not kept waiting.
    fn shrink(&self, most: u64) -> Result<u64, ArchiveError>;
}
