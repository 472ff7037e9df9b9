//! A journal for commands that only look.

use meter::ledger::Synced;
use meter::{Journal, JournalError, Position, Record};

/// It takes nothing.
#[derive(Debug)]
pub struct Nowhere;

impl Journal for Nowhere {
    fn append(&self, _: &Record) -> Result<Position, JournalError> {
        Err(JournalError {
            path: "none".to_owned(),
            what: "this command only looks".to_owned(),
        })
    }

    fn synced(&self, _: Position) -> Synced<'_> {
        Box::pin(std::future::ready(Ok(())))
    }
}
