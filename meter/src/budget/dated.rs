//! Dated changes of limits: which are taken.

use super::Override;
use crate::standing::Standing;

/// Why a dated change of a limit is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadOverride {
    #[error("no budget `{0}`; `pareto budgets list` shows their ids")]
    Unknown(String),
    #[error("it adds nothing and takes nothing away; give an amount")]
    Nothing,
    #[error("it would end before it begins; give a later end")]
    Ends,
    #[error("it would have ended already; give an end that is to come")]
    Past,
    #[error("the author and the reason must say something")]
    Unsigned,
}

impl Override {
    /// Holds that it changes a limit of `standings`, or one that a pattern makes later, and says who wants it.
    ///
    /// # Errors
    /// Why it does not.
    pub fn check(&self, standings: &[Standing], now_ms: i64) -> Result<(), BadOverride> {
        let makes = |it: &Standing| {
            let rest = self.budget.strip_prefix(&it.id);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        // One of a pattern is there once somebody has called; its id has three parts.
        let is_of_pattern = self.budget.matches('/').count() > 1;
        if !is_of_pattern && !standings.iter().any(makes) {
            return Err(BadOverride::Unknown(self.budget.clone()));
        }
        let says = |text: &str| !text.trim().is_empty();
        if self.amount == 0 {
            Err(BadOverride::Nothing)
        } else if self.until_ms <= self.from_ms {
            Err(BadOverride::Ends)
        } else if self.until_ms <= now_ms {
            Err(BadOverride::Past)
        } else if !says(&self.author) || !says(&self.reason) {
            Err(BadOverride::Unsigned)
        } else {
            Ok(())
        }
    }
}
