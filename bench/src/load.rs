//! The load generator: open loop, latency from the planned start, several targets in turns.

// How a run is told.
pub mod compare;
pub mod figures;
pub mod page;
pub mod report;
pub mod stats;
pub mod steps;

// One window of load against one target.
mod feed;
pub mod process;
mod tally;
pub mod window;
mod worker;

// What goes over the wire.
mod agent;
pub mod call;
pub mod chance;
pub mod clock;
pub(crate) mod events;
pub(crate) mod http;
mod wire;

pub use call::{Ask, Dialect, Shape};
pub use tally::{Errors, Tally};
pub use window::{Plan, Target, Workload};
