//! What step of an agent's work a call is.

use serde::{Deserialize, Serialize};

use crate::features::Features;

/// A kind of step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    #[default]
    Chat,
    Plan,
    Act,
    Digest,
    Summarise,
    Verify,
    Repair,
}

impl Step {
    pub const ALL: [Self; 7] = [
        Self::Chat,
        Self::Plan,
        Self::Act,
        Self::Digest,
        Self::Summarise,
        Self::Verify,
        Self::Repair,
    ];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Plan => "plan",
            Self::Act => "act",
            Self::Digest => "digest",
            Self::Summarise => "summarise",
            Self::Verify => "verify",
            Self::Repair => "repair",
        }
    }

    pub fn of(_features: &Features<'_>) -> Self {
        Self::Chat
    }
}
