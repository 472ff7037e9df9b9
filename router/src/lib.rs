//! Which tier and model answers a call, and why. Pure: no I/O, no clock, nothing allocated between
//! a request and its route.

pub mod cascade;
pub mod config;
pub mod decide;
pub mod features;
pub mod policy;
pub mod score;
pub mod split;

pub use cascade::{Band, Cascade};
pub use config::Config;
pub use decide::{Asked, NoModel, Order, Reason, Route, Wanted, decide, deeper};
pub use features::Features;
pub use policy::{Model, Policy, PolicyError};
pub use score::{Score, score, version};
pub use split::Split;
