//! Why something that a person wants of a task is not done: one answer each, with a code that stays.

use crate::actor::LoadError;
use crate::brief::BadBrief;
use crate::log::{AppendError, TaskLogError};
use crate::state::Impossible;

/// A refusal, as RFC 9457 has it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// As in HTTP.
    pub status: u16,
    /// A word that clients may act on.
    pub code: &'static str,
    pub message: String,
    /// The field of the request that it is about.
    pub field: Option<String>,
    /// The methods that the path takes, where the request's is none of them.
    pub allow: Option<String>,
}

impl Problem {
    /// A problem with a request as a whole.
    pub fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            field: None,
            allow: None,
        }
    }

    /// A field whose value can not be taken.
    pub fn field(field: impl Into<String>, message: impl Into<String>) -> Self {
        let field = field.into();
        Self {
            status: 422,
            code: "invalid_request",
            message: format!("`{field}`: {}", message.into()),
            field: Some(field),
            allow: None,
        }
    }

    /// There is no such thing, or none that this caller may know of.
    pub fn missing(what: &str, id: &str) -> Self {
        let id: String = id.chars().take(80).collect();
        Self::new(404, "not_found", format!("there is no {what} `{id}`"))
    }

    /// The task has ended, and nothing can be done to it any more.
    pub fn ended(status: &str) -> Self {
        Self::new(
            409,
            "task_ended",
            format!("the task has ended ({status}); begin another with POST /v1/tasks"),
        )
    }

    /// The log does not answer.
    pub fn unavailable(error: &TaskLogError) -> Self {
        tracing::error!(%error, "the log of tasks does not answer");
        Self::new(
            503,
            "task_log_unavailable",
            "the log of tasks does not answer now; try again",
        )
    }

    /// Others were always faster.
    pub fn busy() -> Self {
        Self::new(
            503,
            "busy",
            "the task changes faster than this could be written; try again",
        )
    }
}

impl From<TaskLogError> for Problem {
    fn from(error: TaskLogError) -> Self {
        Self::unavailable(&error)
    }
}

impl From<AppendError> for Problem {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Failed(error) => Self::unavailable(&error),
            AppendError::Changed(kind, id) => Self::new(
                409,
                "changed_meanwhile",
                format!(
                    "{} `{id}` has changed meanwhile; look at it again",
                    kind.as_str()
                ),
            ),
            AppendError::Behind | AppendError::Fenced => Self::busy(),
        }
    }
}

impl From<Impossible> for Problem {
    fn from(error: Impossible) -> Self {
        tracing::error!(%error, "a task's log can not be followed");
        Self::new(
            500,
            "broken_log",
            "the task's log can not be followed; ask the operator to run `pareto audit verify`",
        )
    }
}

impl From<LoadError> for Problem {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Log(error) => error.into(),
            LoadError::Wrong(error) => error.into(),
        }
    }
}

impl From<BadBrief> for Problem {
    fn from(error: BadBrief) -> Self {
        Self::field(error.at, error.what)
    }
}
