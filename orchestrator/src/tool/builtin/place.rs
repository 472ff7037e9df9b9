//! Where a file lies in a workspace: the one shape of path that tools may name. What the directory
//! handles would refuse anyway is refused here first, in words that a model can act on.

use super::workspace::Limits;

/// Folders of the workspace's own, which no tool names.
pub(super) const TRASH: &str = ".trash";
pub(super) const PENDING: &str = ".pending";
pub(super) const DONE: &str = ".done";

/// A relative path of plain names, separated by `/`. Empty: the workspace itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(String);

/// The path can not be one of a workspace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    #[error("the path is empty; name a file such as notes/draft.md")]
    Empty,
    #[error("`{0}` leaves the workspace; name a path below it, without `..` and not from `/`")]
    Leaves(String),
    #[error(
        "`{0}` is no plain path; separate plain names by `/`, without control characters or `\\`"
    )]
    NotPlain(String),
    #[error("`{0}` is kept by the workspace itself; choose another name")]
    Reserved(String),
    #[error("`{0}` is more than {1} folders deep")]
    TooDeep(String, usize),
    #[error("a name in `{0}` is longer than {1} bytes")]
    TooLong(String, usize),
}

impl Place {
    /// The workspace itself.
    pub fn root() -> Self {
        Self(String::new())
    }

    /// Reads the path of a file or folder.
    ///
    /// # Errors
    /// When it is not one of a workspace, or longer or deeper than `limits`.
    pub fn read(text: &str, limits: &Limits) -> Result<Self, PlaceError> {
        let shown = || text.chars().take(120).collect::<String>();
        let text_of = text.strip_prefix("./").unwrap_or(text);
        let text_of = text_of.strip_suffix('/').unwrap_or(text_of);
        if text_of.is_empty() {
            return Err(PlaceError::Empty);
        }
        if text_of.contains('\\') || text_of.chars().any(char::is_control) {
            return Err(PlaceError::NotPlain(shown()));
        }
        if text_of.starts_with('/') || text_of.split('/').any(|name| name == "..") {
            return Err(PlaceError::Leaves(shown()));
        }
        let names: Vec<&str> = text_of.split('/').collect();
        if names.iter().any(|name| name.is_empty() || *name == ".") {
            return Err(PlaceError::NotPlain(shown()));
        }
        let own = [TRASH, PENDING, DONE];
        if names.first().is_some_and(|first| own.contains(first)) {
            return Err(PlaceError::Reserved(shown()));
        }
        if names.len() > limits.depth {
            return Err(PlaceError::TooDeep(shown(), limits.depth));
        }
        if names.iter().any(|name| name.len() > limits.name_bytes) {
            return Err(PlaceError::TooLong(shown(), limits.name_bytes));
        }
        Ok(Self(text_of.to_owned()))
    }

    /// As it is shown, and as the file system takes it below the workspace.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands behind the last dot of its name, in lower case.
    pub fn suffix(&self) -> String {
        let name = self.0.rsplit('/').next().unwrap_or_default();
        let suffix = name.rsplit_once('.').map_or("", |(_, suffix)| suffix);
        suffix.to_ascii_lowercase()
    }

    /// The folder it lies in, where that is not the workspace itself.
    pub(super) fn folder(&self) -> Option<&str> {
        self.0.rsplit_once('/').map(|(folder, _)| folder)
    }

    /// The place of `name` in this folder.
    pub(super) fn below(&self, name: &str) -> Self {
        if self.0.is_empty() {
            Self(name.to_owned())
        } else {
            Self(format!("{}/{name}", self.0))
        }
    }
}
