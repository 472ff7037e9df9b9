//! What a call costs and who may spend it: money, prices, budgets, holds, and the ports to storage.
//! The rules are pure: time comes in as an argument, and nothing here reads a clock or spawns.

#![deny(
    clippy::float_arithmetic,
    clippy::integer_division,
    reason = "money is whole numbers"
)]
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        reason = "a sum that overflows must be seen to be handled"
    )
)]

mod account;
mod alarm;
pub mod books;
pub mod budget;
mod carried;
pub mod config;
pub mod entry;
pub mod finance;
pub mod hold;
pub mod lease;
pub mod ledger;
pub mod money;
pub mod point;
pub mod price;
pub mod routing;
pub mod sell;
pub mod standing;
pub mod tokens;
pub mod window;

pub use account::ConfigureError;
pub use budget::{BadOverride, Override};
pub use carried::Rate;
pub use config::Config;
pub use entry::{Charge, Entry, Held, Outcome, Record, Subject};
pub use finance::Finance;
pub use hold::{Denied, Estimate, Hold, Meter, Posture};
pub use ledger::{Journal, JournalError, Ledger, LedgerError, Past, Position};
pub use money::NanoUsd;
pub use price::{PriceBook, Rates};
pub use routing::{Appraiser, Feedback, Routing, VerdictKind, Verdicts, Worth};
pub use sell::SellBook;
pub use standing::{Standing, Unit};

/// A map by names that operators choose and not callers, so that nobody can choose ones that meet.
type Map<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;
