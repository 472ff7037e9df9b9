//! The gateway: callers' requests in, models' answers out, every call routed, held and settled.
//! Start at [`gateway`] for the way of a request, at [`boot`] for the life of the process.

pub mod admin;
pub mod assemble;
mod attempt;
mod background;
mod books;
pub mod boot;
mod calls;
mod cascade;
mod chores;
pub mod cli;
pub mod clock;
pub mod config;
mod context;
mod count;
mod economy;
mod edge;
pub mod gateway;
mod hints;
mod http1;
pub mod identify;
mod intake;
mod joined;
mod learning;
mod leasing;
mod names;
pub mod outbound;
mod pages;
mod prepare;
pub mod refusal;
mod relay;
mod responses;
mod routing;
pub mod runtime;
mod serve;
pub mod tasks;
pub mod telemetry;
mod thrift;
mod trace;
mod upstream;
mod webhook;
mod workers;
mod worth;

pub use config::Config;
pub use gateway::{Body, Gateway};
