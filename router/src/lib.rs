//! Which tier and model answers a call, and why. Pure: no I/O, no clock, nothing allocated between
//! a request and its route.

pub mod cascade;
pub mod check;
pub mod config;
pub mod decide;
pub mod estimate;
pub mod features;
pub mod learn;
pub mod policy;
pub mod rules;
pub mod score;
pub mod split;
pub mod step;
pub mod switch;

pub use cascade::{Band, Cascade};
pub use config::Config;
pub use decide::{Asked, NoModel, Order, Outlook, Quote, Reason, Route, Wanted, barred, decide};
pub use features::Features;
pub use learn::{Head, Learner};
pub use policy::{Model, Needs, Policy, PolicyError};
pub use rules::{Barred, Caller, Rule, Rules, Ruling};
pub use score::{Layers, Score, layers, score, version};
pub use split::Split;
pub use step::{Step, StepPriors};
