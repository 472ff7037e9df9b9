//! What a call costs and who may spend it: money, prices, budgets, holds, and the ports to storage.
//! The rules are pure: time comes in as an argument, and nothing here reads a clock or spawns.

pub mod config;
pub mod money;
pub mod price;
pub mod budget;
pub mod entry;
pub mod ledger;
pub mod hold;

pub use config::Config;
pub use entry::{Entry, Held, Outcome, Record, Subject};
pub use hold::{Denied, Estimate, Hold, Meter};
pub use ledger::{Journal, JournalError, Ledger, LedgerError, Position};
pub use money::NanoUsd;
pub use price::{PriceBook, Rates};
